// All models: their state, their replicas, how much they are used; scaled, stopped and started in place.

import { useEffect, useMemo } from 'preact/hooks';
import { number, short } from '../format.js';
import { store, watchRates } from '../live.js';
import { Badge } from '../parts/badge.js';
import { Button, Empty, NoMatch } from '../parts/button.js';
import { Search, Segments } from '../parts/field.js';
import { html } from '../parts/html.js';
import { Icon } from '../parts/icon.js';
import { Menu } from '../parts/menu.js';
import { PageHead, useFetched, Waiting } from '../parts/page.js';
import { Table } from '../parts/table.js';
import { go, setQuery } from '../router.js';
import { t } from '../words.js';
import { remove, scale, start } from './models/actions.js';
import { LastUse, lastUseOf, Rate } from './models/rate.js';

const HEIGHT = 58;
const MOST_REPLICAS = 1000;
/** @type {Record<string, (model: any) => boolean>} */
const SHOWS = {
  all: () => true,
  look: (model) => ['waiting', 'failed', 'partly_ready'].includes(model.state),
  running: (model) => ['ready', 'partly_ready'].includes(model.state),
  stopped: (model) => model.state === 'stopped',
};
const TROUBLE = { error: 0, unreachable: 1, pending: 2, analyzing: 3, downloading: 4 };

/** In a sentence: why it is not ready, of the instance that is worst off; else what it is. @param {any} model @param {any[]} instances */
function reasonOf(model, instances) {
  if (model.state === 'ready' || model.state === 'stopped') return '';
  const worst = instances
    .filter((one) => one.state_message && one.state in TROUBLE)
    .sort((a, b) => TROUBLE[a.state] - TROUBLE[b.state])[0];
  return worst?.state_message ?? '';
}

/** Of the last 31 days, by the id of the model. @param {any[]} rows */
const usesOf = (rows) => new Map(rows.map((row) => [row.model_id, { tokens: row.prompt_token_count + row.completion_token_count, last: row.last_used_at }]));

/** @param {{query: URLSearchParams}} props */
export default function Models({ query }) {
  const search = query.get('q') ?? '';
  const show = SHOWS[query.get('show') ?? ''] ? String(query.get('show')) : 'all';
  const models = store.models.value;
  const usage = useFetched('/v1/usage', { by: 'model' }).value;
  const uses = useMemo(() => usesOf(usage?.items ?? []), [usage]);
  const shown = useMemo(() => {
    const terms = search.toLowerCase().split(/\s+/).filter(Boolean);
    const textOf = (/** @type {any} */ one) => [one.name, one.source_text, one.backend, ...(one.categories ?? [])].join(' ').toLowerCase();
    return [...models.values()].filter((one) => SHOWS[show](one) && terms.every((term) => textOf(one).includes(term)));
  }, [models, search, show]);

  useEffect(() => () => watchRates([]), []);
  if (!store.ready.value) return html`<${Waiting} lines=${6} />`;
  const deploy = html`<a class="button primary" href="/models/new"><${Icon} name="plus" />${t('models.deploy')}</a>`;
  if (!models.size) return html`<${PageHead} title=${t('nav.models')} /><${Empty} title=${t('models.none')} actions=${deploy}>${t('models.none-text')}<//>`;
  const look = [...models.values()].filter(SHOWS.look).length;
  return html`<${PageHead} title=${t('nav.models')} actions=${deploy} under=${t('models.summary', { n: number(models.size), look: number(look) })} />
    <div class="tools">
      <${Search} label=${t('models.search')} value=${search} onInput=${(/** @type {string} */ q) => setQuery({ q })} />
      <${Segments} label=${t('models.show')} values=${Object.keys(SHOWS)} now=${show} word=${(/** @type {string} */ name) => t(`models.show-${name}`)} onChoose=${(/** @type {string} */ name) => setQuery({ show: name === 'all' ? '' : name })} />
    </div>
    <${Table}
      rows=${shown}
      label=${t('nav.models')}
      height=${HEIGHT}
      sorted=${{ key: 'name' }}
      onShown=${(/** @type {any[]} */ drawn) => watchRates(drawn.map((one) => one.id))}
      columns=${columns(uses)}
      empty=${html`<${NoMatch} title=${t('models.no-match')} onAll=${() => setQuery({ q: '', show: '' })} />`}
    />`;
}

