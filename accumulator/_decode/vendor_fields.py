"""The chunks of one stream, decoded typed, vendors' fields included.

In the Structs of `shapes` those fields are raw JSON, because most come again unchanged: Perplexity
sends all of its search results with every token. A value is not parsed again if its bytes are those
of the last one and its rule makes nothing of the same value twice.

What is read here is the same `Chunk` as the general way reads, less such repetitions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from operator import attrgetter
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct

from ..rules import Level
from .chunk import (
    MOST_BRACKETS,
    Choice,
    Chunk,
    Delta,
    Extra,
    Parts,
    Usage,
)
from .shapes import API, TEXT, Fields, Rare, Shape, find_shape, is_pending, unknown_names, widest
from .values import error_of

T = TypeVar("T")
Decode = Callable[[bytes], Chunk]
# A level of a stream: a choice by twice its index, its delta by one more, and the chunk.
Key = int | str
_OF_CHUNK = "chunk"

_MOST_NEXT_SHAPES = 64  # of one shape
_LONGEST_WORDS = 256  # characters of an error that leads to one: they hold a field's name
_LONGEST_REMEMBERED = 65536  # bytes of a chunk whose values are compared with the next
_LONGEST_HELD = 1024  # bytes of a chunk that is kept whole for the sake of its values
_LONGEST_BACKOFF = 256  # chunks

_UNKNOWN = "unknown field"  # of a mismatch that names a vendor's field

_message_of: Callable[[Choice], Raw] = attrgetter("message")
_ABSENT, _NULL = Raw(b""), Raw(b"null")
_NEVER_WRITTEN: Any = MappingProxyType({})


class Seen(Struct):
    """The last values of one level."""

    raws: tuple[Raw, ...]
    is_settled: list[bool]  # of each, whether it makes no difference when it comes again
    is_quiet: bool = False  # whether none made a difference


class ChunkDecoder(Struct):
    """Decodes the chunks of one stream, typed.

    `decode` raises ValueError or RecursionError for what is not of the shape at hand, and then
    `decode_mismatched` tries the other shapes. A stream begins as text and nothing else.
    """

    _rules: Mapping[str, Level]
    is_off: bool = False  # whether all chunks go the general way
    _shape: Shape = TEXT
    # The values that came last. A dict would be a sizable part of what an idle accumulator holds.
    _seen: dict[Key, Seen] = _NEVER_WRITTEN
    _mismatch: str | None = None  # the last one
    # How many chunks to read the general way before the shape is tried again: a decode that fails
    # is wasted.
    _waits: int = 0
    _backoff: int = 1
    _next: int = 0  # the event that is tried again after the last mismatch

    @property
    def decode(self) -> Decode:
        """Return the decoder of the next chunk. It changes with `decode_mismatched` and `learn`."""
        if self.is_off or self._waits:
            return _decode_nothing
        # A bound method is not kept: what holds itself is freed by the garbage collector alone.
        return self._decode_fields if self._shape.has_fields else self._shape.decode

    @property
    def is_text(self) -> bool:
        """Whether `decode` takes text and nothing else."""
        return self._shape is TEXT and not self.is_off

    @property
    def repeats(self) -> bool:
        """Whether chunks may be alike; not with all of the text in each (Perplexity)."""
        rare = self._shape.rare
        return rare is None or not rare.has_messages

    def decode_mismatched(self, text: bytes, mismatch: str, event: int) -> Chunk | None:
        """Decode a chunk on which `decode` failed, in a shape that took others like it.

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
                if self._shape is not TEXT:
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
        self.forget()  # something of this chunk may have been read
        if event > self._next:  # others were taken in the meantime
            self._backoff = 1
        self._waits = self._backoff
        self._next = event + self._waits + 1
        self._backoff = min(2 * self._backoff, _LONGEST_BACKOFF)
        return None

    def learn(self, value: Mapping[str, object]) -> None:
        """Look for Structs that know the fields of a chunk that went the general way."""
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
        """Decode a chunk as if no other had come before, and remember nothing of it.

        Raises ValueError or RecursionError for one that another shape may take.
        """
        self.forget()
        try:
            return self.decode(text)
        finally:
            self.forget()

    def begin_again(self) -> None:
        """Take the next chunk for a stream's first."""
        self._shape = TEXT
        self.forget()

    def forget(self) -> None:
        """Forget the last values, because something else was merged since."""
        self._seen = _NEVER_WRITTEN

    def _decode_fields(self, text: bytes) -> Chunk:
        """Decode a chunk, and move the vendor's fields to the `extra` of their levels."""
        shape = self._shape
        chunk = shape.decode(text)
        if not text.isascii():
            text.decode()  # of a name that stands twice nobody parses the first value
        if self._seen is _NEVER_WRITTEN:
            self._seen = {}
        if shape.of_chunk is not None:
            self._read(shape.of_chunk, _OF_CHUNK, chunk, len(text))
        if shape.has_moderation:
            found = _parse(chunk.moderation)
            chunk.moderation = None if found is None else Extra(_checked(found, dict))
        if shape.of_usage is not None and chunk.usage is not None:
            _read_usage(shape.of_usage, chunk.usage)
        if shape.in_choices and chunk.choices is not None:
            self._read_choices(shape, chunk.choices, len(text))
        return chunk

    def _read_choices(self, shape: Shape, choices: list[Choice], size: int) -> None:
        of_choice, of_delta = shape.of_choice, shape.of_delta
        position = -1  # as in `Reducer.apply`
        for choice in choices:
            position += 1
            key = 2 * (position if choice.index is None else choice.index)
            if of_choice is not None:
                self._read(of_choice, key, choice, size)
            if of_delta is not None and choice.delta is not None:
                self._read(of_delta, key + 1, choice.delta, size)
            if shape.of_usage is not None and choice.usage is not None:
                _read_usage(shape.of_usage, choice.usage)
            if shape.rare is not None:
                _read_rare(shape.rare, choice)

    def _read(self, fields: Fields, key: Key, into: Chunk | Choice | Delta, size: int) -> None:
        """Parse the fields of a level, but not what came before and makes no difference."""
        raws = fields.get(into)
        seen = self._seen.get(key)
        if seen is None:
            seen = self._seen[key] = Seen((_ABSENT,) * len(raws), [False] * len(raws))
        elif seen.is_quiet and raws == seen.raws:
            return
        last, is_settled, parse = seen.raws, seen.is_settled, _parser()
        extra = Extra()
        for i, name in enumerate(fields.names):
            raw = raws[i]
            is_repeated = raw == last[i]
            if is_repeated and is_settled[i]:
                continue
            value = parse(raw) if raw else None
            if value is not None:
                if name == "x_groq" and error_of(value):
                    raise ValueError("a server error")
                extra[name] = value
            is_settled[i] = is_repeated and (
                value is None or self._rules[fields.level].is_idempotent(name, value)
            )
        if size > _LONGEST_HELD:
            raws = _kept(raws, size)
        seen.raws, seen.is_quiet = raws, not extra
        if extra:
            into.extra = extra


