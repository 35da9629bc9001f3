// Signing in, by password or at an identity provider, and choosing another password where that is demanded.

import { useState } from 'preact/hooks';
import { Form } from './parts/dialog.js';
import { Field } from './parts/field.js';
import { html } from './parts/html.js';
import { useFetched } from './parts/page.js';
import { Preferences } from './parts/preferences.js';
import { go } from './router.js';
import { changePassword, me, signIn, signOut } from './session.js';
import { t } from './words.js';

export function SignIn() {
  const { value: config } = useFetched('/auth-config');
  const asked = location.pathname === '/sign-in';
  const back = encodeURIComponent(asked ? '/' : location.pathname + location.search);
  const enter = async (/** @type {any} */ fields) => {
    await signIn(fields.username, fields.password);
    if (asked) go('/', { replace: true });
  };
  const providers = [
    ['OIDC', config?.is_oidc, `/auth/oidc/login?next=${back}`],
    ['SAML', config?.is_saml, `/auth/saml/login?next=${back}`],
  ].filter(([, there]) => there);
  return html`<main class="alone">
    <div class="card">
      <h1><span class="mark" aria-hidden="true"></span>GPUStack</h1>
      ${providers.map(([name, , path]) => html`<a class="button primary block" href=${path}>${t('sign-in.by', { name })}</a>`)}
      ${providers.length ? html`<p class="or">${t('sign-in.or')}</p>` : null}
      <${Form} submit=${t('sign-in.submit')} onSubmit=${enter}>
        <${Field} label=${t('sign-in.name')} name="username" autocomplete="username" required autofocus />
        <${Field} label=${t('sign-in.password')} name="password" type="password" autocomplete="current-password" required />
      <//>
      <details><summary>${t('sign-in.forgotten')}</summary><p>${t('sign-in.first')}</p></details>
    </div>
    <${Preferences} />
  </main>`;
}

/** The form itself, which the page of one's own account has too. @param {{onDone?: () => void, onCancel?: () => void}} props */
export function PasswordForm({ onDone, onCancel }) {
  const [differs, setDiffers] = useState(false);
  const change = async (/** @type {Record<string, string>} */ fields) => {
    setDiffers(fields.chosen !== fields.again);
    if (fields.chosen !== fields.again) return;
    await changePassword(fields.current, fields.chosen);
    onDone?.();
  };
  return html`<${Form} submit=${t('sign-in.change')} onSubmit=${change} onCancel=${onCancel}>
    <input type="text" hidden autocomplete="username" value=${me.value?.username} readonly />
    <${Field} label=${t('sign-in.current')} name="current" type="password" autocomplete="current-password" required />
    <${Field} label=${t('sign-in.chosen')} name="chosen" type="password" autocomplete="new-password" required hint=${t('sign-in.rules')} />
    <${Field} label=${t('sign-in.again')} name="again" type="password" autocomplete="new-password" required fault=${differs ? t('sign-in.differs') : ''} />
  <//>`;
}

export const ChangePassword = () =>
  html`<main class="alone">
    <div class="card">
      <h1>${t('sign-in.must-change')}</h1>
      <p>${t('sign-in.why-change')}</p>
      <${PasswordForm} onCancel=${signOut} />
    </div>
    <${Preferences} />
  </main>`;
