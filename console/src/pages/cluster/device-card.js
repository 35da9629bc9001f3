// What is on a device, shown beside it while somebody points at it or has it in focus. One card for the whole page.

import { useEffect, useRef, useState } from 'preact/hooks';
import { bytes, degrees, percent } from '../../format.js';
import { store } from '../../live.js';
import { Badge } from '../../parts/badge.js';
import { DeviceBar, sharesOf } from '../../parts/bar.js';
import { html } from '../../parts/html.js';
import { t } from '../../words.js';
import { holdersOf } from './capacity.js';

const GAP = 6;

/** @typedef {{worker: number, index: number, at: DOMRect}} Pointed */

export function DeviceCard() {
  const [pointed, setPointed] = useState(/** @type {Pointed | null} */ (null));
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => {
    const show = (/** @type {Event} */ event) => {
      const device = event.target instanceof Element ? event.target.closest('[data-device]') : null;
      if (!device) {
        if (!(event.target instanceof Node && box.current?.contains(event.target))) setPointed(null);
        return;
      }
      const [worker, index] = String(device.getAttribute('data-device')).split(':').map(Number);
      setPointed({ worker, index, at: device.getBoundingClientRect() });
    };
    const hide = () => setPointed(null);
    const escape = (/** @type {KeyboardEvent} */ event) => event.key === 'Escape' && hide();
    document.addEventListener('pointerover', show);
    document.addEventListener('focusin', show);
    document.addEventListener('keydown', escape);
    addEventListener('scroll', hide, { passive: true });
    return () => {
      document.removeEventListener('pointerover', show);
      document.removeEventListener('focusin', show);
      document.removeEventListener('keydown', escape);
      removeEventListener('scroll', hide);
    };
  }, []);
  if (!pointed) return null;
  const device = store.workers.value.get(pointed.worker)?.gpu_devices?.find((/** @type {any} */ one) => one.index === pointed.index);
  if (!device) return null;
  const shares = sharesOf(device);
  const holders = holdersOf(store.byWorker.value.get(pointed.worker) ?? [], pointed.worker, pointed.index);
  const below = pointed.at.bottom + 260 < innerHeight;
  const place = {
    left: `${Math.max(8, Math.min(pointed.at.left, innerWidth - 328))}px`,
    ...(below ? { top: `${pointed.at.bottom + GAP}px` } : { bottom: `${innerHeight - pointed.at.top + GAP}px` }),
  };
  return html`<div class="card-over" ref=${box} style=${place} aria-hidden="true">
    <h3>${device.index} · ${device.name}</h3>
    ${device.fault ? html`<p class="fault">${device.fault}</p>` : null}
    <${DeviceBar} device=${device} tall />
    <dl class="pairs">
      ${pair(t('device.legend-claimed'), shares.claimed)} ${pair(t('device.legend-ours'), shares.ours)}
      ${shares.others ? pair(t('device.legend-others'), shares.others) : null} ${shares.used !== null ? pair(t('device.legend-used'), shares.used) : null}
      ${pair(t('device.legend-free'), shares.free)} ${pair(t('device.total'), shares.total)}
      <dt>${t('device.load')}</dt><dd>${percent(device.utilization)} · ${degrees(device.temperature)}</dd>
    </dl>
    ${holders.length
      ? html`<ul>
          ${holders.map(({ instance, bytes: held }) => html`<li><span class="ellipsis">${instance.name}</span> <${Badge} state=${instance.deleted_at ? 'ending' : instance.state} /> <span>${bytes(held)}</span></li>`)}
        </ul>`
      : html`<p class="muted">${t('device.nothing')}</p>`}
  </div>`;
}

/** @param {string} word @param {number | null} size */
const pair = (word, size) => html`<dt>${word}</dt><dd>${bytes(size)}</dd>`;
