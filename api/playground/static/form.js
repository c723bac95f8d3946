// A form from a model's JSON schema: a model that is added needs no other page.

import { html } from "./vendor/htm-preact.js";

const ELSEWHERE = new Set(["prompt", "input_image", "mask_image", "previews"]);
/** Fields that are shown before "More settings" is opened. */
const FIRST = ["aspect_ratio", "seed", "num_inference_steps", "guidance"];

export function fieldsOf(model) {
  return Object.entries(model.request_schema.properties)
    .filter(([name]) => !ELSEWHERE.has(name))
    .map(([name, schema]) => ({ name, ...schema, label: schema.label ?? words(name) }))
    .sort((a, b) => rank(a.name) - rank(b.name));
}

const rank = (name) => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);
const words = (name) => (name[0].toUpperCase() + name.slice(1)).replaceAll("_", " ").replace("Num inference steps", "Steps");

/** What a form's texts mean; what is empty is left to the service. */
export function valuesOf(model, texts) {
  const values = {};
  for (const field of fieldsOf(model)) {
    const text = texts[field.name];
    if (text === undefined || text === "") continue;
    values[field.name] = field.type === "boolean" ? text === true : field.type === "string" ? text : Number(text);
    if (field.type === "boolean" && !values[field.name]) delete values[field.name];
  }
  return values;
}

/** The fields of a model, as inputs. */
export function ModelForm({ model, texts, onChange, fault }) {
  const fields = fieldsOf(model);
  const first = fields.filter((field) => FIRST.includes(field.name));
  const more = fields.filter((field) => !FIRST.includes(field.name));
  const draw = (field) => html`<${Field} key=${field.name} field=${field} value=${texts[field.name]} isWrong=${fault?.field === field.name}
    onChange=${(value) => onChange({ ...texts, [field.name]: value })} />`;
  return html`<div class="fields">${first.map(draw)}</div>
    ${more.length ? html`<details class="more" open=${more.some((field) => fault?.field === field.name)}>
      <summary>More settings</summary><div class="fields">${more.map(draw)}</div>
    </details>` : null}`;
}

function Field({ field, value, isWrong, onChange }) {
  const id = `field-${field.name}`;
  const shared = { id, "aria-describedby": `${id}-help`, "aria-invalid": isWrong ? "true" : null };
  const change = (event) => onChange(event.target.value);
  let input;
  if (field.type === "boolean") {
    input = html`<input ...${shared} type="checkbox" checked=${value === true} onChange=${(event) => onChange(event.target.checked)} />`;
  } else if (field.enum) {
    const usual = field.name === "aspect_ratio" ? "match_input_image" : field.default;
    input = html`<select ...${shared} value=${value ?? ""} onChange=${change}>
      <option value="">${field.name === "aspect_ratio" ? "as the picture" : usual ?? "–"}</option>
      ${field.enum.filter((one) => one !== usual).map((one) => html`<option value=${one}>${one}</option>`)}
    </select>`;
  } else if (field.type === "string") {
    input = html`<input ...${shared} type="text" maxlength=${field.maxLength} value=${value ?? ""} onInput=${change} />`;
  } else {
    input = html`<input ...${shared} type="number" min=${field.minimum} max=${field.maximum} step=${field.type === "integer" ? 1 : "any"}
      placeholder=${field.default ?? (field.name === "seed" ? "random" : "")} value=${value ?? ""} onInput=${change} />`;
  }
  return html`<div class=${`field ${field.type}`}>
    <label for=${id}>${field.label}</label>${input}
    <p id=${`${id}-help`} class="help">${field.description}${range(field)}</p>
  </div>`;
}

function range({ type, minimum, maximum }) {
  return (type === "integer" || type === "number") && minimum !== undefined && maximum !== undefined ? `; ${minimum} to ${maximum}` : "";
}
