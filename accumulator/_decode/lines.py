"""Read lines into events and JSON texts: the framing of a body (SPEC sections 1 and 2).

Bytes may be cut anywhere, and lines may arrive one by one. `sse` is faster if all events of a read
have one `data` line each. Pending bytes are kept joined, so each byte is looked at once, however
small the reads are.
"""

from __future__ import annotations

from msgspec import Struct

from ..partial import is_complete
from .json_text import JsonText, begins_text, ends_text, is_nothing

DONE = b"[DONE]"
_ENDS = (DONE, b'"[DONE]"')
_BOM = b"\xef\xbb\xbf"
_LF, _CR = 10, 13  # searching for a byte given as a number is several times faster
_LONGEST_QUOTE = 200  # characters that are quoted of a body in which nothing can be read
_DATA = b"data:"
_SILENT = (b"", b"id", b"retry")  # fields that do not open an event; the empty name is a comment's


class Event(Struct, array_like=True, gc=False):
    """One event with data, or one JSON text instead of an event.

    `data` is the event's `data` lines joined by newlines, `offset` the byte at which it starts, and
    `size` how many bytes it has in all, including its blank line. `form` is one of

    - `event`, or `open event` if the body ended before its blank line;
    - `text`: JSON without `data:`, up to its closing bracket;
    - `open text` if the end of the body cut it off, or `broken text` if something else did.
    """

    data: bytes
    name: bytes | None
    offset: int | None
    size: int
    form: str = "event"


def is_end(data: bytes) -> bool:
    """Return whether data ends the stream."""
    return data.strip() in _ENDS


