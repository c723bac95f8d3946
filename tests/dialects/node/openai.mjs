// The OpenAI client: an edit, a stream with a partial picture, an error; prints what it saw.
import OpenAI, { toFile } from "openai";

const { BASE, KEY, PICTURE } = process.env;
const client = new OpenAI({ apiKey: KEY, baseURL: `${BASE}/v1` });
const [, encoded] = PICTURE.split(",");
const picture = async () => toFile(Buffer.from(encoded, "base64"), "picture.png", { type: "image/png" });
const prompt = "make it blue";
const edit = await client.images.edit({ model: "quick", image: await picture(), prompt, size: "96x64" });
const several = await client.images.edit({ model: "quick", image: [await picture(), await picture()], prompt, n: 2 });
const types = [];
const stream = await client.images.edit({
  model: "flux-kontext-dev", image: await picture(), prompt, stream: true, partial_images: 1,
});
for await (const event of stream) types.push(event.type);
let refused;
try {
  await client.images.generate({ model: "quick", prompt });
} catch (error) {
  refused = { status: error.status, param: error.param };
}
console.log(JSON.stringify({ edit: edit.data[0].url, size: edit.size, several: several.data.length, types, refused }));
