// The instances of a model: where each is, in which state and why; and what would help one that waits.

import { Badge } from '../../parts/badge.js';
import { Button, Sentence } from '../../parts/button.js';
import { html } from '../../parts/html.js';
import { useFetched } from '../../parts/page.js';
import { Ago } from '../../parts/time.js';
import { Told } from '../../parts/told.js';
import { store } from '../../live.js';
import { bytes, percent } from '../../format.js';
import { t } from '../../words.js';
import { Remedies } from './remedies.js';

/** In which of them somebody has to do something, or may. */
const STUCK = new Set(['pending', 'error', 'unreachable']);
const MOST_SHOWN = 100;
const ORDER = ['error', 'unreachable', 'pending', 'analyzing', 'scheduled', 'initializing', 'downloading', 'starting', 'running'];

/** @param {any} instance */
const stateOf = (instance) => (instance.deleted_at ? 'ending' : instance.state);

/** @param {{model: any}} props brief */
export function Instances({ model }) {
  const instances = [...(store.byModel.value.get(model.id) ?? [])].sort((a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state) || a.name.localeCompare(b.name, undefined, { numeric: true }));
  const pending = instances.find((one) => one.state === 'pending' && !one.deleted_at && one.state_message);
  const failed = instances.find((one) => one.state === 'error' && !one.deleted_at && one.state_message);
  if (!instances.length) return html`<p class="muted">${model.replicas ? t('model.none-yet') : t('model.is-stopped')}</p>`;
  return html`${failed ? html`<${Failed} instance=${failed} />` : null}
    ${pending ? html`<${Why} key=${pending.id} instance=${pending} count=${instances.filter((one) => one.state === 'pending').length} />` : null}
    <ul class="rows instances">
      ${instances.slice(0, MOST_SHOWN).map((one) => html`<${Row} key=${one.id} instance=${one} said=${(pending ?? failed)?.state_message} />`)}
    </ul>
    ${instances.length > MOST_SHOWN ? html`<p class="muted">${t('model.more-instances', { n: instances.length - MOST_SHOWN })}</p>` : null}`;
}

/** @param {{instance: any, said?: string}} props `said`: what stands above the list already */
function Row({ instance, said }) {
  const state = stateOf(instance);
  const places = [instance, ...(instance.subordinate_workers ?? [])].filter((one) => one.worker_id);
  const detail = state === 'downloading' && instance.download_progress !== undefined ? percent(instance.download_progress) : undefined;
  return html`<li>
    <span class="who"><a class="ellipsis" href=${`/instances/${instance.id}`} title=${instance.name}>${instance.name}</a><${Badge} state=${state} detail=${detail} /></span>
    <span class="where">${places.length ? places.map((one) => html`<${Place} place=${one} />`) : html`<span class="muted">${t('model.no-place')}</span>`}</span>
    <span class="when muted">${instance.state_since ? html`<${Ago} at=${instance.state_since} />` : null}${instance.restart_count ? html` · ${t('model.restarts', { n: instance.restart_count })}` : null}</span>
    ${instance.state_message && instance.state_message !== said ? html`<span class="reason">${instance.state_message}</span>` : null}
  </li>`;
}

/** @param {{place: any}} props */
function Place({ place }) {
  const worker = store.workers.value.get(place.worker_id);
  const claim = place.computed_resource_claim ?? {};
  const vram = Object.values(claim.vram ?? {}).reduce((sum, one) => sum + Number(one), 0);
  const gpus = place.gpu_indexes?.length ? `GPU ${place.gpu_indexes.join(', ')}` : 'CPU';
  return html`<span class="place"><a href=${`/cluster/${place.worker_id}`}>${worker?.name ?? place.worker_id}</a> <small class="muted">${gpus} · ${bytes(vram || claim.ram)}</small></span>`;
}

/** @param {{instance: any}} props */
const Failed = ({ instance }) =>
  html`<${Sentence} tone="bad" actions=${html`<a class="button" href=${`/instances/${instance.id}?tab=log`}>${t('model.look-at-log')}</a>`} detail=${instance.next_retry_at ? html`${t('model.retry')} <${Ago} at=${instance.next_retry_at} />` : null}
    ><${Told} of="trouble-failing">${instance.name}: ${instance.state_message}<//><//
  >`;

/** Why one waits, and what would help; asked anew when the cluster says otherwise of it. @param {{instance: any, count: number}} props */
function Why({ instance, count }) {
  const { value, again } = useFetched(`/v1/model-instances/${instance.id}/explain`, undefined, [instance.state, instance.state_message]);
  const said = value?.sentence || instance.state_message;
  const fits = value?.fits === true;
  return html`<div class="why">
    <${Sentence} tone="warn" detail=${value?.final ? t('why.final') : value?.waits_for?.sentence ?? (count > 1 ? t('why.others', { n: count - 1 }) : null)} actions=${html`<a class="button" href=${`/models/${instance.model_id}?tab=edit`}>${t('common.edit')}</a><${Button} onClick=${again}>${t('why.again')}<//>`}>
      ${fits ? t('why.now') : html`<${Told} of="trouble-waiting">${said}<//>`}
    <//>
    <${Remedies} changes=${fits ? [] : (value?.changes ?? [])} />
    ${value && STUCK.has(instance.state) && value.workers?.length
      ? html`<details class="memory"><summary>${t('why.workers')}</summary><ul>${value.workers.slice(0, 20).map((/** @type {any} */ one) => html`<li><b>${one.worker}</b> ${sentenceOf(one)}</li>`)}</ul></details>`
      : null}
  </div>`;
}

/** What is said of a worker. @param {any} verdict */
function sentenceOf(verdict) {
  const alike = verdict.others?.length ? ` ${t('why.alike', { n: verdict.others.length })}` : '';
  return `${(verdict.sentences ?? []).join('; ')}${alike}`;
}
