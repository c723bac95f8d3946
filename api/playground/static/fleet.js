// Where models run: which are warm, how long they take, what they cost, and starting them.

import { html, useState } from "./vendor/htm-preact.js";
import { Notice, duration, money, useLoaded } from "./ui.js";

const EVERY_MS = 3000;

export function FleetView({ session }) {
  const workers = useLoaded((signal) => session.api.json("GET", "/api/ai/fleet", { signal }), [session], EVERY_MS);
  const models = useLoaded((signal) => session.api.json("GET", "/v1/models?limit=200", { signal }), [session], EVERY_MS);
  const [error, setError] = useState(null);
  const served = new Set((workers.value?.workers ?? []).flatMap((one) => Object.keys(one.models)));
  const command = async (model, what, body = {}) => {
    try {
      await session.api.json("POST", `/v1/model-families/${encodeURIComponent(model)}/${what}`, { json: body });
      setError(null);
      workers.reload();
      models.reload();
    } catch (caught) {
      setError(caught.status === 403 ? { message: `${caught.message}. Your key may look, and not start models.` } : caught);
    }
  };
  const rows = (models.value?.models ?? models.value?.data ?? []).filter((model) => served.has(model.id) || model.gpu_support?.some((row) => row.request_ms_samples));
  return html`<section class="page" aria-labelledby="fleet-title">
    <h1 id="fleet-title">Fleet</h1>
    <${Notice} error=${error ?? workers.error ?? models.error} />
    <h2>Workers</h2>
    ${workers.value && !workers.value.workers.length ? html`<p class="empty">No worker is there: edits wait until one comes.</p>` : null}
    <ul class="workers">${(workers.value?.workers ?? []).map((worker) => html`<${Worker} key=${worker.name} worker=${worker} />`)}</ul>
    <h2>Models and where they run</h2>
    <div class="scroll" tabindex="0" role="region" aria-label="Models and targets"><table>
      <thead><tr><th>Model</th><th>GPU type</th><th>State</th><th>Waiting</th><th>Median</th><th>p95</th><th>p99</th><th>Runs</th><th>Success</th><th>Cold start</th><th>Price</th><th><span class="hidden">Do</span></th></tr></thead>
      <tbody>${rows.map((model) => (model.gpu_support ?? []).filter((row) => row.workers || row.request_ms_samples).map((row) => html`<tr key=${`${model.id} ${row.gpu_type} ${row.region}`}>
        <th scope="row">${model.id}</th><td>${row.gpu_type}<br /><span class="quiet">${row.region}</span></td>
        <td><span class=${`dot ${row.state.replace(" ", "-")}`}></span>${row.state}</td>
        <td>${workers.value?.queued[model.id] ?? 0}</td><td>${duration(row.request_ms_p50)}</td><td>${duration(row.request_ms_p95)}</td><td>${duration(row.request_ms_p99)}</td>
        <td>${row.request_ms_samples}</td><td>${row.observed_success_rate === null ? "–" : `${Math.round(100 * row.observed_success_rate)} %`}</td>
        <td>${duration(row.startup_ms_probe)}</td><td>${money(row.estimated_warm_request_cost_usd)}</td>
        <td><div class="row">${row.state === "warm" ? html`<button type="button" class="small" onClick=${() => command(model.id, "start", { run_until_stopped: true })}>Keep warm</button>
          <button type="button" class="small" onClick=${() => command(model.id, "stop")}>Stop</button>`
          : html`<button type="button" class="small" onClick=${() => command(model.id, "start")}>Start</button>`}</div></td>
      </tr>`))}</tbody>
    </table></div>
  </section>`;
}

function Worker({ worker }) {
  return html`<li class="card">
    <p><strong>${worker.name}</strong> <span class=${`dot ${worker.busy ? "processing" : "succeeded"}`}></span>${worker.busy ? "busy" : "idle"}</p>
    <p class="quiet">${worker.gpu_type}, ${worker.region}${worker.memory_gb ? `, ${worker.memory_gb} GB` : ""}</p>
    <ul class="plain">${Object.entries(worker.models).map(([name, state]) => html`<li><span class=${`dot ${state.state}`}></span>${name}: ${state.state}${state.percent !== undefined ? ` ${state.percent} %` : ""}
      ${state.placement ? html` <span class="quiet">${state.placement}</span>` : null}${state.reason ? html` <span class="quiet">${state.reason}</span>` : null}</li>`)}</ul>
  </li>`;
}
