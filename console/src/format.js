// Numbers, sizes and times as people read them. What is not known is a dash, never 0.

import { signal } from '@preact/signals';
import { t } from './words.js';

export const UNKNOWN = '–';
const STEPS = ['', 'K', 'M', 'B', 'T'];
const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** @param {number | null | undefined} value */
const absent = (value) => value === null || value === undefined || Number.isNaN(value);

/** @param {number | null | undefined} count bytes */
export function bytes(count) {
  if (absent(count)) return UNKNOWN;
  let size = Number(count);
  let unit = 0;
  while (Math.abs(size) >= 1024 && unit < UNITS.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${unit === 0 || size >= 100 ? Math.round(size) : size.toFixed(1)} ${UNITS[unit]}`;
}

// Written without Intl: the first use of it costs a slow machine a tenth of a second, and both languages group by commas.

/** @param {number | null | undefined} value @param {number} [digits] after the point, at most */
export function number(value, digits = 0) {
  if (absent(value)) return UNKNOWN;
  const [whole, part] = Number(value).toFixed(digits).split('.');
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ',');
  const rest = part?.replace(/0+$/, '');
  return rest ? `${grouped}.${rest}` : grouped;
}

/** A large count in short, as 12.3K. @param {number | null | undefined} value */
export function short(value) {
  if (absent(value)) return UNKNOWN;
  let left = Number(value);
  let step = 0;
  while (Math.abs(left) >= 999.5 && step < STEPS.length - 1) {
    left /= 1000;
    step += 1;
  }
  return `${number(left, step && Math.abs(left) < 99.95 ? 1 : 0)}${STEPS[step]}`;
}

/** @param {number | null | undefined} value of 100 */
export const percent = (value) => (absent(value) ? UNKNOWN : `${Math.round(Number(value))} %`);

/** @param {number | null | undefined} value degrees Celsius */
export const degrees = (value) => (absent(value) ? UNKNOWN : `${Math.round(Number(value))} °C`);

/** @param {number | null | undefined} seconds */
export function duration(seconds) {
  if (absent(seconds)) return UNKNOWN;
  const left = Math.max(0, Number(seconds));
  if (left < 1) return t('common.ms', { n: Math.round(left * 1000) });
  if (left < 60) return t('common.s', { n: Math.round(left) });
  if (left < 3600) return t('common.min', { n: Math.round(left / 60) });
  if (left < 172800) return t('common.h', { n: Math.round(left / 3600) });
  return t('common.d', { n: Math.round(left / 86400) });
}

/** Date and time here, as 2026-01-31 14:05:09. @param {string | null | undefined} instant ISO 8601 */
export function dateTime(instant) {
  if (!instant) return UNKNOWN;
  const at = new Date(instant);
  const two = (/** @type {number} */ part) => String(part).padStart(2, '0');
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** Moves every ten seconds; whoever shows how long ago something was reads it. */
export const now = signal(Date.now());
setInterval(() => {
  if (!document.hidden) now.value = Date.now();
}, 10_000);

/** How long ago, or in how long. @param {string | null | undefined} instant */
export function ago(instant) {
  if (!instant) return UNKNOWN;
  const seconds = (now.value - Date.parse(instant)) / 1000;
  if (Math.abs(seconds) < 10) return t('common.now');
  return seconds >= 0 ? t('common.ago', { time: duration(seconds) }) : t('common.in', { time: duration(-seconds) });
}
