// One's own account: name, password, and where one is signed in.

import { useState } from 'preact/hooks';
import { del, put } from '../api.js';
import { Button } from '../parts/button.js';
import { FormDialog, Dialog, confirm } from '../parts/dialog.js';
import { Field } from '../parts/field.js';
import { html } from '../parts/html.js';
import { Fault, PageHead, useFetched, Waiting } from '../parts/page.js';
import { Ago } from '../parts/time.js';
import { toast } from '../parts/toast.js';
import { me, whoIsIt } from '../session.js';
import { PasswordForm } from '../sign-in.js';
import { t } from '../words.js';

export default function Account() {
  const account = me.value;
  const [open, setOpen] = useState('');
  const { value, fault, again } = useFetched('/v1/users/me/sessions', { perPage: -1 });
  const end = async (/** @type {any} */ session) => {
    await del(`/v1/users/me/sessions/${session.id}`);
    toast(t('account.ended'));
    again();
    if (session.current) whoIsIt();
  };
  const endAll = async () => {
    if (!(await confirm({ title: t('account.end-all'), text: t('account.end-all-text'), submit: t('account.end-all') }))) return;
    await del('/v1/users/me/sessions');
    again();
    await whoIsIt();
  };
  return html`<${PageHead} title=${t('shell.my-account')} actions=${html`
      <${Button} onClick=${() => setOpen('name')}>${t('account.rename')}<//>
      ${account.source === 'Local'
        ? html`<${Button} onClick=${() => setOpen('password')}>${t('sign-in.change')}<//>`
        : null}`} />
    <dl class="facts">
      <dt>${t('sign-in.name')}</dt><dd>${account.username}</dd>
      <dt>${t('account.full-name')}</dt><dd>${account.full_name || '–'}</dd>
      <dt>${t('account.role')}</dt><dd>${account.is_admin ? t('account.admin') : t('account.user')}</dd>
    </dl>
    <section>
      <div class="section-head"><h2>${t('account.sessions')}</h2>${value?.items?.length ? html`<${Button} onClick=${endAll}>${t('account.end-all')}<//>` : null}</div>
      ${fault ? html`<${Fault} text=${fault} again=${again} />` : null}
      ${!value && !fault ? html`<${Waiting} />` : null}
      ${value
        ? value.items.length
          ? html`<ul class="rows">
              ${value.items.map(
                (/** @type {any} */ session) =>
                  html`<li key=${session.id}>
                    <span>${t('account.signed-in')} <${Ago} at=${session.created_at} />, ${t('account.ends')} <${Ago} at=${session.expires_at} />${session.current ? html` <span class="tag">${t('account.this-one')}</span>` : null}</span>
                    <${Button} onClick=${() => end(session)}>${t('account.end')}<//>
                  </li>`,
              )}
            </ul>`
          : html`<p class="muted">${t('account.no-sessions')}</p>`
        : null}
    </section>
    ${open === 'name'
      ? html`<${FormDialog} title=${t('account.rename')} submit=${t('common.save')} onClose=${() => setOpen('')} onSubmit=${async (/** @type {any} */ fields) => {
          await put('/v1/users/me', { full_name: fields.full_name });
          await whoIsIt();
        }}><${Field} label=${t('account.full-name')} name="full_name" value=${account.full_name ?? ''} /><//>`
      : null}
    ${open === 'password'
      ? html`<${Dialog} title=${t('sign-in.change')} onClose=${() => setOpen('')}>
          <${PasswordForm} onCancel=${() => setOpen('')} onDone=${() => {
            setOpen('');
            toast(t('account.changed'));
          }} /><//>`
      : null}`;
}
