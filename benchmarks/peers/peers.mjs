// The reducers that run on Node, and their process: `node peers.mjs PEER` reads cases, one JSON object
// per line, and answers each with what the peer makes of it.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { jsonSchema, streamText, tool } from "ai";
import OpenAI from "openai";
import { createInterface } from "node:readline";

async function openai_node(url, params) {
  const client = new OpenAI({ baseURL: url, apiKey: "none", maxRetries: 0 });
  const stream = client.chat.completions.stream(params);
  let last;
  stream.on("chunk", (_, snapshot) => {
    last = snapshot;
  });
  const failure = await stream.done().then(() => undefined, (error) => error);
  // At its end the stream drops the snapshot, and then refuses one without a role, a finish reason
  // or a call's type; that check is not held against what was accumulated.
  const accumulated = last !== undefined && stream.currentChatCompletionSnapshot === undefined;
  if (failure !== undefined && !accumulated) throw failure;
  return last;
}

// The packages ask for Node 22, but run on 20.
async function ai_sdk(url, params) {
  const provider = createOpenAICompatible({
    name: "peer", baseURL: url, apiKey: "none", includeUsage: true,
  });
  const names = (params.tools ?? []).map(({ function: { name } }) => name);
  const errors = [];
  const onError = ({ error }) => errors.push(error);
  const result = streamText({
    model: provider(params.model), prompt: "hello", maxRetries: 0, onError,
    tools: Object.fromEntries(names.map((name) => [name, tool({ inputSchema: jsonSchema({}) })])),
  });
  await result.consumeStream({ onError: (error) => errors.push(error) });
  if (errors.length > 0) throw errors[0];
  const [response, usage] = [await result.response, await result.totalUsage];
  const calls = (await result.toolCalls).map(({ toolCallId, toolName, input, providerMetadata }) => {
    const signature = providerMetadata?.peer?.thoughtSignature;
    return {
      id: toolCallId,
      function: { name: toolName, arguments: typeof input === "string" ? input : JSON.stringify(input) },
      extra_content: signature && { google: { thought_signature: signature } },
    };
  });
  const message = { content: await result.text, reasoning: await result.reasoningText, tool_calls: calls };
  const reason = (await result.rawFinishReason) ?? (await result.finishReason);
  return {
    id: response.id,
    created: response.timestamp / 1000,
    model: response.modelId,
    usage: {
      prompt_tokens: usage.inputTokens,
      completion_tokens: usage.outputTokens,
      total_tokens: usage.totalTokens,
      prompt_tokens_details: { cached_tokens: usage.inputTokenDetails?.cacheReadTokens },
      completion_tokens_details: { reasoning_tokens: usage.outputTokenDetails?.reasoningTokens },
    },
    choices: [{ index: 0, finish_reason: reason, message }],
  };
}

const reduce = { openai_node, ai_sdk }[process.argv[2]];
const write = process.stdout.write.bind(process.stdout);
// Peers may print to stdout, which is needed for the answers alone.
process.stdout.write = process.stderr.write.bind(process.stderr);
// A rejection that a peer does not catch belongs to the case that is being answered.
let reject;
process.on("unhandledRejection", (error) => reject?.(error));

for await (const line of createInterface({ input: process.stdin })) {
  const { url, params } = JSON.parse(line);
  const stray = new Promise((_, no) => { reject = no; });
  const answer = await Promise.race([reduce(url, params), stray]).then(
    (result) => ({ result }),
    (error) => ({ error: `${error?.name ?? typeof error}: ${error?.message ?? JSON.stringify(error)}` }),
  );
  write(`${JSON.stringify(answer)}\n`);
}
process.exit();
