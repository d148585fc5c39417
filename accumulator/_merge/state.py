"""The state of a stream: what has arrived of its choices, and how it stands.

`_reduce` holds every transition of it. `_checkpoint` writes these classes as they stand; what is as
it was at first is left out.
"""

from __future__ import annotations

from operator import itemgetter
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


class AudioState(Struct, omit_defaults=True, repr_omit_defaults=True):
    id: str | None = None
    transcript: Text | None = None
    data: bytearray | None = None
    expires_at: int | None = None
    extra: JsonObject | None = None


class TokensState(Struct, omit_defaults=True, repr_omit_defaults=True):
    """Token logprobs in the runs in which they came."""

    runs: list[list[wire.TokenLogprob]] = field(default_factory=list)
    count: int = 0

    def add(self, run: list[wire.TokenLogprob]) -> None:
        self.runs.append(run)
        self.count += len(run)


class LogprobsState(Struct, omit_defaults=True, repr_omit_defaults=True):
    content: TokensState | None = None
    refusal: TokensState | None = None
    extra: JsonObject | None = None


class ChoiceState(Struct, omit_defaults=True, repr_omit_defaults=True):
    """A choice; `extra` holds what the choice has no field for, `delta_extra` what the message
    has none for.

    `text` is a legacy completion's. `error` is the choice's own, or else True if its finish reason
    says that it failed. `brought` are the fields that deltas filled, once a message closed it.
    `tags` is what `think_tags` has read and not given out.
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
    text: Text | None = None
    error: object = None
    brought: dict[str, bool] | None = None
    tags: str | None = None
    extra: JsonObject | None = None


class State(Struct, omit_defaults=True, repr_omit_defaults=True):
    """A stream: the completion's own fields, its choices by index, and how it ended.

    `says_text` tells whether a chunk called itself a `text_completion`. `due` are the choices that
    have finished and whose calls are not judged yet, and whether something came since.
    """

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
    says_text: bool = False
    due: dict[int, bool] | None = None
    done: bool = False
    closed: bool = False
    failed: bool = False
    server_error: object = None  # in place of the rest of the stream

    @property
    def error(self) -> object:
        """The server's error: of the stream, else of the first choice that has one to show."""
        if self.failed:
            return self.server_error
        errors = [error for _, error in sorted(self._errors(), key=itemgetter(0))]
        return next((error for error in errors if error is not True), errors[0] if errors else None)

    def _errors(self) -> list[tuple[int, object]]:
        return [(index, c.error) for index, c in self.choices.items() if c.error is not None]

    @property
    def is_text(self) -> bool:
        """Whether it is a legacy text completion: TGI calls its chat chunks so, too."""
        return self.says_text and any(c.text is not None for c in self.choices.values())

    @property
    def is_finished(self) -> bool:
        """Whether there are choices, and each has its finish reason."""
        for choice in self.choices.values():
            if not choice.finish_reason:
                return False
        return bool(self.choices)

    @property
    def has_usage(self) -> bool:
        """Whether there is a usage, or what stands in for one (Groq)."""
        groq = None if self.extra is None else self.extra.get("x_groq")
        return self.usage is not None or (
            isinstance(groq, dict) and isinstance(groq.get("usage"), dict)
        )

    @property
    def status(self) -> Status:
        if self.failed or self._errors():
            return "failed"
        if self.is_finished or (self.done and (self.choices or self.has_usage)):
            return "complete"
        return "truncated" if self.closed or self.done else "open"
