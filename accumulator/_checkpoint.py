"""An accumulator's state as bytes, and back: what `checkpoint` writes and `restore` reads.

The bytes are a header and msgpack. The classes of the state are written field by field as they
stand in `_state`, so a new field there is saved as well; what is no Struct has its row below, and
the tests hold the rows against the classes. Three things are not saved. Rules, limits and the other
keywords are the caller's, and given again; rules must be the same, because what was merged by
others cannot be merged again. Templates and shapes only make a stream faster, and are learnt anew.

Nothing that is read here names a class or a function, so reading never runs what others wrote.
"""

from __future__ import annotations

from itertools import groupby
from struct import Struct as Layout
from struct import error as LayoutError
from typing import TypeVar, cast
from zlib import crc32

import attrs
import msgspec
from msgspec import Struct
from msgspec.msgpack import Decoder, Encoder, Ext

from ._decode import chunk as _wire
from ._decode.sse import Event
from ._decode.text import Text
from ._merge import state as _state
from ._merge import tool_calls as _calls
from ._merge.chat import ChatReducer
from ._merge.json_merge import IndexedList
from ._merge.state import State
from ._pipeline import LineState, Pipeline
from .errors import CheckpointError, Problem, ProblemKind
from .partial import JsonScan

__all__ = ["pack", "unpack"]

_MAGIC = b"ACCU"
_VERSION = 1  # of what the fields mean; which fields there are is told by `_LAYOUT`
_HEADER = Layout("<4sHII")  # magic, version, layout, checksum of what follows
_TEXT, _INDEXED, _INTEGER, _PAIRS = range(1, 5)  # msgpack extension types
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1  # integers that msgpack has

S = TypeVar("S", bound=Struct)
Run = list[_wire.TokenLogprob] | _wire.UnreadTokens
EventRow = tuple[bytes, bytes | None, int | None, int]
ProblemRow = tuple[str, str, int, int | None, str | None, object]


class ParserFields(Struct, array_like=True):
    """What is saved of an `EventParser`, under its own names; so the next ones."""

    has_cr: bool
    pending: bytes
    skip_lf: bool
    size: int


class ScanFields(Struct, array_like=True):
    _closed: bool
    _depth: int
    _escaped: bool
    _in_string: bool
    _length: int
    _overrun: bool
    _verdict: bool | None


class LineFields(Struct, array_like=True):
    """Of a `LineState`."""

    waiting: bytes
    start: int | None
    end: int | None


class LogFields(Struct, array_like=True):
    """Of a `ProblemLog`."""

    counts: dict[str, int] | None
    event: int
    offset: int | None


class Saved(Struct, array_like=True):
    """All that a checkpoint holds."""

    rules: int
    parser: ParserFields
    lines: LineFields | None
    log: LogFields
    size: int  # bytes taken in
    besides: int  # those of them that are no part of a body
    passed: tuple[str, int] | None  # a limit, and its bound
    queue: list[EventRow]
    problems: list[ProblemRow]
    met: ProblemRow | None
    reading: bool
    halves: int  # of surrogate pairs that wait, in texts that were replaced as well
    state: State


def pack(pipeline: Pipeline, reducer: ChatReducer) -> bytes:
    """Give an accumulator's state as bytes, at a cost that grows with its size alone."""
    log = pipeline.log
    for choice in reducer.state.choices.values():
        if choice.logprobs is not None:
            for tokens in (choice.logprobs.content, choice.logprobs.refusal):
                if tokens is not None:
                    # In a list of its own: snapshots read the one that was there.
                    tokens.runs = _joined(tokens.runs)
    saved = Saved(
        rules=reducer.rules.digest,
        parser=_read(ParserFields, pipeline.parser),
        lines=None if pipeline.lines is None else _read(LineFields, pipeline.lines),
        log=_read(LogFields, log),
        size=pipeline.size,
        besides=pipeline.besides,
        passed=pipeline.passed,
        queue=[msgspec.structs.astuple(event) for event in pipeline.queue],
        problems=[attrs.astuple(problem, recurse=False) for problem in log.problems],
        met=None if log.met is None else attrs.astuple(log.met, recurse=False),
        reading=reducer.reading,
        halves=reducer.halves,
        state=reducer.state,
    )
    body = _write(saved)
    return _HEADER.pack(_MAGIC, _VERSION, _LAYOUT, crc32(body)) + body


def unpack(data: bytes | bytearray | memoryview, pipeline: Pipeline, reducer: ChatReducer) -> None:
    """Bring a new accumulator's intake to a state that was packed. Raises CheckpointError."""
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
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise CheckpointError(f"the checkpoint is damaged: {error}") from None
    if saved.rules != reducer.rules.digest:
        raise CheckpointError("the checkpoint was written under other rules than those given")
    _give(saved.parser, pipeline.parser)
    if saved.lines is not None:
        pipeline.lines = LineState()
        _give(saved.lines, pipeline.lines)
    log = pipeline.log
    _give(saved.log, log)
    pipeline.size = saved.size
    pipeline.besides = saved.besides
    pipeline.passed = saved.passed
    pipeline.queue = tuple(Event(*row) for row in saved.queue)
    log.problems = tuple(map(_problem, saved.problems))
    log.met = None if saved.met is None else _problem(saved.met)
    lost = [Text() for _ in range(saved.halves - len(reader.halves))]
    for text in lost:
        text.half = "\ud800"  # which half it was makes no difference any more
    reducer.resume(saved.state, reading=saved.reading, halves=[*reader.halves, *lost])
    pipeline.closed = saved.state.closed
    pipeline.look_again()


def _problem(row: ProblemRow) -> Problem:
    return Problem(cast("ProblemKind", row[0]), *row[1:])


