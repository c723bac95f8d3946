// The page: who is signed in, and which view is shown.

import { html, render, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { EditView } from "./edit.js";
import { FleetView } from "./fleet.js";
import { HistoryView } from "./history.js";
import { Session } from "./session.js";
import { Notice } from "./ui.js";
import { UsageView } from "./usage.js";

const VIEWS = { edit: ["Edit", EditView], history: ["History", HistoryView], fleet: ["Fleet", FleetView], usage: ["Usage", UsageView] };

const REPLACES = "You are signed in already. Sign in by this link instead?";

const routeNow = () => {
  const [, view = "edit", id = null] = location.hash.split("/");
  return { view: view in VIEWS ? view : "edit", id };
};

function App() {
  const [session, setSession] = useState(null);
  const [state, setState] = useState("open");
  const [error, setError] = useState(null);
  const [route, setRoute] = useState(routeNow());
  const [isReady, setReady] = useState(false);
  // What was being made when a session ended, for the next one of the same tenant.
  const left = useRef({ tenant: null, kept: {} });
  const signedIn = useRef(null);
  signedIn.current = session;
  const begin = (next) => {
    if (next.tenant && next.tenant === left.current.tenant) next.kept = left.current.kept;
    left.current = { tenant: null, kept: {} };
    setError(null);
    setSession(next);
  };

  useEffect(() => {
    const signIn = () => Session.ofLink().then((found) => found && begin(found), setError).finally(() => setReady(true));
    // Nobody finds themselves signed in as somebody else by following a link.
    const change = () => {
      setRoute(routeNow());
      if (!Session.isLink() || !signedIn.current || confirm(REPLACES)) signIn();
      else Session.forgetLink();
    };
    // A file that is dropped beside its place would take the page, and the key with it, away.
    const stay = (event) => event.preventDefault();
    addEventListener("hashchange", change);
    addEventListener("dragover", stay);
    addEventListener("drop", stay);
    signIn();
    return () => {
      removeEventListener("hashchange", change);
      removeEventListener("dragover", stay);
      removeEventListener("drop", stay);
    };
  }, []);

  useEffect(() => {
    if (!session) return undefined;
    session.follow((next) => {
      setState(next);
      if (next === "ended") {
        setError({ message: "You were signed out: the key or its time has ended." });
        left.current = { tenant: session.tenant, kept: session.kept };
        setSession(null);
      }
    });
    return () => session.stop();
  }, [session]);

  if (!isReady) return null;
  if (!session) return html`<${SignIn} error=${error} onSession=${begin} />`;
  const [, View] = VIEWS[route.view];
  return html`
    <a class="skip" href="#content" onClick=${(event) => { event.preventDefault(); document.getElementById("content").focus(); }}>Skip to content</a>
    <header class="top">
      <a class="brand" href="#/edit"><img src="/playground/icon.svg" alt="" width="28" height="28" />Darkroom</a>
      <nav aria-label="Views">
        ${Object.entries(VIEWS).map(([name, [label]]) => html`<a href=${`#/${name}`} aria-current=${route.view === name ? "page" : null}>${label}</a>`)}
      </nav>
      <p class="who" role="status">${state === "lost" ? html`<span class="lost">Reconnecting …</span>` : session.tenant}</p>
      <button type="button" class="small" onClick=${() => { location.hash = ""; setSession(null); }}>Sign out</button>
    </header>
    <main id="content" tabindex="-1"><${View} key=${session.number} session=${session} id=${route.id} connection=${state} /></main>`;
}

function SignIn({ error, onSession }) {
  const [key, setKey] = useState("");
  const [fault, setFault] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      onSession(await Session.withKey(key.trim()));
    } catch (caught) {
      setFault(caught.status === 401 ? { message: "This key is not known, or has ended." } : caught);
      setBusy(false);
    }
  };
  return html`<main class="sign-in">
    <img src="/playground/icon.svg" alt="" width="56" height="56" />
    <h1>Darkroom</h1>
    <${Notice} error=${fault ?? error} />
    <form onSubmit=${submit}>
      <label for="key">API key</label>
      <input id="key" type="password" autocomplete="off" required value=${key} onInput=${(event) => setKey(event.target.value)} />
      <button type="submit" class="primary" disabled=${isBusy || !key.trim()}>Sign in</button>
    </form>
    <p class="quiet">The key stays in this page's memory and is gone when you close it. <code>make up</code> and <code>darkroom open</code> print a link that signs in
      without one. Programs find the API at <a href="/docs">/docs</a>.</p>
  </main>`;
}

render(html`<${App} />`, document.getElementById("app"));
