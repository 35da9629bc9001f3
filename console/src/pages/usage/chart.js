// Sums of days as stacked bars. The same is in the table below it, so that it is a picture to a screen reader.

import { useState } from 'preact/hooks';
import { number, short } from '../../format.js';
import { html } from '../../parts/html.js';
import { roundUp } from './sums.js';

const HIGH = 100;
const CARD = 320;
const DATES = matchMedia('(max-width: 640px)').matches ? 3 : 6;

/** @param {import('./sums.js').Period} period */
const nameOf = (period) => (period.from === period.to ? period.from : `${period.from} – ${period.to}`);

/**
 * @param {object} props
 * @param {import('./sums.js').Period[]} props.periods
 * @param {import('./sums.js').Series[]} props.series
 * @param {string} props.label what it shows, in a sentence
 */
export function Chart({ periods, series, label }) {
  const [over, setOver] = useState(/** @type {{index: number, x: number, y: number} | null} */ (null));
  const sums = periods.map((_, index) => series.reduce((sum, one) => sum + one.values[index], 0));
  const most = roundUp(Math.max(...sums));
  const find = (/** @type {PointerEvent} */ event) => {
    const box = /** @type {SVGElement} */ (event.currentTarget).getBoundingClientRect();
    const index = Math.floor(((event.clientX - box.left) / box.width) * periods.length);
    setOver({ index: Math.min(Math.max(index, 0), periods.length - 1), x: event.clientX, y: event.clientY });
  };
  const dates = periods.length <= DATES ? periods : Array.from({ length: DATES }, (_, index) => periods[Math.round((index * (periods.length - 1)) / (DATES - 1))]);
  return html`<figure class="chart">
    <div class="chart-scale num" aria-hidden="true"><span>${short(most)}</span><span>${most > 1 ? short(most / 2) : ''}</span><span>0</span></div>
    <svg viewBox=${`0 0 ${periods.length} ${HIGH}`} preserveAspectRatio="none" role="img" aria-label=${label} onPointerMove=${find} onPointerLeave=${() => setOver(null)}>
      ${over ? html`<rect class="chart-over" x=${over.index} y="0" width="1" height=${HIGH} />` : null}
      ${periods.map((_, index) => {
        let top = HIGH;
        return series.map((one, which) => {
          const height = (one.values[index] / most) * HIGH;
          if (!height) return null;
          top -= height;
          return html`<rect class=${`series-${which}`} x=${index + 0.1} y=${top} width="0.8" height=${height} />`;
        });
      })}
    </svg>
    <div class="chart-dates num" aria-hidden="true">${dates.map((one) => html`<span>${one.from.slice(5)}</span>`)}</div>
    ${over
      ? html`<div class="card-over" style=${{ left: `${Math.min(over.x + 14, innerWidth - CARD - 8)}px`, top: `${Math.min(over.y + 14, innerHeight - 60 - series.length * 24)}px` }}>
          <b>${nameOf(periods[over.index])} · ${number(sums[over.index])}</b>
          <ul>${series.map((one, which) => (one.values[over.index] ? html`<li><i class=${`swatch series-${which}`}></i><span class="ellipsis">${one.name}</span><span class="num">${number(one.values[over.index])}</span></li>` : null))}</ul>
        </div>`
      : null}
  </figure>
  <ul class="legend">${series.map((one, which) => html`<li><i class=${`swatch series-${which}`}></i>${one.name}</li>`)}</ul>`;
}
