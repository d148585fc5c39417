"""How far events have told of each choice, and what they still have to tell."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, cast

from msgspec import Struct, field

from .. import events as ev
from .._decode import chunk as wire
from .._decode.text import Text
from .._decode.text_history import TextHistory
from ..completion import TokenLogprobs
from ..events import Event
from .json_merge import PART_TYPES
from .snapshot import freeze_call, freeze_choice, freeze_fields, freeze_tokens
from .state import CallsState, CallState, ChoiceState, FunctionState, LogprobsState, State, Tool

Kind = Literal["content", "refusal", "reasoning", "reasoning_content", "thinking"]
# Those of one text, in the order in which they are told: thoughts come before the answer.
KINDS: tuple[Kind, ...] = ("reasoning", "reasoning_content", "content", "refusal")
Make = Callable[..., Event]
# The delta and the `.done` of each.
_OF_CALL: dict[Tool, tuple[Make, Make]] = {
    "function": (ev.FunctionToolCallArgumentsDeltaEvent, ev.FunctionToolCallArgumentsDoneEvent),
    "custom": (ev.CustomToolCallInputDeltaEvent, ev.CustomToolCallInputDoneEvent),
}
_OF_LOGPROBS: dict[str, tuple[Make, Make]] = {
    "content": (ev.LogprobsContentDeltaEvent, ev.LogprobsContentDoneEvent),
    "refusal": (ev.LogprobsRefusalDeltaEvent, ev.LogprobsRefusalDoneEvent),
}


class EmittedCall(Struct):
    """A call of a function or custom tool, as far as events have told of it."""

    choice_index: int
    place: int
    tool: Tool
    state: CallState
    name: TextHistory | None = None
    text: TextHistory = field(default_factory=TextHistory)
    source: Text | None = None  # of the arguments: another one may replace it
    told: int = 0  # characters of the source
    is_done: bool = False


class ChoiceProgress(Struct):
    """A choice, as far as events have told of it. `done` holds what had its `.done`, but calls."""

    index: int
    state: ChoiceState
    texts: dict[Kind, TextHistory] = field(default_factory=dict)
    told: dict[Text | None, int] = field(default_factory=dict)  # of texts that share a history
    calls: dict[tuple[int, Tool], EmittedCall] = field(default_factory=dict)
    last_call: int = -1
    audio: tuple[int, TextHistory] = field(default_factory=lambda: (0, TextHistory()))
    done: set[str] = field(default_factory=set)
    finish_reason: str | None = None  # for which its `.done` wait


# --- parts of content ---


def tell_parts(progress: ChoiceProgress, width: int, events: deque[Event]) -> None:
    """Emit what the texts in the last `width` parts of content have more than was told."""
    parts, told = progress.state.parts or [], progress.told
    for text, kind in _texts_of_parts(parts, width, "content"):
        history = progress.texts.setdefault(kind, TextHistory())
        known = history.length if history.text is text else told.get(text, 0)
        fragment = str(text)[known:]
        if not fragment:
            continue
        told[history.text] = history.length
        length = history.add(text, fragment)
        told[text] = known + len(fragment)
        of_text = (progress.index, fragment, history, length)
        events.append(
            ev.ReasoningDeltaEvent(*of_text, "thinking")
            if kind == "thinking"
            else ev.ContentDeltaEvent(*of_text)
        )


def _texts_of_parts(parts: list[object], width: int, kind: Kind) -> Iterator[tuple[Text, Kind]]:
    """Return the texts that have events in the last `width` parts, and in lists of parts there."""
    for part in parts[-width:]:
        if not isinstance(part, dict) or part.get("type") not in PART_TYPES:
            continue
        thinks = part["type"] == "thinking"
        kind_of_part: Kind = "thinking" if thinks else kind
        inner = part.get("thinking") if thinks else None
        for text in (part.get("text"), inner):
            if isinstance(text, Text):
                yield text, kind_of_part
        if isinstance(inner, list):
            yield from _texts_of_parts(inner, width, kind_of_part)


def widest(parts: Sequence[object]) -> int:
    """Return how many parts the longest of the lists of parts has."""
    inner = [part.get("thinking") for part in parts if isinstance(part, dict)]
    return max([1, len(parts), *(widest(each) for each in inner if isinstance(each, list))])


# --- tool calls ---


def tell_call(
    progress: ChoiceProgress, place: int, events: deque[Event], *, ends: bool = False
) -> None:
    """Emit what a call has more than was told; at the end of its choice that it was called, if
    neither a name nor arguments nor input came.
    """
    call = cast("CallsState", progress.state.calls).items[place]
    tools = call.tools()
    if ends and not tools:
        tools.append(("custom" if call.type == "custom" else "function", FunctionState()))
    for tool, named in tools:
        emitted = progress.calls.get((place, tool))
        opens = emitted is None
        if emitted is None:
            if not named.came and not ends:
                continue  # it is nothing, if the other tool comes
            emitted = EmittedCall(progress.index, place, tool, call)
            progress.calls[place, tool] = emitted
        _tell_arguments(emitted, named, events, opens=opens)


def _tell_arguments(
    call: EmittedCall,
    named: FunctionState,
    events: deque[Event],
    *,
    opens: bool = False,
    ends: bool = False,
) -> None:
    name, text = named.name, named.text
    fragment = "" if text is None else _new_of_arguments(call, text, ends=ends)
    if name is not None:
        call.name = call.name or TextHistory()
        call.name.text, call.name.length = name, len(str(name))
    if fragment or opens:
        length = 0 if call.name is None else call.name.length
        told = (call.text, call.text.length, call.place, call.state.id, call.name, length)
        events.append(_OF_CALL[call.tool][0](call.choice_index, fragment, *told))


def _new_of_arguments(call: EmittedCall, text: Text, *, ends: bool) -> str:
    """Return what the arguments of a call have more than was told.

    Arguments that are exactly `{}` so far are held: to some servers that is a placeholder. Text may
    replace them, as it may replace any arguments where a rule of the caller's says so; then what
    was told already is left out.
    """
    whole, known, length = str(text), call.told, call.text.length
    if call.source is not None and call.source is not text:
        known = length if whole.startswith(call.text.until(length)) else 0
    if whole == "{}" and length < 2 and call.tool == "function" and not (call.is_done or ends):
        return ""
    call.source, call.told, fragment = text, len(whole), whole[known:]
    if fragment:
        call.text.add(text, fragment)
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
    if call.state.function is not None and call.tool == "function":
        _tell_arguments(call, call.state.function, events, ends=True)
    call.is_done = True
    frozen = freeze_call(call.state, finish_reason, is_last=is_last)
    events.append(_OF_CALL[call.tool][1](call.choice_index, call.place, frozen))


# --- logprobs and audio ---


def tell_tokens(index: int, state: ChoiceState, choice: wire.Choice, events: deque[Event]) -> None:
    """Emit the logprobs that a choice brought."""
    if choice.logprobs is None:
        return
    known = cast("LogprobsState", state.logprobs)
    for name, (make, _) in _OF_LOGPROBS.items():
        run = getattr(choice.logprobs, name)
        if run:
            tokens = TokenLogprobs(len(run), lambda run=run: run, freeze_fields)  # type: ignore[misc]
            events.append(make(index, tokens, freeze_tokens(getattr(known, name))))


def tell_audio(progress: ChoiceProgress, events: deque[Event]) -> None:
    """Emit what the audio of a choice has more than was told."""
    audio = progress.state.audio
    if audio is None:
        return
    size, history = progress.audio
    data = bytes((audio.data or b"")[size:])
    heard = "" if audio.transcript is None else str(audio.transcript)[history.length :]
    if not data and not heard:
        return
    progress.audio = size + len(data), history
    if audio.transcript is not None:
        history.add(audio.transcript, heard)
    events.append(
        ev.AudioDeltaEvent(
            progress.index,
            data or None,
            heard or None,
            audio.id,
            audio.data,
            size + len(data),
            None if audio.transcript is None else history,
            history.length,
        )
    )


# --- the end of a choice ---


def end_choice(progress: ChoiceProgress, events: deque[Event], stream: State) -> None:
    """Emit the `.done` of all that has none yet."""
    index, state, done = progress.index, progress.state, progress.done
    for kind, history in progress.texts.items():
        if history.length and kind not in done:
            done.add(kind)
            text = history.until(history.length)
            if kind == "content":
                events.append(ev.ContentDoneEvent(index, text))
            elif kind == "refusal":
                events.append(ev.RefusalDoneEvent(index, text))
            else:
                events.append(ev.ReasoningDoneEvent(index, kind, text))
    if state.calls is not None:
        _end_calls(progress, events, len(state.calls.items))
    if state.audio is not None and "audio" not in done:
        done.add("audio")
        events.append(ev.AudioDoneEvent(index, freeze_fields(state.audio)))
    for name, (_, make) in _OF_LOGPROBS.items() if state.logprobs is not None else ():
        tokens = getattr(state.logprobs, name)
        if tokens is not None and tokens.count and f"logprobs.{name}" not in done:
            done.add(f"logprobs.{name}")
            events.append(make(index, freeze_tokens(tokens)))
    if "choice" not in done:
        done.add("choice")
        frozen = freeze_choice(index, state, is_text=stream.is_text)
        events.append(ev.ChoiceDoneEvent(index, frozen))


def _end_calls(progress: ChoiceProgress, events: deque[Event], count: int) -> None:
    for place in range(count):
        tell_call(progress, place, events, ends=True)
    last = max((call.state.order for call in progress.calls.values()), default=0)
    for _, call in sorted(progress.calls.items()):  # of one that is both, the custom tool first
        if not call.is_done:
            is_last = call.state.order == last
            end_call(call, events, progress.state.finish_reason, is_last=is_last)


def adds(delta: wire.Delta | None) -> bool:
    """Return whether a delta brings text, a call or arguments."""
    if delta is None:
        return False
    calls = delta.tool_calls or ()
    named: list[object] = [delta.function_call, delta.audio]
    named += [tool for call in calls for tool in (call.function, call.custom)]
    fields = ("name", "arguments", "input", "data", "transcript")
    return bool(
        delta.content
        or delta.parts
        or delta.refusal
        or delta.reasoning
        or delta.reasoning_content
        or any(call.id for call in calls)
        or any(getattr(each, name, None) for each in named for name in fields)
    )
