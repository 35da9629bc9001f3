// One look: whether anything needs a decision, and what.

import { effect } from '@preact/signals';
import { useEffect, useMemo } from 'preact/hooks';
import { askAttention, attention, attentionFault } from '../attention.js';
import { send } from '../api.js';
import { bytes, number } from '../format.js';
import { pathOf } from '../links.js';
import { store } from '../live.js';
import { Badge } from '../parts/badge.js';
import { Button, Sentence } from '../parts/button.js';
import { confirm } from '../parts/dialog.js';
import { html } from '../parts/html.js';
import { Fault, PageHead, Waiting } from '../parts/page.js';
import { Ago } from '../parts/time.js';
import { Told, toldText } from '../parts/told.js';
import { toast } from '../parts/toast.js';
import { go } from '../router.js';
import { isAdmin } from '../session.js';
import { known, t } from '../words.js';
import { capacityOf } from './cluster/capacity.js';
import { Steps } from './first-steps.js';

/** What ends the trouble and nothing else: never the first thing to press. */
const LAST_RESORTS = new Set(['stop_model', 'remove_worker']);
const TONES = { critical: 'bad', warning: 'warn', notice: 'quiet' };

export default function Home() {
  return isAdmin.value ? html`<${ForAdministrators} />` : html`<${ForOthers} />`;
}

/** Whether it is known what needs a decision, or that nothing does and whether there is a cluster at all. */
const isKnown = () => attentionFault.value !== '' || (attention.value !== null && (attention.value.length > 0 || store.ready.value));

/** @returns {Promise<void>} */
export const ahead = () =>
  new Promise((known) => {
    const stop = effect(() => {
      if (!isAdmin.value || isKnown()) queueMicrotask(() => known(stop()));
    });
  });

function ForAdministrators() {
  // What no stream tells of may have changed too: budgets.
  useEffect(() => void askAttention(), []);
  const items = attention.value;
  const fault = attentionFault.value;
  if (!isKnown()) return html`<${Waiting} lines=${5} />`;
  const many = items?.length ?? 0;
  const ready = store.ready.value;
  const isNew = ready && store.models.value.size === 0;
  return html`<${PageHead} title=${fault ? t('nav.home') : many ? t('home.decisions', { n: many }) : isNew ? t('steps.title') : t('home.nothing')} />
    ${fault ? html`<${Fault} text=${fault} again=${askAttention} />` : null}
    ${many ? html`<ol class="decisions">${items?.map((item) => html`<li key=${item.id}><${Decision} item=${item} /></li>`)}</ol>` : null}
    ${isNew ? html`<section>${many || fault ? html`<h2>${t('steps.title')}</h2>` : null}<${Steps} /></section>` : ready ? html`<${Figures} />` : html`<${Waiting} />`}`;
}

/** @param {{item: import('../attention.js').Item}} props */
function Decision({ item }) {
  const path = pathOf(item.object);
  const actions = (item.actions ?? []).map(
    (action, index) => html`<${Button} kind=${index || LAST_RESORTS.has(action.kind) ? 'plain' : 'primary'} onClick=${() => carryOut(action)}><${Told} of=${`do-${action.kind}`}>${action.label}<//><//>`,
  );
  const detail = html`<span class="severity">${t(`home.${item.severity}`)}</span>
    ${item.since ? html` · <${Ago} at=${item.since} />` : null}
    ${path && item.object ? html` · <a href=${path}>${item.object.name}</a>` : null}`;
  return html`<${Sentence} tone=${TONES[item.severity]} actions=${actions.length ? actions : null} detail=${detail}><${Told} of=${`trouble-${item.kind}`}>${item.text}<//><//>`;
}

/** @param {import('../attention.js').Action} action */
async function carryOut(action) {
  // What the server offers is of this server: never another place.
  if (!/^\/(?!\/)/.test(action.path)) return;
  if (action.method === 'GET') {
    go(action.path);
    return;
  }
  const label = toldText(`do-${action.kind}`, action.label);
  if (action.confirm && !(await confirm({ title: label, text: action.confirm, submit: action.label, danger: action.method === 'DELETE' }))) return;
  await send(action.method, action.path, { body: action.body });
  toast(t('home.done', { what: label }));
  await askAttention();
}

/** @param {Map<number, any>} table @param {(document: any) => boolean} counts */
function count(table, counts) {
  let sum = 0;
  for (const one of table.values()) if (counts(one)) sum += 1;
  return sum;
}

/** The cluster in figures, each a way to its page. */
function Figures() {
  const workers = store.workers.value;
  const capacity = useMemo(() => capacityOf(workers.values()), [workers]);
  const models = store.models.value;
  const serving = useMemo(() => count(models, (one) => one.state === 'ready'), [models]);
  const wanted = useMemo(() => count(models, (one) => one.state !== 'stopped'), [models]);
  const instances = store.instances.value;
  const running = useMemo(() => count(instances, (one) => one.state === 'running'), [instances]);
  const share = capacity.total ? Math.round((capacity.claimed / capacity.total) * 100) : null;
  return html`<ul class="figures">
    <li><a href="/models"><b>${number(serving)}<small> / ${number(wanted)}</small></b><span>${t('home.models')}</span></a></li>
    <li><a href="/models"><b>${number(running)}<small> / ${number(instances.size)}</small></b><span>${t('home.instances')}</span></a></li>
    <li><a href="/cluster"><b>${number(capacity.ready)}<small> / ${number(capacity.workers)}</small></b><span>${t('home.workers')}</span></a></li>
    ${share === null ? null : html`<li><a href="/cluster"><b>${share} %</b><span>${t('home.memory', { claimed: bytes(capacity.claimed), total: bytes(capacity.total) })}</span></a></li>`}
  </ul>`;
}

/** Whether it answers now. @param {any} model */
const isUp = (model) => Boolean(model.ready_replicas);

/** What somebody sees who uses models and does not run them. */
function ForOthers() {
  const models = [...store.models.value.values()].sort((a, b) => Number(isUp(b)) - Number(isUp(a)) || a.name.localeCompare(b.name));
  if (!store.ready.value) return html`<${Waiting} />`;
  return html`<${PageHead} title=${t('home.your-models')} under=${models.length ? null : t('home.no-models')} />
    <ul class="rows">
      ${models.map(
        (model) =>
          html`<li key=${model.id}>
            <span><b>${model.name}</b> ${(model.categories ?? []).map((/** @type {string} */ one) => html`<span class="tag">${known(`deploy.${one}`) ?? one}</span>`)}</span>
            <span class="actions">${isUp(model) ? html`<a class="button" href=${`/playground?model=${encodeURIComponent(model.name)}`}>${t('home.try')}</a>` : html`<${Badge} state=${model.replicas ? 'waiting' : 'stopped'} />`}</span>
          </li>`,
      )}
    </ul>`;
}
