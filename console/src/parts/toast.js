// Short messages at the edge of the screen; a screen reader hears them too.

import { signal } from '@preact/signals';
import { t } from '../words.js';
import { html } from './html.js';
import { Icon } from './icon.js';

/** @typedef {{id: number, text: string, tone: 'good' | 'bad' | 'quiet'}} Toast */

const shown = signal(/** @type {Toast[]} */ ([]));
/** What a screen reader is to say next, without a toast. */
const whispered = signal('');
let count = 0;
const GOOD_FOR = 5000;
const MOST = 4;

/** @param {string} text @param {Toast['tone']} [tone] one that is bad stays until it is closed */
export function toast(text, tone = 'good') {
  const one = { id: ++count, text, tone };
  shown.value = [...shown.value.filter((other) => other.text !== text), one].slice(-MOST);
  if (tone !== 'bad') setTimeout(() => close(one.id), GOOD_FOR);
}

/** Say something to a screen reader only. @param {string} text */
export function whisper(text) {
  whispered.value = text;
}

/** @param {number} id */
function close(id) {
  shown.value = shown.value.filter((one) => one.id !== id);
}

export const Toasts = () =>
  html`<div class="toasts">
    <div role="status" class="unseen">${whispered.value}</div>
    <div role="log" aria-live="polite" aria-label=${t('common.messages')}>
      ${shown.value.map(
        (one) =>
          html`<div class=${`toast ${one.tone}`} key=${one.id}>
            <span>${one.text}</span>
            <button type="button" class="button quiet only-icon" aria-label=${t('common.close')} onClick=${() => close(one.id)}><${Icon} name="close" /></button>
          </div>`,
      )}
    </div>
  </div>`;
