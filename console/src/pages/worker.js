// One worker: how it is, its devices and what is on each, its instances, labels and taints.

import { useEffect, useMemo } from 'preact/hooks';
import { bytes, degrees, percent } from '../format.js';
import { store, watchLoads } from '../live.js';
import { Badge } from '../parts/badge.js';
import { DeviceBar, Legend, Meter, sentenceOf } from '../parts/bar.js';
import { Button, Empty, Sentence } from '../parts/button.js';
import { html } from '../parts/html.js';
import { Menu } from '../parts/menu.js';
import { PageHead, useFetched, Waiting } from '../parts/page.js';
import { Table } from '../parts/table.js';
import { Ago } from '../parts/time.js';
import { Told } from '../parts/told.js';
import { t } from '../words.js';
import { useActions } from './cluster/actions.js';
import { holdersOf, stateOf } from './cluster/capacity.js';

/** @param {{params: {id: string}}} props */
export default function WorkerPage({ params }) {
  const id = Number(params.id);
  const worker = store.workers.value.get(id);
  const actions = useActions();
  useEffect(() => {
    watchLoads([id]);
    return () => watchLoads([]);
  }, [id]);
  const { value: full } = useFetched(worker ? `/v1/workers/${id}` : null, undefined, [worker?.state, worker?.drain?.left]);
  if (!store.ready.value) return html`<${Waiting} lines=${6} />`;
  if (!worker) return html`<${Empty} title=${t('worker.gone')} actions=${html`<a class="button" href="/cluster">${t('nav.cluster')}</a>`} />`;
  const instances = store.byWorker.value.get(id) ?? [];
  const devices = worker.gpu_devices ?? [];
  const offered = actions.of(worker);
  const first = offered.filter((one) => one.short);
  const more = offered.filter((one) => !one.short);
  return html`<nav class="crumbs" aria-label=${t('worker.path')}><a href="/cluster">${t('nav.cluster')}</a></nav>
    <${PageHead}
      title=${worker.name}
      under=${html`<${Badge} state=${stateOf(worker)} /> ${worker.ip}${worker.version ? ` · ${worker.version}` : ''}${worker.state_since ? html` · ${t('worker.since')} <${Ago} at=${worker.state_since} />` : null}`}
      actions=${html`${first.map((one) => html`<${Button} onClick=${one.act}>${one.short ?? one.text}<//>`)}<${Menu} label=${t('cluster.actions', { name: worker.name })} items=${more} />`}
    />
    ${worker.state === 'ready' ? null : html`<${Sentence} tone=${worker.state === 'unreachable' ? 'bad' : 'warn'}>${worker.state_message ? html`<${Told} of="trouble-silent">${worker.state_message}<//>` : t('worker.silent')}<//>`}
    ${worker.drain ? html`<${Draining} drain=${worker.drain} waits=${full?.drain?.waits_for ?? []} />` : null}
    <section>
      <div class="section-head"><h2>${t('worker.devices')}</h2>${devices.length ? html`<${Legend} />` : null}</div>
      ${devices.length ? null : html`<p class="muted">${t('worker.no-devices')}</p>`}
      <ul class="device-list">
        ${devices.map((/** @type {any} */ device) => html`<li key=${device.index}><${Device} device=${device} holders=${holdersOf(instances, id, device.index)} /></li>`)}
      </ul>
    </section>
    <section>
      <h2>${t('worker.instances')}</h2>
      <${Instances} instances=${instances} workerId=${id} />
    </section>
    <section class="columns">
      <div>
        <h2>${t('worker.machine')}</h2>
        <dl class="facts">
          <dt>${t('worker.processor')}</dt>
          <dd><${Meter} value=${worker.cpu?.utilization} label=${t('worker.processor')} /><span class="num">${percent(worker.cpu?.utilization)}${worker.cpu?.total ? ` · ${t('worker.cores', { n: worker.cpu.total })}` : ''}</span></dd>
          <dt>${t('worker.memory')}</dt>
          <dd>
            <${Meter} value=${worker.memory?.total && worker.memory.used !== undefined ? (worker.memory.used / worker.memory.total) * 100 : null} label=${t('worker.memory')} />
            <span class="num">${t('worker.of', { used: bytes(worker.memory?.used), total: bytes(worker.memory?.total) })}, ${t('device.claimed', { size: bytes(worker.memory?.claimed) })}</span>
          </dd>
          <dt>${t('worker.disk')}</dt>
          <dd class="num"><span>${t('device.free', { size: bytes(worker.model_bytes_free) })} · <a href=${`/files?worker=${id}`}>${t('nav.files')}</a></span></dd>
          ${full?.status?.os?.name ? html`<dt>${t('worker.system')}</dt><dd>${full.status.os.name} ${full.status.os.version ?? ''}${full.status.kernel?.release ? `, ${full.status.kernel.release}` : ''}</dd>` : null}
          ${full?.heartbeat_time ? html`<dt>${t('worker.heard')}</dt><dd><${Ago} at=${full.heartbeat_time} /></dd>` : null}
        </dl>
      </div>
      <div>
        <h2>${t('cluster.labels')}</h2>
        <p class="tags">${Object.entries(worker.labels ?? {}).map(([key, value]) => html`<span class="tag">${key}=${value}</span>`)}</p>
        ${worker.taints?.length ? html`<h2>${t('cluster.taints')}</h2><p class="tags">${worker.taints.map((/** @type {any} */ one) => html`<span class="tag">${one.key}${one.value ? `=${one.value}` : ''}:${one.effect}</span>`)}</p>` : null}
      </div>
    </section>
    ${actions.dialog}`;
}

/** @param {{drain: {of?: number, left: number}, waits: string[]}} props */
function Draining({ drain, waits }) {
  const text = drain.left ? t('worker.draining', { n: drain.left, of: drain.of ?? '?' }) : t('worker.drained');
  return html`<${Sentence} tone=${waits.length ? 'warn' : 'quiet'} detail=${waits.length ? waits.join('; ') : null}>${text}<//>`;
}

