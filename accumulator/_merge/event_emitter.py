"""What chunks did to the state, as typed events.

The reducer calls `on_append` with each fragment that it appends to a text of the state, `on_call`
before a fragment goes to a tool call, `on_choice` behind each choice of a chunk and `on_chunk`
behind the chunk. Most fragments go to a text that is known, and are an event at once. The rest
waits, in order, until its choice was applied: then it stands in the state where it belongs.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal, cast

from msgspec import Struct, field

from .. import events as ev
from .._decode import chunk as wire
from .._decode.text import Text
from .._decode.text_history import TextHistory
from ..completion import TokenLogprob, TokenLogprobs, Usage
from ..errors import Problem
from ..events import Event
from .json_merge import PART_TYPES
from .reducer import Reducer
from .snapshot import freeze, freeze_audio, freeze_call, freeze_choice, freeze_token, freeze_tokens
from .state import ChoiceState, State
from .tool_calls import CallsState, CallState, FunctionState, is_whole
from .usage_history import UsageHistory

__all__ = ["EventEmitter"]

Kind = Literal["content", "refusal", "reasoning", "reasoning_content", "thinking"]
Tool = Literal["function", "custom"]
_KINDS: tuple[Kind, ...] = ("content", "refusal", "reasoning", "reasoning_content")
_MOST_TEXTS = 256  # that are known by identity; a server may replace one again and again


class EmittedText(Struct):
    """Where a text of the state belongs; `kind` is None if it has no events."""

    choice_index: int
    kind: Kind | None
    history: TextHistory


class EmittedCall(Struct):
    """A call of a function or custom tool, as far as events have told of it."""

    name: TextHistory
    text: TextHistory
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


class EventEmitter:
    """Collects in `events` what a reducer does."""

    __slots__ = ("_choices", "_reports", "_texts", "_usage", "_waiting", "events")

    def __init__(self, reducer: Reducer) -> None:
        # The reducer refers to this, so this may not refer to the reducer: nobody frees a cycle.
        reducer.listener = self
        self.events: deque[Event] = deque()
        self._choices: dict[int, ChoiceProgress] = {}
        self._texts: dict[Text, EmittedText] = {}
        # Fragments, places of the calls that those behind go to, and problems.
        self._waiting: list[tuple[Text, str] | int | Problem] = []
        self._usage = UsageHistory()
        self._reports: list[wire.Usage] = []  # in the choices of a chunk

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
        for progress in choices:
            self._end_choice(progress)
        if state.usage is None and "x_groq" in (state.extra or ()):
            usage = freeze(state).usage
            if usage is not None:
                self.events.append(ev.UsageEvent(partial(_itself, usage)))

    # --- what the reducer calls ---

    def on_append(self, text: Text, fragment: str) -> None:
        if not fragment:
            return
        emitted = self._texts.get(text)
        if emitted is None or self._waiting:
            self._waiting.append((text, fragment))
            return
        kind, history = emitted.kind, emitted.history
        if kind is None:
            return
        length = history.add(text, fragment)
        if kind == "content":
            event: Event = ev.ContentDeltaEvent(emitted.choice_index, fragment, history, length)
        elif kind == "refusal":
            event = ev.RefusalDeltaEvent(emitted.choice_index, fragment, history, length)
        else:
            event = ev.ReasoningDeltaEvent(emitted.choice_index, fragment, history, length, kind)
        self.events.append(event)

    def on_call(self, place: int) -> None:
        self._waiting.append(place)

    def on_choice(self, index: int, state: ChoiceState, choice: wire.Choice) -> None:
        delta = choice.delta
        if self._waiting:
            parts = None if delta is None else delta.parts
            self._settle(self._find(index, state), 1 if parts is None else _widest(parts))
        if delta is not None and delta.audio is not None:
            self._emit_audio(self._find(index, state), delta.audio.data)
        if choice.logprobs is not None:
            self._emit_tokens(index, state, choice.logprobs)
        if choice.usage is not None:
            self._reports.append(choice.usage)
        if choice.finish_reason:
            self._end_choice(self._find(index, state))

    def on_chunk(self, chunk: wire.Chunk, state: State) -> None:
        if self._waiting:  # the chunk has texts of its own, which have no events
            problems = [note for note in self._waiting if isinstance(note, Problem)]
            self._waiting.clear()
            self.events.extend(map(ev.ProblemEvent, problems))
        if chunk.usage is not None:
            self._reports.append(chunk.usage)
        if self._reports and state.usage is not None:
            find = self._usage.add(self._reports, state.usage)
            self._reports.clear()
            if find is not None:
                self.events.append(ev.UsageEvent(find))

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
                if place >= 0 and text in _texts_of_call(_call_at(progress, place)):
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
            kinds = (kind for each, kind in _texts_of(progress.state, width) if each is text)
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
            for text, kind in _texts_of(state, sys.maxsize):
                self._know(progress, text, kind)
                owners[text] = progress, -1
            if state.audio is not None and state.audio.transcript is not None:
                owners[state.audio.transcript] = progress, -1
            for place, call in enumerate(() if state.calls is None else state.calls.items):
                owners.update((text, (progress, place)) for text in _texts_of_call(call))
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
        call = _call_at(progress, place)
        for tool, named in _tools_of(call):
            emitted = progress.calls.get((place, tool))
            opens = emitted is None
            if emitted is None:
                emitted = progress.calls[place, tool] = EmittedCall(TextHistory(), TextHistory())
            if named.name in brought:
                emitted.name.add(named.name, brought[named.name])
            fragment = ""
            if named.text in brought:
                fragment = brought[named.text]
                emitted.text.add(named.text, fragment)
            if fragment or opens:
                text = emitted.text
                name = None if named.name is None else emitted.name
                told = (place, call.id, name, emitted.name.length)
                event = _DELTA_OF[tool](progress.index, fragment, text, text.length, *told)
                self.events.append(event)

    def _leave_call(self, progress: ChoiceProgress, place: int) -> None:
        """End the call that was open if another one goes on, and nothing can be added to its
        arguments.
        """
        before, progress.last_call = progress.last_call, place
        emitted = progress.calls.get((before, "function"))
        if before == place or emitted is None or emitted.is_done:
            return
        call = _call_at(progress, before)
        if call.function is None or call.custom is not None or not is_whole(call):
            return
        arguments = str(call.function.text)
        # A number may go on; what ends in a bracket or a quote may not. Of what the chunk brings
        # later to the call there is no event yet.
        if arguments.rstrip()[-1:] in ("}", "]", '"') and len(arguments) == emitted.text.length:
            self._end_call(progress, before, "function", emitted)

    def _end_call(
        self, progress: ChoiceProgress, place: int, tool: Tool, emitted: EmittedCall
    ) -> None:
        emitted.is_done = True
        call = freeze_call(_call_at(progress, place))
        self.events.append(_DONE_OF[tool](progress.index, place, call))

    # --- logprobs and audio ---

    def _emit_tokens(self, index: int, state: ChoiceState, logprobs: wire.Logprobs) -> None:
        known = state.logprobs
        if known is None:
            return
        if logprobs.content and known.content is not None:
            run, all_ = _tokens(logprobs.content), freeze_tokens(known.content)
            self.events.append(ev.LogprobsContentDeltaEvent(index, run, all_))
        if logprobs.refusal and known.refusal is not None:
            run, all_ = _tokens(logprobs.refusal), freeze_tokens(known.refusal)
            self.events.append(ev.LogprobsRefusalDeltaEvent(index, run, all_))

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

    def _end_choice(self, progress: ChoiceProgress) -> None:
        """Emit the `.done` of all that has none yet."""
        index, state, events, done = progress.index, progress.state, self.events, progress.done
        for kind, history in progress.texts.items():
            if history.length and kind not in done:
                done.add(kind)
                events.append(_end_of_text(index, kind, history.until(history.length)))
        for (place, tool), call in sorted(progress.calls.items(), key=_by_place):
            if not call.is_done:
                self._end_call(progress, place, tool, call)
        if state.audio is not None and "audio" not in done:
            done.add("audio")
            events.append(ev.AudioDoneEvent(index, freeze_audio(state.audio)))
        if state.logprobs is not None:
            content, refusal = state.logprobs.content, state.logprobs.refusal
            if content is not None and content.count and "logprobs.content" not in done:
                done.add("logprobs.content")
                events.append(ev.LogprobsContentDoneEvent(index, freeze_tokens(content)))
            if refusal is not None and refusal.count and "logprobs.refusal" not in done:
                done.add("logprobs.refusal")
                events.append(ev.LogprobsRefusalDoneEvent(index, freeze_tokens(refusal)))
        if "choice" not in done:
            done.add("choice")
            events.append(ev.ChoiceDoneEvent(index, freeze_choice(index, state)))


_DELTA_OF: dict[
    Tool, type[ev.FunctionToolCallArgumentsDeltaEvent] | type[ev.CustomToolCallInputDeltaEvent]
] = {
    "function": ev.FunctionToolCallArgumentsDeltaEvent,
    "custom": ev.CustomToolCallInputDeltaEvent,
}
_DONE_OF: dict[
    Tool, type[ev.FunctionToolCallArgumentsDoneEvent] | type[ev.CustomToolCallInputDoneEvent]
] = {
    "function": ev.FunctionToolCallArgumentsDoneEvent,
    "custom": ev.CustomToolCallInputDoneEvent,
}


def _end_of_text(index: int, kind: Kind, text: str) -> Event:
    if kind == "content":
        return ev.ContentDoneEvent(index, text)
    if kind == "refusal":
        return ev.RefusalDoneEvent(index, text)
    return ev.ReasoningDoneEvent(index, kind, text)


def _texts_of(state: ChoiceState, width: int) -> Iterator[tuple[Text, Kind]]:
    """Return the texts of a choice that have events; of lists of parts those in the last `width`
    parts.
    """
    for kind in _KINDS:
        text = getattr(state, kind)
        if text is not None:
            yield text, kind
    if state.parts is not None:
        yield from _texts_of_parts(state.parts, width, "content")


def _texts_of_parts(parts: list[object], width: int, kind: Kind) -> Iterator[tuple[Text, Kind]]:
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
            yield from _texts_of_parts(inner, width, kind_of_part)


def _widest(parts: Sequence[object]) -> int:
    """Return how many parts the longest of the lists of parts has."""
    inner = [part.get("thinking") for part in parts if isinstance(part, dict)]
    return max([1, len(parts), *(_widest(each) for each in inner if isinstance(each, list))])


def _tools_of(call: CallState) -> Iterator[tuple[Tool, FunctionState]]:
    if call.function is not None:
        yield "function", call.function
    if call.custom is not None:
        yield "custom", call.custom


def _texts_of_call(call: CallState) -> Iterator[Text]:
    for _, named in _tools_of(call):
        if named.name is not None:
            yield named.name
        if named.text is not None:
            yield named.text


def _call_at(progress: ChoiceProgress, place: int) -> CallState:
    return cast("CallsState", progress.state.calls).items[place]


def _by_place(item: tuple[tuple[int, Tool], EmittedCall]) -> tuple[int, bool]:
    (place, tool), _ = item
    return place, tool == "function"


def _tokens(run: list[wire.TokenLogprob]) -> Sequence[TokenLogprob]:
    return TokenLogprobs(len(run), lambda: run, freeze_token)


def _itself(usage: Usage) -> Usage:
    return usage
