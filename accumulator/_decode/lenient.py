"""Any value to a `Chunk`, field by field: nothing lost, and a note where a known field did not fit.

This is the general way, for what a typed decoder refuses and for any SDK's objects. What is known
and well-typed goes to its place, the rest to the `extra` of its level.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from functools import cache
from typing import TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from .chunk import (
    OTHERWISE_READ,
    STACK_DEPTH,
    AudioFragment,
    Choice,
    Chunk,
    Closing,
    CustomFragment,
    Delta,
    Extra,
    FunctionFragment,
    JsonObject,
    Parts,
    TokenLogprob,
    TooDeepError,
    ToolCallFragment,
    TopLogprob,
    Usage,
)
from .text import heal, healed, holds_half
from .values import as_float, as_integer, decode_base64, error_of, fields_of, is_object, kind_of


class Misfit(Struct):
    """A known field of a wrong type: where, what is wrong, and what was found."""

    path: str
    message: str
    value: object


class _MisfitError(ValueError):
    """A value that is not of its field's type."""


class Reading(Struct):
    """A chunk as it was read, and what did not fit on the way.

    `error` is the server's error object. `lone` counts halves of surrogate pairs that no later
    chunk can join; `has_halves` tells whether others may be left in the texts. `size` counts the
    characters of all strings.
    """

    chunk: Chunk
    misfits: list[Misfit]
    error: object
    lone: int
    has_halves: bool
    size: int


class InvalidChunkError(ValueError):
    """The value cannot be read as a chunk at all; `error` is the server's, if it brings one."""

    error: object = None


K = TypeVar("K", bound=Struct)
_NONE: frozenset[str] = frozenset()
_TEXT = frozenset({"text"})  # beside a delta it is like any vendor's field
Moved = Mapping[str, frozenset[str]]  # the fields of each level that are not read to their places


class _Reader:
    """Reads one chunk from builtins or an SDK's objects, and notes what did not fit."""

    __slots__ = ("copying", "depth", "has_halves", "leftover", "lone", "misfits", "moved", "size")

    def __init__(self, moved: Moved, *, copying: bool, has_halves: bool, depth: int) -> None:
        self.moved = moved
        self.depth = depth  # levels that a copied value may have
        self.copying = copying  # the values are the caller's, who may change them later
        self.has_halves = has_halves
        self.misfits: list[Misfit] = []
        self.leftover: list[object] = []  # entries of the list last read that are no objects
        self.lone = 0
        self.size = 0

    def fields(
        self, kind: type[K], source: JsonObject, path: str, moved: frozenset[str] = _NONE
    ) -> K:
        """Read an object into a Struct; what has no field there, or does not fit it, into
        `extra`.
        """
        readers = _readers_of(kind)
        out = kind()
        extra: JsonObject = {}
        for name, item in source.items():
            value = item
            if value is None:
                continue
            read = readers.get(name)
            if read is not None and name not in moved:
                try:
                    setattr(out, name, read(self, value, f"{path}.{name}"))
                    if not self.leftover:
                        continue
                    value, self.leftover = self.leftover, []
                    error = "expected a list of objects"
                except _MisfitError as misfit:
                    error = str(misfit)
                self.misfits.append(Misfit(f"{path}.{name}", error, self.adopt(value)))
            value = self.adopt(value)
            if self.has_halves and kind in (TokenLogprob, TopLogprob):
                value, lone = healed(value)  # nothing of a token is joined to what comes later
                self.lone += lone
            extra[self.name(name)] = value
        if extra:
            # By name, so that it does not matter which of the two ways a chunk went.
            out.extra = Extra(sorted(extra.items()))  # type: ignore[attr-defined]  # every Struct read here has it
        return out

    def adopt(self, value: object) -> object:
        """Return a value as ours: a copy in builtins, unless it was decoded for us."""
        return self.copy(value, self.depth) if self.copying else value

    def name(self, name: object) -> str:
        if not isinstance(name, str):
            raise InvalidChunkError(f"a field's name is a string, not {kind_of(name)}")
        return _label(self, name, "")

    def copy(self, value: object, levels: int) -> object:
        """Copy a value in builtins, if it has no more levels. Raises TooDeepError."""
        if isinstance(value, Enum):
            return self.copy(value.value, levels)
        if value is None or type(value) in (bool, int, float):
            return value
        if isinstance(value, (int, float)):
            return int(value) if isinstance(value, int) else float(value)
        if isinstance(value, str):
            return _text(self, value, "")
        if not levels:
            raise TooDeepError(f"nested deeper than {self.depth} levels")
        below = levels - 1
        if isinstance(value, (list, tuple)):
            return [self.copy(item, below) for item in value]
        if is_object(value):
            return {self.name(n): self.copy(item, below) for n, item in fields_of(value).items()}
        raise InvalidChunkError(f"{kind_of(value)} is nothing that JSON holds")


