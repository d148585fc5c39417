// openai-node: `client.chat.completions.stream()` and the snapshot that comes with its last chunk.

import OpenAI from "openai";

export async function reduce(url, params) {
  const client = new OpenAI({ baseURL: url, apiKey: "none", maxRetries: 0 });
  const stream = client.chat.completions.stream(params);
  let last;
  stream.on("chunk", (_, snapshot) => {
    last = snapshot;
  });
  const failure = await stream.done().then(() => undefined, (error) => error);
  // At its end the stream lets go of the snapshot, and then refuses one without a role, a finish
  // reason or a call's type; that check is not held against what was accumulated.
  const accumulated = last !== undefined && stream.currentChatCompletionSnapshot === undefined;
  if (failure !== undefined && !accumulated) throw failure;
  return last;
}
