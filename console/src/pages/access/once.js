// A secret that is shown once, and a password to give to somebody.

import { Sentence } from '../../parts/button.js';
import { Code } from '../../parts/copy.js';
import { Dialog } from '../../parts/dialog.js';
import { html } from '../../parts/html.js';
import { t } from '../../words.js';

const KINDS = ['abcdefghijkmnopqrstuvwxyz', 'ABCDEFGHJKLMNPQRSTUVWXYZ', '23456789', '!@#$%^&*_+'];
const LENGTH = 16;

/** A number from 0 to below `end`, each as likely. @param {number} end at most 256 */
function drawn(end) {
  const one = new Uint8Array(1);
  do crypto.getRandomValues(one);
  while (one[0] >= 256 - (256 % end));
  return one[0] % end;
}

/** A password with a letter of each kind, without those that look alike. */
export function somePassword() {
  const all = KINDS.join('');
  const letters = [...KINDS, ...Array(LENGTH - KINDS.length).fill(all)].map((kind) => kind[drawn(kind.length)]);
  for (let index = letters.length - 1; index > 0; index -= 1) {
    const other = drawn(index + 1);
    [letters[index], letters[other]] = [letters[other], letters[index]];
  }
  return letters.join('');
}

/** @param {{title: string, text: string, value: string, onClose: () => void}} props */
export const Once = ({ title, text, value, onClose }) =>
  html`<${Dialog} title=${title} onClose=${onClose} stays>
    <${Sentence} tone="good" detail=${t('access.once')}>${text}<${Code} text=${value} label=${title} /><//>
    <div class="actions end"><button type="button" class="button primary" onClick=${onClose}>${t('access.have-it')}</button></div>
  <//>`;
