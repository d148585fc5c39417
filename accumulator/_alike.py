"""Lines of one stream that differ in one text only: told without a decode each.

Two lines that follow each other show what stands around the text; a third is like them if it is the
same bytes but for a text that is valid JSON, and then it is a row of the same stream. What does not
fit is for the caller to decode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
from msgspec import Struct

__all__ = ["BETWEEN", "Alike", "AlikeRows", "Row", "tell_alike"]

BETWEEN = b"\x7f"  # strings that are read as one: a control character that JSON allows in them
_decode_string = msgspec.json.Decoder(str).decode
_GAP = b"\x7f~gap~\x7f"  # stands for the text when what is around it is decoded
_NUMBER = 987_654_321_987  # and this for the sequence number
_END = 6  # bytes at the end of two lines that are looked at first
_MOST_KEPT = 1 << 14  # numbers, as most streams have no more chunks
_small: list[bytes] = []


class Row(Protocol):
    """A decoded line."""

    id: str | int | None
    seq: int | None
    chunk: msgspec.Raw


class AlikeRows(Struct):
    """Rows of one stream whose chunks differ in one text: the JSON before it, the texts as they
    stand there, and the JSON behind. They have no numbers, or such as count on from the first.
    """

    id: str
    first: int | None
    count: int
    head: bytes
    joined: bytes  # the texts, with BETWEEN between them
    tail: bytes
    text: bytes  # what they come to: UTF-8

    def split(self) -> tuple[bytes, AlikeRows]:
        """Give the first text as it stands in JSON, and the rows behind its own."""
        first, _, rest = self.joined.partition(BETWEEN)
        known = decode_joined(first, 1) or b""
        seq = None if self.first is None else self.first + 1
        text = self.text[len(known) :]
        return first, AlikeRows(self.id, seq, self.count - 1, self.head, rest, self.tail, text)


class Alike:
    """What stands around the text, and around the sequence number if there is one."""

    __slots__ = ("_before", "_between", "_middle", "_tail", "head", "id", "rest", "seq")

    def __init__(
        self,
        id: str,
        seq: int | None,
        around: tuple[bytes, bytes, bytes],
        chunk: tuple[bytes, bytes],
    ) -> None:
        self.id = id
        self.seq = seq  # of the next line
        self._before, self._middle, self._tail = around
        self.head, self.rest = chunk  # the text's chunk around it
        self._between = self._tail + self._before

    @classmethod
    def learn(cls, decode: Callable[[bytes], Row], first: bytes, second: bytes) -> Alike | None:
        """Learn from two lines, ends included, of which the first is to be taken next; None if they
        are not alike.
        """
        if first[-_END:] != second[-_END:]:
            return None
        try:
            row = decode(first)
        except (ValueError, RecursionError):
            return None
        if type(row.id) is not str or not row.id or _GAP in first or (row.seq or 0) < 0:
            return None
        before, behind, other = b"", first, second
        if row.seq is not None:
            number = b"%d" % row.seq
            start = _alike_to(first, second)
            while start and first[start - 1 : start].isdigit():
                start -= 1
            if not first.startswith(number, start):
                return None
            before, behind = first[:start], first[start + len(number) :]
            other = second[start + len(b"%d" % (row.seq + 1)) :]
        left, tail = _around(behind, other)
        if not tail:
            return None
        middle = behind[:left]
        number = b"" if row.seq is None else b"%d" % _NUMBER
        line = before + number + middle + _GAP + tail
        try:
            around = decode(line)
        except (ValueError, RecursionError):
            return None  # the gap is not within a string
        if around.id != row.id or around.seq != (None if row.seq is None else _NUMBER):
            return None
        chunk = bytes(around.chunk) or line.strip()
        head, gap, rest = chunk.partition(_GAP)
        if not gap or not head.startswith(b"{") or b"\r" in chunk or b"\n" in chunk:
            return None
        return cls(row.id, row.seq, (before, middle, tail), (head, rest))

    def take(
        self, block: bytes, start: int, lines: Sequence[bytes]
    ) -> tuple[AlikeRows | None, int]:
        """Give the rows of the lines that are alike, from the first on, and how many bytes these
        lines are. The lines start at a byte of a block.
        """
        lines = _fitting(lines, self._middle if self.seq is None else self._before, self._tail)
        while lines:
            taken = self._cut(block, start, lines)
            if taken is not None:
                if self.seq is not None:
                    self.seq += len(lines)
                return taken
            lines = lines[: len(lines) // 2]
        return None, 0

    def _cut(
        self, block: bytes, start: int, lines: Sequence[bytes]
    ) -> tuple[AlikeRows, int] | None:
        """Cut the texts out of lines; None if these are not all alike."""
        middle, tail, seq = self._middle, self._tail, self.seq
        count = len(lines)
        if seq is None:
            gap = slice(len(middle), -len(tail))
            cuts = [line[gap] for line in lines]
            same = middle + (tail + middle).join(cuts) + tail
        else:
            cuts = []
            while len(cuts) < count:
                # Numbers with as many digits.
                digits = len(b"%d" % (seq + len(cuts)))
                gap = slice(len(self._before) + digits + len(middle), -len(tail))
                cuts += [line[gap] for line in lines[len(cuts) : 10**digits - seq]]
            parts = [b"", middle, b"", self._between] * count
            parts[::4] = _numbers(seq, count)
            parts[2::4] = cuts
            parts[-1] = tail
            same = self._before + b"".join(parts)
        if not block.startswith(same, start):
            return None
        joined = BETWEEN.join(cuts)
        text = decode_joined(joined, count)
        if text is None:
            return None
        return AlikeRows(self.id, seq, count, self.head, joined, self.rest, text), len(same)


def tell_alike(chunks: Sequence[bytes]) -> AlikeRows | None:
    """Tell which chunks, from the first on, differ in one text; None if the first two do not."""
    left, tail = _around(chunks[0], chunks[1])
    head = chunks[0][:left]
    if not tail or not head.startswith(b"{") or b"\n" in head + tail or b"\r" in head + tail:
        return None
    chunks = _fitting(chunks, head, tail)
    while chunks:
        gap = slice(left, -len(tail))
        cuts = [chunk[gap] for chunk in chunks]
        if b"".join(chunks) == head + (tail + head).join(cuts) + tail:
            joined = BETWEEN.join(cuts)
            text = decode_joined(joined, len(cuts))
            if text is not None:
                return AlikeRows("", None, len(cuts), head, joined, tail, text)
        chunks = chunks[: len(chunks) // 2]
    return None


def _around(one: bytes, other: bytes) -> tuple[int, bytes]:
    """Find the text that two lines differ in: where it starts, and what stands behind it, which is
    empty if they differ in more.
    """
    left = one.rfind(b'"', 0, _alike_to(one, other)) + 1
    same = one[len(one) - _alike_from(one[left:], other[left:]) :]
    tail = same[max(same.find(b'"'), 0) :]
    # A string with any of these behind it is no key, so that the text cannot make it another.
    return left, tail if tail[:2] in (b'",', b'"}', b'"]') else b""


def _fitting(lines: Sequence[bytes], head: bytes, tail: bytes) -> Sequence[bytes]:
    """Leave out lines that cannot be alike. Most streams end somewhere within the lines."""
    low, high = 0, len(lines)
    place = high - 1
    while low < high:
        if lines[place].startswith(head) and lines[place].endswith(tail):
            low = place + 1
        else:
            high = place
        place = (low + high) // 2
    return lines[:low]


def _numbers(first: int, count: int) -> list[bytes]:
    """Write numbers that count on from the first."""
    end = first + count
    if end > _MOST_KEPT:
        return [b"%d" % number for number in range(first, end)]
    known = len(_small)
    if known < end:  # put where it belongs, not at the end: another thread may do the same
        _small[known:end] = [b"%d" % number for number in range(known, end)]
    return _small[first:end]


def _alike_to(one: bytes, other: bytes) -> int:
    """Count the bytes at the start of two texts that are the same."""
    size = min(len(one), len(other))
    differing = int.from_bytes(one[:size], "big") ^ int.from_bytes(other[:size], "big")
    return size - (differing.bit_length() + 7) // 8


def _alike_from(one: bytes, other: bytes) -> int:
    """Count the bytes at the end of two texts that are the same."""
    size = min(len(one), len(other))
    ends = one[len(one) - size :], other[len(other) - size :]
    differing = int.from_bytes(ends[0], "big") ^ int.from_bytes(ends[1], "big")
    return ((differing & -differing).bit_length() - 1) // 8 if differing else size


def decode_joined(joined: bytes, count: int) -> bytes | None:
    """Read what was cut out of so many strings, with BETWEEN between, as one: no string is made of
    each. None if one is not valid by itself, or holds a BETWEEN.

    What is between two shows that none ends within an escape or a character. None has a quote, or
    it would end the string.
    """
    try:
        text = _decode_string(b'"%b"' % joined).encode()
    except ValueError:
        return None
    fragments = text.translate(None, BETWEEN)
    return fragments if len(text) - len(fragments) == count - 1 else None