def _read(kind: type[S], holder: object) -> S:
    return kind(*[getattr(holder, name) for name in kind.__struct_fields__])


def _give(fields: Struct, holder: object) -> None:
    for name in fields.__struct_fields__:
        setattr(holder, name, getattr(fields, name))


def _joined(runs: list[Run]) -> list[Run]:
    """Put unread tokens together, without what came with them: one read, one token is the usual
    case.
    """
    out: list[Run] = []
    for unread, some in groupby(runs, lambda run: isinstance(run, _wire.UnreadTokens)):
        if unread:
            lists = [_list_of(cast("_wire.UnreadTokens", run))[1:-1] for run in some]
            out.append(_wire.UnreadTokens(b"[%b]" % b",".join(filter(None, lists))))
        else:
            out += some
    return out


def _list_of(tokens: _wire.UnreadTokens) -> bytes:
    if tokens.decode == _wire.decode_tokens:
        return tokens.text
    return msgspec.json.encode(tokens.read())


def _write(value: object) -> bytes:
    try:
        return _encode(value)
    except OverflowError:  # an integer that JSON has and msgpack has not
        return _encode(_without_long_integers(value))


def _replace(value: object) -> object:
    """Give what stands for a value that msgpack does not have."""
    if isinstance(value, Text):
        return Ext(_TEXT, (str(value) + value.half).encode("utf-8", "surrogatepass"))
    if isinstance(value, IndexedList):
        return Ext(_INDEXED, _write(_places_of(value)))
    return _read(ScanFields, cast("JsonScan", value))


_encode = Encoder(enc_hook=_replace).encode
_MET = (Decoder(Saved), Decoder(ScanFields))  # before two threads meet them at once, see `_wire`


class _Reader:
    """Reads msgpack, and collects the texts in which a half waits."""

    __slots__ = ("_decode", "halves")

    def __init__(self) -> None:
        self.halves: list[Text] = []
        self._decode = Decoder(ext_hook=self._extension).decode

    def read(self, data: memoryview) -> Saved:
        return msgspec.convert(self._decode(data), Saved, dec_hook=self._convert)

    def _extension(self, code: int, data: memoryview) -> object:
        if code == _TEXT:
            return self._text(str(data, "utf-8", "surrogatepass"))
        if code == _INDEXED:
            return _indexed(cast("list[object]", self._decode(data)))
        if code == _INTEGER:
            return int.from_bytes(data, "little", signed=True)
        if code == _PAIRS:
            return dict(cast("list[tuple[object, object]]", self._decode(data)))
        raise ValueError(f"an unknown extension {code}")

    def _text(self, text: str) -> Text:
        if not "\ud800" <= text[-1:] <= "\udbff":
            return Text(text)
        found = Text(text[:-1])
        found.half = text[-1]
        self.halves.append(found)
        return found

    def _convert(self, kind: type, value: object) -> object:
        if kind is object or (kind is Text and isinstance(value, Text)):
            return value
        if kind is JsonScan:
            scan = JsonScan("")
            _give(msgspec.convert(value, ScanFields), scan)
            return scan
        if kind is _wire.Extra and isinstance(value, dict):
            return _wire.Extra(value)
        raise ValueError(f"no {kind}: {type(value).__name__}")


def _without_long_integers(value: object) -> object:
    """Copy builtins and Structs, with what msgpack has no integer for as an extension."""
    if type(value) is int:
        if _SMALLEST <= value <= _LARGEST:
            return value
        size = value.bit_length() // 8 + 1
        return Ext(_INTEGER, value.to_bytes(size, "little", signed=True))
    if isinstance(value, Struct):
        fields = [(name, getattr(value, name)) for name in value.__struct_fields__]
        if value.__struct_config__.array_like:
            return [_without_long_integers(item) for _, item in fields]
        return {name: _without_long_integers(item) for name, item in fields}
    if isinstance(value, (list, tuple)):
        return [_without_long_integers(item) for item in value]
    if not isinstance(value, dict):
        return value
    pairs = [(name, _without_long_integers(item)) for name, item in value.items()]
    if any(type(name) is int and not _SMALLEST <= name <= _LARGEST for name in value):
        rows = [[_without_long_integers(name), item] for name, item in pairs]
        return Ext(_PAIRS, _write(rows))
    return dict(pairs)


def _places_of(value: IndexedList) -> list[object]:
    """Give the entries of a list; and where which index stands, unless the entries say so."""
    entries, told = value.entries, _places_told(value.entries)
    if len(told) == len(value.places) and all(
        told.get(index) is entry for index, entry in value.places.items()
    ):
        return [entries]
    positions = {id(entry): position for position, entry in enumerate(entries)}
    return [entries, [[index, positions[id(entry)]] for index, entry in value.places.items()]]


def _places_told(entries: list[object]) -> dict[int, _wire.JsonObject]:
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
        found.places = _places_told(found.entries)
    else:
        for index, position in cast("list[tuple[int, int]]", saved[1]):
            found.places[index] = cast("_wire.JsonObject", found.entries[position])
    return found


def _layout(*modules: object) -> int:
    """Give a number for the fields of all classes that are saved, in their order."""
    names = [
        (name, kind.__struct_fields__)
        for module in modules
        for name, kind in sorted(vars(module).items())
        if isinstance(kind, type) and issubclass(kind, Struct)
    ]
    saved = (Saved, ParserFields, ScanFields, LineFields, LogFields)
    fields = [*names, *((kind.__name__, kind.__struct_fields__) for kind in saved)]
    return crc32(repr(fields).encode())


_LAYOUT = _layout(_calls, _state, _wire)
