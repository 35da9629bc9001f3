// The pages: their addresses, who sees them, and the file that each is in. The server knows the first part of each
// address too (`gpustack/api/console_pages.py`); a test compares them.

/**
 * @typedef {object} Page
 * @property {string} path as `/models/:id`
 * @property {string} [nav] the key of its word in the navigation, and of its icon; without it stands in no menu
 * @property {'admin' | 'anyone'} who
 * @property {() => Promise<{default: Function, ahead?: () => Promise<void>}>} load `ahead`: fulfilled when its first picture can be drawn
 */

/** @type {Page[]} */
export const PAGES = [
  { path: '/', nav: 'home', who: 'anyone', load: () => import('./pages/home.js') },
  { path: '/models', nav: 'models', who: 'admin', load: () => import('./pages/models.js') },
  { path: '/models/new', who: 'admin', load: () => import('./pages/models-new.js') },
  { path: '/models/:id', who: 'admin', load: () => import('./pages/model.js') },
  { path: '/cluster', nav: 'cluster', who: 'admin', load: () => import('./pages/cluster.js') },
  { path: '/cluster/:id', who: 'admin', load: () => import('./pages/worker.js') },
  { path: '/files', nav: 'files', who: 'admin', load: () => import('./pages/files.js') },
  { path: '/playground', nav: 'playground', who: 'anyone', load: () => import('./pages/playground.js') },
  { path: '/usage', nav: 'usage', who: 'anyone', load: () => import('./pages/usage.js') },
  { path: '/access', nav: 'access', who: 'anyone', load: () => import('./pages/access.js') },
  { path: '/events', nav: 'events', who: 'admin', load: () => import('./pages/events.js') },
  { path: '/settings', nav: 'settings', who: 'admin', load: () => import('./pages/settings.js') },
  { path: '/instances/:id', who: 'admin', load: () => import('./pages/instance.js') },
  { path: '/first-steps', who: 'admin', load: () => import('./pages/first-steps.js') },
  { path: '/sign-in', who: 'anyone', load: () => import('./pages/home.js') },
  { path: '/account', who: 'anyone', load: () => import('./pages/account.js') },
];
