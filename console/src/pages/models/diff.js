// Fields that differ: what each was, and what it becomes.

import { html } from '../../parts/html.js';
import { t } from '../../words.js';
import { isEmpty } from './spec.js';

/** @param {any} value */
function written(value) {
  if (isEmpty(value)) return html`<i class="muted">${t('model.nothing')}</i>`;
  if (Array.isArray(value) && value.every((one) => typeof one !== 'object')) return value.join('\n');
  return typeof value === 'object' ? JSON.stringify(value, null, 1) : String(value);
}

/** @param {{fields: Record<string, {from?: any, to?: any}>}} props */
export const Diff = ({ fields }) =>
  html`<dl class="diff">
    ${Object.entries(fields).map(
      ([name, { from, to }]) =>
        html`<div key=${name}><dt>${name}</dt>
          <dd><del><span class="unseen">${t('model.was')} </span>${written(from)}</del><ins><span class="unseen">${t('model.becomes')} </span>${written(to)}</ins></dd></div>`,
    )}
  </dl>`;
