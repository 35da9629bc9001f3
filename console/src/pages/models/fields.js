// Fields of the form that are more than an input: lines, pairs of a name and a secret, GPUs, accounts.

import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { bytes } from '../../format.js';
import { store } from '../../live.js';
import { Field } from '../../parts/field.js';
import { html } from '../../parts/html.js';
import { Icon } from '../../parts/icon.js';
import { t } from '../../words.js';
import { Several } from './several.js';
import { LINES, SOURCES } from './spec.js';

/** The text of an event. @param {any} event */
export const typed = (event) => event.currentTarget.value;

/**
 * A value written as lines. What is half written stays as it is; a value that comes from elsewhere is written anew.
 *
 * @param {{label: string, name: string, as?: keyof typeof LINES, value: any, onValue: (value: any) => void, rows?: number, hint?: string, fault?: string}} props
 */
export function Lines({ as = 'plain', value, onValue, rows = 3, ...rest }) {
  const { write, read } = LINES[as];
  const [text, setText] = useState(() => write(value));
  const kept = useRef(JSON.stringify(value ?? null));
  useEffect(() => {
    const now = JSON.stringify(value ?? null);
    if (now === kept.current) return;
    kept.current = now;
    setText(write(value));
  }, [value]);
  const change = (/** @type {any} */ event) => {
    const next = typed(event);
    const made = read(next);
    setText(next);
    kept.current = JSON.stringify(made);
    onValue(made);
  };
  return html`<${Field} rows=${rows} value=${text} onInput=${change} ...${rest} />`;
}

/** Three answers: as the server likes, yes, no. @param {{label: string, name: string, value: any, onValue: (value: any) => void, hint?: string, fault?: string}} props */
export const Tri = ({ value, onValue, ...rest }) =>
  html`<${Field}
    ...${rest}
    options=${[['', t('deploy.as-fits')], ['yes', t('deploy.yes')], ['no', t('deploy.no')]]}
    value=${value === true ? 'yes' : value === false ? 'no' : ''}
    onChange=${(/** @type {any} */ event) => onValue({ yes: true, no: false }[typed(event)] ?? null)}
  />`;

/** A whole number, or nothing. @param {{label: string, name: string, value: any, onValue: (value: number | null) => void, hint?: string, fault?: string, min?: number}} props */
export const Count = ({ value, onValue, ...rest }) =>
  html`<${Field} type="number" step="1" inputmode="numeric" ...${rest} value=${value ?? ''} onInput=${(/** @type {any} */ event) => onValue(typed(event) === '' ? null : Number(typed(event)))} />`;

/**
 * Names with values that are not shown unless somebody asks.
 *
 * @param {{value: Record<string, string>, onValue: (value: Record<string, string>) => void, fault?: string}} props
 */
export function Environment({ value, onValue, fault }) {
  const [rows, setRows] = useState(() => Object.entries(value ?? {}));
  const [open, setOpen] = useState(-1);
  const kept = useRef(JSON.stringify(value ?? {}));
  useEffect(() => {
    const now = JSON.stringify(value ?? {});
    if (now === kept.current) return;
    kept.current = now;
    setRows(Object.entries(value ?? {}));
  }, [value]);
  const change = (/** @type {Array<[string, string]>} */ next) => {
    const made = Object.fromEntries(next.filter(([name]) => name));
    setRows(next);
    kept.current = JSON.stringify(made);
    onValue(made);
  };
  const put = (/** @type {number} */ at, /** @type {[string, string]} */ row) => change(rows.map((one, index) => (index === at ? row : one)));
  return html`<fieldset class="rows-field"><legend>${t('deploy.env')}</legend>
    ${rows.map(
      ([name, text], at) =>
        html`<div class="row" key=${at}>
          <input aria-label=${t('deploy.env-name')} placeholder=${t('deploy.env-name')} value=${name} spellcheck=${false} autocomplete="off" onInput=${(/** @type {any} */ e) => put(at, [typed(e).trim(), text])} />
          <input type=${open === at ? 'text' : 'password'} aria-label=${t('deploy.env-value', { name })} placeholder=${t('deploy.value')} value=${text} spellcheck=${false} autocomplete="new-password" onInput=${(/** @type {any} */ e) => put(at, [name, typed(e)])} />
          <button type="button" class="button quiet" aria-pressed=${open === at ? 'true' : 'false'} onClick=${() => setOpen(open === at ? -1 : at)}>${open === at ? t('deploy.hide') : t('deploy.show')}</button>
          <button type="button" class="button quiet only-icon" aria-label=${t('deploy.remove-one', { name })} onClick=${() => change(rows.filter((_, index) => index !== at))}><${Icon} name="close" /></button>
        </div>`,
    )}
    <div><button type="button" class="button" onClick=${() => setRows([...rows, ['', '']])}><${Icon} name="plus" />${t('deploy.env-add')}</button></div>
    <small>${t('deploy.env-hint')}</small>
    ${fault ? html`<small class="fault">${fault}</small>` : null}
  </fieldset>`;
}

