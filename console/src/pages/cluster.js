// Workers and their devices as bars: what is claimed, used by us, used by others, free.

import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { bytes, number } from '../format.js';
import { store, watchLoads } from '../live.js';
import { Badge } from '../parts/badge.js';
import { Legend } from '../parts/bar.js';
import { Empty, NoMatch } from '../parts/button.js';
import { Search, Segments } from '../parts/field.js';
import { html } from '../parts/html.js';
import { Icon } from '../parts/icon.js';
import { Menu } from '../parts/menu.js';
import { PageHead, Waiting } from '../parts/page.js';
import { Virtual } from '../parts/virtual.js';
import { setQuery } from '../router.js';
import { t } from '../words.js';
import { useActions } from './cluster/actions.js';
import { AddWorker } from './cluster/add-worker.js';
import { capacityOf, needsLook, stateOf } from './cluster/capacity.js';
import { DeviceCard } from './cluster/device-card.js';
import { Strip } from './cluster/strip.js';

const WIDE = matchMedia('(min-width: 901px)');
const LINE = 42;
const FRAME = 22;

/** Devices in a line, and the height of what stands above them. */
const shape = () => (WIDE.matches ? { inLine: 8, above: 0 } : { inLine: 4, above: 34 });

/** @type {Record<string, (worker: any) => boolean>} */
const SHOWS = {
  all: () => true,
  look: needsLook,
  free: (worker) => (worker.gpu_devices ?? []).some((/** @type {any} */ one) => one.total && !one.claimed && !one.used_by_others),
  full: (worker) => (worker.gpu_devices ?? []).length > 0 && worker.gpu_devices.every((/** @type {any} */ one) => one.free !== undefined && one.free < one.total / 20),
};

/** Numbers in names in the order of numbers. @param {string} name */
const sortKey = (name) => name.toLowerCase().replace(/\d+/g, (digits) => digits.padStart(9, '0'));

/** Kept as long as the document is the same one. @type {WeakMap<any, string>} */
const keys = new WeakMap();
/** @type {WeakMap<any, string>} */
const texts = new WeakMap();

/** Those first that somebody should look at, then by name. @param {any} worker @returns {string} */
function keyOf(worker) {
  let key = keys.get(worker);
  if (key === undefined) keys.set(worker, (key = `${needsLook(worker) ? 0 : 1}${sortKey(worker.name)}`));
  return key;
}

/** What a search goes through. @param {any} worker @returns {string} */
function textOf(worker) {
  let text = texts.get(worker);
  if (text === undefined) {
    text = `${worker.name} ${worker.ip}`;
    for (const key in worker.labels) text += ` ${key}=${worker.labels[key]}`;
    let before = '';
    for (const device of worker.gpu_devices ?? []) {
      if (device.name !== before) text += ` ${device.name}`;
      before = device.name;
    }
    texts.set(worker, (text = text.toLowerCase()));
  }
  return text;
}

