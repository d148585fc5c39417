"""The items of a stream to an `Accumulator`: chunks, lines, or a body's pieces in SSE or JSON."""

from __future__ import annotations

from collections.abc import Callable

from .._accumulator import Accumulator
from ..errors import DecodeError
from ..limits import Limits

__all__ = ["ChunkEventFeeder", "Feeder"]

_BLANK = b" \t\r\n\xef\xbb\xbf"
_MOST_BLANKS = 4096  # before the first character: servers keep a connection alive with them
_INSIDE = (b" ", b"\t", b"]", b"\r", b"\n")  # so do lines start that belong to a text begun before
# How a compressed body starts, and no body of text does.
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    **{b"x" + level: "deflate" for level in (b"\x01", b"^", b"\x9c", b"\xda")},
}


class Feeder:
    """Feeds bytes and text as pieces of a body, or as `lines`, and all else as chunks.

    The first character of a body tells whether it is SSE or JSON. JSON is one text a line, as logs
    have it, or one text of several indented lines, as OpenAI's server sends an error that takes the
    place of a stream, and Gemini's in a list.
    """

    def __init__(self, accumulator: Accumulator, limits: Limits, *, lines: bool) -> None:
        self._accumulator = accumulator
        self._most = limits.event_bytes
        self._lines = lines
        self._kind: type | None = None  # of the last chunk that was no text
        self._feed_body: Callable[[bytes], None] = self._find_framing
        self._text = bytearray()  # of a body, not fed yet
        self._line = 0  # where its last line starts

    def feed(self, item: object) -> None:
        """Feed the next item. Raises what the accumulator raises."""
        kind = type(item)
        if kind is bytes and not self._lines:
            self._feed_body(item)  # type: ignore[arg-type]  # it is bytes
            return
        # The chunks of a stream are of one class, of which it takes long to tell what it is not.
        if kind is self._kind or not isinstance(item, (bytes, bytearray, memoryview, str)):
            self._kind = kind
            self._accumulator.feed(item)
        elif self._lines:
            self._accumulator.feed_line(item)
        elif isinstance(item, str):
            self._feed_body(item.encode("utf-8", "surrogatepass"))
        else:
            self._feed_body(bytes(item))

    def refusal(self, encoding: str) -> DecodeError:
        """Make the error of a body that is compressed."""
        return DecodeError(
            f"the body is compressed ({encoding}) and was not read",
            partial=self._accumulator.snapshot(),
        )

    def close(self) -> None:
        """End the stream; the last line of a body may lack its end."""
        if self._feed_body == self._feed_json:
            self._end_line()
            self._feed_text(len(self._text))
        self._accumulator.close()

    def _find_framing(self, data: bytes) -> None:
        self._text += data
        head = bytes(self._text)
        text = head.lstrip(_BLANK)
        opening = text[1:].lstrip(_BLANK) if text.startswith(b"[") else text
        if not opening and len(head) < _MOST_BLANKS:
            return
        for start, encoding in _COMPRESSED.items():
            if text.startswith(start):
                raise self.refusal(encoding)
            if start.startswith(text) and text:
                return
        self._text.clear()
        if opening.startswith(b"{"):
            self._feed_body = self._feed_json
            self._feed_body(text)
        else:
            self._feed_body = self._accumulator.feed_sse
            self._feed_body(head)

    def _feed_json(self, data: bytes) -> None:
        for piece in data.splitlines(keepends=True):
            self._text += piece
            if piece.endswith((b"\n", b"\r")):
                self._end_line()
        if self._most is not None and len(self._text) > self._most:
            self._feed_text(len(self._text))

    def _end_line(self) -> None:
        line = bytes(self._text[self._line :])
        if not line.startswith((b"}", *_INSIDE)):
            self._feed_text(self._line)
        if (
            line.startswith(_INSIDE)
            or (line.startswith(b"{") and not line.rstrip().endswith(b"}"))
            or (self._text.startswith(b"[") and not line.rstrip().endswith(b"]"))
        ):
            self._line = len(self._text)
        else:
            self._feed_text(len(self._text))

    def _feed_text(self, end: int) -> None:
        text = bytes(self._text[:end])
        del self._text[:end]
        self._line = 0
        # Logs of JSON Lines often end as SSE does: `data: [DONE]`.
        self._accumulator.feed(text.removeprefix(b"data:"))


class ChunkEventFeeder(Feeder):
    """Feeds the chunks that are among the events of openai's `chat.completions.stream()`."""

    def feed(self, item: object) -> None:
        """Feed the next event's chunk, if it is one. Raises what the accumulator raises."""
        if getattr(item, "type", None) == "chunk":
            super().feed(getattr(item, "chunk", None))
