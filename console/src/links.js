// Where each kind of thing has its page.

const PATHS = {
  model: (/** @type {any} */ one) => `/models/${one.id}`,
  'model-instance': (/** @type {any} */ one) => `/instances/${one.id}`,
  worker: (/** @type {any} */ one) => `/cluster/${one.id}`,
  'model-file': () => '/files',
  user: (/** @type {any} */ one) => `/access?q=${encodeURIComponent(one.name ?? '')}`,
  'api-key': (/** @type {any} */ one) => `/access?tab=keys&key=${encodeURIComponent(one.name ?? '')}`,
};

/** The address of an object, `null` where it has none. @param {{kind: string, id: number} | null | undefined} object */
export const pathOf = (object) => (object && PATHS[object.kind] ? PATHS[object.kind](object) : null);
