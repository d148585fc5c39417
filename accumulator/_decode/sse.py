"""A read of whole events to their data, where each has one `data` line (SPEC section 2).

Nearly all reads have nothing else. They are cut into lines by `BytesIO.readlines`, which takes a
third of the time of `split`, and all at once. Reads with comments, ids and the name `message` in
between are looked at line by line. All else is left to `lines`. No JSON is read in here.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from itertools import accumulate

from msgspec import Struct

from .lines import DONE

_CR = 13  # looking for one byte as a number is several times faster
# Lines that change nothing: many servers name each event, and OpenRouter keeps a connection open by
# comments.
_SILENT = (b":", b"id:", b"retry:", b"event: message\n", b"event:message\n")


class CutEvents(Struct, gc=False):
    """Events of one `data` line each, cut out of the start of a read."""

    texts: list[bytes]  # their data
    start: int  # the body's byte at which the first begins
    end: int  # and the one behind the last
    size: int  # bytes of the read up to there
    is_last: bool  # `[DONE]` came behind them
    opening: bytes = b""  # in front of each text; empty if there are other lines
    line_end: bytes = b""  # twice behind it
    around: int = 0  # bytes of an event beside its data
    starts: Sequence[int] = ()  # where each begins, and `end`; known once a problem asked

    def line(self, place: int) -> bytes:
        """Return the line at a place, with its end."""
        return self.opening + self.texts[place] + self.line_end

    def start_of(self, place: int) -> int:
        """Return the body's byte at which the event at a place begins."""
        if not self.starts and place == len(self.texts) - 1:
            return self.end - len(self.texts[place]) - self.around
        if not self.starts:
            sizes = [len(text) + self.around for text in self.texts]
            self.starts = [*accumulate(sizes, initial=self.start)]
        return self.starts[place]


def cut_events(data: bytes, start: int) -> CutEvents | None:
    """Cut the whole events at the start of a read, if each has one `data` line, none is nothing and
    all lines end alike; return None otherwise. The read begins at the body's byte `start`.
    """
    lines = BytesIO(data).readlines()
    blank = lines[1::2]
    line_end = b"\r\n" if b"\r\n" in blank[:1] else b"\n"
    if not blank or blank.count(line_end) != len(blank):
        return _cut_among_silent(data, start)
    rest = lines.pop() if len(lines) & 1 else b""
    opening = b"data: " if lines[0].startswith(b"data: ") else b"data:"
    text = slice(len(opening), -len(line_end))
    texts = [line[text] for line in lines[::2]]
    size = len(data) - len(rest)
    around = len(opening) + 2 * len(line_end)
    # That each line is data is seen at once from what they make when put together again.
    body = (line_end + line_end + opening).join(texts)
    whole = size == around + len(body) and data.startswith(body, len(opening))
    if (
        not whole
        or not data.startswith(opening)
        or _has_other_cr(data, len(lines) if line_end == b"\r\n" else 0, rest)
    ):
        return _cut_among_silent(data, start)
    end = start + size
    is_last = texts[-1] == DONE
    if is_last:
        texts.pop()
        end -= len(DONE) + around
    if b"{}" in texts:  # all else that is no chunk is refused by the decoder
        return None
    return CutEvents(texts, start, end, size, is_last, opening, line_end, around)


def _cut_among_silent(data: bytes, start: int) -> CutEvents | None:
    """Cut events that have other lines beside their `data` line."""
    if _CR in data:
        return None
    texts: list[bytes] = []
    starts: list[int] = []
    opened = place = start
    text: bytes | None = None
    for line in BytesIO(data):
        place += len(line)
        if line == b"\n":
            if text is not None:
                texts.append(text[5:-1].removeprefix(b" "))
                starts.append(opened)
            text, opened = None, place
        elif text is None and line.startswith(b"data:"):
            text = line
        elif not line.startswith(_SILENT) and line.endswith(b"\n"):
            return None
    if not texts or b"{}" in texts:
        return None
    first, end, is_last = starts[0], opened, texts[-1] == DONE
    if is_last:
        texts.pop()
        end = starts.pop()
    return CutEvents(texts, first, end, opened - start, is_last, starts=[*starts, end])


def _has_other_cr(data: bytes, expected: int, rest: bytes) -> bool:
    """Return whether there is a CR but for those of the lines that are expected to end in CRLF."""
    if _CR not in data:
        return False
    count = data.count(b"\r") - rest.count(b"\r")
    return _CR in rest[:-1] or count != expected or data.count(b"\r\n") != expected
