// Theme and language; on the page for signing in too.

import { useState } from 'preact/hooks';
import { choose } from '../settings.js';
import { language, LANGUAGES, t, useLanguage } from '../words.js';
import { html } from './html.js';
import { Icon } from './icon.js';

/** Names of languages that are drawn: those for which most fonts have no letters. @type {Record<string, string[]>} */
const DRAWN = { zh: ['zhong', 'wen'] };

export function Preferences() {
  const [theme, setTheme] = useState(() => document.documentElement.dataset.theme);
  const dark = theme === 'dark';
  const turn = () => {
    const next = dark ? 'light' : 'dark';
    choose('theme', next);
    document.documentElement.dataset.theme = next;
    setTheme(next);
  };
  const others = Object.entries(LANGUAGES).filter(([code]) => code !== language.value);
  return html`<div class="preferences">
    <button type="button" class="button quiet only-icon" aria-label=${dark ? t('shell.light') : t('shell.dark')} title=${dark ? t('shell.light') : t('shell.dark')} onClick=${turn}>
      <${Icon} name=${dark ? 'sun' : 'moon'} />
    </button>
    ${others.map(
      ([code, name]) =>
        html`<button type="button" class=${`button quiet${DRAWN[code] ? ' strokes' : ''}`} lang=${code} aria-label=${DRAWN[code] ? name : undefined} onClick=${() => useLanguage(code)}>
          ${DRAWN[code]?.map((/** @type {string} */ icon) => html`<${Icon} name=${icon} />`) ?? name}
        </button>`,
    )}
  </div>`;
}
