"""The result: a finished chat completion as frozen classes with the API's field names.

Each class keeps in `extra` what the server sent at that place and no field names. None means that
nothing arrived. Instances never change; treat the mappings and lists inside `extra` as read-only,
too.

Source of the fields: OpenAI API reference, "The chat completion object"; SPEC section 9.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import overload

import msgspec
from attrs import field, frozen

from . import _convert
from ._convert import NULLABLE
from .partial import is_complete

__all__ = [
    "Audio",
    "ChatCompletion",
    "Choice",
    "ChoiceLogprobs",
    "CompletionTokensDetails",
    "Custom",
    "Function",
    "FunctionCall",
    "Message",
    "PromptTokensDetails",
    "Timing",
    "TokenLogprob",
    "TokenLogprobs",
    "ToolCall",
    "TopLogprob",
    "Usage",
]

Json = object  # a class below has a field named `object`
JsonObject = Mapping[str, Json]


@frozen(kw_only=True)
class TopLogprob:
    """One of the likeliest tokens at a position: `logprob` is a natural logarithm, `bytes` its
    UTF-8 bytes.
    """

    token: str | None = None
    logprob: float | None = None
    bytes: tuple[int, ...] | None = None
    extra: JsonObject = field(factory=dict)


@frozen(kw_only=True)
class TokenLogprob:
    """One token of the output with its log probability and the likeliest others at its position."""

    token: str | None = None
    logprob: float | None = None
    bytes: tuple[int, ...] | None = None
    top_logprobs: tuple[TopLogprob, ...] | None = None
    extra: JsonObject = field(factory=dict)


class TokenLogprobs(Sequence[TokenLogprob]):
    """A tuple of `TokenLogprob` whose entries are made when one is first looked at.

    With the likeliest tokens at each position they are many times the text, and most callers only
    pass them on or never look.
    """

    __slots__ = ("_length", "_made", "_make")

    def __init__(self, length: int, make: Callable[[], tuple[TokenLogprob, ...]]) -> None:
        self._length = length
        self._make: Callable[[], tuple[TokenLogprob, ...]] | None = make
        self._made: tuple[TokenLogprob, ...] = ()

    def _all(self) -> tuple[TokenLogprob, ...]:
        if self._make is not None:
            self._made = self._make()
            self._make = None
        return self._made

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, place: int) -> TokenLogprob: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[TokenLogprob, ...]: ...
    def __getitem__(self, place: int | slice) -> TokenLogprob | tuple[TokenLogprob, ...]:
        return self._all()[place]

    def __eq__(self, other: Json) -> bool:
        if not isinstance(other, (TokenLogprobs, tuple, list)):
            return NotImplemented
        return self._length == len(other) and self._all() == tuple(other)

    def __hash__(self) -> int:
        return hash(self._all())

    def __repr__(self) -> str:
        return repr(self._all())

    def __reduce__(self) -> tuple[Json, ...]:
        return tuple, (list(self._all()),)


@frozen(kw_only=True)
class ChoiceLogprobs:
    """The token log probabilities of a choice: of its content, and of its refusal."""

    content: Sequence[TokenLogprob] | None = field(default=None, metadata=NULLABLE)
    refusal: Sequence[TokenLogprob] | None = field(default=None, metadata=NULLABLE)
    extra: JsonObject = field(factory=dict)


@frozen(kw_only=True)
class Function:
    """The function that a tool call names; `arguments` is JSON text as the model wrote it,
    whole or not.
    """

    name: str | None = None
    arguments: str | None = None
    extra: JsonObject = field(factory=dict)

    @property
    def arguments_complete(self) -> bool:
        """Whether `arguments` is exactly one JSON value."""
        return self.arguments is not None and is_complete(self.arguments)


@frozen(kw_only=True)
class FunctionCall(Function):
    """The deprecated predecessor of tool calls."""


@frozen(kw_only=True)
class Custom:
    """The custom tool that a tool call names; `input` is free text."""

    name: str | None = None
    input: str | None = None
    extra: JsonObject = field(factory=dict)


@frozen(kw_only=True)
class ToolCall:
    """A call of a tool: of a function, or of a custom tool."""

    id: str | None = None
    type: str | None = None
    function: Function | None = None
    custom: Custom | None = None
    extra: JsonObject = field(factory=dict)


@frozen(kw_only=True)
class Audio:
    """A spoken answer: `data` is base64 of the whole audio, `expires_at` in seconds since 1970."""

    id: str | None = None
    data: str | None = None
    transcript: str | None = None
    expires_at: int | None = None
    extra: JsonObject = field(factory=dict)


@frozen(kw_only=True)
class Message:
    """What the model said. `content` is text, or parts where the server sends parts (Mistral)."""

    role: str | None = None
    content: str | tuple[Json, ...] | None = field(default=None, metadata=NULLABLE)
    refusal: str | None = field(default=None, metadata=NULLABLE)
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: tuple[ToolCall, ...] | None = None
    function_call: FunctionCall | None = None
    audio: Audio | None = None
    annotations: tuple[Json, ...] | None = None
    extra: JsonObject = field(factory=dict)

    def to_message(self) -> dict[str, Json]:
        """Build the dict to append to the next request's `messages`.

        It holds the role, content, refusal, calls, audio id, and the reasoning that providers want
        back with its signatures; nothing that a request schema refuses. The role is "assistant"
        where none arrived.
        """
        given = _convert.to_dict(self)
        message: dict[str, Json] = {
            "role": given.get("role") or "assistant",
            "content": given["content"],
        }
        message |= {name: given[name] for name in _SENT_BACK if given.get(name) is not None}
        if self.audio is not None and self.audio.id:
            message["audio"] = {"id": self.audio.id}
        if self.tool_calls:
            message["tool_calls"] = [_sent_back_call(call) for call in self.tool_calls]
        if self.function_call is not None:
            message["function_call"] = {
                "name": self.function_call.name or "",
                "arguments": self.function_call.arguments or "",
            }
        return message


# DeepSeek and Moonshot want `reasoning_content` back, OpenRouter `reasoning` and
# `reasoning_details`.
_SENT_BACK = ("refusal", "reasoning", "reasoning_content", "reasoning_details")


def _sent_back_call(call: ToolCall) -> dict[str, Json]:
    given: dict[str, Json] = {"id": call.id or ""}
    if call.custom is not None:
        given["type"] = call.type or "custom"
        given["custom"] = {"name": call.custom.name or "", "input": call.custom.input or ""}
    if call.function is not None:
        given["type"] = call.type or "function"
        given["function"] = {
            "name": call.function.name or "",
            "arguments": call.function.arguments or "",
        }
    # Gemini refuses a conversation whose calls have lost their thought signatures.
    if "extra_content" in call.extra:
        given["extra_content"] = _convert.copy_json(call.extra["extra_content"])
    return given


@frozen(kw_only=True)
class Choice:
    """One of the `n` answers; `finish_reason` is None where the stream stopped before it."""

    index: int
    message: Message
    finish_reason: str | None = field(default=None, metadata=NULLABLE)
    logprobs: ChoiceLogprobs | None = field(default=None, metadata=NULLABLE)
    extra: JsonObject = field(factory=dict)


@frozen(kw_only=True)
class CompletionTokensDetails:
    """How the completion's tokens divide; counts of tokens."""

    accepted_prediction_tokens: int | None = None
    audio_tokens: int | None = None
    reasoning_tokens: int | None = None
    rejected_prediction_tokens: int | None = None
    extra: JsonObject = field(factory=dict)


