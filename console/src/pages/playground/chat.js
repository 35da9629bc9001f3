// A conversation with a model, or with two side by side.

import { useEffect, useRef, useState } from 'preact/hooks';
import { ApiError } from '../../api.js';
import { dateTime } from '../../format.js';
import { sayFault } from '../../parts/button.js';
import { confirm } from '../../parts/dialog.js';
import { html } from '../../parts/html.js';
import { Icon } from '../../parts/icon.js';
import { Menu } from '../../parts/menu.js';
import { whisper } from '../../parts/toast.js';
import { setQuery } from '../../router.js';
import { t } from '../../words.js';
import { CallDialog } from '../models/call.js';
import { ask } from './ask.js';
import { conversations, forget, forgetAll, fresh, keep, readConversations, requestOf } from './conversations.js';
import { Answered, Said } from './message.js';
import { Parameters } from './parameters.js';
import { MOST_IMAGES, readImages } from './pictures.js';

/** From the end of the page, in pixels: nearer than that it goes along with an answer. */
const NEAR = 120;
/** Characters of an answer that a screen reader is told. */
const LONGEST_WHISPER = 2000;
const LONGEST_TITLE = 60;

/** @param {{models: string[], wanted: string | null}} props names of models that chat */
export function Chat({ models, wanted }) {
  readConversations();
  const [one, setOne] = useState(() => fresh([startWith(models, wanted)]));
  const [draft, setDraft] = useState('');
  const [images, setImages] = useState(/** @type {string[]} */ ([]));
  const [growing, setGrowing] = useState(/** @type {Record<string, any>} */ ({}));
  const [showsCode, setShowsCode] = useState(false);
  const latest = useRef(one);
  latest.current = one;
  const running = useRef(/** @type {Map<string, AbortController>} */ (new Map()));
  const input = useRef(/** @type {HTMLTextAreaElement | null} */ (null));
  const picker = useRef(/** @type {HTMLInputElement | null} */ (null));
  const busy = Object.keys(growing).length > 0;

  const stop = () => running.current.forEach((one) => one.abort());
  useEffect(() => stop, []);
  useEffect(() => {
    const near = document.documentElement.scrollHeight - scrollY - innerHeight < NEAR;
    if (busy && near) scrollTo(0, document.documentElement.scrollHeight);
  });

  const change = (/** @type {any} */ next) => {
    latest.current = next;
    setOne(next);
  };
  /** Have a turn answered by one of the models. */
  const answer = async (/** @type {number} */ turn, /** @type {number} */ pane) => {
    const key = `${turn}-${pane}`;
    const before = latest.current;
    const model = before.models[pane];
    const until = new AbortController();
    running.current.set(key, until);
    setGrowing((was) => ({ ...was, [key]: { text: '', reasoning: '', model } }));
    let made;
    try {
      made = await ask(requestOf(before, pane, turn), (grown) => setGrowing((was) => ({ ...was, [key]: { ...grown, model } })), until.signal);
    } catch (fault) {
      if (!(fault instanceof ApiError)) throw fault;
      made = { text: '', reasoning: '', error: sayFault(fault) };
    }
    running.current.delete(key);
    setGrowing(({ [key]: _, ...rest }) => rest);
    const now = latest.current;
    if (now.id !== before.id || !now.turns[turn]) return;
    const turns = now.turns.map((old, index) => (index === turn ? { ...old, answers: now.models.map((__, other) => (other === pane ? { ...made, model } : (old.answers[other] ?? null))) } : old));
    const next = { ...now, turns };
    change(next);
    keep(next);
    // Once, and whole: each token would be a stutter.
    whisper(made.error ? made.error : t('playground.says', { model, text: made.text.slice(0, LONGEST_WHISPER) }));
  };
  const say = (/** @type {string} */ text, /** @type {string[]} */ withImages, /** @type {number} */ at) => {
    const turn = { text, images: withImages.length ? withImages : undefined, answers: [] };
    const now = latest.current;
    const next = { ...now, at: new Date().toISOString(), title: at === 0 || !now.title ? text.trim().slice(0, LONGEST_TITLE) : now.title, turns: [...now.turns.slice(0, at), turn] };
    change(next);
    keep(next);
    next.models.forEach((_, pane) => answer(at, pane));
  };
  const send = () => {
    if (busy || (!draft.trim() && !images.length)) return;
    say(draft, images, one.turns.length);
    setDraft('');
    setImages([]);
  };
  const add = async (/** @type {Iterable<File>} */ files) => {
    const found = await readImages(files, images.length);
    if (found.length) setImages((was) => [...was, ...found].slice(0, MOST_IMAGES));
  };
  const begin = (/** @type {any} */ next) => {
    stop();
    change(next);
    setDraft('');
    setImages([]);
    input.current?.focus();
  };
  const clear = async () => {
    if (!(await confirm({ title: t('playground.clear-all'), text: t('playground.clear-text'), submit: t('playground.clear-all'), danger: true }))) return;
    forgetAll();
    begin(fresh(one.models, one.parameters));
  };
  const choose = (/** @type {number} */ pane, /** @type {string} */ name) => {
    const next = name ? one.models.map((old, index) => (index === pane ? name : old)) : one.models.slice(0, 1);
    change({ ...one, models: pane >= one.models.length && name ? [...one.models, name] : next });
    if (pane === 0) setQuery({ model: name });
  };

  const offered = [...new Set([...models, ...one.models])];
  const before = conversations.value.filter((other) => other.id !== one.id);
  const last = one.turns.length - 1;
  const shownRequest = { ...requestOf(one, 0, Math.max(0, last)) };
  if (!shownRequest.messages.length) shownRequest.messages = [{ role: 'user', content: draft || 'Hello' }];

  return html`<div class="chat-tools tools">
      <${Choice} label=${t('playground.model')} value=${one.models[0]} models=${offered} onChange=${(/** @type {string} */ name) => choose(0, name)} />
      <${Choice} label=${t('playground.beside')} value=${one.models[1] ?? ''} models=${offered} none=${t('playground.no-second')} onChange=${(/** @type {string} */ name) => choose(1, name)} />
      <span class="spring"></span>
      <button type="button" class="button" onClick=${() => setShowsCode(true)}>${t('playground.code')}</button>
      <button type="button" class="button" onClick=${() => begin(fresh(one.models, one.parameters))}><${Icon} name="plus" />${t('playground.new')}</button>
      <${Menu} label=${t('playground.history')} items=${[
        ...before.slice(0, 12).map((other) => ({ text: `${other.title || '…'} · ${dateTime(other.at)}`, act: () => begin(other) })),
        ...(one.turns.length ? [{ text: t('playground.clear-this'), act: () => {
          forget(one.id);
          begin(fresh(one.models, one.parameters));
        } }] : []),
        { text: t('playground.clear-all'), danger: true, act: clear },
      ]}>${t('playground.history')}<${Icon} name="down" /><//>
    </div>
    <div class="chat">
      <div class="chat-main">
        <div class=${`turns panes-${one.models.length}`}>
          ${one.turns.length ? null : html`<div class="empty"><h2>${t('playground.begin')}</h2><div>${t('playground.kept')}</div></div>`}
          ${one.turns.map(
            (turn, index) => html`<div class="turn" key=${index}>
              <${Said} turn=${turn} onEdit=${busy ? null : (/** @type {string} */ text) => say(text, turn.images ?? [], index)} />
              <div class="answers">
                ${one.models.map((model, pane) => {
                  const key = `${index}-${pane}`;
                  const grows = growing[key] !== undefined;
                  return html`<${Answered} key=${pane} model=${model} answer=${growing[key] ?? turn.answers[pane] ?? null} grows=${grows} onAgain=${index === last && !busy ? () => answer(index, pane) : null} />`;
                })}
              </div>
            </div>`,
          )}
        </div>
        <div class="composer" onDragOver=${(/** @type {DragEvent} */ event) => event.preventDefault()} onDrop=${(/** @type {DragEvent} */ event) => {
          event.preventDefault();
          add(event.dataTransfer?.files ?? []);
        }}>
          ${images.length
            ? html`<div class="thumbs">${images.map(
                (url, index) => html`<span class="thumb"><img src=${url} alt=${t('playground.image-n', { n: index + 1 })} /><button type="button" class="button only-icon" aria-label=${t('playground.drop-image', { n: index + 1 })} onClick=${() => setImages(images.filter((_, other) => other !== index))}><${Icon} name="close" /></button></span>`,
              )}</div>`
            : null}
          <textarea ref=${input} rows=${Math.min(10, Math.max(2, draft.split('\n').length))} placeholder=${t('playground.write')} aria-label=${t('playground.write')} value=${draft}
            onInput=${(/** @type {any} */ event) => setDraft(event.currentTarget.value)}
            onPaste=${(/** @type {ClipboardEvent} */ event) => {
              const files = [...(event.clipboardData?.files ?? [])];
              if (files.length) {
                event.preventDefault();
                add(files);
              }
            }}
            onKeyDown=${(/** @type {KeyboardEvent} */ event) => {
              if (event.key === 'Escape' && busy) stop();
              if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
              event.preventDefault();
              send();
            }}></textarea>
          <div class="composer-actions">
            <input type="file" ref=${picker} accept="image/png,image/jpeg,image/webp,image/gif" multiple hidden onChange=${(/** @type {any} */ event) => {
              add([...event.currentTarget.files]);
              event.currentTarget.value = '';
            }} />
            <button type="button" class="button quiet" onClick=${() => picker.current?.click()}><${Icon} name="plus" />${t('playground.image')}</button>
            <span class="muted hint">${t('playground.keys')}</span>
            <span class="spring"></span>
            ${busy ? html`<button type="button" class="button" onClick=${stop}>${t('playground.stop')}</button>` : html`<button type="button" class="button primary" disabled=${!draft.trim() && !images.length} onClick=${send}>${t('playground.send')}</button>`}
          </div>
        </div>
      </div>
      <details class="side-panel" open=${innerWidth > 1100 || undefined}><summary>${t('playground.parameters')}</summary>
        <${Parameters} values=${one.parameters} onChange=${(/** @type {any} */ parameters) => change({ ...one, parameters })} /></details>
    </div>
    ${showsCode ? html`<${CallDialog} model=${one.models[0]} kind="chat" body=${withoutData(shownRequest)} onClose=${() => setShowsCode(false)} />` : null}`;
}

/** @param {string[]} models @param {string | null} wanted */
const startWith = (models, wanted) => (wanted && models.includes(wanted) ? wanted : models[0]);

/** A whole image in the code would hide the rest of it. @param {any} body */
const withoutData = (body) => JSON.parse(JSON.stringify(body, (key, value) => (key === 'url' && typeof value === 'string' && value.startsWith('data:') ? `${value.slice(0, 40)}…` : value)));

/** @param {{label: string, value: string, models: string[], none?: string, onChange: (name: string) => void}} props */
export const Choice = ({ label, value, models, none, onChange }) =>
  html`<label class="choice"><span>${label}</span><select value=${value} onChange=${(/** @type {any} */ event) => onChange(event.currentTarget.value)}>
    ${none === undefined ? null : html`<option value="">${none}</option>`}
    ${models.map((name) => html`<option value=${name}>${name}</option>`)}
  </select></label>`;
