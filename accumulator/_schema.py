"""The shapes of vendors' chunks, and Structs that know them.

The strict decoder of `_wire` refuses a chunk with a field that the API does not name, and reading
one field by field costs ten times as much. A stream that sends such fields sends them in nearly
every chunk, so a shape that was seen often gets Structs of its own: those of `_wire` with the
vendor's fields added as raw JSON, which `_decoder` reads.

A process keeps its shapes: many streams come from few servers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import cast

import msgspec
from msgspec import Raw, Struct, defstruct

from ._wire import (
    Choice,
    Chunk,
    CompletionTokensDetails,
    Delta,
    Logprobs,
    PromptTokensDetails,
    ToolCallFragment,
    Usage,
)

__all__ = [
    "LEVELS",
    "NO_SCHEMA",
    "RawFields",
    "Schema",
    "find_schema",
    "may_come",
    "unknown_names",
]

# The levels that a vendor may add fields to, and where each stands below another.
LEVELS: tuple[type[Struct], ...] = (
    PromptTokensDetails,
    CompletionTokensDetails,
    Usage,
    Logprobs,
    ToolCallFragment,
    Delta,
    Choice,
    Chunk,
)
_BELOW: Mapping[type[Struct], Mapping[str, type[Struct]]] = {
    Usage: {
        "prompt_tokens_details": PromptTokensDetails,
        "completion_tokens_details": CompletionTokensDetails,
    },
    Delta: {"tool_calls": ToolCallFragment},
    Choice: {"delta": Delta, "usage": Usage, "logprobs": Logprobs},
    Chunk: {"choices": Choice, "usage": Usage},
}
_LISTS = ("tool_calls", "choices")
# Fields that the Structs have, but where a list or any object stands they are read from raw JSON.
_OWN_FIELDS: Mapping[type[Struct], Mapping[str, type]] = {
    Delta: {"content": list, "annotations": list},
    Chunk: {"moderation": dict},
}
# The names that each level's Struct lacks, in the order in which they came; `content` of a delta
# counts among them where it is a list of parts (Mistral), and so do annotations (OpenRouter).
Names = tuple[tuple[str, ...], ...]
_NO_NAMES: Names = ((),) * len(LEVELS)

_MOST_NAMES = 64  # of one shape
_WORTHWHILE = 8  # chunks of a shape until its Structs are made, which takes as long as many decodes
_MOST_SHAPES = 256  # of all streams of a process: a server may make names up

_KNOWN: Mapping[type[Struct], frozenset[str]] = {
    level: frozenset(level.__struct_encode_fields__) for level in LEVELS
}
_NOTHING = Raw(b"")


class RawFields(Struct):
    """The vendor's fields of one level, and how to get their raw values out of its Struct."""

    names: tuple[str, ...]
    get: Callable[[object], tuple[Raw, ...]]
    nothing: tuple[Raw, ...]


class Schema:
    """The Structs of one shape."""

    __slots__ = (
        "below_choices",
        "decode",
        "in_choices",
        "in_usage",
        "names",
        "raw",
        "raw_usage",
        "steps",
    )

    def __init__(self, names: Names) -> None:
        self.names = names
        # Which shape took a chunk that this one refused with these words: the refusal names the
        # field, so that a stream of a known vendor has its decoder after one refusal.
        self.steps: dict[str, Schema] = {}
        types: dict[type[Struct], type[Struct]] = {}
        for level, own in zip(LEVELS, names, strict=True):
            below = _BELOW.get(level, {}).values()
            if own or any(types[kind] is not kind for kind in below):
                types[level] = _extended(level, own, types)
            else:
                types[level] = level
        self.decode = cast("Callable[[bytes], Chunk]", msgspec.json.Decoder(types[Chunk]).decode)
        raw = {
            # The last slot is read twice, so that a single one gives a tuple, too.
            level: RawFields(
                own,
                attrgetter(*_slots(own), _slots(own)[-1]),
                (_NOTHING,) * (len(own) + 1),
            )
            for level, own in zip(LEVELS, names, strict=True)
            if own
        }
        levels = (Chunk, Choice, Delta, Logprobs, ToolCallFragment)
        self.raw = tuple(raw.get(level) for level in levels)
        usages = (Usage, PromptTokensDetails, CompletionTokensDetails)
        self.raw_usage = tuple(raw.get(level) for level in usages)
        self.in_usage = any(self.raw_usage)
        self.below_choices = any(self.raw[1:])
        self.in_choices = self.in_usage or self.below_choices


def _slots(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"x{i}" for i in range(len(names)))


def _extended(
    level: type[Struct], names: tuple[str, ...], types: Mapping[type[Struct], type[Struct]]
) -> type[Struct]:
    fields: list[tuple[str, object, object]] = []
    for name, below in _BELOW.get(level, {}).items():
        kind = types[below]
        fields.append((name, (list[kind] if name in _LISTS else kind) | None, None))  # type: ignore[valid-type]  # built at run time
    # A default of its own for each, as Structs have it.
    fields += [(slot, Raw, _NOTHING) for slot in _slots(names)]
    rename = dict(zip(_slots(names), names, strict=True))
    for name in _OWN_FIELDS.get(level, {}):
        if name in names:
            fields.append((name, None, None))
            rename[name] = f" {name}"  # what stands there is read as the raw field of that name
    return defstruct(
        level.__name__,
        fields,
        bases=(level,),
        rename=rename,
        forbid_unknown_fields=True,
    )


# --- the shapes of a process --------------------------------------------------------------

_schemas: dict[Names, Schema | None] = {}
_seen: Counter[Names] = Counter()
NO_SCHEMA = Schema(_NO_NAMES)


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


def may_come(names: Names) -> bool:
    """Tell whether a shape has its Structs made as soon as it was seen more often."""
    return names not in _schemas and _seen[names] > 0


def unknown_names(value: Mapping[str, object], known: Names) -> Names | None:
    """Add to the names of a shape those that a chunk has more; None for no usable shape."""
    found = {level: dict.fromkeys(own) for level, own in zip(LEVELS, known, strict=True)}
    _collect(found, Chunk, value)
    names = tuple(tuple(found[level]) for level in LEVELS)
    if names == known or sum(map(len, names)) > _MOST_NAMES:
        return None
    return names


def _collect(
    found: Mapping[type[Struct], dict[str, None]], level: type[Struct], value: object
) -> None:
    if isinstance(value, list):
        for item in value:
            if isinstance(item, dict):  # a list in it is none of the level's
                _collect(found, level, item)
    elif isinstance(value, dict):
        found[level].update(dict.fromkeys(name for name in value if name not in _KNOWN[level]))
        for name, kind in _OWN_FIELDS.get(level, {}).items():
            if isinstance(value.get(name), kind):
                found[level][name] = None
        for name, below in _BELOW.get(level, {}).items():
            _collect(found, below, value.get(name))
