"""How far events have told of each choice, and what they still have to tell."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, cast

from msgspec import Struct, field

from .. import events as ev
from .._decode import chunk as wire
from .._decode.text import Text
from .._decode.text_history import TextHistory
from ..completion import TokenLogprobs
from ..events import Event
from .arguments import ArgumentsText
from .json_merge import PART_TYPES
from .snapshot import freeze_call, freeze_choice, freeze_fields, freeze_token, freeze_tokens
from .state import CallsState, CallState, ChoiceState, FunctionState, LogprobsState, State, Tool

Kind = Literal["content", "refusal", "reasoning", "reasoning_content", "thinking"]
# Those of one text, in the order in which they are told: thoughts come before the answer.
_KINDS: tuple[Kind, ...] = ("reasoning", "reasoning_content", "content", "refusal")
# What a delta adds to a choice: in itself, and in its calls and its audio.
_TEXTS = ("content", "parts", "refusal", "reasoning", "reasoning_content")
_NAMED = ("id", "name", "arguments", "input", "data", "transcript")
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

    place: int
    tool: Tool
    state: CallState
    name: TextHistory | None = None
    text: TextHistory = field(default_factory=TextHistory)
    source: Text | None = None  # of the arguments: another one may replace it
    is_done: bool = False


class ChoiceProgress(Struct):
    """A choice, as far as events have told of it; what more there is to tell goes to `events`.

    `histories` are those of all choices, by the text of each. `done` holds what had its `.done`,
    but calls; for `finish_reason` they wait.
    """

    index: int
    state: ChoiceState
    events: deque[Event]
    histories: dict[Text | None, TextHistory]
    finish_reason: str | None = None
    texts: dict[Kind, TextHistory] = field(default_factory=dict)
    calls: dict[tuple[int, Tool], EmittedCall] = field(default_factory=dict)
    last_call: int = -1
    heard: TextHistory = field(default_factory=TextHistory)  # the words of the audio
    audio: int = 0  # bytes
    done: set[str] = field(default_factory=set)

    # --- texts ---

    def tell(self, width: int) -> None:
        """Emit what came to the texts, and to the last `width` parts of the content."""
        state = self.state
        for kind in _KINDS:
            text = getattr(state, kind)
            if text is not None:
                self.tell_text(kind, text)
        if width and state.parts is not None:
            for text, kind in _texts_of_parts(state.parts, width, "content"):
                self.tell_text(kind, text)

    def tell_calls(self, places: Iterable[int]) -> None:
        """Emit what came to the calls at these places, one after the other."""
        for place in places:
            if place != self.last_call:
                self._leave_call()
                self.last_call = place
            self.tell_call(place)

    def tell_text(self, kind: Kind, text: Text, fragment: str | None = None) -> None:
        """Emit what came to a text: `fragment`, if that was appended as it is."""
        history, fragments = self.texts.get(kind), text.fragments
        if history is None:
            history = self.texts[kind] = self.histories[text] = TextHistory()
        if fragment and history.text is text and fragments and fragments[-1] is fragment:
            history.length += len(fragment)
        else:
            fragment = history.take(text)
        if not fragment:
            return
        if kind == "content":
            event: Event = ev.ContentDeltaEvent(self.index, fragment, history, history.length)
        elif kind == "refusal":
            event = ev.RefusalDeltaEvent(self.index, fragment, history, history.length)
        else:
            event = ev.ReasoningDeltaEvent(self.index, fragment, history, history.length, kind)
        self.events.append(event)

    # --- tool calls ---

    def tell_call(self, place: int, *, ends: bool = False) -> None:
        """Emit what a call has more than was told; at the end of its choice that it was called, if
        neither a name nor arguments nor input came.
        """
        call = cast("CallsState", self.state.calls).items[place]
        tools = call.tools()
        if ends and not tools:
            tools.append(("custom" if call.type == "custom" else "function", FunctionState()))
        for tool, named in tools:
            emitted = self.calls.get((place, tool))
            opens = emitted is None
            if emitted is None:
                if not named.came and not ends:
                    continue  # it is nothing, if the other tool comes
                emitted = self.calls[place, tool] = EmittedCall(place, tool, call)
            self._tell_arguments(emitted, named, opens=opens)

    def _tell_arguments(
        self, call: EmittedCall, named: FunctionState, *, opens: bool = False, ends: bool = False
    ) -> None:
        fragment = "" if named.text is None else _take(call, named.text, ends=ends)
        if named.name is not None:
            name = call.name = call.name or TextHistory()
            name.text, name.length = named.name, len(str(named.name))
        if fragment or opens:
            length = 0 if call.name is None else call.name.length
            told = (call.text, call.text.length, call.place, call.state.id, call.name, length)
            self.events.append(_OF_CALL[call.tool][0](self.index, fragment, *told))

    def _leave_call(self) -> None:
        """End the call that was open, if nothing can be added to its arguments."""
        call = self.calls.get((self.last_call, "function"))
        # Of arguments that may be a placeholder not all is told.
        if (
            call is not None
            and not call.is_done
            and isinstance(call.source, ArgumentsText)
            and call.source.is_whole()
            and len(str(call.source)) == call.text.length
        ):
            self._end_call(call)

    def _end_call(self, call: EmittedCall, *, is_last: bool = False) -> None:
        """Emit the `.done` of a call, behind arguments that were held."""
        if call.state.function is not None and call.tool == "function":
            self._tell_arguments(call, call.state.function, ends=True)
        call.is_done = True
        frozen = freeze_call(call.state, self.state.finish_reason, is_last=is_last)
        self.events.append(_OF_CALL[call.tool][1](self.index, call.place, frozen))

    # --- logprobs and audio ---

    def tell_tokens(self, logprobs: wire.Logprobs) -> None:
        """Emit the logprobs that a choice brought."""
        known = cast("LogprobsState", self.state.logprobs)
        for name, (make, _) in _OF_LOGPROBS.items():
            run = getattr(logprobs, name)
            if run:
                tokens = TokenLogprobs(len(run), lambda run=run: run, freeze_token)  # type: ignore[misc]
                self.events.append(make(self.index, tokens, freeze_tokens(getattr(known, name))))

    def tell_audio(self) -> None:
        """Emit what the audio has more than was told."""
        audio, history = self.state.audio, self.heard
        if audio is None:
            return
        data = bytes((audio.data or b"")[self.audio :])
        words = "" if audio.transcript is None else history.take(audio.transcript)
        if data or words:
            self.audio += len(data)
            heard = None if audio.transcript is None else history
            told = (audio.id, audio.data, self.audio, heard, history.length)
            self.events.append(ev.AudioDeltaEvent(self.index, data or None, words or None, *told))

    # --- the end ---

    def tell_all(self) -> None:
        """Emit all that was not told: a U+FFFD took the place of each half of a surrogate pair."""
        self.tell(sys.maxsize)
        for place in {place for place, _ in self.calls}:
            self.tell_call(place)
        self.tell_audio()

    def end(self, stream: State) -> None:
        """Emit the `.done` of all that has none yet."""
        index, state, done, emit = self.index, self.state, self.done, self.events.append
        for kind, history in self.texts.items():
            if history.length and kind not in done:
                done.add(kind)
                text = history.until(history.length)
                if kind == "content":
                    emit(ev.ContentDoneEvent(index, text))
                elif kind == "refusal":
                    emit(ev.RefusalDoneEvent(index, text))
                else:
                    emit(ev.ReasoningDoneEvent(index, kind, text))
        if state.calls is not None:
            self._end_calls(len(state.calls.items))
        if state.audio is not None and "audio" not in done:
            done.add("audio")
            emit(ev.AudioDoneEvent(index, freeze_fields(state.audio)))
        for name, (_, make) in _OF_LOGPROBS.items() if state.logprobs is not None else ():
            tokens = getattr(state.logprobs, name)
            if tokens is not None and tokens.count and f"logprobs.{name}" not in done:
                done.add(f"logprobs.{name}")
                emit(make(index, freeze_tokens(tokens)))
        if "choice" not in done:
            done.add("choice")
            emit(ev.ChoiceDoneEvent(index, freeze_choice(index, state, is_text=stream.is_text)))

    def _end_calls(self, count: int) -> None:
        for place in range(count):
            self.tell_call(place, ends=True)
        last = max((call.state.order for call in self.calls.values()), default=0)
        for _, call in sorted(self.calls.items()):  # of one that is both, the custom tool first
            if not call.is_done:
                self._end_call(call, is_last=call.state.order == last)


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


def _take(call: EmittedCall, text: Text, *, ends: bool) -> str:
    """Return what the arguments of a call have more than was told.

    Arguments that are exactly `{}` so far are held: to some servers that is a placeholder. Text may
    replace them, as it may replace any arguments where a rule of the caller's says so; then what
    was told already is left out.
    """
    whole, history = str(text), call.text
    may_wait = call.tool == "function" and not (call.is_done or ends)
    if whole == "{}" and history.length < 2 and may_wait:
        return ""
    if call.source is not text and whole.startswith(history.until(history.length)):
        history.text = text
    call.source = text
    return history.take(text)


def adds(delta: wire.Delta | None) -> bool:
    """Return whether a delta brings text, a call or arguments."""
    if delta is None:
        return False
    calls = delta.tool_calls or ()
    tools = [tool for call in calls for tool in (call, call.function, call.custom)]
    named = (*tools, delta.function_call, delta.audio)
    return any(getattr(delta, name) for name in _TEXTS) or any(
        getattr(each, name, None) for each in named for name in _NAMED
    )
