// The guide in a browser: the theme, the menu on small screens, copying, and the search. Nothing is loaded from elsewhere.

const root = document.documentElement;
const remembered = () => {
  try { return localStorage.getItem('guide-theme'); } catch { return null; }
};
if (remembered()) root.dataset.theme = remembered();

document.addEventListener('DOMContentLoaded', () => {
  const find = (selector) => document.querySelector(selector);
  const words = document.body.dataset;

  find('.theme').addEventListener('click', () => {
    const dark = (root.dataset.theme ?? (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')) === 'dark';
    root.dataset.theme = dark ? 'light' : 'dark';
    try { localStorage.setItem('guide-theme', root.dataset.theme); } catch { /* a browser that keeps nothing */ }
  });

  const menu = find('#menu');
  const opener = find('.open-menu');
  opener.addEventListener('click', () => {
    opener.setAttribute('aria-expanded', String(menu.classList.toggle('open')));
    scrollTo(0, 0);
  });
  const current = menu.querySelector('[aria-current]');
  if (current && current.offsetTop > menu.clientHeight - 60) menu.scrollTop = current.offsetTop - menu.clientHeight / 2;

  for (const block of document.querySelectorAll('.code:not(.text)')) {
    const button = document.createElement('button');
    button.type = 'button';
    button.className = 'copy';
    button.textContent = words.copy;
    button.addEventListener('click', async () => {
      if (!await copied(block.querySelector('code').textContent)) return;
      button.textContent = words.copied;
      setTimeout(() => { button.textContent = words.copy; }, 1500);
    });
    block.append(button);
  }

  const links = new Map([...document.querySelectorAll('.here a')].map((link) => [decodeURIComponent(link.hash.slice(1)), link]));
  const seen = new IntersectionObserver((entries) => {
    const top = entries.find((entry) => entry.isIntersecting);
    if (!top) return;
    for (const link of links.values()) link.classList.remove('now');
    links.get(top.target.id)?.classList.add('now');
  }, { rootMargin: '-60px 0px -70% 0px' });
  for (const heading of document.querySelectorAll('article :is(h2, h3)[id]')) if (links.has(heading.id)) seen.observe(heading);

  search(find('.search input'), find('#found'), words);
});

// Without TLS a page has no clipboard of its own: then a selection is copied.
async function copied(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text).then(() => true, () => false);
  const area = document.createElement('textarea');
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand('copy');
  area.remove();
  return done;
}

function search(input, list, words) {
  let index = null;
  let chosen = -1;
  const load = async () => {
    index ??= Promise.all(words.search.split(' ').map((name) => fetch(name).then((answer) => answer.json()))).then(joined, () => joined([]));
    return index;
  };
  const close = () => {
    list.hidden = true;
    chosen = -1;
    input.setAttribute('aria-expanded', 'false');
    input.removeAttribute('aria-activedescendant');
  };
  const choose = (step) => {
    const all = [...list.querySelectorAll('[role=option]')];
    if (!all.length) return;
    chosen = (chosen + step + all.length) % all.length;
    all.forEach((item, place) => item.setAttribute('aria-selected', String(place === chosen)));
    all[chosen].scrollIntoView({ block: 'nearest' });
    input.setAttribute('aria-activedescendant', all[chosen].id);
  };
  const show = async () => {
    const asked = input.value;
    if (!asked.trim()) { close(); return; }
    const { pages, meant } = await load();
    if (asked !== input.value) return;
    const terms = asked.toLowerCase().split(/\s+/).filter(Boolean).map((term) => spellings(term, meant));
    const hits = pages
      .map((entry) => [score(entry, terms), entry])
      .filter(([points]) => points > 0)
      .sort((a, b) => b[0] - a[0])
      .filter(fewOfAPage())
      .slice(0, 12);
    list.replaceChildren(...hits.map(([, entry], place) => item(entry, terms.flat(), place)));
    if (!hits.length) {
      const none = document.createElement('li');
      none.className = 'none';
      none.textContent = words.none;
      list.append(none);
    }
    chosen = -1;
    list.hidden = false;
    input.setAttribute('aria-expanded', 'true');
  };
  input.addEventListener('focus', load, { once: true });
  input.addEventListener('input', show);
  input.addEventListener('keydown', (event) => {
    if (event.key === 'ArrowDown') choose(1);
    else if (event.key === 'ArrowUp') choose(-1);
    else if (event.key === 'Escape') { input.value = ''; close(); input.blur(); }
    else if (event.key === 'Enter') (list.querySelector('[aria-selected=true] a') ?? list.querySelector('a'))?.click();
    else return;
    event.preventDefault();
  });
  list.addEventListener('click', (event) => { if (event.target.closest('a')) close(); });
  document.addEventListener('click', (event) => { if (!event.target.closest('.search')) close(); });
  document.addEventListener('keydown', (event) => {
    if (event.key !== '/' || event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) return;
    event.preventDefault();
    input.focus();
  });
}

// The pages of the first list, and those of the others that it has no translation of.
function joined(lists) {
  const own = new Set(lists[0]?.pages.map(([page]) => page));
  const others = lists.slice(1).flatMap((one) => one.pages).filter(([page]) => !own.has(`zh-${page}`));
  return { pages: [...(lists[0]?.pages ?? []), ...others], meant: Object.assign({}, ...lists.map((one) => one.words)) };
}

// A term, and what the pages say for it. Chinese is written without spaces: there a term has other words within it.
function spellings(term, meant) {
  const known = Object.keys(meant).filter((word) => (/^[\x20-\x7e]+$/.test(word) ? term === word : term.includes(word)));
  return [term, ...known.flatMap((word) => meant[word])];
}

// Every term has to be there in one of its spellings, the first of which counts most; a title counts more than a heading, that more than the text, a beginning of a word more than a middle.
function score([, anchor, title, heading, text], terms) {
  let points = 0;
  for (const spelled of terms) {
    const best = Math.max(...spelled.map((term, place) => (place ? 0.6 : 1)
      * Math.max(weight(title, term) * (anchor ? 2 : 12), weight(heading, term) * 8, weight(text, term))));
    if (!best) return 0;
    points += best;
  }
  return points;
}

function weight(text, term) {
  const lower = text.toLowerCase();
  const at = lower.indexOf(term);
  if (at < 0) return 0;
  if (lower === term) return 3;
  if (at === 0 || /[^\p{L}\p{N}]/u.test(lower[at - 1])) return 2;
  return /[a-z]/.test(lower[at - 1]) ? 0.1 : 1;
}

// Keeps the best three of each page: the others come into sight then.
function fewOfAPage() {
  const kept = new Map();
  return ([, [page]]) => {
    kept.set(page, (kept.get(page) ?? 0) + 1);
    return kept.get(page) <= 3;
  };
}

function item([page, anchor, title, heading, text], terms, place) {
  const line = document.createElement('li');
  line.id = `found-${place}`;
  line.setAttribute('role', 'option');
  line.setAttribute('aria-selected', 'false');
  const link = document.createElement('a');
  link.href = `${page}.html${anchor ? `#${anchor}` : ''}`;
  link.tabIndex = -1;
  link.append(...marked(heading || title, terms));
  const small = document.createElement('small');
  const lower = text.toLowerCase();
  const places = terms.map((term) => lower.indexOf(term)).filter((at) => at >= 0);
  const from = places.length ? Math.max(0, Math.min(...places) - 40) : 0;
  if (heading) small.append(`${title} · `);
  small.append(...marked((from ? '…' : '') + text.slice(from, from + 160), terms));
  link.append(small);
  line.append(link);
  return line;
}

function marked(text, terms) {
  const pattern = new RegExp(`(${terms.map((term) => term.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('|')})`, 'gi');
  return text.split(pattern).map((part, place) => {
    if (place % 2 === 0) return part;
    const mark = document.createElement('mark');
    mark.textContent = part;
    return mark;
  });
}
