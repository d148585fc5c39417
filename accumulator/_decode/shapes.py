"""The shapes of vendors' chunks, and the Structs that decode them.

The strict decoders of `chunk` fail on a chunk with a field that the API does not name, and reading
such a chunk field by field costs ten times as much. A stream that sends such fields sends them in
nearly every chunk. So a shape that has been seen a few times gets Structs of its own: those of
`chunk` with the vendor's fields added, for `vendor_fields` to read.

A process keeps its shapes, because many streams come from few servers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from operator import attrgetter
from typing import cast

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
    decode_common,
)

# The levels that a vendor may add fields to, inner levels first.
_LEVELS: tuple[type[Struct], ...] = (
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
# The levels whose fields often repeat unchanged, and the names of their rules.
_OFTEN: Mapping[type[Struct], str] = {Delta: "delta", Choice: "choice", Chunk: "chunk"}
# Fields that are not merged like a vendor's. The Structs of a shape that has them keep them as raw
# JSON under their own names; an error ends the stream, so it may only be null.
_OWN_FIELDS: Mapping[type[Struct], tuple[str, ...]] = {
    Delta: ("content", "annotations"),
    Choice: ("message",),
    Chunk: ("moderation", "error"),
}
# Those that the Structs of `chunk` also have, but cannot decode from a value of this type.
_WIDENED: Mapping[type[Struct], Mapping[str, type]] = {
    Delta: {"content": list, "annotations": list},
    Chunk: {"moderation": dict},
}
# The names that each level's Struct lacks, sorted as in an `extra`. A delta's `content` counts as
# lacking where it is a list of parts (Mistral), and so do annotations (OpenRouter).
Names = tuple[tuple[str, ...], ...]
_NO_NAMES: Names = ((),) * len(_LEVELS)

_MOST_NAMES = 64  # of one shape
_LONGEST_NAMES = 4096  # characters of all of them together
_WORTHWHILE = 3  # chunks of a shape before its Structs are made: that costs as much as many decodes
_MOST_AHEAD = 16  # names that a stream's next shape may have beyond those that it needs
_MOST_SHAPES = 256  # of all streams of a process: a server may make names up

_KNOWN: Mapping[type[Struct], frozenset[str]] = {
    level: frozenset(level.__struct_encode_fields__) for level in _LEVELS
}
_ABSENT = Raw(b"")


class Fields(Struct):
    """A vendor's fields of one level, and how to get their values out of its Struct."""

    names: tuple[str, ...]
    get: Callable[[object], tuple[Raw, ...]]  # raw JSON, empty for an absent field
    rules: str  # the name of their level's rules


class Rest(Struct):
    """What to read in a level and in those below it, besides the fields that often repeat."""

    fields: Fields | None
    own: type[Struct] | None  # the level, if it has fields that are not merged like a vendor's
    below: Sequence[tuple[str, Rest]]  # by the names of their fields


class Shape:
    """The names of a vendor's fields, and the decoder of chunks that have no others."""

    __slots__ = (
        "decode",
        "has_fields",
        "has_messages",
        "names",
        "next_shapes",
        "of_choice",
        "of_chunk",
        "of_delta",
        "rest",
        "wider",
    )

    def __init__(self, names: Names, decode: Callable[[bytes], Chunk] | None = None) -> None:
        self.names = names
        # The shape that took a chunk on which this one failed, by the mismatch. The mismatch names
        # the field, so a stream of a known vendor has its decoder after one failed decode.
        self.next_shapes: dict[str, Shape] = {}
        # The shape that an earlier stream reached from this one.
        self.wider: Shape | None = None
        types: dict[type[Struct], type[Struct]] = {}
        rest: dict[type[Struct], Rest | None] = {}
        for level, own in zip(_LEVELS, names, strict=True):
            below = _BELOW.get(level, {})
            is_same = not own and all(types[kind] is kind for kind in below.values())
            types[level] = level if is_same else _extended(level, own, types)
            rest[level] = _rest(level, own, [(name, rest[kind]) for name, kind in below.items()])
        self.decode = decode or cast(
            "Callable[[bytes], Chunk]", msgspec.json.Decoder(types[Chunk]).decode
        )
        # The levels whose fields often repeat unchanged.
        self.of_delta, self.of_choice, self.of_chunk = map(_fields, _OFTEN, names[-3:])
        self.rest = rest[Chunk]
        self.has_fields = any(names)
        self.has_messages = "message" in names[-2]


