"""The yardstick: what parsing alone costs.

`decode` is a reused `msgspec.json.Decoder` of a chunk with every field that the API names, typed.
It must never change, because all figures, old and new, are ratios to it. Nothing here comes from
the package, so that no change of the package moves the yardstick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec


def struct(name: str, /, **fields: Any) -> Any:
    """Return a Struct whose fields may all be missing."""
    return msgspec.defstruct(name, [(field, kind | None, None) for field, kind in fields.items()])


TopLogprob = struct("TopLogprob", token=str, logprob=float, bytes=list[int])
TokenLogprob = struct(
    "TokenLogprob", token=str, logprob=float, bytes=list[int], top_logprobs=list[TopLogprob]
)
Logprobs = struct("Logprobs", content=list[TokenLogprob], refusal=list[TokenLogprob])
Function = struct("Function", name=str, arguments=str)
ToolCall = struct("ToolCall", index=int, id=str, type=str, function=Function)
Delta = struct(
    "Delta", role=str, content=str, refusal=str, function_call=Function, tool_calls=list[ToolCall]
)
Choice = struct("Choice", index=int, delta=Delta, logprobs=Logprobs, finish_reason=str)
CompletionTokensDetails = struct(
    "CompletionTokensDetails",
    accepted_prediction_tokens=int,
    audio_tokens=int,
    reasoning_tokens=int,
    rejected_prediction_tokens=int,
)
PromptTokensDetails = struct("PromptTokensDetails", audio_tokens=int, cached_tokens=int)
Usage = struct(
    "Usage",
    prompt_tokens=int,
    completion_tokens=int,
    total_tokens=int,
    completion_tokens_details=CompletionTokensDetails,
    prompt_tokens_details=PromptTokensDetails,
)
Chunk = struct(
    "Chunk",
    id=str,
    object=str,
    created=int,
    model=str,
    service_tier=str,
    system_fingerprint=str,
    choices=list[Choice],
    usage=Usage,
)

decode = msgspec.json.Decoder(Chunk).decode


def decode_all(events: Iterable[bytes], decode: Callable[[bytes], object] = decode) -> None:
    """Decode every event and keep nothing."""
    for event in events:
        decode(event)
