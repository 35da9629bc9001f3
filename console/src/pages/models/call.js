// How a model is called from outside: snippets with the address of this installation, and a key that is made here and
// shown once.

import { useState } from 'preact/hooks';
import { post } from '../../api.js';
import { Button, Sentence } from '../../parts/button.js';
import { Code } from '../../parts/copy.js';
import { html } from '../../parts/html.js';
import { t } from '../../words.js';

const KEY = 'YOUR_API_KEY';

/** A word of a shell, whatever is in it. @param {string} text */
const shell = (text) => `'${text.replace(/'/g, `'\\''`)}'`;
/** A string of Python and of JavaScript: JSON's escapes are theirs too. @param {any} value */
const quoted = (value) => JSON.stringify(value).replace(/[\u2028\u2029\u007f]/g, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, '0')}`);

/** What is asked of a model of each category: the path, the body, and the same in the openai packages. */
const ASKS = {
  llm: {
    path: '/v1/chat/completions',
    body: { messages: [{ role: 'user', content: 'Hello!' }] },
    python: ['answer = client.chat.completions.create(', '    messages=[{"role": "user", "content": "Hello!"}],', ')', 'print(answer.choices[0].message.content)'],
    node: ['const answer = await client.chat.completions.create({', "  messages: [{ role: 'user', content: 'Hello!' }],", '});', 'console.log(answer.choices[0].message.content);'],
  },
  embedding: {
    path: '/v1/embeddings',
    body: { input: 'Hello!' },
    python: ['answer = client.embeddings.create(', '    input="Hello!",', ')', 'print(len(answer.data[0].embedding))'],
    node: ['const answer = await client.embeddings.create({', "  input: 'Hello!',", '});', 'console.log(answer.data[0].embedding.length);'],
  },
  reranker: { path: '/v1/rerank', body: { query: 'What is a panda?', documents: ['A bear of China.', 'A kind of bread.'] } },
  image: {
    path: '/v1/images/generations',
    body: { prompt: 'A lighthouse at dawn', size: '512x512' },
    python: ['answer = client.images.generate(', '    prompt="A lighthouse at dawn", size="512x512",', ')', 'print(len(answer.data[0].b64_json))'],
    node: ['const answer = await client.images.generate({', "  prompt: 'A lighthouse at dawn', size: '512x512',", '});', 'console.log(answer.data[0].b64_json.length);'],
  },
  text_to_speech: {
    path: '/v1/audio/speech',
    body: { input: 'Hello!', voice: 'default' },
    output: 'speech.mp3',
    python: ['answer = client.audio.speech.create(', '    input="Hello!", voice="default",', ')', 'answer.write_to_file("speech.mp3")'],
    node: ['const answer = await client.audio.speech.create({', "  input: 'Hello!', voice: 'default',", '});', "await (await import('node:fs/promises')).writeFile('speech.mp3', Buffer.from(await answer.arrayBuffer()));"],
  },
  speech_to_text: {
    path: '/v1/audio/transcriptions',
    file: 'speech.mp3',
    python: ['answer = client.audio.transcriptions.create(', '    file=open("speech.mp3", "rb"),', ')', 'print(answer.text)'],
    node: ['const answer = await client.audio.transcriptions.create({', "  file: (await import('node:fs')).createReadStream('speech.mp3'),", '});', 'console.log(answer.text);'],
  },
};

/**
 * @param {string} name of the model
 * @param {string} category
 * @param {string} key
 * @param {string} origin
 * @returns {Array<[string, string]>} a title and a snippet each
 */
export function snippets(name, category, key, origin) {
  const ask = ASKS[category] ?? ASKS.llm;
  const curl = [`curl ${shell(origin + ask.path)}`, `-H ${shell(`Authorization: Bearer ${key}`)}`];
  if (ask.file) curl.push(`-F ${shell(`file=@${ask.file}`)}`, `--form-string ${shell(`model=${name}`)}`);
  else curl.push(`-H 'Content-Type: application/json'`, `-d ${shell(JSON.stringify({ model: name, ...ask.body }))}`);
  if (ask.output) curl.push(`-o ${ask.output}`);
  /** @type {Array<[string, string]>} */
  const found = [['curl', curl.join(' \\\n  ')]];
  if (ask.python && ask.node) {
    const [first, ...rest] = ask.python;
    found.push(['Python', ['from openai import OpenAI', '', 'client = OpenAI(', `    base_url=${quoted(`${origin}/v1`)},`, `    api_key=${quoted(key)},`, ')', first, `    model=${quoted(name)},`, ...rest].join('\n')]);
    const [begin, ...end] = ask.node;
    found.push(['Node', ["import OpenAI from 'openai';", '', 'const client = new OpenAI({', `  baseURL: ${quoted(`${origin}/v1`)},`, `  apiKey: ${quoted(key)},`, '});', begin, `  model: ${quoted(name)},`, ...end].join('\n')]);
  }
  return found;
}

/** @param {{name: string, categories?: string[]}} props of the model */
export function CallIt({ name, categories = [] }) {
  const [key, setKey] = useState('');
  const [shown, setShown] = useState(0);
  const make = async () => {
    const stamp = new Date().toISOString().slice(0, 19).replace('T', ' ');
    const made = await post('/v1/api-keys', { name: `${name.slice(0, 200)} ${stamp}`, scopes: ['inference'], allowed_model_names: [name] });
    setKey(made.value);
  };
  const found = snippets(name, categories[0] ?? 'llm', key || KEY, location.origin);
  const [, text] = found[Math.min(shown, found.length - 1)];
  return html`<div class="call-it">
    ${key
      ? html`<${Sentence} tone="good" detail=${t('call.once')}><b>${t('call.key')}</b><${Code} text=${key} label=${t('call.key')} /><//>`
      : html`<${Sentence} actions=${html`<${Button} kind="primary" onClick=${make}>${t('call.make')}<//>`} detail=${html`<a href="/access">${t('call.others')}</a>`}>${t('call.needs-key')}<//>`}
    <div class="segments" role="group" aria-label=${t('call.language')}>
      ${found.map(([title], at) => html`<button type="button" aria-pressed=${at === Math.min(shown, found.length - 1) ? 'true' : 'false'} onClick=${() => setShown(at)}>${title}</button>`)}
    </div>
    <${Code} text=${text} label=${found[Math.min(shown, found.length - 1)][0]} />
    <p class="muted">${t('call.address', { address: `${location.origin}/v1` })}</p>
  </div>`;
}
