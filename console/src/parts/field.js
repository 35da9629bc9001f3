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

/**
 * One of a few, side by side.
 *
 * @param {{label: string, values: any[], now: any, word: (value: any) => string, onChoose: (value: any) => void}} props
 */
export const Segments = ({ label, values, now, word, onChoose }) =>
  html`<div class="segments" role="group" aria-label=${label}>
    ${values.map((one) => html`<button type="button" aria-pressed=${one === now ? 'true' : 'false'} onClick=${() => onChoose(one)}>${word(one)}</button>`)}
  </div>`;

/**
 * A control among the tools above a list: one of many, or a day.
 *
 * @param {{label: string, value: any, onChoose: (value: string) => void, options?: Array<[any, string]>, type?: string}} props
 */
export const Tool = ({ label, value, onChoose, options, ...rest }) => {
  const changed = (/** @type {any} */ event) => onChoose(event.currentTarget.value);
  return html`<label class="choice"><span>${label}</span>${options
    ? html`<select value=${value} onChange=${changed}>${options.map(([key, word]) => html`<option value=${key}>${word}</option>`)}</select>`
    : html`<input value=${value} onChange=${changed} ...${rest} />`}</label>`;
};
