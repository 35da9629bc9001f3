// Draws only those rows of a long list that are on the screen. It scrolls with the page; rows may differ in height, which
// is known before they are drawn.

import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import { html } from './html.js';

/** Rows drawn beyond the edge of the screen. */
const BEYOND = 3;
/** Milliseconds of script for new rows in one frame; the browser takes about as long again to lay them out and paint them. */
const IN_A_FRAME = 5;
const MOST_AT_ONCE = 12;
/** Milliseconds that a row is taken to need before any was drawn. */
const FIRST = 4;

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
 * @param {(item: any, index: number) => any} props.row what is drawn in a row; the same function as long as it would draw the same
 * @param {(items: any[]) => void} [props.onShown] told which items are drawn, whenever that changes
 * @param {string} [props.role] of the list; `rowRole` of a row
 * @param {string} [props.rowRole]
 * @param {string} [props.label]
 */
export function Virtual({ items, keyOf, heightOf, row, onShown, role = 'list', rowRole = 'listitem', label }) {
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const offsets = useMemo(() => offsetsOf(items, heightOf), [items, heightOf]);
  const [range, setRange] = useState({ from: 0, to: 0 });
  /** `top` and `height`: of the screen within the list; `began`: drawing the last new rows; `each`: milliseconds that one takes. */
  const latest = useRef({ offsets, range, frame: 0, top: 0, height: 0, began: 0, fresh: 0, each: FIRST });
  /** What was drawn last: the same again is not looked at. @type {{current: Map<any, {at: number, offsets: Float64Array, row: Function, drawn: any}>}} */
  const rows = useRef(new Map());
  latest.current.offsets = offsets;
  latest.current.range = range;

  // However far somebody jumps, no frame takes long: it draws as many new rows as this machine can, those on the screen first.
  const draw = () => {
    const { offsets: known, range: was, top, height, each } = latest.current;
    const atOnce = Math.max(1, Math.min(MOST_AT_ONCE, Math.floor(IN_A_FRAME / each)));
    const count = known.length - 1;
    const first = rowAt(known, Math.max(0, top));
    const last = rowAt(known, Math.max(0, top + height));
    const wanted = { from: Math.max(0, first - BEYOND), to: Math.min(count, last + 1 + BEYOND) };
    const next = nearer(was, wanted, first, last + 1, atOnce);
    const done = next.from === wanted.from && next.to === wanted.to;
    if (next.from !== was.from || next.to !== was.to) {
      const kept = Math.max(0, Math.min(was.to, next.to) - Math.max(was.from, next.from));
      Object.assign(latest.current, { range: next, began: performance.now(), fresh: next.to - next.from - kept });
      setRange(next);
    }
    if (!done) soon();
  };
  const soon = () => {
    latest.current.frame ||= requestAnimationFrame(() => {
      latest.current.frame = 0;
      draw();
    });
  };
  // Where things are is asked only when the browser knows it: after a row was drawn it would have to lay all out first.
  const look = () => {
    if (!box.current) return;
    latest.current.top = -box.current.getBoundingClientRect().top;
    latest.current.height = innerHeight;
  };
  const moved = () => {
    look();
    soon();
  };
  useLayoutEffect(() => {
    look();
    draw();
  }, [offsets]);
  useLayoutEffect(() => {
    const { began, fresh, each } = latest.current;
    if (began && fresh > 0) {
      const took = (performance.now() - began) / fresh;
      // That something else took the processor says little of the rows.
      latest.current.each = took < each ? took : 0.8 * each + 0.2 * Math.min(took, 2 * each);
    }
    latest.current.began = 0;
  });
  useEffect(() => {
    addEventListener('scroll', moved, { passive: true });
    addEventListener('resize', moved);
    return () => {
      removeEventListener('scroll', moved);
      removeEventListener('resize', moved);
    };
  }, []);
  useEffect(() => () => cancelAnimationFrame(latest.current.frame), []);

  const rowOf = (/** @type {any} */ item, /** @type {number} */ at) =>
    html`<div
      class="virtual-row"
      key=${keyOf(item)}
      role=${rowRole}
      aria-setsize=${rowRole === 'listitem' ? items.length : undefined}
      aria-posinset=${rowRole === 'listitem' ? at + 1 : undefined}
      aria-rowindex=${rowRole === 'row' ? at + 2 : undefined}
      style=${{ top: `${offsets[at]}px`, height: `${offsets[at + 1] - offsets[at]}px` }}
      >${row(item, at)}</div
    >`;
  const to = Math.min(range.to, items.length);
  const from = Math.min(range.from, to);
  const shown = items.slice(from, to);
  const shownKeys = shown.map(keyOf).join(' ');
  useEffect(() => onShown?.(shown), [shownKeys]);
  const before = rows.current;
  rows.current = new Map();
  const drawn = shown.map((item, index) => {
    const at = from + index;
    const was = before.get(item);
    const same = was && was.at === at && was.offsets === offsets && was.row === row;
    const one = same ? was : { at, offsets, row, drawn: rowOf(item, at) };
    rows.current.set(item, one);
    return one.drawn;
  });
  return html`<div class="virtual" ref=${box} role=${role} aria-label=${label} style=${{ height: `${offsets[items.length]}px` }}>
    ${drawn}
  </div>`;
}
