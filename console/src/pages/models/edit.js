// A model edited: the same fields as for a new one, what differs, and what would come of it, before it is saved.

import { useMemo, useState } from 'preact/hooks';
import { put } from '../../api.js';
import { store } from '../../live.js';
import { Button, Sentence } from '../../parts/button.js';
import { html } from '../../parts/html.js';
import { toast } from '../../parts/toast.js';
import { setQuery } from '../../router.js';
import { t } from '../../words.js';
import { Diff } from './diff.js';
import { AccessFields, Advanced, Basics, Raw, SourceFields, SourceKind } from './form.js';
import { faultsByField, PlanPanel, usePlan } from './plan.js';
import { changesBetween, cleaned, diffOf, isEmpty, manifestOf, specOf } from './spec.js';

/** @param {{model: any, users: any[], backends: string[], again: () => void}} props the model as the server shows it */
export function Edit({ model, users, backends, again }) {
  const [before, setBefore] = useState(() => specOf(model));
  const [spec, setSpec] = useState(before);
  const [raw, setRaw] = useState(false);
  const set = (/** @type {Record<string, any>} */ fields) => setSpec((was) => ({ ...was, ...fields }));
  const names = useMemo(() => new Map(users.map((one) => [one.id, one.username])), [users]);
  const fields = diffOf(before, spec);
  const differs = Object.keys(fields).length > 0;
  // Under another name it would be another model to a plan: what comes of it does not depend on the name.
  const outlook = usePlan(differs ? manifestOf({ ...spec, name: model.name }, names) : null);
  const faultOf = faultsByField(outlook.faults);
  const form = { spec, set, faultOf, users, backends };
  const other = JSON.stringify(specOf(model)) !== JSON.stringify(before);
  const start = () => {
    const fresh = specOf(model);
    setBefore(fresh);
    setSpec(fresh);
  };
  const save = async () => {
    await put(`/v1/models/${model.id}`, changesBetween(before, cleaned(spec)));
    setBefore(cleaned(spec));
    setSpec(cleaned(spec));
    again();
    toast(t('common.saved'));
    setQuery({ tab: '' });
  };
  return html`<div class="two">
    <div class="deploy-form stack">
      ${other && differs ? html`<${Sentence} tone="warn" actions=${html`<${Button} onClick=${start}>${t('model.take-new')}<//>`}>${t('model.changed-meanwhile')}<//>` : null}
      <div class="segments" role="group" aria-label=${t('model.edit-as')}>
        <button type="button" aria-pressed=${raw ? 'false' : 'true'} onClick=${() => setRaw(false)}>${t('model.as-form')}</button>
        <button type="button" aria-pressed=${raw ? 'true' : 'false'} onClick=${() => setRaw(true)}>JSON</button>
      </div>
      ${raw
        ? html`<${Raw} spec=${cleaned(spec)} onSpec=${setSpec} />`
        : html`<${Basics} ...${form} />
            <${SourceKind} spec=${spec} onSpec=${setSpec} /><${SourceFields} ...${form} /><${Advanced} ...${form} />`}
    </div>
    <aside>
      <section class="plan-panel" aria-labelledby="diff-title"><h2 id="diff-title">${t('model.differs')}</h2>
        ${differs ? html`<${Diff} fields=${fields} />` : html`<p class="muted">${t('model.no-change')}</p>`}</section>
      ${differs ? html`<${PlanPanel} outlook=${outlook} name=${model.name} wanted=${Number(spec.replicas ?? 1)} onModel=${set} blank=${t('plan.blank')} hasField=${(/** @type {string} */ field) => !raw && field in spec} />` : null}
      <div class="actions deploy">
        <${Button} kind="primary" disabled=${!differs || isEmpty(spec.name) || outlook.faults.length > 0} onClick=${save}>${t('common.save')}<//>
        <${Button} disabled=${!differs} onClick=${start}>${t('model.discard')}<//>
      </div>
    </aside>
  </div>`;
}

/** Who may use it and how much, on its own. @param {{model: any, users: any[], again: () => void}} props */
export function Access({ model, users, again }) {
  const before = specOf(model);
  const [spec, setSpec] = useState(before);
  const changes = changesBetween(before, spec);
  const differs = Object.keys(changes).length > 0;
  const brief = store.models.value.get(model.id);
  const save = async () => {
    await put(`/v1/models/${model.id}`, changes);
    again();
    toast(t('common.saved'));
  };
  return html`<div class="stack narrow">
    <p class="muted">${t(`model.who-${brief?.access_policy ?? model.access_policy}`)}</p>
    <${AccessFields} spec=${spec} set=${(/** @type {any} */ fields) => setSpec((was) => ({ ...was, ...fields }))} faultOf=${() => undefined} users=${users} />
    <div class="actions"><${Button} kind="primary" disabled=${!differs} onClick=${save}>${t('common.save')}<//></div>
  </div>`;
}
