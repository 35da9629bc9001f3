// What happened to an instance, with dates; the newest first.

import { useState } from 'preact/hooks';
import { dateTime, duration } from '../../format.js';
import { html } from '../../parts/html.js';
import { Fault, Waiting } from '../../parts/page.js';
import { Ago } from '../../parts/time.js';
import { Told } from '../../parts/told.js';
import { t } from '../../words.js';

const TONES = { error: 'bad', warning: 'warn' };
const AT_FIRST = 30;

/** Events with the beginning, where that is longer ago than events are kept. @param {any[] | undefined} events @param {any} instance */
export function withBeginning(events, instance) {
  if (!events || !instance || events.some((one) => one.kind === 'instance.created')) return events;
  return [...events, { id: 'made', at: instance.created_at, severity: 'info', text: t('instance.made') }];
}

/** @param {{events: any[] | undefined, fault: string, again: () => void}} props the newest first */
export function Timeline({ events, fault, again }) {
  const [all, setAll] = useState(false);
  if (fault) return html`<${Fault} text=${fault} again=${again} />`;
  if (!events) return html`<${Waiting} />`;
  if (!events.length) return html`<p class="muted">${t('instance.no-events')}</p>`;
  const shown = all ? events : events.slice(0, AT_FIRST);
  return html`<ol class="timeline">
      ${shown.map((event, index) => {
        const later = events[index - 1];
        const lasted = later ? (Date.parse(later.at) - Date.parse(event.at)) / 1000 : null;
        return html`<li key=${event.id} class=${TONES[event.severity] ?? ''}>
          <i aria-hidden="true"></i>
          <div><p>${TONES[event.severity] ? html`<b class="severity">${t(`state.${event.severity}`)}</b> ` : null}<${Told} of=${event.kind ?? ''}>${event.text}<//>${event.actor ? html` <span class="muted">${t('instance.by', { name: event.actor })}</span>` : null}</p>
            <p class="muted"><time datetime=${event.at}>${dateTime(event.at)}</time> · <${Ago} at=${event.at} />${lasted !== null && lasted >= 1 ? html` · ${t('instance.next-after', { time: duration(lasted) })}` : null}</p></div>
        </li>`;
      })}
    </ol>
    ${events.length > shown.length ? html`<button type="button" class="button" onClick=${() => setAll(true)}>${t('common.show-all')} (${events.length})</button>` : null}`;
}
