// Draws only those rows of a long list that are on the screen. It scrolls with the page; rows may differ in height, which
// is known before they are drawn.

import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import { html } from './html.js';

/** Rows drawn beyond the edge of the screen, and the step in which the drawn part moves. */
const BEYOND = 6;
const STEP = 4;

/** Where each row begins, and where the last one ends. @param {any[]} items @param {(item: any) => number} heightOf */
function offsetsOf(items, heightOf) {
  const offsets = new Float64Array(items.length + 1);
  for (let index = 0; index < items.length; index += 1) offsets[index + 1] = offsets[index] + heightOf(items[index]);
  return offsets;
}

/** The last row that begins at or before `y`. @param {Float64Array} offsets @param {number} y */
function rowAt(offsets, y) {
  let low = 0;
  let high = Math.max(0, offsets.length - 2);
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (offsets[middle] <= y) low = middle;
    else high = middle - 1;
  }
  return low;
}

/**
 * @param {object} props
 * @param {any[]} props.items
 * @param {(item: any) => string | number} props.keyOf
 * @param {(item: any) => number} props.heightOf in pixels; the same function as long as heights are the same
 * @param {(item: any, index: number) => any} props.row what is drawn in a row
 * @param {(items: any[]) => void} [props.onShown] told which items are drawn, whenever that changes
 * @param {string} [props.role] of the list; `rowRole` of a row
 * @param {string} [props.rowRole]
 * @param {string} [props.label]
 */
export function Virtual({ items, keyOf, heightOf, row, onShown, role = 'list', rowRole = 'listitem', label }) {
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const offsets = useMemo(() => offsetsOf(items, heightOf), [items, heightOf]);
  const [range, setRange] = useState({ from: 0, to: 0 });
  const latest = useRef(offsets);
  latest.current = offsets;

  const look = () => {
    const element = box.current;
    if (!element) return;
    const known = latest.current;
    const top = -element.getBoundingClientRect().top;
    const count = known.length - 1;
    const first = rowAt(known, Math.max(0, top));
    const last = rowAt(known, Math.max(0, top + innerHeight));
    const from = Math.max(0, Math.floor((first - BEYOND) / STEP) * STEP);
    const to = Math.min(count, Math.ceil((last + 1 + BEYOND) / STEP) * STEP);
    setRange((was) => (was.from === from && was.to === to ? was : { from, to }));
  };
  useLayoutEffect(look, [offsets]);
  useEffect(() => {
    addEventListener('scroll', look, { passive: true });
    addEventListener('resize', look);
    return () => {
      removeEventListener('scroll', look);
      removeEventListener('resize', look);
    };
  }, []);

  const to = Math.min(range.to, items.length);
  const from = Math.min(range.from, to);
  const shown = items.slice(from, to);
  const shownKeys = shown.map(keyOf).join(' ');
  useEffect(() => onShown?.(shown), [shownKeys]);
  return html`<div class="virtual" ref=${box} role=${role} aria-label=${label} style=${{ height: `${offsets[items.length]}px` }}>
    ${shown.map((item, index) => {
      const at = from + index;
      return html`<div
        class="virtual-row"
        key=${keyOf(item)}
        role=${rowRole}
        aria-setsize=${rowRole === 'listitem' ? items.length : undefined}
        aria-posinset=${rowRole === 'listitem' ? at + 1 : undefined}
        aria-rowindex=${rowRole === 'row' ? at + 2 : undefined}
        style=${{ transform: `translateY(${offsets[at]}px)`, height: `${offsets[at + 1] - offsets[at]}px` }}
        >${row(item, at)}</div
      >`;
    })}
  </div>`;
}
