// Small pieces that several views share.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";

export const STATUS_WORDS = {
  queued: "Queued", processing: "Running", succeeded: "Done", failed: "Failed", cancelled: "Cancelled",
};

/** What went wrong, with what to do about it. */
export function Notice({ error, onClose }) {
  if (!error) return null;
  return html`<div class="notice" role="alert">
    <p>${error.message}</p>
    ${error.retryAfterS ? html`<p class="quiet">Try again in ${error.retryAfterS} s.</p>` : null}
    ${onClose ? html`<button type="button" class="plain" aria-label="Close" onClick=${onClose}>×</button>` : null}
  </div>`;
}

/** Runs `load` when its `inputs` change, and every `everyMs`; what came of it, and a way to run it again. */
export function useLoaded(load, inputs, everyMs = 0) {
  const [loaded, setLoaded] = useState({ value: null, error: null });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const abort = new AbortController();
    const run = async () => {
      try {
        const value = await load(abort.signal);
        if (!abort.signal.aborted) setLoaded({ value, error: null });
      } catch (error) {
        if (!abort.signal.aborted) setLoaded((before) => ({ ...before, error }));
      }
    };
    let timer = null;
    // The next follows the last one's answer: while the service is away, none pile up.
    const again = async () => {
      await run();
      if (everyMs && !abort.signal.aborted) timer = setTimeout(again, everyMs);
    };
    again();
    return () => { abort.abort(); clearTimeout(timer); };
  }, [...inputs, turn]);
  return { ...loaded, reload: () => setTurn((n) => n + 1) };
}

/** The time now, every second, for what counts down. */
export function useNow(everyMs = 1000) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
  return now;
}

export function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
}

export function ago(seconds, now) {
  const passed = Math.max(0, now / 1000 - seconds);
  for (const [unit, length] of [["d", 86_400], ["h", 3600], ["min", 60]]) {
    if (passed >= length) return `${Math.floor(passed / length)} ${unit} ago`;
  }
  return "just now";
}

export function left(seconds, now) {
  const rest = seconds - now / 1000;
  if (rest <= 0) return "expired";
  if (rest >= 86_400) return `${Math.floor(rest / 86_400)} d ${Math.floor((rest % 86_400) / 3600)} h`;
  const [hours, minutes, secs] = [Math.floor(rest / 3600), Math.floor((rest % 3600) / 60), Math.floor(rest % 60)];
  return hours ? `${hours} h ${minutes} min` : `${minutes}:${String(secs).padStart(2, "0")} min`;
}

export const money = (usd) => (usd === null || usd === undefined ? "–" : `$${usd < 0.01 && usd > 0 ? usd.toFixed(4) : usd.toFixed(2)}`);

/** To the clipboard, also from pages that came over plain http, which have no `navigator.clipboard`. */
async function write(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = Object.assign(document.createElement("textarea"), { value: text });
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
  return undefined;
}

/** A button that copies text and says so. */
export function Copy({ text, label = "Copy" }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    await write(text);
    setCopied(true);
    setTimeout(() => setCopied(false), 1500);
  };
  return html`<button type="button" class="small" onClick=${copy}>${copied ? "Copied" : label}</button>`;
}

/** A button that asks once more before it does what cannot be undone. */
export function Confirmed({ label, question, onConfirm }) {
  const [isAsking, setAsking] = useState(false);
  const no = useRef(null), opener = useRef(null);
  useEffect(() => {
    if (isAsking) no.current?.focus();
  }, [isAsking]);
  const close = () => { setAsking(false); setTimeout(() => opener.current?.focus()); };
  if (!isAsking) return html`<button type="button" class="small" ref=${opener} onClick=${() => setAsking(true)}>${label}</button>`;
  return html`<span class="confirm" role="group" aria-label=${question}>
    <button type="button" class="small danger" onClick=${() => { close(); onConfirm(); }}>${question}</button>
    <button type="button" class="small" ref=${no} onClick=${close}>No</button>
  </span>`;
}
