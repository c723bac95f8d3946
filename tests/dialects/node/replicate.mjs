// The Replicate client: a run with an uploaded file, and a prediction that is cancelled; prints what it saw.
import Replicate from "replicate";

const { BASE, KEY, PICTURE } = process.env;
const replicate = new Replicate({ auth: KEY, baseUrl: `${BASE}/v1` });
const [, encoded] = PICTURE.split(",");
const input_image = new Blob([Buffer.from(encoded, "base64")], { type: "image/png" });
const output = await replicate.run("darkroom/quick", { input: { prompt: "make it blue", input_image } });
const bytes = typeof output === "string" ? await (await fetch(output)).arrayBuffer() : await (await output.blob()).arrayBuffer();

const prediction = await replicate.predictions.create({ version: "slow", input: { prompt: "x", input_image: PICTURE } });
const cancelled = await replicate.predictions.cancel(prediction.id);
const page = await replicate.predictions.list();
console.log(JSON.stringify({ size: bytes.byteLength, cancelled, listed: page.results.length }));
