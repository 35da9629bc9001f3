// Files of models on workers: how far they are, why they are kept, and what makes room.

import { useMemo, useState } from 'preact/hooks';
import { bytes, duration, number, percent } from '../format.js';
import { store } from '../live.js';
import { Badge } from '../parts/badge.js';
import { Meter } from '../parts/bar.js';
import { Button, Empty, NoMatch } from '../parts/button.js';
import { Search, Segments } from '../parts/field.js';
import { html } from '../parts/html.js';
import { Menu } from '../parts/menu.js';
import { PageHead, useFetched, Waiting } from '../parts/page.js';
import { Table } from '../parts/table.js';
import { setQuery } from '../router.js';
import { t } from '../words.js';
import { CopyDialog, EvictDialog, fetchAgain, FileDialog, LastUse, pin, RemoveDialog, workerName } from './files/dialogs.js';
import { adaptersOf, keptBecause, usersOf } from './files/kept.js';

/** @type {Record<string, (row: Row) => boolean>} */
const SHOWS = {
  all: () => true,
  fetching: (row) => row.file.state === 'downloading',
  failed: (row) => row.file.state === 'error',
  unused: (row) => row.kept.why === '',
};
const MOST_WORKERS = 200;
const HEIGHT = 52;

/** @typedef {{id: number, file: any, kept: import('./files/kept.js').Kept}} Row */

