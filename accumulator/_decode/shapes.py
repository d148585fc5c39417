"""The shapes of vendors' chunks, and the Structs that decode them.

The strict decoders of `chunk` fail on a chunk with a field that the API does not name, or with a
value of another type than the API's, and reading such a chunk field by field costs ten times as
much. A stream that sends these sends them in nearly every chunk. So a shape that has been seen a
few times gets Structs of its own: those of `chunk` with such fields as raw JSON, for
`vendor_fields` to read.

A process keeps its shapes, because many streams come from few servers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from operator import attrgetter
from typing import cast, get_args

import msgspec
from msgspec import Raw, Struct, convert, defstruct

from .chunk import Choice, Chunk, Delta, decode_common

# The fields that the Structs of `chunk` lack, each with its level. A field of the API counts as
# lacking where it has a value of a type that they cannot decode.
Names = frozenset[tuple[type[Struct], str]]
# A vendor's field that is not merged like the others: Perplexity sends it beside a delta.
_MESSAGE = (Choice, "message")
# The general way reads this one by what stands beside it.
_TEXT = (Choice, "text")
# The levels whose vendor's fields are compared with the last chunk's: they often repeat unchanged.
_COMPARED = (Chunk, Choice, Delta)

_MOST_NAMES = 64  # of one shape
_LONGEST_NAMES = 4096  # characters of all of them together
_WORTHWHILE = 3  # chunks of a shape before its Structs are made: that costs as much as many decodes
_MOST_SHAPES = 256  # of all streams of a process: a server may make names up

_ABSENT = Raw(b"")


class Layout(Struct):
    """The Struct that a level of a chunk is decoded into, and what has to be read in it."""

    kind: type[Struct]  # the API's, of which `struct` is a subclass
    struct: type[Struct]
    is_compared: bool  # whether its vendor's fields are compared with the last chunk's
    rules: str  # the name of its rules, if it has any
    names: Sequence[str]  # of the fields that are merged like a vendor's
    get: Callable[[object], tuple[Raw, ...]]  # their raw JSON, empty for an absent field
    api_names: Sequence[str]  # the other names: fields of the API with a value of another type
    below: Sequence[tuple[str, Layout]]  # by the names of their fields

    @property
    def has_uncompared(self) -> bool:
        """Whether it or a level below it has fields to read that are not compared."""
        return bool(self.api_names or self.below or (self.names and not self.is_compared))


class Shape:
    """The names of a vendor's fields, and the decoder of chunks that have no others."""

    __slots__ = ("compared", "compares_choices", "decode", "has_messages", "names", "uncompared")

    def __init__(self, names: Names, decode: Callable[[bytes], Chunk] | None = None) -> None:
        self.names = names
        self.has_messages = _MESSAGE in names
        layouts: dict[type[Struct], Layout] = {}
        _add_layout(Chunk, names, layouts)
        self.decode = decode or cast(
            "Callable[[bytes], Chunk]", msgspec.json.Decoder(layouts[Chunk].struct).decode
        )
        # None where no field is read in this way.
        self.uncompared = layouts[Chunk] if layouts[Chunk].has_uncompared else None
        self.compared = [
            layout if layout.names else None for layout in (layouts[kind] for kind in _COMPARED)
        ]
        self.compares_choices = any(self.compared[1:])


@cache
def _below(kind: type[Struct]) -> Mapping[str, tuple[type[Struct], bool]]:
    """Return the levels below a level that a vendor may add fields to, by the names of their
    fields, and whether each is a list.
    """
    below: dict[str, tuple[type[Struct], bool]] = {}
    for name, hint in kind.__annotations__.items():
        of, *_ = get_args(hint) or (hint,)  # beside None
        each, *_ = get_args(of) or (of,)
        if hasattr(each, "extra"):
            below[name] = each, each is not of
    return below


