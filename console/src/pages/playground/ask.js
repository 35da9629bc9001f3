// One answer of a model as it comes: text, reasoning, and how quick it was.

import { send } from '../../api.js';

/** Characters of an answer that a page keeps. */
const LONGEST = 400_000;
const OPENED = '<think>';
const CLOSED = '</think>';

/**
 * @typedef {object} Answer
 * @property {string} text
 * @property {string} reasoning
 * @property {boolean} [thinks] it is still in its reasoning
 * @property {string} [error]
 * @property {boolean} [stopped] by the person
 * @property {number} [first] seconds to its first token, as seen here
 * @property {number} [speed] tokens a second after the first
 * @property {number} [tokens]
 * @property {number} [prompt] tokens
 * @property {string} [end] why it ended, in the engine's word
 */

/** What engines that do not know better put into the text itself. @param {string} content @returns {{text: string, reasoning: string, thinks: boolean}} */
export function split(content) {
  const begun = content.trimStart();
  if (!begun.startsWith(OPENED)) {
    // A template may have opened it already: then only its end is told.
    const end = content.indexOf(CLOSED);
    return end < 0 ? { text: content, reasoning: '', thinks: false } : { text: content.slice(end + CLOSED.length).trimStart(), reasoning: content.slice(0, end).trim(), thinks: false };
  }
  const end = begun.indexOf(CLOSED);
  if (end < 0) return { text: '', reasoning: begun.slice(OPENED.length).trim(), thinks: true };
  return { text: begun.slice(end + CLOSED.length).trimStart(), reasoning: begun.slice(OPENED.length, end).trim(), thinks: false };
}

/**
 * Ask, and tell of the answer as it grows. Resolves with it when it has ended, also when it was stopped; throws `ApiError`
 * where the request was refused.
 *
 * @param {any} body of a chat completion
 * @param {(answer: Answer) => void} grown
 * @param {AbortSignal} until
 * @returns {Promise<Answer>}
 */
export async function ask(body, grown, until) {
  const began = performance.now();
  const made = { content: '', reasoning: '' };
  /** @type {Answer} */
  let answer = { text: '', reasoning: '' };
  let first = 0;
  let events = 0;
  let usage = /** @type {any} */ (null);
  let timings = /** @type {any} */ (null);
  let end = '';
  let error = '';
  const now = () => {
    const { text, reasoning, thinks } = split(made.content);
    const passed = first ? (performance.now() - first) / 1000 : 0;
    const tokens = usage?.completion_tokens ?? events;
    const timed = passed > 0.05 && tokens > 1 ? (tokens - 1) / passed : undefined;
    answer = {
      text,
      reasoning: made.reasoning || reasoning,
      thinks: thinks || (made.reasoning !== '' && text === ''),
      first: first ? (first - began) / 1000 : undefined,
      // The engine's own figure is not slowed down by what lies between; only some tell it.
      speed: timings?.predicted_per_second ?? timed,
      tokens: tokens || undefined,
      prompt: usage?.prompt_tokens,
      end: end || undefined,
      error: error || undefined,
    };
    return answer;
  };
  try {
    const response = await send('POST', '/v1/chat/completions', {
      body: { ...body, stream: true, stream_options: { include_usage: true } },
      signal: until,
      headers: { Accept: 'text/event-stream' },
    });
    for await (const event of eventsOf(response, until)) {
      if (event.error) {
        error = event.error.message ?? String(event.error);
        break;
      }
      if (event.usage) usage = event.usage;
      if (event.timings) timings = event.timings;
      const choice = event.choices?.[0];
      if (!choice) continue;
      if (choice.finish_reason) end = choice.finish_reason;
      const thought = choice.delta?.reasoning_content ?? choice.delta?.reasoning ?? '';
      const said = choice.delta?.content ?? '';
      if (!thought && !said) continue;
      first ||= performance.now();
      events += 1;
      if (made.content.length + made.reasoning.length < LONGEST) {
        made.content += said;
        made.reasoning += thought;
      }
      grown(now());
    }
  } catch (fault) {
    if (!until.aborted) throw fault;
  }
  const whole = now();
  return until.aborted ? { ...whole, thinks: false, stopped: true } : { ...whole, thinks: false };
}

/** Server-sent events of an answer, each read as JSON. @param {Response} response @param {AbortSignal} until @returns {AsyncGenerator<any>} */
async function* eventsOf(response, until) {
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done || until.aborted) return;
    const lines = (rest + value).split('\n');
    rest = /** @type {string} */ (lines.pop());
    for (const line of lines) {
      if (!line.startsWith('data:')) continue;
      const data = line.slice(5).trim();
      if (data === '[DONE]') return;
      try {
        yield JSON.parse(data);
      } catch {
        // A line that is no JSON says nothing that could be shown.
      }
    }
  }
}
