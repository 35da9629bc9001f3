// Dated events as they come: the newest that there are, then every later one; again after the connection was lost.

import { useEffect, useRef, useState } from 'preact/hooks';
import { ApiError, send, withQuery } from '../../api.js';
import { sayFault } from '../../parts/button.js';
import { merged, readLines } from './told.js';

/** Events in one answer. */
export const AT_ONCE = 200;
/** The server sends a line every 15 s. */
const SILENCE = 40_000;
const LONGEST_PAUSE = 15_000;

/**
 * The events that a query selects, kept up to date while the page is looked at.
 *
 * @param {Record<string, any>} query as `GET /v1/events` takes it
 * @returns {{events: any[] | null, fault: string, add: (events: any[]) => void}} `null` until the first are there
 */
export function useEvents(query) {
  const [events, setEvents] = useState(/** @type {any[] | null} */ (null));
  const [fault, setFault] = useState('');
  const [shown, setShown] = useState(!document.hidden);
  const newest = useRef(/** @type {number | null} */ (null));
  const add = (/** @type {any[]} */ more) => setEvents((known) => merged(known ?? [], more));
  useEffect(() => {
    const look = () => setShown(!document.hidden);
    document.addEventListener('visibilitychange', look);
    return () => document.removeEventListener('visibilitychange', look);
  }, []);
  useEffect(() => {
    if (!shown) return undefined;
    const until = new AbortController();
    follow(query, newest, until.signal, (more, synced) => {
      setFault('');
      if (more.length || synced) add(more);
    }).catch((error) => {
      if (until.signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      setFault(sayFault(error));
    });
    return () => until.abort();
  }, [shown, JSON.stringify(query)]);
  return { events, fault, add };
}

/**
 * Until it is aborted, or the server says that it will not.
 *
 * @param {Record<string, any>} query
 * @param {{current: number | null}} newest the id of the newest event that is known
 * @param {AbortSignal} until
 * @param {(events: any[], synced: boolean) => void} onEvents
 */
async function follow(query, newest, until, onEvents) {
  let pause = 500;
  while (!until.aborted) {
    try {
      const answer = await send('GET', withQuery('/v1/events', { ...query, watch: true, sync: true, limit: AT_ONCE, since: newest.current }), { signal: until });
      const reader = /** @type {ReadableStream<Uint8Array>} */ (answer.body).pipeThrough(new TextDecoderStream()).getReader();
      let rest = '';
      for (;;) {
        const silent = setTimeout(() => reader.cancel().catch(() => {}), SILENCE);
        const { done, value } = await reader.read().finally(() => clearTimeout(silent));
        if (done || until.aborted) break;
        const told = readLines(rest + value);
        rest = told.rest;
        for (const one of told.events) newest.current = Math.max(newest.current ?? 0, one.id);
        onEvents(told.events, told.synced);
        pause = 500;
      }
    } catch (fault) {
      if (until.aborted || (fault instanceof ApiError && fault.status >= 400 && fault.status < 500)) throw fault;
    }
    await new Promise((go) => setTimeout(go, pause));
    pause = Math.min(pause * 2, LONGEST_PAUSE);
  }
}
