// The form's request as code: in every API that is spoken here, for curl, Python and JavaScript. The key is never in it.

/** Stands for the picture's data while the code is made; in no prompt. */
const IMAGE = `image-${Math.random().toString(36).slice(2)}`;

/** Which of the native values a dialect takes, under which name; the others are left out. */
const pick = (values, names) => Object.fromEntries(Object.entries(names)
  .filter(([name]) => values[name] !== undefined)
  .map(([name, theirs]) => [theirs, values[name]]));

const jpeg = (values) => (values.output_format === "jpg" ? { ...values, output_format: "jpeg" } : values);
const without = (values, ...names) => Object.fromEntries(Object.entries(values).filter(([name]) => !names.includes(name)));
const STEPS = { num_inference_steps: "num_inference_steps" };

/**
 * An API: where the request goes and how it is signed, its body, and where the answer has the result. `poll` says how an answer
 * that is not the result yet leads to it: the URL to ask, and what its status says at the end.
 */
export const DIALECTS = {
  native: {
    label: "Darkroom (Oxen.ai)", path: () => "/api/ai/queue",
    body: ({ model, prompt, values, image }) => ({ model, prompt, ...(image ? { input_image: image, aspect_ratio: "match_input_image" } : {}), ...values }),
    poll: { next: ["generations", 0, "generation_id"], url: (id) => `/api/ai/queue/${id}?wait=60`, status: ["status"], end: "succeeded", failed: ["failed", "cancelled"] },
    result: ["result_url"],
  },
  openai: {
    label: "OpenAI", ending: ({ output_format: format = "png" }) => format, path: ({ image }) => (image ? "/v1/images/edits" : "/v1/images/generations"),
    body: ({ model, prompt, values, image }) => ({
      model, prompt, ...(image ? { images: [{ image_url: image }] } : {}), response_format: "url",
      ...pick(jpeg(values), { seed: "seed", guidance: "guidance", ...STEPS, output_format: "output_format" }),
      ...(values.width && values.height ? { size: `${values.width}x${values.height}` } : {}),
    }),
    note: "Its sizes are sides: an aspect ratio is left out.",
    result: ["data", 0, "url"],
  },
  replicate: {
    label: "Replicate", path: () => "/v1/predictions", headers: { Prefer: "wait=60" },
    body: ({ model, prompt, values, image }) => ({ version: model, input: {
      prompt, ...(image ? { input_image: image } : {}), ...pick(values, { aspect_ratio: "aspect_ratio", seed: "seed", guidance: "guidance", ...STEPS, output_format: "output_format", output_quality: "output_quality" }),
    } }),
    poll: { next: ["urls", "get"], url: (url) => url, status: ["status"], end: "succeeded", failed: ["failed", "canceled", "aborted"] },
    result: ["output"],
  },
  fal: {
    label: "fal", ending: ({ output_format: format = "png" }) => format, path: ({ model, aliases }) => `/run/${aliases.find((one) => one.startsWith("fal-ai/")) ?? `fal-ai/${model}`}`, auth: "Key",
    body: ({ prompt, values, image }) => ({
      prompt, ...(image ? { image_url: image } : {}), output_format: "png", ...pick(jpeg(values), { aspect_ratio: "aspect_ratio", seed: "seed", guidance: "guidance_scale", ...STEPS, output_format: "output_format" }),
    }),
    result: ["images", 0, "url"],
  },
  bfl: {
    label: "Black Forest Labs", ending: () => "png", path: ({ model }) => `/v1/${model}`, auth: "x-key",
    body: ({ prompt, values, image }) => ({
      prompt, ...(image ? { input_image: image } : {}), ...pick(without(values, values.guidance < 1.5 ? "guidance" : ""), { seed: "seed", guidance: "guidance", num_inference_steps: "steps" }),
    }),
    poll: { next: ["polling_url"], url: (url) => url, status: ["status"], end: "Ready", failed: ["Error", "Request Moderated", "Content Moderated"] },
    result: ["result", "sample"],
  },
  runpod: {
    label: "RunPod", ending: () => "png", path: ({ model }) => `/v2/${model}/run`,
    body: ({ prompt, values, image }) => ({ input: {
      prompt, ...(image ? { image, aspect_ratio: "match_input_image" } : {}), ...pick(values, { aspect_ratio: "aspect_ratio", seed: "seed", guidance: "guidance", ...STEPS }),
    } }),
    poll: { next: ["id"], url: (id, { model }) => `/v2/${model}/status/${id}`, status: ["status"], end: "COMPLETED", failed: ["FAILED", "CANCELLED", "TIMED_OUT"] },
    result: ["output", "image_url"],
  },
  nim: {
    label: "NVIDIA NIM", ending: () => "jpg", path: () => "/v1/infer", note: "A container has one model: the service's default.",
    body: ({ prompt, values, image }) => ({ prompt, ...(image ? { image } : {}), ...pick(values, { seed: "seed" }) }),
    result: ["artifacts", 0, "base64"], isBase64: true,
  },
  forge: {
    label: "Nebius Forge", path: ({ model }) => `/v1/inference/${model}`,
    body: ({ prompt, values, image }) => ({ prompt, ...(image ? { image } : {}), ...pick(values, { seed: "seed" }) }),
    result: ["artifacts", 0, "base64"], isBase64: true,
  },
};

