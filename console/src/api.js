// Calls of the management API. What changes something is JSON from this origin, as docs/api.md asks for.

import { signal } from '@preact/signals';

/** Counts answers that said that nobody is signed in; the session looks again. */
export const unauthorized = signal(0);

/** An error that the server answered with, or `status` 0 where it did not answer. `message` is shown as it is. */
export class ApiError extends Error {
  /** @param {number} status @param {string} message @param {string} reason @param {any} body */
  constructor(status, message, reason = '', body = null) {
    super(message);
    this.status = status;
    this.reason = reason;
    this.body = body;
  }
}

/** The sentence of an error body, in whichever form it came. @param {any} body */
function sentence(body) {
  if (typeof body?.message === 'string') return body.message;
  if (typeof body?.error?.message === 'string') return body.error.message;
  return '';
}

/** What `before.js` has asked for already, by path; each answer is taken once. @type {Record<string, Promise<Response>>} */
const asked = globalThis.asked ?? {};

/** @param {string} method @param {string} path */
function askedBefore(method, path) {
  const answer = method === 'GET' ? asked[path] : undefined;
  delete asked[path];
  return answer;
}

/**
 * One request; the answer as the browser gives it. Throws `ApiError`.
 *
 * @param {string} method
 * @param {string} path
 * @param {{body?: any, signal?: AbortSignal, headers?: Record<string, string>}} [options] a `FormData` goes as it is
 * @returns {Promise<Response>}
 */
export async function send(method, path, { body, signal: until, headers } = {}) {
  const form = body instanceof FormData;
  let answer;
  try {
    answer = await (askedBefore(method, path) ?? fetch(path, {
      method,
      signal: until,
      credentials: 'same-origin',
      cache: 'no-store',
      headers: {
        Accept: 'application/json',
        ...(method === 'GET' || form ? {} : { 'Content-Type': 'application/json' }),
        ...headers,
      },
      body: body === undefined ? (method === 'POST' || method === 'PUT' ? '{}' : undefined) : form ? body : JSON.stringify(body),
    }));
  } catch (fault) {
    if (until?.aborted) throw fault;
    throw new ApiError(0, '', 'unreachable');
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => null);
  if (answer.status === 401 && path !== '/auth/login') unauthorized.value += 1;
  throw new ApiError(answer.status, sentence(told) || `${answer.status} ${answer.statusText}`, told?.reason ?? '', told);
}

/** @param {string} method */
const call =
  (method) =>
  /** @param {string} path @param {any} [body] @param {{signal?: AbortSignal}} [options] @returns {Promise<any>} */
  async (path, body, options) =>
    (await send(method, path, { body, ...options })).json().catch(() => null);

export const post = call('POST');
export const put = call('PUT');
export const del = call('DELETE');

/** @param {string} path @param {Record<string, any>} [query] @param {{signal?: AbortSignal}} [options] @returns {Promise<any>} */
export async function get(path, query, options) {
  return (await send('GET', withQuery(path, query), options)).json();
}

/** All rows of a list. @param {string} path @param {Record<string, any>} [query] @returns {Promise<any[]>} */
export async function list(path, query) {
  return (await get(path, { perPage: -1, ...query })).items;
}

/** @param {string} path @param {Record<string, any>} [query] empty values are left out */
export function withQuery(path, query) {
  const given = Object.entries(query ?? {}).filter(([, value]) => value !== undefined && value !== null && value !== '');
  if (!given.length) return path;
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)]));
  return `${path}?${text}`;
}
