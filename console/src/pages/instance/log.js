// The log of an instance, live: of this run or the one before, of each member.

import { useEffect, useRef, useState } from 'preact/hooks';
import { ApiError, send, withQuery } from '../../api.js';
import { number } from '../../format.js';
import { store } from '../../live.js';
import { sayFault } from '../../parts/button.js';
import { Search } from '../../parts/field.js';
import { html } from '../../parts/html.js';
import { t } from '../../words.js';
import { Lines, MOST_LINES } from './lines.js';

/** From the end of the box, in pixels: nearer than that it goes along with what is written. */
const NEAR = 40;
/** A line without an end is taken for one after so many characters. */
const LONGEST_REST = 64_000;

/**
 * @param {object} props
 * @param {any} props.instance its brief document
 * @param {Array<[string, string]>} props.members numbers and names, the main one first
 */
export function Log({ instance, members }) {
  const [member, setMember] = useState('0');
  const [previous, setPrevious] = useState(false);
  const [wrap, setWrap] = useState(true);
  const [raw, setRaw] = useState(false);
  const [search, setSearch] = useState('');
  const [turn, setTurn] = useState(0);
  const [paused, setPaused] = useState(false);
  const [said, setSaid] = useState({ state: 'reading', fault: '', kept: 0, found: 0, held: 0, gone: 0 });
  const [away, setAway] = useState(false);
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const lines = useRef(/** @type {Lines | null} */ (null));
  const held = useRef(/** @type {string[]} */ ([]));
  const isPaused = useRef(false);
  const follows = useRef(true);
  const shown = useRef('');
  const live = store.connection.value === 'live';

  const tell = (/** @type {any} */ more = {}) => {
    const known = lines.current;
    setSaid((was) => ({ ...was, kept: known?.kept.length ?? 0, found: known?.found ?? 0, gone: known?.gone ?? 0, held: held.current.length, ...more }));
  };
  const toEnd = () => {
    follows.current = true;
    setAway(false);
    if (box.current) box.current.scrollTop = box.current.scrollHeight;
  };
  const put = (/** @type {string[]} */ fresh) => {
    if (isPaused.current) {
      held.current.push(...fresh);
      if (held.current.length > MOST_LINES) held.current.splice(0, held.current.length - MOST_LINES);
    } else {
      lines.current?.add(fresh);
      if (follows.current) toEnd();
    }
    tell();
  };

  useEffect(() => {
    const begin = () => {
      lines.current = new Lines(/** @type {HTMLElement} */ (box.current?.firstElementChild));
      lines.current.show({ raw, search });
      lines.current.redraw();
      held.current = [];
      follows.current = true;
    };
    // What was read stays until there is more of the same.
    const source = `${instance.id} ${member} ${previous}`;
    if (source !== shown.current) begin();
    shown.current = source;
    const until = new AbortController();
    tell({ state: members.length ? 'reading' : 'none', fault: '' });
    if (!members.length) return undefined;
    const opened = () => {
      begin();
      tell({ state: 'live' });
    };
    const query = { tail: MOST_LINES, follow: previous ? undefined : 'true', previous: previous ? 'true' : undefined, member: member === '0' ? undefined : member };
    read(`/v1/model-instances/${instance.id}/logs`, query, put, opened, until.signal).then(
      () => tell({ state: 'ended' }),
      (fault) => {
        if (until.signal.aborted) return;
        if (fault instanceof ApiError) tell({ state: fault.status === 404 ? 'none' : 'fault', fault: sayFault(fault) });
        else tell({ state: 'ended' });
      },
    );
    return () => until.abort();
  }, [instance.id, instance.worker_id, instance.restart_count, member, previous, turn]);
  useEffect(() => {
    // The server or the worker was away: it goes on where they do.
    if (live && !previous && ['ended', 'fault'].includes(said.state)) setTurn(turn + 1);
  }, [live, instance.state]);
  useEffect(() => {
    lines.current?.show({ raw, search });
    tell();
    if (follows.current) toEnd();
  }, [raw, search]);

  const pause = () => {
    isPaused.current = !isPaused.current;
    setPaused(isPaused.current);
    if (!isPaused.current) {
      const waiting = held.current;
      held.current = [];
      put(waiting);
    }
    tell();
  };
  const scrolled = () => {
    const at = box.current;
    if (!at) return;
    follows.current = at.scrollHeight - at.scrollTop - at.clientHeight < NEAR;
    setAway(!follows.current);
  };
  const download = withQuery(`/v1/model-instances/${instance.id}/logs`, { previous: previous ? 'true' : undefined, member: member === '0' ? undefined : member });
  const file = `${instance.name}${member === '0' ? '' : `-${member}`}${previous ? '-previous' : ''}.log`;
  return html`<div class="log">
    <div class="tools">
      ${members.length > 1
        ? html`<select aria-label=${t('instance.member')} value=${member} onChange=${(/** @type {any} */ event) => setMember(event.currentTarget.value)}>
            ${members.map(([value, name]) => html`<option value=${value}>${name}</option>`)}
          </select>`
        : null}
      <div class="segments" role="group" aria-label=${t('instance.run')}>
        <button type="button" aria-pressed=${previous ? 'false' : 'true'} onClick=${() => setPrevious(false)}>${t('instance.this-run')}</button>
        <button type="button" aria-pressed=${previous ? 'true' : 'false'} onClick=${() => setPrevious(true)}>${t('instance.previous-run')}</button>
      </div>
      <${Search} label=${t('instance.search-log')} value=${search} onInput=${setSearch} />
      <label class="inline"><input type="checkbox" checked=${wrap} onChange=${() => setWrap(!wrap)} />${t('instance.wrap')}</label>
      <label class="inline"><input type="checkbox" checked=${raw} onChange=${() => setRaw(!raw)} />${t('instance.escapes')}</label>
      <span class="spring"></span>
      ${previous ? null : html`<button type="button" class="button" aria-pressed=${paused ? 'true' : 'false'} onClick=${pause}>${paused ? t('instance.resume', { n: said.held }) : t('instance.pause')}</button>`}
      <a class="button" href=${download} download=${file}>${t('instance.download')}</a>
    </div>
    <div class="log-frame">
      <div class=${`log-box${wrap ? ' wrap' : ''}`} ref=${box} tabindex="0" role="region" aria-label=${t('instance.log')} onScroll=${scrolled}><div></div></div>
      ${away ? html`<button type="button" class="button primary to-end" onClick=${toEnd}>${t('instance.to-end')}</button>` : null}
    </div>
    <p class="log-said muted">
      <span>${said.fault || t(`instance.log-${said.state}`)}</span>
      ${said.kept ? html`<span>${search ? t('instance.found', { n: number(said.found), of: number(said.kept) }) : t('instance.lines', { n: number(said.kept) })}</span>` : null}
      ${said.gone ? html`<span>${t('instance.only-last', { n: number(MOST_LINES) })}</span>` : null}
      ${['ended', 'fault'].includes(said.state) && !previous ? html`<button type="button" class="button quiet" onClick=${() => setTurn(turn + 1)}>${t('common.again')}</button>` : null}
    </p>
  </div>`;
}

