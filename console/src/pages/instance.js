// One instance: what happened to it, why it is where it is or waits, its log, its memory, how it was started.

import { useEffect, useRef, useState } from 'preact/hooks';
import { del, get, put } from '../api.js';
import { percent } from '../format.js';
import { store } from '../live.js';
import { Badge } from '../parts/badge.js';
import { Button, Empty, Sentence } from '../parts/button.js';
import { confirm } from '../parts/dialog.js';
import { html } from '../parts/html.js';
import { Menu } from '../parts/menu.js';
import { PageHead, useFetched, Waiting } from '../parts/page.js';
import { Tabs } from '../parts/tabs.js';
import { Ago } from '../parts/time.js';
import { toast } from '../parts/toast.js';
import { t } from '../words.js';
import { Command } from './instance/command.js';
import { Log } from './instance/log.js';
import { Memory } from './instance/memory.js';
import { Timeline, withBeginning } from './instance/timeline.js';
import { Matter, Placement } from './instance/why.js';
import { CallDialog } from './models/call.js';
import { sampleOf } from './playground/code.js';

const EVENTS = 200;

/** @param {{params: {id: string}}} props */
export default function Instance({ params }) {
  const id = Number(params.id);
  const last = useRef(/** @type {any} */ (null));
  const now = store.instances.value.get(id);
  if (now) last.current = now;
  if (!now && !store.ready.value) return html`<${Waiting} lines=${5} />`;
  if (!now) return html`<${Gone} instance=${last.current} />`;
  return html`<${Shown} brief=${now} />`;
}

