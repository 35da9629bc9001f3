// A request as a program makes it: with curl, in Python and in Node. Text from elsewhere is quoted for each.

/** Where the key is read from, in every language: never written into the code. */
export const KEY_VARIABLE = 'GPUSTACK_API_KEY';

/** @param {string} text for a POSIX shell */
export const shellQuoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** JSON of which a program in ASCII alone can be made too, since some terminals are. @param {any} value @param {number} [indent] */
const json = (value, indent) => JSON.stringify(value, null, indent);

/** A literal of Python. @param {any} value @param {string} [margin] @returns {string} */
function pythonOf(value, margin = '') {
  if (value === null || value === undefined) return 'None';
  if (value === true) return 'True';
  if (value === false) return 'False';
  if (typeof value !== 'object') return JSON.stringify(value);
  const inner = `${margin}    `;
  if (Array.isArray(value)) {
    if (!value.length) return '[]';
    return `[\n${value.map((one) => `${inner}${pythonOf(one, inner)},`).join('\n')}\n${margin}]`;
  }
  const entries = Object.entries(value);
  if (!entries.length) return '{}';
  return `{\n${entries.map(([key, one]) => `${inner}${JSON.stringify(key)}: ${pythonOf(one, inner)},`).join('\n')}\n${margin}}`;
}

/** Fields of ours or of engines that OpenAI's clients take in a field of their own. */
const KNOWN = {
  chat: ['model', 'messages', 'stream', 'stream_options', 'temperature', 'top_p', 'max_tokens', 'seed', 'stop', 'frequency_penalty', 'presence_penalty'],
  embeddings: ['model', 'input'],
};

/** What OpenAI's client calls each kind of request, and how what it answers is shown. */
const CALLS = {
  chat: { path: '/v1/chat/completions', python: 'client.chat.completions.create', node: 'client.chat.completions.create', show: ['print(answer.choices[0].message.content)', 'console.log(answer.choices[0].message.content);'] },
  embeddings: { path: '/v1/embeddings', python: 'client.embeddings.create', node: 'client.embeddings.create', show: ['print(len(answer.data[0].embedding))', 'console.log(answer.data[0].embedding.length);'] },
  rerank: { path: '/v1/rerank' },
  images: { path: '/v1/images/generations' },
  speech: { path: '/v1/audio/speech', file: 'speech.mp3' },
  transcription: { path: '/v1/audio/transcriptions', form: true },
};

/**
 * @param {keyof typeof CALLS} kind
 * @param {any} body
 * @param {string} origin
 * @returns {{curl: string, python: string, node: string}}
 */
export function codeOf(kind, body, origin) {
  const call = /** @type {any} */ (CALLS[kind]);
  const url = `${origin}${call.path}`;
  if (call.form) return ofForm(url, body);
  return {
    curl: [
      `curl ${shellQuoted(url)} \\`,
      `  -H "Authorization: Bearer $${KEY_VARIABLE}" \\`,
      `  -H 'Content-Type: application/json' \\`,
      ...(call.file ? [`  -o ${call.file} \\`] : []),
      `  -d ${shellQuoted(json(body, 2))}`,
    ].join('\n'),
    python: call.python ? withOpenAi(kind, body, origin) : plainPython(url, body, call.file),
    node: call.node
      ? [
          "import OpenAI from 'openai';",
          '',
          `const client = new OpenAI({ baseURL: ${json(`${origin}/v1`)}, apiKey: process.env.${KEY_VARIABLE} });`,
          `const answer = await ${call.node}(${json({ ...body, stream: undefined, stream_options: undefined }, 2)});`,
          call.show[1],
        ].join('\n')
      : [
          `const answer = await fetch(${json(url)}, {`,
          "  method: 'POST',",
          `  headers: { Authorization: \`Bearer \${process.env.${KEY_VARIABLE}}\`, 'Content-Type': 'application/json' },`,
          `  body: JSON.stringify(${json(body, 2).replaceAll('\n', '\n  ')}),`,
          '});',
          call.file
            ? `await (await import('node:fs/promises')).writeFile('${call.file}', Buffer.from(await answer.arrayBuffer()));`
            : 'console.log(await answer.json());',
        ].join('\n'),
  };
}

