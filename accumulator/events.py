"""What happens in a stream, as typed events: made for `Accumulator(on_event=...)` and by
`iter_events`.

`Event` is the closed union of all of them; `type` tells which one it is. Names of types and classes
are those of openai-python where it has them. Instances never change. `snapshot` is the whole so far
as of the event, not of the time of looking, and is only put together when looked at.

When each of them comes is in `docs/typed-events.md`. What has no event of its own comes as
`extra.delta`.

Source: openai-python, `openai/lib/streaming/chat/_events.py`, for the names; SPEC sections 3, 4, 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, TypeAlias

from msgspec import Struct, to_builtins

from ._decode.text import Text
from .completion import Audio, ChatCompletion, Choice, Timing, TokenLogprob, ToolCall, Usage
from .errors import Problem

# Where reasoning stands: one of the two fields of the message, or the `thinking` parts of its
# content (Mistral).
ReasoningField = Literal["reasoning", "reasoning_content", "thinking"]


# No event can be in a cycle: it is made after all that it refers to.
class _Base(Struct, frozen=True, gc=False):
    """What all events have in common: `repr` shows no private field."""

    _BRIEF: ClassVar[str] = ""  # what it shows of values that are put together when looked at

    def __repr__(self) -> str:
        shown = [
            f"{name}={getattr(self, name)!r}"
            for name in self.__struct_fields__
            if not name.startswith("_") and name != "snapshot"
        ]
        if self._BRIEF:
            shown.append(self._BRIEF.format(self))
        return f"{type(self).__name__}({', '.join(shown)})"


class _LookingBack(_Base, frozen=True, gc=False):
    """An event with values that are put together when looked at, by the names in `_VALUES`. Equal
    to one with the same values, however they are kept.
    """

    _VALUES: ClassVar[tuple[str, ...]] = ("snapshot",)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and other._public() == self._public()

    def __hash__(self) -> int:
        raise TypeError(f"{type(self).__name__} has no hash: putting its values together is slow")

    def _public(self) -> list[object]:
        fields = [name for name in self.__struct_fields__ if not name.startswith("_")]
        return [getattr(self, name) for name in (*fields, *self._VALUES)]


class _TextDelta(_LookingBack, frozen=True, gc=False):
    _BRIEF = "snapshot=<{0._length} characters>"

    choice_index: int
    delta: str
    _text: Text
    _length: int

    @property
    def snapshot(self) -> str:
        """The whole text so far, this delta included."""
        return str(self._text)[: self._length]


class _CallDelta(_TextDelta, frozen=True, gc=False):
    _VALUES = ("snapshot", "name")

    index: int
    id: str | None
    _name: Text | None
    _name_length: int

    @property
    def name(self) -> str | None:
        """The function's or tool's name so far."""
        return None if self._name is None else str(self._name)[: self._name_length]


class _OfChoice(_Base, frozen=True, gc=False):
    choice_index: int


class _CallDone(_OfChoice, frozen=True, gc=False):
    index: int
    tool_call: ToolCall

    @property
    def id(self) -> str | None:
        """The call's id."""
        return self.tool_call.id

    @property
    def name(self) -> str | None:
        """The name of the function or tool."""
        return self.tool_call.name


class ContentDeltaEvent(_TextDelta, frozen=True, gc=False):
    """Text was added to a choice's content; of content in parts (Mistral), to a text part."""

    type: Literal["content.delta"] = "content.delta"

    @property
    def parsed(self) -> object:
        """What is known of the text so far, if it is JSON, else None; not to be changed.

        It may lag behind by a sixteenth. Raises ImportError without the extra `partial`.
        """
        return self._text.parsed(self._length)


class ContentDoneEvent(_OfChoice, frozen=True, gc=False):
    """A choice's content is whole; of content in parts its text. The parts are in `choice.done`."""

    content: str
    type: Literal["content.done"] = "content.done"


class RefusalDeltaEvent(_TextDelta, frozen=True, gc=False):
    """Text was added to a choice's refusal."""

    type: Literal["refusal.delta"] = "refusal.delta"


