"""An accumulator's state as bytes, and back: what `checkpoint` writes and `restore` reads.

The bytes are a header and msgpack. The Structs of the state are written with all of their fields,
so a new field is saved, too. Of the other classes the tests know each field.

Rules, limits and the other keywords are not saved: the caller passes them again. The rules must be
the same ones, because values that were merged by others cannot be merged again. Templates and
shapes are not saved either: they only make a stream faster, and are learnt again.

Nothing that is read here names a class or a function, so reading never runs what others wrote.
"""

from __future__ import annotations

from struct import Struct as Layout
from struct import error as LayoutError
from typing import Annotated, cast
from zlib import crc32

import attrs
import msgspec
from msgspec import Meta, Struct
from msgspec.msgpack import Decoder, Encoder, Ext

from ._checked import check_counts, check_state, check_values
from ._decode import chunk as _wire
from ._decode.body import JsonText
from ._decode.lines import Event, LineReader
from ._decode.text import Text
from ._merge import state as _state
from ._merge.arguments import ArgumentsText
from ._merge.chat import ChatReducer
from ._merge.json_merge import IndexedList, TypedList
from ._merge.state import State
from ._pipeline.apply import Tally
from ._pipeline.pipeline import Pipeline
from .errors import CheckpointError, Problem, ProblemKind

__all__ = ["pack", "unpack"]

_MAGIC = b"ACCU"
_VERSION = 3  # of what the fields mean; `_LAYOUT` says which fields there are
_HEADER = Layout("<4sHII")  # magic, version, layout, checksum of what follows
_TEXT, _INDEXED, _INTEGER, _PAIRS, _ARGUMENTS, _TYPED = range(1, 7)  # msgpack extension types
_MOST_HALVES = 65536  # of surrogate pairs that wait; each costs an object to go on with
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1  # integers that msgpack has

Count = Annotated[int, Meta(ge=0)]
ProblemRow = tuple[ProblemKind, str, int, int | None, str | None, object, Count]


class Saved(Struct, array_like=True):
    """All that a checkpoint holds."""

    rules: int
    think_tags: bool
    parser: LineReader
    tally: Tally
    queue: list[Event]
    is_begun: bool  # whether anything was read
    event: Count
    offset: Count | None
    counts: dict[ProblemKind, Count]
    problems: list[ProblemRow]
    met: ProblemRow | None
    reading: bool
    halves: int  # of surrogate pairs that wait, in texts that were replaced as well
    state: State


def pack(pipeline: Pipeline, reducer: ChatReducer) -> bytes:
    """Return an accumulator's state as bytes, in time that is linear in its size."""
    log = pipeline.log
    saved = Saved(
        rules=reducer.rules.digest,
        think_tags=reducer.think_tags,
        parser=pipeline.parser,
        tally=pipeline.tally,
        queue=[*pipeline.queue],
        is_begun=reducer.is_begun,
        event=log.event,
        offset=log.offset,
        counts={**(log.counts or {})},
        problems=[attrs.astuple(problem, recurse=False) for problem in log.problems],
        met=None if log.met is None else attrs.astuple(log.met, recurse=False),
        reading=reducer.reading,
        halves=min(reducer.halves, _MOST_HALVES),
        state=reducer.state,
    )
    body = _write(saved)
    return _HEADER.pack(_MAGIC, _VERSION, _LAYOUT, crc32(body)) + body


def unpack(data: bytes | bytearray | memoryview, pipeline: Pipeline, reducer: ChatReducer) -> None:
    """Restore a state that was packed, in a new accumulator. Raises CheckpointError."""
    try:
        magic, version, layout, checksum = _HEADER.unpack_from(data)
    except LayoutError:
        raise CheckpointError("no checkpoint, or one that was cut off") from None
    body = memoryview(data)[_HEADER.size :]
    if magic != _MAGIC:
        raise CheckpointError("no checkpoint: it does not start as one")
    if (version, layout) != (_VERSION, _LAYOUT):
        raise CheckpointError("the checkpoint was written by another version of accumulator")
    if crc32(body) != checksum:
        raise CheckpointError("the checkpoint is damaged: its checksum does not match")
    reader = _Reader()
    try:
        saved = reader.read(body)
        _check(saved, reader)
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise CheckpointError(f"the checkpoint is damaged: {error}") from None
    if saved.rules != reducer.rules.digest:
        raise CheckpointError("the checkpoint was written under other rules than those given")
    if saved.think_tags != reducer.think_tags:
        raise CheckpointError(f"the checkpoint was written with think_tags={saved.think_tags}")
    problems = [Problem(*row) for row in saved.problems]
    met = None if saved.met is None else Problem(*saved.met)
    pipeline.log.resume(saved.event, saved.offset, saved.counts, problems, met)
    lost = [Text() for _ in range(saved.halves - len(reader.halves))]
    for text in lost:
        text.half = "\ud800"  # which half it was makes no difference any more
    if saved.is_begun:
        reducer.go_on()
    reducer.resume(saved.state, reading=saved.reading, halves=[*reader.halves, *lost])
    pipeline.resume(saved.parser, saved.tally, saved.queue)


def _check(saved: Saved, reader: _Reader) -> None:
    """Check each count and place against what is there. Raises ValueError."""
    parser, tally, text = saved.parser, saved.tally, saved.parser.text
    check_state(saved.state)
    check_counts(tally.size, tally.besides, tally.size - tally.besides)
    check_counts(parser.size, parser.start, 0 if text is None else text.depth)
    check_counts(saved.halves - len(reader.halves), _MOST_HALVES - saved.halves)


