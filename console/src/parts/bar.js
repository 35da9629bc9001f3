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
    // The stream leaves it out where nothing is claimed.
    claimed: known(device.claimed) ?? 0,
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
  if (shares.claimed) parts.push(t('device.claimed', { size: bytes(shares.claimed) }));
  if (shares.ours !== null) parts.push(t('device.ours', { size: bytes(shares.ours) }));
  if (shares.others) parts.push(t('device.others', { size: bytes(shares.others) }));
  if (shares.used !== null) parts.push(t('device.used', { size: bytes(shares.used) }));
  if (shares.free !== null) parts.push(t('device.free', { size: bytes(shares.free) }));
  if (device.utilization !== undefined) parts.push(t('device.busy', { rate: percent(device.utilization) }));
  if (device.temperature !== undefined) parts.push(degrees(device.temperature));
  return parts.filter(Boolean).join(', ');
}

/** The stops of the gradient, in percent of the whole. @param {any} device */
export function stopsOf(device) {
  const { total, claimed, ours, others, used } = sharesOf(device);
  if (!total) return null;
  const share = (/** @type {number} */ size) => Math.min(100, Math.max(0, (size / total) * 100));
  const mine = share(ours ?? (used !== null && others === null ? Math.min(used, claimed) : 0));
  const held = Math.max(mine, share(claimed));
  const strangers = share(others ?? 0);
  const taken = Math.min(100, held + strangers);
  return { '--ours': `${mine}%`, '--claimed': `${held}%`, '--others': `${taken}%` };
}

/** The classes of an element that has the bar of a device as its background. @param {any} device @param {string} base */
export const barClass = (device, base) => `${base}${device.fault ? ' faulty' : ''}${device.total ? '' : ' unknown'}`;

/** @param {{device: any, label?: string, tall?: boolean}} props with `label` it is an image that says so */
export const DeviceBar = ({ device, label, tall = false }) =>
  html`<span class=${barClass(device, tall ? 'bar tall' : 'bar')} style=${stopsOf(device)} role=${label ? 'img' : undefined} aria-label=${label}></span>`;

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
