// How a model is called from outside: code with the address of this installation, and a key that is made here and shown
// once. The key is not in the code, for code is kept and sent on.

import { useState } from 'preact/hooks';
import { post } from '../../api.js';
import { Button, Sentence } from '../../parts/button.js';
import { Code } from '../../parts/copy.js';
import { Dialog } from '../../parts/dialog.js';
import { html } from '../../parts/html.js';
import { whisper } from '../../parts/toast.js';
import { t } from '../../words.js';
import { codeOf, KEY_VARIABLE } from '../playground/code.js';

const LANGUAGES = { curl: 'curl', python: 'Python', node: 'Node.js' };

/** A name that no other key of the account is likely to have. @param {string} model */
const nameOf = (model) => `${model.slice(0, 200)} ${new Date().toISOString().slice(0, 19).replace('T', ' ')}`;

/** @typedef {{model: string, kind: 'chat' | 'embeddings' | 'rerank' | 'images' | 'speech' | 'transcription', body: any}} Call the key made here is for the model alone */

/** @param {Call} props */
export function CallIt({ model, kind, body }) {
  const [key, setKey] = useState('');
  const [shown, setShown] = useState('curl');
  const make = async () => {
    const made = await post('/v1/api-keys', { name: nameOf(model), scopes: ['inference'], allowed_model_names: [model] });
    setKey(made.value);
    whisper(t('call.made'));
  };
  return html`<div class="call-it">
    ${key
      ? html`<${Sentence} tone="good" detail=${t('call.once')}><b>${t('call.key')}</b><${Code} text=${key} label=${t('call.key')} /><//>`
      : html`<${Sentence} actions=${html`<${Button} kind="primary" onClick=${make}>${t('call.make')}<//>`} detail=${html`<a href="/access?tab=keys">${t('call.others')}</a>`}>${t('call.needs-key')}<//>`}
    <div class="segments" role="group" aria-label=${t('call.language')}>
      ${Object.entries(LANGUAGES).map(([one, word]) => html`<button type="button" aria-pressed=${one === shown ? 'true' : 'false'} onClick=${() => setShown(one)}>${word}</button>`)}
    </div>
    <${Code} text=${codeOf(kind, body, location.origin)[shown]} label=${LANGUAGES[shown]} />
    <p class="muted">${t('call.set', { variable: KEY_VARIABLE })}</p>
    <${Code} text=${`read -rs ${KEY_VARIABLE} && export ${KEY_VARIABLE}`} />
    <p class="muted">${t('call.address', { address: `${location.origin}/v1` })}</p>
  </div>`;
}

/** The same over a page. @param {Call & {onClose: () => void}} props */
export const CallDialog = ({ onClose, ...call }) =>
  html`<${Dialog} title=${t('call.title-of', { name: call.model })} onClose=${onClose} wide><${CallIt} ...${call} /><//>`;
