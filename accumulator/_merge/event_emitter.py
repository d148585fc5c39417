"""The reducer that also tells what happened: chunks to typed events.

It merges as `Reducer` does and looks on. It takes the careful path for every fragment, which leads
each one through `_pair`: there it is seen as it is appended, pairs of surrogate halves joined.
Where a fragment belongs is known only after the step that merged it, so what `_pair` saw waits in
`_seen` until then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Literal

from .._decode import chunk as wire
from .._decode.growing import Growing
from .._decode.text import Text
from ..completion import TokenLogprob, TokenLogprobs, Usage
from ..errors import Problem
from ..events import (
    AudioDeltaEvent,
    AudioDoneEvent,
    ChoiceDoneEvent,
    ContentDeltaEvent,
    ContentDoneEvent,
    CustomToolCallInputDeltaEvent,
    CustomToolCallInputDoneEvent,
    Event,
    FunctionToolCallArgumentsDeltaEvent,
    FunctionToolCallArgumentsDoneEvent,
    LogprobsContentDeltaEvent,
    LogprobsContentDoneEvent,
    LogprobsRefusalDeltaEvent,
    LogprobsRefusalDoneEvent,
    ProblemEvent,
    ReasoningDeltaEvent,
    ReasoningDoneEvent,
    RefusalDeltaEvent,
    RefusalDoneEvent,
    UsageEvent,
)
from ..limits import Limits
from ..rules import Rules
from .json_merge import Report
from .reducer import Reducer
from .snapshot import (
    freeze,
    freeze_audio,
    freeze_call,
    freeze_choice,
    freeze_token,
    freeze_tokens,
    freeze_usage,
)
from .state import ChoiceState
from .told import TOOLS, Held, Kind, Seen, Told, ToldCall, ToldChoice, Tool
from .tool_calls import CallsState, CallState, FunctionState, is_whole

__all__ = ["EmittingReducer"]


class EmittingReducer(Reducer):
    """A `Reducer` that adds what each transition did to `events`."""

    __slots__ = (
        "_choice",
        "_held",
        "_in_thinking",
        "_seen",
        "_told",
        "_usage",
        "events",
    )

    def __init__(self, rules: Rules, limits: Limits, report: Report) -> None:
        super().__init__(rules, limits, report)
        self.events: deque[Event] = deque()
        self._told: dict[int, ToldChoice] = {}
        self._choice: ToldChoice | None = None  # the one whose delta is being applied
        self._seen: list[Seen] = []
        self._held: dict[int, Held] = {}
        self._in_thinking = 0
        self._usage: Usage | None = None

    # --- transitions of the stream ---

    def apply(self, chunk: wire.Chunk, *, has_halves: bool = False) -> None:
        super().apply(chunk, has_halves=True)
        if chunk.usage is not None or any(choice.usage for choice in chunk.choices or ()):
            usage = self.state.usage
            self._tell_usage(None if usage is None else freeze_usage(usage))

    def end(self) -> None:
        super().end()
        self._finish()

    def fail(self, error: object) -> None:
        super().fail(error)
        self._finish()

    def close(self) -> None:
        super().close()
        self._finish()

    def tell_problem(self, problem: Problem) -> None:
        self.events.append(ProblemEvent(problem=problem))

    def _end_halves(self) -> None:
        texts = list(self._halved.values())
        super()._end_halves()
        for text in texts:
            self._tell_half(text)

    def _finish(self) -> None:
        """End what is not ended yet; again it does nothing."""
        for index, state in sorted(self.state.choices.items()):
            self._end_choice(self._find(index, state))
        if "x_groq" in (self.state.extra or ()):  # stands in for usage where there is none
            self._tell_usage(freeze(self.state).usage)

    def _tell_usage(self, usage: Usage | None) -> None:
        if usage is not None and usage != self._usage:
            self._usage = usage
            self.events.append(UsageEvent(usage=usage))

    # --- transitions of a choice ---

    def _apply_delta(
        self, state: ChoiceState, delta: wire.Delta, index: int, position: int
    ) -> None:
        self._seen.clear()
        told = self._choice = self._find(index, state)
        super()._apply_delta(state, delta, index, position)
        fragment = self._tell_texts(told)
        if delta.audio is not None:
            self._tell_audio(told, delta.audio.data, fragment)

    def _apply_logprobs(self, state: ChoiceState, logprobs: wire.Logprobs, index: int) -> None:
        super()._apply_logprobs(state, logprobs, index)
        self._tell_tokens(self._find(index, state), logprobs)

    def _apply_finish(self, state: ChoiceState, reason: str, index: int) -> None:
        super()._apply_finish(state, reason, index)
        self._end_choice(self._find(index, state))

    def _find(self, index: int, state: ChoiceState) -> ToldChoice:
        told = self._told.get(index)
        if told is None:
            told = self._told[index] = ToldChoice(index, state)
        return told

    def _pair(self, text: Text, fragment: str) -> str:
        fragment = super()._pair(text, fragment)
        self._seen.append(Seen(text, fragment))
        return fragment

    # --- texts ---

    def _add_part(self, parts: list[object], part: object) -> None:
        start = len(self._seen)
        thinking = isinstance(part, dict) and part.get("type") == "thinking"
        self._in_thinking += thinking
        super()._add_part(parts, part)
        last = parts[-1] if parts else None
        if isinstance(last, dict):
            kind: Kind = "thinking" if self._in_thinking else "content"
            texts = [last.get("text"), last.get("thinking") if thinking else None]
            for seen in self._seen[start:]:
                if seen.kind is None and any(seen.text is text for text in texts):
                    seen.kind = kind
        self._in_thinking -= thinking

    def _tell_texts(self, told: ToldChoice) -> str:
        """Tell of the fragments seen that belong to a text of the choice; return what was added to
        the transcript of its audio.
        """
        transcript = ""
        audio = told.state.audio
        for seen in self._seen:
            if audio is not None and seen.text is audio.transcript:
                transcript += seen.fragment
                self._hold(seen.text, told, "transcript")
                continue
            kind = seen.kind or told.kind_of(seen.text)
            if kind is not None:
                self._tell_text(told, kind, seen.text, seen.fragment)
                self._hold(seen.text, told, kind)
        self._seen.clear()
        return transcript

    def _hold(
        self, text: Text, told: ToldChoice, kind: Kind | Literal["transcript"] | tuple[int, Tool]
    ) -> None:
        if text.half:
            self._held[id(text)] = Held(text, told, kind)

    def _tell_half(self, text: Text) -> None:
        """Tell of the U+FFFD that has taken the place of half a surrogate pair."""
        held = self._held.get(id(text))
        if held is None:
            return
        told, kind = held.choice, held.kind
        if kind == "transcript":
            self._tell_audio(told, None, "\ufffd")
        elif isinstance(kind, tuple):
            place, tool = kind
            assert told.state.calls is not None  # it holds the text
            self._tell_call(told, place, told.state.calls.items[place], tool, "\ufffd")
        else:
            self._tell_text(told, kind, text, "\ufffd")

    def _tell_text(self, told: ToldChoice, kind: Kind, text: Text, fragment: str) -> None:
        if not fragment:
            return
        channel = told.told_of(kind, text)
        channel.add(fragment)
        index, then = told.index, channel.now()
        match kind:
            case "content":
                event: Event = ContentDeltaEvent(choice_index=index, delta=fragment, _then=then)
            case "refusal":
                event = RefusalDeltaEvent(choice_index=index, delta=fragment, _then=then)
            case _:
                event = ReasoningDeltaEvent(
                    choice_index=index, field=kind, delta=fragment, _then=then
                )
        self.events.append(event)

    # --- tool calls ---

    def _apply_fragment(
        self, calls: CallsState, fragment: wire.ToolCallFragment, position: int, entry: int
    ) -> None:
        told = self._choice
        assert told is not None  # fragments come with a delta
        self._tell_texts(told)
        before = calls.last
        super()._apply_fragment(calls, fragment, position, entry)
        seen = self._seen.copy()
        self._seen.clear()
        if before not in (-1, calls.last):
            self._end_call_before(told, before, calls.items[before])
        call = calls.items[calls.last]
        for tool in TOOLS:
            named: FunctionState | None = getattr(call, tool)
            if named is not None and getattr(fragment, tool) is not None:
                name = _added(named.name, seen)
                text = _added(named.text, seen)
                if named.text is not None:
                    self._hold(named.text, told, (calls.last, tool))
                self._tell_call(told, calls.last, call, tool, text, name)

    def _tell_call(
        self,
        told: ToldChoice,
        place: int,
        call: CallState,
        tool: Tool,
        fragment: str,
        name: str = "",
    ) -> None:
        named: FunctionState = getattr(call, tool)
        channel = told.calls.get((place, tool))
        opens = channel is None
        if channel is None:
            channel = told.calls[place, tool] = ToldCall(Told(Growing()), Told(Growing()))
        channel.name.growing.text = named.name
        channel.text.growing.text = named.text
        channel.name.add(name)
        channel.text.add(fragment)
        if not (fragment or opens):
            return
        event = (
            FunctionToolCallArgumentsDeltaEvent
            if tool == "function"
            else CustomToolCallInputDeltaEvent
        )
        self.events.append(
            event(
                choice_index=told.index,
                index=place,
                id=call.id,
                _name=None if named.name is None else channel.name.now(),
                delta=fragment,
                _then=channel.text.now(),
            )
        )

    def _end_call_before(self, told: ToldChoice, place: int, call: CallState) -> None:
        """Another call goes on: one whose arguments nothing can be added to is done."""
        channel = told.calls.get((place, "function"))
        if channel is None or channel.done or call.function is None or call.custom is not None:
            return
        # A number may go on; what ends in a bracket or a quote may not.
        if is_whole(call) and str(call.function.text).rstrip()[-1:] in ("}", "]", '"'):
            self._end_call(told, place, call, "function", channel)

    def _end_call(
        self, told: ToldChoice, place: int, call: CallState, tool: Tool, channel: ToldCall
    ) -> None:
        channel.done = True
        event = (
            FunctionToolCallArgumentsDoneEvent
            if tool == "function"
            else CustomToolCallInputDoneEvent
        )
        self.events.append(event(choice_index=told.index, index=place, tool_call=freeze_call(call)))

    # --- logprobs and audio ---

    def _tell_tokens(self, told: ToldChoice, logprobs: wire.Logprobs) -> None:
        into = told.state.logprobs
        assert into is not None  # they were just added to it
        index = told.index
        if logprobs.content and into.content is not None:
            self.events.append(
                LogprobsContentDeltaEvent(
                    choice_index=index,
                    content=_tokens(logprobs.content),
                    snapshot=freeze_tokens(into.content),
                )
            )
        if logprobs.refusal and into.refusal is not None:
            self.events.append(
                LogprobsRefusalDeltaEvent(
                    choice_index=index,
                    refusal=_tokens(logprobs.refusal),
                    snapshot=freeze_tokens(into.refusal),
                )
            )

    def _tell_audio(self, told: ToldChoice, data: bytes | None, transcript: str) -> None:
        audio = told.state.audio
        assert audio is not None  # a fragment of it was just applied
        channel = told.transcript
        if audio.transcript is not None and channel is None:
            channel = told.transcript = Told(Growing(audio.transcript))
        if channel is not None:
            channel.add(transcript)
        if data or transcript:
            self.events.append(
                AudioDeltaEvent(
                    choice_index=told.index,
                    data=data or None,
                    transcript=transcript or None,
                    _id=audio.id,
                    _audio=audio.data,
                    _length=len(audio.data or b""),
                    _then=None if channel is None else channel.now(),
                )
            )

    # --- the end of a choice ---

    def _end_choice(self, told: ToldChoice) -> None:
        """Tell that all is done which is not yet."""
        index, state, add = told.index, told.state, self.events.append
        for kind, channel in told.texts.items():
            if not channel.done:
                channel.done = True
                self._end_text(index, kind, str(channel.now()))
        if state.calls is not None:
            for (place, tool), call in sorted(told.calls.items()):
                if not call.done:
                    self._end_call(told, place, state.calls.items[place], tool, call)
        if state.audio is not None and "audio" not in told.done:
            told.done.add("audio")
            add(AudioDoneEvent(choice_index=index, audio=freeze_audio(state.audio)))
        if state.logprobs is not None:
            content, refusal = state.logprobs.content, state.logprobs.refusal
            if content is not None and content.count and "content" not in told.done:
                told.done.add("content")
                add(LogprobsContentDoneEvent(choice_index=index, content=freeze_tokens(content)))
            if refusal is not None and refusal.count and "refusal" not in told.done:
                told.done.add("refusal")
                add(LogprobsRefusalDoneEvent(choice_index=index, refusal=freeze_tokens(refusal)))
        if "choice" not in told.done:
            told.done.add("choice")
            add(ChoiceDoneEvent(choice_index=index, choice=freeze_choice(index, state)))

    def _end_text(self, index: int, kind: Kind, text: str) -> None:
        match kind:
            case "content":
                event: Event = ContentDoneEvent(choice_index=index, content=text)
            case "refusal":
                event = RefusalDoneEvent(choice_index=index, refusal=text)
            case _:
                event = ReasoningDoneEvent(choice_index=index, field=kind, reasoning=text)
        self.events.append(event)


def _added(text: Text | None, seen: Iterable[Seen]) -> str:
    return "".join(each.fragment for each in seen if each.text is text)


def _tokens(run: list[wire.TokenLogprob]) -> Sequence[TokenLogprob]:
    return TokenLogprobs(len(run), lambda: tuple(map(freeze_token, run)))
