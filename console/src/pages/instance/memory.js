// The memory of an instance term by term: as it was estimated, and as it was found.

import { bytes } from '../../format.js';
import { html } from '../../parts/html.js';
import { known, t } from '../../words.js';

/** Terms in the order in which they are told. */
const TERMS = ['weights', 'cache', 'compute', 'graphs', 'process', 'kept'];
const SIDES = ['devices', 'host'];
/** Nobody minds so little more than was claimed. */
const ROUNDED = 1.02;
/** Pages of files: part of the weights on the host, not a term of its own. */
const MAPPED = 'host mapped';

/**
 * Rows to compare, the sums of each side first; bytes, `null` where that is not known.
 *
 * @param {any} instance as the API shows it
 * @returns {Array<{key: string, side: string, term: string, claimed: number | null, estimated: number | null, measured: number | null, peak?: number | null, learnt?: any}>}
 */
function memoryRows(instance) {
  const plan = instance.memory_plan ?? {};
  const found = instance.memory ?? {};
  const terms = found.terms ?? {};
  const shares = [instance, ...(instance.distributed_servers?.subordinate_workers ?? [])].map((one) => one.computed_resource_claim).filter(Boolean);
  const vram = shares.flatMap((claim) => Object.values(claim.vram ?? {})).map(Number);
  const sums = {
    devices: vram.length ? vram.reduce((sum, size) => sum + size, 0) : null,
    host: shares.length ? shares.reduce((sum, claim) => sum + (claim.ram ?? 0), 0) : null,
  };
  const rows = [];
  for (const side of SIDES) {
    const of = (/** @type {any} */ sizes) => Object.entries(sizes ?? {}).filter(([name]) => name.startsWith(`${side} `) && name !== MAPPED);
    const estimated = of(plan.estimated).reduce((sum, [, size]) => sum + Number(size), 0) || null;
    // What was measured of the process leaves out pages of files, which the estimate counts.
    const mapped = side === 'host' ? (terms[MAPPED] ?? 0) : 0;
    const measured = found[side] === undefined || found[side] === null ? null : found[side] + mapped;
    const peak = found[`${side}_peak`] === undefined || found[`${side}_peak`] === null ? null : found[`${side}_peak`] + mapped;
    if (sums[side] || measured) rows.push({ key: side, side, term: '', claimed: sums[side], estimated, measured, peak });
    for (const term of TERMS) {
      const name = `${side} ${term}`;
      const row = { claimed: plan.claimed?.[name] ?? null, estimated: plan.estimated?.[name] ?? null, measured: terms[name] ?? null };
      if (row.claimed || row.estimated || row.measured) rows.push({ key: name, side, term, ...row, learnt: plan.learnt?.[name] });
    }
  }
  return rows;
}

/** @param {{instance: any}} props */
export function Memory({ instance }) {
  const rows = memoryRows(instance);
  if (!rows.length) return html`<p class="muted">${t('instance.no-memory')}</p>`;
  const most = Math.max(...rows.map((row) => Math.max(row.claimed ?? 0, row.estimated ?? 0, row.measured ?? 0, row.peak ?? 0)));
  return html`<ul class="legend">
      <li><span class="key claimed"></span>${t('instance.claimed')}</li>
      <li><span class="key tick"></span>${t('instance.estimated')}</li>
      <li><span class="key ours"></span>${t('instance.measured')}</li>
    </ul>
    <div class="memory-table" role="table" aria-label=${t('instance.memory')}>
      <div role="row" class="memory-row head">
        <span role="columnheader">${t('instance.what-for')}</span><span role="columnheader" class="bars"><span class="unseen">${t('instance.bars')}</span></span>
        <span role="columnheader">${t('instance.claimed')}</span><span role="columnheader">${t('instance.estimated')}</span><span role="columnheader">${t('instance.measured')}</span>
      </div>
      ${rows.map((row) => html`<${Row} key=${row.key} row=${row} most=${most} />`)}
    </div>
    <p class="muted prose">${instance.memory ? t('instance.memory-when', { build: instance.memory.build || '–' }) : t('instance.not-measured')}</p>`;
}

/** @param {{row: any, most: number}} props */
function Row({ row, most }) {
  const wide = (/** @type {number | null} */ size) => ({ width: `${most ? ((size ?? 0) / most) * 100 : 0}%` });
  const name = row.term ? (known(`instance.term-${row.term}`) ?? row.term) : t(`instance.side-${row.side}`);
  const over = row.measured !== null && row.claimed !== null && Math.max(row.measured, row.peak ?? 0) > row.claimed * ROUNDED;
  return html`<div role="row" class=${`memory-row${row.term ? '' : ' sum'}`}>
    <span role="rowheader">${name}${row.learnt ? html` <small class="tag">${t('instance.learnt', { n: row.learnt.runs })}</small>` : null}</span>
    <span role="cell" class="bars" aria-hidden="true">
      <i class="claimed" style=${wide(row.claimed)}></i><i class=${`ours${over ? ' over' : ''}`} style=${wide(row.measured)}></i>
      ${row.estimated === null ? null : html`<i class="tick" style=${{ left: wide(row.estimated).width }}></i>`}
    </span>
    <span role="cell" data-word=${t('instance.claimed')}>${bytes(row.claimed)}</span>
    <span role="cell" data-word=${t('instance.estimated')}>${bytes(row.estimated)}</span>
    <span role="cell" data-word=${t('instance.measured')} class=${over ? 'fault' : ''}>${bytes(row.measured)}${row.peak && row.peak > (row.measured ?? 0) ? html`<br /><small>${t('instance.peak', { size: bytes(row.peak) })}</small>` : null}</span>
  </div>`;
}
