// What needs a decision, as the server sees it: asked for again when something has changed, and not otherwise.

import { effect, signal } from '@preact/signals';
import { ApiError, get } from './api.js';
import { store } from './live.js';
import { isAdmin } from './session.js';

/**
 * @typedef {object} Action
 * @property {string} kind
 * @property {string} label
 * @property {string} method
 * @property {string} path
 * @property {any} [body]
 * @property {string} [confirm] a question to ask first
 *
 * @typedef {object} Item
 * @property {string} id
 * @property {string} kind
 * @property {'critical' | 'warning' | 'notice'} severity
 * @property {string} text
 * @property {string} [since]
 * @property {{kind: string, id: number, name: string}} [object]
 * @property {Action[]} [actions]
 */

/** The worst first; `null` until it has been asked. @type {import('@preact/signals').Signal<Item[] | null>} */
export const attention = signal(null);
/** Why it is not known, if so. */
export const attentionFault = signal('');

const QUICK = 50;
const SELDOM = 1500;
let asked = 0;
let asking = false;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

/** Ask now. */
export async function askAttention() {
  clearTimeout(timer);
  timer = undefined;
  if (asking) return later();
  asking = true;
  asked = performance.now();
  try {
    attention.value = (await get('/v1/attention')).items;
    attentionFault.value = '';
  } catch (fault) {
    if (!(fault instanceof ApiError)) throw fault;
    if (fault.status !== 0) attentionFault.value = fault.message;
  } finally {
    asking = false;
  }
}

function later() {
  const wait = Math.max(QUICK, SELDOM - (performance.now() - asked));
  timer ??= setTimeout(askAttention, wait);
}

effect(() => {
  const revision = store.revision.value;
  if (!isAdmin.value) {
    attention.value = null;
    return;
  }
  if (document.hidden) return;
  if (revision !== null) later();
  else if (attention.peek() === null) askAttention();
});
document.addEventListener('visibilitychange', () => {
  if (!document.hidden && isAdmin.value && store.revision.value !== null) later();
});
