// The AI SDK's generateImage through its providers of the services that we stand in for; prints what came of each.
import { createAzure } from "@ai-sdk/azure";
import { createBlackForestLabs } from "@ai-sdk/black-forest-labs";
import { createFal } from "@ai-sdk/fal";
import { createOpenAI } from "@ai-sdk/openai";
import { createReplicate } from "@ai-sdk/replicate";
import { createRunpod } from "@runpod/ai-sdk-provider";
import { generateImage } from "ai";

const { BASE, KEY, PICTURE } = process.env;
const picture = Buffer.from(PICTURE.split(",")[1], "base64");
const edit = { text: "make it blue", images: [picture] };
const two = { text: "make it blue", images: [picture, picture] };

const replicate = createReplicate({ apiToken: KEY, baseURL: `${BASE}/v1` });
const bfl = createBlackForestLabs({ apiKey: KEY, baseURL: `${BASE}/v1`, pollIntervalMillis: 100 });
const fal = createFal({ apiKey: KEY, baseURL: `${BASE}/run` });
const openai = createOpenAI({ apiKey: KEY, baseURL: `${BASE}/v1` });
const azure = createAzure({ apiKey: KEY, baseURL: `${BASE}/openai`, useDeploymentBasedUrls: true });
const runpod = createRunpod({ apiKey: KEY, baseURL: `${BASE}/v2/quick` });

const calls = {
  replicate: { model: replicate.image("darkroom/quick"), prompt: edit, aspectRatio: "1:1" },
  replicateFlux2: { model: replicate.image("black-forest-labs/flux-2-dev"), prompt: two, providerOptions: { replicate: { num_inference_steps: 1 } } },
  bfl: { model: bfl.image("flux-kontext-pro"), prompt: edit, size: "1024x768", providerOptions: { blackForestLabs: { steps: 1, outputFormat: "png", safetyTolerance: 2 } } },
  bflFlux2: { model: bfl.image("flux-2-pro"), prompt: two, aspectRatio: "1:1", providerOptions: { blackForestLabs: { steps: 1 } } },
  fal: { model: fal.image("fal-ai/quick"), prompt: edit, size: "256x256", providerOptions: { fal: { safetyTolerance: 2 } } },
  openai: { model: openai.image("quick"), prompt: edit, size: "96x64" },
  azure: { model: azure.image("quick"), prompt: edit },
  runpod: { model: runpod.image("black-forest-labs/flux-1-kontext-dev"), prompt: edit, providerOptions: { runpod: { maxPollAttempts: 60, pollIntervalMillis: 500 } } },
};
const seen = {};
for (const [name, call] of Object.entries(calls)) {
  try {
    const { image, warnings } = await generateImage({ ...call, maxRetries: 0 });
    seen[name] = { bytes: image.uint8Array.length, type: image.mediaType, warnings: warnings.length };
  } catch (error) {
    seen[name] = { error: String(error.responseBody ?? error.stack).slice(0, 1500) };
  }
}
console.log(JSON.stringify(seen));
