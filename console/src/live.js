// The one stream of events: what the cluster is, kept up to date. Pages read `store`; nobody polls.
//
//   GET /v1/changes ──► replay ──► synced ──► change, change, …     one commit is one event
//        ▲                                        │
//        │ since=REVISION after a pause           ▼ collected until the next frame is drawn
//        └── back-off ◄── lost                 store.workers, store.instances, …   (signals of Maps by id)

import { batch, computed, signal } from '@preact/signals';
import { ApiError, send, unauthorized, withQuery } from './api.js';

/** Kinds of documents, as the stream names them, and where they are kept. */
const KINDS = { models: 'models', workers: 'workers', 'model-instances': 'instances', 'model-files': 'files' };
const DELETED = 3;
const LONGEST_PAUSE = 15_000;
/** Without a byte for so long the connection is taken for lost; the server sends a line every 15 s. */
const SILENCE = 40_000;
/** A page that nobody looks at gives its connection back after so long: a browser has only six for a server. */
const HIDDEN_FOR = 60_000;
const SETTLED = 400;
const WHILE_REPLAYING = 150;
/** Milliseconds of reading in one go, after which the browser may draw. */
const READ_FOR = 6;

/** @template T @typedef {import('@preact/signals').Signal<T>} Signal */
/** @typedef {Map<number, any>} Table documents by id, as `Brief…` of the OpenAPI document has them */

const table = () => /** @type {Signal<Table>} */ (signal(new Map()));

export const store = {
  models: table(),
  workers: table(),
  instances: table(),
  files: table(),
  /** How fast models are, by id, of those on the screen. @type {Signal<Table>} */
  rates: signal(new Map()),
  /** Whether the first replay is complete: an empty table then means that there is nothing. */
  ready: signal(false),
  /** @type {Signal<'connecting' | 'live' | 'lost'>} */
  connection: signal('connecting'),
  /** The revision that is shown. */
  revision: signal(/** @type {string | null} */ (null)),

  /** Instances with a process on a worker, by its id: those of which a follower is there too. */
  byWorker: computed(() => grouped(store.instances.value, placesOf)),
  /** Instances by the id of their model. */
  byModel: computed(() => grouped(store.instances.value, (one) => [one.model_id])),
  filesByWorker: computed(() => grouped(store.files.value, (one) => [one.worker_id])),
};

/** The ids of the workers that an instance is on. @param {any} instance */
const placesOf = (instance) => [
  ...new Set([instance.worker_id, ...(instance.subordinate_workers ?? []).map((/** @type {any} */ one) => one.worker_id)]),
];

/**
 * @param {Table} documents
 * @param {(document: any) => Array<number | null | undefined>} keys
 * @returns {Map<number, any[]>}
 */
function grouped(documents, keys) {
  const found = new Map();
  for (const document of documents.values()) {
    for (const key of keys(document)) {
      if (key === null || key === undefined) continue;
      const there = found.get(key);
      if (there) there.push(document);
      else found.set(key, [document]);
    }
  }
  return found;
}

// --- what was told, until the next frame

/** @type {Map<string, Map<number, any>>} `null` for a document that is gone */
let told = new Map();
/** @type {Map<number, any>} */
let loads = new Map();
/** @type {Map<number, any>} */
let rates = new Map();
/** @type {(() => void)[]} */
let after = [];
let drawn = false;
let taken = -Infinity;
/** Kinds whose table is to be emptied first: the stream began anew. */
let anew = false;

function soon() {
  if (drawn) return;
  drawn = true;
  // While everything is told, pages see it now and then: each time they draw anew what will change again.
  if (replaying === 'further' && performance.now() - taken < WHILE_REPLAYING) {
    setTimeout(() => requestAnimationFrame(take), WHILE_REPLAYING);
    return;
  }
  // A hidden page draws no frames; what is told there is taken at once.
  if (document.hidden) setTimeout(take, 0);
  else requestAnimationFrame(take);
}

function take() {
  drawn = false;
  taken = performance.now();
  batch(() => {
    for (const [kind, name] of Object.entries(KINDS)) {
      const changes = told.get(kind);
      const known = store[name];
      const merged = anew ? new Map() : known.value;
      if (!changes && !anew) continue;
      const next = anew ? merged : new Map(merged);
      for (const [id, document] of changes ?? []) {
        if (document === null) next.delete(id);
        else next.set(id, document);
      }
      known.value = next;
    }
    if (loads.size) {
      const next = new Map(store.workers.value);
      for (const [id, load] of loads) if (next.has(id)) next.set(id, withLoad(next.get(id), load));
      store.workers.value = next;
    }
    if (rates.size) store.rates.value = new Map([...store.rates.value, ...rates]);
    for (const step of after) step();
  });
  told = new Map();
  loads = new Map();
  rates = new Map();
  after = [];
  anew = false;
}

/** @param {any} worker @param {any} load */
function withLoad(worker, load) {
  const devices = new Map((load.gpu_devices ?? []).map((/** @type {any} */ one) => [one.index, one]));
  return {
    ...worker,
    cpu: { ...worker.cpu, ...load.cpu },
    memory: { ...worker.memory, ...load.memory },
    gpu_devices: (worker.gpu_devices ?? []).map((/** @type {any} */ one) => ({ ...one, ...devices.get(one.index) })),
  };
}

/** @param {string} kind @param {any} document @param {boolean} gone */
function tell(kind, document, gone) {
  let changes = told.get(kind);
  if (!changes) told.set(kind, (changes = new Map()));
  changes.set(document.id, gone ? null : document);
}

