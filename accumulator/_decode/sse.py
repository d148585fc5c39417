"""Cut a read into events that have one `data` line each (SPEC section 2).

Nearly all reads contain nothing else. They are cut all at once, by `BytesIO.readlines`, which takes
a third of the time of `split`. Reads that also contain comments, ids or the event name `message`
are cut line by line. Everything else is left to `lines`. No JSON is parsed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from itertools import accumulate

from msgspec import Struct

from .lines import DONE

_CR = 13  # looking for one byte as a number is several times faster
# Lines that change nothing: many servers name each event, and OpenRouter sends comments to keep a
# connection open.
_SILENT = (b":", b"id:", b"retry:", b"event: message\n", b"event:message\n")
# A text of fewer bytes may be `{}`, which the decoder of chunks accepts; it refuses everything else
# that is not a chunk. The shortest chunk is `{"choices":[]}`.
_SHORT = 14
_DATA = b"data: "
_LINE_ENDS = (b"\n", b"\r\n")


class CutEvents(Struct, gc=False):
    """Events of one `data` line each, cut out of the start of a read."""

    texts: list[bytes]  # the data of each event
    start: int  # the byte of the body at which the first event begins
    end: int  # and the byte after the last event
    size: int  # bytes of the read that these take, `[DONE]` included
    is_last: bool  # `[DONE]` follows them
    opening: bytes = b""  # before each text; empty if there are other lines
    line_end: bytes = b""  # twice after each text
    around: int = 0  # bytes of an event besides its data
    starts: Sequence[int] = ()  # where each begins, and `end`; known once a problem asks

    def line(self, place: int) -> bytes:
        """Return the line at a place, including its line end."""
        return self.opening + self.texts[place] + self.line_end

    def start_of(self, place: int) -> int:
        """Return the byte of the body at which the event at a place begins."""
        if not self.starts and place == len(self.texts) - 1:
            return self.end - len(self.texts[place]) - self.around
        if not self.starts:
            sizes = [len(text) + self.around for text in self.texts]
            self.starts = [*accumulate(sizes, initial=self.start)]
        return self.starts[place]


def cut_events(data: bytes, start: int) -> CutEvents | None:
    """Cut the complete events at the start of a read, which begins at the body's byte `start`.
    Return None unless each has one `data` line other than `{}`, and all lines end alike.
    """
    lines = BytesIO(data).readlines()
    blank = lines[1::2]
    line_end = blank[0] if blank else b""
    if line_end not in _LINE_ENDS or blank.count(line_end) != len(blank):
        return _cut_among_silent(data, start)
    rest = lines.pop() if len(lines) & 1 else b""
    opening = _DATA if data.startswith(_DATA) else _DATA[:-1]
    text = slice(len(opening), -len(line_end))
    texts = [line[text] for line in lines[::2]]
    size = len(data) - len(rest)
    around = len(opening) + 2 * len(line_end)
    # Joining the texts again shows in one comparison whether each line is a data line.
    body = (line_end + line_end + opening).join(texts)
    if (
        size != around + len(body)
        or not data.startswith(opening)
        or not data.startswith(body, len(opening))
        or (_CR in data and _has_other_cr(data, len(lines) * (line_end != b"\n"), rest))
    ):
        return _cut_among_silent(data, start)
    end = start + size
    is_last = texts[-1] == DONE
    if is_last:
        texts.pop()
        end -= len(DONE) + around
    if texts and min(map(len, texts)) < _SHORT:
        return None
    return CutEvents(texts, start, end, size, is_last, opening, line_end, around)


def _cut_among_silent(data: bytes, start: int) -> CutEvents | None:
    """Cut events that have silent lines besides their `data` line."""
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
    if not texts:
        return None
    first, end, is_last = starts[0], opened, texts[-1] == DONE
    if is_last:
        texts.pop()
        end = starts.pop()
    if texts and min(map(len, texts)) < _SHORT:
        return None
    return CutEvents(texts, first, end, opened - start, is_last, starts=[*starts, end])


def _has_other_cr(data: bytes, expected: int, rest: bytes) -> bool:
    """Return whether there is a CR besides those of the `expected` lines that end in CRLF."""
    count = data.count(b"\r") - rest.count(b"\r")
    return _CR in rest[:-1] or count != expected or data.count(b"\r\n") != expected
