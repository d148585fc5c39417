"""Decode the chunks of one stream with typed decoders, vendors' fields included.

The Structs of `shapes` have those fields as raw JSON, because most repeat unchanged: Perplexity
sends all of its search results with every token. A value is not parsed again if its bytes are those
of the last one and its rule says that merging the same value twice changes nothing.

Fields of the API with a value of another type are raw as well, and read as the general way reads
them. The result is the same `Chunk` as the general way gives, less such repetitions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from typing import Any

import msgspec
from msgspec import Raw, Struct, convert

from ..rules import Level
from .chunk import (
    EMPTY,
    SAFE_LEVELS,
    STACK_DEPTH,
    Choice,
    Chunk,
    Delta,
    Extra,
    JsonObject,
    Misfit,
    Parts,
    TokenLogprob,
    decode_common,
)
from .lenient import ChunkReading, note_misfits, put_below, readers_of
from .shapes import COMMON, Layout, Shape, find_shape, shape_after, wider_names
from .values import error_of

Decode = Callable[[bytes], Chunk]
# A level of a stream: a choice is twice its index, its delta one more, the chunk a string.
Key = int | str
Raws = tuple[Raw, ...]
_OF_CHUNK = "chunk"

_LONGEST_MISMATCH = 256  # characters: it contains a field's name
_LONGEST_REMEMBERED = 65536  # bytes of a chunk whose values are compared with the next
_MOST_BARE = 6  # chunks without a vendor's fields, before going back to common ones is tried
_LONGEST_HELD = 1024  # bytes of a chunk that may be kept for the sake of its values


class ChunkDecoder(Struct):
    """Decodes the chunks of one stream with typed decoders.

    `decode` raises ValueError or RecursionError for a chunk that the current shape does not fit.
    Then `decode_mismatched` tries others. The first shape is that of common chunks.
    """

    _rules: Mapping[str, Level]
    is_off: bool = False  # whether all chunks go the general way
    _shape: Shape = COMMON
    # The last values of each level, and those of them that change nothing if they are merged again.
    # Empty dicts would be a sizable part of the memory of an idle accumulator.
    _last: dict[Key, Raws] = EMPTY
    _quiet: dict[Key, Raws] = EMPTY
    _mismatch: str = ""  # the last of a shape without a vendor's fields
    _bare: int = 0  # chunks since a level lost its vendor's fields; 0 if none has
    _in_vain: int = 0  # chunks in a row that no Structs would fit

    @property
    def decode(self) -> Decode:
        """Return the decoder of the next chunk. `decode_mismatched` and `learn` may change it."""
        if self.is_off:
            return _decode_nothing
        # Do not store the bound method: only the garbage collector can free such a cycle.
        return self._decode_fields if self._shape.names else self._shape.decode

    @property
    def is_common(self) -> bool:
        """Whether `decode` takes common chunks, and nothing else."""
        return self._shape is COMMON and not self.is_off

    @property
    def may_be_alike(self) -> bool:
        """Whether chunks may differ in a fragment alone: not if each has all of the text so far."""
        return not self._shape.has_messages

    def decode_mismatched(self, text: bytes, mismatch: str) -> Chunk | None:
        """Decode a chunk on which `decode` failed, by a shape that took others like it.

        `mismatch` is what `mismatch_of` returned. Return None for a chunk that is left to the
        general way.
        """
        start = self._shape
        if not mismatch and self.is_common:  # it may have gone back just now
            with suppress(ValueError, RecursionError):
                return decode_common(text)
        while mismatch and not self._shape.names:
            self._mismatch = mismatch
            shape = shape_after(mismatch)
            if shape is self._shape:
                break
            self._shape = shape
            try:
                return self.decode(text)
            except (ValueError, RecursionError) as error:
                mismatch = mismatch_of(error)
        if not mismatch:  # then no shape takes the text
            self._shape = start
        self.forget()  # values of this chunk may have been noted
        return None

    def learn(self, value: Mapping[str, object]) -> None:
        """Look for Structs with the fields of a chunk that went the general way. After chunks that
        no Structs fit, look less and less often.
        """
        self._in_vain += 1
        if self._in_vain & (self._in_vain - 1):
            return
        known = self._shape.names or shape_after(self._mismatch).names
        names = wider_names(known, value)
        if names is None:
            return
        self._in_vain = 0
        shape = find_shape(names, self._mismatch)
        if shape is not None:
            self._shape = shape
            self.forget()

    def decode_alone(self, text: bytes) -> Chunk:
        """Decode a chunk as if it were the first, and remember none of its values.

        Raises ValueError or RecursionError if the current shape does not fit it.
        """
        self.forget()
        try:
            return self.decode(text)
        finally:
            self.forget()

    def begin_again(self) -> None:
        """Decode the next chunk as if it were a stream's first."""
        self._shape = COMMON
        self.forget()

    def forget(self) -> None:
        """Forget the last values, because something else was merged since."""
        self._last, self._quiet = EMPTY, EMPTY

    def _decode_fields(self, text: bytes) -> Chunk:
        """Decode a chunk, and move the vendor's fields to the `extra` of their levels."""
        shape, size = self._shape, len(text)
        chunk = shape.decode(text)
        if not text.isascii():
            text.decode()  # checks all of it: the first value of a duplicate name is not parsed
        if shape.uncompared is not None:
            misfits: list[Misfit] = []
            _read_uncompared(shape.uncompared, chunk, misfits)
            note_misfits(misfits, chunk)
        quiet = self._quiet
        of_chunk, of_choice, of_delta = shape.compared
        if of_chunk and (raws := of_chunk.get(chunk)) != quiet.get(_OF_CHUNK):
            self._read(of_chunk, _OF_CHUNK, chunk, raws, size)
        if shape.compares_choices:
            for position, choice in enumerate(chunk.choices or ()):
                key, delta = 2 * (position if choice.index is None else choice.index), choice.delta
                if of_choice and (raws := of_choice.get(choice)) != quiet.get(key):
                    self._read(of_choice, key, choice, raws, size)
                if of_delta and delta and (raws := of_delta.get(delta)) != quiet.get(key + 1):
                    self._read(of_delta, key + 1, delta, raws, size)
        if self._bare:
            self._count_bare(text)
        return chunk

    def _count_bare(self, text: bytes) -> None:
        """Count a chunk. After some, go back to common chunks if this is one: Groq's field is only
        in the first chunk and the last. Then raise ValueError, so that the caller asks for the
        decoder again.
        """
        self._bare += 1
        if self._bare <= _MOST_BARE:
            return
        self._bare = 0
        with suppress(ValueError):
            decode_common(text)
            self.begin_again()
        if self.is_common:
            raise ValueError("a common chunk")

    def _read(
        self, layout: Layout, key: Key, into: Chunk | Choice | Delta, raws: Raws, size: int
    ) -> None:
        """Parse the fields of a level, and note them and whether they are quiet."""
        extra = _values(layout, raws)
        self._bare = 0 if any(raws) else 1
        if extra:
            if "x_groq" in extra and error_of(extra["x_groq"]):
                raise ValueError("a server error")
            into.extra = _sorted(extra, into.extra)
        is_quiet = not extra
        if raws == self._last.get(key):
            rows = self._rules[layout.rules]
            is_quiet = all(rows.is_idempotent(*field) for field in extra.items())
        if size > _LONGEST_HELD:  # copied, so as not to keep the chunk
            raws = () if size > _LONGEST_REMEMBERED else tuple([raw.copy() for raw in raws])
        if self._last is EMPTY:
            self._last, self._quiet = {}, {}
        self._last[key] = raws
        if is_quiet:
            self._quiet[key] = raws
        else:
            self._quiet.pop(key, None)


