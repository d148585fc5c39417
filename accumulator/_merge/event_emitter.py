"""What chunks did to the state, as typed events.

The reducer notes in `at` which choice it is about to change. It calls `on_call` before a fragment
goes to a tool call, `on_choice` behind each choice of a chunk and `on_chunk` behind the chunk. What
a text of the state has more by then than was told is the next delta.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, cast

from .. import events as ev
from .._decode import chunk as wire
from .._decode.text import Text
from .._decode.text_history import TextHistory
from ..completion import Timing, Usage
from ..errors import Problem
from ..events import Event, ReasoningField
from ..rules import Level
from .extra_deltas import ExtraDeltas
from .progress import ChoiceProgress, adds, widest
from .snapshot import freeze
from .state import ChoiceState, State
from .usage_history import UsageHistory


class EventEmitter:
    """Collects in `events` what a reducer does."""

    __slots__ = (
        "_choices",
        "_ending",
        "_extras",
        "_histories",
        "_is_done",
        "_places",
        "_state",
        "_told",
        "_usage",
        "at",
        "events",
    )

    def __init__(self, reducer: Any, levels: Mapping[str, Level]) -> None:
        # The reducer refers to this, so this may not refer to the reducer: nobody frees a cycle.
        reducer.listener = self
        self._state: State = reducer.state
        self.events: deque[Event] = deque()
        self.at: tuple[int, ChoiceState] | None = None
        self._choices: dict[int, ChoiceProgress] = {}
        self._histories: dict[Text | None, TextHistory] = {}  # of the texts of all choices
        self._extras = ExtraDeltas(self.events, levels)
        self._ending: dict[int, ChoiceProgress] = {}  # choices with a finish reason and no `.done`
        self._places: list[int] = []  # of the calls that the fragments of a choice went to
        self._told = 0  # how many of these fragments were told
        self._usage = UsageHistory()
        self._is_done = False  # whether the last event was made

    def add_problem(self, problem: Problem) -> None:
        if self.at is not None:
            self._catch_up(*self.at, 0)
        self.events.append(ev.ProblemEvent(problem))

    def finish(self, timing: Timing | None) -> None:
        """End all that is not ended yet, if the stream has ended; only the first time."""
        state, status = self._state, self._state.status
        if self._is_done or status == "open":
            return
        self._is_done = True
        choices = [self._follow(index, choice) for index, choice in sorted(state.choices.items())]
        for progress in choices:
            progress.tell_all()
        self._extras.finish()
        for progress in choices:
            progress.end(state)
        last = freeze(state)
        self._add_usage(self._usage.end(last.usage))
        error = state.error if status == "failed" else None
        self.events.append(ev.DoneEvent(status, timing, last, error))

    # --- what the reducer calls ---

    @staticmethod
    def apply_common(reducer: Any, chunk: Any) -> None:
        """Apply a chunk as `Reducer.apply_common` does, and make its events."""
        state: ChoiceState | None = reducer.apply_common(chunk)
        if state is None:  # it was applied as any other chunk is
            return
        self: EventEmitter = reducer.listener
        [choice] = chunk.choices
        index, delta = choice.index, choice.delta
        content, thought, other = delta.content, delta.reasoning, delta.reasoning_content
        field: ReasoningField | None = None
        if content:
            text, fragment, more = state.content, content, thought or other
        elif thought:
            text, fragment, more, field = state.reasoning, thought, other, "reasoning"
        else:
            text, fragment, more = state.reasoning_content, other, None
            field = "reasoning_content"
        history = self._histories.get(text)
        if history is None or more or choice.finish_reason:
            self.on_choice(index, state, choice)
            return
        if fragment:
            length = history.length = history.length + len(fragment)
            if field is None:
                event: Event = ev.ContentDeltaEvent(index, fragment, history, length)
            else:
                event = ev.ReasoningDeltaEvent(index, fragment, history, length, field)
            self.events.append(event)
        if delta.reasoning_details is not None:
            self._tell_details(index, delta.reasoning_details)

    def on_call(self, place: int) -> None:
        self._places.append(place)

    def on_rare(self, delta: wire.Delta) -> None:
        index, state = cast("tuple[int, ChoiceState]", self.at)
        self._catch_up(index, state, 0 if delta.parts is None else widest(delta.parts)).tell_audio()
        self._extras.add_delta(index, state, delta)

    def on_choice(self, index: int, state: ChoiceState, choice: wire.Choice) -> None:
        self.at = None
        progress = self._choices.get(index)
        if progress is None or choice.delta is None or choice.finish_reason or self._places:
            progress = self._catch_up(index, state, 1)
        else:
            self._tell_texts(progress, state, choice.delta)
        if choice.delta is not None and choice.delta.reasoning_details is not None:
            self._tell_details(index, choice.delta.reasoning_details)
        if self._places:
            self._extras.add_calls(index, state, choice, self._places)
            self._places.clear()
            self._told = 0
        if choice.extra is not None or choice.logprobs is not None or choice.text is not None:
            if choice.logprobs is not None:
                progress.tell_tokens(choice.logprobs)
            self._extras.add_choice(index, state, choice)
        if choice.usage is not None:
            self._tell_usage(choice.usage)
        if self._ending or choice.finish_reason:
            self._follow_end(progress, choice)

    def on_chunk(self, chunk: wire.Chunk, state: State) -> None:
        if self._ending and not chunk.choices:
            for progress in self._ending.values():
                progress.end(state)
            self._ending.clear()
        if chunk.extra is not None or chunk.moderation is not None:
            self._extras.add_chunk(chunk, state)
        if chunk.usage is not None:
            self._tell_usage(chunk.usage)

    # --- what is new ---

    def _follow(self, index: int, state: ChoiceState) -> ChoiceProgress:
        progress = self._choices.get(index)
        if progress is None:
            progress = self._choices[index] = ChoiceProgress(
                index, state, self.events, self._histories
            )
        return progress

    def _catch_up(self, index: int, state: ChoiceState, width: int) -> ChoiceProgress:
        """Emit what came to the texts of a choice, as its progress does, and to the calls that
        fragments went to; the last of these may still be on its way.
        """
        progress, places = self._follow(index, state), self._places
        progress.tell(width)
        if places:
            progress.tell_calls(places[self._told :])
            self._told = len(places) - 1
        return progress

    def _tell_texts(self, progress: ChoiceProgress, state: ChoiceState, delta: wire.Delta) -> None:
        text = state.content
        if text not in self._histories or delta.reasoning or delta.reasoning_content:
            progress.tell(1)
        elif text is not None and delta.content:
            progress.tell_text("content", text, delta.content)

    def _tell_details(self, index: int, details: list[wire.ReasoningDetail]) -> None:
        # Structs, which never change: no copy of them is needed.
        self.events.append(ev.ExtraDeltaEvent(index, "delta.reasoning_details", details))

    def _tell_usage(self, report: wire.Usage) -> None:
        self._add_usage(self._usage.add(report, cast("wire.Usage", self._state.usage)))

    def _add_usage(self, usage: Usage | None) -> None:
        if usage is not None:
            self.events.append(ev.UsageEvent(usage))

    def _follow_end(self, progress: ChoiceProgress, choice: wire.Choice) -> None:
        """Wait with the `.done` of a choice from its finish reason to the first chunk that adds
        nothing to it: gcli2api sends a finish reason with every chunk.
        """
        index, reason = progress.index, choice.finish_reason
        if reason and (index not in self._ending or reason != progress.finish_reason):
            self._ending[index] = progress
            progress.finish_reason = reason
        elif index in self._ending and not choice.text and not adds(choice.delta):
            del self._ending[index]
            progress.end(self._state)
