// Text to take away: a command, a snippet, a key.

import { useState } from 'preact/hooks';
import { t } from '../words.js';
import { html } from './html.js';
import { Icon } from './icon.js';
import { whisper } from './toast.js';

/** Put text on the clipboard, also where the page is not from a secure origin. @param {string} text */
export async function copy(text) {
  if (navigator.clipboard && isSecureContext) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const area = document.createElement('textarea');
  area.value = text;
  area.className = 'unseen';
  (document.querySelector('dialog[open]') ?? document.body).append(area);
  area.select();
  document.execCommand('copy');
  area.remove();
}

/** @param {{text: string, label?: string}} props */
export function CopyButton({ text, label }) {
  const [done, setDone] = useState(false);
  const act = async () => {
    try {
      await copy(text);
    } catch {
      return; // The browser forbids it; the text can still be selected.
    }
    setDone(true);
    whisper(t('common.copied'));
    setTimeout(() => setDone(false), 2000);
  };
  return html`<button type="button" class="button quiet only-icon" aria-label=${label ?? t('common.copy')} title=${label ?? t('common.copy')} onClick=${act}>
    <${Icon} name=${done ? 'check' : 'copy'} />
  </button>`;
}

/** A block of code with a button that copies it. @param {{text: string, label?: string}} props */
export const Code = ({ text, label }) =>
  html`<div class="code"><pre tabindex="0" aria-label=${label}><code>${text}</code></pre><${CopyButton} text=${text} /></div>`;