/** What one event says. @param {string} event @param {string} id @param {any} data */
function hear(event, id, data) {
  if (event === 'state') {
    if (replaying === 'first') {
      anew = true;
      replaying = 'further';
    }
    for (const [kind, document] of data) tell(kind, document, false);
  } else if (event === 'synced') {
    if (replaying === 'first') anew = true;
    replaying = 'done';
    after.push(() => {
      store.ready.value = true;
      store.connection.value = 'live';
      store.revision.value = id;
    });
  } else if (event === 'change') {
    for (const [kind, what, document] of data) tell(kind, document, what === DELETED);
    after.push(() => (store.revision.value = id));
  } else if (event === 'loads') {
    for (const [worker, load] of data) loads.set(worker, load);
  } else if (event === 'rates') {
    for (const [model, rate] of data) rates.set(model, rate);
  } else if (event === 'reset') {
    replaying = 'first';
  } else return;
  if (id) last = id;
  soon();
}

// --- the connection

/** @type {'first' | 'further' | 'done'} */
let replaying = 'first';
/** @type {string | null} the revision that was told last */
let last = null;
/** @type {AbortController | null} */
let open = null;
let wanted = false;
let pause = 500;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

/** Begin. Administrators are told of everything, others of the models that they may use. */
export function startLive() {
  if (wanted) return;
  wanted = true;
  reconnect();
}

/** End it and forget what was told: somebody has signed out. */
export function stopLive() {
  wanted = false;
  clearTimeout(timer);
  open?.abort();
  open = null;
  last = null;
  replaying = 'first';
  batch(() => {
    for (const name of [...Object.values(KINDS), 'rates']) store[name].value = new Map();
    store.ready.value = false;
    store.connection.value = 'connecting';
  });
}

function reconnect() {
  clearTimeout(timer);
  open?.abort();
  if (!wanted) return;
  const mine = new AbortController();
  open = mine;
  follow(mine.signal).then(
    () => lost(mine),
    (fault) => {
      if (fault instanceof ApiError && (fault.status === 401 || fault.status === 403)) unauthorized.value += 1;
      lost(mine);
    },
  );
}

/** @param {AbortController} mine */
function lost(mine) {
  if (open !== mine || mine.signal.aborted || !wanted) return;
  store.connection.value = 'lost';
  timer = setTimeout(reconnect, pause * (0.7 + Math.random() * 0.6));
  pause = Math.min(pause * 2, LONGEST_PAUSE);
}

/** @param {AbortSignal} until */
async function follow(until) {
  if (last === null) replaying = 'first';
  const idsOf = (/** @type {Set<number>} */ ids) => [...ids].sort((a, b) => a - b).join(',');
  const query = { since: last, loads: idsOf(visible.loads), rates: idsOf(visible.rates) };
  const answer = await send('GET', withQuery('/v1/changes', query), { signal: until, headers: { Accept: 'text/event-stream' } });
  pause = 500;
  if (last !== null) store.connection.value = 'live';
  await read(/** @type {ReadableStream<Uint8Array>} */ (answer.body), until);
}

/** Read server-sent events. @param {ReadableStream<Uint8Array>} body @param {AbortSignal} until */
async function read(body, until) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  let event = '';
  let id = '';
  let data = '';
  let began = performance.now();
  for (;;) {
    const silent = setTimeout(() => reader.cancel().catch(() => {}), SILENCE);
    const { done, value } = await reader.read().finally(() => clearTimeout(silent));
    if (done || until.aborted) return;
    if (performance.now() - began > READ_FOR) began = await resumed();
    const lines = (rest + value).split('\n');
    rest = /** @type {string} */ (lines.pop());
    for (const line of lines) {
      if (line === '' || line === '\r') {
        if (event || data) hear(event, id, data ? JSON.parse(data) : null);
        event = id = data = '';
        if (performance.now() - began > READ_FOR) began = await resumed();
      } else if (line.startsWith('data:')) data += line.slice(line[5] === ' ' ? 6 : 5);
      else if (line.startsWith('event:')) event = line.slice(6).trim();
      else if (line.startsWith('id:')) id = line.slice(3).trim();
    }
  }
}

/** Go on when the browser has done what else it has to do; the time then. */
const resumed = () =>
  new Promise((go) => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => go(performance.now());
    channel.port2.postMessage(null);
  });

// --- loads of what is on the screen

/** @type {Record<'loads' | 'rates', Set<number>>} */
const visible = { loads: new Set(), rates: new Set() };
/** @type {ReturnType<typeof setTimeout> | undefined} */
let settled;

/** Tell which workers are on the screen: of those alone loads are sent. @param {Iterable<number>} ids */
export const watchLoads = (ids) => see('loads', ids);

/** The same for models, of which it is told how fast they are. @param {Iterable<number>} ids */
export const watchRates = (ids) => see('rates', ids);

/** @param {'loads' | 'rates'} what @param {Iterable<number>} ids */
function see(what, ids) {
  const next = new Set(ids);
  if (next.size === visible[what].size && [...next].every((id) => visible[what].has(id))) return;
  visible[what] = next;
  clearTimeout(settled);
  settled = setTimeout(() => {
    if (wanted && last !== null && !document.hidden) reconnect();
  }, SETTLED);
}

// --- a page that nobody looks at

/** @type {ReturnType<typeof setTimeout> | undefined} */
let hidden;
document.addEventListener('visibilitychange', () => {
  clearTimeout(hidden);
  if (document.hidden) {
    hidden = setTimeout(() => {
      clearTimeout(timer);
      open?.abort();
      open = null;
    }, HIDDEN_FOR);
  } else if (wanted && open === null) {
    reconnect();
  }
});
addEventListener('online', () => {
  if (wanted && store.connection.value === 'lost') {
    pause = 500;
    reconnect();
  }
});
