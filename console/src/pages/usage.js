// Who uses how much: by user, key, model, kind of request and day. Who is no administrator sees their own.

import { useMemo } from 'preact/hooks';
import { withQuery } from '../api.js';
import { number, short } from '../format.js';
import { store } from '../live.js';
import { Meter } from '../parts/bar.js';
import { Empty } from '../parts/button.js';
import { Segments, Tool } from '../parts/field.js';
import { html } from '../parts/html.js';
import { Fault, PageHead, useFetched, Waiting } from '../parts/page.js';
import { Table } from '../parts/table.js';
import { Ago } from '../parts/time.js';
import { setQuery } from '../router.js';
import { isAdmin } from '../session.js';
import { known, t } from '../words.js';
import { Chart } from './usage/chart.js';
import { dayAfter, isDay, periodsOf, seriesOf, summed, tokensOf, valuesOf } from './usage/sums.js';

const SPANS = [7, 30, 90, 365];
const USUAL = 30;
const HEIGHT = 48;

/** How the rows of each grouping are told apart and called. */
const GROUPS = {
  model: { by: 'day,model', keyOf: (/** @type {any} */ row) => `${row.model_id}`, nameOf: (/** @type {any} */ row) => row.model_name || `#${row.model_id}` },
  user: { by: 'day,user', keyOf: (/** @type {any} */ row) => `${row.user_id}`, nameOf: (/** @type {any} */ row) => (row.user_id === null ? t('usage.nobody') : row.username || `#${row.user_id}`) },
  key: { by: 'day,user,key', keyOf: (/** @type {any} */ row) => `${row.user_id} ${row.api_key_id}`, nameOf: (/** @type {any} */ row) => (row.api_key_id === null ? t('usage.no-key') : row.api_key_name || t('usage.key-gone', { id: row.api_key_id })) },
  operation: { by: 'day,operation', keyOf: (/** @type {any} */ row) => row.operation, nameOf: (/** @type {any} */ row) => known(`usage.of-${row.operation}`) ?? row.operation },
  day: { by: 'day', keyOf: (/** @type {any} */ row) => row.date, nameOf: (/** @type {any} */ row) => row.date },
};

/** What the address asks for. @param {URLSearchParams} query */
function askedOf(query) {
  const today = new Date().toISOString().slice(0, 10);
  const groups = Object.keys(GROUPS).filter((name) => name !== 'user' || isAdmin.value);
  const group = groups.includes(query.get('by') ?? '') ? /** @type {keyof typeof GROUPS} */ (query.get('by')) : 'model';
  const chosen = isDay(query.get('from')) || isDay(query.get('to'));
  const days = SPANS.includes(Number(query.get('days'))) ? Number(query.get('days')) : USUAL;
  const end = isDay(query.get('to')) ? String(query.get('to')) : today;
  const start = isDay(query.get('from')) ? String(query.get('from')) : dayAfter(end, 1 - days);
  const user = isAdmin.value ? Number(query.get('user')) || undefined : undefined;
  return { groups, group, start, end, days: chosen ? null : days, user, model: Number(query.get('model')) || undefined, measure: query.get('show') === 'requests' ? 'requests' : 'tokens' };
}

/** @param {{query: URLSearchParams}} props */
export default function Usage({ query }) {
  const asked = askedOf(query);
  const by = asked.user && !GROUPS[asked.group].by.includes('user') ? `${GROUPS[asked.group].by},user` : GROUPS[asked.group].by;
  const wanted = { by, start_date: asked.start, end_date: asked.end, user_ids: asked.user, model_ids: asked.model };
  const csv = withQuery('/v1/usage', { ...wanted, format: 'csv' });
  const span = (/** @type {number} */ days) => setQuery({ days: days === USUAL ? '' : String(days), from: '', to: '' });
  const day = (/** @type {string} */ name) => (/** @type {string} */ value) => setQuery({ from: asked.start, to: asked.end, days: '', [name]: value });
  return html`<${PageHead} title=${t('nav.usage')} under=${isAdmin.value ? t('usage.all') : t('usage.own')} actions=${html`<a class="button" href=${csv} download>${t('usage.csv')}</a>`} />
    <div class="tools">
      <${Segments} label=${t('usage.by')} values=${asked.groups} now=${asked.group} word=${(/** @type {string} */ one) => t(`usage.by-${one}`)} onChoose=${(/** @type {string} */ one) => setQuery({ by: one === 'model' ? '' : one })} />
      <${Segments} label=${t('usage.span')} values=${SPANS} now=${asked.days} word=${(/** @type {number} */ one) => t('usage.days', { n: one })} onChoose=${span} />
      <${Tool} label=${t('usage.from')} type="date" value=${asked.start} max=${asked.end} onChoose=${day('from')} />
      <${Tool} label=${t('usage.to')} type="date" value=${asked.end} min=${asked.start} onChoose=${day('to')} />
      <${Segments} label=${t('usage.show')} values=${['tokens', 'requests']} now=${asked.measure} word=${(/** @type {string} */ one) => t(`usage.${one}`)} onChoose=${(/** @type {string} */ one) => setQuery({ show: one === 'tokens' ? '' : one })} />
    </div>
    <${Shown} key=${JSON.stringify(wanted)} wanted=${wanted} asked=${asked} />`;
}

