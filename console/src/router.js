// Addresses into pages: no reload between them, and each can be opened directly.

import { signal } from '@preact/signals';
import { PAGES } from './paths.js';

/**
 * @typedef {object} Place
 * @property {string} path
 * @property {URLSearchParams} query
 * @property {import('./paths.js').Page | null} page `null`: there is none at this address
 * @property {Record<string, string>} params what stands in the address where the page has `:name`
 */

/** @param {string} path @param {string} search @returns {Place} */
export function placeOf(path, search) {
  const parts = path.split('/').filter(Boolean);
  for (const page of PAGES) {
    const wanted = page.path.split('/').filter(Boolean);
    if (wanted.length !== parts.length) continue;
    /** @type {Record<string, string>} */
    const params = {};
    const fits = wanted.every((part, index) => {
      if (!part.startsWith(':')) return part === parts[index];
      params[part.slice(1)] = decodeURIComponent(parts[index]);
      return true;
    });
    if (fits) return { path, query: new URLSearchParams(search), page, params };
  }
  return { path, query: new URLSearchParams(search), page: null, params: {} };
}

const here = () => {
  try {
    return placeOf(location.pathname, location.search);
  } catch {
    return { path: location.pathname, query: new URLSearchParams(), page: null, params: {} };
  }
};

/** Where the browser is. @type {import('@preact/signals').Signal<Place>} */
export const place = signal(here());

/** Modules of pages that have been fetched. @type {Map<import('./paths.js').Page, any>} */
const loaded = new Map();

/** The module of a page if it is here already. @param {import('./paths.js').Page | null} page */
export const pageHere = (page) => page && loaded.get(page);

/** Fetch the module of a page; rejected where it cannot be fetched. @param {import('./paths.js').Page | null} page */
export async function loadPage(page) {
  if (page && !loaded.has(page)) loaded.set(page, await page.load());
  return pageHere(page);
}

/**
 * Go to another page, or change the query of this one.
 *
 * @param {string} to a path with its query
 * @param {{replace?: boolean}} [options] `replace`: no step of its own for the back button
 */
export function go(to, { replace = false } = {}) {
  const before = location.pathname;
  if (replace) history.replaceState(null, '', to);
  else history.pushState(null, '', to);
  place.value = here();
  if (location.pathname !== before && !replace) scrollTo(0, 0);
}

/** Set parts of the query, empty ones are removed; the address can be sent to somebody. @param {Record<string, string>} values */
export function setQuery(values) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(values)) {
    if (value) query.set(name, value);
    else query.delete(name);
  }
  const text = query.toString();
  go(location.pathname + (text ? `?${text}` : ''), { replace: true });
}

/** Follow links to our pages without a reload. Links of the server's own (`/docs`) are left to the browser. */
export function startRouter() {
  addEventListener('popstate', () => {
    place.value = here();
  });
  document.addEventListener('click', (event) => {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = event.target instanceof Element ? event.target.closest('a[href]') : null;
    if (!(link instanceof HTMLAnchorElement) || link.target || link.hasAttribute('download')) return;
    if (link.origin !== location.origin || placeOf(link.pathname, link.search).page === null) return;
    event.preventDefault();
    go(link.pathname + link.search);
  });
}
