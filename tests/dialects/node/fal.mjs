// The fal client, its requests sent here by a middleware; prints what it saw.
import { createFalClient } from "@fal-ai/client";

const { BASE, KEY, PICTURE } = process.env;
const fal = createFalClient({
  credentials: KEY,
  requestMiddleware: async (request) => ({ ...request, url: request.url.replace(/^https:\/\/(queue\.fal\.run|rest\.fal\.ai)/, BASE) }),
});
const updates = [];
const result = await fal.subscribe("fal-ai/quick", {
  input: { prompt: "make it blue", image_url: PICTURE, seed: 7 },
  onQueueUpdate: (update) => updates.push(update.status),
});
// A blob is uploaded first.
const image_url = new Blob([Buffer.from(PICTURE.split(",")[1], "base64")], { type: "image/png" });
const uploaded = await fal.subscribe("fal-ai/quick", { input: { prompt: "make it blue", image_url, seed: 8 } });
console.log(JSON.stringify({ data: result.data, requestId: result.requestId, updates, uploaded: uploaded.data.seed }));
