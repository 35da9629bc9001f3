// What can be done with a worker: take nothing new, be emptied, labels, taints, go.

import { useState } from 'preact/hooks';
import { del, post, put } from '../../api.js';
import { Dialog, FormDialog, confirm } from '../../parts/dialog.js';
import { Button, Sentence } from '../../parts/button.js';
import { Field } from '../../parts/field.js';
import { html } from '../../parts/html.js';
import { Fault, useFetched, Waiting } from '../../parts/page.js';
import { toast } from '../../parts/toast.js';
import { go } from '../../router.js';
import { t } from '../../words.js';
import { LINES } from '../models/spec.js';

/** Set by the worker itself at every start, so that they cannot be removed. */
const BUILT_IN = new Set(['os', 'arch', 'worker-name']);

/** @returns {{of: (worker: any) => Array<{text: string, short?: string, act: () => any, danger?: boolean}>, dialog: any}} */
export function useActions() {
  const [open, setOpen] = useState(/** @type {{what: string, worker: any} | null} */ (null));
  const close = () => setOpen(null);
  const change = async (/** @type {any} */ worker, /** @type {any} */ fields, /** @type {string} */ said) => {
    await put(`/v1/workers/${worker.id}`, fields);
    toast(said);
  };
  const of = (/** @type {any} */ worker) => {
    const name = worker.name;
    return [
      worker.cordoned
        ? { text: t('cluster.uncordon'), short: t('cluster.uncordon-short'), act: () => change(worker, { cordoned: false }, t('cluster.uncordoned', { name })) }
        : { text: t('cluster.cordon'), short: t('cluster.cordon-short'), act: () => change(worker, { cordoned: true }, t('cluster.cordoned', { name })) },
      ...(worker.draining ? [] : [{ text: t('cluster.drain'), short: t('cluster.drain'), act: () => setOpen({ what: 'drain', worker }) }]),
      { text: t('cluster.labels'), act: () => setOpen({ what: 'labels', worker }) },
      { text: t('cluster.taints'), act: () => setOpen({ what: 'taints', worker }) },
      { text: t('nav.events'), short: t('nav.events'), act: () => go(`/events?worker=${worker.id}`) },
      worker.barred
        ? { text: t('cluster.admit'), act: () => post(`/v1/workers/${worker.id}/admit`).then(() => toast(t('cluster.admitted', { name }))) }
        : { text: t('cluster.bar'), danger: true, act: () => bar(worker) },
      { text: t('cluster.remove'), danger: true, act: () => remove(worker) },
    ];
  };
  const dialogs = { drain: DrainDialog, labels: LabelsDialog, taints: TaintsDialog };
  const dialog = open ? html`<${dialogs[open.what]} worker=${open.worker} onClose=${close} change=${change} />` : null;
  return { of, dialog };
}

/** @param {any} worker */
async function bar(worker) {
  const sure = { title: t('cluster.bar'), text: t('cluster.bar-text', { name: worker.name }), submit: t('cluster.bar'), danger: true };
  if (!(await confirm(sure))) return;
  await post(`/v1/workers/${worker.id}/bar`);
  toast(t('cluster.is-barred', { name: worker.name }));
}

/** @param {any} worker */
async function remove(worker) {
  const sure = { title: t('cluster.remove'), text: t('cluster.remove-text', { name: worker.name }), submit: t('cluster.remove'), danger: true };
  if (!(await confirm(sure))) return;
  await del(`/v1/workers/${worker.id}`);
  toast(t('cluster.removed', { name: worker.name }));
}

/** @param {{worker: any, onClose: () => void, change: Function}} props */
function DrainDialog({ worker, onClose, change }) {
  const { value, fault, again } = useFetched(`/v1/workers/${worker.id}/drain-plan`);
  const stays = (value?.steps ?? []).filter((/** @type {any} */ step) => !step.to && step.why);
  return html`<${Dialog} title=${t('drain.title', { name: worker.name })} onClose=${onClose} wide>
    <p>${t('drain.what')}</p>
    ${fault ? html`<${Fault} text=${fault} again=${again} />` : null}
    ${!value && !fault ? html`<${Waiting} />` : null}
    ${value && !value.steps.length ? html`<p>${t('drain.empty')}</p>` : null}
    ${stays.length ? html`<${Sentence} tone="warn">${t('drain.stays', { n: stays.length })}<//>` : null}
    ${value?.steps.length
      ? html`<ul class="rows plan">
          ${value.steps.map(
            (/** @type {any} */ step) =>
              html`<li key=${step.instance}>
                <b>${step.instance}</b>
                <span>${step.to ? t('drain.to', { place: step.to }) : step.why || t(`drain.${step.way}`)}${step.ends?.length ? html`<br />${t('drain.ends', { names: step.ends.join(', ') })}` : null}</span>
              </li>`,
          )}
        </ul>`
      : null}
    <div class="actions end">
      <button type="button" class="button" onClick=${onClose}>${t('common.cancel')}</button>
      <${Button} kind="primary" onClick=${async () => {
        await change(worker, { draining: true }, t('drain.begun', { name: worker.name }));
        onClose();
      }}>${t('drain.begin')}<//>
    </div>
  <//>`;
}

/** @param {{worker: any, onClose: () => void, change: Function}} props */
function LabelsDialog({ worker, onClose, change }) {
  const own = Object.fromEntries(Object.entries(worker.labels ?? {}).filter(([key]) => !BUILT_IN.has(key)));
  const save = (/** @type {any} */ fields) => change(worker, { labels: LINES.pairs.read(fields.labels) }, t('common.saved'));
  return html`<${FormDialog} title=${t('cluster.labels-of', { name: worker.name })} submit=${t('common.save')} onSubmit=${save} onClose=${onClose}>
    <${Field} label=${t('cluster.labels')} name="labels" rows=${6} hint=${t('cluster.labels-hint')} value=${LINES.pairs.write(own)} />
  <//>`;
}

/** @param {{worker: any, onClose: () => void, change: Function}} props */
function TaintsDialog({ worker, onClose, change }) {
  const written = (worker.taints ?? []).map((/** @type {any} */ one) => `${one.key}${one.value ? `=${one.value}` : ''}:${one.effect}`);
  const save = (/** @type {any} */ fields) => {
    const taints = LINES.plain.read(fields.taints).map((/** @type {string} */ line) => {
      const [, key, value, effect] = /^([^=:]*)(?:=([^:]*))?(?::(.*))?$/.exec(line) ?? [];
      return { key: key?.trim() ?? line, value: value?.trim() ?? '', effect: effect?.trim() ?? '' };
    });
    return change(worker, { taints }, t('common.saved'));
  };
  return html`<${FormDialog} title=${t('cluster.taints-of', { name: worker.name })} submit=${t('common.save')} onSubmit=${save} onClose=${onClose}>
    <${Field} label=${t('cluster.taints')} name="taints" rows=${5} hint=${t('cluster.taints-hint')} value=${written.join('\n')} />
  <//>`;
}
