// What the server says in its own words, which are English: in another language after what it is about.

import { known, language } from '../words.js';
import { html } from './html.js';

/** What a word of the server is about; `null` in its own language. @param {string} word as `trouble-disk` */
const about = (word) => (language.value === 'en' ? null : known(`told.${word}`) ?? known(`happened.${word}`));

/** @param {{of: string, children: any}} props */
export function Told({ of: word, children }) {
  if (language.value === 'en') return children;
  const title = about(word);
  return html`${title ? html`<b class="told">${title}</b> ` : null}<span lang="en">${children}</span>`;
}

/** The same where only text can be. @param {string} word @param {string} text */
export function toldText(word, text) {
  const title = about(word);
  return title ? `${title}: ${text}` : text;
}
