"""How far events have told of each choice, and what they still have to tell at its end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, cast

from msgspec import Struct, field

from .. import events as ev
from .._decode import chunk as wire
from .._decode.text import Text
from .._decode.text_history import TextHistory
from ..events import Event
from .json_merge import PART_TYPES
from .snapshot import freeze_audio, freeze_call, freeze_choice, freeze_tokens
from .state import CallsState, CallState, ChoiceState, Tool

__all__ = [
    "ChoiceProgress",
    "EmittedCall",
    "EmittedText",
    "Kind",
    "adds",
    "call_at",
    "emit_arguments",
    "end_call",
    "end_choice",
    "fragment_to_tell",
    "texts_of",
    "texts_of_call",
    "widest",
]

Kind = Literal["content", "refusal", "reasoning", "reasoning_content", "thinking"]
_KINDS: tuple[Kind, ...] = ("content", "refusal", "reasoning", "reasoning_content")
_DELTA_OF: dict[Tool, Callable[..., Event]] = {
    "function": ev.FunctionToolCallArgumentsDeltaEvent,
    "custom": ev.CustomToolCallInputDeltaEvent,
}
_LOGPROBS_DONE: dict[str, Callable[..., Event]] = {
    "content": ev.LogprobsContentDoneEvent,
    "refusal": ev.LogprobsRefusalDoneEvent,
}
_DONE_OF: dict[Tool, Callable[..., Event]] = {
    "function": ev.FunctionToolCallArgumentsDoneEvent,
    "custom": ev.CustomToolCallInputDoneEvent,
}


class EmittedText(Struct):
    """Where a text of the state belongs; `kind` is None if it has no events."""

    choice_index: int
    kind: Kind | None
    history: TextHistory


class EmittedCall(Struct):
    """A call of a function or custom tool, as far as events have told of it."""

    choice_index: int
    place: int
    tool: Tool
    state: CallState
    name: TextHistory | None = None
    text: TextHistory = field(default_factory=TextHistory)
    source: Text | None = None  # of the arguments: another one may replace it
    held: str = ""  # the end of arguments that are `{}`, to some servers a placeholder
    is_done: bool = False


class ChoiceProgress(Struct):
    """A choice, as far as events have told of it. `done` holds what had its `.done`, but calls."""

    index: int
    state: ChoiceState
    texts: dict[Kind, TextHistory] = field(default_factory=dict)
    calls: dict[tuple[int, Tool], EmittedCall] = field(default_factory=dict)
    last_call: int = -1
    transcript: TextHistory = field(default_factory=TextHistory)
    heard: str = ""  # of the transcript, not in an event yet
    done: set[str] = field(default_factory=set)
    finish_reason: str | None = None  # for which its `.done` wait


def texts_of(state: ChoiceState, width: int) -> Iterator[tuple[Text, Kind]]:
    """Return the texts of a choice that have events; of lists of parts those in the last `width`
    parts.
    """
    for kind in _KINDS:
        text = getattr(state, kind)
        if text is not None:
            yield text, kind
    if state.parts is not None:
        yield from texts_of_parts(state.parts, width, "content")


def texts_of_parts(parts: list[object], width: int, kind: Kind) -> Iterator[tuple[Text, Kind]]:
    for part in parts[-width:]:
        if not isinstance(part, dict) or part.get("type") not in PART_TYPES:
            continue
        thinks = part["type"] == "thinking"
        kind_of_part: Kind = "thinking" if thinks else kind
        text, inner = part.get("text"), part.get("thinking") if thinks else None
        if isinstance(text, Text):
            yield text, kind_of_part
        if isinstance(inner, Text):
            yield inner, kind_of_part
        elif isinstance(inner, list):
            yield from texts_of_parts(inner, width, kind_of_part)


def widest(parts: Sequence[object]) -> int:
    """Return how many parts the longest of the lists of parts has."""
    inner = [part.get("thinking") for part in parts if isinstance(part, dict)]
    return max([1, len(parts), *(widest(each) for each in inner if isinstance(each, list))])


def texts_of_call(call: CallState) -> Iterator[Text]:
    for _, named in call.tools():
        if named.name is not None:
            yield named.name
        if named.text is not None:
            yield named.text


def call_at(progress: ChoiceProgress, place: int) -> CallState:
    return cast("CallsState", progress.state.calls).items[place]


# --- what they tell of calls, and at the end ---


def emit_arguments(call: EmittedCall, fragment: str, events: deque[Event]) -> None:
    """Emit a fragment of a call's arguments or input that its text holds by now."""
    name, text = call.name, call.text
    length = 0 if name is None else name.length
    told = (text, text.length, call.place, call.state.id, name, length)
    events.append(_DELTA_OF[call.tool](call.choice_index, fragment, *told))


