// The exact command line of an engine and its environment; secrets are masked by the worker.

import { useState } from 'preact/hooks';
import { Code } from '../../parts/copy.js';
import { html } from '../../parts/html.js';
import { useFetched, Waiting } from '../../parts/page.js';
import { Ago } from '../../parts/time.js';
import { t } from '../../words.js';
import { shellQuoted } from '../playground/code.js';

/** Words that a shell takes as they are. */
const PLAIN = /^[\w@%+=:,./-]+$/;

/**
 * As it would be typed, an option a line.
 *
 * @param {string[]} argv
 */
export function typed(argv) {
  const words = argv.map((word) => (PLAIN.test(word) ? word : shellQuoted(word)));
  let text = '';
  words.forEach((word, index) => {
    const option = argv[index].startsWith('-');
    const value = index > 0 && argv[index - 1].startsWith('-') && !option;
    text += index === 0 ? word : option || !value ? ` \\\n  ${word}` : ` ${word}`;
  });
  return text;
}

/**
 * @param {object} props
 * @param {number} props.id of the instance
 * @param {boolean} props.placed whether a worker may have started it
 * @param {any[]} props.deps fetched again when one of them changes
 * @param {Array<[string, string]>} props.members numbers and names, the main one first
 */
export function Command({ id, placed, deps, members }) {
  const [member, setMember] = useState('0');
  if (!placed) return html`<p class="muted">${t('instance.no-launch')}</p>`;
  return html`${members.length > 1
      ? html`<div class="tools"><select class="short" aria-label=${t('instance.member')} value=${member} onChange=${(/** @type {any} */ event) => setMember(event.currentTarget.value)}>
          ${members.map(([value, name]) => html`<option value=${value}>${name}</option>`)}
        </select></div>`
      : null}
    <${Launched} key=${member} id=${id} member=${member} deps=${deps} />`;
}

/** @param {{id: number, member: string, deps: any[]}} props */
function Launched({ id, member, deps }) {
  const { value, fault } = useFetched(`/v1/model-instances/${id}/launch`, { member }, deps);
  const launch = /** @type {any} */ (value);
  if (fault) return html`<p class="muted">${fault}</p>`;
  if (!launch) return html`<${Waiting} />`;
  const env = Object.entries(launch.env ?? {}).sort(([a], [b]) => (a < b ? -1 : 1));
  const files = launch.files ?? [];
  return html`<p class="muted">${t('instance.started')} <${Ago} at=${launch.started_at} />. ${t('instance.masked')}</p>
    <div class="launch">
      <h2>${t('instance.command-line')}</h2>
      <${Code} text=${typed(launch.argv ?? [])} label=${t('instance.command-line')} />
      <h2>${t('instance.environment')}</h2>
      ${env.length
        ? html`<dl class="facts env">${env.map(([name, value]) => html`<dt><code>${name}</code></dt><dd><code>${String(value) || "''"}</code></dd>`)}</dl>`
        : html`<p class="muted">${t('instance.no-environment')}</p>`}
      ${files.length ? html`<h2>${t('instance.written')}</h2><ul>${files.map((/** @type {string} */ one) => html`<li><code class="path">${one}</code></li>`)}</ul>` : null}
    </div>`;
}
