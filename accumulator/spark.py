"""Reduce recorded chunks on a Spark cluster to one completion for each stream.

`reduce_chunks` is for a table, `reduce_stream` for a stream of rows. Both take rows of (stream id,
sequence number, chunk). They return `id` and the fields of a `batch.StreamResult`: `status`,
`completion` (JSON) and `limit` as strings, `problems` as an array of (kind, message, event, path,
detail as JSON), `problem_counts` as a map of string to bigint, and `repeats` as a bigint.

A chunk that cannot be read is a problem of its stream and does not fail the job. PySpark 4.1 or
later and this package must be installed on every worker. See docs/spark.md for sizes and figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, cast

import msgspec
from attrs import define
from msgspec import Struct

from ._accumulator import Accumulator
from ._extras import load
from .batch import RecordedStream, StreamResult, reduce_sorted
from .limits import DEFAULT_LIMITS, Limits
from .rules import DEFAULT_RULES, Rules

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, Row
    from pyspark.sql.types import StructType

__all__ = ["reduce_chunks", "reduce_stream"]

_PROBLEM = "struct<kind:string,message:string,event:bigint,path:string,detail:string>"
_COLUMNS = {
    "status": "string",
    "completion": "string",
    "problems": f"array<{_PROBLEM}>",
    "problem_counts": "map<string,bigint>",
    "repeats": "bigint",
    "limit": "string",
}
_INTEGERS = ("tinyint", "smallint", "int", "bigint")
# The types that Spark and Python sort in the same order; NaN has none.
_ORDERED = (*_INTEGERS, "decimal", "string", "binary", "date", "timestamp", "timestamp_ntz")
_ROWS = 256  # in a batch of results
_STORE = "spark.sql.streaming.stateStore.providerClass"
_ROCKSDB = "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"


def reduce_chunks(
    df: DataFrame,
    *,
    id: str = "id",
    seq: str = "seq",
    chunk: str = "chunk",
    rules: Rules = DEFAULT_RULES,
    limits: Limits = DEFAULT_LIMITS,
) -> DataFrame:
    """Reduce a table of chunks, in any order and with repeats, to one row for each stream.

    `id`, `seq` and `chunk` name its columns: the stream; what its chunks are sorted by, an integer,
    string, decimal, date or timestamp, with or without gaps; and the chunk's JSON or its SSE event,
    as string or binary. The rows are shuffled once, by `id`, and sorted, on disk if they do not fit
    into memory. Python holds one stream at a time.

    Raises ValueError for a column of another type, ImportError without pyarrow.

    >>> reduce_chunks(spark.read.parquet("logs/"), id="request_id").write.parquet("completions/")
    ... # doctest: +SKIP
    """
    load("pyarrow", "spark")
    rows = _selected(df, _ORDERED, id=id, seq=seq, chunk=chunk)
    schema = _schema(rows)

    def reduce(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa  # noqa: PLC0415  # an optional dependency, and on the worker
        from pyspark.sql.pandas.types import to_arrow_schema  # noqa: PLC0415  # as above

        columns = ([column.to_pylist() for column in batch.columns] for batch in batches)
        given: Iterator[Any] = chain.from_iterable(zip(*each, strict=True) for each in columns)
        # Spark and Python may sort ids differently, but the rows of one id are always together.
        results = reduce_sorted(given, rules=rules, limits=limits, grouped=True)
        while some := [_row(id, result) for id, result in islice(results, _ROWS)]:
            yield pa.RecordBatch.from_pylist(some, schema=to_arrow_schema(schema))

    # Not applyInPandas: it holds each stream's rows twice, and takes three times as long.
    return rows.repartition("id").sortWithinPartitions("id", "seq").mapInArrow(reduce, schema)


def reduce_stream(
    df: DataFrame,
    *,
    id: str = "id",
    seq: str = "seq",
    chunk: str = "chunk",
    time: str = "time",
    first: int = 0,
    most_waiting: int = 1000,
    rules: Rules = DEFAULT_RULES,
    limits: Limits = DEFAULT_LIMITS,
) -> DataFrame:
    """Reduce a streaming DataFrame of chunks to one row for each stream, in append mode.

    The columns are those of `reduce_chunks`, but `seq` must be consecutive integers from `first`,
    and `time` is a timestamp with a watermark, whose delay is how long to wait.

    A row that comes too early waits in the state. A stream's result is written when its `[DONE]` or
    its server's error has been read in order, or else when the watermark has passed its newest row.
    In that case, or when more than `most_waiting` of its rows wait, each gap is read as one lost
    chunk: an `invalid_chunk` problem, and a status that cannot be better than "truncated". Rows
    that come after the result are dropped; Spark itself drops those before the watermark.

    A query can only be resumed from its checkpoint location with the same rules and the same
    version of this package. Raises ValueError for a column of another type, or without the RocksDB
    state store; ImportError without pandas, pyarrow or protobuf.

    >>> rows = reduce_stream(chunks.withWatermark("time", "10 minutes"))  # doctest: +SKIP
    >>> rows.writeStream.option("checkpointLocation", "state/").toTable("answers")
    ... # doctest: +SKIP
    """
    for module in ("pandas", "pyarrow", "google.protobuf"):
        load(module, "spark")
    if df.sparkSession.conf.get(_STORE, "") != _ROCKSDB:
        raise ValueError(f"keyed state needs spark.conf.set({_STORE!r}, {_ROCKSDB!r})")
    rows = _selected(df, _INTEGERS, id=id, seq=seq, chunk=chunk, time=time)
    # Not by processing time: that runs empty batches for ever, even once all input has been read.
    return rows.groupBy("id").transformWithState(
        # It has the methods; inheriting from PySpark's class would mean importing PySpark.
        statefulProcessor=cast("Any", _Processor(first, most_waiting, rules, limits)),
        outputStructType=_schema(rows),
        outputMode="Append",
        timeMode="EventTime",
    )


class _StreamState(Struct, array_like=True):
    """The state of one stream between two micro-batches."""

    next: int  # sequence number that is read next
    newest: int = 0  # time of its newest row, in milliseconds
    is_written: bool = False
    repeats: int = 0
    gaps: int = 0
    checkpoint: bytes = b""
    waiting: dict[int, bytes | None] = {}


@define(slots=False)
class _Processor:
    """Has the methods of PySpark's `StatefulProcessor`, without importing it."""

    _first: int
    _most_waiting: int
    _rules: Rules
    _limits: Limits

    def init(self, handle: Any) -> None:
        self._handle = handle
        self._state = handle.getValueState("stream", "held binary")

    def handleInputRows(
        self, key: tuple[object], rows: Iterable[Any], timerValues: Any
    ) -> Iterator[Row]:
        held = self._get() or _StreamState(next=self._first)
        is_new = not held.newest
        lost = 0
        for _, seq, chunk, _, at in rows:
            held.newest = max(held.newest, at)
            if seq is None:  # then it has no place in the order
                lost += 1
            elif held.is_written or seq < held.next or seq in held.waiting:
                held.repeats += 1
            else:
                held.waiting[seq] = None if chunk is None else bytes(chunk)
        if is_new:
            self._handle.registerTimer(held.newest)
        if not held.is_written:
            yield from self._read(key, held, lost=lost)
        self._state.update((msgspec.msgpack.encode(held),))

    def handleExpiredTimer(
        self, key: tuple[object], timerValues: Any, expiredTimerInfo: Any
    ) -> Iterator[Row]:
        held = self._get()
        if held is None:
            return
        if timerValues.getCurrentWatermarkInMs() < held.newest:
            self._handle.registerTimer(held.newest)
            return
        if not held.is_written:
            yield from self._read(key, held, close=True)
        self._state.clear()

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def _get(self) -> _StreamState | None:
        value = self._state.get()
        return None if value is None else msgspec.msgpack.decode(bytes(value[0]), type=_StreamState)

    def _read(
        self, key: tuple[object], held: _StreamState, *, lost: int = 0, close: bool = False
    ) -> Iterator[Row]:
        """Read the rows that are in order; yield the result if the stream ended, or if `close`."""
        if held.checkpoint:
            acc = Accumulator.restore(held.checkpoint, rules=self._rules, limits=self._limits)
        else:
            acc = Accumulator(rules=self._rules, limits=self._limits)
        stream = RecordedStream(acc)
        held.gaps += lost
        for _ in range(lost):
            stream.feed(None)
        waiting = held.waiting
        while waiting:
            if held.next not in waiting:
                if not close and len(waiting) <= self._most_waiting:
                    break
                stream.feed(None)
                held.gaps += 1
                held.next = min(waiting)
            stream.feed(waiting.pop(held.next))
            held.next += 1
        if not (close or stream.has_ended):
            held.checkpoint = stream.checkpoint()
            return
        row = _row(key[0], stream.finish(repeats=held.repeats))
        if held.gaps and row["status"] == "complete":
            row["status"] = "truncated"
        held.is_written, held.checkpoint = True, b""
        waiting.clear()
        from pyspark.sql import Row  # noqa: PLC0415  # an optional dependency, and on the worker

        yield Row(**row)


