// What would come of a deployment, asked while it is written: where each replica would go, or why not and what would help.

import { useEffect, useRef, useState } from 'preact/hooks';
import { ApiError, post } from '../../api.js';
import { bytes, duration } from '../../format.js';
import { Badge } from '../../parts/badge.js';
import { sayFault, Sentence } from '../../parts/button.js';
import { html } from '../../parts/html.js';
import { Told } from '../../parts/told.js';
import { t } from '../../words.js';
import { Remedies } from './remedies.js';

const SETTLED = 350;
/** The id of no model: where no change is of this one. */
const NOBODY = -1;

/** @typedef {{document: number, field: string, sentence: string}} FieldFault */
/** @typedef {{plan: any, faults: FieldFault[], fault: string, busy: boolean, again: () => void}} Outlook */

/**
 * The plan of a manifest; asked for once it has been still for a moment, and only the newest answer counts.
 *
 * @param {any} manifest `null`: there is nothing to ask of yet
 * @returns {Outlook}
 */
export function usePlan(manifest) {
  const [state, setState] = useState({ plan: null, faults: [], fault: '', busy: false });
  const [turn, setTurn] = useState(0);
  const asked = manifest ? JSON.stringify(manifest) : '';
  const first = useRef(true);
  useEffect(() => {
    if (!asked) {
      setState({ plan: null, faults: [], fault: '', busy: false });
      return undefined;
    }
    const until = new AbortController();
    setState((was) => ({ ...was, busy: true }));
    const ask = () =>
      post('/v1/plans', { documents: [JSON.parse(asked)], remedies: true }, { signal: until.signal }).then(
        (plan) => setState({ plan, faults: [], fault: '', busy: false }),
        (fault) => {
          if (until.signal.aborted) return;
          if (!(fault instanceof ApiError)) throw fault;
          const faults = fault.body?.faults ?? [];
          setState({ plan: null, faults, fault: faults.length ? '' : sayFault(fault), busy: false });
        },
      );
    const timer = setTimeout(ask, first.current ? 0 : SETTLED);
    first.current = false;
    return () => {
      clearTimeout(timer);
      until.abort();
    };
  }, [asked, turn]);
  return { ...state, again: () => setTurn((was) => was + 1) };
}

/** What is wrong with a field, of faults that name it or a part of it. @param {FieldFault[]} faults */
export const faultsByField = (faults) => (/** @type {string} */ field) =>
  faults.filter((one) => one.field === field || one.field.startsWith(`${field}.`) || one.field.startsWith(`${field}[`)).map((one) => one.sentence).join(' ') || undefined;

/** The same places together. @param {any[]} placements */
function alike(placements) {
  const found = new Map();
  for (const one of placements) {
    const key = JSON.stringify([one.place, one.ram, one.vram, one.note, one.came_from]);
    const there = found.get(key);
    if (there) there.count += 1;
    else found.set(key, { ...one, count: 1 });
  }
  return [...found.values()];
}

/** @param {any} fetch */
const fetched = (fetch) => t('plan.fetches', { worker: fetch.worker, size: bytes(fetch.bytes), time: fetch.seconds === undefined ? '' : ` (${duration(fetch.seconds)})` });

/**
 * @param {object} props
 * @param {Outlook} props.outlook
 * @param {string} props.name of the deployment, as the manifest has it
 * @param {number} props.wanted replicas
 * @param {(fields: Record<string, any>) => void} props.onModel takes the change of a remedy
 * @param {string} props.blank what is said before there is anything to plan
 * @param {(field: string) => boolean} [props.hasField] fields whose faults stand at the field
 */
