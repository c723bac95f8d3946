// Hugging Face's inference client, with Replicate and fal as its providers; prints what came of each.
import { InferenceClient } from "@huggingface/inference";

const { BASE, KEY, PICTURE } = process.env;
const inputs = new Blob([Buffer.from(PICTURE.split(",")[1], "base64")], { type: "image/png" });
const client = new InferenceClient(KEY);
const parameters = { prompt: "make it blue", num_inference_steps: 1 };
const seen = {};
// The client's pauses between two polls do not keep a script alive.
const awake = setInterval(() => {}, 1000);
const model = { replicate: "black-forest-labs/FLUX.1-Kontext-dev", "fal-ai": "black-forest-labs/FLUX.1-Kontext-dev" };
// The client lets neither the providers' addresses be set, nor which model of theirs one of the hub is.
const real = globalThis.fetch;
const mapping = {
  replicate: { task: "image-to-image", status: "live", providerId: "black-forest-labs/flux-kontext-dev" },
  "fal-ai": { task: "image-to-image", status: "live", providerId: "fal-ai/flux-kontext/dev" },
};
globalThis.fetch = async (url, options) => {
  const { host } = new URL(url);
  if (host === "huggingface.co") return Response.json({ id: "x", inferenceProviderMapping: mapping });
  return real(String(url).replace(/^https:\/\/(api\.replicate\.com|queue\.fal\.run)/, BASE), options);
};
for (const provider of Object.keys(model)) {
  try {
    const image = await client.imageToImage({ provider, model: model[provider], inputs, parameters });
    seen[provider] = { bytes: image.size, type: image.type };
  } catch (error) {
    seen[provider] = { error: String(error.stack).slice(0, 500), body: error.httpResponse?.body };
  }
}
console.log(JSON.stringify(seen));
clearInterval(awake);
