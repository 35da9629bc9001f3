// What rows of usage come to: by whom, and in which days.

const DAY = 86_400_000;
/** Days that are drawn one by one; more are drawn a week at a time, many more a month at a time. */
const MOST_DAYS = 100;
const MOST_WEEKS = 750;
/** Those that are drawn on their own; the rest is one. */
const MOST_SERIES = 6;

const COUNTS = ['request_count', 'failed_count', 'prompt_token_count', 'completion_token_count'];

/** @typedef {Record<string, any>} Row a row of `GET /v1/usage` */
/** @typedef {{from: string, to: string}} Period its first and last day, as 2026-01-31 */
/** @typedef {{name: string, values: number[]}} Series a value for each period */

/** The day so many days after another one. @param {string} day @param {number} count */
export const dayAfter = (day, count) => new Date(Date.parse(day) + count * DAY).toISOString().slice(0, 10);

/** Whether it is a day, as a field for one gives it. @param {string | null} text */
export const isDay = (text) => /^\d{4}-\d\d-\d\d$/.test(text ?? '') && !Number.isNaN(Date.parse(/** @type {string} */ (text)));

/** @param {string} day @param {string} later */
const daysFrom = (day, later) => Math.round((Date.parse(later) - Date.parse(day)) / DAY);

/** @param {Row} row */
export const tokensOf = (row) => row.prompt_token_count + row.completion_token_count;

/** Rows that have the same key as one row, with the last use of all. @param {Row[]} rows @param {(row: Row) => string} keyOf @returns {Row[]} */
export function summed(rows, keyOf) {
  /** @type {Map<string, Row>} */
  const found = new Map();
  for (const row of rows) {
    const key = keyOf(row);
    const sum = found.get(key);
    if (!sum) {
      found.set(key, { ...row, id: key });
      continue;
    }
    for (const name of COUNTS) sum[name] += row[name];
    if ((row.last_used_at ?? '') > (sum.last_used_at ?? '')) sum.last_used_at = row.last_used_at;
  }
  return [...found.values()];
}

/** What a span of days is drawn as; where days are drawn together, the first are those that may be fewer. @param {string} start @param {string} end @returns {Period[]} */
export function periodsOf(start, end) {
  const days = daysFrom(start, end) + 1;
  const step = days <= MOST_DAYS ? 1 : days <= MOST_WEEKS ? 7 : 30;
  const found = [];
  for (let last = days; last > 0; last -= step) found.push({ from: dayAfter(start, Math.max(0, last - step)), to: dayAfter(start, last - 1) });
  return found.reverse();
}

/** A value for each period. @param {Row[]} rows @param {Period[]} periods @param {(row: Row) => number} valueOf */
export function valuesOf(rows, periods, valueOf) {
  const values = periods.map(() => 0);
  const { from, to } = periods[periods.length - 1];
  const step = daysFrom(from, to) + 1;
  for (const row of rows) {
    const at = periods.length - 1 - Math.floor(daysFrom(row.date, to) / step);
    if (at >= 0 && at < values.length) values[at] += valueOf(row);
  }
  return values;
}

/**
 * A series for each of those that have the most, and one for the rest.
 *
 * @param {Row[]} rows
 * @param {Period[]} periods
 * @param {{keyOf: (row: Row) => string, nameOf: (row: Row) => string, valueOf: (row: Row) => number, rest: (count: number) => string}} by
 * @returns {Series[]}
 */
export function seriesOf(rows, periods, { keyOf, nameOf, valueOf, rest }) {
  const most = summed(rows, keyOf).filter((row) => valueOf(row) > 0).sort((a, b) => valueOf(b) - valueOf(a));
  const alone = most.length > MOST_SERIES + 1 ? most.slice(0, MOST_SERIES) : most;
  const series = alone.map((one) => ({ name: nameOf(one), values: valuesOf(rows.filter((row) => keyOf(row) === one.id), periods, valueOf) }));
  if (alone.length < most.length) {
    const drawn = new Set(alone.map((one) => one.id));
    series.push({ name: rest(most.length - alone.length), values: valuesOf(rows.filter((row) => !drawn.has(keyOf(row))), periods, valueOf) });
  }
  return series;
}

/** The least of 1, 1.5, 2, 3, 5, 10, 15, … that is not below a value. @param {number} value */
export function roundUp(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 5, 10].map((one) => one * power).find((one) => one >= value) ?? value;
}
