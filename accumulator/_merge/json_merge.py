"""Fields merged by the rules, and strings joined; no knowledge of chunks (SPEC section 3).

Strings stay fragments, in `Text`s inside the merged JSON. A fragment may end in half a surrogate
pair, whose other half comes with a later chunk: it is held back until then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
        self.places: dict[int, JsonObject] = {}  # of the newest entry with an index

    def __repr__(self) -> str:
        return f"<{self.entries}, {list(self.places)}>"

    def find(self, index: int, type_: object) -> JsonObject:
        """Return the entry with an index, a new one at the end if there is none."""
        entry = self.places.get(index)
        return self._open(index) if entry is None else entry

    def _open(self, index: int) -> JsonObject:
        entry: JsonObject = {}
        self.places[index] = entry
        self.entries.append(entry)
        return entry


class TypedList(IndexedList):
    """A list whose entries are merged by their `index` and their `type`: OpenRouter numbers a
    summary and the encrypted block behind it 0 both.
    """

    __slots__ = ("types",)

    def __init__(self) -> None:
        IndexedList.__init__(self)
        self.types: dict[tuple[int, str], JsonObject] = {}

    def find(self, index: int, type_: object) -> JsonObject:
        """Return the newest entry with an index and a type, a new one at the end if there is
        none. An entry without a type goes to the newest with its index.
        """
        if not type_ or type(type_) is not str:
            newest = IndexedList.find(self, index, type_)
            key = index, str(newest.get("type"))
            if type_ is not None and self.types.get(key) is newest:
                del self.types[key]  # it takes a type that is none
            return newest
        entry = self.types.get((index, type_))
        if entry is None:
            entry = self.types[index, type_] = self._open(index)
        return entry


NO_HALVES: Final[dict[int, Text]] = {}  # stands for each empty one: most streams never fill theirs


class Listener(Protocol):
    """Who is told, for events, what a reducer does."""

    at: tuple[int, Any] | None  # the index and the state of the choice that is about to change

    @staticmethod
    def apply_text(reducer: Any, chunk: Any) -> None: ...  # in place of the reducer's own
    def on_call(self, place: int) -> None: ...  # a fragment is about to go to this call
    def on_rare(self, delta: Any) -> None: ...  # the rare fields of a delta were applied
    def on_choice(self, index: int, state: Any, choice: Any) -> None: ...  # it was applied
    def on_chunk(self, chunk: Any, state: Any) -> None: ...  # likewise


class FieldMerger:
    """Merges JSON into JSON by a table of rules; what is odd about strings goes to `report`."""

    __slots__ = ("_careful", "_halved", "_levels", "_log", "listener")

    # Set by the reducer, whose constructor each stream pays for.
    _levels: Mapping[str, Level]
    _log: ProblemLog
    _halved: dict[int, Text]  # texts that end in half a surrogate pair, by identity
    _careful: bool  # whether a fragment may hold or complete such a half
    listener: Listener | None

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
            elif policy == "concat" and type(value) is str:
                text = into.get(name)
                into[name] = self._join(text if type(text) is Text else None, value)
            else:
                merged = self._merged(level, policy, name, into.get(name), value)
                if merged is not None:
                    into[name] = merged

    # --- the rules ---

    def _merged(
        self, level: Level, policy: Policy, name: str, old: object, value: object
    ) -> object | None:
        """Return what stands after a field's next value; None to leave it as it was."""
        kind, join = _JOINS[policy]
        if isinstance(value, kind):
            return join(self, level.below(name), old, value)
        # A value that its field's rule is not made for goes by its kind.
        other = level.unnamed(value)
        return self._merged(level, "last" if other == policy else other, "", old, value)

    def _drop(self, below: Level, old: object, value: object) -> None:
        pass

    def _last(self, below: Level, old: object, value: object) -> object:
        return self._own(value)

    def _first(self, below: Level, old: object, value: object) -> object | None:
        return self._own(value) if old is None or (value and not old) else None

    def _concat(self, below: Level, old: object, value: str) -> Text:
        return self._join(old if isinstance(old, Text) else None, value)

    def _extend(self, below: Level, old: object, value: list[object]) -> object:
        if not isinstance(old, list):
            return self._own(value)
        old += cast("list[object]", self._own(value))
        return old

    def _collect(self, below: Level, old: object, value: object) -> object:
        values = old if isinstance(old, list) else []
        values.append(self._own(value))
        return values

    def _merge_objects(self, below: Level, old: object, value: JsonObject) -> JsonObject:
        into = old if isinstance(old, dict) else {}
        self._merge(below, into, value, nested=True)
        return into

    def _larger(self, below: Level, old: object, value: object) -> object:
        if isinstance(value, dict):
            return self._larger_json(old if isinstance(old, dict) else {}, value)
        return old if _is_number(old) and cast("float", old) >= cast("float", value) else value

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

    def _by_index(self, below: Level, old: object, value: list[object]) -> IndexedList:
        into = old if isinstance(old, IndexedList) else IndexedList()
        return self._merge_entries(below, into, value)

    def _by_type(self, below: Level, old: object, value: list[object]) -> IndexedList:
        into = old if isinstance(old, TypedList) else TypedList()
        return self._merge_entries(below, into, value)

    def _merge_entries(self, level: Level, into: IndexedList, entries: list[object]) -> IndexedList:
        for entry in entries:
            index = entry.get("index") if isinstance(entry, dict) else None
            if type(index) is int:
                fields = cast("JsonObject", entry)
                type_, _ = healed(fields.get("type"))
                self._merge(level, into.find(index, type_), fields, nested=True)
            else:
                into.entries.append(self._own(entry))
        return into

    def _blocks(self, below: Level, old: object, value: list[object]) -> list[object]:
        """Append blocks; LiteLLM sends those that think in fragments, the signature last."""
        blocks = old if isinstance(old, list) else []
        for fragment in value:
            if not isinstance(fragment, dict) or fragment.get("type") != "thinking":
                blocks.append(self._own(fragment))
                continue
            last = _last_of_type(blocks, "thinking")
            if last is None or last.get("signature"):
                last = {}
                blocks.append(last)
            for name, item in fragment.items():
                known = last.get(name)
                if name == "thinking" and isinstance(item, str):
                    last[name] = self._concat(below, known, item)
                elif known is None or not is_empty(item):
                    last[name] = self._own(item)
        return blocks

    # --- content in parts ---

    def _add_part(self, parts: list[object], part: object) -> None:
        """Append a part; text and thinking join their neighbour of the same type."""
        if isinstance(part, str):
            if not part:
                return
            part = {"type": "text", "text": part}
        if not isinstance(part, dict) or part.get("type") not in PART_TYPES:
            parts.append(self._own(part))
            return
        last = _last_of_type(parts, part["type"])
        if last is None:
            last = {}
            parts.append(last)
        thinking, before = part.get("thinking"), last.get("thinking")
        if isinstance(thinking, list) or (isinstance(before, list) and isinstance(thinking, str)):
            last["thinking"] = self._think(before, thinking)
            part = {name: value for name, value in part.items() if name != "thinking"}
        fields: JsonObject = {**part}
        self._merge(self._levels["delta.<object>"], last, fields, nested=True)

    def _think(self, before: object, thinking: list[object] | str) -> list[object]:
        """Append what thinks to the parts of a part (Mistral)."""
        inner = before if isinstance(before, list) else []
        if isinstance(before, Text):
            inner.append({"type": "text", "text": before})
        for item in thinking if isinstance(thinking, list) else [thinking]:
            self._add_part(inner, item)
        return inner

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
            self._report_lone(1)
        self._halved = NO_HALVES


def is_empty(value: object) -> bool:
    """Return whether a value says nothing: null, false, 0, nothing in it, or nulls alone."""
    return not value or (isinstance(value, list) and all(item is None for item in value))


def _is_number(value: object) -> bool:
    return type(value) is int or type(value) is float


def _last_of_type(items: list[object], type_: object) -> JsonObject | None:
    """Return the last entry of a list if it is an object of this type."""
    last = items[-1] if items else None
    return last if isinstance(last, dict) and last.get("type") == type_ else None


# What each rule is made for, and how it joins such a value to the one so far.
_JOINS: Mapping[Policy, tuple[type | tuple[type, ...], Callable[..., object]]] = {
    "drop": (object, FieldMerger._drop),
    "last": (object, FieldMerger._last),
    "first": (object, FieldMerger._first),
    "concat": (str, FieldMerger._concat),
    "extend": (list, FieldMerger._extend),
    "collect": (object, FieldMerger._collect),
    "by_index": (list, FieldMerger._by_index),
    "by_type": (list, FieldMerger._by_type),
    "merge": (dict, FieldMerger._merge_objects),
    "larger": ((dict, int, float), FieldMerger._larger),
    "blocks": (list, FieldMerger._blocks),
}