/** @param {{wanted: any, asked: ReturnType<typeof askedOf>}} props */
function Shown({ wanted, asked }) {
  const { value, fault, again } = useFetched('/v1/usage', wanted);
  const rows = /** @type {any[]} */ (value?.items ?? []);
  const { group, measure, start, end } = asked;
  const { keyOf, nameOf } = GROUPS[group];
  const sums = useMemo(() => summed(rows, keyOf), [value, group]);
  const [whole] = useMemo(() => summed(rows, () => ''), [value]);
  const valueOf = measure === 'tokens' ? tokensOf : (/** @type {any} */ row) => row.request_count;
  const chart = useMemo(() => {
    if (!whole) return null;
    const periods = periodsOf(start, end);
    if (group !== 'day') return { periods, series: seriesOf(rows, periods, { keyOf, nameOf, valueOf, rest: (n) => t('usage.rest', { n }) }) };
    const parts = measure === 'tokens' ? ['prompt_token_count', 'completion_token_count'] : ['request_count'];
    return { periods, series: parts.map((name) => ({ name: t(`usage.${name}`), values: valuesOf(rows, periods, (row) => row[name]) })) };
  }, [value, group, measure, t('usage.tokens')]);
  if (fault) return html`<${Fault} text=${fault} again=${again} />`;
  if (!value) return html`<${Waiting} lines=${6} />`;
  const narrowed = asked.user || asked.model ? html`<${Narrowed} asked=${asked} rows=${rows} />` : null;
  if (!whole) return html`${narrowed}<${Empty} title=${t('usage.none')}>${t('usage.none-text')}<//>`;
  return html`${narrowed}
    <ul class="figures plain">
      ${['request_count', 'failed_count', 'prompt_token_count', 'completion_token_count'].map((name) => html`<li><b title=${number(whole[name])}>${short(whole[name])}</b><span>${t(`usage.${name}`)}</span></li>`)}
    </ul>
    <section>
      <h2>${t(`usage.${measure}`)}</h2>
      ${valueOf(whole)
        ? html`<${Chart} ...${chart} label=${t('usage.chart', { what: t(`usage.${measure}`), from: start, to: end, n: number(valueOf(whole)) })} />`
        : html`<p class="muted">${t('usage.nothing-to-draw')}</p>`}
    </section>
    <section>
      <h2 class="unseen">${t('usage.table')}</h2>
      <${Table} key=${`${group} ${measure}`} label=${t('usage.table')} rows=${sums} height=${HEIGHT} sorted=${group === 'day' ? { key: 'name', down: true } : { key: measure, down: true }} columns=${columnsFor(asked, valueOf(whole), valueOf)} />
    </section>`;
}

/** To whom or what it is narrowed. @param {{asked: ReturnType<typeof askedOf>, rows: any[]}} props */
function Narrowed({ asked, rows }) {
  const name = asked.user ? rows[0]?.username || `#${asked.user}` : store.models.value.get(/** @type {number} */ (asked.model))?.name ?? `#${asked.model}`;
  return html`<p class="narrowed">${t(asked.user ? 'usage.only-user' : 'usage.only-model', { name })} <button type="button" class="button" onClick=${() => setQuery({ user: '', model: '' })}>${t('common.show-all')}</button></p>`;
}

/** @param {ReturnType<typeof askedOf>} asked @param {number} whole @param {(row: any) => number} valueOf @returns {import('../parts/table.js').Column[]} */
function columnsFor({ group, measure }, whole, valueOf) {
  const { nameOf } = GROUPS[group];
  const count = (/** @type {string} */ name, /** @type {boolean} */ wide) => ({ key: name, title: t(`usage.${name}`), end: true, wide, sort: (/** @type {any} */ row) => row[name], cell: (/** @type {any} */ row) => html`<${Count} value=${row[name]} />` });
  return [
    { key: 'name', title: t(`usage.by-${group}`), width: 'minmax(0, 2fr)', sort: nameOf, cell: (row) => html`<${Name} group=${group} row=${row} name=${nameOf(row)} />` },
    { key: measure, title: t(`usage.${measure}`), end: true, sort: valueOf, cell: (row) => html`<${Count} value=${valueOf(row)} />` },
    ...(group === 'day' ? [] : [{ key: 'share', title: t('usage.share'), wide: true, cell: (/** @type {any} */ row) => html`<${Meter} value=${whole ? (valueOf(row) / whole) * 100 : null} label=${t('usage.share')} />` }]),
    ...(measure === 'tokens' ? [count('request_count', true)] : []),
    count('failed_count', true),
    count('prompt_token_count', true),
    count('completion_token_count', true),
    ...(group === 'day' ? [] : [{ key: 'last', title: t('usage.last'), wide: true, sort: (/** @type {any} */ row) => row.last_used_at, cell: (/** @type {any} */ row) => html`<${Ago} at=${row.last_used_at} />` }]),
  ];
}

const ROOMY = matchMedia('(min-width: 1200px)');

/** In full where there is room for it. @param {{value: number}} props */
const Count = ({ value }) => html`<span title=${number(value)}>${ROOMY.matches ? number(value) : short(value)}</span>`;

/** A name that leads to what stands behind it. @param {{group: string, row: any, name: string}} props */
function Name({ group, row, name }) {
  const narrow = (/** @type {any} */ to) => html`<button type="button" class="as-link ellipsis" title=${name} onClick=${() => setQuery({ user: '', model: '', ...to })}>${name}</button>`;
  if (group === 'user' && row.user_id !== null) return narrow({ user: String(row.user_id), by: '' });
  if (group === 'model' && isAdmin.value) return narrow({ model: String(row.model_id), by: 'user' });
  if (group === 'key' && isAdmin.value) return html`<span class="ellipsis">${name}</span> <small class="muted">${GROUPS.user.nameOf(row)}</small>`;
  return html`<span class="ellipsis" title=${name}>${name}</span>`;
}