/** @param {{device: any, holders: ReturnType<typeof holdersOf>}} props */
const Device = ({ device, holders }) =>
  html`<h3>${device.index} <span class="muted">${device.name}</span></h3>
    <${DeviceBar} device=${device} tall label=${sentenceOf(device)} />
    <p class="num muted">${[
      t('worker.claimed', { used: bytes(device.claimed ?? 0), total: bytes(device.total) }),
      device.used_by_us === undefined ? null : t('device.ours', { size: bytes(device.used_by_us) }),
      device.used_by_others ? t('device.others', { size: bytes(device.used_by_others) }) : null,
      device.utilization === undefined ? null : t('device.busy', { rate: percent(device.utilization) }),
      device.temperature === undefined ? null : degrees(device.temperature),
    ]
      .filter(Boolean)
      .join(' · ')}</p>
    ${device.fault ? html`<p class="fault">${device.fault}</p>` : null}
    ${holders.map(({ instance, bytes: held }) => html`<p class="holder"><a class="ellipsis" href=${`/instances/${instance.id}`}>${instance.name}</a><span class="num">${bytes(held)}</span></p>`)}`;

/** @param {{instances: any[], workerId: number}} props */
function Instances({ instances, workerId }) {
  const models = store.models.value;
  const columns = useMemo(
    () => [
      { key: 'name', title: t('worker.instance'), sort: (/** @type {any} */ one) => one.name, cell: (/** @type {any} */ one) => html`<a href=${`/instances/${one.id}`}>${one.name}</a>` },
      {
        key: 'model',
        title: t('worker.model'),
        wide: true,
        sort: (/** @type {any} */ one) => models.get(one.model_id)?.name,
        cell: (/** @type {any} */ one) => html`<a href=${`/models/${one.model_id}`}>${models.get(one.model_id)?.name ?? '–'}</a>`,
      },
      { key: 'state', title: t('worker.state'), width: '130px', sort: (/** @type {any} */ one) => one.state, cell: (/** @type {any} */ one) => html`<${Badge} state=${one.deleted_at ? 'ending' : one.state} detail=${one.state === 'downloading' ? percent(one.download_progress) : undefined} />` },
      {
        key: 'gpus',
        title: t('worker.gpus'),
        width: '80px',
        wide: true,
        cell: (/** @type {any} */ one) => [one, ...(one.subordinate_workers ?? [])].filter((share) => share.worker_id === workerId).flatMap((share) => share.gpu_indexes ?? []).join(', ') || 'CPU',
      },
      { key: 'since', title: t('worker.since-head'), width: '110px', wide: true, sort: (/** @type {any} */ one) => one.state_since, cell: (/** @type {any} */ one) => html`<${Ago} at=${one.state_since} />` },
    ],
    [models, workerId],
  );
  return html`<${Table} rows=${instances} columns=${columns} label=${t('worker.instances')} sorted=${{ key: 'name' }} empty=${html`<p class="muted">${t('worker.nothing')}</p>`} />`;
}
