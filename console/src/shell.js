// What stands around every page: the navigation, who is signed in, language and theme, and whether the server is there.

import { signal, useComputed } from '@preact/signals';
import { useEffect, useRef, useState } from 'preact/hooks';
import { attention } from './attention.js';
import { store } from './live.js';
import { Button, Empty, Sentence } from './parts/button.js';
import { Questions } from './parts/dialog.js';
import { html } from './parts/html.js';
import { Icon } from './parts/icon.js';
import { Menu } from './parts/menu.js';
import { Fault, Waiting } from './parts/page.js';
import { Preferences } from './parts/preferences.js';
import { Toasts, whisper } from './parts/toast.js';
import { PAGES } from './paths.js';
import { go, loadPage, pageHere, place } from './router.js';
import { me, isAdmin, signOut } from './session.js';
import { ChangePassword, SignIn } from './sign-in.js';
import { language, t } from './words.js';

const menuOpen = signal(false);
/** The connection is said to be lost only when it stays so: a moment is nobody's matter. */
const LOST_AFTER = 2000;

export function Shell() {
  const account = me.value;
  if (account === undefined) return html`<main class="alone"><${Waiting} /></main>`;
  if (account === null || place.value.path === '/sign-in') return html`<${SignIn} /><${Toasts} />`;
  if (account.require_password_change) return html`<${ChangePassword} /><${Toasts} />`;
  return html`<div class=${`shell${menuOpen.value ? ' menu-open' : ''}`}>
    <a class="skip" href="#main" onClick=${skip}>${t('shell.skip')}</a>
    <${Side} />
    <div class="rest">
      <${Connection} />
      <main id="main" tabindex="-1"><${Page} /></main>
    </div>
    <${Questions} /><${Toasts} />
  </div>`;
}

/** @param {Event} event */
function skip(event) {
  event.preventDefault();
  document.getElementById('main')?.focus();
}

function Side() {
  const here = place.value.page;
  const admin = isAdmin.value;
  const shown = PAGES.filter((page) => page.nav && (admin || page.who === 'anyone'));
  const urgent = useComputed(() => (attention.value ?? []).filter((one) => one.severity !== 'notice').length);
  const isHere = (/** @type {import('./paths.js').Page} */ page) =>
    page === here || (page.path !== '/' && place.value.path.startsWith(`${page.path}/`));
  return html`<header class="side">
    <div class="brand">
      <a href="/"><span class="mark" aria-hidden="true"></span>GPUStack</a>
      <button type="button" class="button quiet only-icon burger" aria-expanded=${menuOpen.value ? 'true' : 'false'} aria-controls="nav" aria-label=${t('shell.menu')} onClick=${() => (menuOpen.value = !menuOpen.value)}>
        <${Icon} name=${menuOpen.value ? 'close' : 'menu'} />
      </button>
    </div>
    <nav id="nav" aria-label=${t('shell.navigation')} onClick=${() => (menuOpen.value = false)}>
      ${shown.map(
        (page) =>
          html`<a href=${page.path} aria-current=${isHere(page) ? 'page' : undefined}>
            <${Icon} name=${page.nav} />${t(`nav.${page.nav}`)}
            ${page.path === '/' && urgent.value ? html`<b class="count" aria-label=${t('shell.urgent', { n: urgent.value })}>${urgent.value}</b>` : null}
          </a>`,
      )}
    </nav>
    <div class="foot">
      <${Menu} label=${`${t('shell.account')}: ${me.value.username}`} items=${[
        { text: t('shell.my-account'), act: () => go('/account') },
        { text: t('shell.guide'), act: () => open(`/guide/${language.value === 'zh' ? 'zh-index.html' : ''}`, '_blank', 'noopener') },
        { text: t('shell.sign-out'), act: signOut },
      ]}><${Icon} name="account" /><span class="ellipsis">${me.value.username}</span><//>
      <${Preferences} />
    </div>
  </header>`;
}

/** Says that the server is away, and that it is back. */
function Connection() {
  const [said, setSaid] = useState(false);
  const state = store.connection.value;
  useEffect(() => {
    if (state === 'lost') {
      const timer = setTimeout(() => setSaid(true), LOST_AFTER);
      return () => clearTimeout(timer);
    }
    if (state === 'live' && said) {
      setSaid(false);
      whisper(t('shell.back'));
    }
    return undefined;
  }, [state]);
  if (!said) return null;
  return html`<div class="connection" role="alert">${t('shell.lost')}</div>`;
}

/** The page of this address, its title in the window, and the focus on its heading when it has changed. */
function Page() {
  const { page, params, query, path } = place.value;
  const allowed = page && (page.who === 'anyone' || isAdmin.value);
  const [told, setTold] = useState(/** @type {{page: any, fault: boolean} | null} */ (null));
  const first = useRef(true);
  const lost = store.connection.value === 'lost';
  useEffect(() => {
    if (!allowed || pageHere(page)) return;
    loadPage(page).then(
      () => setTold({ page, fault: false }),
      () => setTold({ page, fault: true }),
    );
  }, [page, allowed, lost]);
  useEffect(() => {
    const heading = document.querySelector('main h1');
    document.title = heading ? `${heading.textContent} · GPUStack` : 'GPUStack';
    if (first.current) first.current = false;
    else if (heading instanceof HTMLElement) heading.focus({ preventScroll: true });
  }, [path, told, language.value]);
  if (!page) return html`<${Empty} title=${t('shell.no-page')} actions=${html`<a class="button" href="/">${t('nav.home')}</a>`}>${path}<//>`;
  if (!allowed) return html`<${Empty} title=${t('shell.not-allowed')} actions=${html`<a class="button" href="/">${t('nav.home')}</a>`}>${t('shell.admins')}<//>`;
  const module = pageHere(page);
  if (!module && told?.page === page && told.fault && lost) return html`<${Fault} text=${t('common.unreachable')} />`;
  // After an update of the server the files of this page are gone; the new ones come with a reload.
  if (!module && told?.page === page && told.fault) return html`<${Sentence} tone="warn" actions=${html`<${Button} onClick=${() => location.reload()}>${t('shell.reload')}<//>`}>${t('shell.outdated')}<//>`;
  if (!module) return html`<${Waiting} />`;
  const Shown = module.default;
  return html`<${Shown} key=${path} params=${params} query=${query} />`;
}

// `/` leads to the search of a page, unless somebody writes.
document.addEventListener('keydown', (event) => {
  if (event.key !== '/' || event.ctrlKey || event.metaKey || event.altKey) return;
  const at = event.target;
  if (at instanceof HTMLElement && (at.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName))) return;
  const search = document.querySelector('main [data-search]');
  if (search instanceof HTMLElement) {
    event.preventDefault();
    search.focus();
  }
});
