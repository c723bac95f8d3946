// The API tab: the form's request as code, ready to copy.

import { html, useState } from "./vendor/htm-preact.js";
import { DIALECTS, LANGUAGES, sampleOf } from "./samples.js";
import { Copy } from "./ui.js";

export function ApiTab({ request }) {
  const [dialect, setDialect] = useState("native");
  const [language, setLanguage] = useState("curl");
  const code = sampleOf(dialect, language, request);
  return html`<details class="api"><summary>API</summary>
    <div class="row">
      <label>API <select id="dialect" value=${dialect} onChange=${(event) => setDialect(event.target.value)}>
        ${Object.entries(DIALECTS).map(([name, { label }]) => html`<option value=${name}>${label}</option>`)}
      </select></label>
      <div class="tabs" role="group" aria-label="Language">
        ${Object.entries(LANGUAGES).map(([name, label]) => html`<button type="button" class="small" aria-pressed=${language === name ? "true" : "false"} onClick=${() => setLanguage(name)}>${label}</button>`)}
      </div>
      <span class="spring"></span><${Copy} text=${code} />
    </div>
    ${request.isShortened ? html`<p class="quiet">The code has the first picture alone, and no mask.</p>` : null}
    ${DIALECTS[dialect].note ? html`<p class="quiet">${DIALECTS[dialect].note}</p>` : null}
    <pre tabindex="0" aria-label="Code"><code id="sample">${code}</code></pre>
    <p class="quiet">The key is read from <code>DARKROOM_API_KEY</code>.</p>
  </details>`;
}