_Read = Callable[[_Reader, object, str], object]


def _object(value: object) -> JsonObject:
    if not is_object(value):
        raise _MisfitError(f"expected an object, got {kind_of(value)}")
    return fields_of(value)


def _list(value: object) -> list[object] | tuple[object, ...]:
    if not isinstance(value, (list, tuple)):
        raise _MisfitError(f"expected a list, got {kind_of(value)}")
    return value


def _text(reader: _Reader, value: object, path: str) -> str:
    if isinstance(value, Enum):  # some SDKs make roles and finish reasons enums
        value = value.value
    if not isinstance(value, str):
        raise _MisfitError(f"expected a string, got {kind_of(value)}")
    value = str(value)
    reader.size += len(value)
    if not reader.has_halves and holds_half(value):
        reader.has_halves = True
    return value


def _label(reader: _Reader, value: object, path: str) -> str:
    """Read a string that no later one is joined to."""
    text, lone = heal(_text(reader, value, path))
    reader.lone += lone
    return text


def _integer(reader: _Reader, value: object, path: str) -> int:
    number = as_integer(value)
    if number is None:
        raise _MisfitError(f"expected an integer, got {kind_of(value)}")
    if isinstance(value, int):  # a subclass's, too
        return number
    reader.misfits.append(Misfit(path, f"expected an integer, got {kind_of(value)}", value))
    return number


def _number(reader: _Reader, value: object, path: str) -> float:
    number = as_float(value)
    if number is None:
        raise _MisfitError(f"expected a number, got {kind_of(value)}")
    return number


def _integers(reader: _Reader, value: object, path: str) -> list[int]:
    numbers = [as_integer(item) for item in _list(value)]
    if None in numbers:
        raise _MisfitError("expected a list of integers")
    if not all(isinstance(item, int) for item in _list(value)):
        reader.misfits.append(Misfit(path, "expected a list of integers", reader.adopt(value)))
    return cast("list[int]", numbers)


def _base64(reader: _Reader, value: object, path: str) -> bytes:
    if type(value) is bytes:
        return value  # our own `Chunk` holds it decoded
    try:
        return decode_base64(_text(reader, value, path))
    except ValueError:
        raise _MisfitError("expected base64") from None


def _json_text(reader: _Reader, value: object, path: str) -> str:
    """Read a string of JSON; some servers send the JSON itself."""
    if not isinstance(value, str) and (isinstance(value, (list, tuple)) or is_object(value)):
        ours, lone = healed(reader.copy(value, reader.depth))
        reader.lone += lone
        return msgspec.json.encode(ours).decode()
    return _text(reader, value, path)


def _struct(kind: type[K]) -> _Read:
    def read(reader: _Reader, value: object, path: str) -> K:
        return reader.fields(kind, _object(value), path)

    return read


def _structs(kind: type[K]) -> _Read:
    def read(reader: _Reader, value: object, path: str) -> list[K]:
        entries: list[K] = []
        leftover: list[object] = []
        for i, item in enumerate(_list(value)):
            if is_object(item):
                entries.append(reader.fields(kind, fields_of(item), f"{path}[{i}]"))
            elif item is not None:
                leftover.append(reader.adopt(item))
        reader.leftover = leftover
        return entries

    return read


def _calls(reader: _Reader, value: object, path: str) -> list[ToolCallFragment]:
    """Read a list of calls; old TGI sends one that stands alone."""
    entries = [value] if is_object(value) and not isinstance(value, (list, tuple)) else value
    return cast("list[ToolCallFragment]", _structs(ToolCallFragment)(reader, entries, path))


def _parts(reader: _Reader, value: object, path: str) -> Parts:
    return Parts([reader.adopt(item) for item in _list(value)])


def _any_object(reader: _Reader, value: object, path: str) -> Extra:
    return Extra({reader.name(name): reader.adopt(item) for name, item in _object(value).items()})


def _misfit(reader: _Reader, value: object, path: str) -> object:
    raise _MisfitError(f"expected an object, got {kind_of(value)}")


def _delta(reader: _Reader, value: object, path: str) -> Delta:
    delta = reader.fields(Delta, _object(value), path, reader.moved["delta"])
    content: object = delta.content
    if isinstance(content, Parts):
        delta.parts, delta.content = content, None
    return delta


