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

  const load = async (after = null, signal) => {
    try {
      const wanted = { status: filters.status, model: filters.model || null, search: filters.search.trim() || null, limit: PAGE, after };
      const page = await session.api.list(wanted, { signal });
      setListed((before) => ({ generations: after ? [...before.generations, ...page.generations] : page.generations, next: page.next, isLoading: false }));
      setError(null);
    } catch (caught) {
      if (!signal?.aborted) setError(caught);
    }
  };

  useEffect(() => { session.api.json("GET", "/api/ai/models").then((found) => setModels(found.data), () => {}); }, [session]);
  useEffect(() => {
    const abort = new AbortController();
    const timer = setTimeout(() => load(null, abort.signal), 200);
    return () => { clearTimeout(timer); abort.abort(); };
  }, [filters, session]);
  useEffect(() => {
    let timer = null;
    const stop = session.listen(({ type }) => {
      if (!/_(queued|started|completed|cancelled)$/.test(type)) return;
      clearTimeout(timer);
      timer = setTimeout(() => load(), 400);
    });
    return () => { clearTimeout(timer); stop(); };
  }, [filters, session]);

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
    ${!listed.isLoading && !listed.generations.length ? html`<p class="empty">Nothing here${filters.search || filters.model || filters.status !== "all" ? " that fits" : " yet"}.</p>` : null}
    <ul class="cards">${listed.generations.map((one) => html`<${Card} key=${one.generation_id} generation=${one} now=${now} onErase=${() => erase(one)} />`)}</ul>
    ${listed.next ? html`<button type="button" onClick=${() => load(listed.next)}>Show more</button>` : null}
  </section>`;
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
