"""Chunks as text: those of a stream, for a caller that stores them, and as a body of events."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from itertools import chain

import msgspec

from .._accumulator import Accumulator
from .._decode.chunk import MalformedJsonError, TooDeepError, decode_untyped
from .._decode.lines import DONE, Event, LineReader, is_end
from .._decode.objects import LastChunk
from .._decode.values import fields_of, is_object
from .._merge.foreign import CHUNK_NAMES, error_object, find_other_api, may_be_chunk
from .._merge.verdict import COMPRESSED
from ..errors import LimitExceededError
from ..limits import Limits
from .observer import refusal


class ChunkTexts(Accumulator):
    """Only collects the chunks, as JSON, in `texts`: each is one object or one line of a body."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits=limits)
        self.texts: deque[bytes] = deque()
        self._reader = LineReader()
        self._most = limits.event_bytes
        self._begun = False

    def feed(self, chunk: object) -> None:
        if not is_object(chunk):
            raise TypeError(f"a chunk is a mapping or an SDK's object, not {type(chunk).__name__}")
        self.texts.append(json_of(chunk))
        if type(chunk) is LastChunk:
            self.texts.append(DONE)

    def feed_sse(self, data: bytes | bytearray | memoryview) -> None:
        # As if the body began with the open line: only whether it is the first one matters.
        self._add(self._reader.feed(bytes(data), self._reader.held))
        if self._most is not None and self._reader.held > self._most:
            self._reader = LineReader()  # what is refused is not a text, even after `close`
            raise LimitExceededError("event_bytes", self._most)

    def feed_line(self, line: bytes | bytearray | memoryview | str) -> None:
        data = line.encode("utf-8", "surrogatepass") if isinstance(line, str) else bytes(line)
        self.feed_sse(data.rstrip(b"\r\n") + b"\n")

    def close(self) -> None:
        self._add(self._reader.close(None))
        packed = re.match(COMPRESSED, self._reader.quote)
        if packed and packed.lastgroup:
            raise refusal(packed.lastgroup)

    def _add(self, events: list[Event]) -> None:
        for event in events:
            text = _text_of(event, is_first=not self._begun)
            if text is not None:
                self._begun = True
                self.texts.append(text.replace(b"\n", b" "))


def _text_of(event: Event, *, is_first: bool) -> bytes | None:
    """Return the data of an event as the JSON of a chunk, and that of an error as `{"error": …}`.

    Return None for another protocol's event, unless it is the first and shows that the whole stream
    is of another API.
    """
    data, is_error = event.data, event.name == b"error"
    if is_end(data):
        return DONE
    if event.name in CHUNK_NAMES and not is_error:
        return data
    text = data.decode("utf-8", "replace")
    try:
        value, _ = decode_untyped(text)
    except (MalformedJsonError, TooDeepError):
        if is_error:
            return json_of({"error": text})
        return data if text.lstrip().startswith(("{", "[")) else None
    if is_error:
        is_plain = error_object(value) is not None
        return data if is_plain else b'{"error":%b}' % (data if value else b"true")
    return data if may_be_chunk(value) or (is_first and find_other_api(value)) else None


def json_of(chunk: object) -> bytes:
    """Return a mapping or an SDK's object as compact JSON; of the latter only fields that came."""
    dump = getattr(chunk, "model_dump", None)
    value = dump(exclude_unset=True, warnings=False) if dump is not None else chunk
    try:
        return msgspec.json.encode(value, enc_hook=fields_of)
    except UnicodeEncodeError:  # half a surrogate pair can only be written as an escape
        import json  # noqa: PLC0415  # takes time to import

        return json.dumps(value, separators=(",", ":"), default=fields_of).encode()


class SseBody(Iterator[bytes], AsyncIterator[bytes]):
    """The pieces of a `text/event-stream` body, for sync and async readers; made by `sse`."""

    def __init__(self, chunks: Iterable[Mapping[str, object]]) -> None:
        texts = chain(map(json_of, chunks), (DONE,))
        self._pieces = (b"data: " + text + b"\n\n" for text in texts)

    def __next__(self) -> bytes:
        return next(self._pieces)

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration
