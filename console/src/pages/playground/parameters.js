// What a request says beside the conversation; empty is the engine's own choice.

import { Field } from '../../parts/field.js';
import { html } from '../../parts/html.js';
import { t } from '../../words.js';

/** By the name of the field: the range and the step. */
const NUMBERS = {
  temperature: [0, 2, 0.1],
  top_p: [0, 1, 0.05],
  max_tokens: [1, 1_000_000, 1],
  seed: [0, 4_294_967_295, 1],
  frequency_penalty: [-2, 2, 0.1],
  presence_penalty: [-2, 2, 0.1],
};

/** @param {{values: Record<string, string>, onChange: (values: Record<string, string>) => void}} props */
export function Parameters({ values, onChange }) {
  const set = (/** @type {string} */ name) => (/** @type {any} */ event) => onChange({ ...values, [name]: event.currentTarget.value });
  return html`<div class="parameters">
    <${Field} label=${t('playground.system')} name="system" rows=${4} value=${values.system ?? ''} onInput=${set('system')} />
    ${Object.entries(NUMBERS).map(
      ([name, [least, most, step]]) => html`<${Field} label=${t(`playground.${name}`)} name=${name} type="number" min=${least} max=${most} step=${step} placeholder=${t('playground.engine-s')} value=${values[name] ?? ''} onInput=${set(name)} />`,
    )}
    <${Field} label=${t('playground.stop-words')} name="stop" rows=${2} hint=${t('playground.stop-hint')} value=${values.stop ?? ''} onInput=${set('stop')} />
  </div>`;
}
