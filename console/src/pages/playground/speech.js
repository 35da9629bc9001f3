// A text spoken, and speech written down.

import { useEffect, useRef, useState } from 'preact/hooks';
import { send } from '../../api.js';
import { bytes } from '../../format.js';
import { Button } from '../../parts/button.js';
import { CopyButton } from '../../parts/copy.js';
import { Field } from '../../parts/field.js';
import { html } from '../../parts/html.js';
import { toast } from '../../parts/toast.js';
import { t } from '../../words.js';
import { Asking, useAsked, useModel } from './asked.js';

const FORMATS = ['mp3', 'wav', 'opus', 'flac'];
const LARGEST = 100 * 1024 * 1024;

/** The address of a blob, given back when another takes its place. @param {Blob | null} blob */
function useAddress(blob) {
  const [url, setUrl] = useState('');
  useEffect(() => {
    if (!blob) return undefined;
    const made = URL.createObjectURL(blob);
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [blob]);
  return blob ? url : '';
}

/** @param {{models: string[], wanted: string | null, voicesOf: (model: string) => string[]}} props */
export function Speaking({ models, wanted, voicesOf }) {
  const [model, setModel] = useModel(models, wanted);
  const [text, setText] = useState(t('playground.speech-sample'));
  const [voice, setVoice] = useState('');
  const [format, setFormat] = useState('mp3');
  const voices = voicesOf(model);
  const chosen = voices.includes(voice) ? voice : (voices[0] ?? voice);
  const body = { model, input: text, ...(chosen ? { voice: chosen } : {}), response_format: format };
  const asked = useAsked(async (signal) => (await send('POST', '/v1/audio/speech', { body, signal })).blob());
  const url = useAddress(asked.value);
  return html`<${Asking} models=${models} model=${model} onModel=${setModel} kind="speech" body=${body} asked=${asked} submit=${t('playground.speak')} can=${text.trim() !== ''} result=${url ? html`<audio controls src=${url} aria-label=${t('playground.tab-speak')}></audio><p><a class="button" href=${url} download=${`speech.${format}`}>${t('playground.save-file')}</a> <small class="muted">${bytes(asked.value?.size)}</small></p>` : null}>
    <${Field} label=${t('playground.text')} name="text" rows=${5} value=${text} onInput=${(/** @type {any} */ event) => setText(event.currentTarget.value)} />
    ${voices.length
      ? html`<${Field} label=${t('playground.voice')} name="voice" options=${voices.map((one) => [one, one])} value=${chosen} onChange=${(/** @type {any} */ event) => setVoice(event.currentTarget.value)} />`
      : html`<${Field} label=${t('playground.voice')} name="voice" placeholder=${t('playground.engine-s')} value=${voice} onInput=${(/** @type {any} */ event) => setVoice(event.currentTarget.value)} />`}
    <${Field} label=${t('playground.format')} name="format" options=${FORMATS.map((one) => [one, one])} value=${format} onChange=${(/** @type {any} */ event) => setFormat(event.currentTarget.value)} />
  <//>`;
}

/** @param {{models: string[], wanted: string | null}} props */
export function Writing({ models, wanted }) {
  const [model, setModel] = useModel(models, wanted);
  const [sound, setSound] = useState(/** @type {{blob: Blob, name: string} | null} */ (null));
  const [language, setLanguage] = useState('');
  const url = useAddress(sound?.blob ?? null);
  const asked = useAsked(async (signal) => {
    const form = new FormData();
    form.append('model', model);
    if (language.trim()) form.append('language', language.trim());
    if (sound) form.append('file', sound.blob, sound.name);
    return (await send('POST', '/v1/audio/transcriptions', { body: form, signal })).json();
  });
  const take = (/** @type {Blob} */ blob, /** @type {string} */ name) => {
    if (blob.size > LARGEST) toast(t('playground.large-image', { name }), 'bad');
    else setSound({ blob, name });
  };
  const text = asked.value?.text ?? '';
  return html`<${Asking} models=${models} model=${model} onModel=${setModel} kind="transcription" body=${{ model }} asked=${asked} submit=${t('playground.write-down')} can=${sound !== null} result=${html`<div class="section-head"><h2>${t('playground.tab-write')}</h2><${CopyButton} text=${text} /></div><p class="as-text">${text || t('playground.nothing-said')}</p>`}>
    <div class="field"><label for="sound">${t('playground.sound')}</label>
      <input id="sound" type="file" accept="audio/*,video/*" onChange=${(/** @type {any} */ event) => {
        const file = event.currentTarget.files[0];
        if (file) take(file, file.name);
      }} /></div>
    <${Recorder} onDone=${(/** @type {Blob} */ blob) => take(blob, blob.type.includes('ogg') ? 'recorded.ogg' : blob.type.includes('mp4') ? 'recorded.mp4' : 'recorded.webm')} />
    ${url ? html`<audio controls src=${url} aria-label=${sound?.name}></audio>` : null}
    <${Field} label=${t('playground.language')} name="language" hint=${t('playground.language-hint')} value=${language} onInput=${(/** @type {any} */ event) => setLanguage(event.currentTarget.value)} />
  <//>`;
}

/** Takes from the microphone, where the browser lets a page of this origin. @param {{onDone: (blob: Blob) => void}} props */
function Recorder({ onDone }) {
  const [recording, setRecording] = useState(/** @type {MediaRecorder | null} */ (null));
  const open = useRef(/** @type {MediaStream | null} */ (null));
  const end = () => open.current?.getTracks().forEach((track) => track.stop());
  useEffect(() => end, []);
  if (!navigator.mediaDevices?.getUserMedia || !window.MediaRecorder) return html`<p class="muted">${t('playground.no-microphone')}</p>`;
  const begin = async () => {
    try {
      open.current = await navigator.mediaDevices.getUserMedia({ audio: true });
    } catch {
      toast(t('playground.microphone-refused'), 'bad');
      return;
    }
    /** @type {Blob[]} */
    const pieces = [];
    const recorder = new MediaRecorder(open.current);
    recorder.ondataavailable = (event) => pieces.push(event.data);
    recorder.onstop = () => {
      end();
      setRecording(null);
      onDone(new Blob(pieces, { type: recorder.mimeType }));
    };
    recorder.start();
    setRecording(recorder);
  };
  return recording
    ? html`<div><button type="button" class="button danger" onClick=${() => recording.stop()}>${t('playground.record-end')}</button></div>`
    : html`<div><${Button} onClick=${begin}>${t('playground.record')}<//></div>`;
}
