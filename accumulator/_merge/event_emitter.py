"""Emit typed events for what chunks did to the state.

The reducer notes in `at` which choice it is about to change. It calls `on_call` before a fragment
goes to a tool call, `on_rare` after the rare fields of a delta, `on_choice` after each choice of a
chunk and `on_chunk` after the chunk. The part of a text that is new since the last event is the
next delta.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, cast

from msgspec import Struct, field, to_builtins

from .. import events as ev
from .._decode import chunk as wire
from .._decode.chunk import JsonObject
from .._decode.text import Text
from ..completion import Timing, Usage
from ..errors import Problem
from ..events import Event, ReasoningField
from ..rules import Level
from .ending import brings_text, calls_of
from .json_merge import PART_TYPES
from .progress import ChoiceProgress, widest
from .snapshot import freeze, freeze_usage
from .state import ChoiceState, State

# What a delta may add to a choice: its own fields, and those of its calls and its audio.
_ADDED = (
    "content parts refusal reasoning reasoning_content id name arguments input data transcript"
).split()
_SHARE = 32  # vendors' values of a usage that may be copied for each report and each value in it
_ABSENT = object()
_Fields = JsonObject | None


class ExtraDeltas(Struct):
    """Adds to `events` what a chunk brought that has no event of its own.

    If merging a value twice changes nothing, it is only emitted when it changes: servers repeat
    the same provider, or all search results, in each chunk.
    """

    levels: Mapping[str, Level]
    events: deque[Event] = field(default_factory=deque)
    # By choice and path: the value that was emitted last, or the text that is being emitted.
    _last: dict[tuple[int | None, str], object] = field(default_factory=dict)

    def tell_choice(self, index: int, state: ChoiceState, choice: wire.Choice) -> None:
        """Add the fields of a choice besides its delta."""
        self._tell_fields(index, "choice", choice.extra, state.extra)
        if choice.text is not None and brings_text(choice):
            self._tell_text(index, "choice.text", cast("Text", state.text))
        elif choice.text is not None:
            self._tell_fields(index, "choice", {"text": choice.text}, state.extra)
        self._tell_extra(index, "choice.logprobs", choice.logprobs, state.logprobs)

    def tell_delta(self, index: int, state: ChoiceState, delta: wire.Delta) -> None:
        """Add the rare fields of a delta."""
        self._tell_fields(index, "delta", delta.extra, state.delta_extra)
        if delta.annotations:
            self._tell(index, "delta.annotations", delta.annotations)
        parts = [part for part in delta.parts or () if not _is_text(part)]
        if parts:
            self._tell(index, "delta.content", parts)
        call, audio = delta.function_call, delta.audio
        if call is not None:
            fields = {"name": call.name, "arguments": call.arguments, **(call.extra or {})}
            value = {name: item for name, item in fields.items() if item is not None}
            if value:
                self._tell(index, "delta.function_call", value)
        if audio is not None and audio.expires_at is not None:
            self._tell(index, "delta.audio.expires_at", audio.expires_at, again=False)
        self._tell_extra(index, "delta.audio", audio, state.audio, "delta.<object>")

    def tell_calls(self, index: int, fragments: Iterable[tuple[Any, int]], calls: Any) -> None:
        """Add the fields of fragments of calls, each with the place of the call that it went to."""
        for fragment, place in fragments:
            call, path = calls.items[place], f"delta.tool_calls[{place}]"
            self._tell_extra(index, path, fragment, call, "delta")
            self._tell_extra(index, f"{path}.function", fragment.function, call.function, "delta")
            self._tell_extra(index, f"{path}.custom", fragment.custom, call.custom, "delta")

    def tell_ends(self) -> None:
        """Add each U+FFFD that replaced half a surrogate pair at the end."""
        for (index, path), text in self._last.items():
            if isinstance(text, Text):
                self._tell_text(index, path, text)

    def _tell_extra(self, index: int, path: str, brought: Any, known: Any, of: str = "") -> None:
        """Add the extra fields of an object in a chunk; `known` is what they were merged into."""
        if brought is not None and brought.extra is not None:
            self._tell_fields(index, path, brought.extra, known.extra, of)

    def _tell_fields(
        self, index: int | None, path: str, fields: _Fields, merged: _Fields, of: str = ""
    ) -> None:
        level = self.levels[of or path]
        for name, value in (fields or {}).items():
            if value is None or (level.names.get(name) or level.kinds[type(value)]) == "drop":
                continue
            where, text = f"{path}.{name}", (merged or {}).get(name)
            if type(value) is str and type(text) is Text:
                self._tell_text(index, where, text)
            else:
                self._tell(index, where, value, again=not level.is_idempotent(name, value))

    def _tell_text(self, index: int | None, path: str, text: Text) -> None:
        """Add the new part of a text: half a surrogate pair waits for its other half."""
        self._last[index, path] = text
        fragment = text.take()
        if fragment:
            self.events.append(ev.ExtraDeltaEvent(index, path, fragment))

    def _tell(self, index: int | None, path: str, value: object, *, again: bool = True) -> None:
        known = self._last.get((index, path), _ABSENT)
        if again or type(known) is not type(value) or known != value:
            # A list of the chunk may belong to the state by now, and grow.
            told = self._last[index, path] = to_builtins(value)
            self.events.append(ev.ExtraDeltaEvent(index, path, told))


class EventEmitter(ExtraDeltas, kw_only=True):
    """Collects the events of what a reducer does, in `events`."""

    state: State
    at: tuple[int, ChoiceState] | None = None
    _choices: dict[int, ChoiceProgress] = field(default_factory=dict)
    # The choices whose `.done` is delayed, and the finish reason of each.
    _ending: dict[int, str] = field(default_factory=dict)
    # The places of the calls that the fragments of a choice went to.
    _places: list[int] = field(default_factory=list)
    _told: int = 0  # how many of these fragments had their events
    _usage: Usage | None = None  # as it was emitted last
    _size: int = 0  # vendors' values in it
    _brought: int = 0  # reports since, and vendors' values in them
    _is_done: bool = False  # whether the `done` event was emitted

    def add_problem(self, problem: Problem) -> None:
        if self.at is not None:
            self._catch_up(*self.at)
        self.events.append(ev.ProblemEvent(problem))

    def finish(self, timing: Timing | None) -> None:
        """Emit every `.done` that is missing, if the stream has ended; do this only once."""
        state, status = self.state, self.state.status
        if self._is_done or status == "open":
            return
        self._is_done = True
        self.tell_ends()
        for index, choice in sorted(state.choices.items()):
            self._catch_up(index, choice, sys.maxsize).end(state)
        told = None if self._brought else self._usage
        last = freeze(state, told)
        if told is None:
            self._add_usage(last.usage)
        error = state.error if status == "failed" else None
        self.events.append(ev.DoneEvent(status, timing, last, error))

    # --- what the reducer calls ---

    @staticmethod
    def apply_common(reducer: Any, chunk: Any) -> None:
        """Apply a chunk as `Reducer.apply_common` does, and emit its events. Most chunks continue
        one text that has had events before.
        """
        state: ChoiceState | None = reducer.apply_common(chunk)
        if state is None:  # it was applied like any other chunk
            return
        self: EventEmitter = reducer.listener
        [choice] = chunk.choices
        index, delta = choice.index, choice.delta
        content, thought, other = delta.content, delta.reasoning, delta.reasoning_content
        if content:
            text, fragment, more = state.content, content, thought or other
        elif thought:
            text, fragment, more = state.reasoning, thought, other
        else:
            text, fragment, more = state.reasoning_content, other, None
        if text is None or not text.taken or more or choice.finish_reason:
            self.on_choice(index, state, choice)
            return
        if fragment:
            length = text.taken = text.taken + len(fragment)
            if content:
                event: Event = ev.ContentDeltaEvent(index, fragment, text, length)
            else:
                kind: ReasoningField = "reasoning" if thought else "reasoning_content"
                event = ev.ReasoningDeltaEvent(index, fragment, text, length, kind)
            self.events.append(event)
        if delta.reasoning_details is not None:
            self._tell_details(index, delta.reasoning_details)

    def on_call(self, place: int) -> None:
        self._places.append(place)

    def on_rare(self, delta: wire.Delta) -> None:
        index, state = cast("tuple[int, ChoiceState]", self.at)
        progress = self._catch_up(index, state, 0 if delta.parts is None else widest(delta.parts))
        if delta.audio is not None:
            progress.tell_audio(delta.audio.data)
        self.tell_delta(index, state, delta)

    def on_choice(self, index: int, state: ChoiceState, choice: wire.Choice) -> None:
        self.at = None
        progress, delta = self._choices.get(index), choice.delta
        if progress is None or self._places or not progress.tell_content(delta):
            progress = self._catch_up(index, state, 1)
        if delta is not None and delta.reasoning_details is not None:
            self._tell_details(index, delta.reasoning_details)
        if self._places:
            fragments = zip(calls_of(choice), self._places, strict=False)
            self.tell_calls(index, fragments, state.calls)
            self._places.clear()
            self._told = 0
        if choice.logprobs is not None:
            progress.tell_tokens(choice.logprobs)
        if choice.extra is not None or choice.logprobs is not None or choice.text is not None:
            self.tell_choice(index, state, choice)
        if choice.usage is not None:
            self._tell_usage(choice.usage)
        if self._ending or choice.finish_reason:
            self._follow_end(progress, choice)

    def on_chunk(self, chunk: wire.Chunk, state: State) -> None:
        if self._ending and not chunk.choices:
            for index in self._ending:
                self._choices[index].end(state)
            self._ending.clear()
        if chunk.moderation is not None:
            self._tell(None, "chunk.moderation", chunk.moderation)
        if chunk.extra is not None:
            self._tell_fields(None, "chunk", chunk.extra, state.extra)
        if chunk.usage is not None:
            self._tell_usage(chunk.usage)

    # --- what is new ---

    def _catch_up(self, index: int, state: ChoiceState, width: int = 0) -> ChoiceProgress:
        """Emit what was added to the texts of a choice, and to the calls that fragments went to;
        the last fragment may not have been applied yet.
        """
        progress, places = self._choices.get(index), self._places
        if progress is None:
            progress = self._choices[index] = ChoiceProgress(index, state, self.events)
        progress.tell(width)
        if places:
            progress.tell_calls(places[self._told :])
            self._told = len(places) - 1
        return progress

    def _follow_end(self, progress: ChoiceProgress, choice: wire.Choice) -> None:
        """Delay the `.done` of a choice from its finish reason to the first chunk that adds nothing
        to it: gcli2api sends a finish reason with every chunk.
        """
        index, reason, delta = progress.index, choice.finish_reason, choice.delta
        if reason and reason != self._ending.get(index):
            self._ending[index] = reason
        elif index in self._ending and not choice.text and (delta is None or not _adds(delta)):
            del self._ending[index]
            progress.end(self.state)

    def _tell_details(self, index: int, details: list[wire.ReasoningDetail]) -> None:
        # These Structs never change, so they need no copy.
        self.events.append(ev.ExtraDeltaEvent(index, "delta.reasoning_details", details))

    def _tell_usage(self, report: wire.Usage) -> None:
        """Emit the usage after a report, if that changed it.

        A server may send new fields with every report, and a copy costs as much as all of them.
        So a usage with many more fields than its reports is not emitted with each report.
        """
        usage = cast("wire.Usage", self.state.usage)
        self._brought += 1 + _size_of(report)
        if self._size <= _SHARE * self._brought:
            self._size, self._brought = _size_of(usage), 0
            self._add_usage(freeze_usage(usage))

    def _add_usage(self, usage: Usage | None) -> None:
        if usage is not None and usage != self._usage:
            self._usage = usage
            self.events.append(ev.UsageEvent(usage))


def _adds(delta: wire.Delta) -> bool:
    """Return whether a delta brings text, a call or arguments."""
    calls = delta.tool_calls or ()
    tools = [tool for call in calls for tool in (call, call.function, call.custom)]
    holders = (delta, delta.function_call, delta.audio, *tools)
    return any(getattr(each, name, None) for each in holders for name in _ADDED)


def _size_of(usage: wire.Usage) -> int:
    """Return how many values of vendors there are in a usage."""
    holders = (usage, usage.completion_tokens_details, usage.prompt_tokens_details)
    return sum(_count(each.extra) for each in holders if each is not None and each.extra)


def _count(value: object) -> int:
    if isinstance(value, dict):
        value = [*value.values()]
    return 1 + sum(map(_count, value)) if isinstance(value, list) else 1


def _is_text(part: object) -> bool:
    """Return whether content or reasoning events contain all that a part of content brings."""
    if not isinstance(part, dict):
        return isinstance(part, str)
    return part.get("type") in PART_TYPES and part.keys() <= {"type", "text", "thinking"}