def _write(value: object) -> bytes:
    try:
        return _encode(value)
    except OverflowError:  # an integer that JSON has and msgpack has not
        return _encode(_spelled_out(value))


def _replace(value: object) -> object:
    """Return what is written in place of a value that msgpack does not have."""
    if isinstance(value, Text):
        code = _ARGUMENTS if isinstance(value, ArgumentsText) else _TEXT
        return Ext(code, (str(value) + value.half).encode("utf-8", "surrogatepass"))
    if isinstance(value, TypedList):
        positions = {id(entry): position for position, entry in enumerate(value.entries)}
        types = [[index, type_, positions[id(e)]] for (index, type_), e in value.types.items()]
        places = [[index, positions[id(entry)]] for index, entry in value.places.items()]
        return Ext(_TYPED, _write([value.entries, places, types]))
    return Ext(_INDEXED, _write(_entries_of(cast("IndexedList", value))))


_encode = Encoder(enc_hook=_replace).encode
_MET = Decoder(Saved)  # so that two threads never prepare its types at once


class _Reader:
    """Reads msgpack, and collects the texts that end with half a surrogate pair."""

    __slots__ = ("_decode", "halves")

    def __init__(self) -> None:
        self.halves: list[Text] = []
        self._decode = Decoder(ext_hook=self._extension).decode

    def read(self, data: memoryview) -> Saved:
        values = self._decode(data)
        check_values(values)
        return msgspec.convert(values, Saved, dec_hook=self._convert)

    def _extension(self, code: int, data: memoryview) -> object:
        if code in (_TEXT, _ARGUMENTS):
            kind = Text if code == _TEXT else ArgumentsText
            return self._text(kind, str(data, "utf-8", "surrogatepass"))
        if code == _TYPED:
            return _typed(cast("list[object]", self._decode(data)))
        if code == _INDEXED:
            return _indexed(cast("list[object]", self._decode(data)))
        if code == _INTEGER:
            return int(bytes(data), 16)
        if code == _PAIRS:
            return dict(cast("list[tuple[object, object]]", self._decode(data)))
        raise ValueError(f"an unknown extension {code}")

    def _text(self, kind: type[Text], text: str) -> Text:
        if not "\ud800" <= text[-1:] <= "\udbff":
            return kind(text)
        found = kind(text[:-1])
        found.half = text[-1]
        self.halves.append(found)
        return found

    def _convert(self, kind: type, value: object) -> object:
        if kind is object or (kind is Text and isinstance(value, Text)):
            return value
        if kind is _wire.Extra and isinstance(value, dict):
            return _wire.Extra(value)
        raise ValueError(f"no {kind}: {type(value).__name__}")


def _spelled_out(value: object) -> object:
    """Copy builtins and Structs, with an extension for each integer that msgpack does not have."""
    if type(value) is int and not _SMALLEST <= value <= _LARGEST:
        return Ext(_INTEGER, b"%x" % value)
    if isinstance(value, Struct):
        fields = msgspec.structs.asdict(value)
        value = [*fields.values()] if value.__struct_config__.array_like else fields
    if isinstance(value, (list, tuple)):
        return [_spelled_out(item) for item in value]
    if isinstance(value, dict):  # a key may be an extension, too, but not of msgpack's own maps
        return Ext(_PAIRS, _encode([*map(_spelled_out, value.items())]))
    return value


def _entries_of(value: IndexedList) -> list[object]:
    """Return the entries of a list. If their own `index` does not say where each index stands,
    return that, too.
    """
    entries, by_index = value.entries, _places_by_index(value.entries)
    if len(by_index) == len(value.places) and all(
        by_index.get(index) is entry for index, entry in value.places.items()
    ):
        return [entries]
    positions = {id(entry): position for position, entry in enumerate(entries)}
    return [entries, [[index, positions[id(entry)]] for index, entry in value.places.items()]]


def _places_by_index(entries: list[object]) -> dict[int, _wire.JsonObject]:
    places: dict[int, _wire.JsonObject] = {}
    for entry in entries:
        index = entry.get("index") if isinstance(entry, dict) else None
        if type(index) is int:
            places[index] = cast("_wire.JsonObject", entry)
    return places


def _indexed(saved: list[object]) -> IndexedList:
    found = IndexedList()
    found.entries = cast("list[object]", saved[0])
    if len(saved) == 1:
        found.places = _places_by_index(found.entries)
    else:
        for index, position in cast("list[tuple[int, int]]", saved[1]):
            found.places[index] = _object_at(found.entries, position)
    return found


def _typed(saved: list[object]) -> TypedList:
    found = TypedList()
    entries = found.entries = cast("list[object]", saved[0])
    for index, position in cast("list[tuple[int, int]]", saved[1]):
        found.places[index] = _object_at(entries, position)
    for index, type_, position in cast("list[tuple[int, str, int]]", saved[2]):
        found.types[index, type_] = _object_at(entries, position)
    return found


def _object_at(entries: list[object], position: int) -> _wire.JsonObject:
    entry = entries[position]
    if position < 0 or not isinstance(entry, dict):
        raise ValueError("an index of no entry")
    return entry


def _layout(*modules: object) -> int:
    """Return a number that changes with the fields of any class that is saved."""
    names = [
        (name, kind.__struct_fields__)
        for module in modules
        for name, kind in sorted(vars(module).items())
        if isinstance(kind, type) and issubclass(kind, Struct)
    ]
    saved = (Saved, LineReader, JsonText, Event, Tally)
    fields = [*names, *((kind.__name__, kind.__struct_fields__) for kind in saved)]
    return crc32(repr(fields).encode())


_LAYOUT = _layout(_state, _wire)
