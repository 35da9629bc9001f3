// What happened, and who did what.

import { html } from '../parts/html.js';
import { PageHead } from '../parts/page.js';
import { Tabs } from '../parts/tabs.js';
import { t } from '../words.js';
import { Audit } from './events/audit.js';
import { Happened } from './events/happened.js';

export default function Events() {
  const tabs = [
    { key: 'events', title: t('nav.events'), body: () => html`<${Happened} />` },
    { key: 'audit', title: t('events.audit'), body: () => html`<${Audit} />` },
  ];
  return html`<${PageHead} title=${t('nav.events')} /><${Tabs} label=${t('nav.events')} tabs=${tabs} />`;
}
