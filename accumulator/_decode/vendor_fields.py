"""Decode the chunks of one stream with typed decoders, vendors' fields included.

The Structs of `shapes` have those fields as raw JSON, because most repeat unchanged: Perplexity
sends all of its search results with every token. A value is not parsed again if its bytes are those
of the last one and its rule says that merging the same value twice changes nothing.

The result is the same `Chunk` as the general way gives, less such repetitions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct

from ..rules import Level
from .chunk import EMPTY, MOST_BRACKETS, Choice, Chunk, Delta, Extra, Parts
from .shapes import API, COMMON, Fields, Rest, Shape, find_shape, is_pending, unknown_names, widest
from .values import error_of

T = TypeVar("T")
Decode = Callable[[bytes], Chunk]
# A level of a stream: a choice is twice its index, its delta one more, the chunk a string.
Key = int | str
_OF_CHUNK = "chunk"

_MOST_NEXT_SHAPES = 64  # of one shape
_LONGEST_WORDS = 256  # characters of an error that leads to one: it contains a field's name
_LONGEST_REMEMBERED = 65536  # bytes of a chunk whose values are compared with the next
_LONGEST_HELD = 1024  # bytes of a chunk that may be kept for the sake of its values
_LONGEST_BACKOFF = 256  # chunks

_UNKNOWN = "unknown field"  # in a mismatch that names a vendor's field


class Seen(Struct):
    """The last values of one level, and whether merging them again changes nothing."""

    raws: tuple[Raw, ...] = ()
    is_quiet: bool = False


class ChunkDecoder(Struct):
    """Decodes the chunks of one stream with typed decoders.

    `decode` raises ValueError or RecursionError for a chunk that the current shape does not fit.
    Then `decode_mismatched` tries the other shapes. The first shape is that of common chunks.
    """

    _rules: Mapping[str, Level]
    is_off: bool = False  # whether all chunks go the general way
    _shape: Shape = COMMON
    # The last values. An empty dict would be a sizable part of the memory of an idle accumulator.
    _seen: dict[Key, Seen] = EMPTY
    _mismatch: str | None = None  # the last one
    # How many chunks to read the general way before the shape is tried again: a failed decode
    # is wasted time.
    _waits: int = 0
    _backoff: int = 1
    _next: int = 0  # the event at which the shape is tried again after the last mismatch

    @property
    def decode(self) -> Decode:
        """Return the decoder of the next chunk. `decode_mismatched` and `learn` may change it."""
        if self.is_off or self._waits:
            return _decode_nothing
        # Do not store the bound method: only the garbage collector can free such a cycle.
        return self._decode_fields if self._shape.has_fields else self._shape.decode

    @property
    def is_common(self) -> bool:
        """Whether `decode` takes common chunks, and nothing else."""
        return self._shape is COMMON and not self.is_off

    @property
    def repeats(self) -> bool:
        """Whether chunks may be alike: not if each repeats all of the text (Perplexity)."""
        return not self._shape.has_messages

    def decode_mismatched(self, text: bytes, mismatch: str, event: int) -> Chunk | None:
        """Decode a chunk on which `decode` failed, by a shape that took others like it.

        `mismatch` is what `mismatch_of` returned. Return None for a chunk that is left to the
        general way.
        """
        if self._waits:
            self._waits -= 1
            return None
        start, first = self._shape, mismatch
        while mismatch:
            self._mismatch = mismatch
            step = self._shape.next_shapes.get(mismatch)
            if step is None:
                if self._shape is not COMMON:
                    break
                step = API
            self._shape = widest(self._shape, step)
            self.forget()
            try:
                chunk = self.decode(text)
            except (ValueError, RecursionError) as error:
                mismatch = mismatch_of(error)
                continue
            if _UNKNOWN in first:
                _add_next_shape(start, first, self._shape)
            return chunk
        self.forget()  # values of this chunk may have been noted
        if event > self._next:  # others were decoded in the meantime
            self._backoff = 1
        self._waits = self._backoff
        self._next = event + self._waits + 1
        self._backoff = min(2 * self._backoff, _LONGEST_BACKOFF)
        return None

    def learn(self, value: Mapping[str, object]) -> None:
        """Look for Structs with the fields of a chunk that went the general way."""
        names = unknown_names(value, self._shape.names)
        if names is None:
            return
        shape = find_shape(names)
        if shape is not None:
            if self._mismatch is not None:
                _add_next_shape(self._shape, self._mismatch, shape)
            self._shape = widest(self._shape, shape)
            self.forget()
        if shape is not None or is_pending(names):
            self._waits, self._backoff = 0, 1

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
        self._seen = EMPTY

    def _decode_fields(self, text: bytes) -> Chunk:
        """Decode a chunk, and move the vendor's fields to the `extra` of their levels."""
        shape, size = self._shape, len(text)
        chunk = shape.decode(text)
        if not text.isascii():
            text.decode()  # checks all of it: the first value of a duplicate name is not parsed
        if self._seen is EMPTY:
            self._seen = {}
        of_choice, of_delta = shape.of_choice, shape.of_delta
        if shape.of_chunk is not None:
            self._read(shape.of_chunk, _OF_CHUNK, chunk, size)
        if of_choice is not None or of_delta is not None:
            position = -1  # as in `Reducer.apply`
            for choice in chunk.choices or ():
                position += 1
                key = 2 * (position if choice.index is None else choice.index)
                if of_choice is not None:
                    self._read(of_choice, key, choice, size)
                if of_delta is not None and choice.delta is not None:
                    self._read(of_delta, key + 1, choice.delta, size)
        if shape.rest is not None:
            _read_rest(shape.rest, chunk)
        return chunk

    def _read(self, fields: Fields, key: Key, into: Chunk | Choice | Delta, size: int) -> None:
        """Parse the fields of a level, unless they repeat the last ones and change nothing."""
        raws = fields.get(into)
        seen = self._seen.get(key)
        if seen is None:
            seen = self._seen[key] = Seen()
        is_repeated = raws == seen.raws
        if is_repeated and seen.is_quiet:
            return
        extra = _values(fields, raws)
        if extra:
            if "x_groq" in extra and error_of(extra["x_groq"]):
                raise ValueError("a server error")
            into.extra = extra
        seen.is_quiet = not extra
        if is_repeated:
            level = self._rules[fields.rules]
            seen.is_quiet = all(level.is_idempotent(*field) for field in extra.items())
        if size > _LONGEST_HELD:  # copied, so as not to keep the chunk
            raws = () if size > _LONGEST_REMEMBERED else tuple([raw.copy() for raw in raws])
        seen.raws = raws


