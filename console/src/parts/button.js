// A button that shows that it is busy and says what went wrong, and a sentence with its buttons.

import { useState } from 'preact/hooks';
import { ApiError } from '../api.js';
import { t } from '../words.js';
import { html } from './html.js';
import { Icon } from './icon.js';
import { toast } from './toast.js';

/** What to show of a fault: the server's own sentence. @param {unknown} fault */
export function sayFault(fault) {
  if (fault instanceof ApiError) return fault.status === 0 ? t('common.unreachable') : fault.message;
  throw fault;
}

/**
 * @param {object} props
 * @param {() => any} props.onClick while what it returns is awaited, the button is busy; an `ApiError` is shown as a toast
 * @param {'plain' | 'primary' | 'danger' | 'quiet'} [props.kind]
 * @param {string} [props.icon]
 * @param {boolean} [props.disabled]
 * @param {string} [props.label] for a screen reader, where an icon stands alone
 * @param {any} [props.children]
 */
export function Button({ onClick, kind = 'plain', icon, disabled, label, children, ...rest }) {
  const [busy, setBusy] = useState(false);
  const act = async () => {
    setBusy(true);
    try {
      await onClick();
    } catch (fault) {
      toast(sayFault(fault), 'bad');
    } finally {
      setBusy(false);
    }
  };
  return html`<button
    type="button"
    class=${`button ${kind}${children ? '' : ' only-icon'}`}
    aria-busy=${busy || undefined}
    aria-label=${label}
    title=${children ? undefined : label}
    disabled=${disabled || busy}
    onClick=${act}
    ...${rest}
    >${icon ? html`<${Icon} name=${icon} />` : null}${children}</button
  >`;
}

/**
 * What is the matter, and what can be done about it.
 *
 * @param {{tone?: 'bad' | 'warn' | 'good' | 'quiet', actions?: any, children?: any, detail?: any}} props
 */
export const Sentence = ({ tone = 'quiet', actions, detail, children }) =>
  html`<div class=${`sentence ${tone}`}>
    <div class="said">${children}${detail ? html`<div class="detail">${detail}</div>` : null}</div>
    ${actions ? html`<div class="actions">${actions}</div>` : null}
  </div>`;

/** Where there is nothing yet, and what to do about that. @param {{title: string, actions?: any, children?: any}} props */
export const Empty = ({ title, actions, children }) =>
  html`<div class="empty"><h2>${title}</h2><div>${children}</div>${actions ? html`<div class="actions">${actions}</div>` : null}</div>`;

/** Where filters leave nothing. @param {{title: string, onAll: () => void, children?: any}} props */
export const NoMatch = ({ title, onAll, children }) =>
  html`<${Empty} title=${title} actions=${html`<button type="button" class="button" onClick=${onAll}>${t('common.show-all')}</button>`}>${children}<//>`;
