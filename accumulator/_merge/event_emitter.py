"""What chunks did to the state, as typed events.

The reducer calls `on_append` with each fragment that it appends to a text of the state, `on_call`
before a fragment goes to a tool call, `on_choice` behind each choice of a chunk and `on_chunk`
behind the chunk. Most fragments go to a text that is known, and are an event at once. The rest
waits, in order, until its choice was applied: then it stands in the state where it belongs.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

from .. import events as ev
from .._decode import chunk as wire
from .._decode.text import Text
from .._decode.text_history import TextHistory
from ..completion import TokenLogprob, TokenLogprobs, Usage
from ..errors import Problem
from ..events import Event
from ..rules import Level
from .arguments import ArgumentsText
from .ending import calls_of
from .extra_deltas import ExtraDeltas
from .progress import (
    ChoiceProgress,
    EmittedCall,
    EmittedText,
    Kind,
    adds,
    call_at,
    emit_arguments,
    end_call,
    end_choice,
    fragment_to_tell,
    texts_of,
    texts_of_call,
    widest,
)
from .reducer import Reducer
from .snapshot import freeze_token, freeze_tokens
from .state import ChoiceState, LogprobsState, State
from .usage_history import UsageHistory

__all__ = ["EventEmitter"]

_LOGPROBS_DELTA: dict[str, Callable[..., Event]] = {
    "content": ev.LogprobsContentDeltaEvent,
    "refusal": ev.LogprobsRefusalDeltaEvent,
}
_MOST_TEXTS = 256  # that are known by identity; a server may replace one again and again


class EventEmitter:
    """Collects in `events` what a reducer does."""

    __slots__ = (
        "_arguments",
        "_choices",
        "_ending",
        "_extras",
        "_place",
        "_places",
        "_state",
        "_texts",
        "_usage",
        "_waiting",
        "events",
    )

    def __init__(self, reducer: Reducer, levels: Mapping[str, Level]) -> None:
        # The reducer refers to this, so this may not refer to the reducer: nobody frees a cycle.
        reducer.listener = self
        self._state = reducer.state
        self.events: deque[Event] = deque()
        self._choices: dict[int, ChoiceProgress] = {}
        self._texts: dict[Text, EmittedText] = {}
        self._arguments: dict[Text, tuple[ChoiceProgress, EmittedCall]] = {}
        self._extras = ExtraDeltas(self.events, levels)
        self._ending: dict[int, ChoiceProgress] = {}  # choices with a finish reason and no `.done`
        self._places: list[int] = []  # of the calls that the fragments of a choice went to
        self._place = -1  # of the call that the next fragment goes to, if nothing waits
        # Fragments, places of the calls that those behind go to, and problems.
        self._waiting: list[tuple[Text, str] | int | Problem] = []
        self._usage = UsageHistory()

    def add_problem(self, problem: Problem) -> None:
        if self._waiting:
            self._waiting.append(problem)
        else:
            self.events.append(ev.ProblemEvent(problem))

    def finish(self, state: State) -> None:
        """End what is not ended yet: no more input will come."""
        choices = [self._find(index, choice) for index, choice in sorted(state.choices.items())]
        if self._waiting:
            self._settle_halves(choices)
        self._extras.finish()
        for progress in choices:
            self._end(progress)
        self._tell_usage(self._usage.end(state))

    # --- what the reducer calls ---

    def on_append(self, text: Text, fragment: str) -> None:
        if not fragment:
            return
        emitted = self._texts.get(text)
        if emitted is None or self._waiting:
            self._wait(text, fragment)
            return
        kind = emitted.kind
        if kind is None:
            return
        history = emitted.history
        if history.text is text:  # `add`, without the call
            length = history.length = history.length + len(fragment)
        else:
            length = history.add(text, fragment)
        if kind == "content":
            event: Event = ev.ContentDeltaEvent(emitted.choice_index, fragment, history, length)
        elif kind == "refusal":
            event = ev.RefusalDeltaEvent(emitted.choice_index, fragment, history, length)
        else:
            event = ev.ReasoningDeltaEvent(emitted.choice_index, fragment, history, length, kind)
        self.events.append(event)

    def on_call(self, place: int) -> None:
        self._places.append(place)
        if self._place >= 0:
            self._waiting.append(self._place)
            self._place = -1
        if self._waiting:
            self._waiting.append(place)
        else:
            self._place = place

    def _wait(self, text: Text, fragment: str) -> None:
        """Keep a fragment until its choice is applied, unless it goes on with a call."""
        place = self._place
        if place >= 0:
            self._place = -1
            found = self._arguments.get(text)
            # The first two characters may be a placeholder.
            if found is not None and found[0].last_call == place and found[1].text.length > 1:
                found[1].text.add(text, fragment)
                emit_arguments(found[1], fragment, self.events)
                return
            self._waiting.append(place)
        self._waiting.append((text, fragment))

    def on_choice(self, index: int, state: ChoiceState, choice: wire.Choice) -> None:
        delta = choice.delta
        if self._place >= 0:
            self._waiting.append(self._place)
            self._place = -1
        if self._waiting:
            parts = None if delta is None else delta.parts
            self._settle(self._find(index, state), 1 if parts is None else widest(parts))
        if self._places:
            self._extras.add_calls(index, state, calls_of(choice), self._places)
            self._places.clear()
        if delta is not None and (
            delta.reasoning_details is not None
            or delta.extra is not None
            or delta.annotations is not None
            or delta.parts is not None
            or delta.function_call is not None
            or delta.audio is not None
        ):
            self._emit_rare(index, state, delta)
        self._emit_beside(index, state, choice)
        if self._ending or choice.finish_reason:
            self._follow_end(index, state, choice)

    def on_chunk(self, chunk: wire.Chunk, state: State) -> None:
        if self._waiting:  # the chunk has texts of its own
            problems = [note for note in self._waiting if isinstance(note, Problem)]
            self._waiting.clear()
            self.events.extend(map(ev.ProblemEvent, problems))
        if self._ending and not chunk.choices:
            for progress in self._ending.values():
                self._end(progress)
            self._ending.clear()
        if chunk.extra is not None or chunk.moderation is not None:
            self._extras.add_chunk(chunk, state)
        if chunk.usage is not None:
            self._emit_usage(chunk.usage)

    # --- what waited ---

    def _find(self, index: int, state: ChoiceState) -> ChoiceProgress:
        progress = self._choices.get(index)
        if progress is None:
            progress = self._choices[index] = ChoiceProgress(index, state)
        return progress

    def _settle(self, progress: ChoiceProgress, width: int) -> None:
        """Emit what waits, all of one choice; of its parts the last `width` may be new."""
        waiting, self._waiting = self._waiting, []
        place, brought = -1, dict[Text, str]()
        for note in waiting:
            if isinstance(note, Problem):
                self.events.append(ev.ProblemEvent(note))
            elif isinstance(note, int):
                self._emit_call(progress, place, brought)
                self._leave_call(progress, note)
                place, brought = note, {}
            else:
                text, fragment = note
                if place >= 0 and text in texts_of_call(call_at(progress, place)):
                    brought[text] = brought.get(text, "") + fragment
                else:
                    self._settle_text(progress, text, fragment, width)
        self._emit_call(progress, place, brought)

    def _settle_text(self, progress: ChoiceProgress, text: Text, fragment: str, width: int) -> None:
        audio = progress.state.audio
        if audio is not None and text is audio.transcript:
            progress.transcript.add(text, fragment)
            progress.heard += fragment
            return
        if text not in self._texts:
            known = texts_of(progress.state, width)
            kinds: Iterator[Kind] = (kind for each, kind in known if each is text)
            if len(self._texts) >= _MOST_TEXTS:
                self._texts.clear()
            self._know(progress, text, next(kinds, None))
        self.on_append(text, fragment)

    def _know(self, progress: ChoiceProgress, text: Text, kind: Kind | None) -> None:
        history = None if kind is None else progress.texts.get(kind)
        if history is None:
            history = TextHistory()
            if kind is not None:
                progress.texts[kind] = history
        self._texts[text] = EmittedText(progress.index, kind, history)

    def _settle_halves(self, choices: Sequence[ChoiceProgress]) -> None:
        """Emit each U+FFFD that took the place of half a surrogate pair at the end."""
        waiting, self._waiting = self._waiting, []
        owners: dict[Text, tuple[ChoiceProgress, int]] = {}  # and the place of the call
        for progress in choices:
            state = progress.state
            for text, kind in texts_of(state, sys.maxsize):
                self._know(progress, text, kind)
                owners[text] = progress, -1
            if state.audio is not None and state.audio.transcript is not None:
                owners[state.audio.transcript] = progress, -1
            for place, call in enumerate(() if state.calls is None else state.calls.items):
                owners.update((text, (progress, place)) for text in texts_of_call(call))
        for note in waiting:
            if isinstance(note, Problem):
                self.events.append(ev.ProblemEvent(note))
            elif isinstance(note, tuple) and note[0] in owners:
                progress, place = owners[note[0]]
                self._waiting = [note] if place < 0 else [place, note]
                self._settle(progress, 0)
                self._emit_audio(progress, None)

    # --- texts and calls ---

    def _emit_call(self, progress: ChoiceProgress, place: int, brought: dict[Text, str]) -> None:
        """Emit what a fragment brought to a call, if it goes to one."""
        if place < 0:
            return
        call = call_at(progress, place)
        for tool, named in call.tools():
            if not named.came:
                continue  # nothing, if the other tool comes
            emitted = progress.calls.get((place, tool))
            opens = emitted is None
            if emitted is None:
                emitted = EmittedCall(progress.index, place, tool, call)
                progress.calls[place, tool] = emitted
            if named.name is not None:
                if emitted.name is None:
                    emitted.name = TextHistory()
                if named.name in brought:
                    emitted.name.add(named.name, brought[named.name])
            fragment, text = "", named.text
            if text is not None:
                fragment = brought.get(text, "")
                if tool == "function":
                    fragment = fragment_to_tell(emitted, text, fragment)
                if fragment:
                    emitted.text.add(text, fragment)
                if text not in self._arguments:
                    if len(self._arguments) >= _MOST_TEXTS:
                        self._arguments.clear()
                    self._arguments[text] = progress, emitted
            if fragment or opens:
                emit_arguments(emitted, fragment, self.events)

    def _leave_call(self, progress: ChoiceProgress, place: int) -> None:
        """End the call that was open if another one goes on, and nothing can be added to its
        arguments.
        """
        before, progress.last_call = progress.last_call, place
        emitted = progress.calls.get((before, "function"))
        if before == place or emitted is None or emitted.is_done or emitted.held:
            return
        function = emitted.state.function
        text = None if function is None else function.text
        # Of what the chunk brings later to the call there is no event yet.
        if (
            isinstance(text, ArgumentsText)
            and text.is_whole()
            and len(str(text)) == emitted.text.length
        ):
            end_call(emitted, self.events)

    # --- usage, logprobs and audio ---

    def _emit_usage(self, report: wire.Usage) -> None:
        self._tell_usage(self._usage.add(report, cast("wire.Usage", self._state.usage)))

    def _tell_usage(self, usage: Usage | None) -> None:
        if usage is not None:
            self.events.append(ev.UsageEvent(usage))

    def _emit_rare(self, index: int, state: ChoiceState, delta: wire.Delta) -> None:
        if delta.audio is not None:
            self._emit_audio(self._find(index, state), delta.audio.data)
        self._extras.add_delta(index, state, delta)

    def _emit_beside(self, index: int, state: ChoiceState, choice: wire.Choice) -> None:
        if choice.logprobs is not None and state.logprobs is not None:
            self._emit_tokens(index, state.logprobs, choice.logprobs)
        if choice.extra is not None or choice.logprobs is not None or choice.text is not None:
            self._extras.add_choice(index, state, choice)
        if choice.usage is not None:
            self._emit_usage(choice.usage)

    def _emit_tokens(self, index: int, known: LogprobsState, logprobs: wire.Logprobs) -> None:
        for name, make in _LOGPROBS_DELTA.items():
            brought, tokens = getattr(logprobs, name), getattr(known, name)
            if brought and tokens is not None:
                self.events.append(make(index, _tokens(brought), freeze_tokens(tokens)))

    def _emit_audio(self, progress: ChoiceProgress, data: bytes | None) -> None:
        audio, heard = progress.state.audio, progress.heard
        if audio is None or not (data or heard):
            return
        progress.heard = ""
        self.events.append(
            ev.AudioDeltaEvent(
                progress.index,
                data or None,
                heard or None,
                audio.id,
                audio.data,
                len(audio.data or b""),
                None if audio.transcript is None else progress.transcript,
                progress.transcript.length,
            )
        )

    # --- the end of a choice ---

    def _follow_end(self, index: int, state: ChoiceState, choice: wire.Choice) -> None:
        """Wait with the `.done` of a choice from its finish reason to the first chunk that adds
        nothing to it: gcli2api sends a finish reason with every chunk.
        """
        progress = self._ending.get(index)
        if progress is None:
            if choice.finish_reason:
                self._ending[index] = progress = self._find(index, state)
                progress.finish_reason = choice.finish_reason
        elif choice.finish_reason and choice.finish_reason != progress.finish_reason:
            progress.finish_reason = choice.finish_reason
        elif not choice.text and (choice.delta is None or not adds(choice.delta)):
            del self._ending[index]
            self._end(progress)

    def _end(self, progress: ChoiceProgress) -> None:
        end_choice(progress, self.events, is_text=self._state.is_text)


def _tokens(run: list[wire.TokenLogprob]) -> Sequence[TokenLogprob]:
    return TokenLogprobs(len(run), lambda: run, freeze_token)