def _kept(raws: tuple[Raw, ...], size: int) -> tuple[Raw, ...]:
    """Return values without the long chunk that they are part of."""
    if size > _LONGEST_REMEMBERED:
        return (_ABSENT,) * len(raws)
    return tuple([raw.copy() for raw in raws])


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


def _parse(raw: Any) -> Any:
    """Return the value of a raw field, None where it is absent."""
    return _parser()(raw) if raw else None


def _values(fields: Fields, of: object) -> Extra | None:
    """Parse the vendor's fields of a level in which nothing is known to come again."""
    parse = _parser()
    pairs = zip(fields.names, fields.get(of), strict=False)
    values = Extra((name, parse(raw)) for name, raw in pairs if raw and raw != _NULL)
    return values or None


def _read_rare(rare: Rare, choice: Choice) -> None:
    """Read the vendor's fields of logprobs and calls, a message, and content in parts."""
    delta, logprobs = choice.delta, choice.logprobs
    if rare.of_logprobs is not None and logprobs is not None:
        logprobs.extra = _values(rare.of_logprobs, logprobs)
    if rare.has_messages:
        _check_message(choice)
    if delta is None:
        return
    if rare.of_call is not None:
        for call in delta.tool_calls or ():
            call.extra = _values(rare.of_call, call)
    if rare.has_parts:
        _read_parts(delta)


def _read_usage(of_usage: tuple[Fields | None, ...], usage: Usage) -> None:
    for fields, level in zip(
        of_usage,
        (usage, usage.prompt_tokens_details, usage.completion_tokens_details),
        strict=True,
    ):
        if fields is not None and level is not None:
            level.extra = _values(fields, level)


def _decode_nothing(text: bytes) -> Chunk:
    raise ValueError("left to the general way")


def mismatch_of(error: Exception) -> str:
    """Return the words of a decoder's error if another shape may take the chunk, else none.

    They are all that is kept of it: an exception holds the frames that it went through.
    """
    return str(error) if isinstance(error, msgspec.ValidationError) else ""


def _check_message(choice: Choice) -> None:
    """Check a message that is dropped: Perplexity sends it beside a delta, with nothing new in it.

    Raises ValueError for a message without a delta, and for one that is nested too deep.
    """
    if _parse(_message_of(choice)) is not None and choice.delta is None:
        raise ValueError("a message in place of a delta")


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


def _checked(value: object, kind: type[T]) -> T:
    if type(value) is not kind:
        raise ValueError("a value of another kind")
    return value
