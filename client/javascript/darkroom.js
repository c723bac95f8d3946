// The JavaScript client of a Darkroom service, for browsers and Node, without dependencies.

const TERMINAL = new Set(["succeeded", "failed", "cancelled"]);
const BUSY = new Set([429, 502, 503, 504]);
const TRIES = 8;
const LONGEST_PAUSE_MS = 10_000;
const POLL_S = 30;
const AGAIN_MS = 500;
const SILENCE_MS = 45_000;

/** What the service, or the way to it, refused. `status` is 0 where nobody answered. */
export class DarkroomError extends Error {
  constructor(message, { status = 0, code = "unreachable", field = null, retryAfterS = null } = {}) {
    super(message);
    this.name = "DarkroomError";
    Object.assign(this, { status, code, field, retryAfterS });
  }
}

/** An edit that was accepted and failed, or was cancelled. */
export class EditError extends DarkroomError {
  constructor(generation) {
    const cancelled = generation.status === "cancelled";
    super(cancelled ? "The edit was cancelled" : generation.error_message, {
      status: 200,
      code: cancelled ? "cancelled" : generation.error_code,
    });
    this.generation = generation;
  }
}

/** Random, also where there is no `crypto.randomUUID`: pages that came over plain http have none. */
export const randomId = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

const pauseMs = (failures) => Math.min(100 * 2 ** failures, 5000);

const sleep = (ms, signal) =>
  new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const stop = () => { clearTimeout(timer); reject(signal.reason); };
    const timer = setTimeout(() => { signal?.removeEventListener("abort", stop); resolve(); }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });

async function faultOf(answer) {
  const body = await answer.json().catch(() => ({}));
  const error = body?.error ?? {};
  const retryAfter = answer.headers.get("retry-after");
  return new DarkroomError(error.message ?? `The service answered ${answer.status}`, {
    status: answer.status,
    code: error.code ?? "unknown",
    field: error.field ?? null,
    retryAfterS: retryAfter ? Number(retryAfter) : null,
  });
}

/** Splits a stream of bytes into server-sent events. Throws where nothing comes for too long: the service sends comments. */
async function* eventsOf(body) {
  const decoder = new TextDecoder();
  const reader = body.getReader();
  let rest = "", timer;
  try {
    for (;;) {
      const silence = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error("silence")), SILENCE_MS); });
      const { done, value } = await Promise.race([reader.read(), silence]);
      clearTimeout(timer);
      if (done) return;
      rest += decoder.decode(value, { stream: true });
      const blocks = rest.split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const fields = {};
        for (const line of block.split("\n")) {
          const colon = line.indexOf(":");
          if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 1).trimStart();
        }
        if (fields.data) yield { type: fields.event ?? "message", cursor: fields.id ?? "", data: JSON.parse(fields.data) };
      }
    }
  } finally {
    clearTimeout(timer);
    reader.cancel().catch(() => {});
  }
}

/** A service and a key for it, or a token that a server made for this page. */
export class Darkroom {
  /** `url` is empty for the page's own host. `timeoutMs` is for one answer. */
  constructor({ url = "", key, fetch = globalThis.fetch.bind(globalThis), timeoutMs = 30_000 }) {
    this.url = url.replace(/\/$/, "");
    if (!/^[\x21-\x7e]+$/.test(key)) throw new DarkroomError("A key has letters, digits and signs of ASCII alone", { code: "invalid_key" });
    this.key = key;
    this.fetch = fetch;
    this.timeoutMs = timeoutMs;
  }