def _content(reader: _Reader, value: object, path: str) -> str | Parts:
    if isinstance(value, (list, tuple)):
        return _parts(reader, value, path)
    return _text(reader, value, path)


def _choices(reader: _Reader, value: object, path: str) -> list[Choice]:
    if not isinstance(value, (list, tuple)):
        raise InvalidChunkError(f"{path}: expected a list, got {kind_of(value)}")
    choices: list[Choice] = []
    for i, item in enumerate(value):
        if item is None:
            continue
        if not is_object(item):
            raise InvalidChunkError(f"{path}[{i}]: expected an object, got {kind_of(item)}")
        source = dict(fields_of(item))
        source.pop("obfuscation", None)
        # A server that ignored `stream` sends a message in place of a delta; Perplexity sends it
        # beside one, where it brings nothing new.
        message = source.pop("message", None)
        closes = False
        moved = _NONE
        if source.get("delta") is not None:
            is_beside = isinstance(source.get("text"), str) and is_object(source["delta"])
            moved = _NONE if is_beside else _TEXT
        else:
            closes = is_object(message)
            if message is not None:
                source["delta" if closes else "message"] = message
        choice = reader.fields(Choice, source, f"{path}[{i}]", moved)
        if closes:
            choice.closing = Closing()
        if choice.index is None and i > len(choices):  # the places of those that are null count
            choice.index = i
        choices.append(choice)
    return choices


# Strings that a later one is joined to, and fields that are read in a way of their own. For all
# others the type of the Struct's field says how they are read.
_READ: Mapping[type[Struct], Mapping[str, _Read]] = {
    FunctionFragment: {"name": _text, "arguments": _json_text},
    CustomFragment: {"name": _text, "input": _json_text},
    AudioFragment: {"transcript": _text},
    Delta: {
        **dict.fromkeys(("refusal", "reasoning", "reasoning_content"), _text),
        "content": _content,
        "tool_calls": _calls,
        "annotations": _parts,
    },
    Choice: {"delta": _delta, "text": _text, "message": _misfit},  # an object is read as the delta
    Chunk: {"choices": _choices, "moderation": _any_object},
}
_READ_BY_TYPE: Mapping[object, _Read] = {
    str: _label,
    int: _integer,
    float: _number,
    bytes: _base64,
    list[int]: _integers,
}


@cache
def _readers_of(kind: type[Struct]) -> dict[str, _Read]:
    """Return how each field of a Struct is read."""
    readers = dict(_READ.get(kind, {}))
    for name, hint in get_type_hints(kind).items():
        if name not in readers and name not in OTHERWISE_READ:
            of = get_args(hint)[0]  # beside None
            is_list = get_origin(of) is list and of not in _READ_BY_TYPE
            below = _structs(get_args(of)[0]) if is_list else _struct(of)
            readers[name] = _READ_BY_TYPE.get(of, below)
    return readers


def read_chunk(
    value: object, moved: Moved, *, copying: bool, has_halves: bool, depth: int
) -> Reading:
    """Read a chunk from builtins or an SDK's object.

    `moved` names the typed fields that another rule than the API's applies to; they go to `extra`
    like a vendor's. `copying` says that the value is the caller's, and `depth` how many levels one
    in it may have; `has_halves` that strings may hold half a surrogate pair. Raises
    InvalidChunkError for what is no chunk at all, TooDeepError.
    """
    reader = _Reader(moved, copying=copying, has_halves=has_halves, depth=depth)
    if not is_object(value):
        refusal = InvalidChunkError(f"expected an object, got {kind_of(value)}")
        # Gemini's server puts its error in a list.
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
            refusal.error = error_of(value[0])
        raise refusal
    source = dict(fields_of(value))
    source.pop("obfuscation", None)
    kind = source.pop("object", None)
    error: object = None
    try:
        error = reader.adopt(error_of(source) or error_of(source.get("x_groq")))
        source.pop("error", None)
        chunk = reader.fields(Chunk, source, "$", moved["chunk"])
        if kind == "text_completion":
            chunk.object = "text_completion"
    except InvalidChunkError as refusal:
        refusal.error = error
        raise
    except RecursionError:
        raise TooDeepError("nested deeper than the stack holds") from None
    return Reading(chunk, reader.misfits, error, reader.lone, reader.has_halves, reader.size)


def read_usage(value: object) -> Usage:
    """Read a usage object from builtins; what does not fit goes to `extra`."""
    reader = _Reader({}, copying=True, has_halves=False, depth=STACK_DEPTH)
    return reader.fields(Usage, _object(value), "$")
