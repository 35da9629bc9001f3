// Who may come in: accounts, API keys, and the identity provider. Who is no administrator sees their own keys.

import { html } from '../parts/html.js';
import { PageHead } from '../parts/page.js';
import { Tabs } from '../parts/tabs.js';
import { isAdmin } from '../session.js';
import { t } from '../words.js';
import { Keys } from './access/keys.js';
import { Allowance } from './access/limits.js';
import { SignOn } from './access/sign-on.js';
import { Users } from './access/users.js';

export default function Access() {
  if (!isAdmin.value) {
    return html`<${PageHead} title=${t('access.your-keys')} under=${t('access.your-keys-text')} />
      <${Keys} />
      <section class="narrow"><h2>${t('access.your-limits')}</h2><${Allowance} path="/v1/users/me/limits" /></section>`;
  }
  const tabs = [
    { key: 'users', title: t('access.users'), body: () => html`<${Users} />` },
    { key: 'keys', title: t('access.keys'), body: () => html`<${Keys} />` },
    { key: 'sign-on', title: t('access.sign-on'), body: () => html`<${SignOn} />` },
  ];
  return html`<${PageHead} title=${t('nav.access')} /><${Tabs} label=${t('nav.access')} tabs=${tabs} />`;
}
