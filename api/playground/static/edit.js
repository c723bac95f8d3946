// The playground: pictures, an instruction and settings on the left, what comes of them on the right.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { ApiTab } from "./apitab.js";
import { Compare, Grid, variantsOf } from "./compare.js";
import { randomId } from "./darkroom.js";
import { ModelForm, fieldsOf, valuesOf } from "./form.js";
import { Inputs, ofParent, ofUrl } from "./inputs.js";
import { MaskPainter } from "./mask.js";
import { lineageOf, pictureBefore, startRun, useRuns } from "./runs.js";
import { Failed, Lineage, Result, Running } from "./stage.js";
import { Notice, useLoaded } from "./ui.js";

const SUGGESTIONS = ["make it black and white", "turn it sepia", "give it a red border", "make it brighter", "pixelate it", "draw it as a pencil sketch"];
const OFF = { kind: "none", text: "", models: [] };
const USUAL_MODEL = "flux-kontext-dev";

/** State of the form, which outlives a look at another view. */
function useKept(session, name, initial) {
  const [value, setValue] = useState(session.kept[name] ?? initial);
  return [value, (next) => { session.kept[name] = next; setValue(next); }];
}

export function EditView({ session, id }) {
  const models = useLoaded((signal) => session.api.json("GET", "/api/ai/models", { signal }), [session]);
  if (models.error) return html`<${Notice} error=${models.error} />`;
  if (!models.value) return html`<p class="empty" role="status">Loading …</p>`;
  return html`<${Workbench} session=${session} id=${id} models=${models.value.data} />`;
}

