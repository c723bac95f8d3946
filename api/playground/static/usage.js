// What this tenant used in a month, and its budget.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { Notice, duration, money, useLoaded } from "./ui.js";

const thisMonth = () => new Date().toISOString().slice(0, 7);

export function UsageView({ session }) {
  const [month, setMonth] = useState(thisMonth());
  const isMonth = /^\d{4}-(0[1-9]|1[0-2])$/.test(month);
  const used = useLoaded(async (signal) => (isMonth ? session.api.json("GET", `/api/ai/usage?month=${month}`, { signal }) : null), [session, month]);
  useEffect(() => session.listen(({ type }) => { if (type === "media_generation_completed") used.reload(); }), [session]);
  const { value } = used;
  const all = value?.models.reduce((sum, one) => sum + one.generations, 0) ?? 0;
  return html`<section class="page" aria-labelledby="usage-title">
    <h1 id="usage-title">Usage</h1>
    <form class="filters" onSubmit=${(event) => event.preventDefault()}><label>Month <input type="month" value=${month} max=${thisMonth()} onInput=${(event) => setMonth(event.target.value)} /></label></form>
    <${Notice} error=${used.error} />
    ${value ? html`<dl class="numbers">
      <div><dt>Edits</dt><dd>${all}</dd></div><div><dt>Spent</dt><dd>${money(value.spent_usd)}</dd></div>
      <div><dt>Reserved</dt><dd>${money(value.reserved_usd)}</dd></div><div><dt>Budget</dt><dd>${value.budget_usd === null ? "none" : money(value.budget_usd)}</dd></div>
    </dl>
    ${value.budget_usd ? html`<meter min="0" max=${value.budget_usd} high=${0.8 * value.budget_usd} value=${value.spent_usd + value.reserved_usd} aria-label="Of the budget"></meter>` : null}
    ${value.models.length ? html`<div class="scroll" tabindex="0" role="region" aria-label="By model"><table>
      <thead><tr><th>Model</th><th>Edits</th><th>Megapixels</th><th>GPU time</th><th>Cost</th></tr></thead>
      <tbody>${value.models.map((one) => html`<tr><th scope="row">${one.model}</th><td>${one.generations}</td><td>${one.megapixels.toFixed(2)}</td><td>${duration(1000 * one.gpu_seconds)}</td><td>${money(one.cost_usd)}</td></tr>`)}</tbody>
    </table></div>` : html`<p class="empty">Nothing was used in this month.</p>`}` : null}
  </section>`;
}
