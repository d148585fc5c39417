"""An accumulator's state as bytes, and back: what `checkpoint` writes and `restore` reads.

The bytes are a header and msgpack. The Structs of the state are written with all of their fields,
so new fields are saved, too; the tests know each field of the other classes. Keyword arguments are
not saved: the caller passes them again, with the same rules, because values that were merged by
one rule cannot be merged further by another. Templates and shapes are learnt again.

Nothing in the bytes names a class or a function, so reading them never runs foreign code. The
checksum reveals damage, but not forgery. Forged bytes must not raise later, nor take more memory
than their size explains: so each count and position is checked against what is there.
"""

from __future__ import annotations

from struct import Struct as Layout
from struct import error as LayoutError
from typing import cast
from zlib import crc32

import attrs
import msgspec
from msgspec import Struct
from msgspec.msgpack import Decoder, Encoder, Ext

from ._decode import chunk as _wire
from ._decode.chunk import STACK_DEPTH
from ._decode.json_text import JsonText
from ._decode.lines import Event, LineReader
from ._decode.text import Text, holds_half, split_half
from ._merge import state as _state
from ._merge.arguments import ArgumentsText
from ._merge.chat import ChatReducer
from ._merge.json_merge import IndexedList
from ._merge.state import ChoiceState, State
from ._pipeline.apply import Tally
from ._pipeline.pipeline import Pipeline
from .errors import CheckpointError, Problem, ProblemKind

_MAGIC = b"ACCU"
_VERSION = 4  # of what the fields mean; `_LAYOUT` says which fields there are
_HEADER = Layout("<4sHII")  # magic, version, layout, checksum of what follows
_TEXT, _INDEXED, _INTEGER, _PAIRS, _ARGUMENTS = range(1, 6)  # msgpack extension types
_MOST_HALVES = 65536  # of surrogate pairs that wait; each is an object when restored
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1  # integers that msgpack has
_MOST_LEVELS = STACK_DEPTH + 32  # of a chunk's value, and of the state around it
_PLAIN = frozenset({type(None), bool, int, float, str})
_MERGED = _PLAIN | {Text, IndexedList}
_Indexed = tuple[list[object], list[tuple[int | tuple[int, str], int]]]  # entries and places


class Saved(Struct, array_like=True):
    """Everything that a checkpoint contains."""

    rules: int
    think_tags: bool
    parser: LineReader
    tally: Tally
    queue: list[Event]
    is_begun: bool  # whether anything was read
    event: int
    offset: int | None
    counts: dict[ProblemKind, int]
    problems: list[Problem]
    met: Problem | None
    reading: bool
    halves: int  # of surrogate pairs that wait, also in texts that were replaced
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
        counts=dict(log.counts),
        problems=[*log.problems],
        met=log.met,
        reading=reducer.is_reading,
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
        raise CheckpointError("not a checkpoint, or one that was cut off") from None
    body = memoryview(data)[_HEADER.size :]
    if magic != _MAGIC:
        raise CheckpointError("not a checkpoint: it does not start like one")
    if (version, layout) != (_VERSION, _LAYOUT):
        raise CheckpointError("the checkpoint was written by another version of accumulator")
    if crc32(body) != checksum:
        raise CheckpointError("the checkpoint is damaged: its checksum does not match")
    reader = _Reader()
    try:
        saved = msgspec.convert(reader.decode(body), Saved, dec_hook=reader.convert)
        _check(saved, reader)
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise CheckpointError(f"the checkpoint is damaged: {error}") from None
    if saved.rules != reducer.rules.digest:
        raise CheckpointError("the checkpoint was written under other rules than those given")
    if saved.think_tags != reducer.think_tags:
        raise CheckpointError(f"the checkpoint was written with think_tags={saved.think_tags}")
    log = pipeline.log
    log.event, log.offset, log.counts, log.met = saved.event, saved.offset, saved.counts, saved.met
    for problem in saved.problems:
        log.keep(problem)
    lost = [Text() for _ in range(saved.halves - len(reader.halves))]
    for text in lost:
        text.half = "\ud800"  # which half it was makes no difference any more
    halves = [*reader.halves, *lost]
    reducer.resume(saved.state, is_reading=saved.reading, is_begun=saved.is_begun, halves=halves)
    pipeline.resume(saved.parser, saved.tally, saved.queue)


def _write(value: object) -> bytes:
    try:
        return _encode(value)
    except OverflowError:  # an integer that JSON can have, but msgpack cannot
        return _encode(_spelled_out(value))


def _replace(value: object) -> object:
    """Return what is written instead of a value that msgpack does not have."""
    if isinstance(value, Text):
        code = _ARGUMENTS if isinstance(value, ArgumentsText) else _TEXT
        return Ext(code, (str(value) + value.half).encode("utf-8", "surrogatepass"))
    known = cast("IndexedList", value)
    return Ext(_INDEXED, _write([known.entries, [*known.places.items()]]))


_encode = Encoder(enc_hook=_replace).encode