def _add_layout(kind: type[Struct], names: Names, layouts: dict[type[Struct], Layout]) -> None:
    """Add the layout of a level, after those of the levels below it."""
    fields: list[tuple[str, object, object]] = []
    below: list[tuple[str, Layout]] = []
    for name, (of, is_list) in _below(kind).items():
        if of not in layouts:
            _add_layout(of, names, layouts)
        layout = layouts[of]
        if layout.struct is not of:
            fields.append((name, (list[layout.struct] if is_list else layout.struct) | None, None))  # type: ignore[name-defined]  # built at run time
            if layout.has_uncompared:
                below.append((name, layout))
    found = sorted(name for level, name in names if level is kind)
    fields_of_api = {*kind.__struct_fields__}
    # In this order `parts` has been read before the parts of `content` go there.
    api_names = [n for n in reversed(found) if n in fields_of_api or (kind, n) == _MESSAGE]
    # A name on the wire must not become the name of an attribute.
    slots = {f"x{i}": name for i, name in enumerate(found) if name not in api_names}
    fields += [(name, Raw, _ABSENT) for name in (*slots, *api_names)]
    struct = kind
    if fields:
        struct = defstruct(
            kind.__name__, fields, bases=(kind,), rename=slots, forbid_unknown_fields=True, gc=False
        )
    # The last one is read twice, so that the result is a tuple even for one field.
    get = attrgetter(*slots, [*slots][-1]) if slots else lambda of: ()
    rules = kind.__name__.lower()
    is_compared, names_of = kind in _COMPARED, [*slots.values()]
    layouts[kind] = Layout(kind, struct, is_compared, rules, names_of, get, api_names, below)


# --- the shapes of a process --------------------------------------------------------------
# Shared by all threads: one may forget them all between two lines of another.

# Each shape by its names; until its Structs are made, how often it has been seen.
_shapes: dict[Names, Shape | int] = {}
# The widest shape of a stream, by what a decoder of `chunk` said of its first mismatch. That names
# a field, so a stream of a known vendor has its decoder after one failed decode.
_first_shapes: dict[str, Shape] = {}
API = Shape(frozenset())
COMMON = Shape(frozenset(), decode_common)


def shape_after(mismatch: str) -> Shape:
    """Return the shape that is likely to take all chunks of a stream that began with a mismatch."""
    return _first_shapes.get(mismatch, API)


def find_shape(names: Names, mismatch: str) -> Shape | None:
    """Return the shape with these names once it has been seen often enough; None until then.

    Other streams that begin with this mismatch will use it.
    """
    known = _shapes.get(names, 0)
    if isinstance(known, int):
        if len(_shapes) >= _MOST_SHAPES or len(_first_shapes) >= _MOST_SHAPES:
            # Names that a server makes up must not keep out all later ones.
            _shapes.clear()
            _first_shapes.clear()
        known += 1
        if known < _WORTHWHILE:
            _shapes[names] = known
            return None
        known = _shapes[names] = Shape(names)
    _first_shapes[mismatch] = known
    return known


def wider_names(known: Names, value: Mapping[str, object]) -> Names | None:
    """Return the known names and those that a chunk adds, or only the latter if these are too many.
    Return None if the chunk adds none, or if no Structs can have its names.
    """
    own = frozenset(_names_in(Chunk, value))
    names = known | own if _are_usable(known | own) else own
    return names if names != known and _are_usable(names) else None


def _are_usable(names: Names) -> bool:
    """Return whether Structs can have these names: few, and none that JSON has to escape."""
    joined = "".join([name for _, name in names])
    is_short = len(names) <= _MOST_NAMES and len(joined) <= _LONGEST_NAMES
    return is_short and joined.isprintable() and not {'"', "\\"}.intersection(joined)


def _names_in(kind: type[Struct], value: object) -> Iterator[tuple[type[Struct], str]]:
    """Yield the names in a value of a level that its Struct lacks, and in those below."""
    if isinstance(value, list):
        for item in value:
            if isinstance(item, dict):  # a list in the list is not a level
                yield from _names_in(kind, item)
    elif isinstance(value, dict):
        types = _types(kind)
        for name, item in value.items():
            if type(item) is not types.get(name) and not _has_place(kind, name, item):
                yield kind, name
        for name, (of, _) in _below(kind).items():
            yield from _names_in(of, value.get(name))


@cache
def _types(kind: type[Struct]) -> Mapping[str, object]:
    """Return the type of each field that may have several, null left out."""
    return {n: get_args(of)[0] for n, of in kind.__annotations__.items() if get_args(of)}


def _has_place(kind: type[Struct], name: str, value: object) -> bool:
    """Return whether a Struct has a field for a value, or the general way alone can read it."""
    if name not in kind.__struct_fields__:
        return False
    is_error = name == "error" and bool(value)
    if value is None or is_error or name in _below(kind) or (kind, name) == _TEXT:
        return True
    try:
        convert(value, kind.__annotations__[name])
    except ValueError:
        return False
    return True
