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
from contextlib import suppress
from operator import attrgetter
from typing import Any, cast

import msgspec
from msgspec import Raw, Struct, defstruct

from .chunk import (
    Choice,
    Chunk,
    CompletionTokensDetails,
    Delta,
    Logprobs,
    PromptTokensDetails,
    ToolCallFragment,
    Usage,
    decode_text,
)

__all__ = [
    "API",
    "LEVELS",
    "TEXT",
    "RawFields",
    "Schema",
    "find_schema",
    "may_come",
    "unknown_names",
    "widest",
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
_USAGES = (Usage, PromptTokensDetails, CompletionTokensDetails)
# Fields that are not merged as a vendor's are, and the type that they have in the Structs of a
# shape in which they came.
_OWN_FIELDS: Mapping[type[Struct], Mapping[str, object]] = {
    Delta: {"content": str | list[object] | None, "annotations": list[object] | None},
    Choice: {"message": Raw},
    Chunk: {"moderation": dict[str, object] | None, "error": None},
}
# Those of them that the Structs of `_wire` have, for nothing that a decoder could bring.
_WIDENED: Mapping[type[Struct], Mapping[str, type]] = {
    Delta: {"content": list, "annotations": list},
    Chunk: {"moderation": dict},
}
# The names that each level's Struct lacks, sorted as in an `extra`; `content` of a delta
# counts among them where it is a list of parts (Mistral), and so do annotations (OpenRouter).
Names = tuple[tuple[str, ...], ...]
_NO_NAMES: Names = ((),) * len(LEVELS)

_MOST_NAMES = 64  # of one shape
_LONGEST_NAMES = 4096  # characters of them all
_WORTHWHILE = 3  # chunks of a shape until its Structs are made, which takes as long as many decodes
_MOST_AHEAD = 16  # names that a stream's next shape may have beyond those that it needs
_MOST_SHAPES = 256  # of all streams of a process: a server may make names up

_KNOWN: Mapping[type[Struct], frozenset[str]] = {
    level: frozenset(level.__struct_encode_fields__) for level in LEVELS
}
_NOTHING = Raw(b"")


class RawFields(Struct):
    """The vendor's fields of one level, and how to get their raw values out of its Struct."""

    names: tuple[str, ...]
    get: Callable[[object], tuple[Any, ...]]  # raw JSON; values in the levels of usage
    nothing: tuple[Raw, ...]


class Schema:
    """The Structs of one shape.

    `raw` and `raw_usage` are the vendor's fields of each level, None for none; the rest tells where
    to look for anything that the Structs of `_wire` do not have.
    """

    __slots__ = (
        "below_choices",
        "decode",
        "has_fields",
        "has_messages",
        "has_moderation",
        "has_parts",
        "in_choices",
        "in_usage",
        "names",
        "raw",
        "raw_below_choices",
        "raw_usage",
        "steps",
        "wider",
    )

    def __init__(self, names: Names, decode: Callable[[bytes], Chunk] | None = None) -> None:
        self.names = names
        # Which shape took a chunk that this one refused with these words: the refusal names the
        # field, so that a stream of a known vendor has its decoder after one refusal.
        self.steps: dict[str, Schema] = {}
        # The shape that an earlier stream of this one came to.
        self.wider: Schema | None = None
        types: dict[type[Struct], type[Struct]] = {}
        for level, own in zip(LEVELS, names, strict=True):
            below = _BELOW.get(level, {}).values()
            if own or any(types[kind] is not kind for kind in below):
                types[level] = _extended(level, own, types)
            else:
                types[level] = level
        self.decode = decode or cast(
            "Callable[[bytes], Chunk]", msgspec.json.Decoder(types[Chunk]).decode
        )
        raw: dict[type[Struct], RawFields] = {}
        for level, own in zip(LEVELS, names, strict=True):
            slots = _slots(level, own)
            if slots:
                raw[level] = RawFields(
                    tuple(slots.values()),
                    # The last slot is read twice, so that a single one gives a tuple, too.
                    attrgetter(*slots, [*slots][-1]),
                    (_NOTHING,) * (len(slots) + 1),
                )
        levels = (Chunk, Choice, Delta, Logprobs, ToolCallFragment)
        self.raw = tuple(raw.get(level) for level in levels)
        usages = (Usage, PromptTokensDetails, CompletionTokensDetails)
        self.raw_usage = tuple(raw.get(level) for level in usages)
        named = dict(zip(LEVELS, names, strict=True))
        self.has_messages = "message" in named[Choice]
        self.has_parts = not _OWN_FIELDS[Delta].keys().isdisjoint(named[Delta])
        self.has_moderation = "moderation" in named[Chunk]
        self.in_usage = any(self.raw_usage)
        self.raw_below_choices = any(self.raw[1:])
        self.below_choices = self.raw_below_choices or self.has_messages or self.has_parts
        self.in_choices = self.in_usage or self.below_choices
        self.has_fields = any(names)


def widest(schema: Schema, step: Schema) -> Schema:
    """Return the shape that a stream is likely to come to, which goes from one to another now.

    A vendor's streams take the same steps, and each step costs a refused decode.
    """
    if schema.has_fields:
        ahead = sum(map(len, step.names)) - sum(map(len, schema.names))
        schema.wider = step if ahead <= _MOST_AHEAD else None
    while step.wider is not None:
        step = step.wider
    return step


def _slots(level: type[Struct], names: tuple[str, ...]) -> dict[str, str]:
    """Give each name that is a vendor's a slot in the Struct of its level."""
    own = _OWN_FIELDS.get(level, {})
    return {f"x{i}": name for i, name in enumerate(names) if name not in own}


def _extended(
    level: type[Struct], names: tuple[str, ...], types: Mapping[type[Struct], type[Struct]]
) -> type[Struct]:
    fields: list[tuple[str, object, object]] = []
    for name, below in _BELOW.get(level, {}).items():
        kind = types[below]
        fields.append((name, (list[kind] if name in _LISTS else kind) | None, None))  # type: ignore[valid-type]  # built at run time
    rename = _slots(level, names)
    if level in _USAGES:  # nearly always once in a stream: nothing is gained by leaving it unread
        fields += [(slot, object, None) for slot in rename]
    else:
        fields += [(slot, Raw, _NOTHING) for slot in rename]
    for name, own in _OWN_FIELDS.get(level, {}).items():
        if name in names:
            fields.append((name, own, _NOTHING if own is Raw else None))
    return defstruct(
        level.__name__,
        fields,
        bases=(level,),
        rename=rename,
        forbid_unknown_fields=True,
        gc=False,
    )


# --- the shapes of a process --------------------------------------------------------------
# Of all threads: any may forget them all between two lines of another.

_schemas: dict[Names, Schema | None] = {}
_seen: Counter[Names] = Counter()
API = Schema(_NO_NAMES)
TEXT = Schema(_NO_NAMES, decode_text)


def find_schema(names: Names) -> Schema | None:
    """Give the schema of a shape that was seen often; None at first."""
    known = _schemas.get(names, API)
    if known is not API:
        return known
    if len(_schemas) >= _MOST_SHAPES or len(_seen) >= 4 * _MOST_SHAPES:
        # Names that a server made up must not take the place of all that come after them.
        _schemas.clear()
        _seen.clear()
        API.steps.clear()
        TEXT.steps.clear()
    _seen[names] += 1
    if _seen[names] < _WORTHWHILE:
        return None
    schema: Schema | None = None
    with suppress(TypeError, ValueError):  # a name that a Struct's field cannot have
        schema = Schema(names)
    _schemas[names] = schema
    return schema


def may_come(names: Names) -> bool:
    """Tell whether a shape has its Structs made as soon as it was seen more often."""
    return names not in _schemas and _seen[names] > 0


def unknown_names(value: Mapping[str, object], known: Names) -> Names | None:
    """Add to the names of a shape those that a chunk has more; None for no usable shape."""
    found = {level: dict.fromkeys(own) for level, own in zip(LEVELS, known, strict=True)}
    _collect(found, Chunk, value)
    names = tuple(tuple(sorted(found[level])) for level in LEVELS)
    if names == known or sum(map(len, names)) > _MOST_NAMES:
        return None
    return None if sum(len(name) for own in names for name in own) > _LONGEST_NAMES else names


def _collect(
    found: Mapping[type[Struct], dict[str, None]], level: type[Struct], value: object
) -> None:
    if isinstance(value, list):
        for item in value:
            if isinstance(item, dict):  # a list in it is none of the level's
                _collect(found, level, item)
    elif isinstance(value, dict):
        found[level].update(dict.fromkeys(name for name in value if name not in _KNOWN[level]))
        for name, kind in _WIDENED.get(level, {}).items():
            if isinstance(value.get(name), kind):
                found[level][name] = None
        for name, below in _BELOW.get(level, {}).items():
            _collect(found, below, value.get(name))