  /**
   * Enqueue an edit; `image` (`input_image`) is a URL, a data URI, a Blob, bytes or a list of them, `mask` (`mask_image`) one, white
   * where to paint anew; the rest are the model's parameters.
   */
  async submit({ image = null, input_image = image, mask = null, mask_image = mask, model = "flux-kontext-dev", ...parameters }, { idempotencyKey, signal } = {}) {
    const shaped = ["aspect_ratio", "width", "height", "exact_size"].some((name) => ![undefined, null, false].includes(parameters[name]));
    const pictures = { input_image: asBlobs(input_image), mask_image: asBlobs(mask_image) };
    const fields = { model, ...parameters, ...((input_image || parameters.parent_generation_id) && !shaped ? { aspect_ratio: "match_input_image" } : {}) };
    const sources = Object.values(present(pictures)).flat();
    const isUpload = sources.length > 0 && sources.every((one) => one instanceof Blob);
    // A form cannot hold files and URLs in an order: then files go as data URIs.
    const request = isUpload ? { body: this.#form(fields, pictures) } : { json: { ...fields, ...(await plain(pictures)) } };
    const headers = { "Idempotency-Key": idempotencyKey ?? randomId() };
    const answer = await this.json("POST", "/api/ai/queue", { ...request, headers, signal });
    return { ids: answer.generations.map((one) => one.generation_id), cursor: answer.cursor };
  }

  /**
   * Edit a picture and wait for it: the generation, whose `result_url` downloads the result. Throws `EditError`. Aborting cancels
   * the edit, unless it has an `idempotencyKey`.
   */
  async edit(request, { onEvent, ...options } = {}) {
    if ((request.num_generations ?? 1) !== 1) throw new TypeError("edit makes one picture; submit makes several, each with an id");
    const { ids, cursor } = await this.submit(request, options);
    let generation;
    try {
      for await (const event of this.follow(ids[0], { since: cursor, signal: options.signal })) onEvent?.(event);
      generation = await this.wait(ids[0], options);
    } catch (error) {
      // Who has an idempotency key may ask for it again.
      if (options.signal?.aborted && !options.idempotencyKey) this.cancel(ids[0]).catch(() => {});
      throw error;
    }
    if (generation.status !== "succeeded") throw new EditError(generation);
    return generation;
  }

  /** Events of one generation until it is over; where none arrive, it is polled until then. */
  async *follow(id, { since, signal } = {}) {
    // Without a cursor what happened long ago is not told again.
    if (!since && TERMINAL.has((await this.generation(id, { signal })).status)) return;
    try {
      for await (const event of this.events({ since, generationId: id, signal })) {
        const isEnd = event.data.generation_id === id && /_(completed|cancelled)$/.test(event.type);
        // It may have failed, and been retried since.
        if (isEnd && !since && !TERMINAL.has((await this.generation(id, { signal })).status)) continue;
        if (event.data.generation_id === id) yield event;
        if (isEnd) return;
        if (event.type === "resync") break;
      }
    } catch (error) {
      if (!(error instanceof DarkroomError) || (error.status !== 0 && !BUSY.has(error.status))) throw error;
    }
    await this.wait(id, { signal });
  }

  /** Events as they happen, resumed without a gap when the connection breaks. Ends never by itself. */
  async *events({ since, generationId, types, signal, onState } = {}) {
    let cursor = since, failures = 0;
    for (;;) {
      const query = new URLSearchParams(present({ since: cursor, generation_id: generationId, types }));
      try {
        const answer = await this.#stream(`${this.url}/api/events?${query}`, signal);
        if (!answer.ok) throw await faultOf(answer);
        onState?.("open");
        for await (const event of eventsOf(answer.body)) {
          failures = 0;
          cursor = event.cursor || cursor;
          yield event;
        }
      } catch (error) {
        signal?.throwIfAborted();
        const isLost = !(error instanceof DarkroomError) || error.status >= 500 || BUSY.has(error.status);
        if (!isLost) throw error;
        onState?.("lost");
        if (++failures === TRIES) throw error instanceof DarkroomError ? error : new DarkroomError("The service does not answer");
      }
      // A stream that ends at once is not to be opened again and again without a pause.
      await sleep(failures ? pauseMs(failures) : AGAIN_MS, signal);
    }
  }

  /** A generation; with `waitS`, as soon as it is over or the seconds are. */
  async generation(id, { waitS = 0, signal } = {}) {
    const query = waitS ? `?wait=${waitS}` : "";
    // A long poll that breaks is not repeated as it is: `wait` asks briefly then.
    const options = { signal, timeoutMs: this.timeoutMs + waitS * 1000, tries: waitS ? 1 : TRIES };
    return this.json("GET", `/api/ai/queue/${encodeURIComponent(id)}${query}`, options);
  }

  /** A generation once it is over. */
  async wait(id, { signal } = {}) {
    for (;;) {
      let generation;
      try {
        generation = await this.generation(id, { waitS: POLL_S, signal });
      } catch (error) {
        if (!(error instanceof DarkroomError) || (error.status !== 0 && !BUSY.has(error.status))) throw error;
        // Connections that do not last, or a service that is away for a moment.
        await sleep(1000, signal);
        generation = await this.generation(id, { signal });
      }
      if (TERMINAL.has(generation.status)) return generation;
    }
  }

  /** The result of a generation as a Blob. */
  async download(generation) {
    const answer = await this.fetch(generation.result_url);
    if (!answer.ok) throw new DarkroomError("The result could not be downloaded", { status: answer.status, code: "download_failed" });
    return answer.blob();
  }

  /** Generations, newest first: a page, and what to give as `after` for the next one. */
  async list(filters = {}, { signal } = {}) {
    const answer = await this.json("GET", `/api/ai/queue?${new URLSearchParams(present(filters))}`, { signal });
    return { generations: answer.generations, next: answer.next };
  }

  /** Cancel; false: it was over already. */
  async cancel(id) {
    return (await this.json("DELETE", `/api/ai/queue/${encodeURIComponent(id)}`)).effect === "cancelled";
  }

  /** Delete all that is kept of a generation; how much that was. */
  async erase(id) {
    return (await this.json("DELETE", `/api/ai/queue/${encodeURIComponent(id)}?erase=true`)).erased;
  }

  /** Any route: its answer's JSON. Repeated while the service is busy or away, where that is safe. */
  async json(method, path, { json, body, headers = {}, signal, timeoutMs = this.timeoutMs, tries = TRIES } = {}) {
    const sent = json === undefined ? body : JSON.stringify(json);
    const kind = json === undefined ? {} : { "Content-Type": "application/json" };
    const mayRepeat = method !== "POST" || "Idempotency-Key" in headers;
    for (let tried = 1; ; tried++) {
      const isLast = tried >= tries || !mayRepeat;
      let pause = pauseMs(tried);
      try {
        const limit = AbortSignal.timeout(timeoutMs);
        const answer = await this.fetch(this.url + path, {
          method, body: sent, headers: { ...this.#headers(), ...kind, ...headers },
          signal: signal ? AbortSignal.any([signal, limit]) : limit,
        });
        // Awaited here: a body that breaks off is a connection that broke.
        if (answer.ok) return await answer.json();
        if (isLast || !BUSY.has(answer.status)) throw await faultOf(answer);
        // A date, which it may be, is no number.
        pause = Math.max(pause, 1000 * (Number(answer.headers.get("retry-after")) || 0));
      } catch (error) {
        if (error instanceof DarkroomError) throw error;
        signal?.throwIfAborted();
        if (isLast) throw new DarkroomError("The service does not answer");
      }
      await sleep(Math.min(pause, LONGEST_PAUSE_MS), signal);
    }
  }

  /** A stream's answer; its head has to come in time, its body may take for ever. */
  async #stream(url, signal) {
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(new Error("no answer in time")), this.timeoutMs);
    try {
      return await this.fetch(url, { headers: this.#headers(), signal: signal ? AbortSignal.any([signal, abort.signal]) : abort.signal });
    } finally {
      clearTimeout(timer);
    }
  }

  #headers() {
    return { Authorization: `Bearer ${this.key}` };
  }

  #form(fields, pictures) {
    const form = new FormData();
    for (const [name, value] of Object.entries(present(fields))) {
      form.append(name, Array.isArray(value) ? value.join(",") : typeof value === "object" ? JSON.stringify(value) : String(value));
    }
    for (const [name, sources] of Object.entries(present(pictures))) {
      for (const source of [sources].flat()) {
        form.append(name, source, source.name ?? "picture");
      }
    }
    return form;
  }
}

const present = (fields) => Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null && value !== undefined));

/** Pictures with bytes (a Buffer of Node, say) as Blobs. */
const asBlobs = (pictures) => (Array.isArray(pictures) ? pictures.map(asBlobs) : pictures instanceof ArrayBuffer || ArrayBuffer.isView(pictures) ? new Blob([pictures]) : pictures);

/** Pictures as JSON has them: files as data URIs. */
async function plain(pictures) {
  const uri = async (source) => {
    if (!(source instanceof Blob)) return source;
    const bytes = new Uint8Array(await source.arrayBuffer());
    let text = "";
    for (let at = 0; at < bytes.length; at += 32_768) text += String.fromCharCode(...bytes.subarray(at, at + 32_768));
    return `data:${source.type || "image/png"};base64,${btoa(text)}`;
  };
  const entries = Object.entries(present(pictures)).map(async ([name, one]) => [name, Array.isArray(one) ? await Promise.all(one.map(uri)) : await uri(one)]);
  return Object.fromEntries(await Promise.all(entries));
}