function Workbench({ session, id, models }) {
  const [pictures, setPictures] = useKept(session, "pictures", []);
  const [prompt, setPrompt] = useKept(session, "prompt", "");
  const [modelId, setModelId] = useKept(session, "model", USUAL_MODEL);
  const [texts, setTexts] = useKept(session, "texts", {});
  const [mask, setMask] = useKept(session, "mask", null);
  const [compare, setCompare] = useKept(session, "compare", OFF);
  const [isPainting, setPainting] = useState(false);
  const [fault, setFault] = useState(null);
  const [isSending, setSending] = useState(false);
  const [chain, setChain] = useState([]);
  const { runs, chosen, show, add, choose, remove, update } = useRuns(session);
  const promptField = useRef(null), stage = useRef(null), isStopped = useRef(false), isBusy = useRef(false);
  const model = models.find((one) => one.id === modelId) ?? models[0];
  const { most_inputs: most, mask: takesMask, text_to_image: needsNone } = model.capabilities;
  const run = chosen === null ? null : runs[chosen];
  const generation = run?.generation;
  const canSend = prompt.trim() && (pictures.length || needsNone) && !isSending;

  useEffect(() => {
    if (!id) return undefined;
    const index = runs.findIndex((one) => one.key === id);
    if (index >= 0) {
      choose(index);
      return undefined;
    }
    let isCurrent = true;
    session.api.generation(id).then((found) => { if (isCurrent) show([startRun(found)]); }, (error) => { if (isCurrent) setFault(error); });
    return () => { isCurrent = false; };
  }, [id]);

  useEffect(() => {
    let isCurrent = true;
    setChain([]);
    if (generation?.status === "succeeded") lineageOf(session, generation).then((found) => { if (isCurrent) setChain(found); }, () => {});
    return () => { isCurrent = false; };
  }, [generation?.generation_id, generation?.status]);

  const requestOf = (changes = {}) => {
    const chosenModel = models.find((one) => one.id === (changes.model ?? model.id));
    const [first] = pictures;
    const parent = first?.parent?.generation_id;
    const images = (parent ? pictures.slice(1) : pictures).map((one) => one.file ?? one.url ?? one.parent.download_url);
    const canPreview = "previews" in chosenModel.request_schema.properties;
    return {
      prompt, model: chosenModel.id, ...valuesOf(chosenModel, texts), ...(canPreview ? { previews: true } : {}),
      ...(parent ? { parent_generation_id: parent, ...(texts.aspect_ratio ? {} : { aspect_ratio: "match_input_image" }) } : {}),
      image: images.length ? (images.length === 1 ? images[0] : images) : null, mask: chosenModel.capabilities.mask ? mask : null, ...changes,
    };
  };

  /** Submit requests one after another; each is shown as soon as it is accepted. */
  const start = async (requests) => {
    // A second click comes before the button is drawn anew.
    if (isBusy.current) return;
    isBusy.current = true;
    setFault(null);
    setSending(true);
    isStopped.current = false;
    const started = [];
    try {
      for (const { request, label, before } of requests) {
        if (isStopped.current) break;
        const accepted = await session.api.submit(request);
        const one = { ...startRun(await session.api.generation(accepted.ids[0])), label, before };
        if (isStopped.current) session.api.cancel(one.key).catch(setFault);
        started.push(one);
        if (started.length === 1) show([one]);
        else add(one);
      }
    } catch (error) {
      setFault(error);
      if (error.field === "prompt") promptField.current?.focus();
    } finally {
      isBusy.current = false; setSending(false);
    }
    if (!started.length) return;
    stage.current?.scrollIntoView({ block: "nearest", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "instant" : "smooth" });
    // A user who looks at another view meanwhile stays there.
    if (!/^#\/(?!edit)/.test(location.hash)) location.hash = started.length === 1 ? `#/edit/${started[0].key}` : "#/edit";
  };

  const send = () => {
    const before = pictures[0]?.shown ?? null;
    if (compare.kind === "none") return start([{ request: requestOf(), label: "", before }]);
    const seed = texts.seed === undefined || texts.seed === "" ? null : Number(texts.seed);
    const variants = variantsOf(compare, seed);
    if (!variants.length) return setFault({ message: "Say what to compare: numbers, with commas between." });
    const group = randomId();
    return start(variants.map(({ label, changes }) => ({ request: { ...requestOf(changes), group }, label, before })));
  };
  const submit = (event) => { event?.preventDefault(); if (canSend) send(); };

  const open = (found) => { show([startRun(found)]); location.hash = `#/edit/${found.generation_id}`; };
  const recall = (found, withSeed) => {
    const chosenModel = models.find((one) => one.id === found.model_name) ?? model;
    const names = fieldsOf(chosenModel).map((field) => field.name);
    setModelId(chosenModel.id);
    setPrompt(found.prompt);
    // A shape that follows from the picture or from a ratio is told as sides, too.
    const left = [...(withSeed ? [] : ["seed"]), ...(found.aspect_ratio ? ["width", "height"] : []), ...(found.aspect_ratio === "match_input_image" ? ["aspect_ratio"] : [])];
    setTexts(Object.fromEntries(Object.entries(found).filter(([name, value]) => names.includes(name) && value !== null && !left.includes(name)).map(([name, value]) => [name, typeof value === "boolean" ? value : String(value)])));
    const urls = [found.input_image].flat().filter(Boolean);
    if (!pictures.length) setPictures(urls.map(ofUrl));
    if (found.mask_image) setFault({ message: "The settings are recalled without the mask: paint it again." });
    promptField.current?.focus();
  };
  const actions = {
    recall,
    again: (found) => { setPictures([ofParent(found)]); setMask(null); setPrompt(""); promptField.current?.focus(); },
    otherSeed: (found) => start([{ request: sameAs(found, models), label: "", before: pictureBefore(found) ?? run?.before ?? null }]),
    retry: (found) => session.api.json("POST", `/api/ai/queue/${found.generation_id}/retry`).then(update, setFault),
    erase: (found) => session.api.erase(found.generation_id).then(() => { remove(found.generation_id); location.hash = "#/edit"; }, setFault),
  };
  const cancel = (one) => session.api.cancel(one.generation.generation_id).catch(setFault);

  return html`<div class="workbench">
    <form class="panel" onSubmit=${submit} onKeyDown=${(event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit(event); }}>
      <${Inputs} pictures=${pictures} most=${most} takesMask=${takesMask} mask=${mask} onMask=${() => setPainting(true)} onFault=${(message) => setFault({ message })}
        onChange=${(next) => { setPictures(next); if (next[0] !== pictures[0]) setMask(null); }} />
      ${mask ? html`<p class="quiet row">${takesMask ? "A mask is painted." : "This model takes no mask; the painted one is not sent."} <button type="button" class="small" onClick=${() => setMask(null)}>Without it</button></p>` : null}
      <div class="field prompt-field">
        <label for="prompt">What is to change?</label>
        <textarea id="prompt" ref=${promptField} rows="3" maxlength="10000" value=${prompt} aria-invalid=${fault?.field === "prompt" ? "true" : null}
          placeholder="make it black and white" onInput=${(event) => setPrompt(event.target.value)}></textarea>
      </div>
      <div class="suggestions" role="group" aria-label="Suggestions">
        ${SUGGESTIONS.map((text) => html`<button type="button" class="chip" onClick=${() => setPrompt(text)}>${text}</button>`)}
      </div>
      <button type="submit" class="primary wide" disabled=${!canSend}>${isSending ? "Sending …" : compare.kind === "none" ? "Edit" : "Edit and compare"}</button>
      <${Notice} error=${fault} onClose=${() => setFault(null)} />
      <div class="field"><label for="model">Model</label>
        <select id="model" value=${model.id} onChange=${(event) => setModelId(event.target.value)}>
          ${models.map((one) => html`<option value=${one.id}>${one.display_name === one.id ? one.id : `${one.display_name} (${one.id})`}</option>`)}
        </select>
        ${model.weights.note ? html`<p class="help">${model.weights.name}: ${model.weights.note}</p>` : html`<p class="help">${model.summary}</p>`}
      </div>
      <${ModelForm} model=${model} texts=${texts} onChange=${setTexts} fault=${fault} />
      <${Compare} value=${compare} models=${models} onChange=${setCompare} />
    </form>
    <section class="stage" ref=${stage} aria-label="Result">
      ${runs.length > 1 && chosen === null ? html`<${Grid} runs=${runs} before=${runs[0].before} onOpen=${choose} onCancel=${() => { isStopped.current = true; runs.forEach(cancel); }} onFault=${setFault} />`
      : run ? html`${runs.length > 1 ? html`<button type="button" class="small back" onClick=${() => choose(null)}>‹ Back to the comparison</button>` : null}
        <${Shown} run=${run} actions=${actions} onCancel=${() => cancel(run)} />
        <${Lineage} chain=${chain} current=${generation?.generation_id} onOpen=${open} />`
      : pictures.length ? html`<figure><div class="frame"><img src=${pictures[0].shown} alt="The picture that will be edited" /></div></figure>`
      : html`<div class="welcome"><h1>Edit a picture by saying what is to change</h1><p>Drop one on the left, or take the sample, and describe the change.</p></div>`}
      <${ApiTab} request=${{ model: model.id, aliases: model.aliases, prompt: prompt || "make it black and white", values: valuesOf(model, texts), file: fileOf(pictures, needsNone), url: urlOf(pictures), isShortened: pictures.length > 1 || Boolean(mask && takesMask) }} />
    </section>
    ${isPainting ? html`<${MaskPainter} picture=${pictures[0]} mask=${mask} onCancel=${() => setPainting(false)} onDone=${(file) => { setMask(file); setPainting(false); }} />` : null}
  </div>`;
}

/** The request that led to a generation, with another seed. */
function sameAs(found, models) {
  const model = models.find((one) => one.id === found.model_name);
  const names = model ? Object.keys(model.request_schema.properties) : [];
  const values = Object.fromEntries(Object.entries(found).filter(([name, value]) => names.includes(name) && value !== null));
  const { input_image: image = null, mask_image: mask = null, ...rest } = values;
  const parent = found.parent_generation_id;
  const references = [image].flat().filter(Boolean).slice(parent ? 1 : 0);
  return {
    ...rest, prompt: found.prompt, model: found.model_name, seed: Math.floor(Math.random() * 2 ** 31), mask,
    image: references.length > 1 ? references : references[0] ?? null, ...(parent ? { parent_generation_id: parent } : {}),
  };
}

const fileOf = ([first], needsNone) => (first ? first.file?.name ?? null : needsNone ? null : "photo.jpg");
const urlOf = ([first]) => (first && !first.file ? first.url ?? first.parent.download_url : null);

function Shown({ run, actions, onCancel }) {
  const { generation, isGone } = run;
  if (isGone) return html`<p class="empty">This edit was erased.</p>`;
  if (["queued", "processing"].includes(generation.status)) return html`<${Running} run=${run} before=${run.before ?? pictureBefore(generation)} onCancel=${onCancel} />`;
  if (generation.status === "succeeded") return html`<${Result} generation=${generation} before=${run.before ?? pictureBefore(generation)} actions=${actions} />`;
  return html`<${Failed} generation=${generation} actions=${actions} />`;
}
