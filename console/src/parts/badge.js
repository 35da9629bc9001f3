// A state in a word and a colour; the word alone says it too.

import { known } from '../words.js';
import { html } from './html.js';

const TONES = {
  running: 'good', ready: 'good', success: 'good', ok: 'good', done: 'good', active: 'good',
  downloading: 'busy', starting: 'busy', initializing: 'busy', scheduled: 'busy', analyzing: 'busy', draining: 'busy', ending: 'busy',
  pending: 'warn', waiting: 'warn', partly_ready: 'warn', not_ready: 'warn', cordoned: 'warn', warning: 'warn', expired: 'warn', refused: 'warn',
  error: 'bad', failed: 'bad', unreachable: 'bad', barred: 'bad', critical: 'bad',
  stopped: 'quiet', notice: 'quiet', info: 'quiet',
};

/** @param {{state: string, detail?: string}} props */
export const Badge = ({ state, detail }) =>
  html`<span class=${`badge ${TONES[state] ?? 'quiet'}`}><i aria-hidden="true"></i>${known(`state.${state}`) ?? state}${detail ? html` <small>${detail}</small>` : null}</span>`;
