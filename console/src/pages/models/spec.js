// A deployment as the form holds it, which is the body of POST /v1/models, and what is made of it. Nothing here draws or
// asks a server.

/** @typedef {Record<string, any>} Spec */

/** Where models come from, and the fields that name one there. */
export const SOURCES = {
  huggingface: { repo: 'huggingface_repo_id', file: 'huggingface_filename', revision: true },
  model_scope: { repo: 'model_scope_model_id', file: 'model_scope_file_path', revision: true },
  ollama_library: { repo: 'ollama_library_model_name' },
  local_path: { repo: 'local_path' },
};

export const CATEGORIES = ['llm', 'embedding', 'image', 'reranker', 'speech_to_text', 'text_to_speech', 'unknown'];
export const LIMITS = ['requests_per_minute', 'tokens_per_minute', 'concurrent_requests', 'tokens_per_day', 'tokens_per_month'];

/** Of fields that cannot be null: what they are where nobody says. */
const DEFAULTS = {
  replicas: 1,
  placement_strategy: 'spread',
  priority: 0,
  preempts: false,
  preemptible: true,
  restart_on_error: true,
  access_policy: 'authed',
};
const SOURCE_FIELDS = ['source', ...Object.values(SOURCES).flatMap((one) => [one.repo, one.file ?? '']), 'revision'].filter(Boolean);
/** What is asked for, of all that a model's document says. */
const ASKED = [
  'name', 'description', ...SOURCE_FIELDS, 'replicas', 'categories', 'placement_strategy', 'priority', 'preempts', 'preemptible', 'cpu_offloading',
  'distributed_inference_across_workers', 'worker_selector', 'gpu_selector', 'backend', 'backend_version', 'backend_parameters', 'command', 'health_path',
  'env', 'restart_on_error', 'lora_adapters', 'labels', 'tolerations', 'anti_affinity', 'limits', 'access_policy', 'allowed_users',
];
const MASK = '••••••';

/** @param {any} value */
export const isEmpty = (value) =>
  value === undefined || value === null || value === '' || (Array.isArray(value) ? !value.length : typeof value === 'object' && !Object.keys(value).length);

/** Without what says nothing: the server has a default for it. @param {Spec} spec @returns {Spec} */
export const cleaned = (spec) => Object.fromEntries(Object.entries(spec).filter(([, value]) => !isEmpty(value)));

/** What the form begins with, of a model as the server shows it. @param {any} model @returns {Spec} */
export const specOf = (model) => cleaned(Object.fromEntries(ASKED.map((name) => [name, withoutNulls(model[name])])));

/** @param {any} value */
function withoutNulls(value) {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).filter(([, one]) => one !== null && one !== undefined).map(([key, one]) => [key, withoutNulls(one)]));
}

/** The same as a manifest, in which accounts have names. @param {Spec} spec @param {Map<number, string>} users */
export function manifestOf(spec, users) {
  const { allowed_users: ids, ...rest } = cleaned(spec);
  const names = (ids ?? []).map((/** @type {number} */ id) => users.get(id) ?? String(id));
  return { ...rest, kind: 'Model', ...(names.length ? { allowed_users: names } : {}) };
}

/** @param {any} a @param {any} b */
const same = (a, b) => JSON.stringify(sorted(a)) === JSON.stringify(sorted(b));

/** @param {any} value */
function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.keys(value).sort().map((key) => [key, sorted(value[key])]));
}

/**
 * The fields to send so that `before` becomes `after`: those that are not sent stay.
 *
 * @param {Spec} before
 * @param {Spec} after
 * @returns {Spec}
 */
export function changesBetween(before, after) {
  const [was, is] = [{ ...DEFAULTS, ...cleaned(before) }, { ...DEFAULTS, ...cleaned(after) }];
  const names = [...new Set([...Object.keys(was), ...Object.keys(is)])].filter((name) => !same(was[name], is[name]));
  return Object.fromEntries(names.map((name) => [name, is[name] ?? null]));
}

/** The same for people, with the values of the environment masked. @param {Spec} before @param {Spec} after @returns {Record<string, {from: any, to: any}>} */
export function diffOf(before, after) {
  const found = {};
  for (const [name, to] of Object.entries(changesBetween(before, after))) {
    if (name !== 'env') {
      found[name] = { from: before[name], to };
      continue;
    }
    const [was, is] = [before.env ?? {}, to ?? {}];
    for (const key of new Set([...Object.keys(was), ...Object.keys(is)])) {
      if (was[key] !== is[key]) found[`env.${key}`] = { from: key in was ? MASK : undefined, to: key in is ? MASK : undefined };
    }
  }
  return found;
}

