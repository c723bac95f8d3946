// The pictures that go in: dropped, pasted, picked, photographed, or the sample; in an order.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";

let lastNumber = 0;

/** A picture of the form: a file, or a result that is edited again (`parent`), or one that is kept at a URL. */
export const ofFile = (file) => ({ number: ++lastNumber, file, name: file.name || "picture", shown: URL.createObjectURL(file) });
export const ofParent = (generation) => ({ number: ++lastNumber, parent: generation, name: "the result before", shown: generation.download_url });
export const ofUrl = (url) => ({ number: ++lastNumber, url, name: "the picture of before", shown: url });

export async function sample() {
  const answer = await fetch("/playground/sample.jpg");
  return ofFile(new File([await answer.blob()], "astronaut.jpg", { type: "image/jpeg" }));
}

const NO_PICTURE = "cannot be edited: choose a PNG, JPEG, WebP or GIF picture";

export function Inputs({ pictures, most, onChange, onFault, mask, onMask, takesMask }) {
  const [isOver, setOver] = useState(false);
  const picker = useRef(null), camera = useRef(null);
  const add = (files) => {
    const other = [...files].find((file) => !file.type.startsWith("image/"));
    if (other) onFault(`${other.name} ${NO_PICTURE}`);
    const found = [...files].filter((file) => file.type.startsWith("image/")).map(ofFile);
    if (found.length) onChange(most === 1 ? found.slice(0, 1) : [...pictures, ...found].slice(0, most));
  };

  useEffect(() => {
    const paste = (event) => { if (event.clipboardData?.files.length) add(event.clipboardData.files); };
    addEventListener("paste", paste);
    return () => removeEventListener("paste", paste);
  }, [pictures, most]);

  const drop = (event) => {
    event.preventDefault();
    setOver(false);
    add(event.dataTransfer.files);
  };
  const over = (event) => { event.preventDefault(); setOver(event.type === "dragover"); };
  const pick = (event) => { add(event.target.files); event.target.value = ""; };
  const useSample = async () => onChange([await sample()]);
  const remove = (picture) => onChange(pictures.filter((one) => one !== picture));
  const refuse = (picture) => {
    remove(picture);
    onFault(`${picture.name} ${NO_PICTURE}`);
  };
  const isFull = pictures.length >= most;
  return html`<section class=${`inputs ${isOver ? "over" : ""}`} aria-label="Pictures" onDrop=${drop} onDragOver=${over} onDragLeave=${over}>
    <input ref=${picker} id="picker" type="file" accept="image/png,image/jpeg,image/webp,image/gif" multiple hidden onChange=${pick} />
    <input ref=${camera} type="file" accept="image/*" capture="environment" hidden onChange=${pick} />
    ${pictures.length ? html`<ol class="pictures">${pictures.map((picture, index) => html`<${Thumbnail} key=${picture.number} picture=${picture} index=${index}
        count=${pictures.length} onMove=${(to, from = index) => onChange(moved(pictures, from, to))} onRemove=${() => remove(picture)} onBroken=${picture.file ? () => refuse(picture) : null} />`)}</ol>`
    : html`<p class="drop">Drop a picture here, or paste one</p>`}
    <div class="row">
      <button type="button" class="small" disabled=${isFull && most > 1} onClick=${() => picker.current.click()}>${pictures.length ? (most === 1 ? "Replace" : "Add") : "Choose a file"}</button>
      <button type="button" class="small touch" onClick=${() => camera.current.click()}>Take a photograph</button>
      ${pictures.length ? null : html`<button type="button" class="small" onClick=${useSample}>Use the sample</button>`}
      ${takesMask && pictures.length ? html`<button type="button" class="small" aria-pressed=${mask ? "true" : "false"} onClick=${onMask}>${mask ? "Change the mask" : "Paint a mask"}</button>` : null}
    </div>
  </section>`;
}

function moved(pictures, from, to) {
  const order = [...pictures];
  const [one] = order.splice(from, 1);
  order.splice(Math.max(0, Math.min(to, order.length)), 0, one);
  return order;
}

function Thumbnail({ picture, index, count, onMove, onRemove, onBroken }) {
  const start = (event) => event.dataTransfer.setData("text/plain", String(index));
  const drop = (event) => {
    const from = event.dataTransfer.getData("text/plain");
    if (from === "") return;
    event.preventDefault();
    event.stopPropagation();
    onMove(index, Number(from));
  };
  const several = count > 1;
  return html`<li draggable=${several} onDragStart=${start} onDrop=${drop} onDragOver=${(event) => event.preventDefault()}>
    <img src=${picture.shown} alt=${`Picture ${index + 1}: ${picture.name}`} onError=${onBroken} />
    ${several ? html`<button type="button" class="plain" aria-label=${`Move picture ${index + 1} before`} disabled=${index === 0} onClick=${() => onMove(index - 1)}>‹</button>
      <button type="button" class="plain" aria-label=${`Move picture ${index + 1} behind`} disabled=${index === count - 1} onClick=${() => onMove(index + 1)}>›</button>` : null}
    <button type="button" class="plain remove" aria-label=${`Remove picture ${index + 1}`} onClick=${onRemove}>×</button>
  </li>`;
}
