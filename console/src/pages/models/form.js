// The fields of a deployment: what everybody sets, and, folded, everything else that POST /v1/models takes.

import { useState } from 'preact/hooks';
import { Check, Field } from '../../parts/field.js';
import { html } from '../../parts/html.js';
import { t } from '../../words.js';
import { Adapters, Count, Environment, Gpus, Lines, Tri, typed } from './fields.js';
import { Several } from './several.js';
import { apartFrom, apartOf, CATEGORIES, LIMITS, SOURCES, withSource } from './spec.js';

const ENGINES = ['llama-box', 'vllm', 'sglang', 'transformers', 'tei', 'vox-box', 'diffusers', 'ascend-mindie', 'custom'];

/**
 * @typedef {object} FormProps
 * @property {import('./spec.js').Spec} spec
 * @property {(fields: Record<string, any>) => void} set some fields; `null` empties one
 * @property {(field: string) => string | undefined} faultOf what is wrong with a field
 */

/** Name, number of replicas. @param {FormProps & {suggested?: string}} props */
export const Basics = ({ spec, set, faultOf, suggested = '' }) =>
  html`<div class="pair">
    <${Field} label=${t('deploy.name')} name="name" hint=${t('deploy.name-hint')} fault=${faultOf('name')} value=${spec.name ?? suggested} placeholder=${suggested} maxlength="200" onInput=${(/** @type {any} */ e) => set({ name: typed(e) })} />
    <${Count} label=${t('deploy.replicas')} name="replicas" min="0" max="1000" fault=${faultOf('replicas')} value=${spec.replicas ?? 1} onValue=${(/** @type {any} */ replicas) => set({ replicas })} />
  </div>`;

/** Which kind of source. @param {{spec: any, onSpec: (spec: any) => void}} props */
export const SourceKind = ({ spec, onSpec }) =>
  html`<${Field} label=${t('deploy.source')} name="source" options=${Object.keys(SOURCES).map((one) => [one, t(`deploy.from-${one}`)])} value=${spec.source} onChange=${(/** @type {any} */ e) => onSpec(withSource(spec, typed(e)))} />`;

/** The fields of a source, to be typed. @param {FormProps} props */
export function SourceFields({ spec, set, faultOf }) {
  const place = SOURCES[spec.source] ?? SOURCES.local_path;
  const text = (/** @type {string} */ name, /** @type {string} */ label, /** @type {string} */ hint = '') =>
    html`<${Field} label=${label} name=${name} hint=${hint} fault=${faultOf(name)} value=${spec[name] ?? ''} onInput=${(/** @type {any} */ e) => set({ [name]: typed(e) })} />`;
  return html`${text(place.repo, t(`deploy.${place.repo}`), t(`deploy.${place.repo}-hint`))}
    ${place.file
      ? html`<div class="pair">${text(place.file, t('deploy.file'), t('deploy.file-hint'))}${text('revision', t('deploy.revision'))}</div>`
      : null}`;
}

/** A group that is folded until somebody opens it, or something in it is wrong. @param {{title: string, said?: string, wrong?: boolean, open?: boolean, children?: any}} props */
function Group({ title, said, wrong = false, open = false, children }) {
  const [chosen, setChosen] = useState(open);
  return html`<details class="group" open=${chosen || wrong} onToggle=${(/** @type {any} */ e) => setChosen(e.currentTarget.open)}>
    <summary><b>${title}</b>${said ? html`<span class="muted ellipsis">${said}</span>` : null}</summary>
    <div class="group-body">${children}</div>
  </details>`;
}

/** Everything else. @param {FormProps & {users: any[], backends: string[]}} props */
export function Advanced(props) {
  return html`<${EngineGroup} ...${props} /><${PlacementGroup} ...${props} /><${AccessGroup} ...${props} /><${AdapterGroup} ...${props} />`;
}

/** @param {FormProps} props @param {...string} names */
const wrongIn = ({ faultOf }, ...names) => names.some((name) => faultOf(name));

