// Text of engines as text: what moves cursors and colours terminals is taken out, or shown for what it is.

/** What a terminal would not print: colours and cursors, titles, single escapes. */
const SEQUENCES = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)|[P^_][^\u001b]*\u001b\\|[ -/]*[0-~])/g;
/** Characters that print nothing, and those that turn the direction of what follows. */
const UNPRINTABLE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
/** Characters of a line that are shown. */
const LONGEST_LINE = 4000;

/** @param {string} text */
const shown = (text) =>
  text.replace(UNPRINTABLE, (one) => {
    const code = one.charCodeAt(0);
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    return code === 0x7f ? '␡' : '�';
  });

/**
 * One line of a log, as it is shown.
 *
 * @param {string} line without its end
 * @param {boolean} raw whether escapes are shown in place of being left out
 */
export function readable(line, raw) {
  if (raw) return cut(shown(line));
  // A bar that draws itself over and over: what a terminal would show in the end.
  const plain = line.replace(SEQUENCES, '');
  let end = plain.length;
  while (plain[end - 1] === '\r') end -= 1; // a pattern would look again from each of very many
  return cut(shown(plain.slice(plain.lastIndexOf('\r', end - 1) + 1, end)));
}

/** @param {string} text */
const cut = (text) => (text.length > LONGEST_LINE ? `${text.slice(0, LONGEST_LINE)} …` : text);
