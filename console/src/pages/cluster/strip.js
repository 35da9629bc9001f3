// The devices of a worker in a line, each a bar with its load under it. Thousands of them come and go while somebody
// scrolls: they are copied from a template and written directly, a fraction of the work of making them one by one.

import { useLayoutEffect, useRef } from 'preact/hooks';
import { UNKNOWN } from '../../format.js';
import { barClass, sentenceOf, stopsOf } from '../../parts/bar.js';
import { html } from '../../parts/html.js';
import { language, t } from '../../words.js';

const link = document.createElement('a');
link.className = 'device';
link.tabIndex = -1;
link.append('-');

/** What each element shows. @type {WeakMap<Element, {device: any, worker: number, language: string}>} */
const shown = new WeakMap();

/** Its load and temperature, in a few characters. @param {any} device */
const figures = ({ utilization, temperature }) =>
  `${utilization === undefined ? UNKNOWN : `${Math.round(utilization)}%`} ${temperature === undefined ? '' : `${Math.round(temperature)}°`}`;

/** The parts of a bar lie over each other, the shortest on top. @param {any} device */
function sizesOf(device) {
  const stops = stopsOf(device);
  return stops ? `${stops['--ours']} 10px, ${stops['--claimed']} 10px, ${stops['--others']} 10px, 100% 10px` : '';
}

/** @param {HTMLAnchorElement} element @param {any} device @param {number} worker its id @param {boolean} first */
function write(element, device, worker, first) {
  const was = shown.get(element);
  if (was?.device === device && was.worker === worker && was.language === language.value) return;
  shown.set(element, { device, worker, language: language.value });
  if (was?.worker !== worker || was.device.index !== device.index) {
    element.setAttribute('href', `/cluster/${worker}`);
    element.setAttribute('data-device', `${worker}:${device.index}`);
    if (first) element.tabIndex = 0;
  }
  const classes = barClass(device, 'device');
  if (element.className !== classes) element.className = classes;
  element.style.backgroundSize = sizesOf(device);
  element.setAttribute('aria-label', sentenceOf(device));
  /** @type {Text} */ (element.firstChild).data = `${device.index} · ${device.fault ? t('cluster.faulty') : figures(device)}`;
}

/** Left and right between the devices of a worker; the others are not stops of the tab key. @param {KeyboardEvent} event */
function walk(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const all = /** @type {HTMLElement[]} */ ([...(/** @type {HTMLElement} */ (event.currentTarget)).children]);
  const next = all[all.indexOf(/** @type {HTMLElement} */ (event.target)) + step];
  if (!next) return;
  event.preventDefault();
  for (const one of all) one.tabIndex = one === next ? 0 : -1;
  next.focus();
}

/** @param {{worker: any}} props of a worker that has devices */
export function Strip({ worker }) {
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  useLayoutEffect(() => {
    const element = /** @type {HTMLElement} */ (box.current);
    const devices = worker.gpu_devices;
    while (element.childElementCount > devices.length) element.lastElementChild?.remove();
    const there = /** @type {HTMLAnchorElement[]} */ ([...element.children]);
    // What is written before it is in the page costs the browser less.
    const made = document.createDocumentFragment();
    devices.forEach((/** @type {any} */ device, /** @type {number} */ at) => {
      const one = there[at] ?? /** @type {HTMLAnchorElement} */ (link.cloneNode(true));
      write(one, device, worker.id, at === 0);
      if (!there[at]) made.append(one);
    });
    if (made.firstChild) element.append(made);
  }, [worker, language.value]);
  return html`<div class="devices" ref=${box} role="group" aria-label=${t('cluster.devices-of', { name: worker.name })} onKeyDown=${walk}></div>`;
}
