// Fields of forms: a label, a control, a hint, a fault. Named, so that `Form` finds what was given.

import { useId } from 'preact/hooks';
import { html } from './html.js';

/**
 * @param {object} props
 * @param {string} props.label
 * @param {string} props.name
 * @param {string} [props.hint]
 * @param {string} [props.fault]
 * @param {string} [props.type]
 * @param {number} [props.rows] lines, where there may be more than one
 * @param {Array<[string, string]>} [props.options] a choice: values and their words
 */
export function Field({ label, name, hint, fault, type = 'text', rows, options, ...rest }) {
  const id = useId();
  const said = [hint ? `${id}-hint` : '', fault ? `${id}-fault` : ''].filter(Boolean).join(' ') || undefined;
  const common = { id, name, 'aria-describedby': said, 'aria-invalid': fault ? 'true' : undefined, ...rest };
  return html`<div class="field">
    <label for=${id}>${label}</label>
    ${options
      ? html`<select ...${common}>${options.map(([value, word]) => html`<option value=${value}>${word}</option>`)}</select>`
      : rows
        ? html`<textarea rows=${rows} spellcheck=${false} ...${common}></textarea>`
        : html`<input type=${type} autocomplete="off" spellcheck=${false} ...${common} />`}
    ${hint ? html`<small id=${`${id}-hint`}>${hint}</small>` : null}
    ${fault ? html`<small class="fault" id=${`${id}-fault`}>${fault}</small>` : null}
  </div>`;
}

/** @param {{label: string, name: string, hint?: string}} props */
export function Check({ label, name, hint, ...rest }) {
  const id = useId();
  return html`<div class="field check">
    <input type="checkbox" id=${id} name=${name} value="yes" aria-describedby=${hint ? `${id}-hint` : undefined} ...${rest} />
    <label for=${id}>${label}</label>
    ${hint ? html`<small id=${`${id}-hint`}>${hint}</small>` : null}
  </div>`;
}

/**
 * A search that `/` leads to.
 *
 * @param {{value: string, onInput: (text: string) => void, label: string}} props
 */
export const Search = ({ value, onInput, label }) =>
  html`<input
    type="search"
    class="search"
    data-search
    placeholder=${label}
    aria-label=${label}
    aria-keyshortcuts="/"
    spellcheck=${false}
    autocomplete="off"
    value=${value}
    onInput=${(/** @type {any} */ event) => onInput(event.currentTarget.value)}
  />`;
