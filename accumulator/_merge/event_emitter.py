"""What chunks did to the state, as typed events.

The reducer notes in `at` which choice it is about to change. It calls `on_call` before a fragment
goes to a tool call, `on_choice` behind each choice of a chunk and `on_chunk` behind the chunk. What
a text of the state has more by then than was told is the next delta.
"""

from __future__ import annotations

import sys
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
from .arguments import ArgumentsText
from .ending import calls_of
from .extra_deltas import ExtraDeltas
from .progress import (
    KINDS,
    ChoiceProgress,
    Kind,
    adds,
    end_call,
    end_choice,
    tell_audio,
    tell_call,
    tell_parts,
    tell_tokens,
    widest,
)
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
        "_place",
        "_places",
        "_state",
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
        self._histories: dict[Text | None, TextHistory] = {}  # of contents that are one text
        self._extras = ExtraDeltas(self.events, levels)
        self._ending: dict[int, ChoiceProgress] = {}  # choices with a finish reason and no `.done`
        self._places: list[int] = []  # of the calls that the fragments of a choice went to
        self._place = -1  # of the last of them, until its choice was applied
        self._usage = UsageHistory()
        self._is_done = False  # whether the last event was made

    def add_problem(self, problem: Problem) -> None:
        if self.at is not None:
            self._catch_up(*self.at)
        self.events.append(ev.ProblemEvent(problem))

    def finish(self, timing: Timing | None) -> None:
        """End all that is not ended yet, if the stream has ended; only the first time."""
        state, status = self._state, self._state.status
        if self._is_done or status == "open":
            return
        self._is_done = True
        choices: list[ChoiceProgress] = []
        for index, choice in sorted(state.choices.items()):
            # A U+FFFD took the place of each half of a surrogate pair.
            progress = self._catch_up(index, choice, sys.maxsize)
            choices.append(progress)
            for place in {place for place, _ in progress.calls}:
                tell_call(progress, place, self.events)
            tell_audio(progress, self.events)
        self._extras.finish()
        for progress in choices:
            end_choice(progress, self.events, self._state)
        last = freeze(state)
        self._add_usage(self._usage.end(last.usage))
        error = state.error if status == "failed" else None
        self.events.append(ev.DoneEvent(status, timing, last, error))

    # --- what the reducer calls ---

    @staticmethod
    def apply_text(reducer: Any, chunk: Any) -> None:
        """Apply a chunk as `Reducer.apply_text` does, and make its event."""
        choices = chunk.choices
        if choices and choices[0].delta is not None and choices[0].delta.tool_calls:
            reducer.apply(chunk)
            return
        state: ChoiceState | None = reducer.apply_text(chunk)
        if state is None:  # it was applied as any other chunk is
            return
        self: EventEmitter = reducer.listener
        [choice] = choices
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
        progress = self._catch_up(*cast("tuple[int, ChoiceState]", self.at))
        self._leave_call(progress, place)
        self._place = place
        self._places.append(place)

    def on_rare(self, delta: wire.Delta) -> None:
        index, state = cast("tuple[int, ChoiceState]", self.at)
        width = 0 if delta.parts is None else widest(delta.parts)
        progress = self._catch_up(index, state, width)
        tell_audio(progress, self.events)
        self._extras.add_delta(index, state, delta)

    def on_choice(self, index: int, state: ChoiceState, choice: wire.Choice) -> None:
        self.at = None
        if choice.delta is not None:
            self._tell_delta(index, state, choice.delta)
        if self._places:
            self._catch_up(index, state)
            self._extras.add_calls(index, state, calls_of(choice), self._places)
            self._places.clear()
            self._place = -1
        if choice.extra is not None or choice.logprobs is not None or choice.text is not None:
            tell_tokens(index, state, choice, self.events)
            self._extras.add_choice(index, state, choice)
        if choice.usage is not None:
            self._tell_usage(choice.usage)
        if self._ending or choice.finish_reason:
            self._follow_end(self._catch_up(index, state), choice)

    def on_chunk(self, chunk: wire.Chunk, state: State) -> None:
        if self._ending and not chunk.choices:
            for progress in self._ending.values():
                end_choice(progress, self.events, self._state)
            self._ending.clear()
        if chunk.extra is not None or chunk.moderation is not None:
            self._extras.add_chunk(chunk, state)
        if chunk.usage is not None:
            self._tell_usage(chunk.usage)

    # --- what is new ---

    def _catch_up(self, index: int, state: ChoiceState, width: int = 0) -> ChoiceProgress:
        """Emit what came to the texts of a choice, to the last `width` parts of its content, and to
        the call that a fragment went to.
        """
        progress = self._choices.get(index)
        if progress is None:
            progress = self._choices[index] = ChoiceProgress(index, state)
        for kind in KINDS:
            text = getattr(state, kind)
            if text is not None:
                if text not in self._histories:
                    history = self._histories[text] = progress.texts[kind] = TextHistory()
                    history.text = text
                self._tell(index, state, kind, text)
        if width and state.parts is not None:
            tell_parts(progress, width, self.events)
        if self._place >= 0:
            tell_call(progress, self._place, self.events)
        return progress

    def _tell_delta(self, index: int, state: ChoiceState, delta: wire.Delta) -> None:
        if delta.reasoning:
            self._tell(index, state, "reasoning", state.reasoning, delta.reasoning)
        if delta.reasoning_content:
            text, fragment = state.reasoning_content, delta.reasoning_content
            self._tell(index, state, "reasoning_content", text, fragment)
        if delta.content:
            self._tell(index, state, "content", state.content, delta.content)
        if delta.reasoning_details is not None:
            self._tell_details(index, delta.reasoning_details)

    def _tell_details(self, index: int, details: list[wire.ReasoningDetail]) -> None:
        # Structs, which never change: no copy of them is needed.
        self.events.append(ev.ExtraDeltaEvent(index, "delta.reasoning_details", details))

    def _tell(
        self, index: int, state: ChoiceState, kind: Kind, text: Any, fragment: str | None = None
    ) -> None:
        """Emit what a text has more than was told: `fragment`, if that was appended as it is."""
        history = self._histories.get(text)
        if history is None:
            self._catch_up(index, state, 1)
            return
        fragments = text.fragments
        if fragment is None or not fragments or fragments[-1] is not fragment:
            fragment = str(text)[history.length :]
            if not fragment:
                return
        length = history.length = history.length + len(fragment)
        if kind == "content":
            event: Event = ev.ContentDeltaEvent(index, fragment, history, length)
        elif kind == "refusal":
            event = ev.RefusalDeltaEvent(index, fragment, history, length)
        else:
            event = ev.ReasoningDeltaEvent(index, fragment, history, length, kind)
        self.events.append(event)

    def _leave_call(self, progress: ChoiceProgress, place: int) -> None:
        """End the call that was open if another one goes on, and nothing can be added to its
        arguments.
        """
        before, progress.last_call = progress.last_call, place
        emitted = progress.calls.get((before, "function"))
        if before == place or emitted is None or emitted.is_done:
            return
        function = emitted.state.function
        text = None if function is None else function.text
        # Of arguments that may be a placeholder not all is told.
        if (
            isinstance(text, ArgumentsText)
            and text.is_whole()
            and len(str(text)) == emitted.text.length
        ):
            end_call(emitted, self.events)

    def _tell_usage(self, report: wire.Usage) -> None:
        self._add_usage(self._usage.add(report, cast("wire.Usage", self._state.usage)))

    def _add_usage(self, usage: Usage | None) -> None:
        if usage is not None:
            self.events.append(ev.UsageEvent(usage))

    # --- the end of a choice ---

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
            end_choice(progress, self.events, self._state)