def _spelled_out(value: object) -> object:
    """Copy builtins and Structs, with an extension for each integer that msgpack does not have."""
    if type(value) is int and not _SMALLEST <= value <= _LARGEST:
        return Ext(_INTEGER, b"%x" % value)
    if isinstance(value, Problem):
        value = attrs.asdict(value, recurse=False)
    if isinstance(value, Struct):
        fields = msgspec.structs.asdict(value)
        value = [*fields.values()] if value.__struct_config__.array_like else fields
    if isinstance(value, (list, tuple)):
        return [_spelled_out(item) for item in value]
    if isinstance(value, dict):  # a key may be an extension, too, but not in msgpack's own maps
        return Ext(_PAIRS, _encode([*map(_spelled_out, value.items())]))
    return value


class _Reader:
    """Reads msgpack, and collects the texts that end with half a surrogate pair."""

    def __init__(self) -> None:
        self.halves: list[Text] = []
        self.decode = Decoder(ext_hook=self._extension).decode

    def _extension(self, code: int, data: memoryview) -> object:
        if code in (_TEXT, _ARGUMENTS):
            seen, half = split_half(str(data, "utf-8", "surrogatepass"))
            if holds_half(seen):
                raise ValueError("half a surrogate pair inside a text")
            text = Text(seen) if code == _TEXT else ArgumentsText(seen)
            if half:
                text.half = half
                text.note(half)
                self.halves.append(text)
            return text
        if code == _INDEXED:
            entries, places = msgspec.convert(self.decode(data), _Indexed)
            if not all(place >= 0 and isinstance(entries[place], dict) for _, place in places):
                raise ValueError("an index without an entry")
            return IndexedList(entries, dict(places))
        if code == _INTEGER:
            return int(bytes(data), 16)
        if code == _PAIRS:
            return dict(cast("list[tuple[object, object]]", self.decode(data)))
        raise ValueError(f"an unknown extension {code}")

    def convert(self, kind: type, value: object) -> object:
        """Return a value if its field may have it. Raises ValueError."""
        if kind is object:
            _check_values(value, _MERGED)
            return value
        if kind is Text and isinstance(value, Text):
            return value
        if kind is _wire.Extra and isinstance(value, dict):
            _check_values(value, _PLAIN)
            return _wire.Extra(value)
        raise ValueError(f"a {type(value).__name__} instead of {kind}")


def _check_values(value: object, kinds: frozenset[type]) -> None:
    """Check that a value has only these kinds in it, strings as names, and not too many levels."""
    level = [value]
    for _ in range(_MOST_LEVELS):
        below: list[object] = []
        for item in level:
            if type(item) is dict:
                if not all(type(name) is str for name in item):
                    raise ValueError("a name that is not a string")
                below += item.values()
            elif type(item) is list:
                below += item
            elif type(item) not in kinds:
                raise ValueError(f"a value of the type {type(item).__name__}")
            elif isinstance(item, IndexedList):
                below += item.entries
        if not below:
            return
        level = below
    raise ValueError("values nested too deep")


def _check(saved: Saved, reader: _Reader) -> None:
    """Check each count and position against what is there. Raises ValueError."""
    parser, tally, text = saved.parser, saved.tally, saved.parser.text
    counts = [saved.event, saved.offset, parser.size, parser.start, *saved.counts.values()]
    counts += [tally.size, tally.besides, tally.size - tally.besides]
    counts += [problem.count for problem in saved.problems]
    counts += [0 if text is None else text.depth]
    counts += [saved.halves - len(reader.halves), _MOST_HALVES - saved.halves]
    if any(count is not None and count < 0 for count in counts):
        raise ValueError("a count below zero")
    if not saved.state.choices.keys() >= (saved.state.due or {}).keys():
        raise ValueError("calls to judge without a choice")
    for choice in saved.state.choices.values():
        _check_choice(choice)


def _check_choice(choice: ChoiceState) -> None:
    calls = choice.calls
    if calls is not None:
        count = len(calls.items)
        places = {*calls.by_id.values(), *calls.by_index.values(), *calls.by_both.values()}
        if not -1 <= calls.last < count or not all(0 <= place < count for place in places):
            raise ValueError("a position without a tool call")
    if choice.logprobs is not None:
        for tokens in (choice.logprobs.content, choice.logprobs.refusal):
            if tokens is not None and tokens.count != sum(map(len, tokens.runs)):
                raise ValueError("a wrong number of tokens")


_MET = Decoder(Saved)  # so that two threads never prepare its types at once
_KINDS = (*vars(_state).values(), *vars(_wire).values(), LineReader, JsonText, Event, Tally, Saved)
# A number that changes with the fields of any class that is saved.
_LAYOUT = crc32(
    repr(
        [
            (kind.__name__, [*kind.__annotations__])
            for kind in (*_KINDS, Problem)
            if isinstance(kind, type) and issubclass(kind, (Struct, Problem))
        ]
    ).encode()
)
