"""The state of a stream: what has arrived of its choices, and how it stands.

`_reduce` holds every transition of it. `_checkpoint` writes these classes as they stand; what is as
it was at first is left out.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from .._decode import chunk as wire
from .._decode.chunk import JsonObject
from .._decode.text import Text
from .tool_calls import CallsState, FunctionState

__all__ = [
    "AudioState",
    "ChoiceState",
    "LogprobsState",
    "State",
    "Status",
    "TokensState",
]

Status = Literal["open", "complete", "truncated", "failed"]


class AudioState(Struct, omit_defaults=True):
    id: str | None = None
    transcript: Text | None = None
    data: bytearray | None = None
    expires_at: int | None = None
    extra: JsonObject | None = None


class TokensState(Struct, omit_defaults=True):
    """Token logprobs in the runs in which they came."""

    runs: list[list[wire.TokenLogprob] | wire.UnreadTokens] = field(default_factory=list)
    count: int = 0

    def add(self, run: list[wire.TokenLogprob]) -> None:
        self.runs.append(run)
        self.count += len(run)


class LogprobsState(Struct, omit_defaults=True):
    content: TokensState | None = None
    refusal: TokensState | None = None
    extra: JsonObject | None = None


class ChoiceState(Struct, omit_defaults=True):
    """A choice; `extra` holds what the choice has no field for, `delta_extra` what the message
    has none for.
    """

    role: str | None = None
    content: Text | None = None
    parts: list[object] | None = None
    refusal: Text | None = None
    reasoning: Text | None = None
    reasoning_content: Text | None = None
    calls: CallsState | None = None
    function_call: FunctionState | None = None
    audio: AudioState | None = None
    annotations: list[object] | None = None
    delta_extra: JsonObject | None = None
    finish_reason: str | None = None
    logprobs: LogprobsState | None = None
    extra: JsonObject | None = None


class State(Struct, omit_defaults=True):
    """A stream: the completion's own fields, its choices by index, and how it ended."""

    id: str | None = None
    last_id: str | None = None
    created: int | None = None
    model: str | None = None
    service_tier: str | None = None
    system_fingerprint: str | None = None
    usage: wire.Usage | None = None
    moderation: JsonObject | None = None
    extra: JsonObject | None = None
    choices: dict[int, ChoiceState] = field(default_factory=dict)
    done: bool = False
    closed: bool = False
    failed: bool = False
    error: object = None

    @property
    def status(self) -> Status:
        if self.failed:
            return "failed"
        if self.done or (
            self.choices and all(choice.finish_reason for choice in self.choices.values())
        ):
            return "complete"
        return "truncated" if self.closed else "open"