export function PlanPanel({ outlook, name, wanted, onModel, blank, hasField = () => true }) {
  const { plan, faults, fault, busy, again } = outlook;
  const loose = faults.filter((one) => !one.field || !hasField(one.field.split(/[.[]/)[0]));
  return html`<section class="plan-panel" aria-busy=${busy ? 'true' : 'false'} aria-labelledby="plan-title">
    <h2 id="plan-title">${t('plan.title')}${busy ? html` <small class="muted">${t('plan.looking')}</small>` : null}</h2>
    <div>
      ${fault ? html`<${Sentence} tone="bad">${fault}<//>` : null}
      ${faults.length ? html`<${Sentence} tone="bad">${t('plan.wrong', { n: faults.length })}${loose.length ? html`<ul class="loose">${loose.map((one) => html`<li>${one.field ? `${one.field}: ` : ''}${one.sentence}</li>`)}</ul>` : null}<//>` : null}
      ${!plan && !fault && !faults.length ? html`<p class="muted">${busy ? t('plan.reading') : blank}</p>` : null}
      ${plan ? html`<${Found} plan=${plan} name=${name} wanted=${wanted} onModel=${onModel} again=${again} />` : null}
    </div>
  </section>`;
}

/** @param {{plan: any, name: string, wanted: number, onModel: (fields: any) => void, again: () => void}} props */
function Found({ plan, name, wanted, onModel, again }) {
  const mine = (/** @type {any} */ one) => one.model === name;
  const placements = plan.placements.filter(mine);
  const waits = plan.waits.filter((/** @type {any} */ one) => mine(one) && !one.stopped);
  const others = plan.waits.filter((/** @type {any} */ one) => !mine(one) && one.stopped);
  const moved = plan.placements.filter((/** @type {any} */ one) => !mine(one) && one.came_from);
  const changes = waits.find((/** @type {any} */ one) => one.changes?.length)?.changes ?? [];
  const held = wanted - waits.length;
  const memory = placements.find((/** @type {any} */ one) => one.memory?.length)?.memory ?? [];
  const modelId = changes.flatMap((/** @type {any} */ one) => one.changes ?? []).find((/** @type {any} */ one) => one.of === 'model' && one.name === name)?.id ?? NOBODY;
  return html`<p class="outlook" role="status"><${Badge} state=${waits.length ? (held > 0 ? 'partly_ready' : 'waiting') : wanted ? 'ready' : 'stopped'} /> ${wanted ? t('plan.places', { n: Math.max(0, held), of: wanted }) : t('plan.none-wanted')}</p>
    ${placements.length
      ? html`<ul class="places">
          ${alike(placements).map(
            (one) =>
              html`<li><b>${one.count > 1 ? `${one.count} × ` : ''}${one.place}</b>
                ${(one.fetches ?? []).map((/** @type {any} */ fetch) => html`<span>${fetched(fetch)}</span>`)}
                ${one.came_from ? html`<span>${t('plan.from', { place: one.came_from })}</span>` : null} ${one.note ? html`<span>${one.note}</span>` : null}</li>`,
          )}
        </ul>`
      : null}
    ${memory.length ? html`<details class="memory"><summary>${t('plan.memory')}</summary><ul>${memory.map((/** @type {string} */ one) => html`<li>${one}</li>`)}</ul></details>` : null}
    ${waits.length ? html`<${Sentence} tone="warn" detail=${waits.length > 1 ? t('plan.alike', { n: waits.length }) : null}><${Told} of="trouble-waiting">${waits[0].why}<//><//>` : null}
    <${Remedies} changes=${changes} modelId=${modelId} onModel=${onModel} after=${again} />
    ${plan.ends.length
      ? html`<${Sentence} tone="warn">${t('plan.ends')}<ul class="loose">${plan.ends.map((/** @type {any} */ one) => html`<li><b>${one.instance}</b> ${one.place ?? ''}: ${one.why}</li>`)}</ul><//>`
      : null}
    ${others.length ? html`<${Sentence} tone="bad">${t('plan.stops')}<ul class="loose">${others.map((/** @type {any} */ one) => html`<li><b>${one.instance ?? one.model}</b>: ${one.why}</li>`)}</ul><//>` : null}
    ${moved.length ? html`<p class="muted">${t('plan.moves', { names: moved.map((/** @type {any} */ one) => one.instance ?? one.model).join(', ') })}</p>` : null}
    ${plan.remarks.map((/** @type {string} */ one) => html`<p class="muted">${one}</p>`)}`;
}