@cache
def _parser() -> Callable[[Raw], Any]:
    """Return a parser of JSON that raises ValueError for what is nested so deep that its levels
    have to be counted. It takes some milliseconds to make.
    """
    kind: Any = bool | int | float | str | None
    for _ in range(SAFE_LEVELS):
        kind = bool | int | float | str | list[kind] | dict[str, kind] | None
    return msgspec.json.Decoder(kind).decode


def _values(layout: Layout, raws: tuple[Raw, ...]) -> Extra:
    """Parse the values of a level that are not null."""
    parse, extra = _parser(), Extra()
    for name, raw in zip(layout.names, raws):  # noqa: B905  # the last raw value is there twice
        value = parse(raw) if raw else None
        if value is not None:
            extra[name] = value
    return extra


def _sorted(extra: Extra, left: Extra | None) -> Extra:
    """Return a level's fields, sorted as the general way sorts them."""
    return extra if left is None else Extra(sorted({**extra, **left}.items()))


def _read_uncompared(layout: Layout, of: Any, misfits: list[Misfit]) -> None:
    """Read what is not compared with the last chunk's: fields of the API with a value of another
    type, as the general way reads them, and the levels below.
    """
    for name, below in layout.below:
        inner = getattr(of, name)
        if type(inner) is list:
            for i, each in enumerate(inner):
                before = len(misfits)
                _read_uncompared(below, each, misfits)
                if len(misfits) > before:
                    put_below(misfits, f".{name}[{i}]", before)
            if below.kind is TokenLogprob:  # which are kept
                setattr(of, name, convert(inner, list[TokenLogprob], from_attributes=True))
        elif inner is not None:
            before = len(misfits)
            _read_uncompared(below, inner, misfits)
            if len(misfits) > before:
                put_below(misfits, f".{name}", before)
    if layout.api_names:
        _read_api_fields(layout, of, misfits)
    if layout.names and not layout.is_compared:
        extra = _values(layout, layout.get(of))
        if extra:
            of.extra = _sorted(extra, of.extra)


