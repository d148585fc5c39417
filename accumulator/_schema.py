"""Typed decoders that know a vendor's fields, too.

The strict decoder of `_wire` refuses a chunk with a field that the API does not name, and reading
one field by field costs ten times as much. A stream that sends such fields sends them in every
chunk, so a shape that was seen often gets Structs of its own: those of `_wire` with the vendor's
fields added. What is read with them is the same `Chunk`; SPEC law 6 is held by the tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from operator import attrgetter
from typing import cast

import msgspec
from msgspec import Struct, defstruct

from ._wire import Choice, Chunk, Delta, Extra, Usage

__all__ = ["Names", "Schema", "find_schema", "unknown_names"]

# The names that each level's Struct lacks, in the order in which they came.
Names = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]

_BASES: tuple[type[Struct], ...] = (Chunk, Choice, Delta, Usage)
_MOST_NAMES = 64  # of one shape
_WORTHWHILE = 8  # chunks of a shape until its Structs are made, which takes as long as many decodes
_MOST_SHAPES = 256  # of all streams of a process: a server may make names up
_DEPTH = 6  # of a vendor's field; what nests deeper is read the general way, which counts

# They make more of a chunk than fields to merge, unless they are null.
_NULL_ONLY = ("error", "message")


def _json(depth: int) -> object:
    scalar = str | int | float | bool | None
    if not depth:
        return scalar
    inner = _json(depth - 1)
    return scalar | list[inner] | dict[str, inner]  # type: ignore[valid-type]  # built at run time


_JSON = _json(_DEPTH)
_KNOWN = tuple(frozenset(base.__struct_encode_fields__) for base in _BASES)


class Schema:
    """The Structs of one shape."""

    __slots__ = ("_decode", "_getters", "names")

    def __init__(self, names: Names) -> None:
        self.names = names
        of_chunk, of_choice, of_delta, of_usage = names
        usage = _extended(Usage, of_usage, {})
        delta = _extended(Delta, of_delta, {})
        choice = _extended(Choice, of_choice, {"delta": delta, "usage": usage})
        chunk = _extended(Chunk, of_chunk, {"choices": list[choice], "usage": usage})  # type: ignore[valid-type]
        self._decode = msgspec.json.Decoder(chunk).decode
        self._getters = [
            attrgetter(*[f"x{i}" for i in range(len(level))]) if level else None for level in names
        ]

    def decode(self, text: bytes) -> Chunk:
        """Decode a chunk. Raises ValueError, RecursionError as the decoder does."""
        chunk = cast("Chunk", self._decode(text))
        of_chunk, of_choice, of_delta, of_usage = self._getters
        if of_chunk is not None:
            chunk.extra = _extra(self.names[0], of_chunk(chunk))
        if of_usage is not None and chunk.usage is not None:
            chunk.usage.extra = _extra(self.names[3], of_usage(chunk.usage))
        if of_choice is not None or of_delta is not None or of_usage is not None:
            for choice in chunk.choices or ():
                if of_choice is not None:
                    choice.extra = _extra(self.names[1], of_choice(choice))
                if of_delta is not None and choice.delta is not None:
                    choice.delta.extra = _extra(self.names[2], of_delta(choice.delta))
                if of_usage is not None and choice.usage is not None:
                    choice.usage.extra = _extra(self.names[3], of_usage(choice.usage))
        return chunk


def _extended(
    base: type[Struct], names: tuple[str, ...], replaced: Mapping[str, object]
) -> type[Struct]:
    fields = [
        *((name, kind | None, None) for name, kind in replaced.items()),  # type: ignore[operator]
        *((f"x{i}", None if name in _NULL_ONLY else _JSON, None) for i, name in enumerate(names)),
    ]
    return defstruct(
        base.__name__,
        fields,
        bases=(base,),
        rename={f"x{i}": name for i, name in enumerate(names)},
        forbid_unknown_fields=True,
    )


def _extra(names: tuple[str, ...], values: object) -> Extra | None:
    if len(names) == 1:
        return None if values is None else Extra({names[0]: values})
    pairs = zip(names, cast("tuple[object, ...]", values), strict=True)
    found = {name: value for name, value in pairs if value is not None}
    return Extra(found) if found else None


def unknown_names(value: Mapping[str, object], known: Names) -> Names | None:
    """Add to the names of a shape those that a chunk has more; None for no usable shape."""
    found = [dict.fromkeys(level) for level in known]
    _collect(found, 0, value)
    _collect(found, 3, value.get("usage"))
    choices = value.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        _collect(found, 1, choice)
        if isinstance(choice, dict):
            _collect(found, 2, choice.get("delta"))
            _collect(found, 3, choice.get("usage"))
    names = tuple(tuple(level) for level in found)
    if names == known or sum(map(len, names)) > _MOST_NAMES:
        return None
    return cast("Names", names)


def _collect(found: list[dict[str, None]], level: int, value: object) -> None:
    if isinstance(value, dict):
        found[level].update(dict.fromkeys(name for name in value if name not in _KNOWN[level]))


_schemas: dict[Names, Schema | None] = {}
_seen: Counter[Names] = Counter()


def find_schema(names: Names) -> Schema | None:
    """Give the schema of a shape that was seen often; None at first, and for too many shapes."""
    if names in _schemas:
        return _schemas[names]
    if len(_schemas) >= _MOST_SHAPES or len(_seen) > 4 * _MOST_SHAPES:
        return None
    _seen[names] += 1
    if _seen[names] < _WORTHWHILE:
        return None
    try:
        _schemas[names] = Schema(names)
    except (TypeError, ValueError):
        _schemas[names] = None  # a name that a Struct's field cannot have
    return _schemas[names]
