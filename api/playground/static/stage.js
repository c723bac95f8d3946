// Where an edit is seen: the picture while it is made, then before and after with what was done to it.

import { html, useState } from "./vendor/htm-preact.js";
import { Confirmed, Copy, Notice, STATUS_WORDS, duration, left, money, useNow } from "./ui.js";

/** How far a run is, in words and as a part of one; null where it cannot be said. */
export function progressOf(run) {
  const { generation } = run;
  const waiting = generation?.waiting_for;
  if (!generation) return { words: "Sending …", part: null };
  if (generation.status === "queued") {
    const ahead = generation.queue_position ? `${generation.queue_position} before it` : "next";
    const why = { paused: "paused by the operator", no_worker: "waiting for a worker", cold: "the model will be loaded", loading: `the model is loading, ${waiting?.percent ?? 0} %` };
    return { words: `Queued: ${why[waiting?.reason] ?? ahead}`, part: null };
  }
  if (run.phase === "loading") return { words: `Loading the model, ${run.percent} %`, part: run.percent / 100 };
  if (run.step) return { words: `Step ${run.step} of ${run.steps}`, part: run.step / run.steps };
  return { words: "Getting ready", part: null };
}

export function Running({ run, before, onCancel }) {
  const { words, part } = progressOf(run);
  return html`<figure class="running">
    <div class="frame">
      ${before ? html`<img class=${run.preview ? "" : "dim"} src=${run.preview ?? before} alt="" />` : run.preview ? html`<img src=${run.preview} alt="" />` : html`<div class="blank"></div>`}
    </div>
    <figcaption>
      <progress max="1" value=${part} aria-label="Progress"></progress>
      <p role="status">${words}${run.generation?.eta_ms && !run.step ? html`, about ${duration(run.generation.eta_ms)}` : null}</p>
      <button type="button" class="small" onClick=${onCancel}>Cancel</button>
    </figcaption>
  </figure>`;
}

/** Two pictures in one place; the slider says how much of the second is seen. */
export function Slider({ before, after, alt }) {
  const [at, setAt] = useState(50);
  const [isBlank, setBlank] = useState(false);
  // The picture that went in may be gone, or lie where this page loads nothing from.
  if (isBlank) return html`<div class="frame"><img src=${after} alt=${alt} /></div>`;
  return html`<div class="slider frame" style=${`--at: ${at}%`}>
    <img src=${after} alt=${alt} />
    <img class="before" src=${before} alt="" onError=${() => setBlank(true)} />
    <span class="handle" aria-hidden="true"></span>
    <span class="tag start" aria-hidden="true">Before</span><span class="tag end" aria-hidden="true">After</span>
    <input type="range" min="0" max="100" value=${at} aria-label="Before and after" aria-valuetext=${`${at} % before`} onInput=${(event) => setAt(Number(event.target.value))} />
  </div>`;
}

