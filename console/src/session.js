// Who is signed in.

import { computed, effect, signal } from '@preact/signals';
import { ApiError, get, post, unauthorized } from './api.js';

/**
 * The account as `/v1/users/me` shows it; `null`: nobody; `undefined`: not asked yet.
 *
 * @type {import('@preact/signals').Signal<any>}
 */
export const me = signal(undefined);
/** Whether the account is an administrator. */
export const isAdmin = computed(() => me.value?.is_admin === true);

/** Ask who is signed in. Where the server does not answer, what was known stays. */
export async function whoIsIt() {
  try {
    me.value = await get('/v1/users/me');
  } catch (fault) {
    if (!(fault instanceof ApiError)) throw fault;
    if (fault.status !== 0 && fault.status < 500) me.value = null;
    else if (me.value === undefined) setTimeout(whoIsIt, 1000);
  }
}

/** @param {string} username @param {string} password */
export async function signIn(username, password) {
  await post('/auth/login', { username, password });
  await whoIsIt();
}

/** Ends the login, at the identity provider too where that is possible. */
export async function signOut() {
  const told = await post('/auth/logout');
  if (told?.logout_url) {
    location.assign(told.logout_url);
    return;
  }
  me.value = null;
}

/** @param {string} current @param {string} chosen */
export async function changePassword(current, chosen) {
  await post('/auth/update-password', { current_password: current, new_password: chosen });
  await whoIsIt();
}

// A login may end while the page is open: one answer that says so is enough to ask.
effect(() => {
  if (unauthorized.value > 0 && me.peek()) whoIsIt();
});
