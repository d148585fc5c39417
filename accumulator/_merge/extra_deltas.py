"""What chunks bring that no event is named for, as `extra.delta` events."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import cast

from msgspec import to_builtins

from .._decode import chunk as wire
from .._decode.chunk import JsonObject
from .._decode.text import Text
from ..events import Event, ExtraDeltaEvent
from ..rules import Level
from .json_merge import PART_TYPES
from .state import CallsState, ChoiceState, State

__all__ = ["ExtraDeltas"]

_ABSENT = object()


class ExtraDeltas:
    """Adds to `events` what the extras of a chunk bring.

    A value that its rule makes nothing of when it comes twice is told when it changes: servers
    repeat the same provider, or all search results, in each chunk.
    """

    __slots__ = ("_events", "_levels", "_texts", "_values")

    def __init__(self, events: deque[Event], levels: Mapping[str, Level]) -> None:
        self._events = events
        self._levels = levels
        self._values: dict[tuple[int | None, str], object] = {}  # told last
        self._texts: dict[tuple[int | None, str], tuple[Text, int]] = {}  # and how much was told

    def add_chunk(self, chunk: wire.Chunk, state: State) -> None:
        """Add what stands beside the choices of a chunk that was applied."""
        if chunk.moderation is not None:
            self._add(None, "chunk.moderation", chunk.moderation)
        if chunk.extra is not None:
            self._add_fields("chunk", None, chunk.extra, state.extra)

    def add_choice(self, index: int, state: ChoiceState, choice: wire.Choice) -> None:
        """Add what stands in a choice, beside its delta, that was applied."""
        if choice.extra is not None:
            self._add_fields("choice", index, choice.extra, state.extra)
        if choice.text is not None:
            if choice.delta is not None and choice.closing is None:
                self._add_fields("choice", index, {"text": choice.text}, state.extra)
            else:
                self._add_text(index, "choice.text", cast("Text", state.text))
        if choice.logprobs is not None and choice.logprobs.extra is not None:
            merged = None if state.logprobs is None else state.logprobs.extra
            self._add_fields("choice.logprobs", index, choice.logprobs.extra, merged)

    def add_delta(self, index: int, state: ChoiceState, delta: wire.Delta) -> None:
        """Add what stands in a delta that was applied, but in its tool calls."""
        details = delta.reasoning_details
        if details is not None:  # Structs, which never change: no copy of them is needed
            self._events.append(ExtraDeltaEvent(index, "delta.reasoning_details", details))
        if delta.extra is not None:
            self._add_fields("delta", index, delta.extra, state.delta_extra)
        if delta.annotations:
            self._add(index, "delta.annotations", delta.annotations)
        if delta.parts is not None:
            parts = [part for part in delta.parts if not _is_text(part)]
            if parts:
                self._add(index, "delta.content", parts)
        if delta.function_call is not None:
            self._add_function_call(index, delta.function_call)
        audio = delta.audio
        if audio is not None and audio.expires_at is not None:
            self._add_new(index, "delta.audio.expires_at", audio.expires_at)
        if audio is not None and audio.extra is not None:
            merged = None if state.audio is None else state.audio.extra
            self._add_fields("delta.audio", index, audio.extra, merged, "delta.<object>")

    def _add_function_call(self, index: int, named: wire.FunctionFragment) -> None:
        value = {"name": named.name, "arguments": named.arguments, **(named.extra or {})}
        value = {name: item for name, item in value.items() if item is not None}
        if value:
            self._add(index, "delta.function_call", value)

    def add_calls(
        self,
        index: int,
        state: ChoiceState,
        fragments: Sequence[wire.ToolCallFragment],
        places: Sequence[int],
    ) -> None:
        """Add what stands in fragments of calls, which went to the calls at these places."""
        calls = cast("CallsState", state.calls)
        for fragment, place in zip(fragments, places, strict=False):
            call, path = calls.items[place], f"delta.tool_calls[{place}]"
            if fragment.extra is not None:
                self._add_fields(path, index, fragment.extra, call.extra, "delta")
            for name in ("function", "custom"):
                brought, known = getattr(fragment, name), getattr(call, name)
                if brought is not None and brought.extra is not None and known is not None:
                    self._add_fields(f"{path}.{name}", index, brought.extra, known.extra, "delta")

    def finish(self) -> None:
        """Add each U+FFFD that took the place of half a surrogate pair at the end."""
        for (index, path), (text, _) in [*self._texts.items()]:
            self._add_text(index, path, text)

    def _add_fields(
        self,
        path: str,
        index: int | None,
        fields: JsonObject,
        merged: JsonObject | None,
        rules: str | None = None,
    ) -> None:
        level = self._levels[rules or path]
        for name, value in fields.items():
            policy = level.names.get(name) or level.kinds[type(value)] if value is not None else ""
            if not policy or policy == "drop":
                continue
            where = f"{path}.{name}"
            text = None if merged is None else merged.get(name)
            if type(value) is str and type(text) is Text:
                self._add_text(index, where, text)
            elif level.is_idempotent(name, value):
                self._add_new(index, where, value)
            else:
                self._add(index, where, value)

    def _add_text(self, index: int | None, path: str, text: Text) -> None:
        """Add what is new of a text: half a surrogate pair waits until it is whole."""
        whole, key = str(text), (index, path)
        known = self._texts.get(key)
        fragment = whole[known[1] :] if known is not None and known[0] is text else whole
        self._texts[key] = text, len(whole)
        if fragment:
            self._add(index, path, fragment)

    def _add_new(self, index: int | None, path: str, value: object) -> None:
        key = index, path
        known = self._values.get(key, _ABSENT)
        if type(known) is not type(value) or known != value:
            self._add(index, path, value)
            self._values[key] = to_builtins(value)

    def _add(self, index: int | None, path: str, value: object) -> None:
        self._values.pop((index, path), None)  # one of another kind came between
        # A list of the chunk's may be the state's by now, and grow.
        self._events.append(ExtraDeltaEvent(index, path, to_builtins(value)))


def _is_text(part: object) -> bool:
    """Whether events of content or reasoning tell all that a part of content brings."""
    if isinstance(part, str):
        return True
    return (
        isinstance(part, dict)
        and part.get("type") in PART_TYPES
        and part.keys() <= {"type", "text", "thinking"}
    )
