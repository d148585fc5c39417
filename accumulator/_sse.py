"""Bytes to events: the framing of a `text/event-stream` body (SPEC section 2). No JSON in here.

What has no blank line yet is kept as it came, so each byte is joined and split once however small
the reads are. Bodies without a CR (nearly all) are split by one call on the blank line, the others
line by line.
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
    """One event with data: its `data` lines joined by newlines, its name, the byte it starts at."""

    data: bytes
    name: bytes | None
    offset: int | None


class EventParser:
    """Takes a body's bytes, cut anywhere; `take` gives whole events' bytes, `split` the events."""

    __slots__ = ("_last", "_pending", "_skip_lf", "_start", "_taken", "size")

    def __init__(self) -> None:
        self._pending: list[bytes] = []
        self._last = b""  # the end of what is pending, for a blank line that a read cut in two
        self._start = 0  # the body's byte at which the bytes last taken start
        self._taken = 0  # and the one behind them
        self._skip_lf = False  # the CR that ended the last event may be half of a CRLF
        self.size = 0  # bytes pending

    def take(self, data: bytes) -> bytes:
        """Take in the next bytes of the body; return all up to the last blank line."""
        if self._skip_lf and data:
            self._skip_lf = False
            if data[:1] == b"\n":
                data = data[1:]
                self._taken += 1
        if self.size:
            window = self._last + data
            if b"\n\n" not in window and (b"\r" not in window or not _BLANK_LINE.search(window)):
                self._wait(data, window)
                return b""
            self._pending.append(data)
            data = b"".join(self._pending)
        if b"\r" in data:
            ends = [found.end() for found in _BLANK_LINE.finditer(data)]
            end = ends[-1] if ends else 0
            self._skip_lf = end == len(data) and data.endswith(b"\r")
        else:
            end = data.rfind(b"\n\n") + 2 if b"\n\n" in data else 0
        if end == len(data):
            rest = b""
        else:
            data, rest = data[:end], data[end:]
        self._start = self._taken
        self._taken += end
        if self.size:
            self._pending.clear()
            self.size = 0
        if rest:
            self._wait(rest, rest)
        if self._start == 0 and data.startswith(_BOM):
            self._start = len(_BOM)
            return data[len(_BOM) :]
        return data

    def split(self, taken: bytes) -> list[Event]:
        """Split what was just taken into its events."""
        events: list[Event] = []
        offset = self._start
        if b"\r" in taken:
            start = end = 0
            for line in taken.splitlines(keepends=True):
                end += len(line)
                if line in (b"\n", b"\r\n", b"\r"):
                    block = taken[start:end]
                    events += _events(block, block.splitlines(), offset + start)
                    start = end
            return events
        for block in taken.split(b"\n\n"):
            if block.startswith(b"data: {") and b"\n" not in block:
                events.append(Event(block[6:], None, offset))
            elif block:
                events += _events(block, block.split(b"\n"), offset)
            offset += len(block) + 2
        return events

    def close(self) -> Sequence[Event]:
        """Return the event, if any, that the body ended in without its blank line."""
        rest = b"".join(self._pending)
        self._pending.clear()
        self.size = 0
        if self._taken == 0 and rest.startswith(_BOM):
            return _events(rest[3:], rest[3:].splitlines(), len(_BOM))
        return _events(rest, rest.splitlines(), self._taken)

    def _wait(self, data: bytes, window: bytes) -> None:
        self._pending.append(data)
        self._last = window[-_WINDOW:]
        self.size += len(data)


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
