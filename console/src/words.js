// Every text that is shown, in the language of the browser or the one that was chosen.
// A word is asked for by `page.key`; the words of a page are in `words/LANGUAGE/PAGE.js`.

import { signal } from '@preact/signals';
import { choose } from './settings.js';

/** @typedef {string | ((values: Record<string, any>) => string)} Word */

/** Languages by code, in their own words. */
export const LANGUAGES = { en: 'English', zh: '中文' };

const LOADERS = { en: () => import('words:en'), zh: () => import('words:zh') };

/** The code of the language that is shown; `before.js` has found it. */
export const language = signal(document.documentElement.lang);

/** @type {Record<string, Record<string, Word>>} */
let words = {};
let revision = signal(0);

/** Fetch the words of the present language. Nothing can be shown before. */
export async function loadWords() {
  words = (await LOADERS[language.value]()).default;
  revision.value += 1;
  document.documentElement.lang = locale();
}

/** @param {string} code */
export async function useLanguage(code) {
  choose('language', code);
  language.value = code;
  await loadWords();
}

/** The locale that numbers and dates are written in. */
const locale = () => (language.value === 'zh' ? 'zh-CN' : 'en-GB');

/**
 * The text of `key`, its `{name}` replaced by values. A component that asks is drawn anew in another language.
 *
 * @param {string} key as `cluster.title`
 * @param {Record<string, any>} [values]
 * @returns {string}
 */
export function t(key, values) {
  revision.value;
  const cut = key.indexOf('.');
  const word = words[key.slice(0, cut)]?.[key.slice(cut + 1)];
  if (word === undefined) return key;
  if (typeof word === 'function') return word(values ?? {});
  return values ? word.replace(/\{(\w+)\}/g, (all, name) => (name in values ? String(values[name]) : all)) : word;
}

/** The same, or `null` where there is no such word: for keys made of what a server says. @param {string} key */
export function known(key) {
  const text = t(key);
  return text === key ? null : text;
}
