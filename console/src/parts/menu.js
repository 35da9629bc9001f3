// A button that opens a list of things to do.

import { useEffect, useRef, useState } from 'preact/hooks';
import { sayFault } from './button.js';
import { html } from './html.js';
import { Icon } from './icon.js';
import { toast } from './toast.js';

/**
 * @param {object} props
 * @param {string} props.label
 * @param {Array<{text: string, act: () => any, danger?: boolean}> | (() => Array<{text: string, act: () => any, danger?: boolean}>)} props.items a function is asked when the menu opens
 * @param {string} [props.icon]
 * @param {any} [props.children] shown on the button in place of the icon alone
 */
export function Menu({ label, items, icon = 'more', children }) {
  const [open, setOpen] = useState(false);
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const keys = (/** @type {KeyboardEvent} */ event) => {
    if (!open) return;
    const entries = /** @type {HTMLElement[]} */ ([...(box.current?.querySelectorAll('[role="menuitem"]') ?? [])]);
    const at = entries.indexOf(/** @type {HTMLElement} */ (document.activeElement));
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      entries[(at + step + entries.length) % entries.length]?.focus();
    } else if (event.key === 'Escape' || event.key === 'Tab') {
      if (event.key === 'Escape') event.preventDefault();
      setOpen(false);
      box.current?.querySelector('button')?.focus();
    }
  };
  const act = async (/** @type {() => any} */ chosen) => {
    setOpen(false);
    box.current?.querySelector('button')?.focus();
    try {
      await chosen();
    } catch (fault) {
      toast(sayFault(fault), 'bad');
    }
  };
  return html`<div class="menu" ref=${box} onKeyDown=${keys}>
    <button type="button" class=${`button quiet${children ? '' : ' only-icon'}`} aria-haspopup="menu" aria-expanded=${open ? 'true' : 'false'} aria-label=${label} title=${children ? undefined : label} onClick=${() => setOpen(!open)}>
      ${children ?? html`<${Icon} name=${icon} />`}
    </button>
    ${open ? html`<${Open} label=${label} items=${typeof items === 'function' ? items() : items} box=${box} act=${act} shut=${() => setOpen(false)} />` : null}
  </div>`;
}

/** The list itself, of which there is none until somebody opens it. @param {{label: string, items: any[], box: any, act: (act: () => any) => void, shut: () => void}} props */
function Open({ label, items, box, act, shut }) {
  useEffect(() => {
    const away = (/** @type {Event} */ event) => {
      if (!box.current?.contains(/** @type {Node} */ (event.target))) shut();
    };
    document.addEventListener('pointerdown', away);
    /** @type {HTMLElement | null | undefined} */ (box.current?.querySelector('[role="menuitem"]'))?.focus();
    return () => document.removeEventListener('pointerdown', away);
  }, []);
  return html`<div role="menu" aria-label=${label}>
    ${items.map((item) => html`<button type="button" role="menuitem" tabindex="-1" class=${item.danger ? 'danger' : ''} onClick=${() => act(item.act)}>${item.text}</button>`)}
  </div>`;
}
