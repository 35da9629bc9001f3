// The accounts: who there is, what they may, and where they are signed in.

import { useState } from 'preact/hooks';
import { del, post, put } from '../../api.js';
import { Badge } from '../../parts/badge.js';
import { Button, NoMatch } from '../../parts/button.js';
import { confirm, Dialog, FormDialog } from '../../parts/dialog.js';
import { Check, Field, Search } from '../../parts/field.js';
import { html } from '../../parts/html.js';
import { Menu } from '../../parts/menu.js';
import { Fault, useFetched, Waiting } from '../../parts/page.js';
import { Table } from '../../parts/table.js';
import { Ago } from '../../parts/time.js';
import { toast } from '../../parts/toast.js';
import { go, place, setQuery } from '../../router.js';
import { me, whoIsIt } from '../../session.js';
import { t } from '../../words.js';
import { Allowance, Left, LimitFields, limitsOf } from './limits.js';
import { Once, somePassword } from './once.js';

const HEIGHT = 56;
const LOCAL = 'Local';

export function Users() {
  const { value, fault, again } = useFetched('/v1/users', { perPage: -1 });
  const [open, setOpen] = useState(/** @type {{what: string, user?: any, value?: string} | null} */ (null));
  const search = place.value.query.get('q') ?? '';
  const close = () => setOpen(null);
  const done = () => {
    again();
    whoIsIt();
  };
  if (fault) return html`<${Fault} text=${fault} again=${again} />`;
  if (!value) return html`<${Waiting} lines=${5} />`;
  const all = /** @type {any[]} */ (value.items);
  const shown = all.filter((one) => `${one.username} ${one.full_name ?? ''}`.toLowerCase().includes(search.toLowerCase().trim()));
  return html`<div class="tools">
      <${Search} label=${t('access.search-users')} value=${search} onInput=${(/** @type {string} */ q) => setQuery({ q })} />
      <span class="spring"></span>
      <${Button} kind="primary" icon="plus" onClick=${() => setOpen({ what: 'new' })}>${t('access.new-user')}<//>
    </div>
    <${Table}
      label=${t('access.users')}
      rows=${shown}
      height=${HEIGHT}
      sorted=${{ key: 'name' }}
      empty=${html`<${NoMatch} title=${t('access.no-match')} onAll=${() => setQuery({ q: '' })} />`}
      columns=${columnsFor(setOpen, done)}
    />
    ${open ? html`<${Dialogs} open=${open} setOpen=${setOpen} close=${close} done=${done} />` : null}`;
}

/** @param {(open: any) => void} open @param {() => void} done @returns {import('../../parts/table.js').Column[]} */
const columnsFor = (open, done) => [
  {
    key: 'name',
    title: t('access.user'),
    width: 'minmax(0, 1.6fr)',
    sort: (row) => row.username,
    cell: (row) => html`<button type="button" class="as-link ellipsis" title=${row.username} onClick=${() => open({ what: 'edit', user: row })}>${row.username}</button><small class="muted ellipsis">${row.is_admin ? html`<span class="only-narrow">${t('account.admin')} </span>` : null}${row.full_name ?? ''}</small>`,
  },
  { key: 'role', title: t('access.role'), wide: true, width: '120px', sort: (row) => (row.is_admin ? 0 : 1), cell: (row) => (row.is_admin ? t('account.admin') : t('account.user')) },
  { key: 'source', title: t('access.proved'), wide: true, width: '140px', sort: (row) => row.source, cell: (row) => (row.source === LOCAL ? t('access.by-password') : row.source) },
  { key: 'limits', title: t('access.limits'), wide: true, width: 'minmax(0, 1.4fr)', cell: (row) => html`<${Left} limits=${row.limits} path=${`/v1/users/${row.id}/limits`} />` },
  { key: 'state', title: t('access.state'), width: '110px', sort: (row) => row.is_active, cell: (row) => html`<${Badge} state=${row.is_active ? 'active' : 'off'} />` },
  { key: 'made', title: t('access.made'), wide: true, width: '110px', sort: (row) => row.created_at, cell: (row) => html`<${Ago} at=${row.created_at} />` },
  { key: 'menu', title: '', width: '40px', cell: (row) => html`<${Menu} label=${t('access.actions', { name: row.username })} items=${itemsOf(row, open, done)} />` },
];

/** @param {any} user @param {(open: any) => void} open @param {() => void} done */
function itemsOf(user, open, done) {
  const mine = user.id === me.value?.id;
  const name = user.username;
  const change = async (/** @type {any} */ fields, /** @type {string} */ said) => {
    await put(`/v1/users/${user.id}`, fields);
    toast(said);
    done();
  };
  const off = async () => {
    if (await confirm({ title: t('access.switch-off'), text: t('access.switch-off-text', { name }), submit: t('access.switch-off'), danger: true })) await change({ is_active: false }, t('access.is-off', { name }));
  };
  const remove = async () => {
    if (!(await confirm({ title: t('access.delete-user'), text: t('access.delete-user-text', { name }), submit: t('common.delete'), danger: true }))) return;
    await del(`/v1/users/${user.id}`);
    toast(t('access.deleted', { name }));
    done();
  };
  return [
    { text: t('common.edit'), act: () => open({ what: 'edit', user }) },
    ...(user.source === LOCAL ? [{ text: t('access.reset'), act: () => open({ what: 'password', user }) }] : []),
    { text: t('access.logins'), act: () => open({ what: 'logins', user }) },
    { text: t('access.keys-of-this'), act: () => go(`/access?tab=keys&owner=${user.id}`) },
    { text: t('access.usage-of-this'), act: () => go(`/usage?user=${user.id}`) },
    // Who does this to themselves is signed out and cannot come back.
    ...(mine ? [] : [user.is_active ? { text: t('access.switch-off'), danger: true, act: off } : { text: t('access.switch-on'), act: () => change({ is_active: true }, t('access.is-on', { name })) }]),
    ...(mine ? [] : [{ text: t('common.delete'), danger: true, act: remove }]),
  ];
}

