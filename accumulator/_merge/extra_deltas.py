"""Emit what chunks bring that has no event of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field, to_builtins

from .. import events as ev
from .._decode.chunk import JsonObject
from .._decode.text import Text, heal_value
from ..events import Event
from ..rules import Level


class ExtraDeltas(Struct):
    """Adds to `events` what chunks bring to one choice, or beside the choices.

    If merging a value twice changes nothing, it is only emitted when it changes: servers repeat
    the same provider, or all search results, in each chunk.
    """

    index: Any  # the choice's; None for what is beside the choices
    levels: Mapping[str, Level]
    events: deque[Event]
    # By path: the value that was emitted last, or the text that is being emitted.
    _last: dict[str, object] = field(default_factory=dict)

    def emit_extra(self, path: str, brought: Any, known: Any, of: str = "") -> None:
        """Emit the extra fields of an object in a chunk; `known` is what they were merged into."""
        if brought is not None:
            self.emit_fields(path, brought.extra, known.extra, of)

    def emit_fields(
        self, path: str, fields: JsonObject | None, merged: JsonObject | None, of: str = ""
    ) -> None:
        """Emit fields of an object in a chunk, merged by the rules for `of`, else for the path."""
        if fields is None or merged is None:
            return
        level = self.levels[of or path]
        for name, value in fields.items():
            if value is None or (level.names.get(name) or level.kinds[type(value)]) == "drop":
                continue
            text = merged.get(name)
            if type(value) is str and type(text) is Text:
                self.emit_text(f"{path}.{name}", text)
            else:
                self.emit(f"{path}.{name}", value, again=not level.is_idempotent(name, value))

    def emit_text(self, path: str, text: Text) -> None:
        """Emit the new part of a text: half a surrogate pair waits for its other half."""
        self._last[path] = text
        fragment = text.take()
        if fragment:
            self.events.append(ev.ExtraDeltaEvent(self.index, path, fragment))

    def emit(self, path: str, value: object, *, again: bool = True) -> None:
        """Emit a value; unless `again`, only if it is another one than the last."""
        if again or not _is_same(self._last.get(path), value):
            # A list of the chunk may belong to the state by now, and grow.
            copied = self._last[path] = to_builtins(value)
            healed, _ = heal_value(copied)
            self.events.append(ev.ExtraDeltaEvent(self.index, path, healed))

    def emit_halves(self) -> None:
        """Emit each U+FFFD that replaced half a surrogate pair at the end of a text."""
        for path, text in self._last.items():
            if isinstance(text, Text):
                self.emit_text(path, text)


def _is_same(known: Any, value: Any) -> bool:
    """Return whether two JSON values are the same; `true` is not `1`."""
    if type(known) is not type(value):
        return False
    if isinstance(known, dict):
        return known.keys() == value.keys() and all(_is_same(known[k], value[k]) for k in known)
    if isinstance(known, list):
        return len(known) == len(value) and all(map(_is_same, known, value))
    return bool(known == value)
