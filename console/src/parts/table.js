// A table that stays quick with many rows: sorted by its columns, drawn as far as it is on the screen.

import { useMemo, useState } from 'preact/hooks';
import { t } from '../words.js';
import { html } from './html.js';
import { Virtual } from './virtual.js';

/**
 * @typedef {object} Column
 * @property {string} key
 * @property {string} title
 * @property {string} [width] as a track of CSS grid, `1fr` unless said
 * @property {(row: any) => any} cell what is drawn
 * @property {(row: any) => any} [sort] the value to sort by; without it the column does not sort
 * @property {boolean} [end] written at the end of the cell, as numbers are
 * @property {boolean} [wide] left out on narrow screens
 * @property {boolean} [roomy] left out where there is not much room
 */

const HEIGHT = 40;
const NARROW = matchMedia('(max-width: 640px)');
const ROOMY = matchMedia('(min-width: 1200px)');

/** @param {any} a @param {any} b what is not known comes last */
function compare(a, b) {
  const left = a === null || a === undefined || a === '';
  const right = b === null || b === undefined || b === '';
  if (left || right) return left === right ? 0 : left ? 1 : -1;
  if (typeof a === 'string') return a.localeCompare(String(b), undefined, { numeric: true, sensitivity: 'base' });
  return a < b ? -1 : a > b ? 1 : 0;
}

/**
 * @param {object} props
 * @param {any[]} props.rows
 * @param {Column[]} props.columns
 * @param {string} props.label what the table is of, for screen readers
 * @param {(row: any) => string | number} [props.keyOf] its `id` unless said
 * @param {{key: string, down?: boolean}} [props.sorted] at first
 * @param {any} [props.empty] shown where there is no row
 * @param {number} [props.height] of a row in pixels
 * @param {(rows: any[]) => void} [props.onShown]
 */
export function Table({ rows, columns, label, keyOf = (row) => row.id, sorted, empty, height = HEIGHT, onShown }) {
  const [order, setOrder] = useState(sorted ?? null);
  const shown = columns.filter((column) => !(column.wide && NARROW.matches) && !(column.roomy && !ROOMY.matches));
  const by = columns.find((column) => column.key === order?.key)?.sort;
  const ordered = useMemo(() => {
    if (!by) return rows;
    const turned = order?.down ? -1 : 1;
    return [...rows].sort((a, b) => {
      const [left, right] = [by(a), by(b)];
      const unknown = [left, right].some((one) => one === null || one === undefined || one === '');
      return compare(left, right) * (unknown ? 1 : turned);
    });
  }, [rows, order]);
  const heightOf = useMemo(() => () => height, [height]);
  const tracks = { gridTemplateColumns: shown.map((column) => column.width ?? 'minmax(0, 1fr)').join(' ') };

  if (!rows.length && empty) return empty;
  return html`<div class="table" role="table" aria-label=${label} aria-rowcount=${rows.length + 1}>
    <div class="table-head" role="row" aria-rowindex="1" style=${tracks}>
      ${shown.map((column) => {
        const mine = order?.key === column.key;
        const direction = mine ? (order?.down ? 'descending' : 'ascending') : undefined;
        return html`<div role="columnheader" aria-sort=${direction} class=${column.end ? 'end' : ''}>
          ${column.sort
            ? html`<button type="button" class="sort" onClick=${() => setOrder({ key: column.key, down: mine && !order?.down })}>
                ${column.title}<span aria-hidden="true">${mine ? (order?.down ? ' ↓' : ' ↑') : ''}</span>
              </button>`
            : column.title || html`<span class="unseen">${t('common.actions')}</span>`}
        </div>`;
      })}
    </div>
    <${Virtual}
      items=${ordered}
      keyOf=${keyOf}
      heightOf=${heightOf}
      role="rowgroup"
      rowRole="row"
      onShown=${onShown}
      row=${(row) =>
        html`<div class="table-row" role="presentation" style=${tracks}>
          ${shown.map((column) => html`<div role="cell" class=${column.end ? 'end' : ''}>${column.cell(row)}</div>`)}
        </div>`}
    />
  </div>`;
}
