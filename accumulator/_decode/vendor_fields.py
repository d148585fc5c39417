"""Chunks of one stream, decoded typed, vendors' fields included.

Those are raw JSON in the Structs of `_schema`, because most come again unchanged (Perplexity sends
all of its search results with every token): a value whose bytes are those of the last one, and
whose rule makes nothing of the same value twice, is not parsed again.

What is read here is the same `Chunk` as the general way reads, less such repetitions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from types import MappingProxyType
from typing import Any

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
    check_depth,
    exceeds_depth,
)
from .schema import (
    API,
    LEVELS,
    TEXT,
    RawFields,
    Schema,
    find_schema,
    may_come,
    unknown_names,
    widest,
)

__all__ = ["ChunkDecoder", "words_of"]

_PROMPT, _COMPLETION, _USAGE, _LOGPROBS, _CALL, _DELTA, _CHOICE, _CHUNK = range(len(LEVELS))
# Whose rules say whether the same value twice makes a difference; in usage it makes none.
_RULES_OF = {
    _CHUNK: "chunk",
    _CHOICE: "choice",
    _DELTA: "delta",
    _LOGPROBS: "choice.logprobs",
}
# A level of a stream as a number: its place in LEVELS, and for one in a choice, the choice's index
# times their count more.
Place = int
Decode = Callable[[bytes], Chunk]

_MOST_STEPS = 64  # from one shape to others
_AROUND = 4  # brackets around what is in a delta
_LONGEST_REMEMBERED = 65536  # bytes of a level's values that are compared with the next
_SHORTEST_COPIED = 256  # bytes of them that hold a chunk, which is not so much longer
_LONGEST_BACKOFF = 256  # chunks

_UNKNOWN = "unknown field"  # of a refusal that names a vendor's field

_decode_value = msgspec.json.Decoder().decode
_message_of: Callable[[Choice], Raw] = attrgetter("message")
_NULL = Raw(b"null")
_NEVER_WRITTEN: Any = MappingProxyType({})


class ChunkDecoder(Struct):
    """Decodes the chunks of one stream, typed.

    `decode` raises ValueError or RecursionError for what is not of the shape at hand, and then
    `retry` tries the other shapes. A stream begins as text and nothing else.
    """

    _levels: Mapping[str, Level]
    _refuses: bool = False
    _schema: Schema = TEXT
    # The last values, which of them settle, and values that brought nothing new. Most streams have
    # none: three dicts would be a fifth of what an idle accumulator holds.
    _last: dict[Place, tuple[Raw, ...]] = _NEVER_WRITTEN
    _settled: dict[Place, dict[str, bool]] = _NEVER_WRITTEN
    _quiet: dict[Place, tuple[Raw, ...]] = _NEVER_WRITTEN
    _refusal: str | None = None
    repeats: bool = True  # whether chunks may be alike; not with all of the text in each
    # How many chunks to read the general way before the shape is tried again: a refused decode is
    # wasted.
    _waits: int = 0
    _backoff: int = 1
    _next: int = 0  # the event that is tried again after the last refusal

    @property
    def decode(self) -> Decode:
        """Return the decoder of the next chunk. It changes with `retry` and `learn`."""
        if self._refuses or self._waits:
            return _refuse
        # A bound method is not kept: what holds itself is freed by the garbage collector alone.
        return self._decode_raw if self._schema.has_fields else self._schema.decode

    @property
    def is_text(self) -> bool:
        """Whether `decode` takes text and nothing else."""
        return self._schema is TEXT and not self._refuses

    def retry(self, text: bytes, refusal: str, event: int) -> Chunk | None:
        """Decode a chunk that `decode` refused with these words in a shape that took others like
        it. Return None for one that is left to the general way.
        """
        if self._waits:
            self._waits -= 1
            return None
        start, words = self._schema, refusal
        while refusal:
            self._refusal = refusal
            step = self._schema.steps.get(refusal)
            if step is None:
                if self._schema is not TEXT:
                    break
                step = API
            self._enter(widest(self._schema, step))
            try:
                chunk = self.decode(text)
            except (ValueError, RecursionError) as error:
                refusal = words_of(error)
                continue
            if _UNKNOWN in words and len(start.steps) < _MOST_STEPS:
                start.steps[words] = self._schema
            return chunk
        self.forget()  # of the refused chunk something may have been read
        if event > self._next:  # others were taken in the meantime
            self._backoff = 1
        self._waits = self._backoff
        self._next = event + self._waits + 1
        self._backoff = min(2 * self._backoff, _LONGEST_BACKOFF)
        return None

    def learn(self, value: Mapping[str, object]) -> None:
        """Look for Structs that know the fields of a chunk that was refused."""
        steps = self._schema.steps
        names = unknown_names(value, self._schema.names)
        schema = None if names is None else find_schema(names)
        if schema is not None:
            if self._refusal is not None and len(steps) < _MOST_STEPS:
                steps[self._refusal] = schema
            self._enter(widest(self._schema, schema))
        if schema is not None or (names is not None and may_come(names)):
            self._waits, self._backoff = 0, 1

    def _enter(self, schema: Schema) -> None:
        self._schema = schema
        self.forget()

    def decode_alone(self, text: bytes) -> Chunk:
        """Decode a chunk whole, whatever came before, and remember nothing of it. Raises
        ValueError or RecursionError for one that another shape may take.
        """
        self.forget()
        try:
            return self.decode(text)
        finally:
            self.forget()

    def forget(self) -> None:
        """Something was merged that did not pass through here: no value is known to stand."""
        if self._last is not _NEVER_WRITTEN:
            self._last = self._settled = self._quiet = _NEVER_WRITTEN

    def _decode_raw(self, text: bytes) -> Chunk:
        """Decode a chunk, and move its raw fields to the `extra` of their levels."""
        schema, quiet = self._schema, self._quiet
        chunk = schema.decode(text)
        of_chunk, of_choice, of_delta, of_logprobs, of_call = schema.raw
        if of_chunk is not None:
            raws = of_chunk.get(chunk)
            if raws != quiet.get(_CHUNK):
                self._read(of_chunk, _CHUNK, raws, chunk)
        if schema.has_moderation and chunk.moderation is not None:
            check_depth(chunk.moderation, text, 1)
            chunk.moderation = Extra(chunk.moderation)
        if schema.in_usage and chunk.usage is not None:
            self._read_usage(schema, chunk.usage)
        if not schema.in_choices or chunk.choices is None:
            return chunk
        position = -1  # as in `Reducer.apply`
        for choice in chunk.choices:
            position += 1
            if schema.in_usage and choice.usage is not None:
                self._read_usage(schema, choice.usage)
            if not schema.below_choices:
                continue
            delta = choice.delta
            if schema.has_messages and _drops_message(choice):
                self.repeats = False
            if schema.has_parts and delta is not None:
                _move_parts(delta, text)
            if not schema.raw_below_choices:
                continue
            index = choice.index
            place = len(LEVELS) * (position if index is None else index)
            if delta is not None:
                if of_delta is not None:
                    raws = of_delta.get(delta)
                    if raws != quiet.get(place + _DELTA):
                        self._read(of_delta, place + _DELTA, raws, delta)
                if of_call is not None:
                    for call in delta.tool_calls or ():
                        self._read(of_call, place + _CALL, of_call.get(call), call)
            if of_choice is not None:
                raws = of_choice.get(choice)
                if raws != quiet.get(place + _CHOICE):
                    self._read(of_choice, place + _CHOICE, raws, choice)
            if of_logprobs is not None and choice.logprobs is not None:
                raws = of_logprobs.get(choice.logprobs)
                self._read(of_logprobs, place + _LOGPROBS, raws, choice.logprobs)
        return chunk

    def _read_usage(self, schema: Schema, usage: Usage) -> None:
        # All usage of a stream is merged into one, wherever it stands.
        of_usage, of_prompt, of_completion = schema.raw_usage
        if of_usage is not None:
            _gather(of_usage, usage)
        prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
        if of_prompt is not None and prompt is not None:
            _gather(of_prompt, prompt)
        if of_completion is not None and completion is not None:
            _gather(of_completion, completion)

    def _read(self, fields: RawFields, place: Place, raws: tuple[Raw, ...], into: Struct) -> None:
        if self._last is _NEVER_WRITTEN:
            self._last, self._settled, self._quiet = {}, {}, {}
        lasts = self._last.get(place, fields.nothing)
        settled = self._settled.get(place)
        extra: Extra | None = None
        size = 0
        for name, raw, last in zip(fields.names, raws, lasts, strict=False):
            if not raw or raw == _NULL:
                continue
            size += len(raw)
            if raw == last:
                if settled is None:
                    settled = self._settled[place] = {}
                if name not in settled:
                    settled[name] = self._settles(place, name, raw)
                if settled[name]:
                    continue
            elif settled:
                settled.pop(name, None)
            value = _decode_value(raw)
            if type(value) is dict or type(value) is list:
                check_depth(value, bytes(raw))
            if extra is None:
                extra = Extra()
            extra[name] = value
        if size > _LONGEST_REMEMBERED:
            raws = fields.nothing
        elif size > _SHORTEST_COPIED:
            raws = tuple([raw.copy() for raw in raws])  # without the chunk that it is part of
        self._last[place] = raws
        if extra is not None:
            into.extra = extra  # type: ignore[attr-defined]  # every level has it
            self._quiet.pop(place, None)
        else:
            self._quiet[place] = raws

    def _settles(self, place: Place, name: str, raw: Raw) -> bool:
        """Tell whether a value makes no difference when it comes again."""
        kind = place % len(LEVELS)
        if kind == _CALL:
            return False  # of which call it was is not known here
        level = _RULES_OF.get(kind)
        return level is None or self._levels[level].settles(name, _decode_value(raw))


def _gather(fields: RawFields, into: Struct) -> None:
    """Put a vendor's counts into the `extra` of their level."""
    extra: Extra | None = None
    for name, value in zip(fields.names, fields.get(into), strict=False):
        if value is None:
            continue
        if isinstance(value, (dict, list)) and exceeds_depth(value, MOST_BRACKETS):
            raise ValueError("nested too deep to be taken without counting")
        if extra is None:
            extra = Extra()
        extra[name] = value
    if extra is not None:
        into.extra = extra  # type: ignore[attr-defined]  # every level has it


def _refuse(text: bytes) -> Chunk:
    raise ValueError("left to the general way")


def words_of(refusal: Exception) -> str:
    """Give the words of a refusal if another shape may take the chunk, else none.

    They are all that is kept of it: an exception holds the frames that it went through.
    """
    return str(refusal) if isinstance(refusal, msgspec.ValidationError) else ""


def _drops_message(choice: Choice) -> bool:
    """Tell whether a message is there to be dropped: Perplexity sends it beside a delta, where it
    brings nothing new.
    """
    message = _message_of(choice)
    if not message or message == _NULL:
        return False
    if choice.delta is None:
        raise ValueError("a message in place of a delta")
    text = bytes(message)
    # It is judged like all JSON.
    check_depth(_decode_value(text), text)
    return True


def _move_parts(delta: Delta, text: bytes) -> None:
    """Make content and annotations what they are in a `Delta` of our own."""
    content: object = delta.content
    if type(content) is list:
        check_depth(content, text, _AROUND)
        delta.parts, delta.content = Parts(content), None
    if delta.annotations is not None:
        check_depth(delta.annotations, text, _AROUND)
        delta.annotations = Parts(delta.annotations)
