// Deploy a model: where it comes from, what it is called, everything else folded; beside it what would come of it.

import { useMemo, useRef, useState } from 'preact/hooks';
import { post } from '../api.js';
import { store } from '../live.js';
import { Button } from '../parts/button.js';
import { html } from '../parts/html.js';
import { PageHead, useFetched } from '../parts/page.js';
import { Tabs } from '../parts/tabs.js';
import { toast } from '../parts/toast.js';
import { go } from '../router.js';
import { t } from '../words.js';
import { Catalog } from './models/catalog.js';
import { Advanced, Basics, Raw, SourceFields, SourceKind } from './models/form.js';
import { HubSearch } from './models/hub.js';
import { faultsByField, PlanPanel, usePlan } from './models/plan.js';
import { cleaned, isEmpty, manifestOf, SOURCES, suggestedName, withSource } from './models/spec.js';

/** Where a model may come from, as tabs; `custom`: a command, which may have no files at all. */
const TABS = ['catalog', 'huggingface', 'model_scope', 'ollama_library', 'local_path', 'custom', 'raw'];

/** @param {{query: URLSearchParams}} props */
export default function NewModel({ query }) {
  const tab = TABS.includes(query.get('from') ?? '') ? String(query.get('from')) : TABS[0];
  const [spec, setSpec] = useState(/** @type {Record<string, any>} */ (() => ({ source: SOURCES[tab] ? tab : tab === 'custom' ? 'local_path' : undefined, ...(tab === 'custom' ? { backend: 'custom' } : {}) })));
  const users = useFetched('/v1/users', { perPage: -1 }).value?.items ?? [];
  const backends = (useFetched('/v1/inference-backends', { perPage: -1 }).value?.items ?? []).map((/** @type {any} */ one) => one.name);
  const shown = useRef(tab);
  if (shown.current !== tab) {
    // Another tab is another source; JSON shows what there is, and the catalog keeps what was picked.
    shown.current = tab;
    if (SOURCES[tab] && spec.source !== tab) setSpec(withSource(spec, tab));
    if (tab === 'custom') setSpec({ ...withSource(spec, 'local_path'), backend: 'custom' });
    else if (spec.backend === 'custom' && tab !== 'raw') setSpec((was) => ({ ...was, backend: undefined, command: undefined }));
  }
  const set = (/** @type {Record<string, any>} */ fields) => setSpec((was) => ({ ...was, ...fields }));
  const models = store.models.value;
  const there = useMemo(() => new Set([...models.values()].map((one) => one.name)), [models]);
  const name = isEmpty(spec.name) ? suggestedName(spec, there) : spec.name;
  const whole = { ...cleaned(spec), name };
  const names = useMemo(() => new Map(users.map((/** @type {any} */ one) => [one.id, one.username])), [users]);
  const hasSource = spec.source && (Object.values(SOURCES).some((one) => !isEmpty(spec[one.repo])) || spec.command);
  const outlook = usePlan(hasSource && name ? manifestOf(whole, names) : null);
  const taken = outlook.plan?.changes.some((/** @type {any} */ one) => one.change !== 'created');
  const byField = faultsByField(outlook.faults);
  const faultOf = (/** @type {string} */ field) => (field === 'name' && taken ? t('deploy.taken') : byField(field));
  const form = { spec, set, faultOf, users, backends };
  const wanted = Number(spec.replicas ?? 1);
  const waits = outlook.plan?.waits.filter((/** @type {any} */ one) => one.model === name).length ?? 0;
  const deploy = async () => {
    const made = await post('/v1/models', whole);
    toast(t('deploy.deployed', { name: made.name }));
    go(`/models/${made.id}`);
  };
  const fields = html`<div class="stack"><${Basics} ...${form} suggested=${name} /><${Advanced} ...${form} /></div>`;
  const tabs = TABS.map((key) => ({
    key,
    title: t(`deploy.from-${key}`),
    body: () => {
      if (key === 'raw') return html`<${Raw} spec=${whole} onSpec=${setSpec} />`;
      if (key === 'catalog') return html`<${Catalog} spec=${spec} onPick=${(/** @type {any} */ picked) => setSpec({ ...picked, replicas: spec.replicas ?? picked.replicas })} />${spec.source ? fields : null}`;
      const found = HUBS.has(key) ? html`<${HubSearch} key=${key} source=${key} spec=${spec} set=${set} />` : null;
      return html`<div class="stack">${found}${key === 'custom' ? html`<${SourceKind} spec=${spec} onSpec=${setSpec} />` : null}<${SourceFields} ...${form} /></div>${fields}`;
    },
  }));
  return html`<${PageHead} title=${t('deploy.title')} under=${t('deploy.under')} />
    <div class="two">
      <div class="deploy-form"><${Tabs} tabs=${tabs} label=${t('deploy.source')} name="from" /></div>
      <aside>
        <${PlanPanel} outlook=${outlook} name=${name} wanted=${wanted} onModel=${set} blank=${t('plan.blank')} hasField=${(/** @type {string} */ field) => tab !== 'raw' && field in whole} />
        <div class="actions deploy">
          <${Button} kind="primary" disabled=${!hasSource || !name || outlook.faults.length > 0 || taken} onClick=${deploy}>${waits ? t('deploy.anyway') : t('deploy.deploy')}<//>
          ${waits ? html`<span class="muted">${t('deploy.will-wait')}</span>` : null}
        </div>
      </aside>
    </div>`;
}

const HUBS = new Set(['huggingface', 'model_scope']);
