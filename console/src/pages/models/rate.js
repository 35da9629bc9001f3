// How fast a model is now, and when it was used last.

import { number } from '../../format.js';
import { store } from '../../live.js';
import { html } from '../../parts/html.js';
import { Ago } from '../../parts/time.js';
import { t } from '../../words.js';

/** What these write is no text: their speed is that at which they read. */
const READERS = new Set(['embedding', 'reranker']);

/** Tokens a second; `undefined` where nobody can say. @param {any} model brief */
function rateOf(model) {
  const rate = store.rates.value.get(model.id);
  if (!rate || !model.replicas) return undefined;
  const categories = model.categories ?? [];
  return categories.length && categories.every((/** @type {string} */ one) => READERS.has(one)) ? rate.prompt_tokens_per_second : rate.tokens_per_second;
}

/** @param {number | undefined} value */
const shown = (value) => number(value, value !== undefined && value < 10 ? 1 : 0);

/** @param {{model: any, unit?: boolean, before?: string}} props `unit`: with the words that say what it is */
export function Rate({ model, unit, before = '' }) {
  const rate = store.rates.value.get(model.id);
  const value = rateOf(model);
  if (unit && value === undefined) return null;
  const title = rate ? t('models.rate-of', { written: shown(rate.tokens_per_second), read: shown(rate.prompt_tokens_per_second) }) : undefined;
  return html`${before}<span class=${value ? 'num' : 'num muted'} title=${title}>${unit ? t('models.rate-is', { rate: shown(value) }) : shown(value)}</span>`;
}

/** When it was used last: as the stream says, or as usage has it. @param {number} id @param {string | null} [stored] */
export function lastUseOf(id, stored) {
  const told = store.rates.value.get(id)?.last_used_at;
  return told && (!stored || Date.parse(told) > Date.parse(stored)) ? told : stored;
}

/** The same as a component, since rows are not drawn again for a rate. @param {{id: number, stored?: string | null}} props */
export const LastUse = ({ id, stored }) => html`<${Ago} at=${lastUseOf(id, stored)} />`;