/** @param {{query: URLSearchParams}} props */
export default function Cluster({ query }) {
  const [adding, setAdding] = useState(false);
  const [wide, setWide] = useState(WIDE.matches);
  const actions = useActions();
  const search = query.get('q') ?? '';
  const show = SHOWS[query.get('show') ?? ''] ? String(query.get('show')) : 'all';
  const workers = store.workers.value;
  useEffect(() => {
    const turned = () => setWide(WIDE.matches);
    WIDE.addEventListener('change', turned);
    return () => {
      WIDE.removeEventListener('change', turned);
      watchLoads([]);
    };
  }, []);
  const shown = useMemo(() => {
    const terms = search.toLowerCase().split(/\s+/).filter(Boolean);
    const found = [...workers.values()].filter((one) => SHOWS[show](one) && terms.every((term) => textOf(one).includes(term)));
    const keyed = found.map((worker) => ({ worker, key: keyOf(worker) }));
    return keyed.sort((a, b) => (a.key < b.key ? -1 : 1)).map((one) => one.worker);
  }, [workers, search, show]);
  const heightOf = useMemo(() => {
    const { inLine, above } = shape();
    return (/** @type {any} */ worker) => above + FRAME + LINE * Math.max(1, Math.ceil((worker.gpu_devices?.length ?? 0) / inLine));
  }, [wide]);
  // The same function for good, so that a row is drawn anew only when its worker has changed.
  const itemsOf = useRef(actions.of);
  itemsOf.current = actions.of;
  const row = useMemo(() => (/** @type {any} */ worker) => html`<${Row} worker=${worker} itemsOf=${(/** @type {any} */ one) => itemsOf.current(one)} />`, []);

  if (!store.ready.value && !workers.size) return html`<${PageHead} title=${t('nav.cluster')} /><${Waiting} lines=${6} />`;
  const add = html`<button type="button" class="button primary" onClick=${() => setAdding(true)}><${Icon} name="plus" />${t('cluster.add')}</button>`;
  const dialog = adding ? html`<${AddWorker} onClose=${() => setAdding(false)} />` : null;
  if (!workers.size) {
    return html`<${PageHead} title=${t('nav.cluster')} />
      <${Empty} title=${t('cluster.none')} actions=${add}>${t('cluster.none-text')}<//>${dialog}`;
  }
  return html`<${PageHead} title=${t('nav.cluster')} actions=${add} under=${html`<${Summary} workers=${workers} />`} />
    <div class="tools">
      <${Search} label=${t('cluster.search')} value=${search} onInput=${(/** @type {string} */ q) => setQuery({ q })} />
      <${Segments} label=${t('cluster.show')} values=${Object.keys(SHOWS)} now=${show} word=${(/** @type {string} */ name) => t(`cluster.show-${name}`)} onChoose=${(/** @type {string} */ name) => setQuery({ show: name === 'all' ? '' : name })} />
      ${[...workers.values()].some((one) => one.gpu_devices?.length) ? html`<${Legend} />` : null}
    </div>
    ${shown.length
      ? html`<${Virtual} items=${shown} keyOf=${(/** @type {any} */ one) => one.id} heightOf=${heightOf} label=${t('cluster.workers')} onShown=${(/** @type {any[]} */ drawn) => watchLoads(drawn.map((one) => one.id))} row=${row} />`
      : html`<${NoMatch} title=${t('cluster.no-match')} onAll=${() => setQuery({ q: '', show: '' })} />`}
    <${DeviceCard} />
    ${actions.dialog}${dialog}`;
}

/** @param {{workers: Map<number, any>}} props */
function Summary({ workers }) {
  const sum = useMemo(() => capacityOf(workers.values()), [workers]);
  return t(sum.total ? 'cluster.summary' : 'cluster.summary-bare', {
    ready: number(sum.ready),
    workers: number(sum.workers),
    devices: number(sum.devices),
    claimed: bytes(sum.claimed),
    total: bytes(sum.total),
  });
}

/** @param {{worker: any, itemsOf: (worker: any) => any[]}} props */
function Row({ worker, itemsOf }) {
  const state = stateOf(worker);
  const left = worker.drain ? t('cluster.left', { n: worker.drain.left.length }) : undefined;
  return html`<div class="worker">
    <div class="who">
      <a class="ellipsis" href=${`/cluster/${worker.id}`} title=${worker.name}>${worker.name}</a>
      ${state === 'ready' ? html`<span class="muted ellipsis">${worker.ip}</span>` : html`<${Badge} state=${state} detail=${left} />`}
    </div>
    ${worker.gpu_devices?.length
      ? html`<${Strip} worker=${worker} />`
      : html`<div class="devices"><span class="muted">${t('cluster.no-devices', { ram: bytes(worker.memory?.total) })}</span></div>`}
    <${Menu} label=${t('cluster.actions', { name: worker.name })} items=${() => itemsOf(worker)} />
  </div>`;
}
