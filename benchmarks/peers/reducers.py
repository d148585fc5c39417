"""Reducers of clients, gateways and frameworks, and how to call each of them.

A function makes one call of a peer's public interface and renames its result to the API's fields;
notes about a peer are beside its function. It runs in an environment with its peer, so its imports
are inside.
"""
# ruff: noqa: PLC0415  # the peers are in other environments

import asyncio
import sys
from collections import defaultdict
from dataclasses import asdict
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from peers import (
    EVERYTHING,
    OPENAI,
    PEERS,
    Object,
    Peer,
    bytes_of,
    call,
    chunks_of,
    completion,
    langchains,
    peer,
    usage,
)  # fmt: skip


@peer("msgspec==0.23.0 attrs==26.1.0 cattrs==26.2.1", EVERYTHING, reads_bytes=True)
def ours(url: str, params: Object) -> object:
    """the body off the socket into `feed_sse`."""
    # Measure the checkout, not a copy of it that was installed some time ago.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from accumulator import Accumulator

    acc = Accumulator()
    for data in bytes_of(url):
        acc.feed_sse(data)
    acc.close()
    return acc.snapshot().to_dict()


# Its models keep fields that they do not know, as its README says.
@peer(OPENAI, EVERYTHING, reads_bytes=True)
def openai(url: str, params: Object) -> object:
    """the chunks of its client, and the snapshot of a `ChatCompletionStreamState`."""
    from openai.lib.streaming.chat import ChatCompletionStreamState

    # It does a little better than `.stream()`, which drops chunks whose `object` is empty.
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    for chunk in chunks_of(url, params):
        state.handle_chunk(chunk)
    # `get_final_completion()` would also parse it, and raises if the reason is `length`.
    return state.current_completion_snapshot.to_dict(mode="python", warnings=False)


PEERS["openai_node"] = Peer(
    "`client.chat.completions.stream()` and the snapshot that comes with its last chunk.",
    ["openai==7.59.0"],
    EVERYTHING,
    reads_bytes=True,
)
PEERS["ai_sdk"] = Peer(
    "`streamText()` over `@ai-sdk/openai-compatible`, and what its result contains.",
    ["ai==7.0.173", "@ai-sdk/openai-compatible==3.0.92"],
    "id created model content reasoning finish_reason CALLS USAGE CACHED REASONED"
    " extra.tool_calls.extra_content :first :answer :thoughts :parsed",
    reads_bytes=True,
)


# `provider_specific_fields` of choice and message keep what it does not know. `created` is always
# from its own clock.
@peer(
    "litellm==1.110.2",
    "API CALLS TYPES -created reasoning extra.message extra.choices extra.usage"
    " extra.prompt_tokens_details extra.completion_tokens_details :thoughts",
)
def litellm(url: str, params: Object) -> object:
    """`completion(stream=True)`, then `stream_chunk_builder` on all chunks."""
    import litellm

    # Tools in the request would import the `mcp` extra; the answer is the same without them.
    stream = litellm.completion(
        f"openai/{params['model']}", params["messages"], n=params["n"], api_base=url,
        api_key="none", max_retries=0, stream=True, stream_options={"include_usage": True},
    )  # fmt: skip
    built = litellm.stream_chunk_builder(list(stream), messages=params["messages"])
    result: Object = built.model_dump() if built else {}
    for choice in result.get("choices", ()):
        for holder in (choice, choice["message"]):
            for name, value in (holder.pop("provider_specific_fields", None) or {}).items():
                holder.setdefault(name, value)
    return result


# "Audio output is not aggregated", says its documentation.
@peer(
    "any-llm-sdk[openai]==1.40.2",
    "API CALLS TYPES -audio -moderation reasoning extra.message.images extra.message.extra_content"
    " extra.tool_calls.extra_content :thoughts",
)
def any_llm(url: str, params: Object) -> object:
    """`completion(stream=True)`, then `accumulate_chunks` on the stream."""
    import any_llm
    from any_llm.utils.streaming import accumulate_chunks

    about: Object = {"provider": "openai", "api_base": url, "api_key": "none", "stream": True}
    return accumulate_chunks(any_llm.completion(**about, **params)).model_dump(warnings=False)


