// API keys: what each may, of which models, how much, and what is left of it. A value is shown once.

import { useState } from 'preact/hooks';
import { del, post, put } from '../../api.js';
import { dateTime } from '../../format.js';
import { store } from '../../live.js';
import { Badge } from '../../parts/badge.js';
import { Button, Empty, NoMatch } from '../../parts/button.js';
import { confirm, FormDialog } from '../../parts/dialog.js';
import { Check, Field, Search, Tool } from '../../parts/field.js';
import { html } from '../../parts/html.js';
import { Menu } from '../../parts/menu.js';
import { Fault, useFetched, Waiting } from '../../parts/page.js';
import { Table } from '../../parts/table.js';
import { Ago } from '../../parts/time.js';
import { toast } from '../../parts/toast.js';
import { place, setQuery } from '../../router.js';
import { isAdmin, me } from '../../session.js';
import { t } from '../../words.js';
import { Several } from '../models/several.js';
import { Allowance, Left, LimitFields, limitsOf } from './limits.js';
import { Once } from './once.js';

const SCOPES = ['inference', 'read', 'management'];
const DAY = 86_400;
const SPANS = [30, 90, 365];
const HEIGHT = 56;
const NAMES_SHOWN = 2;

export function Keys() {
  const admin = isAdmin.value;
  const { value, fault, again } = useFetched('/v1/api-keys', { perPage: -1, all: admin || undefined });
  const { value: users } = useFetched(admin ? '/v1/users' : null, { perPage: -1 });
  const [open, setOpen] = useState(/** @type {{what: string, key?: any, value?: string} | null} */ (null));
  const query = place.value.query;
  const search = query.get('key') ?? '';
  const owner = Number(query.get('owner')) || null;
  if (fault) return html`<${Fault} text=${fault} again=${again} />`;
  if (!value) return html`<${Waiting} lines=${5} />`;
  const names = new Map(/** @type {any[]} */ (users?.items ?? []).map((one) => [one.id, one.username]));
  const ownerOf = (/** @type {any} */ key) => names.get(key.user_id) ?? String(key.user_id);
  const all = /** @type {any[]} */ (value.items);
  const wanted = search.toLowerCase().trim();
  const shown = all.filter((one) => (!owner || one.user_id === owner) && `${one.name} ${one.description ?? ''} ${admin ? ownerOf(one) : ''}`.toLowerCase().includes(wanted));
  const withKeys = [...new Set(all.map((one) => one.user_id))];
  const make = html`<${Button} kind="primary" icon="plus" onClick=${() => setOpen({ what: 'edit' })}>${t('access.new-key')}<//>`;
  const dialog = !open
    ? null
    : open.what === 'once'
      ? html`<${Once} title=${open.key.name} text=${t('access.key-made')} value=${open.value} onClose=${() => setOpen(null)} />`
      : html`<${KeyDialog} of=${open.key} onClose=${() => setOpen(null)} onDone=${again} onMade=${(/** @type {any} */ made) => setOpen({ what: 'once', key: made, value: made.value })} />`;
  if (!all.length) return html`<${Empty} title=${t('access.no-keys')} actions=${make}>${t('access.no-keys-text')}<//>${dialog}`;
  return html`<div class="tools">
      <${Search} label=${t('access.search-keys')} value=${search} onInput=${(/** @type {string} */ key) => setQuery({ key })} />
      ${withKeys.length > 1 || owner
        ? html`<${Tool} label=${t('access.owner')} value=${owner ?? ''} onChoose=${(/** @type {string} */ id) => setQuery({ owner: id })} options=${[['', t('access.everybody')], ...[...new Set([...withKeys, ...(owner ? [owner] : [])])].map((id) => [id, names.get(id) ?? id])]} />`
        : null}
      <span class="spring"></span>${make}
    </div>
    <${Table}
      label=${t('access.keys')}
      rows=${shown}
      height=${HEIGHT}
      sorted=${{ key: 'name' }}
      empty=${html`<${NoMatch} title=${t('access.no-match')} onAll=${() => setQuery({ key: '', owner: '' })} />`}
      columns=${columnsFor(admin ? ownerOf : null, setOpen, again)}
    />${dialog}`;
}

/** @param {any} key */
const stateOf = (key) => (!key.is_enabled ? 'off' : key.expires_at && Date.parse(key.expires_at) < Date.now() ? 'expired' : 'active');