/** @param {{open: any, setOpen: (open: any) => void, close: () => void, done: () => void}} props */
function Dialogs({ open, setOpen, close, done }) {
  const told = (/** @type {string} */ name, /** @type {string} */ value) => setOpen({ what: 'once', user: { username: name }, value });
  if (open.what === 'once') return html`<${Once} title=${t('access.password-of', { name: open.user.username })} text=${t('access.tell-them')} value=${open.value} onClose=${close} />`;
  if (open.what === 'logins') return html`<${Logins} user=${open.user} onClose=${close} />`;
  if (open.what === 'password') return html`<${PasswordDialog} user=${open.user} onClose=${close} onDone=${told} />`;
  return html`<${UserDialog} user=${open.user} onClose=${close} onDone=${done} onMade=${told} />`;
}

/** @param {{user?: any, onClose: () => void, onDone: () => void, onMade: (name: string, password: string) => void}} props without a user it makes one */
function UserDialog({ user, onClose, onDone, onMade }) {
  const [password] = useState(somePassword);
  const [admin, setAdmin] = useState(user?.is_admin ?? false);
  const save = async (/** @type {Record<string, string>} */ fields) => {
    const document = { username: fields.username, full_name: fields.full_name || null, is_admin: fields.is_admin === 'yes', limits: limitsOf(fields) };
    if (user) await put(`/v1/users/${user.id}`, document);
    else await post('/v1/users', { ...document, password: fields.password, require_password_change: fields.must_change === 'yes' });
    onDone();
    if (user) {
      toast(t('common.saved'));
      return true;
    }
    onMade(fields.username, fields.password);
    return false;
  };
  return html`<${FormDialog} title=${user ? user.username : t('access.new-user')} submit=${user ? t('common.save') : t('access.make-user')} onSubmit=${save} onClose=${onClose}>
    <${Field} label=${t('access.username')} name="username" required maxlength="128" defaultValue=${user?.username ?? ''} />
    <${Field} label=${t('account.full-name')} name="full_name" defaultValue=${user?.full_name ?? ''} />
    ${user
      ? null
      : html`<${Field} label=${t('access.first-password')} name="password" required defaultValue=${password} hint=${t('sign-in.rules')} />
          <${Check} label=${t('access.must-change')} name="must_change" defaultChecked=${true} />`}
    <${Check} label=${t('account.admin')} name="is_admin" hint=${user && admin !== user.is_admin ? t('access.logins-end') : t('access.admin-hint')} checked=${admin} onChange=${(/** @type {any} */ event) => setAdmin(event.currentTarget.checked)} />
    <${LimitFields} limits=${user?.limits} />
    ${user?.limits ? html`<${Allowance} path=${`/v1/users/${user.id}/limits`} />` : null}
  <//>`;
}

/** @param {{user: any, onClose: () => void, onDone: (name: string, password: string) => void}} props */
function PasswordDialog({ user, onClose, onDone }) {
  const [password] = useState(somePassword);
  const save = async (/** @type {Record<string, string>} */ fields) => {
    await put(`/v1/users/${user.id}`, { password: fields.password, require_password_change: fields.must_change === 'yes' });
    if (user.id === me.value?.id) await whoIsIt();
    onDone(user.username, fields.password);
    return false;
  };
  return html`<${FormDialog} title=${t('access.reset-of', { name: user.username })} submit=${t('access.reset-do')} onSubmit=${save} onClose=${onClose}>
    <p>${t('access.reset-text')}</p>
    <${Field} label=${t('sign-in.chosen')} name="password" required defaultValue=${password} hint=${t('sign-in.rules')} />
    <${Check} label=${t('access.must-change')} name="must_change" defaultChecked=${true} />
  <//>`;
}

/** Where somebody is signed in. @param {{user: any, onClose: () => void}} props */
function Logins({ user, onClose }) {
  const path = `/v1/users/${user.id}/sessions`;
  const { value, fault, again } = useFetched(path, { perPage: -1 });
  const sessions = /** @type {any[] | undefined} */ (value?.items);
  const end = (/** @type {string} */ which) => async () => {
    await del(which);
    toast(t('account.ended'));
    again();
    if (user.id === me.value?.id) await whoIsIt();
  };
  return html`<${Dialog} title=${t('access.logins-of', { name: user.username })} onClose=${onClose}>
    ${fault ? html`<${Fault} text=${fault} again=${again} />` : !sessions ? html`<${Waiting} />` : null}
    ${sessions?.length
      ? html`<ul class="rows">${sessions.map((one) => html`<li key=${one.id}><span>${t('account.signed-in')} <${Ago} at=${one.created_at} />, ${t('account.ends')} <${Ago} at=${one.expires_at} />${one.current ? ` · ${t('account.this-one')}` : ''}</span><${Button} onClick=${end(`${path}/${one.id}`)}>${t('account.end')}<//></li>`)}</ul>`
      : sessions ? html`<p class="muted">${t('access.no-logins')}</p>` : null}
    <div class="actions end">${sessions && sessions.length > 1 ? html`<${Button} kind="danger" onClick=${end(path)}>${t('account.end-all')}<//>` : null}<button type="button" class="button" onClick=${onClose}>${t('common.close')}</button></div>
  <//>`;
}
