// What happened to models, instances, workers and files, live.

import { useState } from 'preact/hooks';
import { get } from '../../api.js';
import { dateTime } from '../../format.js';
import { pathOf } from '../../links.js';
import { store } from '../../live.js';
import { Badge } from '../../parts/badge.js';
import { Button, Empty } from '../../parts/button.js';
import { Dialog } from '../../parts/dialog.js';
import { Code } from '../../parts/copy.js';
import { Search, Segments, Tool } from '../../parts/field.js';
import { html } from '../../parts/html.js';
import { Fault, Waiting } from '../../parts/page.js';
import { Ago } from '../../parts/time.js';
import { Told } from '../../parts/told.js';
import { Virtual } from '../../parts/virtual.js';
import { place, setQuery } from '../../router.js';
import { known, t } from '../../words.js';
import { AT_ONCE, useEvents } from './follow.js';

const KINDS = ['model', 'model-instance', 'worker', 'model-file'];
const SEVERITIES = ['', 'warning', 'error'];
const HEIGHT = matchMedia('(max-width: 640px)').matches ? 76 : 56;
const heightOf = () => HEIGHT;

export function Happened() {
  const query = place.value.query;
  const kind = KINDS.includes(query.get('object') ?? '') ? String(query.get('object')) : '';
  const severity = SEVERITIES.includes(query.get('severity') ?? '') ? String(query.get('severity') ?? '') : '';
  const model = Number(query.get('model')) || undefined;
  const worker = Number(query.get('worker')) || undefined;
  const asked = { object: kind, severity, model_id: model, worker_id: worker };
  const only = model ? t('events.only-model', { name: store.models.value.get(model)?.name ?? `#${model}` }) : worker ? t('events.only-worker', { name: store.workers.value.get(worker)?.name ?? `#${worker}` }) : '';
  return html`<div class="tools">
      <${Search} label=${t('events.search')} value=${query.get('q') ?? ''} onInput=${(/** @type {string} */ q) => setQuery({ q })} />
      <${Tool} label=${t('events.about')} value=${kind} onChoose=${(/** @type {string} */ object) => setQuery({ object })} options=${[['', t('events.everything')], ...KINDS.map((one) => [one, t(`events.kind-${one}`)])]} />
      <${Segments} label=${t('events.severity')} values=${SEVERITIES} now=${severity} word=${(/** @type {string} */ one) => t(`events.least-${one || 'info'}`)} onChoose=${(/** @type {string} */ one) => setQuery({ severity: one })} />
    </div>
    ${only ? html`<p class="narrowed">${only} <button type="button" class="button" onClick=${() => setQuery({ model: '', worker: '' })}>${t('common.show-all')}</button></p>` : null}
    <${List} key=${JSON.stringify(asked)} asked=${asked} search=${query.get('q') ?? ''} />`;
}

/** @param {{asked: Record<string, any>, search: string}} props */
function List({ asked, search }) {
  const { events, fault, add } = useEvents(asked);
  const [page, setPage] = useState(1);
  const [more, setMore] = useState(true);
  const [open, setOpen] = useState(/** @type {any} */ (null));
  const earlier = async () => {
    // New ones have moved the pages since: what comes twice is left out, and nothing is missed.
    const { items } = await get('/v1/events', { ...asked, limit: AT_ONCE, page: page + 1 });
    add(items);
    setPage(page + 1);
    setMore(items.length === AT_ONCE);
  };
  if (fault) return html`<${Fault} text=${fault} />`;
  if (!events) return html`<${Waiting} lines=${6} />`;
  const terms = search.toLowerCase().split(/\s+/).filter(Boolean);
  const shown = terms.length ? events.filter((one) => terms.every((term) => `${one.text} ${one.object.name} ${one.kind} ${known(`happened.${one.kind}`)} ${one.actor}`.toLowerCase().includes(term))) : events;
  return html`${shown.length
      ? html`<div class="event-list"><${Virtual} label=${t('nav.events')} items=${shown} keyOf=${(/** @type {any} */ one) => one.id} heightOf=${heightOf} row=${(/** @type {any} */ one) => html`<${Row} event=${one} onOpen=${() => setOpen(one)} />`} /></div>`
      : html`<${Empty} title=${t(search || asked.object || asked.severity ? 'events.no-match' : 'events.none')}>${t('events.kept')}<//>`}
    ${more && events.length >= AT_ONCE ? html`<div class="actions earlier"><${Button} onClick=${earlier}>${t('events.earlier')}<//></div>` : null}
    ${open ? html`<${EventDialog} event=${open} onClose=${() => setOpen(null)} />` : null}`;
}

/** A thing with a way to its page. @param {{of: {kind: string, id: number | null, name: string}}} props */
export function Thing({ of: object }) {
  const path = object.id === null ? null : pathOf(/** @type {any} */ (object));
  const name = object.name || (object.id === null ? '' : `#${object.id}`);
  return path ? html`<a href=${path}>${name}</a>` : html`<span>${name}</span>`;
}

/** @param {{event: any, onOpen: () => void}} props */
const Row = ({ event, onOpen }) =>
  html`<div class=${`event ${event.severity}`}>
    <div class="event-what">${event.severity === 'info' ? null : html`<${Badge} state=${event.severity} />`}<button type="button" class="as-text" title=${event.text} onClick=${onOpen}><span><${Told} of=${event.kind}>${event.text}<//></span></button></div>
    <small class="muted ellipsis"><${Ago} at=${event.at} /> · ${t(`events.kind-${event.object.kind}`)} <${Thing} of=${event.object} />${event.actor ? ` · ${t('instance.by', { name: event.actor })}` : ''}</small>
  </div>`;

/** @param {{event: any, onClose: () => void}} props */
const EventDialog = ({ event, onClose }) =>
  html`<${Dialog} title=${known(`happened.${event.kind}`) ?? event.kind} onClose=${onClose} wide>
    <p class="prose" lang="en">${event.text}</p>
    <dl class="facts">
      <dt>${t('events.when')}</dt><dd>${dateTime(event.at)}</dd>
      <dt>${t(`events.kind-${event.object.kind}`)}</dt><dd><${Thing} of=${event.object} /></dd>
      ${event.actor ? html`<dt>${t('events.by')}</dt><dd>${event.actor}</dd>` : null}
    </dl>
    ${Object.keys(event.data ?? {}).length ? html`<${Code} text=${JSON.stringify(event.data, null, 2)} label=${t('events.data')} />` : null}
  <//>`;
