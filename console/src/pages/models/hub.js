// Finding models on Hugging Face and ModelScope, through the server: browsers are not let out to other places.

import { useEffect, useState } from 'preact/hooks';
import { ApiError, post, send, withQuery } from '../../api.js';
import { bytes, short } from '../../format.js';
import { Button, sayFault, Sentence } from '../../parts/button.js';
import { html } from '../../parts/html.js';
import { Waiting } from '../../parts/page.js';
import { t } from '../../words.js';
import { typed } from './fields.js';
import { SOURCES } from './spec.js';

const MOST = 30;
const SETTLED = 350;
const MOST_LOOKED_AT = 24;
const PART = /-\d{5}-of-(\d{5})(?=\.gguf$)/i;
const BITS = /(?:^|[-_.])((?:UD-)?(?:I?Q\d\w*|BF16|F16|F32|FP16|MXFP4\w*))(?=[-_.]|$)/i;

/** @typedef {{repo: string, downloads?: number, likes?: number, more: string[]}} Found */
/** @typedef {{pattern: string, bits: string, size: number | undefined}} Choice */

/** @param {string} url @param {AbortSignal} until @param {string} [method] @param {any} [body] */
const ask = async (url, until, method = 'GET', body) => (await send(method, withQuery('/proxy', { url }), { signal: until, body })).json();

/** @type {Record<string, {search: (text: string, gguf: boolean, until: AbortSignal) => Promise<Found[]>, files: (repo: string, until: AbortSignal) => Promise<Array<{path: string, size?: number}>>, page: (repo: string) => string}>} */
const HUBS = {
  huggingface: {
    search: async (text, gguf, until) => {
      const query = { search: text, limit: MOST, sort: 'downloads', direction: -1, filter: gguf ? 'gguf' : '' };
      const found = await ask(withQuery('https://huggingface.co/api/models', query), until);
      return found.map((/** @type {any} */ one) => ({
        repo: String(one.id ?? one.modelId),
        downloads: one.downloads,
        likes: one.likes,
        more: [one.pipeline_tag, one.gated ? t('deploy.gated') : ''].filter(Boolean),
      }));
    },
    files: async (repo, until) => {
      const found = await ask(`https://huggingface.co/api/models/${repo}/tree/main?recursive=true`, until);
      return found.filter((/** @type {any} */ one) => one.type === 'file');
    },
    page: (repo) => `https://huggingface.co/${repo}`,
  },
  model_scope: {
    search: async (text, gguf, until) => {
      const body = { Name: gguf ? `${text} gguf`.trim() : text, PageNumber: 1, PageSize: MOST, SortBy: 'Default', Target: '', SingleCriterion: [] };
      const found = await ask('https://www.modelscope.cn/api/v1/dolphin/models', until, 'PUT', body);
      return (found.Data?.Model?.Models ?? []).map((/** @type {any} */ one) => ({ repo: `${one.Path}/${one.Name}`, downloads: one.Downloads, likes: one.Stars, more: [] }));
    },
    files: async (repo, until) => {
      const found = await ask(`https://www.modelscope.cn/api/v1/models/${repo}/repo/files?Revision=master&Recursive=True`, until);
      return (found.Data?.Files ?? []).filter((/** @type {any} */ one) => one.Type !== 'tree').map((/** @type {any} */ one) => ({ path: one.Path, size: one.Size }));
    },
    page: (repo) => `https://www.modelscope.cn/models/${repo}`,
  },
};

/** The GGUF models among files: the parts of one together, without projectors. @param {Array<{path: string, size?: number}>} files @returns {Choice[]} */
function choicesOf(files) {
  const found = new Map();
  for (const { path, size } of files) {
    if (!/\.gguf$/i.test(path) || /(^|\/)mmproj/i.test(path)) continue;
    const pattern = path.replace(PART, '-*-of-$1');
    const there = found.get(pattern) ?? { pattern, bits: BITS.exec(path.replace(PART, '').replace(/\.gguf$/i, ''))?.[1] ?? '', size: 0 };
    there.size = there.size === undefined || size === undefined ? undefined : there.size + size;
    found.set(pattern, there);
  }
  return [...found.values()].sort((a, b) => (a.size ?? 0) - (b.size ?? 0));
}

/** The one that is usual: four bits, else the smallest. @param {Choice[]} choices */
const usual = (choices) => choices.find((one) => /Q4_K_M/i.test(one.bits)) ?? choices.find((one) => /Q4/i.test(one.bits)) ?? choices[0];

/**
 * What `look` answers, asked anew when `deps` change and they have been still for a moment.
 *
 * @template T
 * @param {((until: AbortSignal) => Promise<T>) | null} look
 * @param {any[]} deps
 * @param {number} [wait] milliseconds
 * @returns {{value: T | undefined, fault: string, busy: boolean}}
 */
function useLook(look, deps, wait = 0) {
  const [state, setState] = useState(/** @type {any} */ ({ value: undefined, fault: '', busy: look !== null }));
  useEffect(() => {
    if (!look) return undefined;
    const until = new AbortController();
    setState((/** @type {any} */ was) => ({ ...was, busy: true }));
    const timer = setTimeout(() => {
      look(until.signal).then(
        (value) => setState({ value, fault: '', busy: false }),
        (fault) => {
          if (until.signal.aborted) return;
          const said = fault instanceof ApiError ? sayFault(fault) : t('deploy.hub-odd');
          setState({ value: undefined, fault: said, busy: false });
        },
      );
    }, wait);
    return () => {
      clearTimeout(timer);
      until.abort();
    };
  }, deps);
  return state;
}