/** Choose another source: its fields take the place of the other's. @param {Spec} spec @param {string} source */
export function withSource(spec, source) {
  const rest = Object.fromEntries(Object.entries(spec).filter(([name]) => !SOURCE_FIELDS.includes(name)));
  return { ...rest, source };
}

/** A name for what a source names, which no model has yet. @param {Spec} spec @param {Set<string>} [taken] */
export function suggestedName(spec, taken = new Set()) {
  const place = SOURCES[spec.source] ?? SOURCES.local_path;
  const repo = String(spec[place.repo] ?? '').replace(/\/+$/, '');
  const last = repo.split(/[/\\]/).pop() ?? '';
  const name = last.replace(/\.gguf$/i, '').replace(/[-_.]gguf$/i, '').replace(/[:\s]+/g, '-').toLowerCase();
  let number = 1;
  while (name && taken.has(number > 1 ? `${name}-${number}` : name)) number += 1;
  return number > 1 ? `${name}-${number}` : name;
}

// --- text of one line each, as people write it

/** @param {string} text */
const linesOf = (text) => text.split('\n').map((line) => line.trim()).filter(Boolean);

/** Values that are written as lines, and back. @type {Record<string, {write: (value: any) => string, read: (text: string) => any}>} */
export const LINES = {
  plain: { write: (value) => (value ?? []).join('\n'), read: linesOf },
  pairs: {
    write: (value) => Object.entries(value ?? {}).map(([key, one]) => `${key}=${one}`).join('\n'),
    read: (text) =>
      Object.fromEntries(
        linesOf(text).map((line) => {
          const at = line.indexOf('=');
          return at < 0 ? [line, ''] : [line.slice(0, at).trim(), line.slice(at + 1).trim()];
        }),
      ),
  },
  tolerations: { write: (value) => (value ?? []).map(tolerationText).join('\n'), read: (text) => linesOf(text).map(tolerationOf) },
};

/** `gpu=a100:NoSchedule`, `spot:NoExecute 300s`, `*`. @param {any} one */
function tolerationText(one) {
  const value = one.operator === 'Exists' ? '' : `=${one.value ?? ''}`;
  const effect = one.effect ? `:${one.effect}` : '';
  const seconds = one.toleration_seconds === undefined ? '' : ` ${one.toleration_seconds}s`;
  return `${one.key || '*'}${value}${effect}${seconds}`;
}

/** @param {string} line */
function tolerationOf(line) {
  const [, key, value, effect, seconds] = /^([^=:\s]*)(?:=([^:\s]*))?(?::(\S+))?(?:\s+(\d+)s)?$/.exec(line) ?? [null, line];
  return cleaned({
    key: key === '*' ? '' : key,
    operator: value === undefined ? 'Exists' : 'Equal',
    value,
    effect,
    toleration_seconds: seconds === undefined ? undefined : Number(seconds),
  });
}

// --- replicas kept apart: what the form can say of it

/** @param {any} term */
const isOwn = (term) => isEmpty(term.models) && isEmpty(term.match_labels) && (term.topology_key ?? HOST) === HOST;
/** @param {any} term */
const isNames = (term) => !isEmpty(term.models) && isEmpty(term.match_labels) && (term.topology_key ?? HOST) === HOST;
const HOST = 'kubernetes.io/hostname';

/**
 * `own`: how strictly its replicas are kept apart; `beside`: models that it must not be beside. `null` where it says
 * more than that.
 *
 * @param {any} value
 * @returns {{own: '' | 'preferred' | 'required', beside: string[]} | null}
 */
export function apartOf(value) {
  const required = value?.required ?? [];
  const preferred = value?.preferred ?? [];
  if (![...required].every((one) => isOwn(one) || isNames(one)) || !preferred.every(isOwn)) return null;
  const own = required.some(isOwn) ? 'required' : preferred.length ? 'preferred' : '';
  return { own, beside: required.filter(isNames).flatMap((/** @type {any} */ one) => one.models) };
}

/** @param {{own: string, beside: string[]}} apart */
export function apartFrom({ own, beside }) {
  const required = [...(own === 'required' ? [{}] : []), ...(beside.length ? [{ models: beside }] : [])];
  const preferred = own === 'preferred' ? [{}] : [];
  return required.length || preferred.length ? { required, preferred } : null;
}
