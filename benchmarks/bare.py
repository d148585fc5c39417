"""The yardstick: what parsing alone costs.

`decode` is a reused `msgspec.json.Decoder` of a chunk with every field that the API names, typed.
It must never change, because all figures, old and new, are ratios to it. Nothing here comes from
the package, so that no change of the package moves the yardstick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from msgspec import Struct


class TopLogprob(Struct):
    token: str | None = None
    logprob: float | None = None
    bytes: list[int] | None = None


class TokenLogprob(Struct):
    token: str | None = None
    logprob: float | None = None
    bytes: list[int] | None = None
    top_logprobs: list[TopLogprob] | None = None


class Logprobs(Struct):
    content: list[TokenLogprob] | None = None
    refusal: list[TokenLogprob] | None = None


class Function(Struct):
    name: str | None = None
    arguments: str | None = None


class ToolCall(Struct):
    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: Function | None = None


class Delta(Struct):
    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    function_call: Function | None = None
    tool_calls: list[ToolCall] | None = None


class Choice(Struct):
    index: int | None = None
    delta: Delta | None = None
    logprobs: Logprobs | None = None
    finish_reason: str | None = None


class CompletionTokensDetails(Struct):
    accepted_prediction_tokens: int | None = None
    audio_tokens: int | None = None
    reasoning_tokens: int | None = None
    rejected_prediction_tokens: int | None = None


class PromptTokensDetails(Struct):
    audio_tokens: int | None = None
    cached_tokens: int | None = None


class Usage(Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    completion_tokens_details: CompletionTokensDetails | None = None
    prompt_tokens_details: PromptTokensDetails | None = None


class Chunk(Struct):
    id: str | None = None
    object: str | None = None
    created: int | None = None
    model: str | None = None
    service_tier: str | None = None
    system_fingerprint: str | None = None
    choices: list[Choice] | None = None
    usage: Usage | None = None


decode = msgspec.json.Decoder(Chunk).decode


def decode_all(events: Iterable[bytes], decode: Callable[[bytes], object] = decode) -> None:
    """Decode every event and keep nothing."""
    for event in events:
        decode(event)