def _add_next_shape(start: Shape, words: str, shape: Shape) -> None:
    """Note which shape takes a chunk that another one did not take."""
    if len(start.next_shapes) < _MOST_NEXT_SHAPES and len(words) <= _LONGEST_WORDS:
        start.next_shapes[words] = shape


@cache
def _parser() -> Callable[[Raw], Any]:
    """Return a parser of JSON that raises ValueError for what is nested so deep that its levels
    have to be counted. It takes some milliseconds to make.
    """
    kind: Any = bool | int | float | str | None
    for _ in range(MOST_BRACKETS):
        kind = bool | int | float | str | list[kind] | dict[str, kind] | None
    return msgspec.json.Decoder(kind).decode


def _values(fields: Fields, raws: tuple[Raw, ...]) -> Extra:
    """Parse the values of a level that are not null."""
    parse, extra = _parser(), Extra()
    for name, raw in zip(fields.names, raws):  # noqa: B905  # the last raw value is there twice
        value = parse(raw) if raw else None
        if value is not None:
            extra[name] = value
    return extra


def _read_rest(rest: Rest, of: Any) -> None:
    """Read what a level and those below it have besides the fields that often repeat."""
    if rest.fields is not None:
        of.extra = _values(rest.fields, rest.fields.get(of)) or None
    if rest.own is not None:
        _OWN[rest.own](of)
    for name, below in rest.below:
        inner = getattr(of, name)
        if type(inner) is list:
            for each in inner:
                _read_rest(below, each)
        elif inner is not None:
            _read_rest(below, inner)


def _parse(raw: Any) -> Any:
    """Return the value of a raw field, None where it is absent."""
    return _parser()(raw) if raw else None


def _decode_nothing(text: bytes) -> Chunk:
    raise ValueError("left to the general way")


def mismatch_of(error: Exception) -> str:
    """Return the message of a decoder's error if another shape may take the chunk, else "".

    Only the message is kept: an exception keeps alive the frames that it went through.
    """
    return str(error) if isinstance(error, msgspec.ValidationError) else ""


def _check_message(choice: Any) -> None:
    """Check a message that is dropped: Perplexity sends it beside a delta, with nothing new in it.

    Raises ValueError for a message without a delta, and for one that is nested too deep.
    """
    if _parse(choice.message) is not None and choice.delta is None:
        raise ValueError("a message instead of a delta")


def _read_parts(delta: Delta) -> None:
    """Parse content and annotations, and put lists where a `Delta` of the API has them."""
    content: object = delta.content
    if type(content) is Raw:
        content = _parse(content)
        if type(content) is list:
            delta.content, delta.parts = None, Parts(content)
        else:
            delta.content = None if content is None else _checked(content, str)
    annotations: object = delta.annotations
    if type(annotations) is Raw:
        annotations = _parse(annotations)
        delta.annotations = None if annotations is None else Parts(_checked(annotations, list))


def _read_moderation(chunk: Chunk) -> None:
    moderation: object = chunk.moderation
    if type(moderation) is Raw:
        moderation = _parse(moderation)
        chunk.moderation = None if moderation is None else Extra(_checked(moderation, dict))


def _checked(value: object, kind: type[T]) -> T:
    if type(value) is not kind:
        raise ValueError("a value of another kind")
    return value


# The functions that read those fields of a level that are not merged like a vendor's.
_OWN: Mapping[type[Struct], Callable[[Any], None]] = {
    Delta: _read_parts,
    Choice: _check_message,
    Chunk: _read_moderation,
}
