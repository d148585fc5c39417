"""What happens in a stream, as typed events: made for `Accumulator(on_event=...)` and by
`iter_events`.

`Event` is the closed union of all of them; `type` tells which one it is. Names of types and classes
are those of openai-python where it has them. Instances never change. `snapshot` is the whole so far
as of the event, not of the time of looking, and is only put together when looked at.

The rules that hold for every stream:

- A `.delta` is what one chunk added. An empty fragment is no event, but for the first one of a tool
  call, which tells that the call is there.
- Each `.done` comes once for each choice or call, with the whole value. It comes with the choice's
  finish reason, or else at the stream's end; that of a function call as soon as a fragment of
  another call arrives while the call's own arguments are a complete JSON object, list or string.
  Every call has one; of the rest only what brought something has one.
- The deltas of a text joined are the value of the completion. Those before its `.done` joined are
  the value of the `.done`. These two differ only if the server goes on after it, against the
  protocol: what comes then is told by more deltas, after the finish reason with the problem
  `content_after_finish`, and the `.done` is not repeated. So is the U+FFFD for half a surrogate
  pair that stays alone, which is known only at the stream's end. What a server begins after the
  finish reason has its `.done` at the next one, or at the end.
- `done` comes once, last.

What has no event of its own (annotations, the deprecated `function_call`, vendor fields, and fields
that rules of the caller's move to another place) is in the choice of `choice.done` and in the
completion of `done`.

Source: openai-python, `openai/lib/streaming/chat/_events.py`, for the names; SPEC sections 3, 4, 6.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Sequence
from typing import Literal, TypeAlias

from msgspec import Struct

from ._decode.growing import Later, Then
from .completion import Audio, ChatCompletion, Choice, Timing, TokenLogprob, ToolCall, Usage
from .errors import Problem

__all__ = [
    "AudioDeltaEvent",
    "AudioDoneEvent",
    "ChoiceDoneEvent",
    "ContentDeltaEvent",
    "ContentDoneEvent",
    "CustomToolCallInputDeltaEvent",
    "CustomToolCallInputDoneEvent",
    "DoneEvent",
    "Event",
    "FunctionToolCallArgumentsDeltaEvent",
    "FunctionToolCallArgumentsDoneEvent",
    "LogprobsContentDeltaEvent",
    "LogprobsContentDoneEvent",
    "LogprobsRefusalDeltaEvent",
    "LogprobsRefusalDoneEvent",
    "ProblemEvent",
    "ReasoningDeltaEvent",
    "ReasoningDoneEvent",
    "ReasoningField",
    "RefusalDeltaEvent",
    "RefusalDoneEvent",
    "UsageEvent",
]

# Where reasoning stands: one of the two fields of the message, or the `thinking` parts of its
# content (Mistral).
ReasoningField = Literal["reasoning", "reasoning_content", "thinking"]


# --- what the events of a text have in common ---


class _TextDelta(Struct, frozen=True, kw_only=True):
    choice_index: int
    delta: str
    _then: Then

    @property
    def snapshot(self) -> str:
        """The whole text so far, this delta included."""
        return str(self._then)


class _JsonDelta(_TextDelta, frozen=True, kw_only=True):
    @property
    def parsed(self) -> object:
        """What is known of the text so far, if it is JSON; None where nothing is.

        It may lag behind the text by a sixteenth of it, and is not to be changed. Raises
        ImportError without the extra `partial`.
        """
        return self._then.growing.parsed(self._then.length, self.delta)


class _CallDone(Struct, frozen=True, kw_only=True):
    choice_index: int
    index: int
    tool_call: ToolCall

    @property
    def id(self) -> str | None:
        """The call's id."""
        return self.tool_call.id


# --- texts ---


class ContentDeltaEvent(_JsonDelta, frozen=True, kw_only=True):
    """Text was added to a choice's content; of content in parts (Mistral), to a text part."""

    type: Literal["content.delta"] = "content.delta"


class ContentDoneEvent(Struct, frozen=True, kw_only=True):
    """A choice's content is whole. Of content in parts it is the text; the parts are in
    `choice.done`.
    """

    type: Literal["content.done"] = "content.done"
    choice_index: int
    content: str


class RefusalDeltaEvent(_TextDelta, frozen=True, kw_only=True):
    """Text was added to a choice's refusal."""

    type: Literal["refusal.delta"] = "refusal.delta"


class RefusalDoneEvent(Struct, frozen=True, kw_only=True):
    """A choice's refusal is whole."""

    type: Literal["refusal.done"] = "refusal.done"
    choice_index: int
    refusal: str


class ReasoningDeltaEvent(_TextDelta, frozen=True, kw_only=True):
    """Text was added to a choice's reasoning, in the given field; a server may fill more than
    one.
    """

    type: Literal["reasoning.delta"] = "reasoning.delta"
    field: ReasoningField


class ReasoningDoneEvent(Struct, frozen=True, kw_only=True):
    """A choice's reasoning is whole, in the given field."""

    type: Literal["reasoning.done"] = "reasoning.done"
    choice_index: int
    field: ReasoningField
    reasoning: str


# --- tool calls ---


class FunctionToolCallArgumentsDeltaEvent(_JsonDelta, frozen=True, kw_only=True):
    """JSON text was added to the arguments of a function call.

    `index` numbers the calls of a choice from 0 in order of arrival, whatever the server numbers
    them: Gemini calls every parallel call 0. `id` and `name` are what is known of the call so far.
    """

    type: Literal["tool_calls.function.arguments.delta"] = "tool_calls.function.arguments.delta"
    index: int
    id: str | None
    _name: Then | None

    @property
    def name(self) -> str | None:
        """The function's name so far."""
        return None if self._name is None else str(self._name)

    @property
    def arguments_delta(self) -> str:
        """The same as `delta`, by openai-python's name."""
        return self.delta

    @property
    def arguments(self) -> str:
        """The same as `snapshot`, by openai-python's name."""
        return self.snapshot

    @property
    def parsed_arguments(self) -> object:
        """The same as `parsed`, by openai-python's name."""
        return self.parsed


