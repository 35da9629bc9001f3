// Runs before anything is painted: the theme and language that somebody chose, or those of the browser, so that nothing
// flashes. And asks for what this address will need while the rest is on its way: its page, its words, who is signed in.
// The console itself starts when the frame of the page has been painted.

// The build puts in LANGUAGES, and FILES_OF_PAGES: for each pattern of an address the files that its page is made of.
const root = document.documentElement;
const kept = (name) => {
  try {
    return localStorage.getItem(name);
  } catch {
    return null; // Storage is shut off.
  }
};
const dark = matchMedia('(prefers-color-scheme: dark)');
const paint = () => {
  const theme = kept('theme');
  root.dataset.theme = theme === 'light' || theme === 'dark' ? theme : dark.matches ? 'dark' : 'light';
};
paint();
dark.addEventListener('change', paint);
const wanted = [kept('language') ?? '', ...navigator.languages].map((code) => code.toLowerCase().split('-')[0]);
const language = wanted.find((code) => LANGUAGES.includes(code)) ?? LANGUAGES[0];
root.lang = language;

const folder = document.currentScript.src.replace(/[^/]+$/, '');
const ahead = (file) => {
  const link = document.createElement('link');
  link.rel = 'modulepreload';
  link.href = folder + file;
  document.head.append(link);
};
ahead(`words-${language}.js`);
for (const file of FILES_OF_PAGES.find(([pattern]) => new RegExp(pattern).test(location.pathname))?.[1] ?? []) ahead(file);

const me = fetch('/v1/users/me', { cache: 'no-store', headers: { Accept: 'application/json' } });
me.catch(() => {}); // Whoever takes it is told.
globalThis.asked = { '/v1/users/me': me };

const start = () => import(`${folder}core.js`);
// A page that nobody sees paints nothing.
const painted = () => (document.hidden ? start() : requestAnimationFrame(() => setTimeout(start)));
document.addEventListener('DOMContentLoaded', painted);
