// The head of a page, and what is shown while something is fetched.

import { useEffect, useState } from 'preact/hooks';
import { ApiError, get } from '../api.js';
import { t } from '../words.js';
import { sayFault, Sentence } from './button.js';
import { html } from './html.js';

/**
 * The title of a page, what is said under it, and what can be done on it.
 *
 * @param {{title: any, actions?: any, under?: any}} props
 */
export function PageHead({ title, actions, under }) {
  return html`<header class="page-head">
    <div><h1 tabindex="-1">${title}</h1>${under ? html`<p>${under}</p>` : null}</div>
    ${actions ? html`<div class="actions">${actions}</div>` : null}
  </header>`;
}

/** Lines where text will be. @param {{lines?: number}} props */
export const Waiting = ({ lines = 3 }) =>
  html`<div class="waiting" role="status" aria-label=${t('common.loading')}>${Array.from({ length: lines }, () => html`<i></i>`)}</div>`;

/**
 * What is at a path, fetched when the page is drawn and again when `again` is called or `deps` change.
 *
 * @template T
 * @param {string | null} path `null`: nothing yet
 * @param {Record<string, any>} [query]
 * @param {any[]} [deps]
 * @returns {{value: T | undefined, fault: string, again: () => void}}
 */
export function useFetched(path, query, deps = []) {
  const [state, setState] = useState(/** @type {{value: any, fault: string}} */ ({ value: undefined, fault: '' }));
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    if (path === null) return undefined;
    const until = new AbortController();
    get(path, query, { signal: until.signal }).then(
      (value) => setState({ value, fault: '' }),
      (fault) => {
        if (until.signal.aborted) return;
        if (!(fault instanceof ApiError)) throw fault;
        setState((was) => ({ value: was.value, fault: sayFault(fault) }));
      },
    );
    return () => until.abort();
  }, [path, JSON.stringify(query), turn, ...deps]);
  return { ...state, again: () => setTurn((was) => was + 1) };
}

/** A fault in place of what could not be fetched. @param {{text: string, again?: () => void}} props */
export const Fault = ({ text, again }) =>
  html`<${Sentence} tone="bad" actions=${again ? html`<button type="button" class="button" onClick=${again}>${t('common.again')}</button>` : null}>${text}<//>`;