def widest(shape: Shape, step: Shape) -> Shape:
    """Return the shape that a stream is likely to need in the end, given that it needs `step` next.

    A vendor's streams take the same steps, and each step costs a failed decode.
    """
    if shape.has_fields:
        ahead = sum(map(len, step.names)) - sum(map(len, shape.names))
        shape.wider = step if ahead <= _MOST_AHEAD else None
    while step.wider is not None:
        step = step.wider
    return step


def _slots(level: type[Struct], names: tuple[str, ...]) -> dict[str, str]:
    """Return the attributes of a level's Struct for a vendor's fields, each with its name on the
    wire, which must not become the name of an attribute.
    """
    own = _OWN_FIELDS.get(level, ())
    return {f"x{i}": name for i, name in enumerate(names) if name not in own}


def _fields(level: type[Struct], names: tuple[str, ...]) -> Fields | None:
    slots = _slots(level, names)
    if not slots:
        return None
    # The last one is read twice, so that the result is a tuple even for one field.
    get = attrgetter(*slots, [*slots][-1])
    return Fields(tuple(slots.values()), get, _OFTEN.get(level, ""))


def _rest(
    level: type[Struct], names: tuple[str, ...], inner: Sequence[tuple[str, Rest | None]]
) -> Rest | None:
    fields = None if level in _OFTEN else _fields(level, names)
    own = None if set(names).isdisjoint(_OWN_FIELDS.get(level, ())) else level
    below = [(name, each) for name, each in inner if each is not None]
    return Rest(fields, own, below) if fields or own or below else None


def _extended(
    level: type[Struct], names: tuple[str, ...], types: Mapping[type[Struct], type[Struct]]
) -> type[Struct]:
    """Return the Struct of a level with a vendor's fields and the types of the levels below it."""
    fields: list[tuple[str, object, object]] = []
    for name, below in _BELOW.get(level, {}).items():
        kind = types[below]
        fields.append((name, (list[kind] if name in _LISTS else kind) | None, None))  # type: ignore[valid-type]  # built at run time
    slots = _slots(level, names)
    own = [name for name in names if name in _OWN_FIELDS.get(level, ())]
    for name in (*slots, *own):
        fields.append((name, None, None) if name == "error" else (name, Raw, _ABSENT))
    return defstruct(
        level.__name__, fields, bases=(level,), rename=slots, forbid_unknown_fields=True, gc=False
    )


# --- the shapes of a process --------------------------------------------------------------
# Shared by all threads: one may forget them all between two lines of another.

_shapes: dict[Names, Shape | None] = {}
_seen: Counter[Names] = Counter()
API = Shape(_NO_NAMES)
COMMON = Shape(_NO_NAMES, decode_common)


def find_shape(names: Names) -> Shape | None:
    """Return the shape with these names once it has been seen often enough; None until then."""
    known = _shapes.get(names, API)
    if known is not API:
        return known
    if len(_shapes) >= _MOST_SHAPES or len(_seen) >= 4 * _MOST_SHAPES:
        # Names that a server makes up must not keep out all later ones.
        _shapes.clear()
        _seen.clear()
        API.next_shapes.clear()
        COMMON.next_shapes.clear()
    _seen[names] += 1
    if _seen[names] < _WORTHWHILE:
        return None
    shape: Shape | None = None
    with suppress(TypeError, ValueError):  # a name that a Struct's field cannot have
        shape = Shape(names)
    _shapes[names] = shape
    return shape


def is_pending(names: Names) -> bool:
    """Return whether a shape has been seen, but not often enough yet."""
    return names not in _shapes and _seen[names] > 0


def unknown_names(value: Mapping[str, object], known: Names) -> Names | None:
    """Return the known names and those that a chunk adds; None if that is not a usable shape."""
    found = {level: dict.fromkeys(own) for level, own in zip(_LEVELS, known, strict=True)}
    _collect(found, Chunk, value)
    names = tuple(tuple(sorted(found[level])) for level in _LEVELS)
    if names == known or sum(map(len, names)) > _MOST_NAMES:
        return None
    return None if sum(len(name) for own in names for name in own) > _LONGEST_NAMES else names


def _collect(
    found: Mapping[type[Struct], dict[str, None]], level: type[Struct], value: object
) -> None:
    """Add the names in a value of a level that the API does not have."""
    if isinstance(value, list):
        for item in value:
            if isinstance(item, dict):  # a list in the list is not a level
                _collect(found, level, item)
    elif isinstance(value, dict):
        found[level].update(dict.fromkeys(name for name in value if name not in _KNOWN[level]))
        for name, kind in _WIDENED.get(level, {}).items():
            if isinstance(value.get(name), kind):
                found[level][name] = None
        for name, below in _BELOW.get(level, {}).items():
            _collect(found, below, value.get(name))
