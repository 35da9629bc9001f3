// Why an instance is where it is, or why it waits, and the smallest changes that would let it run, as buttons.

import { dateTime } from '../../format.js';
import { Sentence } from '../../parts/button.js';
import { html } from '../../parts/html.js';
import { Fault, Waiting } from '../../parts/page.js';
import { Told } from '../../parts/told.js';
import { known, t } from '../../words.js';
import { begun, Remedies } from '../models/remedies.js';

/**
 * The sentence to show of one that does not run.
 *
 * @param {any} explanation
 * @param {any} instance
 */
function sentenceFor(explanation, instance) {
  const waits = explanation?.waits_for;
  // That it waits for a place is what the reasons say in full.
  const next = waits && waits.what !== 'place' ? waits : null;
  if (instance.deleted_at) return { said: next?.sentence ?? t('instance.ends'), tone: 'quiet', next: null };
  if (instance.state === 'error' || instance.state === 'unreachable') return { said: instance.state_message || explanation?.sentence, tone: 'bad', next };
  if (instance.state !== 'pending') return { said: next?.sentence ?? instance.state_message, tone: 'quiet', next: null };
  const smallest = explanation?.smallest_change;
  // The smallest change stands below, as a button.
  const said = smallest ? explanation.sentence.replace(` To make it fit: ${smallest}`, '') : explanation?.sentence;
  return { said: said || instance.state_message || next?.sentence, tone: 'warn', next };
}

/** @param {{explanation: any, instance: any}} props what is the matter, with what would help */
export function Matter({ explanation, instance }) {
  if (instance.state === 'running' && !instance.deleted_at) return null;
  const { said, tone, next } = sentenceFor(explanation, instance);
  if (!said) return null;
  const changes = explanation?.changes ?? [];
  const details = [
    next ? `${begun(next.sentence)}${next.until ? ` (${dateTime(next.until)})` : ''}` : '',
    instance.next_retry_at && !next?.until ? t('instance.retry', { at: dateTime(instance.next_retry_at) }) : '',
    explanation?.final && instance.state === 'pending' ? t('instance.final') : '',
  ].filter(Boolean);
  return html`<${Sentence} tone=${tone} detail=${details.length ? details.map((one) => html`<p>${one}</p>`) : null}><${Told} of=${tone === 'warn' ? 'trouble-waiting' : tone === 'bad' ? 'trouble-failing' : ''}>${said}<//><//>
    ${changes.length ? html`<div class="helps"><${Remedies} changes=${changes} /></div>` : null}`;
}

/** @param {{explanation: any, fault: string, again: () => void}} props every worker, and the places that there are */
export function Placement({ explanation, fault, again }) {
  if (fault) return html`<${Fault} text=${fault} again=${again} />`;
  if (!explanation) return html`<${Waiting} />`;
  const places = explanation.places ?? [];
  return html`<${Sentence} tone=${explanation.fits ? 'good' : 'warn'} detail=${explanation.note || null}>${begun(explanation.sentence)}<//>
    ${places.length
      ? html`<section><h2>${t('instance.places')}</h2><ol class="rows">
          ${places.map(
            (/** @type {any} */ place, /** @type {number} */ index) => html`<li key=${index}>
              <span><b>${place.where}</b>${place.others ? html` <span class="muted">${t('instance.as-good', { n: place.others })}</span>` : null}${place.why ? html`<br /><span class="muted">${place.why}</span>` : null}</span>
              <${Scores} scores=${place.scores} total=${place.score} />
            </li>`,
          )}
        </ol></section>`
      : null}
    <section><h2>${t('instance.workers')}</h2><ul class="rows verdicts">
      ${(explanation.workers ?? []).map(
        (/** @type {any} */ verdict) => html`<li key=${verdict.worker_id}>
          <span class="who"><a href=${`/cluster/${verdict.worker_id}`}>${verdict.worker}</a>${verdict.others?.length ? html` <span class="muted" title=${verdict.others.join(', ')}>${t('instance.and-alike', { n: verdict.others.length })}</span>` : null}</span>
          <span class=${`badge ${verdict.fits ? 'good' : verdict.fits === false ? 'bad' : 'quiet'}`}><i aria-hidden="true"></i>${verdict.fits ? t('instance.fits') : verdict.fits === false ? t('instance.fits-not') : t('instance.fits-unknown')}</span>
          <ul class="sentences">${(verdict.sentences ?? []).map((/** @type {string} */ one) => html`<li>${one}</li>`)}
            ${(verdict.devices ?? []).map((/** @type {any} */ device) => (device.sentence ? html`<li class="muted">GPU ${device.index}: ${device.sentence}${device.held_by?.length ? ` (${device.held_by.join(', ')})` : ''}</li>` : null))}</ul>
        </li>`,
      )}
    </ul></section>
    ${(explanation.unknown ?? []).length ? html`<p class="muted prose">${t('instance.unknown', { what: explanation.unknown.join('; ') })}</p>` : null}`;
}

/** @param {{scores: any[], total: number}} props */
const Scores = ({ scores, total }) => {
  const told = (scores ?? []).filter((one) => one.value);
  if (!told.length) return null;
  return html`<details class="scores"><summary>${t('instance.score', { n: Math.round(total * 10) / 10 })}</summary>
    <dl class="pairs">${told.map((one) => html`<dt>${known(`instance.score-${one.name}`) ?? one.name}</dt><dd>${Math.round(one.value * 10) / 10} × ${one.weight}</dd>`)}</dl></details>`;
};