/** @param {{brief: any}} props */
function Shown({ brief }) {
  const [calling, setCalling] = useState(false);
  const path = `/v1/model-instances/${brief.id}`;
  const moves = [brief.state, brief.state_since, brief.state_message, brief.restart_count, brief.worker_id, brief.deleted_at];
  const full = useFetched(path, undefined, moves);
  const why = useFetched(`${path}/explain`, undefined, moves);
  const events = useFetched('/v1/events', { object: `model-instance:${brief.id}`, limit: EVENTS }, moves);
  const model = store.models.value.get(brief.model_id);
  const state = brief.deleted_at ? 'ending' : brief.state;
  const instance = /** @type {any} */ (full.value);
  const explanation = /** @type {any} */ (why.value);
  const members = membersOf(brief);
  const named = members.map((one) => [String(one.number), `${one.number} · ${one.name}`]);
  const runs = brief.state === 'running' && !brief.deleted_at;
  // What is measured comes a little after it runs.
  useAgain(runs && instance && !instance.memory, full.again);

  const actions = html`
    ${runs && model ? html`<a class="button primary" href=${`/playground?model=${encodeURIComponent(model.name)}`}>${t('instance.playground')}</a>` : null}
    ${model ? html`<${Button} onClick=${() => setCalling(true)}>${t('call.title')}<//>` : null}
    <${Button} onClick=${() => restart(brief)} disabled=${Boolean(brief.deleted_at)}>${t('instance.restart')}<//>
    <${Menu} label=${t('common.actions')} items=${[{ text: t('instance.remove'), danger: true, act: () => remove(brief) }]} />`;
  const tabs = [
    { key: 'timeline', title: t('instance.timeline'), body: () => html`<${Timeline} events=${withBeginning(events.value?.items, instance)} fault=${events.fault} again=${events.again} />` },
    { key: 'log', title: t('instance.log'), body: () => html`<${Log} instance=${brief} members=${named} />` },
    { key: 'placement', title: t('instance.placement'), body: () => html`<${Placement} explanation=${explanation} fault=${why.fault} again=${why.again} />` },
    { key: 'memory', title: t('instance.memory'), body: () => (instance ? html`<${Memory} instance=${instance} />` : html`<${Waiting} />`) },
    { key: 'command', title: t('instance.command'), body: () => html`<${Command} id=${brief.id} placed=${members.length > 0} deps=${moves} members=${named} />` },
  ];
  return html`<${PageHead}
      title=${brief.name}
      actions=${actions}
      under=${html`<span class="under"><${Badge} state=${state} detail=${brief.state === 'downloading' && brief.download_progress !== undefined ? percent(brief.download_progress) : undefined} />
        <span>${t('instance.since')} <${Ago} at=${brief.state_since} /></span>
        ${model ? html`<span>${t('instance.of')} <a href=${`/models/${model.id}`}>${model.name}</a></span>` : null}
        ${members.length === 1 ? html`<span>${t('instance.on')} <a href=${`/cluster/${members[0].worker}`}>${members[0].name}</a>${members[0].gpus.length ? ` · GPU ${members[0].gpus.join(', ')}` : ` · ${t('instance.cpu')}`}</span>` : null}
        ${brief.restart_count ? html`<span>${t('instance.restarts', { n: brief.restart_count })}</span>` : null}</span>`}
    />
    <${Matter} explanation=${explanation} instance=${brief} />
    ${members.length > 1 ? html`<${Members} members=${members} instance=${instance} />` : null}
    <section><${Tabs} label=${brief.name} tabs=${tabs} /></section>
    ${calling && model ? html`<${CallDialog} model=${model.name} ...${sampleOf(model.name, model.categories ?? [])} onClose=${() => setCalling(false)} />` : null}`;
}

/**
 * Its processes, the main one first.
 *
 * @param {any} brief
 * @returns {Array<{number: number, worker: number, name: string, gpus: number[]}>}
 */
function membersOf(brief) {
  if (brief.worker_id === undefined || brief.worker_id === null) return [];
  return [brief, ...(brief.subordinate_workers ?? [])].map((share, number) => ({
    number,
    worker: share.worker_id,
    name: store.workers.value.get(share.worker_id)?.name ?? String(share.worker_id),
    gpus: share.gpu_indexes ?? [],
  }));
}

/** @param {{members: any[], instance: any}} props */
function Members({ members, instance }) {
  const followers = instance?.distributed_servers?.subordinate_workers ?? [];
  return html`<section><h2>${t('instance.members')}</h2><ul class="rows">
    ${members.map((member) => {
      const told = member.number ? followers[member.number - 1] : instance;
      return html`<li key=${member.number}>
        <span><b>${member.number}</b> <a href=${`/cluster/${member.worker}`}>${member.name}</a> <span class="muted">${member.gpus.length ? `GPU ${member.gpus.join(', ')}` : t('instance.cpu')}</span></span>
        <span class="muted grow">${told?.state_message ?? ''}</span>
        ${told?.state ? html`<${Badge} state=${told.state} detail=${told.state === 'downloading' && told.download_progress !== null ? percent(told.download_progress) : undefined} />` : null}
      </li>`;
    })}
  </ul></section>`;
}

/** Ask once more a little later, as long as `wanted`; not for ever. @param {any} wanted @param {() => void} again */
function useAgain(wanted, again) {
  const tries = useRef(0);
  useEffect(() => {
    if (!wanted || tries.current >= 3) return undefined;
    const timer = setTimeout(() => {
      tries.current += 1;
      again();
    }, 4000 * (tries.current + 1));
    return () => clearTimeout(timer);
  }, [wanted, tries.current]);
}

/** A new one takes its place. @param {any} brief */
async function restart(brief) {
  if (!(await confirm({ title: t('instance.restart'), text: t('instance.restart-text', { name: brief.name }), submit: t('instance.restart') }))) return;
  await del(`/v1/model-instances/${brief.id}`);
  toast(t('instance.restarted', { name: brief.name }));
}

/** It goes, and its model wants one less. @param {any} brief */
async function remove(brief) {
  const model = await get(`/v1/models/${brief.model_id}`);
  const left = Math.max(0, model.replicas - 1);
  if (!(await confirm({ title: t('instance.remove'), text: t('instance.remove-text', { name: brief.name, model: model.name, n: left }), submit: t('instance.remove'), danger: true }))) return;
  // The instance first: else another one might be ended too.
  await del(`/v1/model-instances/${brief.id}`);
  await put(`/v1/models/${brief.model_id}`, { replicas: left });
  toast(t('instance.removed', { name: brief.name }));
}

/** @param {{instance: any}} props as it was last seen here */
function Gone({ instance }) {
  const others = instance ? (store.byModel.value.get(instance.model_id) ?? []) : [];
  if (!instance) return html`<${PageHead} title=${t('instance.title')} /><${Empty} title=${t('instance.not-there')} actions=${html`<a class="button" href="/models">${t('nav.models')}</a>`}>${t('instance.not-there-text')}<//>`;
  return html`<${PageHead} title=${instance.name} />
    <${Sentence}>${t('instance.has-ended')}<//>
    ${others.length
      ? html`<section><h2>${t('instance.others')}</h2><ul class="rows">
          ${others.map((one) => html`<li key=${one.id}><a href=${`/instances/${one.id}`}>${one.name}</a><${Badge} state=${one.deleted_at ? 'ending' : one.state} /></li>`)}
        </ul></section>`
      : null}`;
}
