// Lines of a log in a box: the last of them, as text, marked where they have what is searched for.

import { readable } from './ansi.js';

/** Lines that a page keeps; the first go. */
export const MOST_LINES = 5000;

/** Draws lines into an element by itself: a log moves too fast to be compared with what was drawn before. */
export class Lines {
  /** @param {HTMLElement} box */
  constructor(box) {
    this.box = box;
    /** @type {string[]} as they came */
    this.kept = [];
    this.raw = false;
    this.search = '';
    this.found = 0;
    /** Lines that were told and are not kept any more. */
    this.gone = 0;
  }

  /** @param {string[]} lines */
  add(lines) {
    const fresh = lines.slice(-MOST_LINES);
    this.gone += lines.length - fresh.length;
    this.kept.push(...fresh);
    const piece = document.createDocumentFragment();
    for (const line of fresh) piece.append(this.element(line));
    this.box.append(piece);
    const over = this.kept.length - MOST_LINES;
    if (over <= 0) return;
    this.gone += over;
    for (const line of this.kept.splice(0, over)) if (this.matches(line)) this.found -= 1;
    for (let count = 0; count < over; count += 1) this.box.firstChild?.remove();
  }

  /** @param {{raw?: boolean, search?: string}} how */
  show({ raw = this.raw, search = this.search }) {
    if (raw === this.raw && search === this.search) return;
    this.raw = raw;
    this.search = search;
    this.redraw();
  }

  redraw() {
    this.found = 0;
    this.box.replaceChildren(...this.kept.map((line) => this.element(line)));
  }

  /** @param {string} line */
  matches(line) {
    return this.search !== '' && readable(line, this.raw).toLowerCase().includes(this.search.toLowerCase());
  }

  /** @param {string} line */
  element(line) {
    const text = readable(line, this.raw);
    const element = document.createElement('div');
    if (!this.search) {
      element.textContent = text || ' ';
      return element;
    }
    const parts = partsOf(text, this.search);
    if (parts.length === 1) element.hidden = true;
    else this.found += 1;
    parts.forEach((part, index) => {
      if (index % 2 === 0) element.append(part);
      else {
        const mark = document.createElement('mark');
        mark.textContent = part;
        element.append(mark);
      }
    });
    return element;
  }
}

/** A text cut at every place where it has `search`, whatever the case: what is between, what was found, and so on. @param {string} text @param {string} search */
export function partsOf(text, search) {
  const parts = [];
  const low = text.toLowerCase();
  const wanted = search.toLowerCase();
  let from = 0;
  // Letters whose small form is longer would shift what is marked; such a line is shown unmarked as a whole.
  if (low.length !== text.length) return low.includes(wanted) ? ['', text, ''] : [text];
  for (let at = low.indexOf(wanted); at >= 0; at = low.indexOf(wanted, from)) {
    parts.push(text.slice(from, at), text.slice(at, at + wanted.length));
    from = at + wanted.length;
  }
  parts.push(text.slice(from));
  return parts;
}
