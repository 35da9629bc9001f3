// Markdown of a model, shown safely: it is read into tokens, and each becomes an element of ours with text in it. No markup
// is ever parsed: tags are text, links lead out in a tab of their own, images are links.

import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { h } from 'preact';
import { Code } from '../../parts/copy.js';
import { html } from '../../parts/html.js';

/** Where a link may lead. */
const OUT = /^(?:https?|mailto):/i;
const ENTITIES = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'", nbsp: '\u00a0' };
/** Lists in quotes in lists are shown so deep; what is deeper, as text. */
const DEEPEST = 40;
/** Milliseconds between two drawings of an answer that grows; longer for a long one. */
const pauseFor = (/** @type {string} */ text) => 60 + text.length / 50;

/** @typedef {any} Token as marked's lexer makes them */

/** @type {Promise<void> | null} */
let loading = null;
/** @type {((text: string) => Token[]) | null} */
let lex = null;

/** The library is fetched when the first answer is to be shown. */
const load = () =>
  (loading ??= import('marked').then(({ Marked }) => {
    const marked = new Marked({ gfm: true, breaks: true });
    lex = (text) => marked.lexer(text);
  }));

/** @param {string} text what is written as `&amp;` or `&#38;` is the character */
const plain = (text) =>
  text.replace(/&(?:#(\d{1,7})|#x([\da-f]{1,6})|(amp|lt|gt|quot|apos|nbsp));/gi, (all, decimal, hexadecimal, name) => {
    if (name) return ENTITIES[name.toLowerCase()];
    const code = decimal ? Number(decimal) : parseInt(hexadecimal, 16);
    return code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : all;
  });

/** @type {Record<string, (token: Token, deep: number) => any>} */
const ELEMENTS = {
  space: () => null,
  def: () => null,
  hr: () => h('hr', {}),
  br: () => h('br', {}),
  heading: (token, deep) => h(`h${Math.min(6, token.depth + 2)}`, {}, inner(token, deep)),
  paragraph: (token, deep) => h('p', {}, inner(token, deep)),
  blockquote: (token, deep) => h('blockquote', {}, inner(token, deep)),
  strong: (token, deep) => h('strong', {}, inner(token, deep)),
  em: (token, deep) => h('em', {}, inner(token, deep)),
  del: (token, deep) => h('del', {}, inner(token, deep)),
  codespan: (token) => h('code', {}, token.text),
  code: (token) => html`<${Code} text=${token.text} />`,
  link: (token, deep) => link(token.href, inner(token, deep)),
  image: (token) => link(token.href, token.text || token.href),
  list: (token, deep) => h(token.ordered ? 'ol' : 'ul', token.ordered && token.start !== 1 ? { start: token.start } : {}, token.items.map((/** @type {Token} */ item) => h('li', {}, item.task ? (item.checked ? '☑ ' : '☐ ') : null, inner(item, deep)))),
  checkbox: () => null,
  table: (token, deep) => {
    const row = (/** @type {Token[]} */ cells, /** @type {string} */ tag) => h('tr', {}, cells.map((cell) => h(tag, cell.align ? { align: cell.align } : {}, inner(cell, deep))));
    return h('table', {}, h('thead', {}, row(token.header, 'th')), h('tbody', {}, token.rows.map((/** @type {Token[]} */ cells) => row(cells, 'td'))));
  },
  html: (token) => (token.block ? h('p', { class: 'as-text' }, token.text) : token.text),
  escape: (token) => token.text,
  text: (token, deep) => (token.tokens ? inner(token, deep) : plain(token.text)),
};

/** @param {string} href @param {any} children */
const link = (href, children) => (OUT.test(href) ? h('a', { href, target: '_blank', rel: 'noopener noreferrer' }, children) : h('span', {}, children));

/** @param {Token} token @param {number} deep */
const inner = (token, deep) => (token.tokens ? elementsOf(token.tokens, deep + 1) : plain(token.text ?? ''));

/** @param {Token[]} tokens @param {number} [deep] @returns {any[]} */
const elementsOf = (tokens, deep = 0) => (deep > DEEPEST ? tokens.map((token) => token.raw) : tokens.map((token) => (ELEMENTS[token.type] ? ELEMENTS[token.type](token, deep) : token.raw)));

/** The text as it was a moment ago, while it grows. @param {string} text @param {boolean} grows */
function useCalm(text, grows) {
  const [shown, setShown] = useState(text);
  const drawn = useRef(0);
  useEffect(() => {
    const draw = () => {
      drawn.current = performance.now();
      setShown(text);
    };
    const wait = grows ? drawn.current + pauseFor(text) - performance.now() : 0;
    if (wait <= 0) {
      draw();
      return undefined;
    }
    const timer = setTimeout(draw, wait);
    return () => clearTimeout(timer);
  }, [text, grows]);
  return grows ? shown : text;
}

/** @param {{text: string, grows?: boolean}} props until the library is there, the text as it is */
export function Markdown({ text, grows = false }) {
  const [can, setCan] = useState(lex !== null);
  useEffect(() => {
    if (!can) load().then(() => setCan(true));
  }, []);
  const shown = useCalm(text, grows);
  const elements = useMemo(() => {
    if (!can || !lex) return null;
    try {
      return elementsOf(lex(shown));
    } catch {
      return null; // Nested too deep to be read: it is shown as it is.
    }
  }, [shown, can]);
  return elements ? html`<div class="markdown">${elements}</div>` : html`<div class="markdown plain-text">${shown}</div>`;
}