# It refers to other packages for the reasoning of other providers.
@peer(
    "langchain-openai==1.7.4 langchain-core==1.8.3",
    "model service_tier system_fingerprint role content finish_reason CALLS USAGE CACHED REASONED"
    " AUDIO logprobs function_call audio :first",
)
def langchain(url: str, params: Object) -> object:
    """the message chunks of `ChatOpenAI.stream()`, added up with `+`."""
    from langchain_openai import ChatOpenAI
    from pydantic import SecretStr

    model = ChatOpenAI(
        base_url=url, api_key=SecretStr("none"), model=params["model"], n=params["n"],
        max_retries=0, stream_usage=True, use_responses_api=False,
    )  # fmt: skip
    message: Any = reduce(add, model.stream("hello"))
    about, counts = message.response_metadata, getattr(message, "usage_metadata", None)
    role = {"ai": "assistant", "AIMessageChunk": "assistant"}
    chunks = getattr(message, "tool_call_chunks", ())
    return completion(
        {
            "role": role.get(message.type, getattr(message, "role", message.type)),
            "content": message.content,
            "function_call": message.additional_kwargs.get("function_call"),
            "audio": message.additional_kwargs.get("audio"),
            "tool_calls": [call(each["id"], each["name"], each["args"]) for each in chunks],
        },
        counts and langchains(counts, about.get("service_tier")),
        about.get("finish_reason"),
        about.get("logprobs"),
        model=about.get("model_name"),
        service_tier=about.get("service_tier"),
        system_fingerprint=about.get("system_fingerprint"),
    )


@peer(
    "pydantic-ai-slim[openai]==2.68.0",
    "id created model service_tier moderation content refusal reasoning finish_reason CALLS"
    " usage.prompt_tokens usage.completion_tokens CACHED REASONED AUDIO logprobs.content"
    " annotations extra.tool_calls.extra_content :first :text :thoughts :parsed",
)
def pydantic_ai(url: str, params: Object) -> object:
    """`OpenAIChatModel.request_stream()`, and the response it ends with."""
    from openai import AsyncOpenAI
    from pydantic_ai.messages import ModelRequest, UserPromptPart
    from pydantic_ai.models import ModelRequestParameters
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIChatModelSettings
    from pydantic_ai.providers.openai import OpenAIProvider

    # Without the second, a usage in every chunk is added up; with it, two halves of one are not.
    settings = OpenAIChatModelSettings(
        openai_include_raw_annotations=True, openai_continuous_usage_stats=True
    )

    async def streamed() -> Any:
        async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            model = OpenAIChatModel(params["model"], provider=OpenAIProvider(openai_client=client))
            messages = [ModelRequest(parts=[UserPromptPart("hello")])]
            about = (messages, settings, ModelRequestParameters())
            async with model.request_stream(*about) as response:
                async for _ in response:
                    pass
                return response.get()

    response = asyncio.run(streamed())
    details, counts = response.provider_details or {}, response.usage
    parts = defaultdict(list)
    for part in response.parts:
        parts[part.part_kind].append(part)
    # Beside a refusal, pydantic-ai itself adds `content_filter`.
    reason = None if "refusal" in details else response.finish_reason
    return completion(
        {
            "content": "".join(part.content for part in parts["text"]),
            "refusal": details.get("refusal"),
            "reasoning": "".join(part.content for part in parts["thinking"]),
            "annotations": [
                each
                for part in parts["text"]
                for each in (part.provider_details or {}).get("annotations", ())
            ],
            "tool_calls": [
                call(part.tool_call_id, part.tool_name, part.args, **(part.provider_details or {}))
                for part in parts["tool-call"]
            ],
        },
        usage(
            counts,
            reasoning_tokens=counts.details.get("reasoning_tokens"),
            output_audio_tokens=counts.details.get("audio_tokens"),
        ),
        details.get("finish_reason", reason),
        {"content": details.get("logprobs")},
        id=response.provider_response_id,
        created=details["timestamp"].timestamp() if "timestamp" in details else None,
        model=response.model_name,
        service_tier=details.get("service_tier"),
        moderation=details.get("moderation"),
    )


