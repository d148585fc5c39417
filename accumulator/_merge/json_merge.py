"""Merge fields by the rules and join strings, knowing nothing of chunks (SPEC section 3).

Strings stay in fragments, in `Text`s inside the merged JSON. A fragment may end in half a surrogate
pair. That half is held back until a later chunk brings the other one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar, cast

from msgspec import Struct

from .._decode.chunk import EMPTY, JsonObject
from .._decode.text import COMPACT_AT, Text, heal, heal_value, split_half
from ..limits import Limits
from ..rules import Level, Policy, Rules
from .problem_log import ProblemLog

K = TypeVar("K")
PART_TYPES = ("text", "thinking")  # of parts that are joined to their neighbour


class IndexedList:
    """A list whose entries are merged by their `index`, or by that and their `type`: OpenRouter
    numbers both a summary and the encrypted block after it 0.

    `places` gives the place of the newest entry for an index, and for an index and a type.
    """

    __slots__ = ("entries", "places")

    def __init__(
        self,
        entries: list[object] | None = None,
        places: dict[int | tuple[int, str], int] | None = None,
    ) -> None:
        self.entries: list[Any] = [] if entries is None else entries
        self.places = {} if places is None else places

    def __repr__(self) -> str:
        return f"<{self.entries}, {self.places}>"

    def find_or_add(self, index: int, type_: str = "") -> JsonObject:
        """Return the newest entry with an index and, if one is given, a type, or a new one."""
        key = (index, type_) if type_ else index
        place = self.places.get(key)
        if place is None:
            place = self.places[index] = self.places[key] = len(self.entries)
            self.entries.append({})
        return cast("JsonObject", self.entries[place])


# The values that a policy is made for; others are merged as values of their kind are.
_MADE_FOR: Mapping[Policy, type | tuple[type, ...]] = {
    **dict.fromkeys(("extend", "by_index", "by_type", "blocks"), list),
    **{"concat": str, "merge": dict, "larger": (dict, int, float)},
}


class Listener(Protocol):
    """Observes a reducer, and makes events of what it does."""

    progress: Any  # hears of what happens in a choice, from `begin` to `on_choice`

    @staticmethod
    def apply_common(reducer: Any, chunk: Any) -> None: ...  # replaces the reducer's own
    def begin(self, index: int, state: Any) -> None: ...  # this choice is about to change
    def on_choice(self, choice: Any) -> None: ...  # it has been applied
    def on_chunk(self, chunk: Any) -> None: ...  # likewise
    def thaw(self) -> None: ...  # any choice has changed


class FieldMerger(Struct, eq=False):
    """Merges JSON into JSON by a table of rules, and logs what is odd about strings."""

    rules: Rules
    limits: Limits
    _log: ProblemLog
    listener: Listener | None = None
    _halved: dict[int, Text] = EMPTY  # texts that end in half a surrogate pair, by identity
    _checks_halves: bool = False  # whether the next fragment may contain one or complete one

    def _merge_extra(
        self, level: str, into: JsonObject | None, extra: JsonObject | None
    ) -> JsonObject | None:
        if extra is not None:
            if into is None:
                into = {}
            self._merge(self.rules.levels[level], into, extra, nested=False)
        return into

    def _merge(self, level: Level, into: JsonObject, fields: JsonObject, *, nested: bool) -> None:
        names, kinds = level.names, level.kinds
        for name, value in fields.items():
            if value is None:
                if nested and names.get(name) != "drop":
                    into.setdefault(name, None)
                continue
            policy = names.get(name) or kinds[type(value)]
            if policy == "last" and not self._checks_halves:
                into[name] = value
            elif policy == "merge" and type(value) is dict and type(into.get(name)) is dict:
                self._merge(level.below(name), into[name], value, nested=True)  # type: ignore[arg-type]  # a dict, as was just seen
            elif policy == "concat" and type(value) is str:
                into[name] = self._join(into.get(name), value)
            else:
                merged = self._merged(level, policy, name, into.get(name), value)
                if merged is not None:
                    into[name] = merged

    # --- the rules ---

    def _merged(self, level: Level, policy: Policy, name: str, old: Any, value: Any) -> Any:
        """Return what a field becomes with its next value; None to leave it as it was."""
        is_fit = isinstance(value, _MADE_FOR.get(policy, object))
        if not is_fit:
            other = level.kinds[type(value)]
            return self._merged(level, "last" if other == policy else other, "", old, value)
        if policy == "drop" or (policy == "first" and old is not None and (old or not value)):
            return None
        if policy in ("first", "last"):
            return self._healed(value)
        if policy == "merge":
            into = _or_new(old, dict)
            self._merge(level.below(name), into, value, nested=True)
            return into
        if policy == "concat":
            return self._join(old, value)
        if policy == "larger":
            return self._larger(old, value)
        entries: list[Any] = [value] if policy == "collect" else value
        if policy == "blocks":
            return self._blocks(_or_new(old, list), entries)
        if policy in ("by_index", "by_type"):
            known = _or_new(old, IndexedList)
            return self._by_index(level.below(name), known, entries, and_type=policy == "by_type")
        items = _or_new(old, list)
        items += self._healed(entries)
        return items

    def _larger(self, old: Any, value: Any) -> object:
        """Return the larger of two numbers, number by number in objects; else the last value."""
        if isinstance(value, dict):
            into = _or_new(old, dict)
            for name, item in value.items():
                into[name] = self._larger(into.get(name), item)
            return into
        is_less = _is_number(value) and _is_number(old) and value <= old
        return old if value is None or is_less else self._healed(value)

    def _by_index(
        self, below: Level, into: IndexedList, entries: list[Any], *, and_type: bool
    ) -> IndexedList:
        for entry in entries:
            index = entry.get("index") if isinstance(entry, dict) else None
            if type(index) is int:
                type_ = text_in(heal_value(entry.get("type"))[0]) if and_type else ""
                known = into.find_or_add(index, type_)
                before = known.get("type")
                self._merge(below, known, entry, nested=True)
                if and_type and not type_ and text_in(before):
                    known["type"] = before
            else:
                into.entries.append(self._healed(entry))
        return into

    def _blocks(self, blocks: list[object], fragments: list[object]) -> list[object]:
        """Append blocks; LiteLLM sends thinking blocks in fragments, the signature last."""
        for fragment in fragments:
            if not isinstance(fragment, dict) or fragment.get("type") != "thinking":
                blocks.append(self._healed(fragment))
                continue
            last = _neighbour(blocks, "thinking", until="signature")
            for name, item in fragment.items():
                known = last.get(name)
                if name == "thinking" and isinstance(item, str):
                    last[name] = self._join(known, item)
                elif known is None or not is_empty(item):
                    last[name] = self._healed(item)
        return blocks

    # --- content in parts ---

    def _add_part(self, parts: list[object], part: object) -> None:
        """Append a part; text and thinking are joined to a neighbour of the same type."""
        if isinstance(part, str):
            if not part:
                return
            part = {"type": "text", "text": part}
        if self._halved and parts:
            self._end_part(parts[-1], part)
        if not isinstance(part, dict) or part.get("type") not in PART_TYPES:
            parts.append(self._healed(part))
            return
        part = cast("JsonObject", part)
        last = _neighbour(parts, part["type"])
        thinking, before = part.get("thinking"), last.get("thinking")
        if isinstance(thinking, list) or (isinstance(before, list) and isinstance(thinking, str)):
            inner = last["thinking"] = _or_new(before, list)  # parts of a part (Mistral)
            if isinstance(before, Text):
                inner.append({"type": "text", "text": before})
            for item in thinking if isinstance(thinking, list) else [thinking]:
                self._add_part(inner, item)
            part = {name: value for name, value in part.items() if name != "thinking"}
        self._merge(self.rules.levels["delta.<object>"], last, part, nested=True)

    def _end_part(self, last: object, part: object) -> None:
        """Replace half a surrogate pair at the end of a part if the next one cannot complete it."""
        if not isinstance(last, dict) or (
            isinstance(part, dict) and part.get("type") == last.get("type")
        ):
            return
        for text in (last.get("text"), last.get("thinking")):
            if isinstance(text, list) and text:
                self._end_part(text[-1], None)
            elif isinstance(text, Text) and text.half:
                self._end_half(text)

    def _healed(self, value: Any) -> Any:
        """Return a value to be kept as it is, with halves of surrogate pairs replaced."""
        if not self._checks_halves:
            return value
        value, lone = heal_value(value)
        self._report_lone(lone)
        return value

    # --- strings ---

    def _join(self, text: object, fragment: str) -> Text:
        """Append to a text, or to a new one if there is none."""
        joined = text if isinstance(text, Text) else Text()
        self._append(joined, fragment)
        return joined

    def _append(self, text: Text, fragment: str) -> None:
        if self._checks_halves:
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
        halved = self._halved = self._halved or {}
        halved.pop(id(text), None)
        if text.half:
            halved[id(text)] = text
        fragment, lone = heal(fragment)
        self._report_lone(lone)
        return fragment

    def _report_lone(self, count: int) -> None:
        for _ in range(count):
            self._log.report("lone_surrogate", "half a surrogate pair, replaced by U+FFFD")

    def _end_half(self, text: Text) -> None:
        del self._halved[id(text)]
        text.half = ""
        text.append("\ufffd")
        self._report_lone(1)

    def _end_halves(self) -> None:
        """Replace the halves of surrogate pairs held back: nothing can complete them now."""
        for text in [*self._halved.values()]:
            self._end_half(text)
        if self.listener is not None:
            self.listener.thaw()


def text_in(value: object) -> str:
    """Return a value if it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def is_empty(value: object) -> bool:
    """Return whether a value says nothing: null, false, 0, empty, or only nulls."""
    items = value.entries if isinstance(value, IndexedList) else value
    items = [*items.values()] if isinstance(items, dict) else items
    return not items or (isinstance(items, list) and all(item is None for item in items))


def _or_new(old: object, kind: type[K]) -> K:
    """Return the value so far if it is of this kind, else an empty one."""
    return old if isinstance(old, kind) else kind()


def _is_number(value: object) -> bool:
    return type(value) is int or type(value) is float


def _neighbour(items: list[object], type_: object, *, until: str | None = None) -> JsonObject:
    """Return the last entry of a list if it is an object of this type without a value for the name
    `until`, which ends it; else append a new one.
    """
    last = items[-1] if items else None
    if not isinstance(last, dict) or last.get("type") != type_ or last.get(until):
        last = {}
        items.append(last)
    return last
