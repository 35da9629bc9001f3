// The memory of a device as one bar: one element, its parts a gradient whose stops are custom properties.
//
//   |▓▓▓▓▓▓▓▓░░░░░░░░╱╱╱╱          |
//    used     claimed  used by       free
//    by us             others

import { bytes, degrees, percent } from '../format.js';
import { t } from '../words.js';
import { html } from './html.js';

/**
 * How much of a device is what, in bytes; `null` where that is not known.
 *
 * @param {any} device of a worker
 */
export function sharesOf(device) {
  const known = (/** @type {any} */ value) => (typeof value === 'number' ? value : null);
  return {
    total: known(device.total),
    claimed: known(device.claimed),
    ours: known(device.used_by_us),
    others: known(device.used_by_others),
    // Used by somebody, it is not known by whom.
    used: known(device.used),
    free: known(device.free),
  };
}

/** The same in words, for a screen reader and for the card. @param {any} device */
export function sentenceOf(device) {
  const shares = sharesOf(device);
  const parts = [`${device.index}`, device.name, bytes(shares.total)];
  if (device.fault) parts.push(device.fault);
  if (shares.claimed !== null) parts.push(t('device.claimed', { size: bytes(shares.claimed) }));
  if (shares.ours !== null) parts.push(t('device.ours', { size: bytes(shares.ours) }));
  if (shares.others) parts.push(t('device.others', { size: bytes(shares.others) }));
  if (shares.used !== null) parts.push(t('device.used', { size: bytes(shares.used) }));
  if (shares.free !== null) parts.push(t('device.free', { size: bytes(shares.free) }));
  if (device.utilization !== undefined) parts.push(t('device.busy', { rate: percent(device.utilization) }));
  if (device.temperature !== undefined) parts.push(degrees(device.temperature));
  return parts.filter(Boolean).join(', ');
}

/** The stops of the gradient, in percent of the whole. @param {any} device */
function stopsOf(device) {
  const { total, claimed, ours, others, used } = sharesOf(device);
  if (!total) return null;
  const share = (/** @type {number} */ size) => Math.min(100, Math.max(0, (size / total) * 100));
  const mine = share(ours ?? (used !== null && others === null ? Math.min(used, claimed ?? used) : 0));
  const held = Math.max(mine, share(claimed ?? 0));
  const strangers = share(others ?? 0);
  const taken = Math.min(100, held + strangers);
  return { '--ours': `${mine}%`, '--claimed': `${held}%`, '--others': `${taken}%` };
}

/** @param {{device: any, label?: string, tall?: boolean}} props with `label` it is an image that says so */
export function DeviceBar({ device, label, tall = false }) {
  const stops = stopsOf(device);
  const names = ['bar', tall ? 'tall' : '', device.fault ? 'faulty' : '', stops ? '' : 'unknown'].filter(Boolean).join(' ');
  return html`<span class=${names} style=${stops} role=${label ? 'img' : undefined} aria-label=${label}></span>`;
}

/** A plain share of 100. @param {{value: number | null | undefined, label: string}} props */
export function Meter({ value, label }) {
  const known = typeof value === 'number';
  return html`<span
    class=${known ? 'bar meter' : 'bar unknown'}
    role="meter"
    aria-label=${label}
    aria-valuenow=${known ? Math.round(value) : undefined}
    aria-valuemin="0"
    aria-valuemax="100"
    style=${{ '--ours': known ? `${Math.min(100, value)}%` : '0%' }}
  ></span>`;
}

/** What the colours mean. */
export const Legend = () =>
  html`<ul class="legend">
    ${['ours', 'claimed', 'others', 'free'].map((name) => html`<li><span class=${`key ${name}`}></span>${t(`device.legend-${name}`)}</li>`)}
  </ul>`;
