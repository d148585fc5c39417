"""Read any value into a `Chunk`, field by field; lose nothing, and note what does not fit.

This is the general way, for what a typed decoder refuses and for any SDK's objects. Known fields of
the right type go to their places, and everything else goes to the `extra` of its level.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from functools import cache
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct, field

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
    Misfit,
    Misfits,
    Parts,
    TokenLogprob,
    TooDeepError,
    ToolCallFragment,
    TopLogprob,
    Usage,
)
from .text import heal, heal_value, holds_half
from .values import (
    InvalidChunkError,
    as_builtin,
    as_float,
    as_integer,
    decode_base64,
    error_of,
    fields_of,
    is_object,
    kind_of,
)


class _MisfitError(ValueError):
    """A value that is not of its field's type. `taken` is what can still be read from it, and
    `left` is the rest.
    """

    def __init__(self, message: str, taken: object = None, left: object = None) -> None:
        ValueError.__init__(self, message)
        self.taken, self.left = taken, left


K = TypeVar("K", bound=Struct)
_NONE: frozenset[str] = frozenset()
_TEXT = frozenset({"text"})  # beside a delta, this is a vendor's field like any other
Moved = Mapping[str, frozenset[str]]  # the fields of each level that are not read into their places


class ChunkReading(Struct):
    """A chunk as it is read from builtins or an SDK's objects, and what did not fit on the way.

    `error` is the server's error object. `has_halves` says whether any string may contain half a
    surrogate pair, `lone` counts those that no later chunk can complete. `size` counts the
    characters of all strings.
    """

    moved: Moved
    copying: bool  # whether the values are the caller's, who may change them later
    has_halves: bool
    depth: int  # levels that a copied value may have
    chunk: Chunk = field(default_factory=Chunk)
    error: object = None
    misfits: list[Misfit] = []
    lone: int = 0
    size: int = 0

    def fields(self, kind: type[K], source: dict[str, Any], moved: frozenset[str] = _NONE) -> K:
        """Read an object into a Struct; what has no place in it goes to `extra`."""
        readers, out, copying = readers_of(kind), kind(), self.copying
        extra: JsonObject = {}
        for name, value in source.items():
            if value is None:
                continue
            exact, read = readers.get(name, _UNKNOWN)
            found, left = type(value), value
            if read is not None and name not in moved:
                if exact is found and (exact is not str or not copying or value.isascii()):
                    setattr(out, name, value)
                    self.size += len(value) if exact is str else 0
                    continue
                left = self.take(out, name, read, value)
            if left is not None:
                left = self.adopt(left)
                if self.has_halves and kind in (TokenLogprob, TopLogprob):
                    left, lone = heal_value(left)  # nothing later is joined to a token
                    self.lone += lone
                extra[self.name(name)] = left
        if extra:
            # Sorted by name, so that it does not matter which of the two ways a chunk went.
            out.extra = Extra(sorted(extra.items()))  # type: ignore[attr-defined]  # every Struct read here has it
        return out

    def take(self, out: Struct, name: str, read: _Reader, value: object) -> object:
        """Read a field into its place; return what is left of its value, or None."""
        before, left = len(self.misfits), None
        try:
            taken = read(self, value)
        except _MisfitError as error:
            taken, left = error.taken, value if error.taken is None else error.left
            noted = value if error.left is None else error.left
            self.misfits.append(Misfit("", str(error), self.adopt(noted)))
        if taken is not None:
            setattr(out, name, taken)
        if len(self.misfits) > before:
            put_below(self.misfits, f".{name}", before)
        return left

    def adopt(self, value: object) -> object:
        """Return a value that we may keep: a copy as builtins, unless we decoded it ourselves."""
        return self.copy(value, self.depth) if self.copying else value

    def name(self, name: object) -> str:
        if type(name) is str and name.isascii():  # the same as below, but two calls fewer
            self.size += len(name)
            return name
        if not isinstance(name, str):
            raise InvalidChunkError(f"a field's name is a string, not {kind_of(name)}")
        return _label(self, name)

    def copy(self, value: Any, levels: int) -> object:
        """Copy a value as builtins. Raises TooDeepError if it has more than these levels."""
        kind = type(value)
        if kind in _SCALARS:
            return value
        if kind is str:
            return _text(self, value)
        if kind is dict or kind is list:
            if not levels:
                raise TooDeepError(f"nested deeper than {self.depth} levels")
            if kind is list:
                return [self.copy(item, levels - 1) for item in value]
            return {self.name(name): self.copy(item, levels - 1) for name, item in value.items()}
        return self.copy(as_builtin(value), levels)


def put_below(misfits: list[Misfit], step: str, before: int) -> None:
    """Put a step in front of the paths of the misfits from number `before` on."""
    for misfit in misfits[before:]:
        misfit.path = step + misfit.path


def note_misfits(misfits: list[Misfit], chunk: Chunk) -> None:
    """Note in a chunk what did not fit, in an order that does not depend on how it was read."""
    if misfits:
        put_below(misfits, "$", 0)
        chunk.misfits = Misfits(sorted(misfits, key=Misfit.place))


_SCALARS = frozenset({bool, int, float, type(None)})
_Reader = Callable[[ChunkReading, object], object]
_UNKNOWN: tuple[type | None, _Reader | None] = (None, None)


def _object(value: object) -> JsonObject:
    if type(value) is not dict and not is_object(value):
        raise _MisfitError(f"expected an object, got {kind_of(value)}")
    return fields_of(value)


def _list(value: object) -> list[object] | tuple[object, ...]:
    if not isinstance(value, (list, tuple)):
        raise _MisfitError(f"expected a list, got {kind_of(value)}")
    return value


def _text(reading: ChunkReading, value: object) -> str:
    if type(value) is not str:
        value = as_builtin(value) if isinstance(value, (str, Enum)) else value
        if type(value) is not str:
            raise _MisfitError(f"expected a string, got {kind_of(value)}")
    reading.size += len(value)
    if not value.isascii():
        reading.has_halves = reading.has_halves or holds_half(value)
    return value


def _label(reading: ChunkReading, value: object) -> str:
    """Read a string to which no later one is joined."""
    text = _text(reading, value)
    if reading.has_halves:
        text, lone = heal(text)
        reading.lone += lone
    return text


def _integer(reading: ChunkReading, value: object) -> int:
    number = as_integer(value)
    if number is None or not isinstance(value, int):
        raise _MisfitError(f"expected an integer, got {kind_of(value)}", number)
    return number


def _number(reading: ChunkReading, value: object) -> float:
    number = as_float(value)
    if number is None:
        raise _MisfitError(f"expected a number, got {kind_of(value)}")
    return number


def _integers(reading: ChunkReading, value: object) -> list[int]:
    items = _list(value)
    numbers = [*map(as_integer, items)]
    if None in numbers or not all(isinstance(item, int) for item in items):
        raise _MisfitError("expected a list of integers", None if None in numbers else numbers)
    return cast("list[int]", numbers)


def _base64(reading: ChunkReading, value: object) -> bytes:
    if type(value) is bytes:
        return value  # our own `Chunk` has it decoded
    try:
        return decode_base64(_text(reading, value))
    except ValueError:
        raise _MisfitError("expected base64") from None


def _json_text(reading: ChunkReading, value: object) -> str:
    """Read a string of JSON; some servers send the value itself."""
    if not isinstance(value, str) and (isinstance(value, (list, tuple)) or is_object(value)):
        ours, lone = heal_value(reading.copy(value, reading.depth))
        reading.lone += lone
        return msgspec.json.encode(ours).decode()
    return _text(reading, value)


def _struct(kind: type[K]) -> _Reader:
    def read(reading: ChunkReading, value: object) -> K:
        return reading.fields(kind, _object(value))

    return read


def _structs(kind: type[K]) -> _Reader:
    def read(reading: ChunkReading, value: object) -> list[K]:
        entries: list[K] = []
        left: list[object] = []
        for i, item in enumerate(_list(value)):
            if is_object(item):
                before = len(reading.misfits)
                entries.append(reading.fields(kind, fields_of(item)))
                put_below(reading.misfits, f"[{i}]", before)
            elif item is not None:
                left.append(reading.adopt(item))
        if left:
            raise _MisfitError("expected a list of objects", entries, left)
        return entries

    return read


def _calls(reading: ChunkReading, value: object) -> list[ToolCallFragment]:
    """Read a list of calls; old TGI sends a single call without a list."""
    entries = [value] if is_object(value) and not isinstance(value, (list, tuple)) else value
    return cast("list[ToolCallFragment]", _structs(ToolCallFragment)(reading, entries))


def _parts(reading: ChunkReading, value: object) -> Parts:
    return Parts([reading.adopt(item) for item in _list(value)])


def _any_object(reading: ChunkReading, value: object) -> Extra:
    return Extra({reading.name(name): reading.adopt(item) for name, item in _object(value).items()})


def _delta(reading: ChunkReading, value: object) -> Delta:
    delta = reading.fields(Delta, _object(value), reading.moved["delta"])
    content: object = delta.content
    if isinstance(content, Parts):
        delta.parts, delta.content = content, None
    return delta


def _content(reading: ChunkReading, value: object) -> str | Parts:
    is_list = isinstance(value, (list, tuple))
    return _parts(reading, value) if is_list else _text(reading, value)


def _choices(reading: ChunkReading, value: object) -> list[Choice]:
    if not isinstance(value, (list, tuple)):
        raise InvalidChunkError(f"$.choices: expected a list, got {kind_of(value)}")
    choices: list[Choice] = []
    for i, item in enumerate(value):
        if item is None:
            continue
        if not is_object(item):
            raise InvalidChunkError(f"$.choices[{i}]: expected an object, got {kind_of(item)}")
        source = dict(fields_of(item))
        source.pop("obfuscation", None)
        # A server that ignored `stream` sends a message instead of a delta. Perplexity sends one
        # beside the delta, with nothing new in it.
        message, delta = source.pop("message", None), source.get("delta")
        closes = delta is None and is_object(message)
        if delta is None and message is not None:
            source["delta" if closes else "message"] = message
        is_text = delta is None or (isinstance(source.get("text"), str) and is_object(delta))
        moved = _NONE if is_text else _TEXT
        before = len(reading.misfits)
        choice = reading.fields(Choice, source, moved)
        put_below(reading.misfits, f"[{i}]", before)
        if closes:
            choice.closing = Closing(i)
        if choice.index is None and i > len(choices):  # nulls count in the positions
            choice.index = i
        choices.append(choice)
    return choices


# Strings to which later ones are joined, and fields that are read in a way of their own. All others
# are read as the type of the Struct's field says.
_READERS: Mapping[type[Struct], Mapping[str, _Reader]] = {
    FunctionFragment: {"name": _text, "arguments": _json_text},
    CustomFragment: {"name": _text, "input": _json_text},
    AudioFragment: {"transcript": _text},
    Delta: {
        **dict.fromkeys(("refusal", "reasoning", "reasoning_content"), _text),
        "content": _content,
        "tool_calls": _calls,
        "annotations": _parts,
    },
    Choice: {"delta": _delta, "text": _text, "message": _delta},
    Chunk: {"choices": _choices, "moderation": _any_object},
}
_READERS_BY_TYPE: Mapping[object, _Reader] = {
    str: _label,
    int: _integer,
    float: _number,
    bytes: _base64,
    list[int]: _integers,
}


@cache
def readers_of(kind: type[Struct]) -> Mapping[str, tuple[type | None, _Reader | None]]:
    """Return for each field the type whose values are stored as they are, and what reads others."""
    own = _READERS.get(kind, {})
    readers: dict[str, tuple[type | None, _Reader | None]] = {n: (None, own[n]) for n in own}
    for name, hint in get_type_hints(kind).items():
        if name not in OTHERWISE_READ:
            of = get_args(hint)[0]  # beside None
            is_list = get_origin(of) is list and of not in _READERS_BY_TYPE
            below = _structs(get_args(of)[0]) if is_list else _struct(of)
            exact = of if of in (str, int, float) else None
            readers[name] = exact, own.get(name) or _READERS_BY_TYPE.get(of, below)
    return readers


def read_chunk(
    value: object, moved: Moved, *, copying: bool, has_halves: bool, depth: int
) -> ChunkReading:
    """Read a chunk from builtins or an SDK's object.

    `moved` names the typed fields to which a rule other than the API's applies; they go to `extra`
    like a vendor's. `copying` says that the value is the caller's, and `depth` how many levels a
    value in it may have. `has_halves` says that strings may contain half a surrogate pair. Raises
    InvalidChunkError if the value is not a chunk at all, TooDeepError.
    """
    reading = ChunkReading(moved, copying, has_halves, depth)
    if not is_object(value):
        raise InvalidChunkError(f"expected an object, got {kind_of(value)}")
    source = dict(fields_of(value))
    source.pop("obfuscation", None)
    kind = source.pop("object", None)
    try:
        reading.error = reading.adopt(error_of(source) or error_of(source.get("x_groq")))
        source.pop("error", None)
        reading.chunk = reading.fields(Chunk, source, moved["chunk"])
    except InvalidChunkError as error:
        error.server_error = reading.error
        raise
    except RecursionError:
        raise TooDeepError("nested deeper than the stack holds") from None
    note_misfits(reading.misfits, reading.chunk)
    if kind == "text_completion":
        reading.chunk.object = "text_completion"
    return reading


def read_usage(value: object) -> Usage:
    """Read a usage from builtins; what does not fit goes to `extra`."""
    reading = ChunkReading({}, copying=True, has_halves=False, depth=STACK_DEPTH)
    return reading.fields(Usage, _object(value))
