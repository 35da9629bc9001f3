// Images of a text.

import { useState } from 'preact/hooks';
import { post } from '../../api.js';
import { Field } from '../../parts/field.js';
import { html } from '../../parts/html.js';
import { t } from '../../words.js';
import { Asking, useAsked, useModel } from './asked.js';

const SIZES = ['256x256', '512x512', '768x768', '1024x1024', '1024x768', '768x1024'];
/** What images begin with, as base64 writes it. */
const TYPES = { iVBORw: 'image/png', '/9j/': 'image/jpeg', UklGR: 'image/webp' };

/** @param {string} data base64 */
const addressOf = (data) => `data:${Object.entries(TYPES).find(([start]) => data.startsWith(start))?.[1] ?? 'image/png'};base64,${data}`;

/** @param {{models: string[], wanted: string | null}} props */
export function Images({ models, wanted }) {
  const [model, setModel] = useModel(models, wanted);
  const [prompt, setPrompt] = useState('');
  const [size, setSize] = useState('512x512');
  const [count, setCount] = useState('1');
  const [seed, setSeed] = useState('');
  const body = { model, prompt, size, n: Number(count), response_format: 'b64_json', ...(seed === '' ? {} : { seed: Number(seed) }) };
  const asked = useAsked(async (signal) => ({ prompt, images: (await post('/v1/images/generations', body, { signal })).data.map((/** @type {any} */ one) => one.b64_json).filter(Boolean).map(addressOf) }));
  const set = (/** @type {(text: string) => void} */ give) => (/** @type {any} */ event) => give(event.currentTarget.value);
  return html`<${Asking} models=${models} model=${model} onModel=${setModel} kind="images" body=${{ ...body, response_format: undefined }} asked=${asked} submit=${t('playground.draw')} can=${prompt.trim() !== ''} result=${html`<ul class="drawn">
      ${asked.value?.images.map(
        (/** @type {string} */ url, /** @type {number} */ index) => html`<li><img src=${url} alt=${asked.value?.prompt} /><a class="button" href=${url} download=${`image-${index + 1}.${/^data:image\/(\w+)/.exec(url)?.[1]}`}>${t('playground.save-file')}</a></li>`,
      )}
    </ul>`}>
    <${Field} label=${t('playground.picture')} name="prompt" rows=${4} value=${prompt} onInput=${set(setPrompt)} />
    <${Field} label=${t('playground.size')} name="size" options=${SIZES.map((one) => [one, one.replace('x', ' × ')])} value=${size} onChange=${set(setSize)} />
    <${Field} label=${t('playground.how-many')} name="n" type="number" min="1" max="4" value=${count} onInput=${set(setCount)} />
    <${Field} label=${t('playground.seed')} name="seed" type="number" min="0" placeholder=${t('playground.engine-s')} value=${seed} onInput=${set(setSeed)} />
  <//>`;
}
