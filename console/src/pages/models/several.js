// A choice of several of many.

import { useId, useState } from 'preact/hooks';
import { html } from '../../parts/html.js';
import { t } from '../../words.js';

const MOST_SHOWN = 100;

/**
 * Several of many: those that are chosen first, and as many of the others as one can look through.
 *
 * @param {{legend: string, choices: Array<{key: any, text: string, more?: string}>, value: any[], onValue: (value: any[]) => void, hint?: string, fault?: string}} props
 */
export function Several({ legend, choices, value, onValue, hint, fault }) {
  const [search, setSearch] = useState('');
  const id = useId();
  const chosen = new Set(value ?? []);
  const terms = search.toLowerCase().split(/\s+/).filter(Boolean);
  const known = new Set(choices.map((one) => one.key));
  const lost = [...chosen].filter((key) => !known.has(key)).map((key) => ({ key, text: String(key), more: t('deploy.not-there') }));
  const found = choices.filter((one) => chosen.has(one.key) || terms.every((term) => `${one.text} ${one.more ?? ''}`.toLowerCase().includes(term)));
  const shown = [...lost, ...found.filter((one) => chosen.has(one.key)), ...found.filter((one) => !chosen.has(one.key)).slice(0, MOST_SHOWN)];
  const turn = (/** @type {any} */ key) => onValue(chosen.has(key) ? [...chosen].filter((one) => one !== key) : [...chosen, key]);
  return html`<fieldset class="several"><legend>${legend}</legend>
    ${choices.length > 12 ? html`<input type="search" aria-label=${t('deploy.find-in', { what: legend })} placeholder=${t('deploy.find')} value=${search} onInput=${(/** @type {any} */ e) => setSearch(e.currentTarget.value)} />` : null}
    <div class="choices">
      ${shown.map(
        (one, at) =>
          html`<label key=${one.key} for=${`${id}-${at}`}><input type="checkbox" id=${`${id}-${at}`} checked=${chosen.has(one.key)} onChange=${() => turn(one.key)} /><span>${one.text}${one.more ? html` <small>${one.more}</small>` : null}</span></label>`,
      )}
      ${shown.length ? null : html`<span class="muted">${t('deploy.none-there')}</span>`}
    </div>
    ${hint ? html`<small>${hint}</small>` : null} ${fault ? html`<small class="fault">${fault}</small>` : null}
  </fieldset>`;
}