/** @param {{query: URLSearchParams}} props */
export default function Files({ query }) {
  const [open, setOpen] = useState(/** @type {{what: string, row?: Row, worker?: number} | null} */ (null));
  const search = query.get('q') ?? '';
  const worker = Number(query.get('worker')) || null;
  const show = SHOWS[query.get('show') ?? ''] ? String(query.get('show')) : 'all';
  const files = store.files.value;
  const models = store.models.value;
  // Adapters are not in what the stream tells; they change when a deployment is changed.
  const generations = [...models.values()].map((one) => `${one.id}.${one.generation}`).join(' ');
  const { value } = useFetched(models.size && files.size ? '/v1/models' : null, { perPage: -1 }, [generations]);
  const adapters = useMemo(() => adaptersOf(/** @type {any} */ (value)?.items ?? []), [value]);
  const byWorker = store.byWorker.value;
  const rows = useMemo(
    () => [...files.values()].map((file) => ({ id: file.id, file, kept: keptBecause(file, usersOf(file, byWorker.get(file.worker_id) ?? [], models, adapters)) })),
    [files, byWorker, models, adapters],
  );
  const shown = useMemo(() => {
    const terms = search.toLowerCase().split(/\s+/).filter(Boolean);
    return rows.filter((row) => (!worker || row.file.worker_id === worker) && SHOWS[show](row) && terms.every((term) => `${row.file.source_text} ${workerName(row.file.worker_id)}`.toLowerCase().includes(term)));
  }, [rows, search, worker, show]);

  if (!store.ready.value) return html`<${Waiting} lines=${5} />`;
  if (!files.size) return html`<${PageHead} title=${t('nav.files')} /><${Empty} title=${t('files.none')}>${t('files.none-text')}<//>`;
  const close = () => setOpen(null);
  const withFiles = [...store.filesByWorker.value.keys()].map((id) => ({ id, name: workerName(id) })).sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  const only = worker ?? (withFiles.length === 1 ? withFiles[0].id : null);
  return html`<${PageHead} title=${t('nav.files')} under=${html`<${Summary} rows=${worker ? shown : rows} worker=${only} />`} actions=${only ? html`<${Button} onClick=${() => setOpen({ what: 'evict', worker: only })}>${t('files.evict')}<//>` : null} />
    <div class="tools">
      <${Search} label=${t('files.search')} value=${search} onInput=${(/** @type {string} */ q) => setQuery({ q })} />
      ${withFiles.length > 1
        ? html`<label class="choice"><span>${t('files.worker')}</span><select value=${worker ?? ''} onChange=${(/** @type {any} */ event) => setQuery({ worker: event.currentTarget.value })}>
            <option value="">${t('files.all-workers')}</option>
            ${withFiles.slice(0, MOST_WORKERS).map((one) => html`<option value=${one.id}>${one.name}</option>`)}
          </select></label>`
        : null}
      <${Segments} label=${t('files.show')} values=${Object.keys(SHOWS)} now=${show} word=${(/** @type {string} */ name) => t(`files.show-${name}`)} onChoose=${(/** @type {string} */ name) => setQuery({ show: name === 'all' ? '' : name })} />
    </div>
    <${Table}
      label=${t('nav.files')}
      rows=${shown}
      height=${HEIGHT}
      sorted=${{ key: 'name' }}
      empty=${html`<${NoMatch} title=${t('files.no-match')} onAll=${() => setQuery({ q: '', show: '', worker: '' })} />`}
      columns=${columnsFor(setOpen)}
    />
    ${open ? html`<${Dialogs} open=${open} onClose=${close} />` : null}`;
}

/** @param {{open: any, onClose: () => void}} props */
function Dialogs({ open, onClose }) {
  if (open.what === 'evict') return html`<${EvictDialog} worker=${open.worker} onClose=${onClose} />`;
  const file = store.files.value.get(open.row.id) ?? open.row.file;
  if (open.what === 'copy') return html`<${CopyDialog} file=${file} onClose=${onClose} />`;
  if (open.what === 'remove') return html`<${RemoveDialog} file=${file} users=${open.row.kept.users} onClose=${onClose} />`;
  return html`<${FileDialog} file=${file} users=${open.row.kept.users} onClose=${onClose} />`;
}

/** @param {(open: any) => void} open @returns {import('../parts/table.js').Column[]} */
const columnsFor = (open) => [
  {
    key: 'name',
    title: t('files.file'),
    width: 'minmax(0, 2.2fr)',
    sort: (row) => row.file.source_text,
    cell: (row) => html`<button type="button" class="as-link ellipsis" title=${row.file.source_text} onClick=${() => open({ what: 'show', row })}>${row.file.source_text}</button>${row.file.state === 'error' && row.file.state_message ? html`<small class="reason ellipsis" title=${row.file.state_message}>${row.file.state_message}</small>` : html`<small class="muted ellipsis">${sourceWord(row.file)}</small>`}`,
  },
  { key: 'worker', title: t('files.worker'), wide: true, sort: (row) => workerName(row.file.worker_id), cell: (row) => html`<a href=${`/cluster/${row.file.worker_id}`}>${workerName(row.file.worker_id)}</a>` },
  { key: 'size', title: t('files.size'), width: '90px', end: true, wide: true, sort: (row) => row.file.size ?? null, cell: (row) => bytes(row.file.size) },
  { key: 'state', title: t('files.state'), width: 'minmax(110px, 1.2fr)', sort: (row) => row.file.state, cell: (row) => html`<${State} file=${row.file} />` },
  { key: 'kept', title: t('files.kept'), wide: true, width: 'minmax(0, 1.4fr)', sort: (row) => row.kept.why, cell: (row) => html`<${Why} kept=${row.kept} />` },
  { key: 'used', title: t('files.last-used'), wide: true, width: '110px', sort: (row) => row.file.last_used_at ?? null, cell: (row) => html`<${LastUse} file=${row.file} users=${row.kept.users} />` },
  { key: 'menu', title: '', width: '40px', cell: (row) => html`<${Menu} label=${t('files.actions', { name: row.file.source_text })} items=${itemsOf(row, open)} />` },
];

/** @param {Row} row @param {(open: any) => void} open */
function itemsOf(row, open) {
  const { file } = row;
  return [
    { text: t('files.details'), act: () => open({ what: 'show', row }) },
    file.pinned ? { text: t('files.unpin'), act: () => pin(file, false) } : { text: t('files.pin'), act: () => pin(file, true) },
    { text: t('files.copy'), act: () => open({ what: 'copy', row }) },
    ...(file.state === 'downloading' ? [] : [{ text: t('files.again'), act: () => fetchAgain(file) }]),
    { text: t('files.remove'), danger: true, act: () => open({ what: 'remove', row }) },
  ];
}

const SOURCES = { huggingface: 'Hugging Face', model_scope: 'ModelScope', ollama_library: 'Ollama' };

/** @param {any} file */
const sourceWord = (file) => SOURCES[file.source] ?? t('files.local');

/** How far it is, and how quick. @param {{file: any}} props */
function State({ file }) {
  if (file.deleted_at) return html`<${Badge} state="ending" />`;
  if (file.state !== 'downloading') return html`<span title=${file.state_message}><${Badge} state=${file.state} /></span>`;
  const left = file.size && file.download_speed ? (file.size * (1 - (file.download_progress ?? 0) / 100)) / file.download_speed : null;
  return html`<div class="progress"><${Meter} value=${file.download_progress ?? null} label=${t('state.downloading')} />
    <small class="muted num">${percent(file.download_progress)}${file.download_speed ? ` · ${bytes(file.download_speed)}/s` : ''}${left === null ? '' : ` · ${duration(left)}`}</small></div>`;
}

/** @param {{kept: import('./files/kept.js').Kept}} props */
function Why({ kept }) {
  if (kept.why !== 'used') return html`<span class=${kept.why ? '' : 'muted'}>${t(`files.kept-${kept.why || 'not'}`)}</span>`;
  const [first, ...more] = kept.users;
  return html`${t('files.used-by')} <a href=${`/instances/${first.id}`}>${first.name}</a>${more.length ? ` +${more.length}` : ''}`;
}

/** @param {{rows: Row[], worker: number | null}} props */
function Summary({ rows, worker }) {
  const size = (/** @type {Row[]} */ some) => some.reduce((sum, row) => sum + (row.file.size ?? 0), 0);
  const unused = rows.filter((row) => row.kept.why === '');
  const free = worker ? store.workers.value.get(worker)?.model_bytes_free : undefined;
  const fetched = rows.filter((row) => row.file.source !== 'local_path' && row.file.size);
  const parts = [
    t('files.summary', { n: number(rows.length), size: fetched.length ? bytes(size(fetched)) : '' }),
    ...(!fetched.length ? [] : [unused.length ? t('files.could-go', { n: number(unused.length), size: bytes(size(unused)) }) : t('files.none-could-go')]),
    ...(free === undefined ? [] : [t('files.free-there', { size: bytes(free) })]),
  ];
  return parts.join(' ');
}