export function Result({ generation, before, actions }) {
  const now = useNow();
  const { receipt, timings } = generation;
  const isThere = generation.download_url && generation.expires_at > now / 1000;
  return html`<figure class="result">
    ${!isThere ? html`<p class="empty">The result was kept until ${new Date(1000 * generation.expires_at).toLocaleString()} and is deleted.</p>`
      : before ? html`<${Slider} key=${before} before=${before} after=${generation.download_url} alt=${`Result: ${generation.prompt}`} />`
      : html`<div class="frame"><img src=${generation.download_url} alt=${`Result: ${generation.prompt}`} /></div>`}
    <figcaption>
      <p class="prompt">${generation.prompt}</p>
      ${generation.upsampled_prompt ? html`<p class="quiet">The model was told: ${generation.upsampled_prompt}</p>` : null}
      <dl class="facts">
        <div><dt>Seed</dt><dd>${generation.seed}</dd></div>
        <div><dt>Size</dt><dd>${generation.width} × ${generation.height}${generation.fit ? html` <span class="quiet">${generation.fit}</span>` : null}</dd></div>
        ${receipt ? html`<div><dt>Made with</dt><dd>${generation.model_name}, ${receipt.steps} steps, guidance ${receipt.guidance}</dd></div>` : null}
        <div><dt>Cost</dt><dd>${money(generation.cost_usd)}</dd></div>
        <div><dt>Filters</dt><dd>${generation.disable_safety_checker ? "off" : "passed"}</dd></div>
        <div><dt>Kept for</dt><dd>${left(generation.expires_at, now)}</dd></div>
      </dl>
      ${timings ? html`<${Times} timings=${timings} />` : null}
      ${isThere ? html`<div class="row actions">
        <a class="button primary" href=${generation.download_url} download=${`${generation.generation_id}`}>Download</a>
        <button type="button" onClick=${() => actions.again(generation)}>Edit this again</button>
        <button type="button" onClick=${() => actions.otherSeed(generation)}>Another seed</button>
        <${Copy} text=${generation.result_url} label="Copy link" />
        <button type="button" class="small" onClick=${() => actions.recall(generation, true)}>Recall settings</button>
        <button type="button" class="small" onClick=${() => actions.recall(generation, false)}>… but the seed</button>
        <${Confirmed} label="Erase" question="Erase for good?" onConfirm=${() => actions.erase(generation)} />
      </div>` : null}
    </figcaption>
  </figure>`;
}

const PARTS = { queue_ms: "queue", load_ms: "loading", execute_ms: "editing", upload_ms: "saving" };

/** Where the time went. */
function Times({ timings }) {
  const parts = Object.entries(PARTS).map(([name, label]) => [label, timings[name] ?? 0]);
  const all = parts.reduce((sum, [, ms]) => sum + ms, 0) || 1;
  return html`<div class="times" role="img" aria-label=${parts.map(([label, ms]) => `${label} ${duration(ms)}`).join(", ")}>
    <div class="bar">${parts.map(([label, ms]) => html`<i class=${label} style=${`width: ${(100 * ms) / all}%`}></i>`)}</div>
    <p>${parts.filter(([, ms]) => ms > 0).map(([label, ms]) => html`<span class=${label}>${label} ${duration(ms)}</span>`)}</p>
  </div>`;
}

/** Why there is no picture, and what to do. */
export function Failed({ generation, actions }) {
  const verdict = generation.error_details;
  const isFiltered = generation.error_code === "content_filtered";
  return html`<div class="failed">
    <h2>${generation.status === "cancelled" ? "Cancelled" : isFiltered ? "Refused by a filter" : STATUS_WORDS.failed}</h2>
    ${generation.error_message ? html`<${Notice} error=${{ message: `${generation.error_message} (${generation.error_code})` }} />` : null}
    ${isFiltered && verdict ? html`<dl class="facts">${Object.entries(verdict).filter(([, value]) => typeof value !== "object").map(([name, value]) => html`<div><dt>${name}</dt><dd>${String(value)}</dd></div>`)}</dl>` : null}
    <div class="row">
      ${generation.status === "failed" && !isFiltered && generation.error_code !== "invalid_input" ? html`<button type="button" class="primary" onClick=${() => actions.retry(generation)}>Try again</button>` : null}
      <button type="button" onClick=${() => actions.recall(generation, true)}>Recall settings</button>
    </div>
  </div>`;
}

/** Pictures from which this one came, to step back through. */
export function Lineage({ chain, current, onOpen }) {
  if (chain.length < 2) return null;
  return html`<ol class="lineage" aria-label="How it came about">
    ${chain.map((generation, index) => html`<li>
      <button type="button" aria-current=${generation.generation_id === current ? "true" : null} onClick=${() => onOpen(generation)}>
        <img src=${generation.thumbnail_url} alt="" /><span>${index + 1}. ${generation.prompt}</span>
      </button>
    </li>`)}
  </ol>`;
}
