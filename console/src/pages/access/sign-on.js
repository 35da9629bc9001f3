// Whether people can sign in at an identity provider: what is configured, and a try.

import { useState } from 'preact/hooks';
import { post } from '../../api.js';
import { Empty, Sentence } from '../../parts/button.js';
import { Form } from '../../parts/dialog.js';
import { Field } from '../../parts/field.js';
import { html } from '../../parts/html.js';
import { Fault, useFetched, Waiting } from '../../parts/page.js';
import { t } from '../../words.js';
import { Settings } from '../settings/rows.js';

const MINE = /^(oidc|saml|external_auth|openid)_/;

export function SignOn() {
  const { value, fault, again } = useFetched('/v1/settings');
  const [found, setFound] = useState(/** @type {any} */ (null));
  const test = async (/** @type {Record<string, string>} */ fields) => {
    setFound(null);
    setFound(await post('/v1/settings/sign-on/test', fields.issuer ? { oidc_issuer: fields.issuer } : {}));
  };
  if (fault) return html`<${Fault} text=${fault} again=${again} />`;
  if (!value) return html`<${Waiting} />`;
  const given = /** @type {any[]} */ (value.items).filter((one) => MINE.test(one.name) && !one.is_default);
  return html`${given.length ? html`<${Settings} items=${given} />` : html`<${Empty} title=${t('access.no-provider')}>${t('access.no-provider-text')}<//>`}
    <section class="narrow">
      <h2>${t('access.try')}</h2>
      <${Form} submit=${t('access.try-do')} onSubmit=${test}>
        <${Field} label=${t('access.issuer')} name="issuer" type="url" placeholder="https://" hint=${given.length ? t('access.issuer-hint') : t('access.issuer-needed')} required=${!given.length} />
      <//>
      <div role="status">${found
        ? html`<${Sentence} tone=${found.ok ? 'good' : 'bad'} detail=${found.facts.length ? html`<ul>${found.facts.map((/** @type {string} */ one) => html`<li>${one}</li>`)}</ul>` : null}>${found.ok ? t('access.works', { kind: found.kind }) : found.fault}<//>`
        : null}</div>
    </section>`;
}
