// The audit trail: who did what, when and from where, and what was refused.

import { useEffect, useState } from 'preact/hooks';
import { ApiError, get, withQuery } from '../../api.js';
import { dateTime } from '../../format.js';
import { Badge } from '../../parts/badge.js';
import { Button, Empty, sayFault } from '../../parts/button.js';
import { Code } from '../../parts/copy.js';
import { Dialog } from '../../parts/dialog.js';
import { Search, Segments, Tool } from '../../parts/field.js';
import { html } from '../../parts/html.js';
import { Fault, Waiting } from '../../parts/page.js';
import { Table } from '../../parts/table.js';
import { Ago } from '../../parts/time.js';
import { place, setQuery } from '../../router.js';
import { t } from '../../words.js';
import { Thing } from './happened.js';
import { merged } from './told.js';

const AT_ONCE = 100;
const HEIGHT = 56;
const OUTCOMES = ['', 'done', 'refused', 'failed'];
/** Beginnings of actions. */
const ACTIONS = ['auth.', 'user.', 'api-key.', 'model.', 'model-instance.', 'model-file.', 'worker.'];
const SETTLED = 250;

/** Midnight here of a day, as an instant; nothing where that is no day. @param {string | null} day @param {number} [later] days */
function midnight(day, later = 0) {
  const at = new Date(`${day}T00:00:00`);
  if (!day || Number.isNaN(at.getTime())) return undefined;
  at.setDate(at.getDate() + later);
  return at.toISOString();
}

export function Audit() {
  const query = place.value.query;
  const at = (/** @type {string} */ name) => query.get(name) ?? '';
  const asked = { search: at('find'), outcome: OUTCOMES.includes(at('outcome')) ? at('outcome') : '', action: ACTIONS.includes(at('action')) ? at('action') : '', from: midnight(at('from')), to: midnight(at('to'), 1) };
  const key = JSON.stringify(asked);
  const [settled, setSettled] = useState(asked);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(asked), SETTLED);
    return () => clearTimeout(timer);
  }, [key]);
  const set = (/** @type {string} */ name) => (/** @type {string} */ value) => setQuery({ [name]: value });
  return html`<div class="tools">
      <${Search} label=${t('events.search-audit')} value=${at('find')} onInput=${set('find')} />
      <${Tool} label=${t('events.action')} value=${asked.action} onChoose=${set('action')} options=${[['', t('events.everything')], ...ACTIONS.map((one) => [one, `${one}…`])]} />
      <${Segments} label=${t('events.outcome')} values=${OUTCOMES} now=${asked.outcome} word=${(/** @type {string} */ one) => t(`events.outcome-${one || 'any'}`)} onChoose=${set('outcome')} />
      <${Tool} label=${t('usage.from')} type="date" value=${at('from')} max=${at('to')} onChoose=${set('from')} />
      <${Tool} label=${t('usage.to')} type="date" value=${at('to')} min=${at('from')} onChoose=${set('to')} />
      <span class="spring"></span>
      <a class="button" href=${withQuery('/v1/audit-events/export', { ...asked, format: 'csv' })} download>${t('usage.csv')}</a>
    </div>
    <${List} key=${JSON.stringify(settled)} asked=${settled} />`;
}

