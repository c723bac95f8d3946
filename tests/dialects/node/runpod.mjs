// The RunPod SDK through a job's life; prints what it saw.
import runpodSdk from "runpod-sdk";

const { BASE, KEY, PICTURE } = process.env;
const sdk = runpodSdk(KEY, { baseUrl: `${BASE}/v2` });
const input = { prompt: "make it blue", image: PICTURE, seed: 7 };

const quick = sdk.endpoint("quick");
const sync = await quick.runSync({ input });
const started = await quick.run({ input });
let job = started;
while (!["COMPLETED", "FAILED"].includes(job.status)) job = await quick.status(started.id);
const streamed = [];
for await (const part of quick.stream(started.id)) streamed.push(part);

const slow = sdk.endpoint("slow");
const running = await slow.run({ input });
const cancelled = await slow.cancel(running.id);
const purged = await slow.purgeQueue();
const health = await quick.health();
console.log(JSON.stringify({ sync, job, streamed, cancelled, purged, health }));
