"""What chunks bring that no event is named for, as `extra.delta` events."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import cast

from msgspec import to_builtins

from .._decode import chunk as wire
from .._decode.chunk import JsonObject
from .._decode.text import Text
from .._decode.text_history import TextHistory
from ..events import Event, ExtraDeltaEvent
from ..rules import Level
from .ending import brings_text, calls_of
from .json_merge import PART_TYPES
from .state import CallsState, ChoiceState, State

_ABSENT = object()


class ExtraDeltas:
    """Adds to `events` what was applied of the extras of a chunk.

    A value that its rule makes nothing of when it comes twice is told when it changes: servers
    repeat the same provider, or all search results, in each chunk.
    """

    __slots__ = ("_events", "_levels", "_texts", "_values")

    def __init__(self, events: deque[Event], levels: Mapping[str, Level]) -> None:
        self._events = events
        self._levels = levels
        self._values: dict[tuple[int | None, str], object] = {}  # told last
        self._texts: dict[tuple[int | None, str], TextHistory] = {}  # as far as they were told

    def add_chunk(self, chunk: wire.Chunk, state: State) -> None:
        """Add what stands beside the choices of a chunk."""
        if chunk.moderation is not None:
            self._add(None, "chunk.moderation", chunk.moderation)
        self._add_fields("chunk", None, chunk.extra, state.extra)

    def add_choice(self, index: int, state: ChoiceState, choice: wire.Choice) -> None:
        """Add what stands in a choice, beside its delta."""
        self._add_fields("choice", index, choice.extra, state.extra)
        if choice.text is not None and brings_text(choice):
            self._add_text(index, "choice.text", cast("Text", state.text))
        elif choice.text is not None:
            self._add_fields("choice", index, {"text": choice.text}, state.extra)
        if choice.logprobs is not None and state.logprobs is not None:
            extra = choice.logprobs.extra
            self._add_fields("choice.logprobs", index, extra, state.logprobs.extra)

    def add_delta(self, index: int, state: ChoiceState, delta: wire.Delta) -> None:
        """Add the rare fields of a delta."""
        self._add_fields("delta", index, delta.extra, state.delta_extra)
        if delta.annotations:
            self._add(index, "delta.annotations", delta.annotations)
        parts = [part for part in delta.parts or () if not _is_text(part)]
        if parts:
            self._add(index, "delta.content", parts)
        call, audio = delta.function_call, delta.audio
        if call is not None:
            fields = {"name": call.name, "arguments": call.arguments, **(call.extra or {})}
            value = {name: item for name, item in fields.items() if item is not None}
            if value:
                self._add(index, "delta.function_call", value)
        if audio is not None and state.audio is not None:
            if audio.expires_at is not None:
                self._add_new(index, "delta.audio.expires_at", audio.expires_at)
            extra, rules = state.audio.extra, "delta.<object>"
            self._add_fields("delta.audio", index, audio.extra, extra, rules)

    def add_calls(
        self, index: int, state: ChoiceState, choice: wire.Choice, places: Sequence[int]
    ) -> None:
        """Add what stands in the fragments of calls, which went to the calls at these places."""
        calls = cast("CallsState", state.calls).items
        for fragment, place in zip(calls_of(choice), places, strict=False):
            call, path = calls[place], f"delta.tool_calls[{place}]"
            for where, brought, known in (
                (path, fragment, call),
                (f"{path}.function", fragment.function, call.function),
                (f"{path}.custom", fragment.custom, call.custom),
            ):
                if brought is not None and known is not None:
                    self._add_fields(where, index, brought.extra, known.extra, "delta")

    def finish(self) -> None:
        """Add each U+FFFD that took the place of half a surrogate pair at the end."""
        for (index, path), history in self._texts.items():
            self._add_text(index, path, cast("Text", history.text))

    def _add_fields(
        self,
        path: str,
        index: int | None,
        fields: JsonObject | None,
        merged: JsonObject | None,
        rules: str = "",
    ) -> None:
        if fields is None:
            return
        level = self._levels[rules or path]
        for name, value in fields.items():
            if value is None or (level.names.get(name) or level.kinds[type(value)]) == "drop":
                continue
            where, text = f"{path}.{name}", (merged or {}).get(name)
            if type(value) is str and type(text) is Text:
                self._add_text(index, where, text)
            elif level.is_idempotent(name, value):
                self._add_new(index, where, value)
            else:
                self._add(index, where, value)

    def _add_text(self, index: int | None, path: str, text: Text) -> None:
        """Add what is new of a text: half a surrogate pair waits until it is whole."""
        history = self._texts.get((index, path))
        if history is None or history.text is not text:
            history = self._texts[index, path] = TextHistory()
        fragment = history.take(text)
        if fragment:
            self._add(index, path, fragment)

    def _add_new(self, index: int | None, path: str, value: object) -> None:
        known = self._values.get((index, path), _ABSENT)
        if type(known) is not type(value) or known != value:
            self._add(index, path, value)
            self._values[index, path] = to_builtins(value)

    def _add(self, index: int | None, path: str, value: object) -> None:
        self._values.pop((index, path), None)  # one of another kind came between
        # A list of the chunk's may be the state's by now, and grow.
        self._events.append(ExtraDeltaEvent(index, path, to_builtins(value)))


def _is_text(part: object) -> bool:
    """Return whether events of content or reasoning tell all that a part of content brings."""
    if not isinstance(part, dict):
        return isinstance(part, str)
    return part.get("type") in PART_TYPES and part.keys() <= {"type", "text", "thinking"}
