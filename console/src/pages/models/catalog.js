// The catalog: families of models, and the deployments that each offers.

import { useState } from 'preact/hooks';
import { Empty } from '../../parts/button.js';
import { html } from '../../parts/html.js';
import { Fault, useFetched, Waiting } from '../../parts/page.js';
import { t } from '../../words.js';
import { readable } from '../files/kept.js';
import { typed } from './fields.js';
import { cleaned } from './spec.js';

/**
 * @param {object} props
 * @param {import('./spec.js').Spec} props.spec
 * @param {(spec: import('./spec.js').Spec) => void} props.onPick takes a deployment of the catalog
 */
export function Catalog({ spec, onPick }) {
  const [search, setSearch] = useState('');
  const [open, setOpen] = useState(/** @type {number | null} */ (null));
  const { value, fault, again } = useFetched('/v1/model-sets', { perPage: -1 });
  if (fault) return html`<${Fault} text=${fault} again=${again} />`;
  if (!value) return html`<${Waiting} lines=${5} />`;
  const terms = search.toLowerCase().split(/\s+/).filter(Boolean);
  const shown = value.items.filter((/** @type {any} */ one) => terms.every((term) => `${one.name} ${one.description ?? ''} ${(one.categories ?? []).join(' ')}`.toLowerCase().includes(term)));
  return html`<div class="hub">
    <div class="tools"><input type="search" class="search" data-search aria-label=${t('deploy.search-catalog')} placeholder=${t('deploy.search-catalog')} value=${search} onInput=${(/** @type {any} */ e) => setSearch(typed(e))} /></div>
    ${shown.length
      ? html`<ul class="found catalog" aria-label=${t('deploy.from-catalog')}>
          ${shown.map(
            (/** @type {any} */ one) =>
              html`<li key=${one.id}>
                <button type="button" aria-expanded=${open === one.id ? 'true' : 'false'} onClick=${() => setOpen(open === one.id ? null : one.id)}>
                  <span><b>${one.name}</b> ${(one.categories ?? []).map((/** @type {string} */ word) => html`<span class="tag">${t(`deploy.${word}`)}</span> `)}</span>
                  <small>${[one.sizes?.length ? t('deploy.sizes', { sizes: one.sizes.join(', ') }) : '', (one.licenses ?? []).join(', ')].filter(Boolean).join(' · ')}</small>
                  ${one.description ? html`<small>${one.description}</small>` : null}
                </button>
                ${open === one.id ? html`<${Specs} set=${one} spec=${spec} onPick=${onPick} />` : null}
              </li>`,
          )}
        </ul>`
      : html`<${Empty} title=${t('deploy.nothing-found')} />`}
  </div>`;
}

/** @param {{set: any, spec: any, onPick: (spec: any) => void}} props */
function Specs({ set, spec, onPick }) {
  const { value, fault, again } = useFetched(`/v1/model-sets/${set.id}/specs`, { perPage: -1 });
  if (fault) return html`<${Fault} text=${fault} again=${again} />`;
  if (!value) return html`<${Waiting} lines=${2} />`;
  const pick = (/** @type {any} */ one) => {
    const { size, quantization, name, ...rest } = one;
    const called = [set.name, size ? `${size}b` : ''].filter(Boolean).join('-').toLowerCase().replace(/\s+/g, '-');
    onPick({ ...cleaned(rest), name: name || called });
  };
  return html`<ul class="specs">
    ${value.items.map(
      (/** @type {any} */ one, /** @type {number} */ at) =>
        html`<li key=${at}><button type="button" aria-pressed=${readable(one) === readable(spec) ? 'true' : 'false'} onClick=${() => pick(one)}>
          <b>${[one.size ? t('deploy.size', { size: one.size }) : set.name, one.quantization].filter(Boolean).join(' · ')}</b><small class="ellipsis">${readable(one)}</small></button></li>`,
    )}
  </ul>`;
}
