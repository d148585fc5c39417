"""Bytes to events: the framing of a `text/event-stream` body (SPEC section 2). No JSON in here.

An event's bytes are kept as they come until a blank line ends it, so each byte is joined and split
once however small the reads are. Bodies without a CR (nearly all) are split by one call on the
blank line; the others line by line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct

__all__ = ["Event", "EventParser"]

_BOM = b"\xef\xbb\xbf"
# A CRLF is one line end, so a CR only counts as one of its own where no LF follows.
_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
_WINDOW = 3  # a blank line is found although a read ended inside it: CR LF CR


class Event(Struct, gc=False):
    """One event with data: its `data` lines joined by newlines, its name, the body's byte it
    starts at.
    """

    data: bytes
    name: bytes | None
    offset: int | None


class EventParser:
    """Takes a body's bytes, cut anywhere, and gives its events as soon as they are whole."""

    __slots__ = ("_last", "_offset", "_pending", "_skip_lf", "size")

    def __init__(self) -> None:
        self._pending: list[bytes] = []
        self._last = b""  # the end of what is pending, for a blank line that a read cut in two
        self._offset = 0  # the body's byte that the first pending one is
        self._skip_lf = False  # the CR that ended the last event may be half of a CRLF
        self.size = 0  # bytes pending

    def feed(self, data: bytes) -> Sequence[Event]:
        """Take in the next bytes of the body; return the events that they complete."""
        if self._skip_lf and data:
            self._skip_lf = False
            if data[:1] == b"\n":
                data = data[1:]
                self._offset += 1
        window = self._last + data
        if b"\n\n" not in window and (b"\r" not in window or not _BLANK_LINE.search(window)):
            self._pending.append(data)
            self._last = window[-_WINDOW:]
            self.size += len(data)
            return ()
        if self._pending:
            self._pending.append(data)
            data = b"".join(self._pending)
        return self._split(data)

    def close(self) -> Sequence[Event]:
        """Return the event, if any, that the body ended in without its blank line."""
        rest = b"".join(self._pending)
        self._pending.clear()
        self.size = 0
        return self._block(rest, rest.splitlines(), self._offset)

    def _split(self, data: bytes) -> Sequence[Event]:
        events: list[Event] = []
        offset = self._offset
        if offset == 0 and data.startswith(_BOM):
            data = data[len(_BOM) :]
            offset = len(_BOM)
        if b"\r" in data:
            blocks, rest = self._split_lines(data)
            for block in blocks:
                events += self._block(block, block.splitlines(), offset)
                offset += len(block)
        else:
            *separated, rest = data.split(b"\n\n")
            for block in separated:
                if block.startswith(b"data: {") and b"\n" not in block:
                    events.append(Event(block[6:], None, offset))
                else:
                    events += self._block(block, block.split(b"\n"), offset)
                offset += len(block) + 2
        self._offset = offset
        self._pending[:] = (rest,) if rest else ()
        self._last = rest[-_WINDOW:]
        self.size = len(rest)
        return events

    def _split_lines(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Split into blocks, each with the blank line that ends it, and the rest."""
        blocks: list[bytes] = []
        start = position = 0
        for line in data.splitlines(keepends=True):
            position += len(line)
            if line in (b"\n", b"\r\n", b"\r"):
                blocks.append(data[start:position])
                start = position
        self._skip_lf = start == len(data) and data.endswith(b"\r")
        return blocks, data[start:]

    def _block(self, block: bytes, lines: Sequence[bytes], offset: int) -> list[Event]:
        """Read the fields of one event's lines."""
        if block.startswith(_BOM) and offset == 0:
            return self._block(block[3:], block[3:].splitlines(), 3)
        offset += len(block) - len(block.lstrip(b"\r\n"))
        events: list[Event] = []
        data: list[bytes] = []
        name: bytes | None = None
        for line in lines:
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                data.append(value)
            elif field == b"event":
                name = value
            elif field == b"error" and not data and value.strip():
                # llama.cpp reports its errors in a field of that name.
                events.append(Event(value, b"error", offset))
        text = b"\n".join(data)
        if text and not text.isspace():
            events.append(Event(text, name, offset))
        return events