export const LANGUAGES = { curl: "curl", python: "Python", javascript: "JavaScript" };

/** The code of a request; `file` is the first picture's name where it is a file, `url` its address where it is none. */
export function sampleOf(dialect, language, request) {
  const api = DIALECTS[dialect];
  const image = request.url ?? (request.file ? IMAGE : null);
  const spec = {
    api, request, url: location.origin + api.path({ ...request, image }), origin: location.origin, file: request.file,
    body: api.body({ ...request, image }), type: /\.png$/i.test(request.file ?? "") ? "image/png" : /\.webp$/i.test(request.file ?? "") ? "image/webp" : "image/jpeg",
    ending: api.isBase64 && !api.ending ? "png" : api.ending?.(request.values) ?? request.values.output_format ?? "webp",
  };
  if (dialect === "native" && language === "python") return nativePython(request);
  return { curl, python, javascript }[language](spec);
}

function nativePython({ model, prompt, values, file, url }) {
  const picture = url ? JSON.stringify(url) : file ? JSON.stringify(file) : "None";
  const more = Object.entries(values).map(([name, value]) => `, ${name}=${python.literal(value)}`).join("");
  return `import os

import darkroom

with darkroom.Client("${location.origin}", os.environ["DARKROOM_API_KEY"]) as service:
    picture = service.edit(${picture}, ${python.literal(prompt)}, model=${python.literal(model)}${more})
    print(picture.save("result.${values.output_format ?? "webp"}"))
`;
}

const header = (api, key) => {
  if (api.auth === "x-key") return ["x-key", key];
  return ["Authorization", `${api.auth ?? "Bearer"} ${key}`];
};
const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
const jq = (path) => path.map((one) => (typeof one === "number" ? `[${one}]` : `.${one}`)).join("");
const subscript = (path) => path.map((one) => (typeof one === "number" ? `[${one}]` : `["${one}"]`)).join("");

function curl({ api, request, url, origin, body, file, type, ending }) {
  const [name, value] = header(api, "$DARKROOM_API_KEY");
  const signed = `-H "${name}: ${value}"`;
  const [before, after] = JSON.stringify(body).split(IMAGE);
  const sent = after === undefined ? `printf '%s' ${quoted(before)}`
    : `{ printf '%s' ${quoted(`${before}data:${type};base64,`)}; base64 < ${quoted(file)} | tr -d '\\n'; printf '%s' ${quoted(after)}; }`;
  const more = Object.entries(api.headers ?? {}).map(([one, text]) => ` -H "${one}: ${text}"`).join("");
  const asked = `ANSWER=$(${sent} |\n    curl -s --fail-with-body ${url} ${signed}${more} -H "Content-Type: application/json" -d @-) || { printf '%s\\n' "$ANSWER"; exit 1; }`;
  const field = (path) => `$(printf '%s' "$ANSWER" | jq -r '${jq(path)}')`;
  const lines = [asked];
  if (api.poll) {
    const { next, url: ask, status, end, failed } = api.poll;
    const address = ask("$NEXT", request);
    lines.push(
      `NEXT=${field(next)}`,
      `while [ "${field(status)}" != ${quoted(end)} ]; do`,
      `  case "${field(status)}" in ${failed.map(quoted).join(" | ")}) printf '%s\\n' "$ANSWER"; exit 1 ;; esac`,
      "  sleep 1",
      `  ANSWER=$(curl -s --fail-with-body "${address.startsWith("/") ? origin + address : address}" ${signed}) || { printf '%s\\n' "$ANSWER"; exit 1; }`,
      "done",
    );
  }
  lines.push(api.isBase64 ? `printf '%s' "$ANSWER" | jq -r '${jq(api.result)}' | base64 -d > result.${ending}` : `curl -s --fail -o result.${ending} "${field(api.result)}"`);
  // In a shell of its own: what ends here ends not the terminal.
  return `(\n${lines.map((line) => `  ${line}\n`).join("")})\n`;
}

