"""Reduce recorded logs: rows of (stream id, sequence number, chunk) to one completion per stream.

This needs no engine: the caller stores the rows and sorts them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import suppress
from typing import Any, TypeVar, cast

import attrs
import msgspec
from attrs import define, field, frozen

from ._accumulator import Accumulator
from ._merge.state import Status
from .completion import ChatCompletion
from .errors import AccumulatorError, DecodeError, LimitExceededError, Problem
from .limits import DEFAULT_LIMITS, Limits
from .rules import DEFAULT_RULES, Rules

__all__ = ["StreamResult", "UnsortedRowsError", "reduce_sorted"]

Id = TypeVar("Id")

_READ = 64  # texts that are fed as one read
_LARGE = 16 * 1024  # bytes; a longer chunk is fed at once
LOST = b'"a chunk was lost"'  # fed instead of a lost chunk: `null` would be nothing
_BLANK = b" \t\r\n"
_LF, _CR = 10, 13
SSE_FIELDS = (b"data", b"event", b"error", b"id", b"retry", b"")


@frozen(kw_only=True)
class StreamResult:
    """The result of one recorded stream.

    `completion` is the completion, whole or as far as it has arrived. `status` is "complete",
    "truncated" or "failed" (SPEC section 6). `problems` are those that were kept; `problem_counts`
    counts all of them by kind, and `repeats` the rows dropped because their sequence number had
    come before. `limit` names the bound of `Limits` that ended the stream. `error` is what
    `Accumulator.completion` would raise, or None if the completion is whole.
    """

    completion: ChatCompletion
    status: Status
    problems: tuple[Problem, ...] = ()
    problem_counts: Mapping[str, int] = field(factory=dict)
    repeats: int = 0
    limit: str | None = None
    error: AccumulatorError | None = field(default=None, eq=False, repr=False)


class UnsortedRowsError(ValueError):
    """A row is out of order. `row` counts rows from 1, `id` is the id of its stream."""

    def __init__(self, message: str, *, row: int, id: object) -> None:
        super().__init__(f"row {row}, id {id!r}: {message}")
        self.row = row
        self.id = id


def reduce_sorted(
    rows: Iterable[tuple[Id, object, object]] | Iterable[Mapping[str, Id]],
    *,
    rules: Rules = DEFAULT_RULES,
    limits: Limits = DEFAULT_LIMITS,
    grouped: bool = False,
) -> Iterator[tuple[Id, StreamResult]]:
    """Reduce rows of (id, seq, chunk), sorted by id, then seq, to one (id, result) per stream.

    A row is a tuple or a mapping with these keys; a mapping may lack `seq`. A chunk is JSON text
    (`bytes` or `str`), one event of a `text/event-stream` body, a mapping, an SDK's chunk object,
    or None for one that was lost (an `invalid_chunk` problem). A seq is anything that can be
    ordered, or None to follow the row before; a row that repeats a seq is dropped and counted. Ids
    ascend by code points or UTF-8 bytes, as most engines sort text. With `grouped=True`, each
    stream's rows need only be adjacent, and an id that comes again is not noticed.

    It is lazy, and keeps one stream at a time. A stream that passes one of the `limits` ends there.
    Raises UnsortedRowsError for a row out of order, TypeError for a chunk of another type; both
    name the row.

    >>> rows = [("a", 1, '{"choices": [{"index": 0, "delta": {"content": "Hi"}}]}')]
    >>> [(id, result.status) for id, result in reduce_sorted(rows)]
    [('a', 'truncated')]
    """
    stream: RecordedStream | None = None
    open_id: Any = None
    last: Any = None  # sequence number
    repeats = 0
    for number, row in enumerate(cast("Iterable[Any]", rows), 1):
        id, seq, chunk = row if type(row) is tuple else _cells_of(row)
        if stream is None or id != open_id:
            if stream is not None:
                if not grouped and not _ascends(open_id, id):
                    why = f"comes after the rows of {open_id!r}"
                    raise UnsortedRowsError(why, row=number, id=id)
                yield open_id, stream.finish(repeats=repeats)
            stream = RecordedStream(Accumulator(rules=rules, limits=limits))
            open_id, last, repeats = id, None, 0
        elif seq is not None and last is not None and not _ascends(last, seq):
            if seq != last:
                raise UnsortedRowsError(f"seq {seq!r} comes after {last!r}", row=number, id=id)
            repeats += 1
            continue
        if seq is not None:
            last = seq
        try:
            stream.feed(chunk)
        except TypeError as error:
            raise TypeError(f"row {number}, id {id!r}: {error}") from None
    if stream is not None:
        yield open_id, stream.finish(repeats=repeats)


def _cells_of(row: Any) -> Any:
    """Return the cells of a row. Raises TypeError for anything else, such as a table's columns."""
    if not isinstance(row, Mapping):
        if isinstance(row, str) or not isinstance(row, Sized) or len(row) != 3:
            raise TypeError(f"a row is (id, seq, chunk), or a mapping with these keys, not {row!r}")
        return row
    if "id" not in row or "chunk" not in row:
        raise TypeError(f"a row has the keys id, seq and chunk; this one has {', '.join(row)}")
    return row["id"], row.get("seq"), row["chunk"]


