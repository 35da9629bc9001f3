// Numbers, sizes and times as people read them. What is not known is a dash, never 0.

import { signal } from '@preact/signals';
import { locale, t } from './words.js';

export const UNKNOWN = '–';
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

/** @param {number | null | undefined} value @param {number} [digits] */
export function number(value, digits = 0) {
  if (absent(value)) return UNKNOWN;
  return new Intl.NumberFormat(locale(), { maximumFractionDigits: digits }).format(Number(value));
}

/** A large count in short, as 12.3K. @param {number | null | undefined} value */
export function short(value) {
  if (absent(value)) return UNKNOWN;
  return new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 }).format(Number(value));
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

/** @param {string | null | undefined} instant ISO 8601 */
export function dateTime(instant) {
  if (!instant) return UNKNOWN;
  return new Intl.DateTimeFormat(locale(), { dateStyle: 'medium', timeStyle: 'medium' }).format(new Date(instant));
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
