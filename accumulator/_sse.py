"""Bytes to events: the framing of a `text/event-stream` body (SPEC section 2). No JSON in here.

What has no blank line yet is kept as it came, so each byte is joined and split once however small
the reads are. Bodies without a CR (nearly all) are split by one call on the blank line, the others
line by line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct

__all__ = ["Event", "EventParser", "single_lines", "split"]

_BOM = b"\xef\xbb\xbf"
# A CRLF is one line end, so a CR only counts as one of its own where no LF follows.
_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
_CR = 13  # looking for one byte as a number is several times faster
_WINDOW = 3  # a blank line is found although a read ended inside it: CR LF CR


class Event(Struct, gc=False):
    """One event with data: its `data` lines joined by newlines, its name, the byte it starts at."""

    data: bytes
    name: bytes | None
    offset: int | None


class EventParser:
    """Takes a body's bytes, cut anywhere, and gives the bytes of whole events."""

    __slots__ = ("_has_cr", "_pending", "_skip_lf", "_taken", "size", "start")

    def __init__(self) -> None:
        self._pending = bytearray()  # no list: reads of two bytes would cost forty each
        self._has_cr = False  # whether what is pending has a CR
        self.start = 0  # the body's byte at which what was last taken starts
        self._taken = 0  # and the one behind it
        self._skip_lf = False  # the CR that ended the last event may be half of a CRLF
        self.size = 0  # bytes pending

    def take(self, data: bytes) -> bytes:
        """Take in the next bytes of the body; return all up to the last blank line."""
        if self._skip_lf and data:
            self._skip_lf = False
            if data[:1] == b"\n":
                data = data[1:]
                self._taken += 1
        if self._has_cr or _CR in data:
            return self._take_with_cr(data)
        end = data.rfind(b"\n\n") + 2
        if self.size:
            if end == 1 and not (data[:1] == b"\n" and self._pending.endswith(b"\n")):
                self._wait(data)
                return b""
            end = self.size + max(end, 1)
            data = bytes(self._pending) + data
            self._pending.clear()
            self.size = 0
        elif end == 1:
            self._wait(data)
            return b""
        if end < len(data):
            self._wait(data[end:])
            data = data[:end]
        return self._give(data)

    def _take_with_cr(self, data: bytes) -> bytes:
        window = bytes(self._pending[-_WINDOW:]) + data
        if not _BLANK_LINE.search(window):
            self._wait(data)
            return b""
        data = bytes(self._pending) + data
        self._pending.clear()
        self.size = 0
        self._has_cr = False
        end = 0
        for found in _BLANK_LINE.finditer(data):
            end = found.end()
        self._skip_lf = end == len(data) and data.endswith(b"\r")
        if end < len(data):
            self._wait(data[end:])
        return self._give(data[:end])

    def _give(self, data: bytes) -> bytes:
        start = self.start = self._taken
        self._taken += len(data)
        if start == 0 and data.startswith(_BOM):
            self.start = len(_BOM)
            return data[len(_BOM) :]
        return data

    def skip(self, size: int) -> None:
        """Count bytes of whole events that were read without `take`; nothing may be pending."""
        self._taken += size

    def close(self) -> Sequence[Event]:
        """Return the event, if any, that the body ended in without its blank line."""
        rest = bytes(self._pending)
        self._pending.clear()
        self.size = 0
        if self._taken == 0 and rest.startswith(_BOM):
            return _events(rest[3:], rest[3:].splitlines(), len(_BOM))
        return _events(rest, rest.splitlines(), self._taken)

    def _wait(self, data: bytes) -> None:
        if data:
            self._pending += data
            self.size += len(data)
            self._has_cr = self._has_cr or _CR in data


def single_lines(data: bytes) -> list[bytes] | None:
    """Cut whole events into lines, if each is one line without a CR; else None."""
    lines = data.split(b"\n")
    return None if any(lines[1::2]) or _CR in data else lines[:-2:2]


def split(data: bytes, offset: int) -> list[Event]:
    """Split whole events that start at a byte of the body."""
    events: list[Event] = []
    if _CR in data:
        start = end = 0
        for line in data.splitlines(keepends=True):
            end += len(line)
            if line in (b"\n", b"\r\n", b"\r"):
                block = data[start:end]
                events += _events(block, block.splitlines(), offset + start)
                start = end
        return events
    for block in data.split(b"\n\n"):
        if block.startswith(b"data: {") and b"\n" not in block:
            events.append(Event(block[6:], None, offset))
        elif block:
            events += _events(block, block.split(b"\n"), offset)
        offset += len(block) + 2
    return events


def _events(block: bytes, lines: Sequence[bytes], offset: int) -> list[Event]:
    """Read the fields of one event's lines."""
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
