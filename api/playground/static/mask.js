// Painting a mask: white where the picture is to be painted anew, over the picture, with mouse, pen, finger or keys.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";

const KEY_STEP = 0.02;

// `mask` is one that was painted before, to go on with; one that is elsewhere (recalled) is begun anew.
export function MaskPainter({ picture, mask, onDone, onCancel }) {
  const dialog = useRef(null), canvas = useRef(null), image = useRef(null);
  const [size, setSize] = useState(8);
  const [isErasing, setErasing] = useState(false);
  const [isPainted, setPainted] = useState(false);
  const last = useRef(null);
  const cursor = useRef({ x: 0.5, y: 0.5 });
  // Where the brush is, for a user who moves it by keys.
  const [brush, setBrush] = useState(null);

  useEffect(() => { dialog.current.showModal(); }, []);

  const ready = async () => {
    const width = (canvas.current.width = image.current.naturalWidth);
    const height = (canvas.current.height = image.current.naturalHeight);
    if (!(mask instanceof Blob)) return;
    const before = await createImageBitmap(mask);
    const pen = canvas.current.getContext("2d");
    pen.drawImage(before, 0, 0, width, height);
    const shown = pen.getImageData(0, 0, width, height);
    // White is painted, black is not.
    for (let at = 0; at < shown.data.length; at += 4) {
      shown.data[at + 3] = shown.data[at];
      shown.data[at] = shown.data[at + 1] = shown.data[at + 2] = 255;
    }
    pen.putImageData(shown, 0, 0);
    setPainted(true);
  };
  const dot = (to) => {
    const { width, height } = canvas.current;
    const pen = canvas.current.getContext("2d");
    pen.globalCompositeOperation = isErasing ? "destination-out" : "source-over";
    pen.strokeStyle = "#fff";
    pen.lineCap = pen.lineJoin = "round";
    pen.lineWidth = (size / 100) * Math.max(width, height);
    const from = last.current ?? to;
    pen.beginPath();
    pen.moveTo(from.x * width, from.y * height);
    pen.lineTo(to.x * width + 0.01, to.y * height);
    pen.stroke();
    last.current = to;
    setPainted(true);
  };
  const place = (event) => {
    const box = canvas.current.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  };
  const down = (event) => {
    event.preventDefault();
    setBrush(null);
    canvas.current.setPointerCapture(event.pointerId);
    last.current = null;
    dot(place(event));
  };
  const move = (event) => { if (event.buttons) dot(place(event)); };
  const key = (event) => {
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0];
    if (!dx && !dy && event.key !== " ") return;
    event.preventDefault();
    const clip = (value) => Math.min(1, Math.max(0, value));
    cursor.current = { x: clip(cursor.current.x + dx * KEY_STEP), y: clip(cursor.current.y + dy * KEY_STEP) };
    setBrush(cursor.current);
    if (event.shiftKey || event.key === " ") dot(cursor.current);
    else last.current = null;
  };
  const brushStyle = () => {
    const { width, height } = canvas.current;
    return `left: ${100 * brush.x}%; top: ${100 * brush.y}%; width: ${(size * Math.max(width, height)) / width}%`;
  };
  const clear = () => {
    canvas.current.getContext("2d").clearRect(0, 0, canvas.current.width, canvas.current.height);
    setPainted(false);
  };
  const done = () => {
    const { width, height } = canvas.current;
    const flat = Object.assign(document.createElement("canvas"), { width, height });
    const pen = flat.getContext("2d");
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, width, height);
    pen.drawImage(canvas.current, 0, 0);
    flat.toBlob((blob) => onDone(new File([blob], "mask.png", { type: "image/png" })), "image/png");
  };

  return html`<dialog ref=${dialog} class="mask" aria-labelledby="mask-title" onCancel=${onCancel}>
    <h2 id="mask-title">Paint what is to be made anew</h2>
    <div class="paint">
      <img ref=${image} src=${picture.shown} alt="" onLoad=${ready} />
      <canvas ref=${canvas} tabindex="0" aria-label="Mask. Arrow keys move the brush, with Shift they paint; Space paints a dot."
        onPointerDown=${down} onPointerMove=${move} onPointerUp=${() => { last.current = null; }} onKeyDown=${key}
        onFocus=${() => setBrush(cursor.current)} onBlur=${() => setBrush(null)}></canvas>
      ${brush && canvas.current?.width ? html`<span class="brush" style=${brushStyle()}></span>` : null}
    </div>
    <div class="row">
      <label>Brush <input type="range" min="1" max="30" value=${size} onInput=${(event) => setSize(Number(event.target.value))} /></label>
      <button type="button" class="small" aria-pressed=${isErasing ? "true" : "false"} onClick=${() => setErasing(!isErasing)}>Erase</button>
      <button type="button" class="small" onClick=${clear}>Clear</button>
      <span class="spring"></span>
      <button type="button" onClick=${onCancel}>Cancel</button>
      <button type="button" class="primary" disabled=${!isPainted} onClick=${done}>Use this mask</button>
    </div>
  </dialog>`;
}
