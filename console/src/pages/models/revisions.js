// What a model was after each of its changes, and how to bring that back.

import { useState } from 'preact/hooks';
import { post } from '../../api.js';
import { Button } from '../../parts/button.js';
import { Dialog } from '../../parts/dialog.js';
import { html } from '../../parts/html.js';
import { Fault, useFetched, Waiting } from '../../parts/page.js';
import { Ago } from '../../parts/time.js';
import { toast } from '../../parts/toast.js';
import { t } from '../../words.js';
import { Diff } from './diff.js';

/** @param {{model: any, changed: any, again: () => void}} props `changed`: differs when the model has been changed */
export function Revisions({ model, changed, again }) {
  const [chosen, setChosen] = useState(/** @type {{number: number, fields: any} | null} */ (null));
  const found = useFetched(`/v1/models/${model.id}/revisions`, undefined, [changed]);
  if (found.fault) return html`<${Fault} text=${found.fault} again=${found.again} />`;
  if (!found.value) return html`<${Waiting} />`;
  const look = async (/** @type {number} */ number) => {
    const { fields } = await post(`/v1/models/${model.id}/rollback`, { to: number, dry_run: true });
    setChosen({ number, fields });
  };
  const bring = async () => {
    await post(`/v1/models/${model.id}/rollback`, { to: chosen?.number });
    toast(t('model.rolled-back', { n: chosen?.number }));
    setChosen(null);
    found.again();
    again();
  };
  return html`<ol class="rows revisions">
      ${found.value.items.map(
        (/** @type {any} */ one, /** @type {number} */ at) =>
          html`<li key=${one.number}>
            <span class="head"><b>${t('model.revision', { n: one.number })}</b> <span class="muted"><${Ago} at=${one.at} />${one.changed_by ? ` · ${one.changed_by}` : ''}${one.rolled_back_to ? ` · ${t('model.back-to', { n: one.rolled_back_to })}` : ''}</span></span>
            ${at ? html`<${Button} onClick=${() => look(one.number)}>${t('model.bring-back')}<//>` : html`<span class="tag">${t('model.present')}</span>`}
            ${Object.keys(one.fields).length ? html`<${Diff} fields=${one.fields} />` : html`<span class="muted whole">${t('model.first')}</span>`}
          </li>`,
      )}
    </ol>
    ${chosen
      ? html`<${Dialog} title=${t('model.bring-back-title', { n: chosen.number })} onClose=${() => setChosen(null)} wide>
          <p>${t('model.would-change')}</p><${Diff} fields=${chosen.fields} />
          <div class="actions end"><button type="button" class="button" onClick=${() => setChosen(null)}>${t('common.cancel')}</button><${Button} kind="primary" onClick=${bring}>${t('model.bring-back')}<//></div>
        <//>`
      : null}`;
}
