"""Fields merged by the rules, and strings joined; no knowledge of chunks (SPEC section 3).

Strings stay fragments, in `Text`s inside the merged JSON. A fragment may end in half a surrogate
pair, whose other half comes with a later chunk: it is held back until then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol, cast

from .._decode.chunk import JsonObject
from .._decode.text import COMPACT_AT, Text, heal, healed, split_half
from ..rules import Level, Policy
from .problem_log import ProblemLog

__all__ = ["PART_TYPES", "FieldMerger", "IndexedList", "Listener", "TypedList", "is_empty"]

PART_TYPES = ("text", "thinking")  # of parts that join their neighbour


class IndexedList:
    """A list whose entries are merged by their `index`."""

    __slots__ = ("entries", "places")

    def __init__(self) -> None:
        self.entries: list[object] = []
        self.places: dict[int, JsonObject] = {}

    def __repr__(self) -> str:
        return f"<{self.entries}, {list(self.places)}>"

    def at(self, index: int) -> JsonObject:
        """Return the entry with an index, a new one at the end if there is none."""
        entry = self.places.get(index)
        if entry is None:
            entry = self.places[index] = {}
            self.entries.append(entry)
        return entry


class TypedList(IndexedList):
    """A list whose entries are merged by their `index` and their `type`: OpenRouter numbers a
    summary and the encrypted block behind it 0 both.
    """

    __slots__ = ("types",)

    def __init__(self) -> None:
        IndexedList.__init__(self)  # `places` are of the newest entry with an index
        self.types: dict[tuple[int, str], JsonObject] = {}

    def of_type(self, index: int, type_: object) -> JsonObject:
        """Return the newest entry with an index and a type, a new one at the end if there is
        none. An entry without a type goes to the newest with its index.
        """
        if not type_ or type(type_) is not str:
            newest = self.at(index)
            if type_ is not None and self.types.get((index, str(newest.get("type")))) is newest:
                del self.types[index, str(newest.get("type"))]  # it takes a type that is none
            return newest
        entry = self.types.get((index, type_))
        if entry is None:
            entry = self.types[index, type_] = self.places[index] = {}
            self.entries.append(entry)
        return entry


NO_HALVES: Final[dict[int, Text]] = {}  # stands for each empty one: most streams never fill theirs


class Listener(Protocol):
    """Who is told, for events, what a reducer does."""

    def on_append(self, text: Text, fragment: str) -> None:
        """A fragment was appended to a text of the state."""

    def on_call(self, place: int) -> None:
        """A fragment is about to go to the tool call at a place."""

    def on_choice(self, index: int, state: Any, choice: Any) -> None:
        """A choice of a chunk was applied."""

    def on_chunk(self, chunk: Any, state: Any) -> None:
        """A chunk was applied."""


class FieldMerger:
    """Merges JSON into JSON by a table of rules; what is odd about strings goes to `report`."""

    __slots__ = ("_careful", "_halved", "_levels", "_log", "listener")

    # Set by the reducer, whose constructor each stream pays for.
    _levels: Mapping[str, Level]
    _log: ProblemLog
    _halved: dict[int, Text]  # texts that end in half a surrogate pair, by identity
    _careful: bool  # whether a fragment may hold or complete such a half
    listener: Listener | None

    def _larger_json(self, into: JsonObject, usage: JsonObject) -> JsonObject:
        for name, new in usage.items():
            old = into.get(name)
            if new is None:
                into.setdefault(name, None)
            elif isinstance(new, dict):
                into[name] = self._larger_json(old if isinstance(old, dict) else {}, new)
            elif not (
                _is_number(new) and _is_number(old) and cast("float", new) <= cast("float", old)
            ):
                into[name] = self._own(new)
        return into

    def _merge_extra(
        self, level: str, into: JsonObject | None, extra: JsonObject | None
    ) -> JsonObject | None:
        if extra is not None:
            if into is None:
                into = {}
            self._merge(self._levels[level], into, extra, nested=False)
        return into

    def _merge(self, level: Level, into: JsonObject, fields: JsonObject, *, nested: bool) -> None:
        names, kinds = level.names, level.kinds
        for name, value in fields.items():
            if value is None:
                if nested and names.get(name) != "drop":
                    into.setdefault(name, None)
                continue
            policy = names.get(name) or kinds[type(value)]
            if policy == "last" and not self._careful:
                into[name] = value
                continue
            if policy == "concat" and type(value) is str:
                text = into.get(name)
                into[name] = self._join(text if type(text) is Text else None, value)
                continue
            if policy == "merge" and type(value) is dict:
                target = into.get(name)
                if type(target) is not dict:
                    target = into[name] = {}
                self._merge(level.below(name), target, value, nested=True)
                continue
            merged = self._merged(level, policy, name, into.get(name), value)
            if merged is not None:
                into[name] = merged

    def _merged(
        self, level: Level, policy: Policy, name: str, old: object, value: object
    ) -> object | None:
        """Return what stands after a field's next value; None to leave it as it was."""
        match policy, value:
            case "drop", _:
                return None
            case "last", _:
                return self._own(value)
            case "first", _:
                return self._own(value) if old is None or (value and not old) else None
            case "concat", str():
                return self._join(old if isinstance(old, Text) else None, value)
            case "extend", list():
                if not isinstance(old, list):
                    return self._own(value)
                old += cast("list[object]", self._own(value))
                return old
            case "by_index", list():
                entries = old if isinstance(old, IndexedList) else IndexedList()
                self._merge_entries(level.below(name), entries, value)
                return entries
            case "by_type", list():
                typed = old if isinstance(old, TypedList) else TypedList()
                self._merge_typed(level.below(name), typed, value)
                return typed
            case "blocks", list():
                blocks = old if isinstance(old, list) else []
                self._add_blocks(blocks, value)
                return blocks
            case "collect", _:
                values = old if isinstance(old, list) else []
                values.append(self._own(value))
                return values
            case "merge", dict():
                target = old if isinstance(old, dict) else {}
                self._merge(level.below(name), target, value, nested=True)
                return target
            case "larger", dict():
                return self._larger_json(old if isinstance(old, dict) else {}, value)
            case "larger", int() | float():
                return old if _is_number(old) and cast("float", old) >= value else value
            case _:
                # A value that its field's rule is not made for goes by its kind.
                kind = level.unnamed(value)
                return self._merged(level, "last" if kind == policy else kind, "", old, value)

    def _merge_entries(self, level: Level, into: IndexedList, entries: list[object]) -> None:
        for entry in entries:
            index = entry.get("index") if isinstance(entry, dict) else None
            if type(index) is not int:
                into.entries.append(self._own(entry))
                continue
            self._merge(level, into.at(index), cast("JsonObject", entry), nested=True)

    def _merge_typed(self, level: Level, into: TypedList, entries: list[object]) -> None:
        for entry in entries:
            index = entry.get("index") if isinstance(entry, dict) else None
            if type(index) is not int:
                into.entries.append(self._own(entry))
                continue
            fields = cast("JsonObject", entry)
            type_, _ = healed(fields.get("type"))
            self._merge(level, into.of_type(index, type_), fields, nested=True)

    def _add_blocks(self, blocks: list[object], fragments: list[object]) -> None:
        """Append blocks; LiteLLM sends those that think in fragments, the signature last."""
        for fragment in fragments:
            if not isinstance(fragment, dict) or fragment.get("type") != "thinking":
                blocks.append(self._own(fragment))
                continue
            last = blocks[-1] if blocks else None
            is_open = isinstance(last, dict) and last.get("type") == "thinking"
            if not isinstance(last, dict) or not is_open or last.get("signature"):
                last = {}
                blocks.append(last)
            for name, value in fragment.items():
                known = last.get(name)
                if name == "thinking" and isinstance(value, str):
                    last[name] = self._join(known if isinstance(known, Text) else None, value)
                elif known is None or not is_empty(value):
                    last[name] = self._own(value)

    def _add_part(self, parts: list[object], part: object) -> None:
        """Append a part; text and thinking join their neighbour of the same type."""
        if isinstance(part, str):
            if not part:
                return
            part = {"type": "text", "text": part}
        if not isinstance(part, dict) or part.get("type") not in PART_TYPES:
            parts.append(self._own(part))
            return
        last = parts[-1] if parts else None
        if not isinstance(last, dict) or last.get("type") != part["type"]:
            last = {}
            parts.append(last)
        thinking, before = part.get("thinking"), last.get("thinking")
        if isinstance(thinking, list) or (isinstance(before, list) and isinstance(thinking, str)):
            # Mistral nests text parts in it.
            if isinstance(before, Text):
                before = [{"type": "text", "text": before}]
            elif not isinstance(before, list):
                before = []
            last["thinking"] = before
            for item in thinking if isinstance(thinking, list) else [thinking]:
                self._add_part(cast("list[object]", before), item)
            part = {name: value for name, value in part.items() if name != "thinking"}
        into, fields = cast("JsonObject", last), cast("JsonObject", part)
        self._merge(self._levels["delta.<object>"], into, fields, nested=True)

    def _own(self, value: object) -> object:
        """Take a value that stands as it is; no half of a surrogate pair stays in it."""
        if not self._careful:
            return value
        value, lone = healed(value)
        self._report_lone(lone)
        return value

    # --- strings ---

    def _join(self, text: Text | None, fragment: str) -> Text:
        if text is None:
            text = Text()
        self._append(text, fragment)
        return text

    def _append(self, text: Text, fragment: str) -> None:
        if self._careful:
            fragment = self._pair(text, fragment)
        fragments = text.fragments  # `Text.append`, without the call
        fragments.append(fragment)
        if len(fragments) >= COMPACT_AT:
            text.compact()
        if self.listener is not None:
            self.listener.on_append(text, fragment)

    def _pair(self, text: Text, fragment: str) -> str:
        """Join a surrogate pair that was cut between two fragments; hold back a first half at
        the end.
        """
        fragment, text.half = split_half(text.half + fragment)
        self._halved.pop(id(text), None)
        if text.half:
            if not self._halved:
                self._halved = {}
            self._halved[id(text)] = text
        fragment, lone = heal(fragment)
        self._report_lone(lone)
        return fragment

    def _report_lone(self, count: int) -> None:
        for _ in range(count):
            self._log.report(
                "lone_surrogate", "half a surrogate pair, replaced by U+FFFD", None, None
            )

    def _end_halves(self) -> None:
        """Nothing can complete the halves of surrogate pairs that are held back any more."""
        for text in self._halved.values():
            text.half = ""
            text.append("\ufffd")
            if self.listener is not None:
                self.listener.on_append(text, "\ufffd")
            self._report_lone(1)
        self._halved = NO_HALVES


def is_empty(value: object) -> bool:
    """Return whether a value says nothing: null, false, 0, nothing in it, or nulls alone."""
    return not value or (isinstance(value, list) and all(item is None for item in value))


def _is_number(value: object) -> bool:
    return type(value) is int or type(value) is float
