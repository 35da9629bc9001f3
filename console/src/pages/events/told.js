// Events as a server tells of them, a JSON document a line.

/** That all that there was has been told. */
const SYNCED = 6;
/** Events on a page. */
const MOST = 10_000;

/** The complete lines of what came, and the rest. @param {string} text @returns {{events: any[], synced: boolean, rest: string}} */
export function readLines(text) {
  const lines = text.split('\n');
  const rest = lines.pop() ?? '';
  const told = lines.filter((line) => line.trim()).map((line) => JSON.parse(line));
  return { events: told.filter((one) => one.data).map((one) => one.data), synced: told.some((one) => one.type === SYNCED), rest };
}

/** Without those that are there already, the newest first. @param {any[]} known @param {any[]} more */
export function merged(known, more) {
  const there = new Set(known.map((one) => one.id));
  const fresh = more.filter((one) => !there.has(one.id));
  return fresh.length ? [...known, ...fresh].sort((a, b) => b.id - a.id).slice(0, MOST) : known;
}