/** @param {((key: any) => string) | null} ownerOf @param {(open: any) => void} open @param {() => void} again @returns {import('../../parts/table.js').Column[]} */
const columnsFor = (ownerOf, open, again) => [
  {
    key: 'name',
    title: t('access.key'),
    width: 'minmax(0, 1.5fr)',
    sort: (row) => row.name,
    cell: (row) => html`<button type="button" class="as-link ellipsis" title=${row.name} onClick=${() => open({ what: 'edit', key: row })}>${row.name}</button><small class="muted ellipsis">${row.description ?? ''}</small>`,
  },
  ...(ownerOf ? [{ key: 'owner', title: t('access.owner'), wide: true, roomy: true, width: 'minmax(0, 0.8fr)', sort: ownerOf, cell: (/** @type {any} */ row) => html`<span title=${ownerOf(row)}>${ownerOf(row)}</span>` }] : []),
  { key: 'may', title: t('access.may'), wide: true, width: 'minmax(0, 1.3fr)', cell: (row) => html`<${May} of=${row} />` },
  { key: 'limits', title: t('access.limits'), wide: true, width: 'minmax(0, 1.6fr)', cell: (row) => html`<${Left} limits=${row.limits} path=${`/v1/api-keys/${row.id}/limits`} />` },
  { key: 'used', title: t('access.last-used'), wide: true, roomy: true, width: '100px', sort: (row) => row.last_used_at, cell: (row) => (row.last_used_at ? html`<${Ago} at=${row.last_used_at} />` : html`<span class="muted">${t('access.never')}</span>`) },
  { key: 'state', title: t('access.state'), width: '110px', sort: stateOf, cell: (row) => html`<${Badge} state=${stateOf(row)} />${row.expires_at ? html`<small class="muted ellipsis">${t('account.ends')} <${Ago} at=${row.expires_at} /></small>` : null}` },
  { key: 'menu', title: '', width: '40px', cell: (row) => html`<${Menu} label=${t('access.actions', { name: row.name })} items=${itemsOf(row, open, again)} />` },
];

/** @param {{of: any}} props */
function May({ of: key }) {
  const models = key.allowed_model_names;
  const rest = (models?.length ?? 0) - NAMES_SHOWN;
  return html`<span class="ellipsis">${key.scopes ? key.scopes.map((/** @type {string} */ one) => t(`access.scope-${one}`)).join(', ') : t('access.all-scopes')}</span>
    <small class="muted ellipsis" title=${models?.join(', ')}>${models ? models.slice(0, NAMES_SHOWN).join(', ') + (rest > 0 ? ` +${rest}` : '') : t('access.all-models')}</small>`;
}

/** @param {any} key @param {(open: any) => void} open @param {() => void} again */
function itemsOf(key, open, again) {
  const turn = async () => {
    await put(`/v1/api-keys/${key.id}`, { is_enabled: !key.is_enabled });
    toast(t(key.is_enabled ? 'access.is-off' : 'access.is-on', { name: key.name }));
    again();
  };
  const remove = async () => {
    if (!(await confirm({ title: t('access.delete-key'), text: t('access.delete-key-text', { name: key.name }), submit: t('common.delete'), danger: true }))) return;
    await del(`/v1/api-keys/${key.id}`);
    toast(t('access.deleted', { name: key.name }));
    again();
  };
  return [
    { text: t('common.edit'), act: () => open({ what: 'edit', key }) },
    { text: t(key.is_enabled ? 'access.switch-off' : 'access.switch-on'), act: turn },
    { text: t('common.delete'), danger: true, act: remove },
  ];
}

/** @param {{of?: any, onClose: () => void, onDone: () => void, onMade: (made: any) => void}} props without a key it makes one */
function KeyDialog({ of: key, onClose, onDone, onMade }) {
  const [models, setModels] = useState(/** @type {string[]} */ (key?.allowed_model_names ?? []));
  const choices = [...store.models.value.values()].map((one) => ({ key: one.name, text: one.name })).sort((a, b) => a.text.localeCompare(b.text));
  const scopes = key ? key.scopes ?? [] : ['inference'];
  const spans = SPANS.map((days) => [String(days * DAY), t('access.in-days', { n: days })]);
  const save = async (/** @type {Record<string, string>} */ fields) => {
    const chosen = SCOPES.filter((one) => fields[`scope-${one}`]);
    const document = {
      name: fields.name,
      description: fields.description || null,
      scopes: chosen.length ? chosen : null,
      allowed_model_names: models.length ? models : null,
      limits: limitsOf(fields),
      ...(fields.expires_in === 'kept' ? {} : { expires_in: Number(fields.expires_in) }),
    };
    const told = key ? await put(`/v1/api-keys/${key.id}`, document) : await post('/v1/api-keys', document);
    onDone();
    if (key) {
      toast(t('common.saved'));
      return true;
    }
    onMade(told);
    return false;
  };
  return html`<${FormDialog} title=${key ? key.name : t('access.new-key')} submit=${key ? t('common.save') : t('access.make-key')} onSubmit=${save} onClose=${onClose} wide>
    ${key && key.user_id !== me.value?.id ? html`<p class="muted">${t('access.not-yours')}</p>` : null}
    <${Field} label=${t('access.name')} name="name" required maxlength="255" defaultValue=${key?.name ?? ''} hint=${key ? undefined : t('access.name-hint')} />
    <${Field} label=${t('access.description')} name="description" defaultValue=${key?.description ?? ''} />
    <${Field} label=${t('access.ends')} name="expires_in" options=${[...(key?.expires_at ? [['kept', dateTime(key.expires_at)]] : []), ['0', t('access.ends-never')], ...spans]} />
    <fieldset><legend>${t('access.may')}</legend>
      ${SCOPES.map((one) => html`<${Check} label=${t(`access.scope-${one}`)} name=${`scope-${one}`} hint=${t(`access.scope-${one}-hint`)} defaultChecked=${scopes.includes(one)} />`)}
      <small>${t('access.scopes-hint')}</small>
    </fieldset>
    <${Several} legend=${t('access.models')} choices=${choices} value=${models} onValue=${setModels} hint=${t('access.models-hint')} />
    <${LimitFields} limits=${key?.limits} />
    ${key?.limits ? html`<${Allowance} path=${`/v1/api-keys/${key.id}/limits`} />` : null}
  <//>`;
}
