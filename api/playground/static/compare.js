// The same edit several times with one thing changed, side by side.

import { html } from "./vendor/htm-preact.js";
import { progressOf } from "./stage.js";

export const MOST = 8;
export const KINDS = { none: "Off", seeds: "Seeds", num_inference_steps: "Steps", guidance: "Guidance", models: "Models" };

/** What is changed in each run: the label it has, and the request's changes. */
export function variantsOf({ kind, text, models }, seed) {
  if (kind === "seeds") {
    const first = seed ?? Math.floor(Math.random() * 2 ** 31);
    const count = Math.min(MOST, Math.max(2, Number(text) || 4));
    return Array.from({ length: count }, (_, n) => (first + n) % 2 ** 32).map((one) => ({ label: `seed ${one}`, changes: { seed: one } }));
  }
  const shared = seed ?? Math.floor(Math.random() * 2 ** 31);
  if (kind === "models") return models.slice(0, MOST).map((model) => ({ label: model, changes: { model, seed: shared } }));
  const word = kind === "guidance" ? "guidance" : "steps";
  const numbers = text.split(/[\s,;]+/).filter((one) => one !== "" && Number.isFinite(Number(one)));
  return numbers.slice(0, MOST).map((one) => ({ label: `${word} ${one}`, changes: { [kind]: Number(one), seed: shared } }));
}

export function Compare({ value, models, onChange }) {
  const set = (changes) => onChange({ ...value, ...changes });
  const toggle = (id) => set({ models: value.models.includes(id) ? value.models.filter((one) => one !== id) : [...value.models, id] });
  const starts = { seeds: "4", num_inference_steps: "8, 16, 28", guidance: "1.5, 2.5, 4" };
  return html`<fieldset class="compare">
    <legend>Compare</legend>
    <div class="row">
      ${Object.entries(KINDS).map(([kind, label]) => html`<label class="choice"><input type="radio" name="compare" checked=${value.kind === kind}
        onChange=${() => set({ kind, text: starts[kind] ?? "" })} />${label}</label>`)}
    </div>
    ${value.kind === "seeds" ? html`<label>How many <input type="number" min="2" max=${MOST} value=${value.text} onInput=${(event) => set({ text: event.target.value })} /></label>` : null}
    ${value.kind in { num_inference_steps: 1, guidance: 1 } ? html`<label>Values <input type="text" inputmode="decimal" value=${value.text} onInput=${(event) => set({ text: event.target.value })} /></label>` : null}
    ${value.kind === "models" ? html`<div class="choices">${models.map((model) => html`<label class="choice"><input type="checkbox" checked=${value.models.includes(model.id)} onChange=${() => toggle(model.id)} />${model.display_name} <span class="quiet">${model.id}</span></label>`)}</div>` : null}
  </fieldset>`;
}

/** The runs of a group, as a grid. */
export function Grid({ runs, before, onOpen, onCancel, onFault }) {
  const isOver = runs.every((run) => run.isGone || !["queued", "processing"].includes(run.generation.status));
  return html`<section aria-label="Comparison">
    <ul class="grid">${runs.map((run, index) => html`<li key=${run.key}>
      <${Cell} run=${run} before=${before} onOpen=${() => onOpen(index)} /><p>${run.label}</p>
    </li>`)}</ul>
    <div class="row">
      ${isOver ? html`<button type="button" onClick=${() => save(runs).catch(onFault)}>Download as one picture</button>` : html`<button type="button" onClick=${onCancel}>Cancel all</button>`}
    </div>
  </section>`;
}

function Cell({ run, before, onOpen }) {
  const { generation, isGone } = run;
  if (isGone) return html`<div class="cell">Erased</div>`;
  if (generation?.status === "succeeded") {
    return html`<button type="button" class="cell" onClick=${onOpen} aria-label=${`Open ${run.label}`}><img src=${generation.download_url} alt="" /></button>`;
  }
  if (generation && ["failed", "cancelled"].includes(generation.status)) {
    return html`<button type="button" class="cell" onClick=${onOpen}>${generation.error_message ?? "Cancelled"}</button>`;
  }
  const { words, part } = progressOf(run);
  return html`<div class="cell">${before ? html`<img class="dim" src=${run.preview ?? before} alt="" />` : null}<progress max="1" value=${part} aria-label=${run.label}></progress><span>${words}</span></div>`;
}

async function save(runs) {
  const done = runs.filter((run) => run.generation?.status === "succeeded" && run.generation.download_url && !run.isGone);
  const pictures = await Promise.all(done.map(async (run) => createImageBitmap(await (await fetch(run.generation.download_url)).blob())));
  if (!pictures.length) return;
  const columns = Math.ceil(Math.sqrt(pictures.length)), rows = Math.ceil(pictures.length / columns);
  const [width, height, line] = [pictures[0].width, pictures[0].height, 28];
  const canvas = Object.assign(document.createElement("canvas"), { width: columns * width, height: rows * (height + line) });
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.fillStyle = "#111";
  pen.font = "15px system-ui";
  pictures.forEach((picture, index) => {
    const [x, y] = [(index % columns) * width, Math.floor(index / columns) * (height + line)];
    pen.drawImage(picture, x, y, width, height);
    pen.fillText(done[index].label, x + 8, y + height + 19, width - 16);
  });
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: "comparison.png" }).click();
}
