// Times openai-node, with the same lines in and out as peer_clock.py: `node peer_clock.mjs PACKAGE...`.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import OpenAI from "openai";

const versionOf = (name) =>
  JSON.parse(readFileSync(new URL(`./node_modules/${name}/package.json`, import.meta.url))).version;
const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);

const cut = (body, size) => {
  const reads = [];
  for (let start = 0; start < body.length; start += size) {
    reads.push(new Uint8Array(body.subarray(start, start + size)));
  }
  return reads;
};

const answering = (reads) => async () => {
  const left = reads.values();
  const body = new ReadableStream({
    pull(controller) {
      const { done, value } = left.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
  });
  return new Response(body, { headers: { "content-type": "text/event-stream" } });
};

let client;
const run = () =>
  client.chat.completions
    .stream({ model: "gpt-4o-mini", messages: [{ role: "user", content: "hello" }] })
    .finalChatCompletion();

say(Object.fromEntries(process.argv.slice(2).map((name) => [name, versionOf(name)])));
for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  if (request.body) {
    const reads = cut(readFileSync(request.body), request.read);
    client = new OpenAI({ apiKey: "none", maxRetries: 0, fetch: answering(reads) });
    say(await run());
  } else {
    const start = performance.now();
    await run();
    say((performance.now() - start) / 1000);
  }
}
