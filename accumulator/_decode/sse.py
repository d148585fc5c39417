"""Bytes to events: the framing of a `text/event-stream` body (SPEC section 2). No JSON in here.

What has no blank line yet is kept as it came, so each byte is joined and split once however small
the reads are. A body is cut into lines by `BytesIO.readlines`, which takes a third of the time of
`split`; nearly all events are one line, and those need no more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import BytesIO

from msgspec import Struct

__all__ = ["SHORT", "Event", "EventParser", "single_lines", "split"]

_BOM = b"\xef\xbb\xbf"
# A CRLF is one line end, so a CR only counts as one of its own where no LF follows.
_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
_LF, _CR = 10, 13  # looking for one byte as a number is several times faster
SHORT = 16384  # bytes that wait, and may be looked at and copied with every read
_WINDOW = 3  # a blank line is found although a read ended inside it: CR LF CR


class Event(Struct, gc=False):
    """One event with data: its `data` lines joined by newlines, its name, the byte it starts at,
    and how many bytes it is in all, its blank line included.
    """

    data: bytes
    name: bytes | None
    offset: int | None
    size: int


class EventParser:
    """Takes a body's bytes, cut anywhere, and gives the bytes of whole events.

    `_shortcut` and `_body` move it on by themselves where they take a read whole.
    """

    __slots__ = ("has_cr", "pending", "size", "skip_lf", "start", "taken")

    def __init__(self) -> None:
        # What waits, as it came; joined in a bytearray once it has come in several reads, because
        # a list would cost forty bytes for each read of two.
        self.pending: bytes | bytearray = b""
        self.has_cr = False  # whether what is pending has a CR
        self.start = 0  # the body's byte at which what was last taken starts
        self.taken = 0  # and the one behind it
        self.skip_lf = False  # the CR that ended the last event may be half of a CRLF
        self.size = 0  # bytes pending

    def take(self, data: bytes) -> bytes:
        """Take in the next bytes of the body; return all up to the last blank line."""
        if self.skip_lf and data:
            self.skip_lf = False
            if data[:1] == b"\n":
                data = data[1:]
                self.taken += 1
        if self.has_cr or _CR in data:
            return self._take_with_cr(data)
        if self.size:
            pending = self.pending
            end = _end_of_events(data)
            if not end:
                if data[:1] != b"\n" or not pending.endswith(b"\n"):
                    self._wait(data)
                    return b""
                end = 1
            end += self.size
            data = bytes(pending) + data
            self.pending = b""
            self.size = 0
        else:
            end = _end_of_events(data)
        if end < len(data):
            self._wait(data[end:])
            data = data[:end]
        return self._give(data)

    def _take_with_cr(self, data: bytes) -> bytes:
        if self.size > SHORT and not _BLANK_LINE.search(bytes(self.pending[-_WINDOW:]) + data):
            self._wait(data)
            return b""
        data = bytes(self.pending) + data
        self.pending = b""
        self.size = 0
        self.has_cr = False
        end = _end_of_crlf_events(data)
        if end is None:
            end = 0
            for found in _BLANK_LINE.finditer(data):
                end = found.end()
        self.skip_lf = end == len(data) and data.endswith(b"\r")
        if end < len(data):
            self._wait(data[end:])
        return self._give(data[:end])

    def _give(self, data: bytes) -> bytes:
        start = self.start = self.taken
        self.taken += len(data)
        if start == 0 and data.startswith(_BOM):
            self.start = len(_BOM)
            return data[len(_BOM) :]
        return data

    def close(self) -> Sequence[Event]:
        """Return the event, if any, that the body ended in without its blank line."""
        rest = bytes(self.pending)
        self.pending = b""
        self.size = 0
        if self.taken == 0 and rest.startswith(_BOM):
            return _events(rest[3:], rest[3:].splitlines(), len(_BOM), len(rest))
        return _events(rest, rest.splitlines(), self.taken, len(rest))

    def _wait(self, data: bytes) -> None:
        if not data:
            return
        if not self.size:
            self.pending = data
        elif type(self.pending) is bytearray:
            self.pending += data
        else:
            self.pending = bytearray(self.pending)
            self.pending += data
        self.size += len(data)
        self.has_cr = self.has_cr or _CR in data


def _end_of_events(data: bytes) -> int:
    """Find where the last blank line of LFs ends; 0 if there is none."""
    end = data.rfind(_LF)
    # One byte is looked for many times as fast as two, and most events end in what it finds.
    while end > 0:
        before = data.rfind(_LF, 0, end)
        if before == end - 1:
            return end + 1
        end = before
    return 0


def _end_of_crlf_events(data: bytes) -> int | None:
    """Find where the last blank line ends, 0 if there is none; None if a CR stands alone."""
    lines = BytesIO(data).readlines()
    rest = b"" if data.endswith(b"\n") else lines.pop()
    if not _all_crlf(lines) or _CR in rest[:-1]:  # a last CR may be half of a CRLF
        return None
    end = len(data) - len(rest)
    for line in reversed(lines):
        if line in (b"\r\n", b"\n"):
            return end
        end -= len(line)
    return 0


def single_lines(data: bytes) -> tuple[list[bytes], bytes] | None:
    """Cut whole events into lines with their ends, if each is one line and all ends are alike; also
    give that end. Else None.
    """
    lines = BytesIO(data).readlines()
    blank = lines[1::2]
    count = len(blank)
    if 2 * count != len(lines) or not count:
        return None
    has_cr = _CR in data
    end = b"\r\n" if has_cr else b"\n"
    lines = lines[::2]
    if blank.count(end) != count or (has_cr and not _all_crlf(lines)):
        return None
    return lines, end


def _all_crlf(lines: Sequence[bytes]) -> bool:
    """Tell whether each line has one CR, before the LF that ends it."""
    # The first CR is found many times as fast as all are counted.
    return [len(line) - line.find(_CR) for line in lines].count(2) == len(lines)


def split(data: bytes, offset: int) -> list[Event]:
    """Split whole events that start at a byte of the body."""
    events: list[Event] = []
    if _CR in data:
        start = end = 0
        for line in data.splitlines(keepends=True):
            end += len(line)
            if line in (b"\n", b"\r\n", b"\r"):
                block = data[start:end]
                events += _events(block, block.splitlines(), offset + start, len(block))
                start = end
        return events
    for block in data.split(b"\n\n"):
        if block.startswith(b"data: {") and b"\n" not in block:
            events.append(Event(block[6:], None, offset, len(block) + 2))
        elif block:
            events += _events(block, block.split(b"\n"), offset, len(block) + 2)
        offset += len(block) + 2
    return events


def _events(block: bytes, lines: Sequence[bytes], offset: int, size: int) -> list[Event]:
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
            events.append(Event(value, b"error", offset, size))
    text = b"\n".join(data)
    if text and not text.isspace():
        events.append(Event(text, name, offset, size))
    return events
