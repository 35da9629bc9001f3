// How to call a model: curl, Python, Node, and a key for it that is made here and shown once.

import { useState } from 'preact/hooks';
import { post } from '../../api.js';
import { Button, Sentence } from '../../parts/button.js';
import { Code } from '../../parts/copy.js';
import { Dialog } from '../../parts/dialog.js';
import { html } from '../../parts/html.js';
import { whisper } from '../../parts/toast.js';
import { t } from '../../words.js';
import { codeOf, KEY_VARIABLE } from './code.js';

const LANGUAGES = ['curl', 'python', 'node'];
const WORDS = { curl: 'curl', python: 'Python', node: 'Node.js' };

/**
 * @param {object} props
 * @param {string} props.model the key made here is for it alone
 * @param {'chat' | 'embeddings' | 'rerank' | 'images' | 'speech' | 'transcription'} props.kind
 * @param {any} props.body
 * @param {() => void} props.onClose
 */
export function CallDialog({ model, kind, body, onClose }) {
  const [shown, setShown] = useState('curl');
  const [key, setKey] = useState('');
  const make = async () => {
    const made = await post('/v1/api-keys', { name: nameOf(model), scopes: ['inference'], allowed_model_names: [model] });
    setKey(made.value);
    whisper(t('snippet.made'));
  };
  return html`<${Dialog} title=${t('snippet.title', { name: model })} onClose=${onClose} wide>
    <div class="call-code">
      <div>
        <h3>${t('snippet.key')}</h3>
        ${key
          ? html`<${Sentence} tone="good">${t('snippet.once')}<//><${Code} text=${key} label=${t('snippet.key')} />
              <p class="muted">${t('snippet.set')}</p><${Code} text=${`read -rs ${KEY_VARIABLE} && export ${KEY_VARIABLE}`} />`
          : html`<p class="muted">${t('snippet.need', { variable: KEY_VARIABLE })}</p><${Button} onClick=${make}>${t('snippet.make')}<//>`}
      </div>
      <div class="segments" role="group" aria-label=${t('snippet.language')}>
        ${LANGUAGES.map((one) => html`<button type="button" aria-pressed=${one === shown ? 'true' : 'false'} onClick=${() => setShown(one)}>${WORDS[one]}</button>`)}
      </div>
      <${Code} text=${codeOf(kind, body, location.origin)[shown]} label=${WORDS[shown]} />
    </div>
  <//>`;
}

/** A name that no other key of the account is likely to have. @param {string} model */
const nameOf = (model) => `${model.slice(0, 200)} ${new Date().toISOString().slice(0, 19).replace('T', ' ')}`;
