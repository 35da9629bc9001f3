// What somebody said, and what a model answered.

import { useState } from 'preact/hooks';
import { duration, number } from '../../format.js';
import { Sentence } from '../../parts/button.js';
import { CopyButton } from '../../parts/copy.js';
import { html } from '../../parts/html.js';
import { t } from '../../words.js';
import { Markdown } from './markdown.js';

/** @param {{turn: import('./conversations.js').Turn, onEdit: ((text: string) => void) | null}} props */
export function Said({ turn, onEdit }) {
  const [draft, setDraft] = useState(/** @type {string | null} */ (null));
  const send = () => {
    if (!draft?.trim()) return;
    onEdit?.(draft);
    setDraft(null);
  };
  if (draft !== null && onEdit) {
    return html`<div class="said-by-you editing">
      <textarea rows="3" aria-label=${t('playground.edit')} value=${draft} onInput=${(/** @type {any} */ event) => setDraft(event.currentTarget.value)} onKeyDown=${(/** @type {KeyboardEvent} */ event) => {
        if (event.key === 'Escape') setDraft(null);
        if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
          event.preventDefault();
          send();
        }
      }} ref=${(/** @type {HTMLElement | null} */ box) => box && document.activeElement !== box && draft === turn.text && box.focus()}></textarea>
      <div class="actions end"><button type="button" class="button" onClick=${() => setDraft(null)}>${t('common.cancel')}</button><button type="button" class="button primary" onClick=${send}>${t('playground.send')}</button></div>
    </div>`;
  }
  return html`<div class="said-by-you">
    <div class="bubble">${turn.text}${turn.images?.length ? html`<div class="thumbs">${turn.images.map((url, index) => html`<img src=${url} alt=${t('playground.image-n', { n: index + 1 })} />`)}</div>` : null}</div>
    ${onEdit ? html`<div class="under-bubble"><button type="button" class="button quiet" onClick=${() => setDraft(turn.text)}>${t('common.edit')}</button></div>` : null}
  </div>`;
}

/**
 * @param {object} props
 * @param {(import('./ask.js').Answer & {model: string}) | null} props.answer
 * @param {string} props.model
 * @param {boolean} props.grows
 * @param {(() => void) | null} props.onAgain
 */
export function Answered({ answer, model, grows, onAgain }) {
  const [raw, setRaw] = useState(false);
  const name = answer?.model ?? model;
  return html`<div class="answered" aria-busy=${grows ? 'true' : undefined}>
    <div class="who-answers">${name}</div>
    ${answer?.reasoning
      ? html`<details class="reasoning" open=${answer.thinks || undefined}><summary>${answer.thinks ? t('playground.thinks') : t('playground.thought')}</summary><div>${answer.reasoning}</div></details>`
      : null}
    ${answer?.text ? (raw ? html`<pre class="as-text">${answer.text}</pre>` : html`<${Markdown} text=${answer.text} grows=${grows} />`) : null}
    ${grows && !answer?.text && !answer?.reasoning ? html`<span class="dots" role="status" aria-label=${t('playground.waits')}><i></i><i></i><i></i></span>` : null}
    ${!grows && answer && !answer.text && !answer.error && !answer.reasoning ? html`<p class="muted">${t('playground.nothing-said')}</p>` : null}
    ${answer?.error ? html`<${Sentence} tone="bad">${answer.error}<//>` : null}
    ${grows
      ? null
      : html`<div class="under-answer">
          ${answer?.text ? html`<${CopyButton} text=${answer.text} label=${t('playground.copy-answer')} />` : null}
          ${onAgain ? html`<button type="button" class="button quiet" onClick=${onAgain}>${t('playground.again')}</button>` : null}
          ${answer?.text ? html`<button type="button" class="button quiet" aria-pressed=${raw ? 'true' : 'false'} onClick=${() => setRaw(!raw)}>${t('playground.as-text')}</button>` : null}
          <${Pace} answer=${answer} />
        </div>`}
  </div>`;
}

/** How quick it was. @param {{answer: import('./ask.js').Answer | null}} props */
function Pace({ answer }) {
  if (!answer) return null;
  const parts = [];
  if (answer.first !== undefined) parts.push(t('playground.first', { time: duration(answer.first) }));
  if (answer.speed !== undefined) parts.push(t('playground.speed', { n: number(answer.speed, 1) }));
  if (answer.tokens !== undefined) parts.push(t('playground.tokens', { n: number(answer.tokens) }));
  if (answer.prompt !== undefined) parts.push(t('playground.prompt', { n: number(answer.prompt) }));
  if (answer.stopped) parts.push(t('playground.stopped'));
  else if (answer.end === 'length') parts.push(t('playground.cut'));
  return html`<small class="muted num">${parts.join(' · ')}</small>`;
}
