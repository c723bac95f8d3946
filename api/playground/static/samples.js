// The form's request as code: in every API that is spoken here, for curl, Python and JavaScript. The key is never in it.

const IMAGE = "@IMAGE@";

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
    body: ({ model, prompt, values, image }) => ({ model, prompt, ...(image ? { input_image: image } : {}), aspect_ratio: "match_input_image", ...values }),
    poll: { next: ["generations", 0, "generation_id"], url: (id) => `/api/ai/queue/${id}?wait=60`, status: ["status"], end: "succeeded", failed: ["failed", "cancelled"] },
    result: ["result_url"],
  },
  openai: {
    label: "OpenAI", path: ({ image }) => (image ? "/v1/images/edits" : "/v1/images/generations"),
    body: ({ model, prompt, values, image }) => ({
      model, prompt, ...(image ? { images: [{ image_url: image }] } : {}), response_format: "url",
      ...pick(jpeg(values), { seed: "seed", guidance: "guidance", ...STEPS, output_format: "output_format" }),
    }),
    result: ["data", 0, "url"],
  },
  replicate: {
    label: "Replicate", path: () => "/v1/predictions", headers: { Prefer: "wait=60" },
    body: ({ model, prompt, values, image }) => ({ version: model, input: {
      prompt, ...(image ? { input_image: image } : {}), ...pick(values, { seed: "seed", guidance: "guidance", ...STEPS, output_format: "output_format", output_quality: "output_quality" }),
    } }),
    result: ["output"],
  },
  fal: {
    label: "fal", path: ({ model, aliases }) => `/run/${aliases.find((one) => one.startsWith("fal-ai/")) ?? `fal-ai/${model}`}`, auth: "Key",
    body: ({ prompt, values, image }) => ({
      prompt, ...(image ? { image_url: image } : {}), ...pick(jpeg(values), { seed: "seed", guidance: "guidance_scale", ...STEPS, output_format: "output_format" }),
    }),
    result: ["images", 0, "url"],
  },
  bfl: {
    label: "Black Forest Labs", path: ({ model }) => `/v1/${model}`, auth: "x-key",
    body: ({ prompt, values, image }) => ({
      prompt, ...(image ? { input_image: image } : {}), ...pick(without(values, values.guidance < 1.5 ? "guidance" : ""), { seed: "seed", guidance: "guidance", num_inference_steps: "steps" }),
    }),
    poll: { next: ["polling_url"], url: (url) => url, status: ["status"], end: "Ready", failed: ["Error", "Request Moderated", "Content Moderated"] },
    result: ["result", "sample"],
  },
  runpod: {
    label: "RunPod", path: ({ model }) => `/v2/${model}/runsync`,
    body: ({ prompt, values, image }) => ({ input: {
      prompt, ...(image ? { image, aspect_ratio: "match_input_image" } : {}), ...pick(values, { seed: "seed", guidance: "guidance", ...STEPS }),
    } }),
    result: ["output", "image_url"],
  },
  nim: {
    label: "NVIDIA NIM", path: () => "/v1/infer", note: "A container has one model: the service's default.",
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
    api, url: location.origin + api.path({ ...request, image }), origin: location.origin, file: request.file,
    body: api.body({ ...request, image }), type: /\.png$/i.test(request.file ?? "") ? "image/png" : /\.webp$/i.test(request.file ?? "") ? "image/webp" : "image/jpeg",
    ending: api.isBase64 ? "png" : request.values.output_format ?? "webp",
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

function curl({ api, url, origin, body, file, type, ending }) {
  const [name, value] = header(api, "$DARKROOM_API_KEY");
  const signed = `-H "${name}: ${value}"`;
  const [before, after] = JSON.stringify(body).split(IMAGE);
  const sent = after === undefined ? `printf '%s' ${quoted(before)}`
    : `{ printf '%s' ${quoted(`${before}data:${type};base64,`)}; base64 < ${quoted(file)} | tr -d '\\n'; printf '%s' ${quoted(after)}; }`;
  const more = Object.entries(api.headers ?? {}).map(([one, text]) => ` -H "${one}: ${text}"`).join("");
  const asked = `${sent} |\n  curl -sf ${url} ${signed}${more} -H "Content-Type: application/json" -d @-`;
  if (api.isBase64) return `${asked} |\n  jq -r '${jq(api.result)}' | base64 -d > result.${ending}\n`;
  if (!api.poll) return `RESULT=$(${asked} | jq -r '${jq(api.result)}')\ncurl -sf -o result.${ending} "$RESULT"\n`;
  const { next, url: ask, status, end, failed } = api.poll;
  const address = ask("$NEXT");
  return `NEXT=$(${asked} | jq -r '${jq(next)}')
while :; do
  ANSWER=$(curl -sf "${address.startsWith("/") ? origin + address : address}" ${signed})
  case $(echo "$ANSWER" | jq -r '${jq(status)}') in
    ${quoted(end)}) break ;;
    ${failed.map(quoted).join(" | ")}) echo "$ANSWER"; exit 1 ;;
  esac
  sleep 1
done
curl -sf -o result.${ending} "$(echo "$ANSWER" | jq -r '${jq(api.result)}')"
`;
}

function python({ api, url, origin, body, file, type, ending }) {
  const [name, value] = header(api, "{key}");
  const headers = `{"${name}": f"${value}"${Object.entries(api.headers ?? {}).map(([one, text]) => `, "${one}": "${text}"`).join("")}}`;
  const code = python.literal(body).replace(`"${IMAGE}"`, "image");
  const read = file && code !== python.literal(body) ? `image = "data:${type};base64," + base64.b64encode(open(${python.literal(file)}, "rb").read()).decode()\n` : "";
  const poll = api.poll ? `while answer${subscript(api.poll.status)} != "${api.poll.end}":
    if answer${subscript(api.poll.status)} in ${python.literal(api.poll.failed)}:
        raise SystemExit(answer)
    time.sleep(1)
    answer = requests.get(next_url, headers=headers, timeout=90).json()
` : "";
  const first = api.poll ? `next_url = f"${pythonAddress(api.poll, origin)}"\nanswer = requests.get(next_url, headers=headers, timeout=90).json()\n` : "";
  const result = api.isBase64 ? `base64.b64decode(answer${subscript(api.result)})` : `requests.get(answer${subscript(api.result)}, timeout=60).content`;
  const modules = [...(read || api.isBase64 ? ["base64"] : []), "os", ...(api.poll ? ["time"] : [])].map((one) => `import ${one}\n`).join("");
  return `${modules}
import requests

key = os.environ["DARKROOM_API_KEY"]
headers = ${headers}
${read}answer = requests.post("${url}", headers=headers, timeout=120, json=${code}).json()
${first}${poll}with open("result.${ending}", "wb") as file:
    file.write(${result})
`;
}
const pythonAddress = ({ next, url }, origin) => {
  const address = url(`{answer${subscript(next).replaceAll('"', "'")}}`);
  return address.startsWith("/") ? origin + address : address;
};
python.literal = (value) => {
  if (Array.isArray(value)) return `[${value.map(python.literal).join(", ")}]`;
  if (value && typeof value === "object") return `{${Object.entries(value).map(([name, one]) => `"${name}": ${python.literal(one)}`).join(", ")}}`;
  return { true: "True", false: "False", null: "None" }[String(value)] ?? JSON.stringify(value);
};

function javascript({ api, url, origin, body, file, type, ending }) {
  const [name, value] = header(api, "${process.env.DARKROOM_API_KEY}");
  const headers = `{ "${name}": \`${value}\`, "Content-Type": "application/json"${Object.entries(api.headers ?? {}).map(([one, text]) => `, "${one}": "${text}"`).join("")} }`;
  const plain = JSON.stringify(body, null, 2);
  const code = plain.replace(`"${IMAGE}"`, "image");
  const read = code === plain ? "" : `const image = "data:${type};base64," + (await readFile(${JSON.stringify(file)})).toString("base64");\n`;
  const dotted = (path) => path.map((one) => (typeof one === "number" ? `[${one}]` : `.${one}`)).join("");
  const address = api.poll?.url(`\${answer${dotted(api.poll.next)}}`);
  const poll = api.poll ? `const next = \`${address.startsWith("/") ? origin + address : address}\`;
do {
  await new Promise((resolve) => setTimeout(resolve, 500));
  answer = await (await fetch(next, { headers })).json();
  if (${JSON.stringify(api.poll.failed)}.includes(answer${dotted(api.poll.status)})) throw new Error(JSON.stringify(answer));
} while (answer${dotted(api.poll.status)} !== "${api.poll.end}");
` : "";
  const result = api.isBase64 ? `Buffer.from(answer${dotted(api.result)}, "base64")` : `Buffer.from(await (await fetch(answer${dotted(api.result)})).arrayBuffer())`;
  return `import { ${read ? "readFile, " : ""}writeFile } from "node:fs/promises";

const headers = ${headers};
${read}let answer = await (await fetch("${url}", { method: "POST", headers, body: JSON.stringify(${code}) })).json();
${poll}await writeFile("result.${ending}", ${result});
`;
}
