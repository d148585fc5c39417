// Vercel's AI SDK: `streamText()` over `@ai-sdk/openai-compatible`, and what its result holds.
// The packages name Node 22; they run on 20.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { jsonSchema, streamText, tool } from "ai";

export async function reduce(url, params) {
  const provider = createOpenAICompatible({
    name: "peer", baseURL: url, apiKey: "none", includeUsage: true,
  });
  const names = (params.tools ?? []).map(({ function: { name } }) => name);
  const errors = [];
  const result = streamText({
    model: provider(params.model),
    prompt: "hello",
    maxRetries: 0,
    tools: Object.fromEntries(names.map((name) => [name, tool({ inputSchema: jsonSchema({}) })])),
    onError: ({ error }) => errors.push(error),
  });
  await result.consumeStream({ onError: (error) => errors.push(error) });
  if (errors.length > 0) throw errors[0];
  return inApiShape(await result.response, await result.totalUsage, {
    index: 0,
    finish_reason: (await result.rawFinishReason) ?? (await result.finishReason),
    message: {
      content: await result.text,
      reasoning: await result.reasoningText,
      tool_calls: (await result.toolCalls).map(callInApiShape),
    },
  });
}

function callInApiShape({ toolCallId, toolName, input, providerMetadata }) {
  const signature = providerMetadata?.peer?.thoughtSignature;
  return {
    id: toolCallId,
    function: { name: toolName, arguments: typeof input === "string" ? input : JSON.stringify(input) },
    ...(signature && { extra_content: { google: { thought_signature: signature } } }),
  };
}

function inApiShape(response, usage, choice) {
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
    choices: [choice],
  };
}