/** LoRA adapters: a name and a source each. @param {{value: any[], onValue: (value: any[]) => void, fault?: string}} props */
export function Adapters({ value, onValue, fault }) {
  const rows = value ?? [];
  const put = (/** @type {number} */ at, /** @type {any} */ row) => onValue(rows.map((one, index) => (index === at ? row : one)));
  return html`<fieldset class="rows-field"><legend>${t('deploy.adapters')}</legend>
    ${rows.map((one, at) => {
      const place = SOURCES[one.source] ?? SOURCES.huggingface;
      return html`<div class="row wrap" key=${at}>
        <input aria-label=${t('deploy.adapter-name')} placeholder=${t('deploy.adapter-name')} value=${one.name ?? ''} onInput=${(/** @type {any} */ e) => put(at, { ...one, name: typed(e) })} />
        <select aria-label=${t('deploy.source')} value=${one.source} onChange=${(/** @type {any} */ e) => put(at, { name: one.name, source: typed(e) })}>
          ${Object.keys(SOURCES).map((source) => html`<option value=${source}>${t(`deploy.from-${source}`)}</option>`)}
        </select>
        <input aria-label=${t(`deploy.${place.repo}`)} placeholder=${t(`deploy.${place.repo}`)} value=${one[place.repo] ?? ''} onInput=${(/** @type {any} */ e) => put(at, { ...one, [place.repo]: typed(e) })} />
        ${place.file ? html`<input aria-label=${t('deploy.file')} placeholder=${t('deploy.file')} value=${one[place.file] ?? ''} onInput=${(/** @type {any} */ e) => put(at, { ...one, [place.file]: typed(e) })} />` : null}
        <button type="button" class="button quiet only-icon" aria-label=${t('deploy.remove-one', { name: one.name ?? '' })} onClick=${() => onValue(rows.filter((_, index) => index !== at))}><${Icon} name="close" /></button>
      </div>`;
    })}
    <div><button type="button" class="button" onClick=${() => onValue([...rows, { name: '', source: 'huggingface' }])}><${Icon} name="plus" />${t('deploy.adapter-add')}</button></div>
    <small>${t('deploy.adapters-hint')}</small>
    ${fault ? html`<small class="fault">${fault}</small>` : null}
  </fieldset>`;
}

/** @param {{value: string[], onValue: (value: string[]) => void, fault?: string}} props ids as worker:type:index */
export function Gpus({ value, onValue, fault }) {
  const workers = store.workers.value;
  const choices = useMemo(
    () =>
      [...workers.values()]
        .sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }))
        .flatMap((worker) =>
          (worker.gpu_devices ?? []).map((/** @type {any} */ device) => ({
            key: `${worker.name}:${device.type}:${device.index}`,
            text: `${worker.name} · ${device.index}`,
            more: `${device.name}, ${t('device.free', { size: bytes(device.free) })}`,
          })),
        ),
    [workers],
  );
  return html`<${Several} legend=${t('deploy.gpus')} choices=${choices} value=${value} onValue=${onValue} hint=${t('deploy.gpus-hint')} fault=${fault} />`;
}
