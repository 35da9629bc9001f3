// Settings, each with its value, where that was written, and what it is for.

import { html } from '../../parts/html.js';
import { t } from '../../words.js';

/** @param {{items: any[]}} props of `GET /v1/settings` */
export const Settings = ({ items }) =>
  html`<ul class="settings">
    ${items.map(
      (one) => html`<li key=${one.name}>
        <code class="setting-name">${one.name}</code>
        <div>${one.value === '' ? html`<span class="muted">${t('settings.unset')}</span>` : html`<code class="path">${one.value}</code>`}</div>
        <div class=${one.is_default ? 'muted' : ''}>${one.is_default ? t('settings.default') : one.origin}${one.is_secret && one.value ? html` <span class="tag">${t('settings.secret')}</span>` : null}</div>
        <p class="muted">${one.help} <code>${one.variable}</code></p>
      </li>`,
    )}
  </ul>`;
