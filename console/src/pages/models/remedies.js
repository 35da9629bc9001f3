// What would help a replica that waits, as buttons: some change the deployment, some a worker or another instance; what
// is done on machines is a sentence.

import { del, put } from '../../api.js';
import { Button } from '../../parts/button.js';
import { confirm } from '../../parts/dialog.js';
import { html } from '../../parts/html.js';
import { toast } from '../../parts/toast.js';
import { Told, toldText } from '../../parts/told.js';
import { t } from '../../words.js';

/**
 * @typedef {{of: string, id: number, name: string, field: string, value: any}} Change
 * @typedef {{kind: string, sentence: string, changes?: Change[], by_api?: boolean}} Remedy
 */

const PATHS = { model: '/v1/models', worker: '/v1/workers', model_instance: '/v1/model-instances' };

/** Changes of one object together. @param {Change[]} changes @returns {Array<{of: string, id: number, name: string, fields: Record<string, any>}>} */
function grouped(changes) {
  const found = new Map();
  for (const one of changes) {
    const key = `${one.of} ${one.id}`;
    if (!found.has(key)) found.set(key, { of: one.of, id: one.id, name: one.name, fields: {} });
    found.get(key).fields[one.field] = one.value;
  }
  // Instances are ended before their models want fewer: else another one might be ended too.
  return [...found.values()].sort((a, b) => Number(b.of === 'model_instance') - Number(a.of === 'model_instance'));
}

/** @param {{of: string, id: number, fields: Record<string, any>}} one */
const carryOut = (one) => (one.fields.removed ? del(`${PATHS[one.of]}/${one.id}`) : put(`${PATHS[one.of]}/${one.id}`, one.fields));

/** The first letter of a sentence, large. @param {string} text */
export const begun = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/**
 * @param {object} props
 * @param {Remedy[]} props.changes the least costly first
 * @param {(fields: Record<string, any>) => any} [props.onModel] takes changes of the deployment itself; else they are sent
 * @param {number} [props.modelId] its id, where `onModel` takes them
 * @param {() => void} [props.after] called when something was done
 */
export function Remedies({ changes, onModel, modelId, after }) {
  const own = (/** @type {Change} */ one) => one.of === 'model' && (modelId === undefined || one.id === modelId);
  const act = async (/** @type {Remedy} */ remedy) => {
    const parts = grouped(remedy.changes ?? []);
    const others = onModel ? parts.filter((part) => !remedy.changes?.some((one) => own(one) && one.id === part.id && part.of === 'model')) : parts;
    if (others.length) {
      const ends = others.some((part) => part.of === 'model_instance' || part.of === 'model');
      const names = others.map((part) => part.name).join(', ');
      if (!(await confirm({ title: toldText(`do-${remedy.kind}`, begun(remedy.sentence)), text: t('why.sure', { names }), submit: t('why.do'), danger: ends }))) return;
      for (const part of others) await carryOut(part);
      toast(t('why.done'));
    }
    if (onModel) {
      const mine = (remedy.changes ?? []).filter(own);
      if (mine.length) onModel(Object.fromEntries(mine.map((one) => [one.field, one.value])));
    }
    after?.();
  };
  if (!changes.length) return null;
  const isDone = (/** @type {Remedy} */ one) => Boolean(one.by_api && one.changes?.length);
  const ordered = [...changes.filter(isDone), ...changes.filter((one) => !isDone(one))];
  return html`<div class="remedies">
    <p><b>${t('why.helps')}</b></p>
    <ul>
      ${ordered.map(
        (remedy) =>
          html`<li key=${remedy.kind}>
            ${isDone(remedy)
              ? html`<${Button} icon="right" onClick=${() => act(remedy)}><${Told} of=${`do-${remedy.kind}`}>${begun(remedy.sentence)}<//><//>`
              : html`<span class="by-hand"><${Told} of=${`do-${remedy.kind}`}>${begun(remedy.sentence)}<//></span>`}
          </li>`,
      )}
    </ul>
  </div>`;
}
