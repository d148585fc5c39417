"""Lines of one stream that differ in one text only: told without a decode each.

Two lines that follow each other show what stands around the text; a third is like them if it is the
same bytes but for a text that is valid JSON, and then it is a row of the same stream. What does not
fit is for the caller to decode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

    def take(self, lines: Sequence[bytes]) -> tuple[int, bytes]:
        """Tell how many lines, from the first on, are alike, and give their chunks as the events of
        a `text/event-stream` body.
        """
        if self.seq is not None:  # as many as have the same number of digits
            lines = lines[: 10 ** len(b"%d" % self.seq) - self.seq]
        cuts = self._cut(lines)
        if cuts is None:
            cuts = self._cut_one_by_one(lines)
            if not cuts:
                return 0, b""
        if self.seq is not None:
            self.seq += len(cuts)
        head, tail = self._chunk
        return len(cuts), head + (tail + head).join(cuts) + tail

    def _cut(self, lines: Sequence[bytes]) -> list[bytes] | None:
        before, middle, tail, seq = self._before, self._middle, self._tail, self.seq
        size = len(before) + len(middle) + (0 if seq is None else len(b"%d" % seq))
        gap = slice(size, -len(tail))
        cuts = [line[gap] for line in lines]
        if seq is None:
            same = middle + (tail + middle).join(cuts) + tail
        else:
            count = len(cuts)
            parts = [middle] * (4 * count)
            parts[::4] = [b"%d" % number for number in range(seq, seq + count)]
            parts[2::4] = cuts
            parts[3::4] = [self._between] * count
            parts[-1] = tail
            same = before + b"".join(parts)
        if same != b"".join(lines):
            return None
        try:
            # A string of JSON has no line end in it: no text can reach into the next one.
            texts = _decode_texts(b'["%b"]' % b'"\n,"'.join(cuts))
        except ValueError:
            return None
        return cuts if len(texts) == len(cuts) else None

    def _cut_one_by_one(self, lines: Sequence[bytes]) -> list[bytes]:
        cuts: list[bytes] = []
        start = self.seq
        for place, line in enumerate(lines):
            number = b"" if start is None else b"%d" % (start + place)
            head = self._before + number + self._middle
            if (
                not line.startswith(head)
                or not line.endswith(self._tail)
                or len(line) < len(head) + len(self._tail)
            ):
                break
            cut = line[len(head) : -len(self._tail)]
            try:
                if len(_decode_texts(b'["%b"]' % cut)) != 1:
                    break
            except ValueError:
                break
            cuts.append(cut)
        return cuts


def _alike_to(one: bytes, other: bytes) -> int:
    """Count the bytes at the start of two texts that are the same."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _alike_from(one: bytes, other: bytes) -> int:
    """Count the bytes at the end of two texts that are the same."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[-middle:] == other[-middle:]:
            low = middle
        else:
            high = middle - 1
    return low