def _read_api_fields(layout: Layout, of: Any, misfits: list[Misfit]) -> None:
    """Read the fields of a level that have values of other types.

    Raises ValueError for a value that must go the general way.
    """
    left: JsonObject = {}
    for name in layout.api_names:
        raw = getattr(of, name)
        value = _parser()(raw) if raw else None
        setattr(of, name, None)
        if value is None or name == "obfuscation":
            continue
        if name == "content" and type(value) is list:
            of.parts = Parts(value)
        elif name == "message":
            # It is dropped: Perplexity sends it beside a delta, with nothing new in it.
            if of.delta is None:
                raise ValueError("a message instead of a delta")
        elif name == "error":
            if error_of({"error": value}):
                raise ValueError("a server error")
        elif name == "object":
            of.object = value if type(value) is str else None
        else:
            rest = _read_as_api(layout.kind, name, value, of, misfits)
            if rest is not None:
                left[name] = rest
    if left:
        of.extra = Extra(sorted(left.items()))


def _read_as_api(
    kind: type[Struct], name: str, value: object, of: Any, misfits: list[Misfit]
) -> object:
    """Read a field into its place as the general way does; return what is left of its value."""
    _, read = readers_of(kind).get(name, (None, None))
    if read is None:
        return value
    reading = ChunkReading({}, copying=False, has_halves=False, depth=STACK_DEPTH)
    reading.misfits = misfits
    return reading.take(of, name, read, value)


def _decode_nothing(text: bytes) -> Chunk:
    raise ValueError("left to the general way")


def mismatch_of(error: Exception) -> str:
    """Return how a decoder's message begins if another shape may take the chunk, else "".

    Only that is kept: an exception keeps alive the frames that it went through.
    """
    is_mismatch = isinstance(error, msgspec.ValidationError)
    return str(error)[:_LONGEST_MISMATCH] if is_mismatch else ""