def _row(id: object, result: StreamResult) -> dict[str, object]:
    """Return a result as a row of builtins."""
    counts, completion = dict(result.problem_counts), result.completion.to_json()
    problems = []
    for each in result.problems:
        detail = None if each.detail is None else msgspec.json.encode(each.detail).decode()
        fields = {name: getattr(each, name) for name in ("kind", "message", "event", "path")}
        problems.append({**fields, "detail": detail})
    columns = result.status, completion, problems, counts, result.repeats, result.limit
    return {"id": id, **dict(zip(_COLUMNS, columns, strict=True))}


def _selected(df: DataFrame, ordered: tuple[str, ...], **names: str) -> DataFrame:
    """Return the columns under our names: chunks as bytes, a time also in milliseconds."""
    from pyspark.sql.functions import coalesce, col, lit, unix_millis  # noqa: PLC0415

    rows = df.select(*[col(theirs).alias(ours) for ours, theirs in names.items()])
    types = dict(rows.dtypes)
    if types["chunk"] not in ("string", "binary"):
        raise ValueError(f"{names['chunk']}: chunks are strings or binary, not {types['chunk']}")
    if types["seq"].partition("(")[0] not in ordered:
        kinds = "integers" if ordered is _INTEGERS else "integers, strings, decimals or times"
        raise ValueError(f"{names['seq']}: sequence numbers are {kinds}, not {types['seq']}")
    rows = rows.withColumn("chunk", rows["chunk"].cast("binary"))
    if "time" not in names:
        return rows
    if types["time"] != "timestamp":
        raise ValueError(f"{names['time']}: times are timestamps, not {types['time']}")
    return rows.withColumn("at", coalesce(unix_millis(rows["time"]), lit(0)))


def _schema(rows: DataFrame) -> StructType:
    from pyspark.sql.types import StructField, StructType  # noqa: PLC0415

    columns = StructType.fromDDL(", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items()))
    fields = cast("StructType", columns).fields
    return StructType([StructField("id", rows.schema["id"].dataType), *fields])