class RefusalDoneEvent(_OfChoice, frozen=True, gc=False):
    """A choice's refusal is whole."""

    refusal: str
    type: Literal["refusal.done"] = "refusal.done"


class ReasoningDeltaEvent(_TextDelta, frozen=True, gc=False):
    """Text was added to a choice's reasoning, in one of its fields; a server may fill several."""

    field: ReasoningField
    type: Literal["reasoning.delta"] = "reasoning.delta"


class ReasoningDoneEvent(_OfChoice, frozen=True, gc=False):
    """A choice's reasoning is whole, in the given field."""

    field: ReasoningField
    reasoning: str
    type: Literal["reasoning.done"] = "reasoning.done"


class FunctionToolCallArgumentsDeltaEvent(_CallDelta, frozen=True, gc=False):
    """JSON text was added to the arguments of a function call.

    `index` numbers the calls of a choice from 0 in order of arrival: Gemini numbers all of them 0.
    `id` and `name` are as known so far.
    """

    type: Literal["tool_calls.function.arguments.delta"] = "tool_calls.function.arguments.delta"

    @property
    def parsed(self) -> object:
        """What is known of the arguments so far, as `ContentDeltaEvent.parsed`."""
        return self._text.parsed(self._length)

    @property
    def arguments_delta(self) -> str:
        """The same as `delta`, by openai-python's name; the next two are so for the others."""
        return self.delta

    @property
    def arguments(self) -> str:
        return self.snapshot

    parsed_arguments = parsed


class FunctionToolCallArgumentsDoneEvent(_CallDone, frozen=True, gc=False):
    """The arguments of a function call are whole; `index` is as in the deltas."""

    type: Literal["tool_calls.function.arguments.done"] = "tool_calls.function.arguments.done"

    @property
    def arguments(self) -> str:
        """The arguments: JSON text as the model wrote it, whole or not; empty if none came."""
        return self.tool_call.arguments or ""


class CustomToolCallInputDeltaEvent(_CallDelta, frozen=True, gc=False):
    """Text was added to the input of a custom tool's call; `index` is as for functions."""

    type: Literal["tool_calls.custom.input.delta"] = "tool_calls.custom.input.delta"


class CustomToolCallInputDoneEvent(_CallDone, frozen=True, gc=False):
    """The input of a custom tool's call is whole; `index` is as in the deltas."""

    type: Literal["tool_calls.custom.input.done"] = "tool_calls.custom.input.done"

    @property
    def input(self) -> str:
        """The input; empty if none came."""
        custom = self.tool_call.custom
        return (None if custom is None else custom.input) or ""


class LogprobsContentDeltaEvent(_OfChoice, frozen=True, gc=False):
    """Log probabilities of content tokens came; `snapshot` is all of the choice's so far."""

    content: Sequence[TokenLogprob]
    snapshot: Sequence[TokenLogprob]
    type: Literal["logprobs.content.delta"] = "logprobs.content.delta"


class LogprobsContentDoneEvent(_OfChoice, frozen=True, gc=False):
    """The log probabilities of a choice's content tokens are whole."""

    content: Sequence[TokenLogprob]
    type: Literal["logprobs.content.done"] = "logprobs.content.done"


class LogprobsRefusalDeltaEvent(_OfChoice, frozen=True, gc=False):
    """Log probabilities of refusal tokens came; `snapshot` is all of the choice's so far."""

    refusal: Sequence[TokenLogprob]
    snapshot: Sequence[TokenLogprob]
    type: Literal["logprobs.refusal.delta"] = "logprobs.refusal.delta"


class LogprobsRefusalDoneEvent(_OfChoice, frozen=True, gc=False):
    """The log probabilities of a choice's refusal tokens are whole."""

    refusal: Sequence[TokenLogprob]
    type: Literal["logprobs.refusal.done"] = "logprobs.refusal.done"


