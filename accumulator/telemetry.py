"""A completion and its timing as OpenTelemetry's `gen_ai.*` attributes, without OpenTelemetry.

The functions return builtins, for a span of any tracer:

    span.set_attributes(telemetry.attributes(completion, timing=timing))

The names are those of the GenAI semantic conventions, as opentelemetry-util-genai 1.3b0 sets them.
The caller has to set the attributes of the request and of the provider, which a completion does not
know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TypeAlias, cast

import msgspec

from ._result.convert import JsonObject, copy_json, to_dict
from ._result.outbound import text_of
from ._result.typed_json import ParseError
from .completion import Audio, ChatCompletion, Message, Timing, ToolCall, Usage

__all__ = ["Attributes", "attributes", "output_messages"]

Attributes: TypeAlias = dict[str, str | int | float | list[str]]

_INPUT, _OUTPUT = "prompt_tokens_details", "completion_tokens_details"
_DETAILS = (
    (_INPUT, "cached_tokens", "gen_ai.usage.cache_read.input_tokens"),
    (_INPUT, "cache_write_tokens", "gen_ai.usage.cache_write.input_tokens"),  # OpenRouter
    (_INPUT, "text_tokens", "gen_ai.usage.text.input_tokens"),
    (_INPUT, "image_tokens", "gen_ai.usage.image.input_tokens"),
    (_INPUT, "audio_tokens", "gen_ai.usage.audio.input_tokens"),
    (_OUTPUT, "reasoning_tokens", "gen_ai.usage.reasoning.output_tokens"),
    (_OUTPUT, "text_tokens", "gen_ai.usage.text.output_tokens"),
    (_OUTPUT, "image_tokens", "gen_ai.usage.image.output_tokens"),
    (_OUTPUT, "audio_tokens", "gen_ai.usage.audio.output_tokens"),
)


def attributes(
    completion: ChatCompletion, *, timing: Timing | None = None, content: bool = False
) -> Attributes:
    """Return span attributes for a completion, whole or partial.

    They are `gen_ai.response.*` (id, model, finish reasons), `gen_ai.usage.*` in tokens, and
    OpenAI's service tier and fingerprint. `timing` adds the seconds to the first chunk; `content`
    adds `gen_ai.output.messages` as JSON text, for which the conventions require the user's
    consent. What did not arrive is left out, and so are usage details of zero.
    """
    reasons = [choice.finish_reason for choice in completion.choices if choice.finish_reason]
    usage = completion.usage or Usage()
    counts = to_dict(usage)
    found: dict[str, str | int | float | list[str] | None] = {
        "gen_ai.response.id": completion.id,
        "gen_ai.response.model": completion.model,
        "gen_ai.response.finish_reasons": reasons or None,
        "gen_ai.response.time_to_first_chunk": timing and timing.time_to_first_chunk,
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
        "openai.response.service_tier": completion.service_tier,
        "openai.response.system_fingerprint": completion.system_fingerprint,
    }
    for source, field, name in _DETAILS:
        details = counts.get(source)
        count = details.get(field) if isinstance(details, dict) else None
        if type(count) is int and count > 0:
            found[name] = count
    if content:
        messages = msgspec.json.encode(output_messages(completion))
        found["gen_ai.output.messages"] = messages.decode()
    return {name: value for name, value in found.items() if value is not None}


def output_messages(completion: ChatCompletion) -> list[JsonObject]:
    """Return the messages of `gen_ai.output.messages` as builtins, one for each choice.

    A part is `reasoning`, `text` (for a refusal, too), `tool_call`, or a `blob` of audio. The
    arguments of a call are parsed; if they are not complete JSON, they stay text. Content parts of
    other types are as the server sent them.
    """
    messages: list[JsonObject] = []
    for choice in completion.choices:
        role = choice.message.role or "assistant"
        parts = [*_text("text", choice.text), *_parts(choice.message)]
        ended = {"finish_reason": choice.finish_reason} if choice.finish_reason else {}
        messages.append({"role": role, "parts": parts, **ended})
    return messages


def _parts(message: Message) -> Iterator[JsonObject]:
    # Some servers send the same text under both names.
    for text in dict.fromkeys([message.reasoning, message.reasoning_content]):
        yield from _text("reasoning", text)
    content = message.content
    for part in content if isinstance(content, tuple) else [{"type": "text", "text": content}]:
        yield from _content_part(part)
    yield from _text("text", message.refusal)
    audio = message.audio or Audio()
    yield from _text("text", audio.transcript)
    if audio.data:
        yield {"type": "blob", "modality": "audio", "mime_type": None, "content": audio.data}
    calls, old = message.tool_calls or (), message.function_call
    known = [(call.name, call.arguments) for call in calls]
    if old is not None and (old.name, old.arguments) not in known:  # a call may be sent both ways
        yield _call(ToolCall(function=old))
    yield from map(_call, calls)


def _text(kind: str, text: object) -> list[JsonObject]:
    return [{"type": kind, "content": text}] if text and isinstance(text, str) else []


def _content_part(part: object) -> list[JsonObject]:
    if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
        return []
    if part["type"] == "text":
        return _text("text", part.get("text"))
    if part["type"] == "thinking":
        return _text("reasoning", text_of(part.get("thinking")))
    return [cast("JsonObject", copy_json(part))]


def _call(call: ToolCall) -> JsonObject:
    arguments: object = call.arguments if call.custom is None else call.custom.input
    with suppress(ParseError):
        arguments = call.arguments_as(object)
    return {"type": "tool_call", "id": call.id, "name": call.name or "", "arguments": arguments}