/**
 * Read a log; what came is given on whole lines, at most once for each frame that is drawn.
 *
 * @param {string} path
 * @param {Record<string, any>} query
 * @param {(lines: string[]) => void} put
 * @param {() => void} opened
 * @param {AbortSignal} until
 */
async function read(path, query, put, opened, until) {
  const answer = await send('GET', withQuery(path, query), { signal: until, headers: { Accept: 'text/plain' } });
  opened();
  const reader = /** @type {ReadableStream<Uint8Array>} */ (answer.body).pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  /** @type {string[]} */
  let waiting = [];
  let timer = 0;
  const flush = () => {
    clearTimeout(timer);
    timer = 0;
    if (!waiting.length || until.aborted) return;
    const fresh = waiting;
    waiting = [];
    put(fresh);
  };
  for (;;) {
    const { done, value } = await reader.read();
    if (until.aborted) return;
    if (done) break;
    const parts = (rest + value).split('\n');
    rest = /** @type {string} */ (parts.pop());
    if (rest.length > LONGEST_REST) {
      parts.push(rest);
      rest = '';
    }
    for (const part of parts) waiting.push(part);
    if (waiting.length > MOST_LINES) flush();
    timer ||= setTimeout(flush, 50);
  }
  if (rest) waiting.push(rest);
  flush();
}