class FunctionToolCallArgumentsDoneEvent(_CallDone, frozen=True, kw_only=True):
    """The arguments of a function call are whole; `index` is as in the deltas."""

    type: Literal["tool_calls.function.arguments.done"] = "tool_calls.function.arguments.done"

    @property
    def name(self) -> str | None:
        """The function's name."""
        function = self.tool_call.function
        return None if function is None else function.name

    @property
    def arguments(self) -> str:
        """The arguments: JSON text as the model wrote it, whole or not; empty if none came."""
        function = self.tool_call.function
        return (None if function is None else function.arguments) or ""


class CustomToolCallInputDeltaEvent(_TextDelta, frozen=True, kw_only=True):
    """Text was added to the input of a custom tool's call; `index` is as for functions."""

    type: Literal["tool_calls.custom.input.delta"] = "tool_calls.custom.input.delta"
    index: int
    id: str | None
    _name: Then | None

    @property
    def name(self) -> str | None:
        """The tool's name so far."""
        return None if self._name is None else str(self._name)


class CustomToolCallInputDoneEvent(_CallDone, frozen=True, kw_only=True):
    """The input of a custom tool's call is whole; `index` is as in the deltas."""

    type: Literal["tool_calls.custom.input.done"] = "tool_calls.custom.input.done"

    @property
    def name(self) -> str | None:
        """The tool's name."""
        custom = self.tool_call.custom
        return None if custom is None else custom.name

    @property
    def input(self) -> str:
        """The input; empty if none came."""
        custom = self.tool_call.custom
        return (None if custom is None else custom.input) or ""


# --- logprobs and audio ---


class LogprobsContentDeltaEvent(Struct, frozen=True, kw_only=True):
    """Log probabilities of content tokens came; `snapshot` is all of the choice's so far."""

    type: Literal["logprobs.content.delta"] = "logprobs.content.delta"
    choice_index: int
    content: Sequence[TokenLogprob]
    snapshot: Sequence[TokenLogprob]


class LogprobsContentDoneEvent(Struct, frozen=True, kw_only=True):
    """The log probabilities of a choice's content tokens are whole."""

    type: Literal["logprobs.content.done"] = "logprobs.content.done"
    choice_index: int
    content: Sequence[TokenLogprob]


class LogprobsRefusalDeltaEvent(Struct, frozen=True, kw_only=True):
    """Log probabilities of refusal tokens came; `snapshot` is all of the choice's so far."""

    type: Literal["logprobs.refusal.delta"] = "logprobs.refusal.delta"
    choice_index: int
    refusal: Sequence[TokenLogprob]
    snapshot: Sequence[TokenLogprob]


class LogprobsRefusalDoneEvent(Struct, frozen=True, kw_only=True):
    """The log probabilities of a choice's refusal tokens are whole."""

    type: Literal["logprobs.refusal.done"] = "logprobs.refusal.done"
    choice_index: int
    refusal: Sequence[TokenLogprob]


class AudioDeltaEvent(Struct, frozen=True, kw_only=True):
    """Audio was added: `data` is the decoded bytes of this fragment, `transcript` its words; each
    None if the chunk had none.
    """

    type: Literal["audio.delta"] = "audio.delta"
    choice_index: int
    data: bytes | None
    transcript: str | None
    _id: str | None
    _audio: bytearray | None
    _length: int
    _then: Then | None

    @property
    def snapshot(self) -> Audio:
        """The id, the data and the transcript so far."""
        audio, then = self._audio, self._then
        return Audio(
            id=self._id,
            data=None
            if audio is None
            else b2a_base64(audio[: self._length], newline=False).decode(),
            transcript=None if then is None else str(then),
        )


class AudioDoneEvent(Struct, frozen=True, kw_only=True):
    """A choice's audio is whole; its `data` is base64 of all of it."""

    type: Literal["audio.done"] = "audio.done"
    choice_index: int
    audio: Audio


# --- the rest ---


class ChoiceDoneEvent(Struct, frozen=True, kw_only=True):
    """A choice has its finish reason, or the stream ended without one.

    `choice` is as of then. What a server sends later, such as Azure's filter results, is in the
    completion of `done`.
    """

    type: Literal["choice.done"] = "choice.done"
    choice_index: int
    choice: Choice

    @property
    def finish_reason(self) -> str | None:
        """Why the choice ended, in the server's word; None if it did not say."""
        return self.choice.finish_reason


class UsageEvent(Struct, frozen=True, kw_only=True):
    """A chunk changed the usage. Some servers send it with every chunk; the last is the
    completion's.
    """

    type: Literal["usage"] = "usage"
    usage: Usage


class ProblemEvent(Struct, frozen=True, kw_only=True):
    """The server did something wrong. There is an event also for problems too many to be kept."""

    type: Literal["problem"] = "problem"
    problem: Problem


class DoneEvent(Struct, frozen=True, kw_only=True):
    """The stream has ended: by `[DONE]`, by an error of the server, or because it was closed.

    `timing` is None if no clock was given.
    """

    type: Literal["done"] = "done"
    status: Literal["complete", "truncated", "failed"]
    timing: Timing | None
    _completion: Later[ChatCompletion]

    @property
    def completion(self) -> ChatCompletion:
        """The completion as far as it is known; whole if `status` is "complete"."""
        return self._completion()


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
    | UsageEvent
    | ProblemEvent
    | DoneEvent
)