/** @param {{asked: Record<string, any>}} props */
function List({ asked }) {
  const [state, setState] = useState({ rows: /** @type {any[] | null} */ (null), total: 0, page: 0, fault: '' });
  const [open, setOpen] = useState(/** @type {any} */ (null));
  const read = async (/** @type {number} */ page, /** @type {AbortSignal} */ signal) => {
    try {
      const { items, pagination } = await get('/v1/audit-events', { ...asked, perPage: AT_ONCE, page }, { signal });
      setState((was) => ({ rows: merged(page === 1 ? [] : was.rows ?? [], items), total: pagination.total, page, fault: '' }));
    } catch (fault) {
      if (signal?.aborted) return;
      if (!(fault instanceof ApiError)) throw fault;
      setState((was) => ({ ...was, fault: sayFault(fault) }));
    }
  };
  useEffect(() => {
    const until = new AbortController();
    read(1, until.signal);
    return () => until.abort();
  }, []);
  const { rows, total, page, fault } = state;
  const again = () => read(1, new AbortController().signal);
  if (fault) return html`<${Fault} text=${fault} again=${again} />`;
  if (!rows) return html`<${Waiting} lines=${6} />`;
  return html`<p class="muted matches">${t('events.found', { n: total })} <button type="button" class="button" onClick=${again}>${t('events.refresh')}</button></p>
    <${Table} label=${t('events.audit')} rows=${rows} height=${HEIGHT} empty=${html`<${Empty} title=${t('events.no-match')} />`} columns=${columnsFor(setOpen)} />
    ${page * AT_ONCE < total ? html`<div class="actions earlier"><${Button} onClick=${() => read(page + 1, new AbortController().signal)}>${t('events.earlier')}<//></div>` : null}
    ${open ? html`<${AuditDialog} event=${open} onClose=${() => setOpen(null)} />` : null}`;
}

/** @param {any} event */
const targetOf = (event) => ({ kind: event.target_type, id: event.target_id, name: event.target_name });

/** @param {(event: any) => void} open @returns {import('../../parts/table.js').Column[]} */
const columnsFor = (open) => [
  { key: 'at', title: t('events.when'), wide: true, width: '110px', cell: (row) => html`<${Ago} at=${row.at} />` },
  { key: 'who', title: t('events.by'), width: 'minmax(0, 1fr)', cell: (row) => html`<span title=${row.actor_name}>${row.actor_name || '–'}</span><small class="muted ellipsis">${[row.means, row.address].filter(Boolean).join(' · ')}</small>` },
  { key: 'action', title: t('events.action'), width: 'minmax(0, 1.1fr)', cell: (row) => html`<button type="button" class="as-link ellipsis" title=${row.action} onClick=${() => open(row)}>${row.action}</button><small class="muted ellipsis"><span class="only-narrow"><${Ago} at=${row.at} /> </span>${row.details?.count > 1 ? t('events.times', { n: row.details.count }) : null}</small>` },
  { key: 'target', title: t('events.target'), wide: true, width: 'minmax(0, 1.3fr)', cell: (row) => html`<${Thing} of=${targetOf(row)} /><small class="muted ellipsis">${row.target_type}</small>` },
  { key: 'outcome', title: t('events.outcome'), width: '100px', cell: (row) => html`<${Badge} state=${row.outcome} />` },
];

/** @param {{event: any, onClose: () => void}} props */
function AuditDialog({ event, onClose }) {
  const { changes, ...rest } = event.details ?? {};
  const shown = (/** @type {any} */ value) => (typeof value === 'string' ? value : JSON.stringify(value));
  const isTable = changes && !Array.isArray(changes);
  return html`<${Dialog} title=${event.action} onClose=${onClose} wide>
    <dl class="facts">
      <dt>${t('events.when')}</dt><dd>${dateTime(event.at)}</dd>
      <dt>${t('events.by')}</dt><dd>${[event.actor_name, event.actor_role, event.means].filter(Boolean).join(' · ') || '–'}</dd>
      <dt>${t('events.address')}</dt><dd>${event.address || '–'}</dd>
      ${event.target_type ? html`<dt>${t('events.target')}</dt><dd><span>${event.target_type} <${Thing} of=${targetOf(event)} /></span></dd>` : null}
      <dt>${t('events.outcome')}</dt><dd><span><${Badge} state=${event.outcome} detail=${String(event.status)} /></span></dd>
      ${isTable ? Object.entries(changes).map(([name, one]) => html`<dt>${name}</dt><dd><span><code>${shown(one.from)}</code> → <code>${shown(one.to)}</code></span></dd>`) : null}
    </dl>
    ${Object.keys(isTable ? rest : event.details ?? {}).length ? html`<${Code} text=${JSON.stringify(isTable ? rest : event.details, null, 2)} label=${t('events.data')} />` : null}
  <//>`;
}