def _ascends(earlier: Any, later: Any) -> bool:
    """Return whether two values are in order; values that cannot be compared are not."""
    try:
        return bool(earlier < later)
    except TypeError:
        return False


@define
class RecordedStream:
    """One recorded stream; a limit that is passed ends it, without an exception."""

    accumulator: Accumulator
    _waiting: list[bytes] = field(factory=list)  # JSON texts
    _is_body: bool = False

    def feed(self, chunk: object) -> None:
        """Feed the next chunk, in any form that `reduce_sorted` takes. Raises TypeError."""
        if type(chunk) is not bytes or not chunk.startswith(b"{"):
            self._feed_other(chunk)
            return
        self._waiting.append(chunk)
        if len(self._waiting) >= _READ or len(chunk) > _LARGE:
            self._flush()

    def _feed_other(self, chunk: object) -> None:
        """Feed a chunk in any other form than the bytes of a JSON object."""
        take: Callable[[Any], None] = self.accumulator.feed
        if chunk is None:
            chunk = LOST
        elif isinstance(chunk, str):
            chunk = chunk.encode("utf-8", "surrogatepass")
        if isinstance(chunk, (bytes, bytearray, memoryview, msgspec.Raw)):
            chunk = text = bytes(chunk).strip(_BLANK)
            line = text[5:].lstrip() if text.startswith(b"data:") and _LF not in text else text
            if line.startswith(b"{"):
                self.feed(line)
                return
            if text.partition(b":")[0] in SSE_FIELDS:
                take, chunk = self.accumulator.feed_sse, text + b"\n\n"
        self._flush()
        self._feed(take, chunk)

    def feed_body(self, data: bytes) -> None:
        """Feed the next bytes of a `text/event-stream` body, cut anywhere."""
        self._is_body = True
        self._feed(self.accumulator.feed_sse, data)

    def checkpoint(self) -> bytes:
        """Return the whole state as bytes."""
        self._flush()
        return self.accumulator.checkpoint()

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will be read: after `[DONE]`, a server's error or a passed limit."""
        self._flush()
        acc = self.accumulator
        is_read = acc._reducer.is_reading and acc.status != "failed"
        return not is_read or acc._pipeline.tally.passed is not None

    def finish(self, *, repeats: int = 0) -> StreamResult:
        """End the stream and return its result."""
        self._flush()
        acc = self.accumulator
        error: AccumulatorError | None = None
        try:
            # After a limit, `close` would read the events that still wait.
            if acc._pipeline.tally.passed is None:
                acc.close()
            completion = acc._judged()
        except AccumulatorError as raised:
            error = raised.with_traceback(None)
            completion = cast("ChatCompletion", raised.partial)
        problems = acc.problems
        if not self._is_body:
            # Offsets would count bytes of reads that were made up here.
            problems = tuple(attrs.evolve(problem, offset=None) for problem in problems)
            if error is not None and error.problem is not None:
                lost = attrs.evolve(error.problem, offset=None)
                error = DecodeError(str(lost), partial=completion, problems=problems, problem=lost)
        return StreamResult(
            completion=completion,
            status="truncated" if acc.status == "open" else acc.status,
            problems=problems,
            problem_counts=acc.problem_counts,
            repeats=repeats,
            limit=error.limit if isinstance(error, LimitExceededError) else None,
            error=error,
        )

    def _flush(self) -> None:
        """Feed the texts that are waiting: as one read if that makes no difference."""
        texts, self._waiting = self._waiting, []
        if not texts:
            return
        acc, pipeline = self.accumulator, self.accumulator._pipeline
        # A line end in a text would become one of the body, and a limit may lie within a read.
        joined = b"".join(texts)
        is_plain = _LF not in joined and _CR not in joined
        body = b"data: %b\n\n" % b"\n\ndata: ".join(texts)
        size = len(body)
        fits = size <= pipeline._most_event and pipeline.tally.size + size <= pipeline._most_bytes
        if is_plain and fits:
            self._feed(acc.feed_sse, body)
        else:
            for text in texts:
                self._feed(acc.feed, text)

    def _feed(self, take: Callable[[Any], None], data: object) -> None:
        if self.accumulator._pipeline.tally.passed is None:
            with suppress(LimitExceededError):
                take(data)
