// Tabs; which one is open stands in the address, so that it can be sent to somebody.

import { useEffect, useRef } from 'preact/hooks';
import { place, setQuery } from '../router.js';
import { html } from './html.js';

/**
 * @param {object} props
 * @param {Array<{key: string, title: string, body: () => any}>} props.tabs the first is open unless the address says so
 * @param {string} props.label
 * @param {string} [props.name] of the part of the query
 */
export function Tabs({ tabs, label, name = 'tab' }) {
  const wanted = place.value.query.get(name);
  const open = tabs.find((tab) => tab.key === wanted) ?? tabs[0];
  const row = useRef(/** @type {HTMLElement | null} */ (null));
  // Where there are more tabs than there is room for, the open one is among those that are seen.
  useEffect(() => {
    const tab = /** @type {HTMLElement | null | undefined} */ (row.current?.querySelector('[aria-selected="true"]'));
    if (!row.current || !tab) return;
    const { offsetLeft: from, offsetWidth: width } = tab;
    const start = row.current.offsetLeft;
    if (from - start < row.current.scrollLeft) row.current.scrollLeft = from - start;
    else if (from - start + width > row.current.scrollLeft + row.current.clientWidth) row.current.scrollLeft = from - start + width - row.current.clientWidth;
  }, [open.key]);
  const choose = (/** @type {string} */ key) => setQuery({ [name]: key === tabs[0].key ? '' : key });
  const move = (/** @type {KeyboardEvent} */ event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = tabs[(tabs.indexOf(open) + step + tabs.length) % tabs.length];
    choose(next.key);
    const list = /** @type {HTMLElement} */ (event.currentTarget);
    requestAnimationFrame(() => /** @type {HTMLElement | null} */ (list.querySelector('[aria-selected="true"]'))?.focus());
  };
  return html`<div class="tabs">
    <div role="tablist" ref=${row} aria-label=${label} onKeyDown=${move}>
      ${tabs.map(
        (tab) =>
          html`<button
            type="button"
            role="tab"
            id=${`tab-${tab.key}`}
            aria-selected=${tab === open ? 'true' : 'false'}
            aria-controls=${tab === open ? `panel-${tab.key}` : undefined}
            tabindex=${tab === open ? 0 : -1}
            onClick=${() => choose(tab.key)}
            >${tab.title}</button
          >`,
      )}
    </div>
    <div role="tabpanel" id=${`panel-${open.key}`} aria-labelledby=${`tab-${open.key}`} key=${open.key}>${open.body()}</div>
  </div>`;
}
