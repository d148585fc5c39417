"""The items of a stream to an `Accumulator`: chunks, lines, or the pieces of a body."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..completion import ChatCompletion
from ..errors import DecodeError

__all__ = ["ChunkEventFeeder", "Feeder", "refusal"]

# How a compressed body starts, and no body of text does.
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    **{b"x" + level: "deflate" for level in (b"\x01", b"^", b"\x9c", b"\xda")},
}


class Sink(Protocol):
    """An `Accumulator`, or what takes the same input."""

    def feed(self, chunk: object) -> None: ...
    def feed_sse(self, data: bytes) -> None: ...
    def feed_line(self, line: bytes | bytearray | memoryview | str) -> None: ...
    def close(self) -> None: ...


class Feeder:
    """Feeds bytes and text as pieces of a body, or as `lines`, and all else as chunks."""

    def __init__(self, sink: Sink, *, lines: bool) -> None:
        self._sink = sink
        self._lines = lines
        self._kind: type | None = None  # of the last chunk that was no text
        self.feed_bytes: Callable[[bytes], None] | None = None  # once it is known not compressed
        self._head = b""  # of a body that may be a compressed one, not fed yet

    def feed(self, item: object) -> None:
        """Feed the next item. Raises what the accumulator raises."""
        kind = type(item)
        # The chunks of a stream are of one class, of which it takes long to tell what it is not.
        if kind is self._kind or not isinstance(item, (bytes, bytearray, memoryview, str)):
            self._kind = kind
            self._sink.feed(item)
        elif self._lines:
            self._sink.feed_line(item)
        elif isinstance(item, str):
            self._feed_piece(item.encode("utf-8", "surrogatepass"))
        else:
            self._feed_piece(bytes(item))

    def close(self) -> None:
        """End the stream."""
        if self._head:
            self._sink.feed_sse(self._head)
        self._sink.close()

    def _feed_piece(self, data: bytes) -> None:
        if self.feed_bytes is not None:
            self.feed_bytes(data)
        else:
            self._feed_head(data)

    def _feed_head(self, data: bytes) -> None:
        head = self._head + data
        for start, encoding in _COMPRESSED.items():
            if head.startswith(start):
                raise refusal(encoding)
            if start.startswith(head):
                self._head = head
                return
        self._head = b""
        self.feed_bytes = self._sink.feed_sse
        self.feed_bytes(head)


class ChunkEventFeeder(Feeder):
    """Feeds the chunks that are among the events of openai's `chat.completions.stream()`."""

    def feed(self, item: object) -> None:
        """Feed the next event's chunk, if it is one. Raises what the accumulator raises."""
        if getattr(item, "type", None) == "chunk":
            super().feed(getattr(item, "chunk", None))


def refusal(encoding: str) -> DecodeError:
    """Return the error of a body that is compressed."""
    return DecodeError(
        f"the body is compressed ({encoding}) and was not read", partial=ChatCompletion()
    )
