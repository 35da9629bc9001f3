// Conversations are kept in this browser alone, for each account its own, and can be cleared.

import { signal } from '@preact/signals';
import { me } from '../../session.js';
import { choose, chosen } from '../../settings.js';

/**
 * @typedef {{text: string, images?: string[], answers: Array<import('./ask.js').Answer & {model: string} | null>}} Turn
 * @typedef {{id: string, title: string, at: string, models: string[], parameters: Record<string, string>, turns: Turn[]}} Conversation
 */

const MOST = 20;
/** Characters that are kept of all together; a browser allows some 5 million for everything of this address. */
const ROOM = 1_500_000;

/** The newest first. @type {import('@preact/signals').Signal<Conversation[]>} */
export const conversations = signal([]);
let owner = '';

const place = () => `playground-${me.value?.id ?? 0}`;

/** Read what is kept of whoever is signed in. */
export function readConversations() {
  if (owner === place()) return;
  owner = place();
  try {
    const kept = JSON.parse(chosen(owner) ?? '[]');
    conversations.value = Array.isArray(kept) ? kept.filter(isWhole).slice(0, MOST) : [];
  } catch {
    conversations.value = [];
  }
}

/** @param {any} one */
const isWhole = (one) => typeof one?.id === 'string' && Array.isArray(one.models) && Array.isArray(one.turns) && one.turns.every((/** @type {any} */ turn) => Array.isArray(turn?.answers));

/** @param {Conversation} one */
export function keep(one) {
  conversations.value = [one, ...conversations.value.filter((other) => other.id !== one.id)].slice(0, MOST);
  write();
}

/** @param {string} id */
export function forget(id) {
  conversations.value = conversations.value.filter((one) => one.id !== id);
  write();
}

export function forgetAll() {
  conversations.value = [];
  choose(place(), null);
}

/** The oldest that there is no room for are not kept. Images are left out: a few would fill it. */
function write() {
  let left = ROOM;
  const kept = [];
  for (const one of conversations.value) {
    const slim = { ...one, turns: one.turns.map((turn) => ({ ...turn, images: undefined })) };
    left -= JSON.stringify(slim).length;
    if (left < 0) break;
    kept.push(slim);
  }
  choose(place(), kept.length ? JSON.stringify(kept) : null);
}

/** @param {string[]} models @param {Record<string, string>} [parameters] @returns {Conversation} */
export const fresh = (models, parameters = {}) => ({ id: `${Date.now().toString(36)}${Math.random().toString(36).slice(2, 8)}`, title: '', at: new Date().toISOString(), models, parameters, turns: [] });

/**
 * The request for the next answer of one of the models: what was said before, and what is asked now.
 *
 * @param {Conversation} one
 * @param {number} pane which model
 * @param {number} upTo the turn that is to be answered
 */
export function requestOf(one, pane, upTo) {
  const messages = [];
  const { system, ...numbers } = one.parameters;
  if (system?.trim()) messages.push({ role: 'system', content: system });
  for (const [index, turn] of one.turns.slice(0, upTo + 1).entries()) {
    // What was not answered is left out: templates refuse two questions in a row.
    if (index < upTo && !turn.answers[pane]?.text) continue;
    messages.push({
      role: 'user',
      content: turn.images?.length ? [{ type: 'text', text: turn.text }, ...turn.images.map((url) => ({ type: 'image_url', image_url: { url } }))] : turn.text,
    });
    const answer = turn.answers[pane];
    if (index < upTo && answer?.text) messages.push({ role: 'assistant', content: answer.text });
  }
  const given = Object.entries(numbers)
    .filter(([, value]) => value !== '' && value !== undefined)
    .map(([name, value]) => [name, name === 'stop' ? String(value).split('\n').filter(Boolean) : Number(value)])
    .filter(([, value]) => typeof value !== 'number' || !Number.isNaN(value));
  return { model: one.models[pane], messages, ...Object.fromEntries(given) };
}
