"""What happens in a stream, as typed events: `Accumulator(on_event=...)` is called with them, and
`iter_events` yields them.

`Event` is the closed union of all of them; `type` says which one it is. Types and classes have the
names of openai-python's, if it has them. Instances never change. `snapshot` is everything up to the
event, even if more has arrived since, and is only put together when you read it.

`docs/typed-events.md` says when each event comes. What has no event of its own comes as
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

# Where reasoning is: in one of the two fields of the message, or in the `thinking` parts of its
# content (Mistral).
ReasoningField = Literal["reasoning", "reasoning_content", "thinking"]


# No event can be in a cycle: it is made after everything that it refers to.
class _Base(Struct, frozen=True, gc=False):
    """What all events have in common: `repr` leaves out private fields."""

    _BRIEF: ClassVar[str] = ""  # what `repr` shows of values that are put together when read

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
    """An event with values that are put together when read; `_VALUES` has their names. It equals
    an event with the same values, however these are kept.
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
        """The text so far, including this delta."""
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
    """Text was added to a choice's content, or to a text part of content in parts (Mistral)."""

    type: Literal["content.delta"] = "content.delta"

    @property
    def parsed(self) -> object:
        """The value of the text so far if it is JSON, otherwise None. Do not change it.

        It may lack up to the last sixteenth. If the text turns out not to be JSON, it may also be
        what an earlier look found. Raises ImportError without the extra `partial`.
        """
        return self._text.parsed(self._length)


class ContentDoneEvent(_OfChoice, frozen=True, gc=False):
    """A choice's content is whole; if it has parts, this is their text: `choice.done` has them."""

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
    """Text was added to a choice's reasoning, in this field; a server may fill several."""

    field: ReasoningField
    type: Literal["reasoning.delta"] = "reasoning.delta"


class ReasoningDoneEvent(_OfChoice, frozen=True, gc=False):
    """A choice's reasoning in this field is whole."""

    field: ReasoningField
    reasoning: str
    type: Literal["reasoning.done"] = "reasoning.done"


class FunctionToolCallArgumentsDeltaEvent(_CallDelta, frozen=True, gc=False):
    """A function call began, or JSON text was added to its arguments.

    `index` numbers the calls of a choice from 0 in order of arrival: Gemini gives all of them 0.
    `id` and `name` are what has arrived of them so far.
    """

    type: Literal["tool_calls.function.arguments.delta"] = "tool_calls.function.arguments.delta"

    @property
    def parsed(self) -> object:
        """The value of the arguments so far, as in `ContentDeltaEvent.parsed`."""
        return self._text.parsed(self._length)

    @property
    def arguments_delta(self) -> str:
        """The same as `delta`, by openai-python's name; so are the next two for the others."""
        return self.delta

    @property
    def arguments(self) -> str:
        return self.snapshot

    parsed_arguments = parsed


class FunctionToolCallArgumentsDoneEvent(_CallDone, frozen=True, gc=False):
    """The arguments of a function call are whole; `index` is that of the deltas."""

    type: Literal["tool_calls.function.arguments.done"] = "tool_calls.function.arguments.done"

    @property
    def arguments(self) -> str:
        """The arguments: JSON text as the model wrote it, complete or not; empty if none came."""
        return self.tool_call.arguments or ""


class CustomToolCallInputDeltaEvent(_CallDelta, frozen=True, gc=False):
    """A call to a custom tool began, or its input got text; `index` is as for functions."""

    type: Literal["tool_calls.custom.input.delta"] = "tool_calls.custom.input.delta"


class CustomToolCallInputDoneEvent(_CallDone, frozen=True, gc=False):
    """The input of a call to a custom tool is whole; `index` is that of the deltas."""

    type: Literal["tool_calls.custom.input.done"] = "tool_calls.custom.input.done"

    @property
    def input(self) -> str:
        """The input; empty if none came."""
        custom = self.tool_call.custom
        return (None if custom is None else custom.input) or ""


class LogprobsContentDeltaEvent(_OfChoice, frozen=True, gc=False):
    """Log probabilities of content tokens came; `snapshot` has all of the choice so far."""

    content: Sequence[TokenLogprob]
    snapshot: Sequence[TokenLogprob]
    type: Literal["logprobs.content.delta"] = "logprobs.content.delta"


class LogprobsContentDoneEvent(_OfChoice, frozen=True, gc=False):
    """The log probabilities of a choice's content tokens are whole."""

    content: Sequence[TokenLogprob]
    type: Literal["logprobs.content.done"] = "logprobs.content.done"


class LogprobsRefusalDeltaEvent(_OfChoice, frozen=True, gc=False):
    """Log probabilities of refusal tokens came; `snapshot` has all of the choice so far."""

    refusal: Sequence[TokenLogprob]
    snapshot: Sequence[TokenLogprob]
    type: Literal["logprobs.refusal.delta"] = "logprobs.refusal.delta"


class LogprobsRefusalDoneEvent(_OfChoice, frozen=True, gc=False):
    """The log probabilities of a choice's refusal tokens are whole."""

    refusal: Sequence[TokenLogprob]
    type: Literal["logprobs.refusal.done"] = "logprobs.refusal.done"


class AudioDeltaEvent(_LookingBack, frozen=True, gc=False):
    """Audio was added. `data` has the decoded bytes of this fragment, `transcript` its words. Each
    is None if the chunk had none.
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
    """A choice's audio is whole; its `data` is all of it as base64."""

    audio: Audio
    type: Literal["audio.done"] = "audio.done"


class ChoiceDoneEvent(_OfChoice, frozen=True, gc=False):
    """A choice has its finish reason and a later chunk added nothing to it, or the stream ended.

    `choice` is as it was then; if more arrives, it is in the completion of `done`.
    """

    choice: Choice
    type: Literal["choice.done"] = "choice.done"

    @property
    def finish_reason(self) -> str | None:
        """Why the choice ended, in the server's word; None if it sent none."""
        return self.choice.finish_reason


class ExtraDeltaEvent(_LookingBack, frozen=True, gc=False):
    """A chunk contained something that has no other event: annotations, citations, a vendor's
    fields, or fields that a caller's rule moved.

    `path` is the path in the rules, such as "chunk.citations". In a tool call it has the index, as
    in "delta.tool_calls[0].extra_content". `choice_index` is None for the chunk's own fields. A
    value that is repeated and changes nothing is emitted once.
    """

    _VALUES, _BRIEF = ("value",), "value={0.value!r}"

    choice_index: int | None
    path: str
    _value: object
    type: Literal["extra.delta"] = "extra.delta"

    @property
    def value(self) -> object:
        """The value in the chunk, as JSON: if it is part of a longer text, only the fragment."""
        return to_builtins(self._value)


class UsageEvent(_Base, frozen=True, gc=False):
    """A chunk changed the usage; this is all of it so far. Some servers send it with every chunk;
    the last is the completion's. A usage with very many fields is not emitted at each change.
    """

    usage: Usage
    type: Literal["usage"] = "usage"


class ProblemEvent(_Base, frozen=True, gc=False):
    """The server did something wrong. Problems that are too many to keep have events, too."""

    problem: Problem
    type: Literal["problem"] = "problem"


class DoneEvent(_Base, frozen=True, gc=False):
    """The stream has ended: with `[DONE]`, with the server's error, or because it was closed.

    `completion` is whole if `status` is "complete", else as far as it has arrived. `timing` is None
    without a clock, and `server_error` if the server sent none; `error` is the same.
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
