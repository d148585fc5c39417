// Times openai-node, with the same requests and answers as _clock.py.

import { readFileSync } from "node:fs";
import OpenAI from "openai";

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

export async function reduce(path, { read }) {
  if (path) {
    const fetch = answering(cut(readFileSync(path), read));
    client = new OpenAI({ apiKey: "none", maxRetries: 0, fetch });
  }
  const start = performance.now();
  const completion = await client.chat.completions
    .stream({ model: "gpt-4o-mini", messages: [{ role: "user", content: "hello" }] })
    .finalChatCompletion();
  return path ? completion : (performance.now() - start) / 1000;
}
