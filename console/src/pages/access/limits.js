// How much an account or a key may use: in a form, and what is left of it.

import { number, short } from '../../format.js';
import { Meter } from '../../parts/bar.js';
import { Field } from '../../parts/field.js';
import { html } from '../../parts/html.js';
import { useFetched, Waiting } from '../../parts/page.js';
import { Ago } from '../../parts/time.js';
import { t } from '../../words.js';

const RATES = ['requests_per_minute', 'tokens_per_minute', 'concurrent_requests'];
const BUDGETS = { day: 'tokens_per_day', month: 'tokens_per_month' };
const NAMES = [...RATES, ...Object.values(BUDGETS)];

/** @param {any} limits @param {string[]} names */
const given = (limits, names) => names.filter((name) => typeof limits?.[name] === 'number');

/** The fields of a form, which `limitsOf` reads. @param {{limits: any}} props */
export const LimitFields = ({ limits }) =>
  html`<details class="group" open=${given(limits, NAMES).length > 0}>
    <summary><b>${t('access.limits')}</b><span class="muted">${t('access.limits-hint')}</span></summary>
    <div class="group-body pairs-of-fields">${NAMES.map((name) => html`<${Field} label=${t(`access.${name}`)} name=${name} type="number" min="0" step="1" placeholder=${t('access.unlimited')} defaultValue=${limits?.[name] ?? ''} />`)}</div>
  </details>`;

/** The limits that a form gives, `null` without one. @param {Record<string, string>} fields */
export function limitsOf(fields) {
  const found = NAMES.filter((name) => fields[name]?.trim()).map((name) => [name, Number(fields[name])]);
  return found.length ? Object.fromEntries(found) : null;
}

/** The limits of a row in short, with what is left of budgets. @param {{limits: any, path: string}} props the path of `GET …/limits` */
export function Left({ limits, path }) {
  const budgets = given(limits, Object.values(BUDGETS));
  const rates = given(limits, RATES);
  const { value } = useFetched(budgets.length ? path : null, undefined, [JSON.stringify(limits)]);
  if (!budgets.length && !rates.length) return html`<span class="muted">${t('access.no-limits')}</span>`;
  const periods = Object.entries(BUDGETS).filter(([, name]) => budgets.includes(name));
  return html`<span class="left">
    ${periods.map(([period, name]) => {
      const left = value?.[period]?.remaining;
      return html`<span class=${left === 0 ? 'fault' : ''}>${t(`access.left-${period}`, { left: short(left), of: short(limits[name]) })}</span>`;
    })}
    ${rates.length ? html`<small class="muted">${rates.map((name) => t(`access.short-${name}`, { n: short(limits[name]) })).join(' · ')}</small>` : null}
  </span>`;
}

/** The same with all figures. @param {{path: string}} props */
export function Allowance({ path }) {
  const { value } = useFetched(path);
  if (!value) return html`<${Waiting} lines=${2} />`;
  const { limits } = value;
  if (!given(limits, NAMES).length) return html`<p class="muted">${t('access.no-limits')}</p>`;
  return html`<dl class="facts">
    ${given(limits, RATES).map((name) => html`<dt>${t(`access.${name}`)}</dt><dd class="num">${number(limits[name])}</dd>`)}
    ${Object.entries(BUDGETS).map(([period, name]) => {
      const budget = value[period];
      if (!budget) return null;
      const used = budget.limit ? 100 - (budget.remaining / budget.limit) * 100 : 100;
      return html`<dt>${t(`access.${name}`)}</dt>
        <dd><span class="num">${t('access.left-of', { left: number(budget.remaining), of: number(budget.limit) })} · ${t('access.anew')} <${Ago} at=${budget.ends_at} /></span><${Meter} value=${used} label=${t('access.used')} /></dd>`;
    })}
  </dl>`;
}
