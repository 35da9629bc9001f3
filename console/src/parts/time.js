// How long ago something was; the exact time shows on pointing at it.

import { ago, dateTime } from '../format.js';
import { html } from './html.js';

/** @param {{at: string | null | undefined}} props ISO 8601 */
export const Ago = ({ at }) => (at ? html`<time datetime=${at} title=${dateTime(at)}>${ago(at)}</time>` : html`<span>${ago(null)}</span>`);
