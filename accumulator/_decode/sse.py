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

__all__ = ["SHORT", "CutEvents", "Event", "EventParser", "cut_events", "split"]

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


class EventParser(Struct, gc=False):
    """Takes a body's bytes, cut anywhere, and returns the bytes of whole events."""

    # What waits, as it came; joined in a bytearray once it has come in several reads, because a
    # list would cost forty bytes for each read of two.
    pending: bytes | bytearray = b""
    size: int = 0  # bytes pending
    has_cr: bool = False  # whether what is pending has a CR
    skip_lf: bool = False  # the CR that ended the last event may be half of a CRLF

    def feed(self, data: bytes, start: int) -> bytes:
        """Take in the next bytes of the body, which begin at its byte `start`; return all up to
        the last blank line.
        """
        if self.skip_lf and data:
            self.skip_lf = False
            if data[:1] == b"\n":
                data = data[1:]
                start += 1
        start -= self.size
        if self.has_cr or _CR in data:
            return _without_bom(self._feed_with_cr(data), start)
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
            self.hold(b"")
        else:
            end = _end_of_events(data)
        if end < len(data):
            self._wait(data[end:])
            data = data[:end]
        return _without_bom(data, start)

    def hold(self, data: bytes) -> None:
        """Replace what waits."""
        self.pending = data
        self.size = len(data)
        self.has_cr = _CR in data

    def _feed_with_cr(self, data: bytes) -> bytes:
        if self.size > SHORT and not _BLANK_LINE.search(bytes(self.pending[-_WINDOW:]) + data):
            self._wait(data)
            return b""
        data = bytes(self.pending) + data
        self.hold(b"")
        end = _end_of_crlf_events(data)
        if end is None:
            end = 0
            for found in _BLANK_LINE.finditer(data):
                end = found.end()
        self.skip_lf = end == len(data) and data.endswith(b"\r")
        if end < len(data):
            self._wait(data[end:])
        return data[:end]

    def close(self, start: int) -> Sequence[Event]:
        """Return the event, if any, that the body ended in without its blank line; `start` is the
        body's byte at which what waits begins.
        """
        size, rest = self.size, bytes(self.pending)
        self.hold(b"")
        text = _without_bom(rest, start)
        return _events(text, text.splitlines(), start + size - len(text), size)

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


def _without_bom(data: bytes, start: int) -> bytes:
    return data.removeprefix(_BOM) if start == 0 else data


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


class CutEvents(Struct, gc=False):
    """Events of one `data` line each, cut out of the start of a read."""

    texts: list[bytes]  # their data
    start: int  # the body's byte at which the first begins
    end: int  # and the one behind the last
    size: int  # bytes of the read up to there
    opening: bytes  # in front of each text
    line_end: bytes  # twice behind it
    around: int  # bytes of an event beside its data
    counted: int = 0  # texts whose bytes are summed up
    summed: int = 0  # of these, with what is around them

    def line(self, place: int) -> bytes:
        """Return the line at a place, with its end."""
        return self.opening + self.texts[place] + self.line_end

    def start_of(self, place: int) -> int:
        """Return the body's byte at which the event at a place begins."""
        if place == len(self.texts) - 1:
            return self.end - len(self.texts[place]) - self.around
        # Each problem of a long read asks for its offset: only what is new is summed up.
        if place < self.counted:
            self.counted = self.summed = 0
        new = self.texts[self.counted : place]
        self.summed += sum(map(len, new)) + len(new) * self.around
        self.counted = place
        return self.start + self.summed


def cut_events(data: bytes, start: int) -> CutEvents | None:
    """Cut the whole events at the start of a read, if each is one `data` line and all lines end
    alike; return None otherwise. The read begins at the body's byte `start`.
    """
    lines = BytesIO(data).readlines()
    rest = lines.pop() if len(lines) & 1 else b""
    blank = lines[1::2]
    line_end = b"\r\n" if blank and blank[0] == b"\r\n" else b"\n"
    if not blank or blank.count(line_end) != len(blank):
        return None
    lead = 0
    while lines and lines[0].startswith(b":"):
        # OpenRouter keeps a connection open by comments until the first chunk is there.
        lead += len(lines[0]) + len(line_end)
        del lines[:2]
    if not lines:
        return None
    opening = b"data: " if lines[0].startswith(b"data: ") else b"data:"
    text = slice(len(opening), -len(line_end))
    texts = [line[text] for line in lines[::2]]
    size = len(data) - len(rest)
    around = len(opening) + 2 * len(line_end)
    # That each line is data is seen at once from what they make when put together again.
    body = (line_end + line_end + opening).join(texts)
    whole = size == lead + len(body) + around and data.startswith(body, lead + len(opening))
    if not whole or not data.startswith(opening, lead) or _has_other_cr(data, lines, rest):
        return None
    return CutEvents(texts, start + lead, start + size, size, opening, line_end, around)


def _has_other_cr(data: bytes, lines: list[bytes], rest: bytes) -> bool:
    """Whether there is a CR but for those of lines that all end in CRLF."""
    if _CR not in data:
        return False
    count = data.count(b"\r") - rest.count(b"\r")
    return _CR in rest[:-1] or count != (len(lines) if lines[0].endswith(b"\r\n") else 0)


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