class AudioDeltaEvent(_LookingBack, frozen=True, gc=False):
    """Audio was added: `data` is the decoded bytes of this fragment, `transcript` its words; each
    None if the chunk had none.
    """

    _BRIEF = "snapshot=<{0._audio_length} bytes, {0._length} characters>"

    choice_index: int
    data: bytes | None
    transcript: str | None
    _id: str | None
    _audio: bytearray | None
    _audio_length: int
    _words: Text | None
    _length: int
    type: Literal["audio.delta"] = "audio.delta"

    @property
    def snapshot(self) -> Audio:
        """The id, the data and the transcript so far."""
        audio, words = self._audio, self._words
        if audio is not None:
            audio = audio[: self._audio_length]
        return Audio(
            id=self._id,
            data=to_builtins(audio),  # as base64
            transcript=None if words is None else str(words)[: self._length],
        )


class AudioDoneEvent(_OfChoice, frozen=True, gc=False):
    """A choice's audio is whole; its `data` is base64 of all of it."""

    audio: Audio
    type: Literal["audio.done"] = "audio.done"


class ChoiceDoneEvent(_OfChoice, frozen=True, gc=False):
    """A choice has its finish reason and nothing was added to it since, or the stream ended.

    `choice` is as of then; what comes later is in the completion of `done`.
    """

    choice: Choice
    type: Literal["choice.done"] = "choice.done"

    @property
    def finish_reason(self) -> str | None:
        """Why the choice ended, in the server's word; None if it did not say."""
        return self.choice.finish_reason


class ExtraDeltaEvent(_LookingBack, frozen=True, gc=False):
    """A chunk brought something that no other event is named for: annotations, citations, fields of
    a vendor, or fields that a rule of the caller's moved.

    `path` is that of the rules, such as "chunk.citations", in a tool call with its index, such as
    "delta.tool_calls[0].extra_content". `choice_index` is None for the chunk's own fields. A value
    that is repeated and changes nothing is told once.
    """

    _VALUES, _BRIEF = ("value",), "value={0.value!r}"

    choice_index: int | None
    path: str
    _value: object
    type: Literal["extra.delta"] = "extra.delta"

    @property
    def value(self) -> object:
        """What the chunk brought, as JSON; of a text whose fragments are joined, the fragment."""
        return to_builtins(self._value)


class UsageEvent(_Base, frozen=True, gc=False):
    """A chunk changed the usage, which is all that is known of it. Some servers send it with every
    chunk; the last is the completion's. One with very many fields is not told at each change.
    """

    usage: Usage
    type: Literal["usage"] = "usage"


class ProblemEvent(_Base, frozen=True, gc=False):
    """The server did something wrong. There is an event also for problems too many to be kept."""

    problem: Problem
    type: Literal["problem"] = "problem"


class DoneEvent(_Base, frozen=True, gc=False):
    """The stream has ended: by `[DONE]`, by an error of the server, or because it was closed.

    `completion` is whole if `status` is "complete", else as far as it is known. `timing` is None
    without a clock, `server_error` unless the server sent one; `error` is the same.
    """

    status: Literal["complete", "truncated", "failed"]
    timing: Timing | None
    completion: ChatCompletion
    server_error: object = None
    type: Literal["done"] = "done"

    @property
    def error(self) -> object:
        """The same as `server_error`."""
        return self.server_error

    def __repr__(self) -> str:
        error = "" if self.server_error is None else f", server_error={self.server_error!r}"
        return f"DoneEvent(status={self.status!r}, timing={self.timing!r}, completion=...{error})"


Event: TypeAlias = (
    ContentDeltaEvent
    | ContentDoneEvent
    | RefusalDeltaEvent
    | RefusalDoneEvent
    | ReasoningDeltaEvent
    | ReasoningDoneEvent
    | FunctionToolCallArgumentsDeltaEvent
    | FunctionToolCallArgumentsDoneEvent
    | CustomToolCallInputDeltaEvent
    | CustomToolCallInputDoneEvent
    | LogprobsContentDeltaEvent
    | LogprobsContentDoneEvent
    | LogprobsRefusalDeltaEvent
    | LogprobsRefusalDoneEvent
    | AudioDeltaEvent
    | AudioDoneEvent
    | ChoiceDoneEvent
    | ExtraDeltaEvent
    | UsageEvent
    | ProblemEvent
    | DoneEvent
)
