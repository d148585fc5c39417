"""Recorded logs: rows of (stream id, sequence number, chunk) to one completion a stream.

No engine is in it: what sorts the rows, and where they are stored, is the caller's affair.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar, cast

from ._bulk import BulkStream, StreamResult
from .limits import DEFAULT_LIMITS, Limits
from .rules import DEFAULT_RULES, Rules

__all__ = ["StreamResult", "UnsortedRowsError", "reduce_sorted"]

Id = TypeVar("Id")


class UnsortedRowsError(ValueError):
    """A row stands where no sorted input has it. `row` counts rows from 1, `id` is its stream's."""

    def __init__(self, message: str, *, row: int, id: object) -> None:
        super().__init__(f"row {row}, id {id!r}: {message}")
        self.row = row
        self.id = id


def reduce_sorted(
    rows: Iterable[tuple[Id, object, object]],
    *,
    rules: Rules = DEFAULT_RULES,
    limits: Limits = DEFAULT_LIMITS,
    grouped: bool = False,
) -> Iterator[tuple[Id, StreamResult]]:
    """Reduce rows of (id, seq, chunk), sorted by id and then by seq, to one (id, result) a stream.

    A chunk is JSON text (`bytes` or `str`), one event of a `text/event-stream` body (`data: {…}`),
    a mapping, an SDK's chunk object, or None for one that was lost (an `invalid_chunk` problem). A
    seq is anything that has an order, or None for a row that follows the one before it; a row with
    the last seq once more is a repeat, dropped and counted. Ids ascend, as any engine sorts
    them that compares text by its code points or UTF-8 bytes; `grouped=True` takes ids in any order
    as long as the rows of each stand together, and cannot tell if one comes again.

    Lazy: it reads as the caller asks, and holds one stream at a time. A stream that passes one of
    the `limits` ends there, and its result says so. Raises UnsortedRowsError for a row out of
    order, TypeError for a chunk of another type; both name the row.

    >>> rows = [("a", 1, '{"choices": [{"index": 0, "delta": {"content": "Hi"}}]}')]
    >>> [(id, result.status) for id, result in reduce_sorted(rows)]
    [('a', 'truncated')]
    """
    stream: BulkStream | None = None
    open_id = cast("Id", None)
    last: object = None  # sequence number
    repeats = 0
    for number, (id, seq, chunk) in enumerate(rows, 1):
        if stream is not None and id == open_id:
            if seq is not None and last is not None:
                if seq == last:
                    repeats += 1
                    continue
                if not _ascends(last, seq):
                    raise UnsortedRowsError(f"seq {seq!r} after {last!r}", row=number, id=id)
        else:
            if stream is not None:
                if not grouped and not _ascends(open_id, id):
                    raise UnsortedRowsError(f"after the rows of {open_id!r}", row=number, id=id)
                yield open_id, stream.finish(repeats=repeats)
            stream, open_id, last, repeats = BulkStream(rules, limits), id, None, 0
        if seq is not None:
            last = seq
        try:
            stream.feed(chunk)
        except TypeError as error:
            raise TypeError(f"row {number}, id {id!r}: {error}") from None
    if stream is not None:
        yield open_id, stream.finish(repeats=repeats)


def _ascends(earlier: object, later: object) -> bool:
    """Tell whether two values are in order; two that cannot be compared are in none."""
    try:
        return bool(earlier < later)  # type: ignore[operator]  # a TypeError is an answer
    except TypeError:
        return False
