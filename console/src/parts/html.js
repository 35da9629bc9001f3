// One place for what every part and page draws with.

import { h } from 'preact';
import htm from 'htm';

/** Tagged template that makes elements: html`<p class="x">${text}</p>`. Values are shown as text, never as markup. */
export const html = htm.bind(h);