/** @param {FormProps & {backends: string[]}} props */
function EngineGroup(props) {
  const { spec, set, faultOf, backends } = props;
  const said = [spec.backend ?? t('deploy.engine-fits'), spec.backend_version, ...(spec.backend_parameters ?? [])].filter(Boolean).join(' ');
  const names = ['backend', 'backend_version', 'backend_parameters', 'command', 'health_path', 'env', 'categories', 'restart_on_error', 'description'];
  const custom = spec.backend === 'custom' || spec.command;
  return html`<${Group} title=${t('deploy.engine')} said=${said} wrong=${wrongIn(props, ...names)} open=${Boolean(custom)}>
    <div class="pair">
      <${Field} label=${t('deploy.backend')} name="backend" list="backends" hint=${t('deploy.backend-hint')} fault=${faultOf('backend')} value=${spec.backend ?? ''} onInput=${(/** @type {any} */ e) => set({ backend: typed(e) })} />
      <${Field} label=${t('deploy.version')} name="backend_version" fault=${faultOf('backend_version')} value=${spec.backend_version ?? ''} onInput=${(/** @type {any} */ e) => set({ backend_version: typed(e) })} />
    </div>
    <datalist id="backends">${[...ENGINES, ...backends].map((name) => html`<option value=${name}></option>`)}</datalist>
    ${custom
      ? html`<${Field} label=${t('deploy.command')} name="command" rows=${4} hint=${t('deploy.command-hint')} fault=${faultOf('command')} value=${spec.command ?? ''} onInput=${(/** @type {any} */ e) => set({ command: typed(e) })} />
          <${Field} label=${t('deploy.health')} name="health_path" hint=${t('deploy.health-hint')} fault=${faultOf('health_path')} value=${spec.health_path ?? ''} onInput=${(/** @type {any} */ e) => set({ health_path: typed(e) })} />`
      : null}
    <${Lines} label=${t('deploy.parameters')} name="backend_parameters" rows=${4} hint=${t('deploy.parameters-hint')} fault=${faultOf('backend_parameters')} value=${spec.backend_parameters} onValue=${(/** @type {any} */ v) => set({ backend_parameters: v })} />
    <${Environment} value=${spec.env} onValue=${(/** @type {any} */ env) => set({ env })} fault=${faultOf('env')} />
    <${Several} legend=${t('deploy.categories')} choices=${CATEGORIES.map((key) => ({ key, text: t(`deploy.${key}`) }))} value=${spec.categories} onValue=${(/** @type {any} */ v) => set({ categories: v })} hint=${t('deploy.categories-hint')} fault=${faultOf('categories')} />
    <${Check} label=${t('deploy.restart')} name="restart_on_error" checked=${spec.restart_on_error !== false} onChange=${(/** @type {any} */ e) => set({ restart_on_error: e.currentTarget.checked })} />
    <${Field} label=${t('deploy.description')} name="description" rows=${2} fault=${faultOf('description')} value=${spec.description ?? ''} onInput=${(/** @type {any} */ e) => set({ description: typed(e) })} />
  <//>`;
}

/** @param {FormProps} props */
function PlacementGroup(props) {
  const { spec, set, faultOf } = props;
  const gpus = spec.gpu_selector?.gpu_ids ?? [];
  const said = [t(`deploy.${spec.placement_strategy ?? 'spread'}`), gpus.length ? t('deploy.gpus-chosen', { n: gpus.length }) : '', spec.priority ? `${t('deploy.priority')} ${spec.priority}` : ''];
  const names = ['placement_strategy', 'gpu_selector', 'worker_selector', 'tolerations', 'anti_affinity', 'labels', 'priority', 'cpu_offloading', 'distributed_inference_across_workers'];
  return html`<${Group} title=${t('deploy.placement')} said=${said.filter(Boolean).join(', ')} wrong=${wrongIn(props, ...names)}>
    <div class="pair">
      <${Field} label=${t('deploy.strategy')} name="placement_strategy" options=${[['spread', t('deploy.spread')], ['binpack', t('deploy.binpack')]]} value=${spec.placement_strategy ?? 'spread'} onChange=${(/** @type {any} */ e) => set({ placement_strategy: typed(e) })} />
      <${Count} label=${t('deploy.priority')} name="priority" min="-1000" max="1000" fault=${faultOf('priority')} value=${spec.priority ?? 0} onValue=${(/** @type {any} */ priority) => set({ priority })} hint=${t('deploy.priority-hint')} />
    </div>
    <${Check} label=${t('deploy.preempts')} name="preempts" checked=${spec.preempts === true} onChange=${(/** @type {any} */ e) => set({ preempts: e.currentTarget.checked })} />
    <${Check} label=${t('deploy.preemptible')} name="preemptible" checked=${spec.preemptible !== false} onChange=${(/** @type {any} */ e) => set({ preemptible: e.currentTarget.checked })} />
    <${Gpus} value=${gpus} onValue=${(/** @type {any} */ ids) => set({ gpu_selector: ids.length ? { gpu_ids: ids } : null })} fault=${faultOf('gpu_selector')} />
    <div class="pair">
      <${Lines} label=${t('deploy.selector')} name="worker_selector" as="pairs" hint=${t('deploy.selector-hint')} fault=${faultOf('worker_selector')} value=${spec.worker_selector} onValue=${(/** @type {any} */ v) => set({ worker_selector: v })} />
      <${Lines} label=${t('deploy.tolerations')} name="tolerations" as="tolerations" hint=${t('deploy.tolerations-hint')} fault=${faultOf('tolerations')} value=${spec.tolerations} onValue=${(/** @type {any} */ v) => set({ tolerations: v })} />
    </div>
    <div class="pair">
      <${Tri} label=${t('deploy.offload')} name="cpu_offloading" hint=${t('deploy.offload-hint')} fault=${faultOf('cpu_offloading')} value=${spec.cpu_offloading} onValue=${(/** @type {any} */ v) => set({ cpu_offloading: v })} />
      <${Tri} label=${t('deploy.across')} name="distributed" hint=${t('deploy.across-hint')} fault=${faultOf('distributed_inference_across_workers')} value=${spec.distributed_inference_across_workers} onValue=${(/** @type {any} */ v) => set({ distributed_inference_across_workers: v })} />
    </div>
    <${Apart} ...${props} />
    <${Lines} label=${t('deploy.labels')} name="labels" as="pairs" rows=${2} hint=${t('deploy.labels-hint')} fault=${faultOf('labels')} value=${spec.labels} onValue=${(/** @type {any} */ v) => set({ labels: v })} />
  <//>`;
}

