// The settings of this server: values with their origins. They are changed where they are written, and take effect at the next start.

import { NoMatch } from '../parts/button.js';
import { Search, Segments } from '../parts/field.js';
import { html } from '../parts/html.js';
import { Fault, PageHead, useFetched, Waiting } from '../parts/page.js';
import { setQuery } from '../router.js';
import { known, t } from '../words.js';
import { Settings } from './settings/rows.js';

/** @param {{query: URLSearchParams}} props */
export default function SettingsPage({ query }) {
  const { value, fault, again } = useFetched('/v1/settings');
  const search = query.get('q') ?? '';
  const changed = query.get('show') === 'changed';
  const terms = search.toLowerCase().split(/\s+/).filter(Boolean);
  const all = /** @type {any[]} */ (value?.items ?? []);
  const shown = all.filter((one) => (!changed || !one.is_default) && terms.every((term) => `${one.name} ${one.variable} ${one.value} ${one.origin} ${one.help}`.toLowerCase().includes(term)));
  const groups = [...new Set(shown.map((one) => one.group))];
  return html`<${PageHead} title=${t('nav.settings')} under=${value ? t('settings.summary', { n: all.filter((one) => !one.is_default).length, of: all.length }) : null} />
    <div class="tools">
      <${Search} label=${t('settings.search')} value=${search} onInput=${(/** @type {string} */ q) => setQuery({ q })} />
      <${Segments} label=${t('settings.show')} values=${[false, true]} now=${changed} word=${(/** @type {boolean} */ one) => t(one ? 'settings.changed' : 'settings.all')} onChoose=${(/** @type {boolean} */ one) => setQuery({ show: one ? 'changed' : '' })} />
    </div>
    ${fault ? html`<${Fault} text=${fault} again=${again} />` : !value ? html`<${Waiting} lines=${6} />` : null}
    ${value && !shown.length ? html`<${NoMatch} title=${t('settings.no-match')} onAll=${() => setQuery({ q: '', show: '' })} />` : null}
    ${groups.map((group) => html`<section key=${group}><h2>${known(`settings.of-${group}`) ?? group}</h2><${Settings} items=${shown.filter((one) => one.group === group)} /></section>`)}`;
}
