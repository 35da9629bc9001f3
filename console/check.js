// Checks the words of the console: every language has the same keys, and every key that is asked for is there.

import fs from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const SOURCES = path.join(import.meta.dirname, 'src');
const LANGUAGES = ['en', 'zh'];
/** Pages with words for languages other than that of the server alone: what its own sentences are about. */
const NOT_ENGLISH = new Set(['told']);
/** `t('page.key'` with a text for a key; keys that are put together cannot be checked. */
const ASKED = /\bt\(\s*'([\w.-]+)'/g;
const ENTRY = /^ {2}(?:'([\w.-]+)'|([\w]+)):/gm;

function* files(folder) {
  for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
    const inside = path.join(folder, entry.name);
    if (entry.isDirectory()) yield* files(inside);
    else if (entry.name.endsWith('.js')) yield inside;
  }
}

function keysOf(language) {
  const found = new Set();
  const folder = path.join(SOURCES, 'words', language);
  for (const file of files(folder)) {
    const page = path.basename(file, '.js');
    for (const [, quoted, bare] of fs.readFileSync(file, 'utf8').matchAll(ENTRY)) found.add(`${page}.${quoted ?? bare}`);
  }
  return found;
}

/** What is wrong, a sentence each. */
export function check() {
  const [first, ...others] = LANGUAGES.map(keysOf);
  const faults = [];
  others.forEach((keys, index) => {
    const language = LANGUAGES[index + 1];
    for (const key of first) if (!keys.has(key)) faults.push(`${key} is not in words/${language}`);
    for (const key of keys) if (!first.has(key) && !NOT_ENGLISH.has(key.split('.')[0])) faults.push(`${key} is in words/${language} alone`);
  });
  for (const file of files(SOURCES)) {
    for (const [, key] of fs.readFileSync(file, 'utf8').matchAll(ASKED)) {
      if (!first.has(key)) faults.push(`${path.relative(SOURCES, file)} asks for ${key}, which is not in words/en`);
    }
  }
  return faults;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const faults = check();
  if (faults.length) console.error(faults.join('\n'));
  process.exit(faults.length ? 1 : 0);
}
