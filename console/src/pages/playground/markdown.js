// Markdown of a model, shown safely: tags in it are text, its links lead out by a tab of their own, its images are links.

import { useEffect, useRef, useState } from 'preact/hooks';
import { copy } from '../../parts/copy.js';
import { html } from '../../parts/html.js';
import { t } from '../../words.js';

/** What markdown is made of, and nothing else. */
const TAGS = ['p', 'br', 'hr', 'h1', 'h2', 'h3', 'h4', 'h5', 'h6', 'ul', 'ol', 'li', 'blockquote', 'pre', 'code', 'strong', 'em', 'del', 'a', 'table', 'thead', 'tbody', 'tr', 'th', 'td'];
const ATTRIBUTES = ['href', 'title', 'align', 'start', 'class'];
/** Milliseconds between two drawings of an answer that grows; longer for a long one. */
const pause = (/** @type {string} */ text) => 60 + text.length / 50;

/** @type {Promise<(text: string) => DocumentFragment> | null} */
let loaded = null;
/** @type {((text: string) => DocumentFragment) | null} */
let ready = null;

/** Both libraries are fetched when the first answer is to be shown. */
function load() {
  loaded ??= Promise.all([import('marked'), import('dompurify')]).then(([{ Marked }, { default: purifier }]) => {
    const escaped = (/** @type {string} */ text) => text.replace(/[&<>"']/g, (one) => `&#${one.charCodeAt(0)};`);
    const marked = new Marked({
      gfm: true,
      breaks: true,
      async: false,
      renderer: {
        html: (token) => escaped(token.text),
        image: (token) => `<a href="${escaped(token.href)}">${escaped(token.text || token.href)}</a>`,
      },
    });
    // One of our own: a hook would else hold for everybody.
    const purify = purifier(window);
    purify.addHook('afterSanitizeAttributes', (node) => {
      if (node.tagName === 'A') {
        node.setAttribute('target', '_blank');
        node.setAttribute('rel', 'noopener noreferrer');
      } else if (node.hasAttribute('class') && !/^language-[\w+#.-]{1,40}$/.test(node.className)) node.removeAttribute('class');
    });
    ready = (text) =>
      purify.sanitize(/** @type {string} */ (marked.parse(text)), {
        ALLOWED_TAGS: TAGS,
        ALLOWED_ATTR: ATTRIBUTES,
        ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
        ALLOW_DATA_ATTR: false,
        ALLOW_ARIA_ATTR: false,
        RETURN_DOM_FRAGMENT: true,
      });
    return ready;
  });
  return loaded;
}

/** @param {{text: string, grows?: boolean}} props until the libraries are there, the text as it is */
export function Markdown({ text, grows = false }) {
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const [can, setCan] = useState(ready !== null);
  const drawn = useRef(0);
  useEffect(() => {
    if (!can) load().then(() => setCan(true));
  }, []);
  useEffect(() => {
    if (!can) return undefined;
    const draw = () => {
      drawn.current = performance.now();
      const made = /** @type {Function} */ (ready)(text);
      for (const block of made.querySelectorAll('pre')) addCopy(block);
      box.current?.replaceChildren(made);
    };
    const wait = grows ? drawn.current + pause(text) - performance.now() : 0;
    if (wait <= 0) {
      draw();
      return undefined;
    }
    const timer = setTimeout(draw, wait);
    return () => clearTimeout(timer);
  }, [text, can, grows]);
  return can ? html`<div class="markdown" ref=${box}></div>` : html`<div class="markdown plain-text">${text}</div>`;
}

/** A button on a block of code. @param {Element} block */
function addCopy(block) {
  const text = block.textContent ?? '';
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'button quiet copy-code';
  button.textContent = t('common.copy');
  button.addEventListener('click', async () => {
    await copy(text);
    button.textContent = t('common.copied');
    setTimeout(() => (button.textContent = t('common.copy')), 2000);
  });
  block.setAttribute('tabindex', '0');
  block.before(button);
}
