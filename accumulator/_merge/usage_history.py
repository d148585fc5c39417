"""The usage as it was at an earlier time, kept at the cost of what changed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

from msgspec import Struct

from .._decode import chunk as wire
from .._decode.chunk import JsonObject
from ..completion import CompletionTokensDetails, PromptTokensDetails, Usage
from .usage import total_of

__all__ = ["UsageHistory"]

_FEW = 64  # names in changes that are kept before they are put together


class UsageHistory:
    """Follows the usage of a stream.

    A server may send new fields with every chunk. So a chunk costs as much as it names, and a usage
    is put together from the changes when somebody looks.
    """

    __slots__ = ("_bound", "_changes", "_count", "_known")

    def __init__(self) -> None:
        self._changes: list[JsonObject] = []  # each on top of those before
        self._known: JsonObject = {}  # what they make; made for the second
        self._count = 0  # names in the changes
        self._bound = _FEW

    def add(self, report: wire.Usage, usage: wire.Usage) -> Callable[[], Usage] | None:
        """Note a report that was merged into `usage`. Return what puts it together as it is now;
        None if nothing changed.
        """
        now, total = _fields_of(usage), total_of(usage)
        if total is not None:
            now["total_tokens"] = total
        if not self._changes:
            self._start(now)
        elif not self._change(report, now):
            return None
        return partial(_usage_at, self._changes, len(self._changes))

    def _start(self, now: JsonObject) -> None:
        first: JsonObject = {}
        self._count = _overlay(first, now)
        self._changes, self._known, self._bound = [first], {}, 2 * self._count + _FEW

    def _change(self, report: wire.Usage, now: JsonObject) -> bool:
        if not self._known:
            _overlay(self._known, self._changes[0])
        named = _fields_of(report)
        if "total_tokens" in now:
            named["total_tokens"] = now["total_tokens"]
        changes = _find_changes(named, now, self._known)
        if not changes:
            return False
        self._changes.append(changes)
        self._count += _overlay(self._known, changes)
        if self._count > self._bound:
            self._start(self._known)
        return True


def _fields_of(usage: Struct, kind: Any = wire.Usage) -> JsonObject:
    """Return what is set of a usage or of its details, without a copy of `extra`."""
    # Structs that were learnt for a vendor have fields of their own, which are in `extra`, too.
    found: JsonObject = {}
    for name in kind.__struct_fields__:
        value = getattr(usage, name)
        if value is not None:
            found[name] = _fields_of(value, _DETAILS[name][0]) if name in _DETAILS else value
    return found


def _find_changes(named: JsonObject, now: JsonObject, known: JsonObject) -> JsonObject:
    """Return what is new, now, in the fields that are named."""
    changes: JsonObject = {}
    for name, value in named.items():
        new, old = now.get(name), known.get(name)
        if isinstance(value, dict) and isinstance(new, dict):
            below = _find_changes(value, new, old if isinstance(old, dict) else {})
            if below or not isinstance(old, dict):
                changes[name] = below
        elif name not in known or old != new:
            changes[name] = new
    return changes


def _overlay(into: JsonObject, changes: JsonObject) -> int:
    """Set what changed; return how many names that are."""
    count = len(changes)
    for name, value in changes.items():
        if isinstance(value, dict):
            target = into.get(name)
            if not isinstance(target, dict):
                target = into[name] = {}
            count += _overlay(target, value)
        else:
            into[name] = value
    return count


def _usage_at(changes: list[JsonObject], count: int) -> Usage:
    fields: dict[str, Any] = {}
    for each in islice(changes, count):
        _overlay(fields, each)
    for name, (_, kind) in _DETAILS.items():
        if name in fields:
            fields[name] = kind(**fields[name])
    return Usage(**fields)


_DETAILS = {
    "completion_tokens_details": (wire.CompletionTokensDetails, CompletionTokensDetails),
    "prompt_tokens_details": (wire.PromptTokensDetails, PromptTokensDetails),
}
