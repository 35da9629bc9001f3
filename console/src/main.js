// Where it starts: the words, who is signed in, and the page of this address are fetched side by side, and drawn at once.

import { render } from 'preact';
import { effect } from '@preact/signals';
import { startLive, stopLive } from './live.js';
import { html } from './parts/html.js';
import { loadPage, place, startRouter } from './router.js';
import { me, whoIsIt } from './session.js';
import { Shell } from './shell.js';
import { loadWords } from './words.js';

const A_MOMENT = 200;

async function start() {
  // Most who come are signed in: what they will see is fetched while it is asked who they are.
  startLive();
  startRouter();
  // A page that does not come is the matter of the shell.
  const [page] = await Promise.all([loadPage(place.value.page).catch(() => null), loadWords(), whoIsIt()]);
  effect(() => {
    const account = me.value;
    if (account && !account.require_password_change) startLive();
    else stopLive();
  });
  // What comes at once is drawn at once, not as lines that wait and then again.
  await Promise.race([page?.ahead?.(), new Promise((go) => setTimeout(go, A_MOMENT))]);
  const root = /** @type {HTMLElement} */ (document.getElementById('app'));
  root.replaceChildren();
  render(html`<${Shell} />`, root);
}

start();
