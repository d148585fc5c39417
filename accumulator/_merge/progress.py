"""Emit the events of one choice: what is new in it, and what has ended."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

from msgspec import field

from .. import events as ev
from .._decode import chunk as wire
from .._decode.text import Text
from ..completion import Choice, TokenLogprobs
from ..events import Event
from .arguments import ArgumentsText
from .ending import brings_text
from .extra_deltas import ExtraDeltas
from .json_merge import PART_TYPES
from .snapshot import freeze_call, freeze_token, freeze_tokens
from .state import AudioState, CallState, ChoiceState, ToolState

Make = Callable[..., Event]
_NAMED = ("reasoning", "reasoning_content", "thinking")  # their events say which one it is
# The `.delta` and the `.done` event of each; a choice has only the second.
_EVENTS: dict[str, tuple[Make, Make]] = {
    "content": (ev.ContentDeltaEvent, ev.ContentDoneEvent),
    "refusal": (ev.RefusalDeltaEvent, ev.RefusalDoneEvent),
    **dict.fromkeys(_NAMED, (ev.ReasoningDeltaEvent, ev.ReasoningDoneEvent)),
    "function": (ev.FunctionToolCallArgumentsDeltaEvent, ev.FunctionToolCallArgumentsDoneEvent),
    "custom": (ev.CustomToolCallInputDeltaEvent, ev.CustomToolCallInputDoneEvent),
    "logprobs.content": (ev.LogprobsContentDeltaEvent, ev.LogprobsContentDoneEvent),
    "logprobs.refusal": (ev.LogprobsRefusalDeltaEvent, ev.LogprobsRefusalDoneEvent),
    "audio": (ev.AudioDeltaEvent, ev.AudioDoneEvent),
    "choice": (ev.ChoiceDoneEvent, ev.ChoiceDoneEvent),
}
_DETAILS = "reasoning_details"  # emitted after a delta's other extras, however it was read
Key = tuple[int, str]  # the place of a call and its tool, or `_CHOICE` and a kind of event
_CHOICE = -1  # for what belongs to the choice itself


class _Joined(Text):
    """Several texts that are emitted as one."""

    __slots__ = ()


class ChoiceProgress(ExtraDeltas, kw_only=True):
    """Emits the events of a choice, and knows what was emitted of it.

    `_texts` are the texts that events look back at. Each is the state's own, so nothing is copied
    until another text continues it. `_done` has the keys of what had its `.done`.
    """

    state: ChoiceState
    frozen: Choice | None = None  # since `end`, if nothing happened to it after that
    # The places of the calls that fragments of the chunk went to, from the last that had its event.
    _places: list[int] = field(default_factory=list)
    # The fragments of the chunk that bring more than arguments, each with the place of its call.
    _fragments: list[tuple[int, wire.ToolCallFragment]] = field(default_factory=list)
    _texts: dict[Key, Text] = field(default_factory=dict)
    # How many parts the content and each list of parts in it had, by identity; the last may grow.
    _parts: dict[int, int] = field(default_factory=dict)
    _last_call: int = -1
    _done: set[Key] = field(default_factory=set)

    # --- texts and calls ---

    def catch_up(self) -> None:
        """Emit what was added to the texts, to the parts of the content, and to the calls that
        fragments went to; the last fragment may not have been applied yet.
        """
        state = self.state
        # Thoughts come before the answer.
        if state.reasoning is not None:
            self._emit_text(_CHOICE, "reasoning", state.reasoning)
        if state.reasoning_content is not None:
            self._emit_text(_CHOICE, "reasoning_content", state.reasoning_content)
        if state.content is not None:
            self._emit_text(_CHOICE, "content", state.content)
        if state.refusal is not None:
            self._emit_text(_CHOICE, "refusal", state.refusal)
        if state.parts is not None:
            self._emit_parts(state.parts, "content")
        if self._places:
            for place in self._places:
                if place != self._last_call:
                    self._leave_call()
                    self._last_call = place
                self._emit_call(place)
            del self._places[:-1]

    def _emit_text(self, place: int, kind: str, text: Text, *more: object) -> None:
        """Emit what is new in a text, or that a call begins."""
        known = self._texts.get((place, kind))
        opens = known is None and place != _CHOICE
        shown = text if known is None or known is text else _continued(known, text)
        fragment = shown.take()
        if shown is not known and (shown.taken or place != _CHOICE):  # in the order of their events
            self._texts[place, kind] = shown
        if fragment or opens:
            more = (kind,) if kind in _NAMED else more
            self.events.append(_EVENTS[kind][0](self.index, fragment, shown, shown.taken, *more))

    def _emit_parts(self, parts: list[object], kind: str) -> None:
        """Emit what is new in the texts of parts, and in the lists of parts in them."""
        start = max(self._parts.get(id(parts), 0) - 1, 0)
        self._parts[id(parts)] = len(parts)
        for part in parts[start:]:
            if not isinstance(part, dict) or part.get("type") not in PART_TYPES:
                continue
            thinks = part["type"] == "thinking"
            kind_of_part = "thinking" if thinks else kind
            for found in (part.get("text"), part.get("thinking") if thinks else None):
                if isinstance(found, Text):
                    self._emit_text(_CHOICE, kind_of_part, found)
                elif isinstance(found, list):
                    self._emit_parts(found, kind_of_part)

    def _emit_call(self, place: int, *, ends: bool = False) -> None:
        """Emit what is new in a call. If its choice ends, emit the call even if neither a name nor
        arguments nor input came.
        """
        call = self._items[place]
        tools = call.tools()
        if ends and not tools:
            tools = [("custom" if call.type == "custom" else "function", ToolState())]
        for tool, named in tools:
            key, text, name = (place, tool), named.text, named.name
            # Some servers send exactly `{}` as a placeholder, before the arguments.
            may_wait = tool == "function" and key not in self._done
            waits = text is None or (may_wait and str(text) == "{}")
            # Of two tools, one may be empty until the end.
            if (not waits) if key in self._texts else (named.came or ends):
                text = Text() if text is None or waits else text
                length = 0 if name is None else len(str(name))
                self._emit_text(place, tool, text, place, call.id, name, length)

    def _leave_call(self) -> None:
        """End the call that the last fragment went to, if nothing can be added to its arguments."""
        place = self._last_call
        shown = self._texts.get((place, "function"))
        # Arguments that may be a placeholder are not emitted in full.
        if isinstance(shown, ArgumentsText) and shown.is_whole() and shown.taken == len(str(shown)):
            frozen = freeze_call(self._items[place], self.state.finish_reason)
            self._end(place, "function", place, frozen)

    @property
    def _items(self) -> list[CallState]:
        return [] if self.state.calls is None else self.state.calls.items

    # --- what a chunk brought ---

    def on_call(self, place: int, fragment: wire.ToolCallFragment | None = None) -> None:
        """Note to which call a fragment is about to go; leave it out if it is only arguments."""
        self._places.append(place)
        if fragment is not None:
            self._fragments.append((place, fragment))

    def on_rare(self, delta: wire.Delta) -> None:
        """Emit the rare fields of a delta, after what is new in the texts and calls."""
        state, parts, call, audio = self.state, delta.parts, delta.function_call, delta.audio
        self.catch_up()
        if audio is not None:
            self._emit_audio(audio.data)
        extra = {name: value for name, value in (delta.extra or {}).items() if name != _DETAILS}
        self.emit_fields("delta", extra, state.delta_extra)
        if delta.annotations:
            self.emit("delta.annotations", delta.annotations)
        others = [part for part in parts or () if not _is_text(part)]
        if others:
            self.emit("delta.content", others)
        if call is not None:
            fields = {"name": call.name, "arguments": call.arguments, **(call.extra or {})}
            value = {name: item for name, item in fields.items() if item is not None}
            if value:
                self.emit("delta.function_call", value)
        if audio is not None and audio.expires_at is not None:
            self.emit("delta.audio.expires_at", audio.expires_at, again=False)
        self.emit_extra("delta.audio", audio, state.audio, "delta.<object>")

    def emit_choice(self, choice: wire.Choice) -> None:
        """Emit what a choice of a chunk brought, except what had its events before."""
        state, delta, logprobs, text = self.state, choice.delta, choice.logprobs, choice.text
        self.catch_up()
        self._places.clear()
        if delta is not None:
            details: object = delta.reasoning_details
            if details is None and delta.extra is not None:  # it was read field by field
                details = delta.extra.get(_DETAILS)
            if details is not None:
                self.emit_fields("delta", {_DETAILS: details}, state.delta_extra)
        for place, fragment in self._fragments:
            call, path = self._items[place], f"delta.tool_calls[{place}]"
            self.emit_extra(path, fragment, call, "delta")
            self.emit_extra(f"{path}.function", fragment.function, call.function, "delta")
            self.emit_extra(f"{path}.custom", fragment.custom, call.custom, "delta")
        self._fragments.clear()
        if logprobs is not None:
            self._emit_tokens(logprobs)
        self.emit_fields("choice", choice.extra, state.extra)
        if text is not None and brings_text(choice):
            self.emit_text("choice.text", cast("Text", state.text))
        elif text is not None:
            self.emit_fields("choice", {"text": text}, state.extra)
        self.emit_extra("choice.logprobs", logprobs, state.logprobs)

    def _emit_tokens(self, logprobs: wire.Logprobs) -> None:
        for name in ("content", "refusal"):
            run = getattr(logprobs, name)
            if run:
                tokens = TokenLogprobs(len(run), partial(list, run), freeze_token)
                known = freeze_tokens(getattr(self.state.logprobs, name))
                self.events.append(_EVENTS[f"logprobs.{name}"][0](self.index, tokens, known))

    def _emit_audio(self, data: bytes | None = None) -> None:
        """Emit the data that a delta brought, and what is new in the transcript."""
        audio = cast("AudioState", self.state.audio)
        text = audio.transcript
        words, length = ("", 0) if text is None else (text.take(), text.taken)
        if data or words:
            so_far = audio.id, audio.data, len(audio.data or b""), text, length
            self.events.append(ev.AudioDeltaEvent(self.index, data or None, words or None, *so_far))

    # --- the end ---

    def end(self, frozen: Choice) -> None:
        """Emit every `.done` that is missing; the choice is frozen as it is now."""
        state, calls = self.state, self._items
        for (place, kind), text in self._texts.items():
            if place == _CHOICE and text.taken:
                named = (kind,) if kind in _NAMED else ()
                self._end(_CHOICE, kind, *named, str(text))
        if calls:
            places = range(len(calls))
            for place in places:
                self._emit_call(place, ends=True)
            in_order = sorted(places, key=lambda place: calls[place].order)  # as the frozen are
            of_place = dict(zip(in_order, frozen.message.tool_calls or (), strict=True))
            for place, tool in sorted(self._texts):  # of a call that is both, the custom tool first
                if place != _CHOICE:
                    self._end(place, tool, place, of_place[place])
        if state.audio is not None:
            self._emit_audio()  # it may have got a U+FFFD
            self._end(_CHOICE, "audio", frozen.message.audio)
        for name in () if state.logprobs is None else ("content", "refusal"):
            tokens = getattr(frozen.logprobs, name)
            if tokens:
                self._end(_CHOICE, f"logprobs.{name}", tokens)
        self._end(_CHOICE, "choice", frozen)

    def _end(self, place: int, kind: str, *values: object) -> None:
        """Emit a `.done`, after arguments that were held back; do this only once."""
        if (place, kind) not in self._done:
            self._done.add((place, kind))
            if place != _CHOICE:
                self._emit_call(place)
            self.events.append(_EVENTS[kind][1](self.index, *values))


def _continued(shown: Text, text: Text) -> Text:
    """Return the text that events look back at once another text has replaced the one they show.

    Other arguments may replace a placeholder, or any arguments if a caller's rule says so. If they
    begin with what was emitted, only the rest of them is new.
    """
    so_far = str(shown)[: shown.taken]
    is_more = isinstance(text, ArgumentsText) and str(text).startswith(so_far)
    if not text.taken and (is_more or not so_far):
        text.taken = shown.taken
        return text
    joined = shown if isinstance(shown, _Joined) else _Joined(so_far)
    joined.append(text.take())
    return joined


def _is_text(part: object) -> bool:
    """Return whether content or reasoning events contain all that a part of content brings."""
    if not isinstance(part, dict):
        return isinstance(part, str)
    return part.get("type") in PART_TYPES and part.keys() <= {"type", "text", "thinking"}
