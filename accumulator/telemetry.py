"""A completion and its timing as OpenTelemetry's `gen_ai.*` attributes, without OpenTelemetry.

Pure functions from results to builtins, for the span of whatever tracer is at hand:

    span.set_attributes(telemetry.attributes(completion, timing=timing))

The names are those of the GenAI semantic conventions as opentelemetry-util-genai 1.3b0 sets them.
Of the request and the provider a completion knows nothing, so theirs are the caller's to set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, Protocol, TypeAlias

import msgspec

from ._result.convert import JsonObject, copy_json
from ._result.typed_json import ParseError
from .completion import ChatCompletion, Choice, Function, Message, ToolCall, Usage

__all__ = ["Attributes", "HasTimeToFirstChunk", "attributes", "output_messages"]

Attributes: TypeAlias = dict[str, str | int | float | list[str]]

_DETAILS = (
    # in `prompt_tokens_details`
    ("prompt", "cached_tokens", "gen_ai.usage.cache_read.input_tokens"),
    ("prompt", "cache_write_tokens", "gen_ai.usage.cache_write.input_tokens"),  # OpenRouter
    ("prompt", "text_tokens", "gen_ai.usage.text.input_tokens"),
    ("prompt", "image_tokens", "gen_ai.usage.image.input_tokens"),
    ("prompt", "audio_tokens", "gen_ai.usage.audio.input_tokens"),
    # in `completion_tokens_details`
    ("completion", "reasoning_tokens", "gen_ai.usage.reasoning.output_tokens"),
    ("completion", "text_tokens", "gen_ai.usage.text.output_tokens"),
    ("completion", "image_tokens", "gen_ai.usage.image.output_tokens"),
    ("completion", "audio_tokens", "gen_ai.usage.audio.output_tokens"),
)


class HasTimeToFirstChunk(Protocol):
    """What is read of a timing: `accumulator.Timing`, or anything with its field."""

    @property
    def time_to_first_chunk(self) -> float | None: ...


def attributes(
    completion: ChatCompletion,
    *,
    timing: HasTimeToFirstChunk | None = None,
    content: bool = False,
) -> Attributes:
    """Give the attributes of a span for a completion, whole or partial.

    `gen_ai.response.*` (id, model, finish reasons, and with a `timing` the seconds to the first
    chunk), `gen_ai.usage.*` in tokens, OpenAI's service tier and fingerprint. What did not arrive
    is left out, and so are details of usage that count none. With `content`, which the conventions
    want switched on by the user, `gen_ai.output.messages` as JSON text.

    Of a timing the conventions give a name to one field only; the rest are metrics
    (`gen_ai.client.operation.duration`).
    """
    reasons = [choice.finish_reason for choice in completion.choices if choice.finish_reason]
    usage = completion.usage or Usage()
    found: Mapping[str, str | int | float | list[str] | None] = {
        "gen_ai.response.id": completion.id,
        "gen_ai.response.model": completion.model,
        "gen_ai.response.finish_reasons": reasons or None,
        "gen_ai.response.time_to_first_chunk": None
        if timing is None
        else timing.time_to_first_chunk,
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
        **_details(usage),
        "openai.response.service_tier": completion.service_tier,
        "openai.response.system_fingerprint": completion.system_fingerprint,
        "gen_ai.output.messages": _encode(output_messages(completion)) if content else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _details(usage: Usage) -> dict[str, int]:
    sources = {"prompt": usage.prompt_tokens_details, "completion": usage.completion_tokens_details}
    counts: dict[str, int] = {}
    for source, field, name in _DETAILS:
        details = sources[source]
        count = getattr(details, field, None)
        if count is None and details is not None:
            count = details.extra.get(field)
        if type(count) is int and count > 0:
            counts[name] = count
    return counts


def output_messages(completion: ChatCompletion) -> list[JsonObject]:
    """Give the messages of `gen_ai.output.messages`: one a choice, with its role, parts and finish
    reason, in builtins.

    Parts are `reasoning`, `text` (a refusal, too), `tool_call`, and for audio a `blob`. The
    arguments of a call are its JSON, or the text as it stands where that is not whole; content
    parts of another type are as the server sent them.
    """
    return [_message(choice) for choice in completion.choices]


def _message(choice: Choice) -> JsonObject:
    message: JsonObject = {
        "role": choice.message.role or "assistant",
        "parts": list(_parts(choice.message)),
    }
    if choice.finish_reason:
        message["finish_reason"] = choice.finish_reason
    return message


def _parts(message: Message) -> Iterator[JsonObject]:
    # Some servers send the same under both names.
    for text in dict.fromkeys([message.reasoning, message.reasoning_content]):
        yield from _text("reasoning", text)
    if isinstance(message.content, tuple):
        for part in message.content:
            yield from _content_part(part)
    else:
        yield from _text("text", message.content)
    yield from _text("text", message.refusal)
    audio = message.audio
    if audio is not None:
        yield from _text("text", audio.transcript)
        if audio.data:
            yield {"type": "blob", "modality": "audio", "mime_type": None, "content": audio.data}
    if message.function_call is not None:
        yield _call(ToolCall(function=message.function_call))
    for call in message.tool_calls or ():
        yield _call(call)


def _text(kind: Literal["text", "reasoning"], text: str | None) -> Iterator[JsonObject]:
    if text:
        yield {"type": kind, "content": text}


def _content_part(part: object) -> Iterator[JsonObject]:
    if not isinstance(part, Mapping):
        return
    text, thinking = part.get("text"), part.get("thinking")
    if part.get("type") == "text" and isinstance(text, str):
        yield from _text("text", text)
    elif part.get("type") == "thinking":
        nested = thinking if isinstance(thinking, (list, tuple)) else [{"text": thinking}]
        texts = (item.get("text") for item in nested if isinstance(item, Mapping))
        joined = "".join(text for text in texts if isinstance(text, str))
        yield from _text("reasoning", joined)
    elif isinstance(part.get("type"), str):
        yield {name: copy_json(value) for name, value in part.items()}


def _call(call: ToolCall) -> JsonObject:
    part: JsonObject = {"type": "tool_call", "id": call.id}
    named = call.function or call.custom
    part["name"] = "" if named is None else named.name or ""
    if isinstance(named, Function):
        try:
            part["arguments"] = named.arguments_as(object)
        except ParseError:
            part["arguments"] = named.arguments
    else:
        part["arguments"] = None if named is None else named.input
    return part


def _encode(messages: list[JsonObject]) -> str:
    return msgspec.json.encode(messages).decode()
