// What this tenant had made: filtered, searched, opened again, erased. Kept up to date by events.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { Confirmed, Notice, STATUS_WORDS, ago, useNow } from "./ui.js";

const PAGE = 48;
const STATUSES = { all: "All", succeeded: "Done", processing: "Running", queued: "Queued", failed: "Failed", cancelled: "Cancelled" };

export function HistoryView({ session }) {
  const [filters, setFilters] = useState({ status: "all", model: "", search: "" });
  const [listed, setListed] = useState({ generations: [], next: null, isLoading: true });
  const [error, setError] = useState(null);
  const [models, setModels] = useState([]);
  const now = useNow(15_000);

  const [isMore, setMore] = useState(false);
  const wanted = (after) => ({ status: filters.status, model: filters.model || null, search: filters.search.trim() || null, limit: PAGE, after });

  useEffect(() => { session.api.json("GET", "/api/ai/models").then((found) => setModels(found.data), () => {}); }, [session]);
  // One of these for each choice of filters: what an earlier one still waits for is nobody's.
  useEffect(() => {
    const abort = new AbortController();
    let timer = null, hasList = false;
    const refresh = async () => {
      try {
        const page = await session.api.list(wanted(null), { signal: abort.signal });
        const fresh = { generations: page.generations, next: page.next, isLoading: false };
        // Where more came than a page holds, what lies between is to be asked for again.
        setListed((before) => (hasList && meet(page.generations, before.generations) ? { ...before, generations: merged(page.generations, page.next ? olderThan(page.generations, before.generations) : []) } : fresh));
        hasList = true;
        setError(null);
      } catch (caught) {
        if (!abort.signal.aborted) setError(caught);
      }
    };
    // Not put off by what happens meanwhile, or nothing would be shown while much happens.
    const soon = (ms) => { timer ??= setTimeout(() => { timer = null; refresh(); }, ms); };
    soon(200);
    const stop = session.listen(({ type }) => { if (/_(queued|started|completed|cancelled)$|^resync$/.test(type)) soon(400); });
    return () => { clearTimeout(timer); stop(); abort.abort(); };
  }, [filters, session]);
  const more = async () => {
    setMore(true);
    try {
      const page = await session.api.list(wanted(listed.next));
      setListed((before) => (before.next === listed.next ? { ...before, generations: merged(before.generations, page.generations), next: page.next } : before));
    } catch (caught) {
      setError(caught);
    } finally {
      setMore(false);
    }
  };

  const set = (name) => (event) => setFilters({ ...filters, [name]: event.target.value });
  const erase = async (generation) => {
    try {
      await session.api.erase(generation.generation_id);
      setListed((before) => ({ ...before, generations: before.generations.filter((one) => one !== generation) }));
    } catch (caught) {
      setError(caught);
    }
  };
  return html`<section class="page" aria-labelledby="history-title">
    <h1 id="history-title">History</h1>
    <form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
      <label>Search <input type="search" value=${filters.search} placeholder="words of the instruction" onInput=${set("search")} /></label>
      <label>State <select value=${filters.status} onChange=${set("status")}>${Object.entries(STATUSES).map(([name, label]) => html`<option value=${name}>${label}</option>`)}</select></label>
      <label>Model <select value=${filters.model} onChange=${set("model")}><option value="">All</option>${models.map((one) => html`<option value=${one.id}>${one.id}</option>`)}</select></label>
    </form>
    <${Notice} error=${error} />
    ${!listed.isLoading && !listed.generations.length && !listed.next ? html`<p class="empty">Nothing here${filters.search || filters.model || filters.status !== "all" ? " that fits" : " yet"}.</p>` : null}
    <ul class="cards">${listed.generations.map((one) => html`<${Card} key=${one.generation_id} generation=${one} now=${now} onErase=${() => erase(one)} />`)}</ul>
    ${listed.next ? html`<button type="button" disabled=${isMore} onClick=${more}>Show more</button>` : null}
  </section>`;
}

const meet = (first, second) => second.some((one) => first.some((other) => other.generation_id === one.generation_id));

const olderThan = (page, generations) => generations.filter((one) => one.enqueued_at <= page.at(-1).enqueued_at);

/** Two lists as one, each generation once, as the first has it; newest first. */
function merged(first, second) {
  const ids = new Set(first.map((one) => one.generation_id));
  return [...first, ...second.filter((one) => !ids.has(one.generation_id))].sort((a, b) => b.enqueued_at - a.enqueued_at);
}

function Card({ generation, now, onErase }) {
  const { generation_id: id, status, prompt, model_name: model, enqueued_at: at, thumbnail_url: thumbnail, progress } = generation;
  const words = status === "processing" && progress.step ? `Step ${progress.step} of ${progress.steps}` : STATUS_WORDS[status];
  return html`<li class="card">
    <a href=${`#/edit/${id}`}>
      <div class="frame">${thumbnail ? html`<img src=${thumbnail} alt="" loading="lazy" />` : html`<span class=${`state ${status}`}>${status === "succeeded" ? "Deleted" : words}</span>`}</div>
      <p class="prompt">${prompt}</p>
    </a>
    <p class="quiet"><span class=${`dot ${status}`}></span>${words} · ${ago(at, now)}<br />${model}</p>
    <${Confirmed} label="Erase" question="Erase for good?" onConfirm=${onErase} />
  </li>`;
}