@frozen(kw_only=True)
class PromptTokensDetails:
    """How the prompt's tokens divide; counts of tokens."""

    audio_tokens: int | None = None
    cached_tokens: int | None = None
    extra: JsonObject = field(factory=dict)


@frozen(kw_only=True)
class Usage:
    """What the request used; counts of tokens."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    completion_tokens_details: CompletionTokensDetails | None = None
    prompt_tokens_details: PromptTokensDetails | None = None
    extra: JsonObject = field(factory=dict)


@frozen(kw_only=True)
class ChatCompletion:
    """A finished chat completion; `created` is in seconds since 1970, `choices` are ordered by
    index.
    """

    id: str | None = None
    object: str = "chat.completion"
    created: int | None = None
    model: str | None = None
    choices: tuple[Choice, ...] = ()
    service_tier: str | None = None
    system_fingerprint: str | None = None
    usage: Usage | None = None
    moderation: JsonObject | None = None
    extra: JsonObject = field(factory=dict)

    def to_dict(self) -> dict[str, Json]:
        """Convert to the API's own shape: builtins only, extras back at their place."""
        return _convert.to_dict(self)

    def to_json(self) -> str:
        """Convert to compact JSON text in the API's own shape."""
        return msgspec.json.encode(_convert.to_dict(self)).decode()

    @classmethod
    def from_dict(cls, data: JsonObject) -> ChatCompletion:
        """Read the API's shape back. Raises ValueError that names each field that does not fit."""
        return _convert.from_dict(data, cls)


@frozen(kw_only=True)
class Timing:
    """When the chunks of a stream came, in seconds of the clock that was given.

    All counts from the making of the accumulator: `time_to_first_chunk`; `time_to_first_token`, the
    first chunk that brought content, reasoning, a refusal, a fragment of a tool call or audio;
    `duration`, until the stream ended. The gaps are between one chunk and the next, `gap_count` of
    them; chunks of one read have none between them, and count as 0. None is not known (yet).
    """

    time_to_first_chunk: float | None = None
    time_to_first_token: float | None = None
    gap_count: int = 0
    gap_mean: float | None = None
    gap_max: float | None = None
    duration: float | None = None
