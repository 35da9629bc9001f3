// Draws only those rows of a long list that are on the screen. It scrolls with the page; rows may differ in height, which
// is known before they are drawn.

import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import { html } from './html.js';

/** Rows drawn beyond the edge of the screen. */
const BEYOND = 3;

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
 * The part to draw next on the way from what is drawn to what is wanted, with few new rows.
 *
 * @param {{from: number, to: number}} was
 * @param {{from: number, to: number}} wanted
 * @param {number} first on the screen
 * @param {number} end behind the last on the screen
 * @param {number} atOnce new rows
 */
function nearer(was, wanted, first, end, atOnce) {
  const kept = { from: Math.max(was.from, wanted.from), to: Math.min(was.to, wanted.to) };
  if (kept.from >= kept.to) return { from: first, to: Math.min(first + atOnce, wanted.to) };
  const below = Math.min(atOnce, (kept.to < end ? end : wanted.to) - kept.to);
  const above = Math.min(atOnce - Math.max(0, below), kept.from - (kept.from > first ? first : wanted.from));
  return { from: kept.from - Math.max(0, above), to: kept.to + Math.max(0, below) };
}

/**
 * @param {object} props
 * @param {any[]} props.items
 * @param {(item: any) => string | number} props.keyOf
 * @param {(item: any) => number} props.heightOf in pixels; the same function as long as heights are the same
 * @param {(item: any, index: number) => any} props.row what is drawn in a row
 * @param {(items: any[]) => void} [props.onShown] told which items are drawn, whenever that changes
 * @param {number} [props.atOnce] new rows in one frame: however far somebody jumps, none takes long; those on the screen come first
 * @param {string} [props.role] of the list; `rowRole` of a row
 * @param {string} [props.rowRole]
 * @param {string} [props.label]
 */
export function Virtual({ items, keyOf, heightOf, row, onShown, atOnce = 4, role = 'list', rowRole = 'listitem', label }) {
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const offsets = useMemo(() => offsetsOf(items, heightOf), [items, heightOf]);
  const [range, setRange] = useState({ from: 0, to: 0 });
  const latest = useRef({ offsets, range, frame: 0 });
  latest.current.offsets = offsets;
  latest.current.range = range;

  const look = () => {
    const element = box.current;
    if (!element) return;
    const { offsets: known, range: was } = latest.current;
    const top = -element.getBoundingClientRect().top;
    const count = known.length - 1;
    const first = rowAt(known, Math.max(0, top));
    const last = rowAt(known, Math.max(0, top + innerHeight));
    const wanted = { from: Math.max(0, first - BEYOND), to: Math.min(count, last + 1 + BEYOND) };
    const next = nearer(was, wanted, first, last + 1, atOnce);
    const done = next.from === wanted.from && next.to === wanted.to;
    if (next.from !== was.from || next.to !== was.to) {
      latest.current.range = next;
      setRange(next);
    }
    if (!done && !latest.current.frame) {
      latest.current.frame = requestAnimationFrame(() => {
        latest.current.frame = 0;
        look();
      });
    }
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
  useEffect(() => () => cancelAnimationFrame(latest.current.frame), []);

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
