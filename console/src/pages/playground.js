// Trying what serves: chat, vectors, ranking, images, speech both ways. A tab for each kind of model that is there.

import { useMemo } from 'preact/hooks';
import { store } from '../live.js';
import { Empty } from '../parts/button.js';
import { html } from '../parts/html.js';
import { PageHead, useFetched, Waiting } from '../parts/page.js';
import { Tabs } from '../parts/tabs.js';
import { isAdmin } from '../session.js';
import { t } from '../words.js';
import { Chat } from './playground/chat.js';
import { Embeddings, Ranking } from './playground/meaning.js';
import { Images } from './playground/images.js';
import { Speaking, Writing } from './playground/speech.js';

/** @typedef {{name: string, categories: string[], meta: any}} Serving */

/** @param {{query: URLSearchParams}} props */
export default function Playground({ query }) {
  const serving = useServing();
  const wanted = query.get('model');
  if (!store.ready.value) return html`<${Waiting} lines=${5} />`;
  if (!serving.length) {
    return html`<${PageHead} title=${t('nav.playground')} />
      <${Empty} title=${t('playground.none')} actions=${isAdmin.value ? html`<a class="button primary" href="/models">${t('nav.models')}</a>` : null}>${t('playground.none-text')}<//>`;
  }
  const names = (/** @type {string} */ category) =>
    serving.filter((one) => one.categories.includes(category) || (category === 'llm' && !one.categories.length)).map((one) => one.name);
  const of = (/** @type {string} */ name) => serving.find((one) => one.name === name);
  const kinds = [
    { key: 'chat', models: names('llm'), body: (/** @type {string[]} */ models) => html`<${Chat} models=${models} wanted=${wanted} />` },
    { key: 'embeddings', models: names('embedding'), body: (/** @type {string[]} */ models) => html`<${Embeddings} models=${models} wanted=${wanted} />` },
    { key: 'rerank', models: names('reranker'), body: (/** @type {string[]} */ models) => html`<${Ranking} models=${models} wanted=${wanted} />` },
    { key: 'images', models: names('image'), body: (/** @type {string[]} */ models) => html`<${Images} models=${models} wanted=${wanted} />` },
    { key: 'speak', models: names('text_to_speech'), body: (/** @type {string[]} */ models) => html`<${Speaking} models=${models} wanted=${wanted} voicesOf=${(/** @type {string} */ name) => of(name)?.meta?.voices ?? []} />` },
    { key: 'write', models: names('speech_to_text'), body: (/** @type {string[]} */ models) => html`<${Writing} models=${models} wanted=${wanted} />` },
  ].filter((kind) => kind.models.length);
  // A link to a model leads to the tab where that model is.
  const first = kinds.findIndex((kind) => wanted && kind.models.includes(wanted));
  const ordered = first > 0 && !query.get('tab') ? [kinds[first], ...kinds.filter((_, index) => index !== first)] : kinds;
  return html`<${PageHead} title=${t('nav.playground')} />
    <${Tabs} label=${t('nav.playground')} tabs=${ordered.map((kind) => ({ key: kind.key, title: t(`playground.tab-${kind.key}`), body: () => kind.body(kind.models) }))} />`;
}

/** The models that answer now, adapters too. @returns {Serving[]} */
function useServing() {
  const ready = [...store.models.value.values()].filter((one) => (one.ready_replicas ?? 0) > 0);
  const key = ready.map((one) => one.id).join(' ');
  const { value } = useFetched(ready.length ? '/v1-openai/models' : null, { with_meta: true }, [key]);
  const known = ready.map((one) => `${one.name}\n${(one.categories ?? []).join(' ')}`).join('\n\n');
  return useMemo(() => {
    const listed = /** @type {any[]} */ (/** @type {any} */ (value)?.data ?? []);
    const metas = new Map(listed.map((one) => [one.id, one.meta]));
    const own = ready.map((one) => ({ name: one.name, categories: one.categories ?? [], meta: metas.get(one.name) }));
    const names = new Set(own.map((one) => one.name));
    const adapters = listed
      .filter((one) => !names.has(one.id) && names.has(one.id.slice(0, one.id.lastIndexOf(':'))))
      .map((one) => ({ name: one.id, categories: own.find((base) => base.name === one.id.slice(0, one.id.lastIndexOf(':')))?.categories ?? [], meta: one.meta }));
    return [...own, ...adapters].sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  }, [known, value]);
}