@peer(
    "openai-agents==0.24.0",
    "content refusal reasoning CALLS USAGE CACHED REASONED logprobs.content annotations"
    " :first :text :thoughts",
)
def openai_agents(url: str, params: Object) -> object:
    """`OpenAIChatCompletionsModel.stream_response()`, and the response it completes."""
    from agents import ModelSettings, OpenAIChatCompletionsModel
    from agents.models.interface import ModelTracing
    from openai import AsyncOpenAI

    names = "system_instructions output_schema previous_response_id conversation_id prompt"

    async def streamed() -> list[Any]:
        async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            events = OpenAIChatCompletionsModel(params["model"], client).stream_response(
                **dict.fromkeys(names.split()), input="hello", tools=[], handoffs=[],
                model_settings=ModelSettings(include_usage=True), tracing=ModelTracing.DISABLED,
            )  # fmt: skip
            return [event.response async for event in events if event.type == "response.completed"]

    (response,) = asyncio.run(streamed())
    message: Object = {"content": "", "refusal": "", "reasoning": "", "tool_calls": []}
    logprobs: list[Any] = []
    for item in response.output:
        if item.type == "function_call":
            message["tool_calls"].append(call(item.call_id, item.name, item.arguments))
        elif item.type == "reasoning":
            message["reasoning"] += "".join(part.text for part in item.content or item.summary)
        for part in item.content if item.type == "message" else ():
            if part.type == "refusal":
                message["refusal"] += part.refusal
                continue
            message["content"] += part.text
            logprobs += part.logprobs or ()
            message["annotations"] = [
                {"type": "url_citation", "url_citation": each.model_dump()}
                for each in part.annotations
            ]
    counts = response.usage
    used = counts and usage(
        counts,
        cache_read_tokens=counts.input_tokens_details.cached_tokens,
        reasoning_tokens=counts.output_tokens_details.reasoning_tokens,
    )
    return completion(message, used, logprobs={"content": logprobs})


# Its model is the request's. Of an unstreamed completion it keeps a refusal, too.
@peer(
    "lm15==1.5.0",
    "content refusal reasoning finish_reason CALLS USAGE CACHED REASONED AUDIO logprobs.content"
    " :first :text :thoughts :parsed",
    reads_bytes=True,
)
def lm15(url: str, params: Object) -> object:
    """`OpenAIChatLM.stream()`, and the `Response` that its `ResponseStream` ends with."""
    import lm15

    request = lm15.Request(model=params["model"], messages=(lm15.Message.user("hello"),))
    stream = lm15.OpenAIChatLM(api_key="none", base_url=url).stream(request)
    response = lm15.ResponseStream(stream, request).response

    def parts(kind: Any) -> list[Any]:
        return [part for part in response.message.parts if isinstance(part, kind)]

    def text_of(kind: Any) -> str:
        return "".join(part.text for part in parts(kind))

    def arguments_of(given: Object) -> object:
        # What is not a JSON object, lm15 wraps in one.
        return given.get("partial_json", given.get("value", given)) if len(given) == 1 else given

    reason = "tool_calls" if response.finish_reason == "tool_call" else response.finish_reason
    # The server's word if the last frame has it, otherwise lm15's.
    for choice in (response.provider_data or {}).get("choices") or ():
        reason = (isinstance(choice, dict) and choice.get("finish_reason")) or reason
    return completion(
        {
            "content": text_of(lm15.TextPart),
            "reasoning": text_of(lm15.ThinkingPart),
            "refusal": text_of(lm15.RefusalPart),
            "tool_calls": [
                call(part.id, part.name, arguments_of(part.input))
                for part in parts(lm15.ToolCallPart)
            ],
        },
        usage(response.usage),
        reason,
        {"content": list(map(asdict, response.logprobs or ()))},
    )


@peer(
    "llmstream==0.1.0",
    "model content reasoning finish_reason CALLS USAGE :first :thoughts",
    reads_bytes=True,
)
def llmstream(url: str, params: Object) -> object:
    """`iter_events` over the bytes of the body, and what its events contain."""
    from llmstream import iter_events

    # It has no result of its own: texts are joined here, and the last usage report is kept.
    message: Object = {"content": "", "reasoning": "", "tool_calls": []}
    model = reason = used = None
    for event in iter_events(bytes_of(url)):
        match event.type:
            case "delta":
                message["content"] += event.text
            case "reasoning_delta":
                message["reasoning"] += event.text
            case "tool_call_complete":
                message["tool_calls"].append(call(event.id, event.name, event.raw_arguments))
            case "error":
                # The stream reports these at its end, and does not raise them.
                raise RuntimeError(f"{event.code}: {event.message}")
            case "metadata":
                model, reason = event.model, event.finish_reason
            case "usage":
                used = usage(event)
    return completion(message, used, reason, model=model)
