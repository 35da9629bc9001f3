// A dialog keeps the focus until it is closed (the browser's own `<dialog>`), and gives it back afterwards.

import { useEffect, useRef, useState } from 'preact/hooks';
import { signal } from '@preact/signals';
import { t } from '../words.js';
import { sayFault } from './button.js';
import { html } from './html.js';
import { Icon } from './icon.js';

/**
 * @param {object} props
 * @param {string} props.title
 * @param {() => void} props.onClose
 * @param {any} [props.children]
 * @param {boolean} [props.wide]
 * @param {boolean} [props.stays] a click beside it does not close it: what it shows is shown once
 */
export function Dialog({ title, onClose, children, wide = false, stays = false }) {
  const box = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => {
    const before = document.activeElement;
    box.current?.showModal();
    return () => {
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  const outside = (/** @type {MouseEvent} */ event) => {
    if (event.target === box.current && !stays) onClose();
  };
  return html`<dialog ref=${box} class=${wide ? 'wide' : ''} aria-labelledby="dialog-title" onCancel=${(/** @type {Event} */ event) => {
    event.preventDefault();
    onClose();
  }} onMouseDown=${outside}>
    <header><h2 id="dialog-title">${title}</h2>
      <button type="button" class="button quiet only-icon" aria-label=${t('common.close')} onClick=${onClose}><${Icon} name="close" /></button></header>
    ${children}
  </dialog>`;
}

/**
 * A form in a dialog. `onSubmit` gets the fields by name; an `ApiError` of it is shown in place, and the dialog stays.
 *
 * @param {object} props
 * @param {string} props.title
 * @param {string} props.submit what the button says
 * @param {(fields: Record<string, string>) => any} props.onSubmit
 * @param {() => void} props.onClose
 * @param {boolean} [props.danger]
 * @param {boolean} [props.wide]
 * @param {any} [props.children]
 */
export function FormDialog({ title, submit, onSubmit, onClose, danger = false, wide = false, children }) {
  return html`<${Dialog} title=${title} onClose=${onClose} wide=${wide}>
    <${Form} submit=${submit} danger=${danger} onCancel=${onClose} onSubmit=${async (/** @type {any} */ fields) => {
      if ((await onSubmit(fields)) !== false) onClose();
    }}>${children}<//>
  <//>`;
}

/**
 * A form whose fault is shown at its end, in the server's words.
 *
 * @param {object} props
 * @param {string} props.submit
 * @param {(fields: Record<string, string>) => any} props.onSubmit
 * @param {() => void} [props.onCancel]
 * @param {boolean} [props.danger]
 * @param {any} [props.children]
 */
export function Form({ submit, onSubmit, onCancel, danger = false, children }) {
  const [busy, setBusy] = useState(false);
  const [fault, setFault] = useState('');
  const act = async (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    const fields = Object.fromEntries(new FormData(/** @type {HTMLFormElement} */ (event.currentTarget)));
    setBusy(true);
    setFault('');
    try {
      await onSubmit(/** @type {Record<string, string>} */ (fields));
    } catch (error) {
      setFault(sayFault(error));
    } finally {
      setBusy(false);
    }
  };
  return html`<form onSubmit=${act}>
    ${children}
    ${fault ? html`<p class="fault" role="alert">${fault}</p>` : null}
    <div class="actions end">
      ${onCancel ? html`<button type="button" class="button" onClick=${onCancel}>${t('common.cancel')}</button>` : null}
      <button type="submit" class=${`button ${danger ? 'danger' : 'primary'}`} disabled=${busy} aria-busy=${busy || undefined}>${submit}</button>
    </div>
  </form>`;
}

/** @typedef {{title: string, text: string, submit: string, danger?: boolean, answer: (yes: boolean) => void}} Question */

const question = signal(/** @type {Question | null} */ (null));

/**
 * Ask before something that cannot be taken back. Resolves with the answer.
 *
 * @param {{title: string, text: string, submit: string, danger?: boolean}} asked
 * @returns {Promise<boolean>}
 */
export const confirm = (asked) =>
  new Promise((answer) => {
    question.value = { ...asked, answer };
  });

/** Where `confirm` asks; stands once in the shell. */
export function Questions() {
  const asked = question.value;
  if (!asked) return null;
  const close = (/** @type {boolean} */ yes) => {
    question.value = null;
    asked.answer(yes);
  };
  return html`<${Dialog} title=${asked.title} onClose=${() => close(false)}>
    <p class="prose">${asked.text}</p>
    <div class="actions end">
      <button type="button" class="button" onClick=${() => close(false)}>${t('common.cancel')}</button>
      <button type="button" class=${`button ${asked.danger ? 'danger' : 'primary'}`} onClick=${() => close(true)}>${asked.submit}</button>
    </div>
  <//>`;
}
