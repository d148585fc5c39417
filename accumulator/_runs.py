"""The rows of one stream, run by run, to its line of the output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import cast

import msgspec

from ._alike import AlikeRows
from ._bulk import BulkStream, StreamResult
from ._records import Run, TornError
from ._rows import Rows
from .limits import DEFAULT_LIMITS
from .rules import DEFAULT_RULES

__all__ = ["RowStream", "check_order", "reduce_runs", "row_of", "runs_in"]


def row_of(id: str, result: StreamResult) -> bytes:
    """Write a stream's result as a line of JSON Lines."""
    return (
        msgspec.json.encode(
            {
                "id": id,
                "status": result.status,
                "completion": result.completion.to_dict(),
                "problems": [_without_nulls(problem) for problem in result.problems],
                "repeats": result.repeats,
                "limit": result.limit,
            }
        )
        + b"\n"
    )


def _without_nulls(problem: object) -> dict[str, object]:
    fields = cast("dict[str, object]", msgspec.to_builtins(problem, enc_hook=str))
    return {name: value for name, value in fields.items() if value is not None}


class _Order:
    """Holds the rows of a stream to their order, and drops repeats."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._begun = False
        self.repeats = 0

    def take(self, run: Run) -> AlikeRows | Sequence[bytes]:
        """Give the chunks of the next run. Raises TornError if it is out of order."""
        if run.alike is not None:
            return self._take_alike(run.alike)
        chunks: Sequence[bytes] = run.chunks
        if run.seqs is not None:
            chunks = self._take_numbered(run.seqs, chunks)
        else:
            self._last = None
        self._begun = True
        return chunks

    def _take_alike(self, rows: AlikeRows) -> AlikeRows:
        first = rows.first
        if first is None:
            self._last = None
        else:
            if self._begun and (self._last is None or first < self._last):
                raise TornError
            self._last, last = first + rows.count - 1, self._last
            if self._begun and first == last:
                self.repeats += 1
                _, rows = rows.split()
        self._begun = True
        return rows

    def _take_numbered(
        self, seqs: Sequence[int | None], chunks: Sequence[bytes]
    ) -> Sequence[bytes]:
        """Drop repeats. Rows without a number stand behind those that have one."""
        first, last = seqs[0], self._last
        if (
            first is not None
            and (not self._begun or (last is not None and last < first))
            and seqs == list(range(first, first + len(seqs)))
        ):
            self._last = seqs[-1]
            return chunks
        kept = []
        begun = self._begun
        for seq, chunk in zip(seqs, chunks, strict=True):
            if begun and seq is not None and (last is None or seq < last):
                raise TornError
            if begun and seq is not None and seq == last:
                self.repeats += 1
            else:
                kept.append(chunk)
            last, begun = seq, True
        self._last = last
        return kept


class RowStream:
    """A stream whose rows come run by run."""

    def __init__(self, id: str) -> None:
        self.id = id
        self._stream = BulkStream(DEFAULT_RULES, DEFAULT_LIMITS)
        self._order = _Order()

    def take(self, run: Run) -> None:
        """Take in the next run. Raises TornError if it is out of order."""
        chunks = self._order.take(run)
        if isinstance(chunks, AlikeRows):
            self._stream.feed_alike(chunks)
        else:
            self._stream.feed_texts(chunks)

    def finish(self) -> StreamResult:
        return self._stream.finish(repeats=self._order.repeats)


def check_order(runs: Sequence[Run]) -> None:
    """Raise TornError if the rows of a stream are out of order."""
    order = _Order()
    for run in runs:
        order.take(run)


def reduce_runs(runs: Sequence[Run]) -> tuple[str, StreamResult]:
    """Reduce one stream. Raises TornError if its rows are out of order."""
    stream = RowStream(runs[0].id)
    for run in runs:
        stream.take(run)
    return stream.id, stream.finish()


def runs_in(rows: Rows | AlikeRows) -> Iterator[Run]:
    """Cut rows into runs."""
    if isinstance(rows, AlikeRows):
        yield Run(rows.id, alike=rows)
        return
    ids, seqs = rows.ids, rows.seqs
    start = 0
    ends = [len(ids)]
    if ids[0] != ids[-1] or ids.count(ids[0]) != len(ids):
        ends = [end for end, (a, b) in enumerate(pairwise(ids), 1) if a != b] + ends
    for end in ends:
        some = None if seqs is None else seqs[start:end]
        if some is not None and some.count(None) == len(some):
            some = None
        yield Run(ids[start], some, rows.chunks[start:end])
        start = end
