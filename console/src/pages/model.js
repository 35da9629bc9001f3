// One model: its instances, how to call it, who may, what it was, and what it is to be.

import { useEffect } from 'preact/hooks';
import { store, watchRates } from '../live.js';
import { Badge } from '../parts/badge.js';
import { Button, Empty } from '../parts/button.js';
import { html } from '../parts/html.js';
import { Menu } from '../parts/menu.js';
import { Fault, PageHead, useFetched, Waiting } from '../parts/page.js';
import { Tabs } from '../parts/tabs.js';
import { Ago } from '../parts/time.js';
import { go, setQuery } from '../router.js';
import { t } from '../words.js';
import { remove, scale, start } from './models/actions.js';
import { CallIt } from './models/call.js';
import { Access, Edit } from './models/edit.js';
import { Instances } from './models/instances.js';
import { lastUseOf, Rate } from './models/rate.js';
import { Revisions } from './models/revisions.js';
import { Replicas } from './models.js';
import { sampleOf } from './playground/code.js';

/** @param {{params: {id: string}}} props */
export default function Model({ params }) {
  const brief = store.models.value.get(Number(params.id));
  const { value, fault, again } = useFetched(`/v1/models/${params.id}`, undefined, [brief?.updated_at]);
  const users = useFetched('/v1/users', { perPage: -1 }).value?.items ?? [];
  const backends = (useFetched('/v1/inference-backends', { perPage: -1 }).value?.items ?? []).map((/** @type {any} */ one) => one.name);
  const used = lastUseOf(Number(params.id), useFetched('/v1/usage', { by: 'model', model_ids: params.id }).value?.items?.[0]?.last_used_at);
  useEffect(() => {
    watchRates([Number(params.id)]);
    return () => watchRates([]);
  }, [params.id]);
  if (!store.ready.value) return html`<${Waiting} lines=${6} />`;
  if (!brief) {
    return html`<${Empty} title=${t('model.gone')} actions=${html`<a class="button" href="/models">${t('model.all')}</a>`} />`;
  }
  const whole = (/** @type {(model: any) => any} */ draw) => (value ? draw(value) : fault ? html`<${Fault} text=${fault} again=${again} />` : html`<${Waiting} lines=${5} />`);
  const tabs = [
    { key: 'instances', title: t('model.instances'), body: () => html`<${Instances} model=${brief} />${value ? html`<${Facts} model=${value} brief=${brief} />` : null}` },
    { key: 'call', title: t('call.title'), body: () => html`<${CallIt} model=${brief.name} ...${sampleOf(brief.name, brief.categories ?? [])} />` },
    { key: 'edit', title: t('common.edit'), body: () => whole((model) => html`<${Edit} key=${model.id} model=${model} users=${users} backends=${backends} again=${again} />`) },
    { key: 'access', title: t('deploy.access'), body: () => whole((model) => html`<${Access} key=${model.id} model=${model} users=${users} again=${again} />`) },
    { key: 'revisions', title: t('model.revisions'), body: () => html`<${Revisions} model=${brief} changed=${brief.updated_at} again=${again} />` },
  ];
  const items = [
    { text: t('common.edit'), act: () => setQuery({ tab: 'edit' }) },
    { text: t('nav.events'), act: () => go(`/events?model=${brief.id}`) },
    { text: t('nav.usage'), act: () => go(`/usage?model=${brief.id}&by=user`) },
    {
      text: t('common.delete'),
      danger: true,
      act: async () => {
        if (await remove(brief)) go('/models');
      },
    },
  ];
  const actions = html`<${Replicas} model=${brief} />
    ${brief.replicas ? html`<${Button} onClick=${() => scale(brief, 0)}>${t('models.stop')}<//>` : html`<${Button} kind="primary" onClick=${() => start(brief)}>${t('models.start')}<//>`}
    <a class="button" href=${`/playground?model=${encodeURIComponent(brief.name)}`}>${t('models.playground')}</a>
    <${Menu} label=${t('models.actions', { name: brief.name })} items=${items} />`;
  const title = html`<span class="model-title"><span>${brief.name}</span> <${Badge} state=${brief.state} /></span>`;
  return html`<${PageHead} title=${title} actions=${actions} under=${html`${value?.description || brief.source_text}${used ? html` · ${t('models.used')} <${Ago} at=${used} />` : null}<${Rate} model=${brief} before=" · " unit />`} />
    <${Tabs} tabs=${tabs} label=${brief.name} />`;
}

/** What is set of it, in short. @param {{model: any, brief: any}} props */
function Facts({ model, brief }) {
  const rows = [
    [t('deploy.source'), `${t(`deploy.from-${model.source}`)}: ${brief.source_text}`],
    [t('deploy.backend'), [model.backend ?? t('deploy.engine-fits'), model.backend_version].filter(Boolean).join(' ')],
    [t('deploy.parameters'), (model.backend_parameters ?? []).join(' ')],
    [t('deploy.categories'), (model.categories ?? []).map((/** @type {string} */ one) => t(`deploy.${one}`)).join(', ')],
    [t('deploy.strategy'), t(`deploy.${model.placement_strategy}`)],
    [t('deploy.gpus'), (model.gpu_selector?.gpu_ids ?? []).join(', ')],
    [t('deploy.selector'), Object.entries(model.worker_selector ?? {}).map(([key, value]) => `${key}=${value}`).join(', ')],
    [t('deploy.priority'), model.priority ? String(model.priority) : ''],
    [t('deploy.access'), t(`deploy.${model.access_policy}`)],
  ];
  return html`<section><h2>${t('model.what')}</h2>
    <dl class="facts">${rows.filter(([, text]) => text).map(([word, text]) => html`<dt>${word}</dt><dd>${text}</dd>`)}</dl></section>`;
}
