// From an empty cluster to the first answer. Each step ticks itself off.

import { useState } from 'preact/hooks';
import { store } from '../live.js';
import { Code } from '../parts/copy.js';
import { html } from '../parts/html.js';
import { Icon } from '../parts/icon.js';
import { PageHead } from '../parts/page.js';
import { t } from '../words.js';
import { AddWorker } from './cluster/add-worker.js';
import { capacityOf } from './cluster/capacity.js';
import { codeOf, sampleOf } from './playground/code.js';

export default function FirstSteps() {
  return html`<${PageHead} title=${t('steps.title')} under=${t('steps.under')} /><${Steps} />`;
}

export function Steps() {
  const [adding, setAdding] = useState(false);
  const { ready, devices } = capacityOf(store.workers.value.values());
  const models = [...store.models.value.values()];
  const serving = models.find((model) => model.state === 'ready');
  const { kind, body } = sampleOf(serving?.name ?? 'MODEL', serving?.categories ?? []);
  return html`<ol class="steps">
    <${Step} done=${ready > 0} title=${t('steps.machine')}>
      <p>${ready ? t('steps.machine-done', { workers: ready, devices }) : t('steps.machine-none')}</p>
      ${ready && !devices ? html`<p>${t('steps.no-gpu')}</p>` : null}
      <p><button type="button" class=${`button${ready ? '' : ' primary'}`} onClick=${() => setAdding(true)}><${Icon} name="plus" />${t('cluster.add')}</button></p>
    <//>
    <${Step} done=${models.length > 0} title=${t('steps.model')}>
      <p>${models.length ? t('steps.model-done', { name: models[0].name }) : t('steps.model-none')}</p>
      ${models.length ? null : html`<p><a class=${`button${ready ? ' primary' : ''}`} href="/models/new">${t('steps.deploy')}</a></p>`}
      <p class="muted">${t('steps.by-command')}</p>
      <${Code} text="gpustack run qwen3:0.6b" />
    <//>
    <${Step} done=${serving !== undefined} title=${t('steps.call')}>
      <p>${serving ? t('steps.call-ready', { name: serving.name }) : t('steps.call-wait')}</p>
      <p><a class="button" href="/playground">${t('nav.playground')}</a> <a class="button" href="/access">${t('steps.key')}</a></p>
      <${Code} text=${codeOf(kind, body, location.origin).curl} />
    <//>
  </ol>
  ${adding ? html`<${AddWorker} onClose=${() => setAdding(false)} />` : null}`;
}

/** @param {{done: boolean, title: string, children?: any}} props */
const Step = ({ done, title, children }) =>
  html`<li class=${done ? 'done' : ''}>
    <h3>${done ? html`<${Icon} name="check" />` : null}${title}${done ? html`<span class="unseen"> (${t('steps.done')})</span>` : null}</h3>
    ${children}
  </li>`;
