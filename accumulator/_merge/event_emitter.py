"""Emit typed events for what chunks did to the state.

The reducer calls `begin` before it changes a choice, `on_call` before a fragment goes to a tool
call, `on_rare` after the rare fields of a delta, `on_choice` after each choice of a chunk and
`on_chunk` after the chunk. The part of a text that is new since the last event is the next delta.
"""

from __future__ import annotations

from typing import Any, cast

from msgspec import field

from .. import events as ev
from .._decode import chunk as wire
from ..completion import Timing, Usage
from ..errors import Problem
from ..events import Event, ReasoningField
from .extra_deltas import ExtraDeltas
from .progress import ChoiceProgress
from .snapshot import freeze, freeze_choice, freeze_usage
from .state import ChoiceState, State

# What a delta may add to a choice: its own fields, and those of its calls and its audio.
_ADDED = (
    "content parts refusal reasoning reasoning_content id name arguments input data transcript"
).split()
_SHARE = 32  # how many vendors' values are copied with a usage for each that its reports brought


class EventEmitter(ExtraDeltas, kw_only=True):
    """Collects the events of what a reducer does, in `events`."""

    state: State
    progress: Any = None  # the `ChoiceProgress` of the choice that is being changed, if any
    _choices: dict[int, ChoiceProgress] = field(default_factory=dict)
    # The choices whose `.done` is delayed, and the finish reason of each.
    _ending: dict[int, str] = field(default_factory=dict)
    _usage: Usage | None = None  # as it was emitted last
    _vendors: int = 0  # vendors' values in it
    _reported: int = 0  # reports after it, and vendors' values in them
    _is_done: bool = False  # whether the `done` event was emitted

    def add_problem(self, problem: Problem) -> None:
        """Emit a problem, after what its chunk brought before it."""
        if self.progress is not None:
            self.progress.catch_up()
        self.events.append(ev.ProblemEvent(problem))

    def finish(self, timing: Timing | None) -> None:
        """Emit every `.done` that is missing, if the stream has ended; do this only once."""
        state = self.state
        status = "open" if self._is_done else state.status
        if status == "open":
            return
        self._is_done = True
        if state.says_text:  # a chunk may have said so after the choices were frozen
            self.thaw()
        known = None if self._reported else self._usage
        frozen = {index: each.frozen for index, each in self._choices.items() if each.frozen}
        last = freeze(state, known, frozen)
        for each in (self, *self._choices.values()):
            each.emit_halves()
        for choice in last.choices:
            if choice.index not in frozen:
                progress = self._choices[choice.index]
                progress.catch_up()
                progress.end(choice)
        if known is None:
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
        if text is None or not text.taken or more or choice.finish_reason or choice.logprobs:
            self.begin(index, state)
            self.on_choice(choice)
            return
        if fragment:
            length = text.taken = text.taken + len(fragment)
            if content:
                event: Event = ev.ContentDeltaEvent(index, fragment, text, length)
            else:
                kind: ReasoningField = "reasoning" if thought else "reasoning_content"
                event = ev.ReasoningDeltaEvent(index, fragment, text, length, kind)
            self.events.append(event)
        details = delta.reasoning_details  # these Structs never change, so they need no copy
        if details is not None:
            self.events.append(ev.ExtraDeltaEvent(index, "delta.reasoning_details", details))

    def begin(self, index: int, state: ChoiceState) -> None:
        self.progress = self._choices.get(index)
        if self.progress is None:
            self.progress = ChoiceProgress(index, self.levels, self.events, state=state)
            self._choices[index] = self.progress
        self.progress.frozen = None

    def on_choice(self, choice: wire.Choice) -> None:
        progress, self.progress = self.progress, None
        progress.emit_choice(choice)
        if choice.usage is not None:
            self._emit_usage(choice.usage)
        if self._ending or choice.finish_reason:
            self._follow_end(progress, choice)

    def on_chunk(self, chunk: wire.Chunk) -> None:
        if not chunk.choices:
            for index in [*self._ending]:
                self._end(index)
        if chunk.moderation is not None:
            self.emit("chunk.moderation", chunk.moderation)
        self.emit_fields("chunk", chunk.extra, self.state.extra)
        if chunk.usage is not None:
            self._emit_usage(chunk.usage)

    def thaw(self) -> None:
        """Forget the choices that were frozen: one may have changed since."""
        for progress in self._choices.values():
            progress.frozen = None

    # --- the end of a choice ---

    def _follow_end(self, progress: ChoiceProgress, choice: wire.Choice) -> None:
        """Delay the `.done` of a choice from its finish reason to the first chunk that adds nothing
        to it: gcli2api sends a finish reason with every chunk.
        """
        index, reason, delta = progress.index, choice.finish_reason, choice.delta
        if reason and reason != self._ending.get(index):
            self._ending[index] = reason
        elif index in self._ending:
            if not choice.text and (delta is None or not _adds(delta)):
                self._end(index)
            elif not reason:
                self._ending[index] = ""  # even the same reason is another one after this

    def _end(self, index: int) -> None:
        del self._ending[index]
        progress = self._choices[index]
        frozen = freeze_choice(index, progress.state, is_text=self.state.is_text)
        progress.end(frozen)
        progress.frozen = frozen

    # --- the usage ---

    def _emit_usage(self, report: wire.Usage) -> None:
        """Emit the usage after a report, if that changed it.

        A server may send new fields with every report, and a copy costs as much as all of them.
        So a usage with many more fields than its reports is not emitted with each report.
        """
        usage = cast("wire.Usage", self.state.usage)
        self._reported += 1 + _size_of(report)
        if self._vendors <= _SHARE * self._reported:
            self._vendors, self._reported = _size_of(usage), 0
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