/** @param {Map<number, {tokens: number, last: string}>} uses */
const columns = (uses) => [
  { key: 'name', title: t('models.name'), width: 'minmax(0, 3fr)', sort: (/** @type {any} */ one) => one.name, cell: (/** @type {any} */ one) => html`<${Name} model=${one} />` },
  { key: 'state', title: t('models.state'), width: '112px', wide: true, sort: (/** @type {any} */ one) => one.state, cell: (/** @type {any} */ one) => html`<${Badge} state=${one.state} />` },
  { key: 'replicas', title: t('models.replicas'), width: '108px', sort: (/** @type {any} */ one) => one.replicas, cell: (/** @type {any} */ one) => html`<${Replicas} model=${one} />` },
  { key: 'rate', title: t('models.rate'), width: '84px', end: true, wide: true, cell: (/** @type {any} */ one) => html`<${Rate} model=${one} />` },
  { key: 'tokens', title: t('models.tokens'), width: '96px', end: true, wide: true, roomy: true, sort: (/** @type {any} */ one) => uses.get(one.id)?.tokens, cell: (/** @type {any} */ one) => short(uses.get(one.id)?.tokens) },
  { key: 'last', title: t('models.last'), width: '110px', wide: true, sort: (/** @type {any} */ one) => lastUseOf(one.id, uses.get(one.id)?.last), cell: (/** @type {any} */ one) => html`<${LastUse} id=${one.id} stored=${uses.get(one.id)?.last} />` },
  { key: 'backend', title: t('models.engine'), width: 'minmax(0, 110px)', wide: true, roomy: true, sort: (/** @type {any} */ one) => one.backend, cell: (/** @type {any} */ one) => one.backend ?? html`<span class="muted">${t('models.auto')}</span>` },
  { key: 'menu', title: '', width: '34px', cell: (/** @type {any} */ one) => html`<${Menu} label=${t('models.actions', { name: one.name })} items=${itemsOf(one)} />` },
];

/** @param {{model: any}} props */
function Name({ model }) {
  const reason = reasonOf(model, store.byModel.value.get(model.id) ?? []);
  return html`<div class="model-name">
    <span class="ellipsis"><a class="ellipsis" href=${`/models/${model.id}`} title=${model.name}>${model.name}</a><${Badge} state=${model.state} /></span>
    <small class=${`ellipsis ${reason ? 'reason' : 'muted'}`} title=${reason || model.source_text}>${reason || html`<span class="rate-too"><${Rate} model=${model} unit /> </span>${model.source_text}`}</small>
  </div>`;
}

/** @param {{model: any}} props */
export function Replicas({ model }) {
  const { name, replicas, ready_replicas: ready = 0 } = model;
  return html`<div class="replicas">
    <${Button} kind="quiet" label=${t('models.fewer', { name })} disabled=${replicas <= 0} onClick=${() => scale(model, replicas - 1)}><span aria-hidden="true">−</span><//>
    <span class="num" aria-hidden="true">${ready}/${replicas}</span><span class="unseen">${t('models.of-replicas', { ready, replicas })}</span>
    <${Button} kind="quiet" label=${t('models.further', { name })} disabled=${replicas >= MOST_REPLICAS} onClick=${() => scale(model, replicas + 1)}><span aria-hidden="true">+</span><//>
  </div>`;
}

/** @param {any} model */
const itemsOf = (model) => [
  model.replicas ? { text: t('models.stop'), act: () => scale(model, 0) } : { text: t('models.start'), act: () => start(model) },
  { text: t('common.edit'), act: () => go(`/models/${model.id}?tab=edit`) },
  { text: t('models.call'), act: () => go(`/models/${model.id}?tab=call`) },
  { text: t('models.playground'), act: () => go(`/playground?model=${encodeURIComponent(model.name)}`) },
  { text: t('common.delete'), danger: true, act: () => remove(model) },
];
