"""Lines of one stream that differ in one text only: told without a decode each.

Two lines that follow each other show what stands around the text; a third is like them if it is the
same bytes but for a text that is valid JSON, and then it is a row of the same stream. What does not
fit is for the caller to decode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol

import msgspec

__all__ = ["Alike", "Row"]

_GAP = b"\x7f~gap~\x7f"  # stands for the text when what is around it is decoded
_NUMBER = 987_654_321_987  # and this for the sequence number
_decode_texts = msgspec.json.Decoder(list[str]).decode


class Row(Protocol):
    """A decoded line."""

    id: str | int | None
    seq: int | None
    chunk: msgspec.Raw


class Alike:
    """What stands around the text, and around the sequence number if there is one."""

    __slots__ = ("_before", "_between", "_chunk", "_middle", "_tail", "id", "seq")

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
        self._chunk = b"data: " + chunk[0], chunk[1] + b"\n\n"
        self._between = self._tail + self._before

    @classmethod
    def learn(cls, decode: Callable[[bytes], Row], first: bytes, second: bytes) -> Alike | None:
        """Learn from two lines, ends included, of which the first is to be taken next; None if they
        are not alike.
        """
        try:
            row = decode(first)
        except (ValueError, RecursionError):
            return None
        if type(row.id) is not str or not row.id or _GAP in first:
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
        left = behind.rfind(b'"', 0, _alike_to(behind, other)) + 1
        middle = behind[:left]
        same = behind[len(behind) - _alike_from(behind[left:], other[left:]) :]
        tail = same[max(same.find(b'"'), 0) :]
        # A string with any of these behind it is no key, so that the text cannot make it another.
        if tail[:2] not in (b'",', b'"}', b'"]'):
            return None
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

    def take(self, block: bytes, start: int, lines: Sequence[bytes]) -> tuple[int, int, bytes]:
        """Tell how many lines are alike, from the first on, and how many bytes they are; give their
        chunks as the events of a `text/event-stream` body. The lines start at a byte of a block.
        """
        if self.seq is not None:  # as many as have the same number of digits
            lines = lines[: 10 ** len(b"%d" % self.seq) - self.seq]
        lines = self._fitting(lines)
        cut = self._cut(block, start, lines)
        while cut is None:
            lines = lines[: len(lines) // 2]
            cut = self._cut(block, start, lines)
        if not lines:
            return 0, 0, b""
        cuts, size = cut
        if self.seq is not None:
            self.seq += len(cuts)
        head, tail = self._chunk
        return len(cuts), size, head + (tail + head).join(cuts) + tail

    def _cut(
        self, block: bytes, start: int, lines: Sequence[bytes]
    ) -> tuple[list[bytes], int] | None:
        """Cut the texts out of lines; None if these are not all alike."""
        if not lines:
            return [], 0
        middle, tail, seq = self._middle, self._tail, self.seq
        if seq is None:
            gap = slice(len(middle), -len(tail))
            cuts = [line[gap] for line in lines]
            same = middle + (tail + middle).join(cuts) + tail
        else:
            count = len(lines)
            numbers = _numbers(seq, count)
            size = len(self._before) + len(middle) + len(b"%d" % seq)
            gap = slice(size, -len(tail))
            cuts = [line[gap] for line in lines]
            parts = [middle] * (4 * count)
            parts[::4] = numbers
            parts[2::4] = cuts
            parts[3::4] = [self._between] * count
            parts[-1:] = [tail]
            same = self._before + b"".join(parts)
        if not block.startswith(same, start):
            return None
        try:
            # A string of JSON has no line end in it: no text can reach into the next one.
            texts = _decode_texts(b'["%b"]' % b'"\n,"'.join(cuts))
        except ValueError:
            return None
        return (cuts, len(same)) if len(texts) == len(cuts) else None

    def _fitting(self, lines: Sequence[bytes]) -> Sequence[bytes]:
        """Leave out lines that cannot be alike. Most streams end somewhere within the lines."""
        head, tail = self._middle if self.seq is None else self._before, self._tail
        low, high = 0, len(lines)
        place = high - 1
        while low < high:
            if lines[place].startswith(head) and lines[place].endswith(tail):
                low = place + 1
            else:
                high = place
            place = (low + high) // 2
        return lines[:low]


@lru_cache(maxsize=1024)
def _numbers(first: int, count: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, first + count)]


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
