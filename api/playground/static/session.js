// Who is signed in: a client of the API, and what happens to the tenant's generations, over one event stream.

import { Darkroom } from "./darkroom.js";

const IN_LINK = /^#sign-in=(.+)$/;

let lastNumber = 0;

/** Resolves once the page is seen, or the signal says so: a browser opens six connections to a service, for all its tabs together. */
const seen = (signal) => new Promise((resolve) => {
  if (!document.hidden || signal.aborted) return resolve();
  document.addEventListener("visibilitychange", resolve, { once: true, signal });
  return signal.addEventListener("abort", resolve, { once: true });
});

export class Session {
  constructor(key, tenant = null) {
    this.number = ++lastNumber;
    this.api = new Darkroom({ key, fetch: (...request) => this.#fetched(request) });
    this.tenant = tenant;
    this.listeners = new Set();
    this.abort = new AbortController();
    /** What views keep while another one is looked at; it goes with the session. */
    this.kept = {};
  }

  /** Sign in with a key; throws what the service says of one that it does not know. */
  static async withKey(key) {
    const session = new Session(key);
    session.usage = await session.api.json("GET", "/api/ai/usage");
    return session;
  }

  /** Sign in with the link that the page was opened by, if it was; the link is taken out of the address. */
  static async ofLink() {
    const [, token] = IN_LINK.exec(location.hash) ?? [];
    if (!token) return null;
    Session.forgetLink();
    const signedIn = await new Darkroom({ key: token }).json("POST", "/api/ai/tokens/sign-in");
    return new Session(signedIn.token, signedIn.tenant);
  }

  /** Whether the page's address is a link to sign in by. */
  static isLink() {
    return IN_LINK.test(location.hash);
  }

  /** Take the link out of the address. */
  static forgetLink() {
    history.replaceState(null, "", location.pathname);
  }

  /** Follow what happens until `stop`; `onState` is told `open` and `lost`. */
  async follow(onState) {
    const { signal } = this.abort;
    this.onEnded = () => { if (!signal.aborted) onState("ended"); };
    while (!signal.aborted) {
      await seen(signal);
      const hidden = new AbortController();
      const pause = () => { if (document.hidden) hidden.abort(); };
      document.addEventListener("visibilitychange", pause);
      try {
        for await (const event of this.api.events({ since: this.cursor, signal: AbortSignal.any([signal, hidden.signal]), onState })) {
          this.cursor = event.cursor || this.cursor;
          for (const listener of this.listeners) listener(event);
        }
      } catch (error) {
        if (signal.aborted || error.status === 401) return;
        if (hidden.signal.aborted) continue;
        onState("lost");
        await new Promise((resolve) => setTimeout(resolve, 2000));
      } finally {
        document.removeEventListener("visibilitychange", pause);
      }
    }
  }

  async #fetched(request) {
    const answer = await fetch(...request);
    if (answer.status === 401) this.onEnded?.();
    return answer;
  }

  /** Hear of every event; returns how to stop. */
  listen(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  stop() {
    this.abort.abort();
  }
}
