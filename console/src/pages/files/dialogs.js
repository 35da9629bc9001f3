// What can be done with files: copy to another worker, remove, make room.

import { useState } from 'preact/hooks';
import { del, get, post, put } from '../../api.js';
import { bytes } from '../../format.js';
import { store } from '../../live.js';
import { Button, sayFault } from '../../parts/button.js';
import { Dialog, FormDialog } from '../../parts/dialog.js';
import { Check, Field } from '../../parts/field.js';
import { html } from '../../parts/html.js';
import { Fault, useFetched, Waiting } from '../../parts/page.js';
import { Ago } from '../../parts/time.js';
import { toast } from '../../parts/toast.js';
import { t } from '../../words.js';
import { sourceOf } from './kept.js';

/** The fields that say what to fetch. */
const SOURCE = ['source', 'huggingface_repo_id', 'huggingface_filename', 'ollama_library_model_name', 'model_scope_model_id', 'model_scope_file_path', 'local_path', 'revision'];

/** @param {number} id of a worker */
export const workerName = (id) => store.workers.value.get(id)?.name ?? String(id);

/** @param {any} file @param {boolean} pinned */
export async function pin(file, pinned) {
  await put(`/v1/model-files/${file.id}`, { pinned });
  toast(pinned ? t('files.is-pinned') : t('files.is-unpinned'));
}

/** @param {any} file */
export async function fetchAgain(file) {
  await post(`/v1/model-files/${file.id}/reset`);
  toast(t('files.fetched-again'));
}

/** @param {{file: any, onClose: () => void}} props */
export function CopyDialog({ file, onClose }) {
  const there = new Set([...store.files.value.values()].filter((one) => sourceOf(one) === sourceOf(file)).map((one) => one.worker_id));
  const others = [...store.workers.value.values()].filter((one) => !there.has(one.id) && !one.barred).sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  const make = async (/** @type {any} */ fields) => {
    const full = await get(`/v1/model-files/${file.id}`);
    const source = Object.fromEntries(SOURCE.map((name) => [name, full[name]]).filter(([, value]) => value !== null && value !== undefined));
    await post('/v1/model-files', { ...source, worker_id: Number(fields.worker) });
    toast(t('files.copying', { worker: workerName(Number(fields.worker)) }));
  };
  if (!others.length) return html`<${Dialog} title=${t('files.copy')} onClose=${onClose}><p>${t('files.nowhere')}</p><//>`;
  return html`<${FormDialog} title=${t('files.copy')} submit=${t('files.copy-do')} onSubmit=${make} onClose=${onClose}>
    <p>${file.source === 'local_path' ? t('files.copy-local') : t('files.copy-text', { name: file.source_text, size: bytes(file.size) })}</p>
    <${Field} label=${t('files.to')} name="worker" options=${others.map((one) => [String(one.id), one.model_bytes_free === undefined ? one.name : `${one.name} · ${t('files.free', { size: bytes(one.model_bytes_free) })}`])} />
  <//>`;
}

/** @param {{file: any, users: any[], onClose: () => void}} props */
export function RemoveDialog({ file, users, onClose }) {
  const { value, fault } = useFetched(`/v1/model-files/${file.id}`);
  const full = /** @type {any} */ (value);
  const ours = file.source !== 'local_path';
  const remove = async (/** @type {any} */ fields) => {
    const told = await del(`/v1/model-files/${file.id}${ours ? `?cleanup=${fields.cleanup === 'yes'}` : ''}`);
    toast(told?.message ?? t('files.removed'));
  };
  if (fault) return html`<${Dialog} title=${t('files.remove')} onClose=${onClose}><p class="fault">${fault}</p><//>`;
  if (!full) return html`<${Dialog} title=${t('files.remove')} onClose=${onClose}><${Waiting} /><//>`;
  return html`<${FormDialog} title=${t('files.remove')} submit=${t('files.remove')} danger onSubmit=${remove} onClose=${onClose}>
    <p>${ours ? t('files.remove-text', { name: file.source_text, worker: workerName(file.worker_id) }) : t('files.remove-own', { name: file.source_text })}</p>
    ${users.length && ours ? html`<p class="fault">${t('files.in-use', { names: users.map((one) => one.name).join(', ') })}</p>` : null}
    ${ours ? html`<${Check} label=${t('files.cleanup', { size: bytes(file.size) })} name="cleanup" hint=${t('files.cleanup-hint')} checked=${full.cleanup_on_delete} />` : null}
  <//>`;
}