/** @param {string} kind @param {any} body @param {string} origin */
function withOpenAi(kind, body, origin) {
  const call = /** @type {any} */ (CALLS)[kind];
  const { stream, stream_options: options, ...rest } = body;
  const usual = Object.entries(rest).filter(([name]) => KNOWN[kind].includes(name));
  const more = Object.fromEntries(Object.entries(rest).filter(([name]) => !KNOWN[kind].includes(name)));
  return [
    'import os',
    'from openai import OpenAI',
    '',
    `client = OpenAI(base_url=${json(`${origin}/v1`)}, api_key=os.environ["${KEY_VARIABLE}"])`,
    `answer = ${call.python}(`,
    ...usual.map(([name, value]) => `    ${name}=${pythonOf(value, '    ')},`),
    ...(Object.keys(more).length ? [`    extra_body=${pythonOf(more, '    ')},`] : []),
    ')',
    call.show[0],
  ].join('\n');
}

/** @param {string} url @param {any} body @param {string} [file] */
const plainPython = (url, body, file) =>
  [
    'import json, os, urllib.request',
    '',
    'request = urllib.request.Request(',
    `    ${json(url)},`,
    `    json.dumps(${pythonOf(body, '    ')}).encode(),`,
    `    {"Authorization": f"Bearer {os.environ['${KEY_VARIABLE}']}", "Content-Type": "application/json"},`,
    ')',
    'with urllib.request.urlopen(request) as answer:',
    file ? `    open("${file}", "wb").write(answer.read())` : '    print(json.load(answer))',
  ].join('\n');

/** @param {string} url @param {any} body */
const ofForm = (url, body) => ({
  curl: [`curl ${shellQuoted(url)} \\`, `  -H "Authorization: Bearer $${KEY_VARIABLE}" \\`, '  -F file=@speech.wav \\', `  --form-string ${shellQuoted(`model=${body.model}`)}`].join('\n'),
  python: [
    'import os',
    'from openai import OpenAI',
    '',
    `client = OpenAI(base_url=${json(new URL('/v1', url).href)}, api_key=os.environ["${KEY_VARIABLE}"])`,
    'with open("speech.wav", "rb") as file:',
    `    print(client.audio.transcriptions.create(model=${json(body.model)}, file=file).text)`,
  ].join('\n'),
  node: [
    "import fs from 'node:fs';",
    "import OpenAI from 'openai';",
    '',
    `const client = new OpenAI({ baseURL: ${json(new URL('/v1', url).href)}, apiKey: process.env.${KEY_VARIABLE} });`,
    `const answer = await client.audio.transcriptions.create({ model: ${json(body.model)}, file: fs.createReadStream('speech.wav') });`,
    'console.log(answer.text);',
  ].join('\n'),
});

/** A request that shows how a model of these categories is called. @param {string} model @param {string[]} categories */
export function sampleOf(model, categories) {
  const has = (/** @type {string} */ one) => categories.includes(one);
  if (has('embedding')) return { kind: /** @type {const} */ ('embeddings'), body: { model, input: ['a cat', 'a dog'] } };
  if (has('reranker')) return { kind: /** @type {const} */ ('rerank'), body: { model, query: 'What is a cat?', documents: ['an animal', 'a machine'] } };
  if (has('image')) return { kind: /** @type {const} */ ('images'), body: { model, prompt: 'a red bicycle', size: '512x512' } };
  if (has('text_to_speech')) return { kind: /** @type {const} */ ('speech'), body: { model, input: 'Good morning.' } };
  if (has('speech_to_text')) return { kind: /** @type {const} */ ('transcription'), body: { model } };
  return { kind: /** @type {const} */ ('chat'), body: { model, messages: [{ role: 'user', content: 'Hello' }] } };
}