/**
 * @param {object} props
 * @param {'huggingface' | 'model_scope'} props.source
 * @param {import('./spec.js').Spec} props.spec
 * @param {(fields: Record<string, any>) => void} props.set
 */
export function HubSearch({ source, spec, set }) {
  const [text, setText] = useState('');
  const [gguf, setGguf] = useState(true);
  const hub = HUBS[source];
  const place = SOURCES[source];
  const repo = spec[place.repo] ?? '';
  const { value, fault, busy } = useLook((until) => hub.search(text, gguf, until), [source, text, gguf], text ? SETTLED : 0);
  return html`<div class="hub">
    <div class="tools">
      <input type="search" class="search" data-search aria-label=${t('deploy.search-hub', { hub: t(`deploy.from-${source}`) })} placeholder=${t('deploy.search-hub', { hub: t(`deploy.from-${source}`) })} value=${text} onInput=${(/** @type {any} */ e) => setText(typed(e))} />
      <label class="inline"><input type="checkbox" checked=${gguf} onChange=${(/** @type {any} */ e) => setGguf(e.currentTarget.checked)} /> ${t('deploy.only-gguf')}</label>
    </div>
    ${fault ? html`<${Sentence} tone="warn" detail=${t('deploy.hub-by-hand')}>${fault}<//>` : null}
    ${!value && busy ? html`<${Waiting} />` : null}
    ${value
      ? html`<ul class="found" aria-label=${t('deploy.found')} aria-busy=${busy ? 'true' : 'false'}>
          ${value.map(
            (one) =>
              html`<li key=${one.repo}>
                <button type="button" aria-pressed=${one.repo === repo ? 'true' : 'false'} onClick=${() => set({ [place.repo]: one.repo, [place.file ?? '']: null, name: null })}>
                  <span class="ellipsis">${one.repo}</span><small>${[one.downloads === undefined ? '' : t('deploy.downloads', { n: short(one.downloads) }), ...one.more].filter(Boolean).join(' · ')}</small>
                </button>
              </li>`,
          )}
          ${value.length ? null : html`<li class="muted">${t('deploy.nothing-found')}</li>`}
        </ul>`
      : null}
    ${repo && value?.some((one) => one.repo === repo) ? html`<${Files} key=${repo} source=${source} repo=${repo} spec=${spec} set=${set} />` : null}
  </div>`;
}

/** Which file of a repository; which of them fit here is asked on demand, for it reads the header of each. @param {{source: string, repo: string, spec: any, set: (fields: any) => void}} props */
function Files({ source, repo, spec, set }) {
  const [fits, setFits] = useState(/** @type {Record<string, any>} */ ({}));
  const hub = HUBS[source];
  const field = /** @type {string} */ (SOURCES[source].file);
  const { value, fault, busy } = useLook((until) => hub.files(repo, until), [source, repo]);
  const choices = value ? choicesOf(value) : [];
  useEffect(() => {
    if (choices.length && !spec[field]) set({ [field]: usual(choices).pattern });
  }, [value]);
  const look = async () => {
    const looked = choices.slice(0, MOST_LOOKED_AT);
    const specs = looked.map((one) => ({ source, [SOURCES[source].repo]: repo, [field]: one.pattern }));
    const { results } = await post('/v1/model-evaluations', { model_specs: specs });
    setFits(Object.fromEntries(looked.map((one, at) => [one.pattern, results[at]])));
  };
  if (fault) return html`<${Sentence} tone="warn">${fault}<//>`;
  if (busy || !value) return html`<${Waiting} lines=${2} />`;
  if (!choices.length) return html`<p class="muted">${t('deploy.no-gguf', { n: value.length })} <a href=${hub.page(repo)} target="_blank" rel="noreferrer">${repo}</a></p>`;
  return html`<fieldset class="several"><legend>${t('deploy.which-file')}</legend>
    <div class="choices one">
      ${choices.map(
        (one, at) =>
          html`<label key=${one.pattern}
            ><input type="radio" name="hub-file" value=${at} checked=${spec[field] === one.pattern} onChange=${() => set({ [field]: one.pattern })} /><span
              ><b>${one.bits || one.pattern}</b> <small>${[bytes(one.size), one.bits ? one.pattern : '', said(fits[one.pattern])].filter(Boolean).join(' · ')}</small></span
            ></label
          >`,
      )}
    </div>
    <div class="actions"><${Button} onClick=${look}>${t('deploy.which-fit')}<//> <a href=${hub.page(repo)} target="_blank" rel="noreferrer">${t('deploy.on-hub')}</a></div>
  </fieldset>`;
}

/** @param {any} found an evaluation */
function said(found) {
  if (!found) return '';
  if (found.error_message) return found.error_message;
  if (!found.compatible) return t('deploy.fits-not');
  const { ram, vram } = found.resource_claim ?? {};
  return t('deploy.fits', { size: bytes(vram || ram) });
}