/** What would go is shown before anything does. @param {{worker: number, onClose: () => void}} props */
export function EvictDialog({ worker, onClose }) {
  const [plan, setPlan] = useState(/** @type {any} */ (null));
  const [fault, setFault] = useState('');
  const [needed, setNeeded] = useState('');
  const size = needed === '' ? null : Math.round(Number(needed) * 1024 ** 3);
  const ask = async (/** @type {boolean} */ dry) => post('/v1/model-files/evict', { worker_id: worker, ...(size ? { bytes: size } : {}), dry_run: dry });
  const look = async () => {
    setFault('');
    try {
      setPlan(await ask(true));
    } catch (error) {
      setFault(sayFault(error));
    }
  };
  const evict = async () => {
    const told = await ask(false);
    toast(t('files.evicting', { n: told.items.length, size: bytes(told.freed) }));
    onClose();
  };
  return html`<${Dialog} title=${t('files.evict-on', { worker: workerName(worker) })} onClose=${onClose} wide>
    <p>${t('files.evict-text')}</p>
    <div class="evict"><${Field} label=${t('files.how-much')} name="bytes" type="number" min="0" step="any" placeholder=${t('files.all')} value=${needed} onInput=${(/** @type {any} */ event) => {
      setNeeded(event.currentTarget.value);
      setPlan(null);
    }} /><${Button} kind=${plan ? 'plain' : 'primary'} onClick=${look}>${t('files.look')}<//></div>
    ${fault ? html`<${Fault} text=${fault} />` : null}
    ${plan
      ? html`${plan.items.length
            ? html`<ul class="rows">${plan.items.map((/** @type {any} */ one) => html`<li key=${one.id}><span>${one.source}</span><span class="muted num">${bytes(one.size)} · ${one.last_used_at ? html`${t('files.last-used')} <${Ago} at=${one.last_used_at} />` : t('files.never-used')}</span></li>`)}</ul>`
            : html`<p><b>${t('files.nothing-to-evict')}</b></p>`}
          ${plan.kept ? html`<p class="muted">${plan.kept}</p>` : null}`
      : null}
    <div class="actions end"><button type="button" class="button" onClick=${onClose}>${t('common.cancel')}</button>
      <${Button} kind="danger" disabled=${!plan?.items.length} onClick=${evict}>${plan?.items.length ? t('files.evict-do', { n: plan.items.length, size: bytes(plan.freed) }) : t('files.evict')}<//></div>
  <//>`;
}

/** When a file was read last, or that it is in use. @param {{file: any, users: any[]}} props */
export function LastUse({ file, users }) {
  if (users.some((one) => one.state === 'running')) return html`<span>${t('files.now')}</span>`;
  return file.last_used_at ? html`<${Ago} at=${file.last_used_at} />` : html`<span class="muted">${t('files.never')}</span>`;
}

/** All that is known of a file. @param {{file: any, users: any[], onClose: () => void}} props */
export function FileDialog({ file, users, onClose }) {
  const { value, fault, again } = useFetched(`/v1/model-files/${file.id}`, undefined, [file]);
  const full = /** @type {any} */ (value);
  return html`<${Dialog} title=${file.source_text} onClose=${onClose} wide>
    ${fault ? html`<${Fault} text=${fault} again=${again} />` : full
      ? html`<dl class="facts">
          <dt>${t('files.worker')}</dt><dd><a href=${`/cluster/${file.worker_id}`}>${workerName(file.worker_id)}</a></dd>
          <dt>${t('files.size')}</dt><dd>${bytes(full.size)}</dd>
          <dt>${t('files.from')}</dt><dd>${full.fetched_from === 'hub' ? t('files.from-hub') : full.fetched_from || t('files.from-nowhere')}</dd>
          <dt>${t('files.made')}</dt><dd><${Ago} at=${full.created_at} /></dd>
          <dt>${t('files.last-used')}</dt><dd><${LastUse} file=${file} users=${users} /></dd>
          <dt>${t('files.paths')}</dt><dd>${full.resolved_paths.length ? full.resolved_paths.map((/** @type {string} */ one) => html`<code class="path">${one}</code>`) : '–'}</dd>
          ${full.state_message ? html`<dt>${t('files.message')}</dt><dd class="fault">${full.state_message}</dd>` : null}
        </dl>`
      : html`<${Waiting} />`}
  <//>`;
}