def fragment_to_tell(call: EmittedCall, text: Text, fragment: str) -> str:
    """Return what is to be told of a fragment that was appended to the arguments of a call.

    Arguments that are exactly `{}` so far are held. Text may replace them, as it may replace any
    arguments where a rule of the caller's says so; then what was told already is left out.
    """
    if not fragment:
        return ""
    if call.source is not None and call.source is not text:
        fragment = fragment.removeprefix(call.text.until(call.text.length))
    else:
        fragment = call.held + fragment
    call.source, call.held = text, ""
    if call.text.length + len(fragment) == 2 and str(text) == "{}" and not call.is_done:
        call.held = fragment
        return ""
    return fragment


def end_call(
    call: EmittedCall,
    events: deque[Event],
    finish_reason: str | None = None,
    *,
    is_last: bool = False,
) -> None:
    """Emit the `.done` of a call, behind arguments that were held.

    A call that is whole needs neither the finish reason of its choice nor whether it is the last.
    """
    call.is_done = True
    state = call.state
    if call.held and state.function is not None and state.function.text is not None:
        call.text.add(state.function.text, call.held)
        emit_arguments(call, call.held, events)
        call.held = ""
    frozen = freeze_call(state, finish_reason, is_last=is_last)
    events.append(_DONE_OF[call.tool](call.choice_index, call.place, frozen))


def end_choice(progress: ChoiceProgress, events: deque[Event], *, is_text: bool) -> None:
    """Emit the `.done` of all that has none yet."""
    _announce_calls(progress, events)
    index, state, done = progress.index, progress.state, progress.done
    for kind, history in progress.texts.items():
        if history.length and kind not in done:
            done.add(kind)
            events.append(_end_of_text(index, kind, history.until(history.length)))
    calls = sorted(progress.calls.values(), key=_by_place)
    last = max((call.state.order for call in calls), default=0)
    for call in calls:
        if not call.is_done:
            end_call(call, events, state.finish_reason, is_last=call.state.order == last)
    if state.audio is not None and "audio" not in done:
        done.add("audio")
        events.append(ev.AudioDoneEvent(index, freeze_audio(state.audio)))
    for name, make in _LOGPROBS_DONE.items():
        tokens = getattr(state.logprobs, name, None)
        if tokens is not None and tokens.count and f"logprobs.{name}" not in done:
            done.add(f"logprobs.{name}")
            events.append(make(index, freeze_tokens(tokens)))
    if "choice" not in done:
        done.add("choice")
        events.append(ev.ChoiceDoneEvent(index, freeze_choice(index, state, is_text=is_text)))


def _announce_calls(progress: ChoiceProgress, events: deque[Event]) -> None:
    """Emit the first event of calls of which no name, arguments or input came."""
    calls = progress.state.calls
    for place, call in enumerate(() if calls is None else calls.items):
        other: Tool = "custom" if call.type == "custom" else "function"
        for tool in dict(call.tools()) or (other,):
            if (place, tool) not in progress.calls:
                emitted = EmittedCall(progress.index, place, tool, call)
                progress.calls[place, tool] = emitted
                emit_arguments(emitted, "", events)


def _end_of_text(index: int, kind: Kind, text: str) -> Event:
    if kind == "content":
        return ev.ContentDoneEvent(index, text)
    if kind == "refusal":
        return ev.RefusalDoneEvent(index, text)
    return ev.ReasoningDoneEvent(index, kind, text)


def adds(delta: wire.Delta) -> bool:
    """Whether a delta brings text, a call or arguments."""
    function, audio = delta.function_call, delta.audio
    return bool(
        delta.content
        or delta.parts
        or delta.refusal
        or delta.reasoning
        or delta.reasoning_content
        or (delta.tool_calls and any(map(_adds_to_call, delta.tool_calls)))
        or (function is not None and (function.name or function.arguments))
        or (audio is not None and (audio.data or audio.transcript))
    )


def _adds_to_call(fragment: wire.ToolCallFragment) -> bool:
    function, custom = fragment.function, fragment.custom
    return bool(
        fragment.id
        or (function is not None and (function.name or function.arguments))
        or (custom is not None and (custom.name or custom.input))
    )


def _by_place(call: EmittedCall) -> tuple[int, bool]:
    return call.place, call.tool == "function"
