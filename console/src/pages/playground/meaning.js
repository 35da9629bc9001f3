// Texts as vectors and how near they are, and documents in the order in which they answer a question.

import { useState } from 'preact/hooks';
import { post } from '../../api.js';
import { number } from '../../format.js';
import { CopyButton } from '../../parts/copy.js';
import { Field } from '../../parts/field.js';
import { html } from '../../parts/html.js';
import { t } from '../../words.js';
import { Asking, useAsked, useModel } from './asked.js';

const MOST_TEXTS = 50;
const SHOWN = 6;

/** @param {string} text a line each */
const linesOf = (text) => text.split('\n').map((line) => line.trim()).filter(Boolean).slice(0, MOST_TEXTS);

/** Of 1: the same direction. @param {number[]} a @param {number[]} b */
export function nearness(a, b) {
  let [both, left, right] = [0, 0, 0];
  for (let index = 0; index < a.length; index += 1) {
    both += a[index] * b[index];
    left += a[index] ** 2;
    right += b[index] ** 2;
  }
  return left && right ? both / Math.sqrt(left * right) : null;
}

/** @param {{models: string[], wanted: string | null}} props */
export function Embeddings({ models, wanted }) {
  const [model, setModel] = useModel(models, wanted);
  const [text, setText] = useState(t('playground.texts-sample'));
  const texts = linesOf(text);
  const body = { model, input: texts };
  const asked = useAsked(async (signal) => ({ texts, vectors: (await post('/v1/embeddings', { ...body, encoding_format: 'float' }, { signal })).data.map((/** @type {any} */ one) => one.embedding) }));
  return html`<${Asking} models=${models} model=${model} onModel=${setModel} kind="embeddings" body=${body} asked=${asked} submit=${t('playground.embed')} can=${texts.length > 0} result=${asked.value ? html`<${Vectors} ...${asked.value} />` : null}>
    <${Field} label=${t('playground.texts')} name="texts" rows=${8} hint=${t('playground.a-line-each', { n: MOST_TEXTS })} value=${text} onInput=${(/** @type {any} */ event) => setText(event.currentTarget.value)} />
  <//>`;
}

/** @param {{texts: string[], vectors: number[][]}} props */
const Vectors = ({ texts, vectors }) =>
  html`<div class="section-head"><h2>${t('playground.dimensions', { n: number(vectors[0]?.length) })}</h2><${CopyButton} text=${JSON.stringify(vectors)} label=${t('playground.copy-vectors')} /></div>
    <div class="scroll"><table class="grid">
      <caption class="unseen">${t('playground.nearness')}</caption>
      <thead><tr><th scope="col">${t('playground.text')}</th>${texts.map((_, index) => html`<th scope="col" class="num" title=${texts[index]}>${index + 1}</th>`)}<th scope="col">${t('playground.begins')}</th></tr></thead>
      <tbody>${vectors.map(
        (vector, row) => html`<tr><th scope="row"><span class="muted">${row + 1}</span> ${texts[row]}</th>
          ${vectors.map((other) => {
            const near = nearness(vector, other);
            return html`<td class="num near" style=${{ '--near': `${Math.max(0, near ?? 0) * 100}%` }}>${near === null ? '–' : near.toFixed(2)}</td>`;
          })}
          <td><code>${vector.slice(0, SHOWN).map((value) => value.toFixed(3)).join(' ')} …</code></td></tr>`,
      )}</tbody>
    </table></div>
    <p class="muted">${t('playground.nearness')}</p>`;

/** @param {{models: string[], wanted: string | null}} props */
export function Ranking({ models, wanted }) {
  const [model, setModel] = useModel(models, wanted);
  const [query, setQueryText] = useState(t('playground.query-sample'));
  const [text, setText] = useState(t('playground.documents-sample'));
  const documents = linesOf(text);
  const body = { model, query, documents };
  const asked = useAsked(async (signal) => ({ documents, results: (await post('/v1/rerank', body, { signal })).results }));
  const shown = asked.value ? [...asked.value.results].sort((a, b) => b.relevance_score - a.relevance_score) : [];
  const [least, most] = [Math.min(0, ...shown.map((one) => one.relevance_score)), Math.max(...shown.map((one) => one.relevance_score), 1e-9)];
  return html`<${Asking} models=${models} model=${model} onModel=${setModel} kind="rerank" body=${body} asked=${asked} submit=${t('playground.rank')} can=${documents.length > 0 && query.trim() !== ''} result=${html`<ol class="ranked">
      ${shown.map(
        (one) => html`<li key=${one.index}><span class="num">${one.relevance_score.toFixed(4)}</span><span><i style=${{ width: `${((one.relevance_score - least) / (most - least || 1)) * 100}%` }} aria-hidden="true"></i>${asked.value?.documents[one.index]}</span></li>`,
      )}
    </ol>`}>
    <${Field} label=${t('playground.query')} name="query" value=${query} onInput=${(/** @type {any} */ event) => setQueryText(event.currentTarget.value)} />
    <${Field} label=${t('playground.documents')} name="documents" rows=${8} hint=${t('playground.a-line-each', { n: MOST_TEXTS })} value=${text} onInput=${(/** @type {any} */ event) => setText(event.currentTarget.value)} />
  <//>`;
}
