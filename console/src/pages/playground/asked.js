// What the tabs that ask once have in common: a model, a request, its answer or its fault, and the code of it.

import { useEffect, useRef, useState } from 'preact/hooks';
import { ApiError } from '../../api.js';
import { duration } from '../../format.js';
import { sayFault, Sentence } from '../../parts/button.js';
import { html } from '../../parts/html.js';
import { whisper } from '../../parts/toast.js';
import { t } from '../../words.js';
import { CallDialog } from '../models/call.js';
import { Choice } from './chat.js';

/**
 * One request at a time, which can be stopped.
 *
 * @template T
 * @param {(signal: AbortSignal) => Promise<T>} make
 */
export function useAsked(make) {
  const [state, setState] = useState(/** @type {{value: T | null, fault: string, busy: boolean, took: number | null}} */ ({ value: null, fault: '', busy: false, took: null }));
  const open = useRef(/** @type {AbortController | null} */ (null));
  useEffect(() => () => open.current?.abort(), []);
  const begin = async () => {
    open.current?.abort();
    const mine = new AbortController();
    open.current = mine;
    const began = performance.now();
    setState((was) => ({ ...was, fault: '', busy: true }));
    try {
      const value = await make(mine.signal);
      setState({ value, fault: '', busy: false, took: (performance.now() - began) / 1000 });
      whisper(t('playground.answered'));
    } catch (fault) {
      if (mine.signal.aborted) {
        if (open.current === mine) setState((was) => ({ ...was, busy: false }));
        return;
      }
      if (!(fault instanceof ApiError)) throw fault;
      setState((was) => ({ ...was, fault: sayFault(fault), busy: false }));
    }
  };
  return { ...state, begin, stop: () => open.current?.abort() };
}

/**
 * @param {object} props
 * @param {string[]} props.models
 * @param {string} props.model
 * @param {(name: string) => void} props.onModel
 * @param {'embeddings' | 'rerank' | 'images' | 'speech' | 'transcription'} props.kind
 * @param {any} props.body of the request as it would be made now
 * @param {any} props.asked of `useAsked`
 * @param {string} props.submit
 * @param {boolean} [props.can]
 * @param {any} props.children the fields
 * @param {any} props.result
 */
export function Asking({ models, model, onModel, kind, body, asked, submit, can = true, children, result }) {
  const [showsCode, setShowsCode] = useState(false);
  return html`<div class="tools">
      <${Choice} label=${t('playground.model')} value=${model} models=${models} onChange=${onModel} />
      <span class="spring"></span>
      <button type="button" class="button" onClick=${() => setShowsCode(true)}>${t('playground.code')}</button>
    </div>
    <div class="asking">
      <form onSubmit=${(/** @type {Event} */ event) => {
        event.preventDefault();
        asked.begin();
      }}>
        ${children}
        <div class="actions">${asked.busy ? html`<button type="button" class="button" onClick=${asked.stop}>${t('playground.stop')}</button>` : html`<button type="submit" class="button primary" disabled=${!can}>${submit}</button>`}
          ${asked.took !== null && !asked.busy ? html`<small class="muted num">${duration(asked.took)}</small>` : null}</div>
      </form>
      <div class="result" aria-busy=${asked.busy ? 'true' : undefined}>
        ${asked.busy ? html`<span class="dots" role="status" aria-label=${t('playground.waits')}><i></i><i></i><i></i></span>` : null}
        ${asked.fault ? html`<${Sentence} tone="bad">${asked.fault}<//>` : null}
        ${asked.value && !asked.busy ? result : null}
      </div>
    </div>
    ${showsCode ? html`<${CallDialog} model=${model} kind=${kind} body=${body} onClose=${() => setShowsCode(false)} />` : null}`;
}

/** The model that is chosen, the wanted one at first. @param {string[]} models @param {string | null} wanted @returns {[string, (name: string) => void]} */
export function useModel(models, wanted) {
  const [model, setModel] = useState(() => (wanted && models.includes(wanted) ? wanted : models[0]));
  return [models.includes(model) ? model : models[0], setModel];
}