function python({ api, request, url, origin, body, file, type, ending }) {
  const [name, value] = header(api, "{key}");
  const headers = `{"${name}": f"${value}"${Object.entries(api.headers ?? {}).map(([one, text]) => `, "${one}": "${text}"`).join("")}}`;
  const code = python.literal(body).replace(`"${IMAGE}"`, "image");
  const read = code === python.literal(body) ? "" : `image = "data:${type};base64," + base64.b64encode(open(${python.literal(file)}, "rb").read()).decode()\n`;
  const result = api.isBase64 ? `base64.b64decode(answer${subscript(api.result)})` : `requests.get(answer${subscript(api.result)}, timeout=60).content`;
  const modules = [...(read || api.isBase64 ? ["base64"] : []), "os", ...(api.poll ? ["time"] : [])].map((one) => `import ${one}\n`).join("");
  let poll = "";
  if (api.poll) {
    const { next, url: ask, status, end, failed } = api.poll;
    const address = ask(`{answer${subscript(next).replaceAll('"', "'")}}`, request);
    poll = `next_url = f"${address.startsWith("/") ? origin + address : address}"
while answer.get(${subscript(status).slice(1, -1)}) != "${end}":
    if answer.get(${subscript(status).slice(1, -1)}) in ${python.literal(failed)}:
        raise SystemExit(answer)
    time.sleep(1)
    answer = asked("GET", next_url)
`;
  }
  return `${modules}
import requests

key = os.environ["DARKROOM_API_KEY"]


def asked(method, url, body=None):
    answer = requests.request(method, url, headers=${headers}, json=body, timeout=120)
    if not answer.ok:
        raise SystemExit(answer.text)
    return answer.json()


${read}answer = asked("POST", "${url}", ${code})
${poll}with open("result.${ending}", "wb") as file:
    file.write(${result})
`;
}
python.literal = (value) => {
  if (Array.isArray(value)) return `[${value.map(python.literal).join(", ")}]`;
  if (value && typeof value === "object") return `{${Object.entries(value).map(([name, one]) => `"${name}": ${python.literal(one)}`).join(", ")}}`;
  if (value === null) return "None";
  return typeof value === "boolean" ? (value ? "True" : "False") : JSON.stringify(value);
};

function javascript({ api, request, url, origin, body, file, type, ending }) {
  const [name, value] = header(api, "${process.env.DARKROOM_API_KEY}");
  const headers = `{ "${name}": \`${value}\`, "Content-Type": "application/json"${Object.entries(api.headers ?? {}).map(([one, text]) => `, "${one}": "${text}"`).join("")} }`;
  const plain = JSON.stringify(body, null, 2);
  const code = plain.split(`"${IMAGE}"`).join("image");
  const read = code === plain ? "" : `const image = "data:${type};base64," + (await readFile(${JSON.stringify(file)})).toString("base64");\n`;
  const dotted = (path) => path.map((one) => (typeof one === "number" ? `[${one}]` : `.${one}`)).join("");
  let poll = "";
  if (api.poll) {
    const { next, url: ask, status, end, failed } = api.poll;
    const address = ask(`\${answer${dotted(next)}}`, request);
    poll = `const next = \`${address.startsWith("/") ? origin + address : address}\`;
while (answer${dotted(status)} !== "${end}") {
  if (${JSON.stringify(failed)}.includes(answer${dotted(status)})) throw new Error(JSON.stringify(answer));
  await new Promise((resolve) => setTimeout(resolve, 1000));
  answer = await asked("GET", next);
}
`;
  }
  const result = api.isBase64 ? `Buffer.from(answer${dotted(api.result)}, "base64")` : `Buffer.from(await (await fetch(answer${dotted(api.result)})).arrayBuffer())`;
  return `import { ${read ? "readFile, " : ""}writeFile } from "node:fs/promises";

const headers = ${headers};
const asked = async (method, url, body) => {
  const answer = await fetch(url, { method, headers, body: body && JSON.stringify(body) });
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
};
${read}${poll ? "let" : "const"} answer = await asked("POST", "${url}", ${code});
${poll}await writeFile("result.${ending}", ${result});
`;
}
