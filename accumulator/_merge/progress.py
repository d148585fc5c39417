"""Keep track of what was emitted of each choice, and emit the rest."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from msgspec import Struct, field

from .. import events as ev
from .._decode import chunk as wire
from .._decode.text import Text
from ..completion import TokenLogprobs
from ..events import Event
from .arguments import ArgumentsText
from .json_merge import PART_TYPES
from .snapshot import freeze_call, freeze_choice, freeze_fields, freeze_token, freeze_tokens
from .state import CallState, ChoiceState, FunctionState, State, Tool

Make = Callable[..., Event]
# The fields that are one text, in the order of their events: thoughts come before the answer.
_FIELDS = ("reasoning", "reasoning_content", "content", "refusal")
# The `.delta` and the `.done` event of each, and of the `thinking` parts of the content.
_EVENTS: dict[str, tuple[Make, Make]] = {
    "content": (ev.ContentDeltaEvent, ev.ContentDoneEvent),
    "refusal": (ev.RefusalDeltaEvent, ev.RefusalDoneEvent),
    **dict.fromkeys(
        ("reasoning", "reasoning_content", "thinking"),
        (ev.ReasoningDeltaEvent, ev.ReasoningDoneEvent),
    ),
    "function": (ev.FunctionToolCallArgumentsDeltaEvent, ev.FunctionToolCallArgumentsDoneEvent),
    "custom": (ev.CustomToolCallInputDeltaEvent, ev.CustomToolCallInputDoneEvent),
    "logprobs.content": (ev.LogprobsContentDeltaEvent, ev.LogprobsContentDoneEvent),
    "logprobs.refusal": (ev.LogprobsRefusalDeltaEvent, ev.LogprobsRefusalDoneEvent),
}
_UNNAMED = ("content", "refusal")  # only events of reasoning name their field


class _Joined(Text):
    """Several texts that are emitted as one."""

    __slots__ = ()


class ChoiceProgress(Struct):
    """What was emitted of one choice; its new events go to `events`.

    `texts` and `calls` are the texts that events look back at. Each is the state's own, so nothing
    is copied until another text continues it. `done` has the keys of what had its `.done`.
    """

    index: int
    state: ChoiceState
    events: deque[Event]
    texts: dict[str, Text] = field(default_factory=dict)
    calls: dict[tuple[int, Tool], Text] = field(default_factory=dict)
    last_call: int = -1
    done: set[object] = field(default_factory=set)

    # --- texts ---

    def tell(self, width: int) -> None:
        """Emit what was added to the texts, and to the last `width` parts of the content."""
        state = self.state
        for kind in _FIELDS:
            text = getattr(state, kind)
            if text is not None:
                self._tell_text(text, kind)
        if width and state.parts is not None:
            for text, kind in _texts_of_parts(state.parts, width, "content"):
                self._tell_text(text, kind)

    def tell_content(self, delta: wire.Delta | None) -> bool:
        """Emit the content of a delta. Return False, and emit nothing, if the delta has other text,
        or if its content was not appended as it is or was emitted before.
        """
        text, content = self.state.content, None if delta is None else delta.content
        if text is None or not text.taken or not content or text.fragments[-1:] != [content]:
            return False
        if delta is None or delta.reasoning or delta.reasoning_content:
            return False
        text.taken += len(content)
        self.events.append(ev.ContentDeltaEvent(self.index, content, text, text.taken))
        return True

    def _tell_text(self, text: Text, kind: str) -> None:
        told, fragment = _take(self.texts.get(kind, text), text)
        self.texts[kind] = told
        if fragment:
            make, _ = _EVENTS[kind]
            if kind in _UNNAMED:
                self.events.append(make(self.index, fragment, told, told.taken))
            else:
                self.events.append(make(self.index, fragment, told, told.taken, kind))

    # --- calls ---

    @property
    def _calls(self) -> list[CallState]:
        return [] if self.state.calls is None else self.state.calls.items

    def tell_calls(self, places: Iterable[int]) -> None:
        """Emit what was added to the calls at these places, one after the other. End the one that
        was open if nothing can be added to its arguments.
        """
        for place in places:
            if place != self.last_call:
                told = self.calls.get((self.last_call, "function"))
                # Arguments that may be a placeholder are not emitted in full.
                if (
                    isinstance(told, ArgumentsText)
                    and told.is_whole()
                    and told.taken == len(str(told))
                ):
                    self._end_call(self.last_call, "function")
                self.last_call = place
            self.tell_call(place)

    def tell_call(self, place: int, *, ends: bool = False) -> None:
        """Emit what is new in a call. If its choice ends, emit the call even if neither a name nor
        arguments nor input came.
        """
        call = self._calls[place]
        tools = call.tools()
        if ends and not tools:
            tools.append(("custom" if call.type == "custom" else "function", FunctionState()))
        for tool, named in tools:
            if named.came or ends or (place, tool) in self.calls:  # else the other tool may come
                self._tell_tool(place, tool, named, call.id)

    def _tell_tool(self, place: int, tool: Tool, named: FunctionState, id_: str | None) -> None:
        told, text, name, fragment = self.calls.get((place, tool)), named.text, named.name, ""
        opens = told is None
        if told is None:
            told = Text()
        # Some servers send exactly `{}` as a placeholder, before the arguments.
        may_wait = tool == "function" and told.taken < 2 and (place, tool) not in self.done
        if text is not None and not (may_wait and str(text) == "{}"):
            told, fragment = _take(told, text)
        self.calls[place, tool] = told
        if fragment or opens:
            of_call = place, id_, name, 0 if name is None else len(str(name))
            make, _ = _EVENTS[tool]
            self.events.append(make(self.index, fragment, told, told.taken, *of_call))

    def _end_call(self, place: int, tool: Tool, *, is_last: bool = False) -> None:
        """Emit the `.done` of a call, after arguments that were held back; do this only once."""
        if self._ends((place, tool)):
            self.tell_call(place)
            frozen = freeze_call(self._calls[place], self.state.finish_reason, is_last=is_last)
            self.events.append(_EVENTS[tool][1](self.index, place, frozen))

    # --- logprobs and audio ---

    def tell_tokens(self, logprobs: wire.Logprobs) -> None:
        """Emit the logprobs that a choice brought."""
        for name in ("content", "refusal"):
            run = getattr(logprobs, name)
            if run:
                tokens = TokenLogprobs(len(run), partial(list, run), freeze_token)
                known = freeze_tokens(getattr(self.state.logprobs, name))
                self.events.append(_EVENTS[f"logprobs.{name}"][0](self.index, tokens, known))

    def tell_audio(self, data: bytes | None = None) -> None:
        """Emit the data that a delta brought, and what is new in the transcript."""
        audio = self.state.audio
        if audio is None:
            return
        text = audio.transcript
        words, length = ("", 0) if text is None else (text.take(), text.taken)
        if data or words:
            so_far = audio.id, audio.data, len(audio.data or b""), text, length
            self.events.append(ev.AudioDeltaEvent(self.index, data or None, words or None, *so_far))

    # --- the end ---

    def end(self, stream: State) -> None:
        """Emit every `.done` that is missing."""
        index, state, emit = self.index, self.state, self.events.append
        for kind, text in self.texts.items():
            if text.taken and self._ends(kind):
                emit(_EVENTS[kind][1](index, *(() if kind in _UNNAMED else (kind,)), str(text)))
        if state.calls is not None:
            self._end_calls(state.calls.items)
        self.tell_audio()  # it may have got a U+FFFD
        if state.audio is not None and self._ends("audio"):
            emit(ev.AudioDoneEvent(index, freeze_fields(state.audio)))
        for name in ("content", "refusal") if state.logprobs is not None else ():
            tokens = getattr(state.logprobs, name)
            if tokens is not None and tokens.count and self._ends(f"logprobs.{name}"):
                emit(_EVENTS[f"logprobs.{name}"][1](index, freeze_tokens(tokens)))
        if self._ends("choice"):
            emit(ev.ChoiceDoneEvent(index, freeze_choice(index, state, is_text=stream.is_text)))

    def _end_calls(self, calls: list[CallState]) -> None:
        for place in range(len(calls)):
            self.tell_call(place, ends=True)
        last = max((call.order for call in calls), default=0)
        for place, tool in sorted(self.calls):  # if a call is both, the custom tool comes first
            self._end_call(place, tool, is_last=calls[place].order == last)

    def _ends(self, what: object) -> bool:
        """Return whether something has had no `.done` so far, and note that it has one now."""
        is_first = what not in self.done
        self.done.add(what)
        return is_first


def _take(told: Text, text: Text) -> tuple[Text, str]:
    """Return the text that events look back at, and the new part of the text that goes into it.

    Other arguments may replace a placeholder, or any arguments if a caller's rule says so. If they
    begin with what was emitted, only the rest of them is new.
    """
    if told is not text:
        so_far = str(told)[: told.taken]
        is_more = isinstance(text, ArgumentsText) and str(text).startswith(so_far)
        if not text.taken and (is_more or not so_far):
            text.taken, told = told.taken, text
        else:
            told = told if isinstance(told, _Joined) else _Joined(so_far)
            told.append(text.take())
    return told, told.take()


def _texts_of_parts(parts: list[object], width: int, kind: str) -> Iterator[tuple[Text, str]]:
    """Yield the texts that have events in the last `width` parts, and in lists of parts in them."""
    for part in parts[-width:]:
        if not isinstance(part, dict) or part.get("type") not in PART_TYPES:
            continue
        thinks = part["type"] == "thinking"
        kind_of_part = "thinking" if thinks else kind
        for found in (part.get("text"), part.get("thinking") if thinks else None):
            if isinstance(found, Text):
                yield found, kind_of_part
            elif isinstance(found, list):
                yield from _texts_of_parts(found, width, kind_of_part)


def widest(parts: Sequence[object]) -> int:
    """Return the length of the longest list of parts: this one, or a `thinking` list inside it."""
    inner = [part.get("thinking") for part in parts if isinstance(part, dict)]
    return max([1, len(parts), *(widest(each) for each in inner if isinstance(each, list))])