/** @param {FormProps} props */
function Apart({ spec, set, faultOf }) {
  const apart = apartOf(spec.anti_affinity);
  if (!apart) return html`<p class="muted">${t('deploy.apart-more')}</p>`;
  const change = (/** @type {any} */ fields) => set({ anti_affinity: apartFrom({ ...apart, ...fields }) });
  return html`<div class="pair">
    <${Field} label=${t('deploy.apart')} name="apart" options=${[['', t('deploy.apart-any')], ['preferred', t('deploy.apart-preferred')], ['required', t('deploy.apart-required')]]} fault=${faultOf('anti_affinity')} value=${apart.own} onChange=${(/** @type {any} */ e) => change({ own: typed(e) })} />
    <${Lines} label=${t('deploy.beside')} name="beside" rows=${2} hint=${t('deploy.beside-hint')} value=${apart.beside} onValue=${(/** @type {any} */ beside) => change({ beside })} />
  </div>`;
}

/** Who may use it, and how much. @param {FormProps & {users: any[]}} props */
export function AccessFields({ spec, set, faultOf, users }) {
  const policy = spec.access_policy ?? 'authed';
  const limits = spec.limits ?? {};
  const choices = users.map((one) => ({ key: one.id, text: one.username, more: one.full_name ?? '' }));
  return html`<${Field} label=${t('deploy.who')} name="access_policy" options=${['public', 'authed', 'allowed_users'].map((one) => [one, t(`deploy.${one}`)])} fault=${faultOf('access_policy')} value=${policy} onChange=${(/** @type {any} */ e) => set({ access_policy: typed(e) })} />
    ${policy === 'allowed_users' ? html`<${Several} legend=${t('deploy.accounts')} choices=${choices} value=${spec.allowed_users} onValue=${(/** @type {any} */ v) => set({ allowed_users: v })} fault=${faultOf('allowed_users')} />` : null}
    <div class="pair">
      ${LIMITS.map(
        (name) =>
          html`<${Count} label=${t(`deploy.${name}`)} name=${name} min="1" fault=${faultOf(`limits.${name}`)} value=${limits[name]} onValue=${(/** @type {any} */ value) => {
            const next = Object.fromEntries(Object.entries({ ...limits, [name]: value }).filter(([, one]) => one !== null && one !== undefined));
            set({ limits: Object.keys(next).length ? next : null });
          }} />`,
      )}
    </div>
    <small class="muted">${t('deploy.limits-hint')}</small>`;
}

/** @param {FormProps & {users: any[]}} props */
const AccessGroup = (props) =>
  html`<${Group} title=${t('deploy.access')} said=${t(`deploy.${props.spec.access_policy ?? 'authed'}`)} wrong=${wrongIn(props, 'access_policy', 'allowed_users', 'limits')}><${AccessFields} ...${props} /><//>`;

/** @param {FormProps} props */
const AdapterGroup = (props) =>
  html`<${Group} title=${t('deploy.adapters')} said=${(props.spec.lora_adapters ?? []).map((/** @type {any} */ one) => one.name).join(', ')} wrong=${wrongIn(props, 'lora_adapters')}>
    <${Adapters} value=${props.spec.lora_adapters} onValue=${(/** @type {any} */ v) => props.set({ lora_adapters: v })} fault=${props.faultOf('lora_adapters')} />
  <//>`;

/** The whole of it as JSON: whatever the form has no field for is set here. @param {{spec: import('./spec.js').Spec, onSpec: (spec: import('./spec.js').Spec) => void}} props */
export function Raw({ spec, onSpec }) {
  const [text, setText] = useState(() => JSON.stringify(spec, null, 2));
  const [fault, setFault] = useState('');
  const change = (/** @type {any} */ event) => {
    setText(typed(event));
    try {
      const made = JSON.parse(typed(event));
      const isObject = made !== null && typeof made === 'object' && !Array.isArray(made);
      setFault(isObject ? '' : t('deploy.raw-object'));
      if (isObject) onSpec(made);
    } catch (error) {
      setFault(String(/** @type {Error} */ (error).message));
    }
  };
  return html`<${Field} label=${t('deploy.raw')} name="raw" rows=${24} hint=${t('deploy.raw-hint')} fault=${fault} value=${text} onInput=${change} />`;
}