class LineReader(Struct, array_like=True):
    """Reads a body's bytes or lines, and returns the events that they complete."""

    pending: bytearray | None = None  # of a line that has not ended
    skip_lf: bool = False  # whether the CR that ended the last line may be half of a CRLF
    is_crlf: bool = False  # whether the last line ended in CRLF: a CR that ends a read then waits
    is_begun: bool = False  # a BOM is dropped from the first line only
    start: int | None = None  # the byte at which the open event or text starts
    size: int = 0  # bytes of the lines since the last blank one
    name: bytes | None = None  # of the open event
    data: bytearray | None = None  # of the open event
    text: JsonText | None = None  # the open JSON without `data:`
    unread: bytes = b""  # the first lines that cannot be read as anything
    unread_at: int | None = None

    @property
    def is_fresh(self) -> bool:
        """Whether the next line is the first of an event."""
        return not self.size and not self.skip_lf

    @property
    def held(self) -> int:
        """How many bytes are waiting for the end of their event."""
        return self.size + len(self.pending or b"")

    @property
    def quote(self) -> str:
        """The first characters of what could not be read."""
        return self.unread.decode("utf-8", "replace").strip()[:_LONGEST_QUOTE]

    def feed(self, data: bytes, start: int) -> list[Event]:
        """Read the next bytes of the body, which begin at its byte `start`."""
        if self.skip_lf and data:
            self.skip_lf = False
            if data[0] == _LF:
                self.is_crlf = True
                self.size += bool(self.size)
                data = data[1:]
                start += 1
        pending = self.pending
        if _LF not in data and _CR not in data and not (pending and pending[-1] == _CR):
            if pending is None:
                self.pending = bytearray(data)
            else:
                pending += data
            return []
        if pending:
            start -= len(pending)
            data = bytes(pending + data)
        lines = data.splitlines(keepends=True)
        self.pending = bytearray(lines.pop()) if lines and self._is_open(lines) else None
        events: list[Event] = []
        for line in lines:
            self.feed_line(line.rstrip(b"\r\n"), len(line), start, events)
            start += len(line)
        return events

    def _is_open(self, lines: list[bytes]) -> bool:
        """Return whether the last line may continue, and note how the lines end."""
        last = lines[-1]
        if last.endswith(b"\n"):
            self.is_crlf = last.endswith(b"\r\n")
            return False
        if len(lines) > 1:
            self.is_crlf = lines[-2].endswith(b"\r\n")
        self.skip_lf = last.endswith(b"\r") and not self.is_crlf
        return not self.skip_lf

    def close(self, start: int | None) -> list[Event]:
        """Read what is pending as the last line; also return what the end of the body cuts off."""
        events: list[Event] = []
        pending, self.pending = self.pending or bytearray(), None
        for line in bytes(pending).splitlines(keepends=True):
            self.feed_line(line.rstrip(b"\r\n"), len(line), start, events)
            start = None if start is None else start + len(line)
        if self.text is not None:
            self._end_text(self.text, "open text", events)
        else:
            self.end_event(0, events, form="open event")
        return events

    def open_event(self, data: bytes, size: int, offset: int | None) -> None:
        """Open an event with its first line, which is `data`."""
        self.is_begun = True
        self.start, self.size, self.data = offset, size, bytearray(data)

    def feed_line(self, line: bytes, size: int, offset: int | None, events: list[Event]) -> None:
        """Read a line, given without its line end; add the events that it completes.

        It has `size` bytes with its line end, and starts at the byte `offset` of the body.
        """
        if not self.is_begun:
            self.is_begun = True
            if not offset and line.startswith(_BOM):
                line, size = line[3:], size - 3
                offset = None if offset is None else 3
        if self.text is not None:
            if not ends_text(line):
                self._go_on(self.text, line, size, events)
                return
            self._end_text(self.text, "broken text", events)
        if not line:
            self.end_event(size, events)
            return
        if self.data is not None and _are_chunks(self.data, line):
            name = self.name
            self.end_event(0, events)
            self.name = name
        if not self.size:
            self.start = offset
        self.size += size
        if line.startswith(_DATA):
            self._add_data(line[6:] if line[5:6] == b" " else line[5:])
        else:
            self._read_field(line, size, offset, events)

    def _read_field(self, line: bytes, size: int, offset: int | None, events: list[Event]) -> None:
        """Read a line that does not start with `data:`."""
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name in _SILENT:
            return
        if name == b"event":
            self.name = value
        elif name == b"data":
            self._add_data(value)
        elif name == b"error" and self.data is None and value.strip():
            # llama.cpp reports its errors in a field with this name.
            events.append(Event(value, b"error", self.start, self.size))
        elif line.strip() == DONE:
            self.end_event(0, events)
            events.append(Event(DONE, None, offset, size))
        elif self.name is self.data is None and begins_text(line):
            self.start, self.size = offset, 0
            self._begin_text(line, size, events)
        elif len(self.unread) < 4 * _LONGEST_QUOTE and not is_nothing(line):
            if not self.unread:
                self.unread_at = offset
            self.unread += line[: 4 * _LONGEST_QUOTE] + b"\n"

    def _add_data(self, value: bytes) -> None:
        if value.startswith(b":"):
            return  # Vertex' partner models keep a connection open with `data: : keepalive`
        if self.data is None:
            self.data = bytearray(value)
        else:
            self.data += b"\n" + value

    def end_event(self, size: int, events: list[Event], form: str = "event") -> None:
        """End the open event; its blank line has `size` bytes, 0 if there is none."""
        data, name = self.data, self.name
        if data and not data.isspace() and (name == b"error" or not is_nothing(data)):
            events.append(Event(bytes(data), name, self.start, self.size + size, form))
        self.data = self.name = self.start = None
        self.size = 0

    # --- JSON without `data:` ---

    def _begin_text(self, line: bytes, size: int, events: list[Event]) -> None:
        if is_complete(line):  # nearly all texts are one line
            if not is_nothing(line):
                events.append(Event(line, None, self.start, size, "text"))
            self.start, self.size = None, 0
        else:
            self.text = JsonText()
            self._go_on(self.text, line, size, events)

    def _go_on(self, text: JsonText, line: bytes, size: int, events: list[Event]) -> None:
        self.size += size
        end = text.add(line)
        if end is None:
            return
        whole, rest = bytes(text.text), line[end:].strip(b" \t")
        is_last = rest.startswith(_DATA) and is_end(rest[5:])
        if rest and not is_last:
            events.append(Event(whole, None, self.start, self.size, "broken text"))
        else:
            whole = whole[: len(whole) - len(line) + end]
            if not is_nothing(whole):
                events.append(Event(whole, None, self.start, self.size, "text"))
        if is_last:
            events.append(Event(DONE, None, self.start, self.size))
        self.text = self.start = None
        self.size = 0

    def _end_text(self, text: JsonText, form: str, events: list[Event]) -> None:
        events.append(Event(bytes(text.text), None, self.start, self.size, form))
        self.text = self.start = None
        self.size = 0


def _are_chunks(data: bytearray, line: bytes) -> bool:
    """Return whether an event's only line so far is a chunk, and the next is one or `[DONE]`: many
    logs lack the blank lines between chunks.
    """
    if not line.startswith(_DATA) or not data.startswith(b"{") or _LF in data:
        return False
    text = line[5:].strip()
    is_chunk = text == DONE or (text.startswith(b"{") and is_complete(text))
    return is_chunk and is_complete(bytes(data))
