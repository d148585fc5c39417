"""Recorded chunks on a Spark cluster: a table, or a stream of rows, to one completion a stream.

Both take rows of (stream id, sequence number, chunk) and return the columns

| column | type | |
|---|---|---|
| `id` | as in the input | |
| `status` | string | "complete", "truncated" or "failed" (SPEC section 6) |
| `completion` | string | the `chat.completion` as JSON: whole, or what is known of it |
| `problems` | array of (kind, message, event, path, detail) | those kept; `detail` is JSON |
| `problem_counts` | map of string to bigint | all of them, by kind |
| `repeats` | bigint | rows that were dropped, because their sequence number had come before |
| `limit` | string | the bound of `Limits` that the stream passed, if it did |

A chunk that cannot be read is a problem of its stream; no row fails the job. PySpark 4.1 or later
and this package must be installed on every worker. Sizing and figures: docs/spark.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import msgspec
from msgspec import Struct, field

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
# What has an order that Spark and Python agree on; NaN has none.
_ORDERED = (*_INTEGERS, "string", "binary", "date", "timestamp", "timestamp_ntz")
_ROWS = 256  # of a batch that is given back
_STORE = "spark.sql.streaming.stateStore.providerClass"
_ROCKSDB = "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"


# --- tables -------------------------------------------------------------------------------


def reduce_chunks(
    df: DataFrame,
    *,
    id: str = "id",
    seq: str = "seq",
    chunk: str = "chunk",
    rules: Rules = DEFAULT_RULES,
    limits: Limits = DEFAULT_LIMITS,
) -> DataFrame:
    """Reduce a table of chunks, in any order and with repeats, to one row a stream.

    `id`, `seq` and `chunk` name its columns: the stream, the chunk's place in it (integer, string,
    decimal, date or timestamp; gaps mean nothing), and its JSON or SSE event as string or binary.
    The rows are shuffled once, by `id`, and sorted on disk as far as memory does not suffice;
    Python holds one stream at a time. Raises ValueError for a column of another type, ImportError
    without pyarrow.

    >>> reduce_chunks(spark.read.parquet("logs/"), id="request_id").write.parquet("completions/")
    ... # doctest: +SKIP
    """
    _require("pyarrow")
    rows = _selected(df, id, seq, chunk, _ORDERED)
    reduce = partial(_reduce_batches, rules=rules, limits=limits)
    # Not applyInPandas: it holds each stream's rows twice, and takes three times as long.
    return (
        rows.repartition("id").sortWithinPartitions("id", "seq").mapInArrow(reduce, _schema(rows))
    )


def _reduce_batches(
    batches: Iterable[pa.RecordBatch], *, rules: Rules, limits: Limits
) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa  # noqa: PLC0415  # an optional dependency, and on the worker

    types: list[pa.DataType] = []

    def rows() -> Iterator[tuple[object, object, object]]:
        for batch in batches:
            types[:] = [batch.schema.field(0).type]
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    def batch_of(results: list[tuple[object, ...]]) -> pa.RecordBatch:
        schema = pa.schema([("id", types[0]), *_arrow_fields()])
        columns = zip(*results, strict=True)
        arrays = [
            pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    results: list[tuple[object, ...]] = []
    # Ids that Spark and Python sort in another way stand together even so.
    for id, result in reduce_sorted(rows(), rules=rules, limits=limits, grouped=True):
        results.append((id, *_columns(result)))
        if len(results) == _ROWS:
            yield batch_of(results)
            results = []
    if results:
        yield batch_of(results)


def _arrow_fields() -> list[pa.Field[Any]]:
    import pyarrow as pa  # noqa: PLC0415

    text, number = pa.string(), pa.int64()
    problem = pa.struct(
        {"kind": text, "message": text, "event": number, "path": text, "detail": text}
    )
    types = [text, text, pa.list_(problem), pa.map_(text, number), number, text]
    return [pa.field(name, type) for name, type in zip(_COLUMNS, types, strict=True)]


# --- streams ------------------------------------------------------------------------------


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
    """Reduce a streaming DataFrame of chunks to one row a stream, in append mode.

    The columns are those of `reduce_chunks`, but `seq` counts: consecutive integers from `first`;
    and `time` is a timestamp that has a watermark, whose delay says how long to wait. A row that
    comes too early waits in the state until those before it are there. A stream is given out once
    its `[DONE]`, or its server's error, was read in order, else once the watermark has passed its
    newest row. Then, or when more than `most_waiting` of its rows wait, a gap is closed as one lost
    chunk: an `invalid_chunk` problem, and status "truncated" at best. Rows of a stream that was
    given out are dropped, those before the watermark by Spark itself.

    What is kept between micro-batches is `Accumulator.checkpoint`, so a query goes on from its
    checkpoint location only with the same rules and version of this package. Raises ValueError for
    a column of another type, or without the RocksDB state store; ImportError without pandas,
    pyarrow or protobuf.

    >>> rows = reduce_stream(chunks.withWatermark("time", "10 minutes"))  # doctest: +SKIP
    >>> rows.writeStream.option("checkpointLocation", "state/").toTable("answers")
    ... # doctest: +SKIP
    """
    _require("pandas", "pyarrow", "google.protobuf")
    if df.sparkSession.conf.get(_STORE, "") != _ROCKSDB:
        raise ValueError(f"keyed state needs spark.conf.set({_STORE!r}, {_ROCKSDB!r})")
    rows = _selected(df, id, seq, chunk, _INTEGERS, time)
    # Not by processing time: that runs empty batches without end, also where all input was read.
    return rows.groupBy("id").transformWithState(
        # One by its methods; the class that PySpark has for it is only there with PySpark.
        statefulProcessor=cast("Any", _Processor(first, most_waiting, rules, limits)),
        outputStructType=_schema(rows),
        outputMode="Append",
        timeMode="EventTime",
    )


class _Held(Struct, array_like=True):
    """What is kept of one stream between two micro-batches."""

    next: int  # sequence number that is read next
    newest: int = 0  # time of its newest row, in milliseconds
    given_out: bool = False
    repeats: int = 0
    gaps: int = 0
    checkpoint: bytes = b""
    waiting: dict[int, bytes | None] = field(default_factory=dict)


_encode_held = msgspec.msgpack.Encoder().encode
_decode_held = msgspec.msgpack.Decoder(_Held).decode


class _Processor:
    """A `StatefulProcessor` by its methods, so that this module is read without PySpark."""

    def __init__(self, first: int, most_waiting: int, rules: Rules, limits: Limits) -> None:
        self._first = first
        self._most_waiting = most_waiting
        self._rules = rules
        self._limits = limits

    def init(self, handle: Any) -> None:
        self._handle = handle
        self._state = handle.getValueState("stream", "held binary")

    def handleInputRows(
        self, key: tuple[object], rows: Iterable[Any], timerValues: Any
    ) -> Iterator[Row]:
        held = self._get()
        if held is None:
            held = _Held(next=self._first)
        newest = held.newest
        arrived: dict[int, bytes | None] = {}
        lost = 0
        for _, seq, chunk, _, at in rows:
            newest = max(newest, at)
            if seq is None:  # it has no place
                lost += not held.given_out
            elif held.given_out or seq < held.next or seq in arrived or seq in held.waiting:
                held.repeats += 1
            else:
                arrived[seq] = None if chunk is None else bytes(chunk)
        if not held.newest:
            self._handle.registerTimer(newest)
        held.newest = newest
        held.waiting |= arrived
        if arrived or lost:
            yield from self._read(key, held, lost=lost)
        self._state.update((_encode_held(held),))

    def handleExpiredTimer(
        self, key: tuple[object], timerValues: Any, expiredTimerInfo: Any
    ) -> Iterator[Row]:
        held = self._get()
        if held is None:
            return
        if timerValues.getCurrentWatermarkInMs() < held.newest:
            self._handle.registerTimer(held.newest)
            return
        if not held.given_out:
            yield from self._read(key, held, close=True)
        self._state.clear()

    def handleInitialState(self, key: object, state: object, timerValues: object) -> None:
        """There is none."""

    def close(self) -> None:
        """Nothing is open."""

    def _get(self) -> _Held | None:
        value = self._state.get()
        return None if value is None else _decode_held(bytes(value[0]))

    def _read(
        self, key: tuple[object], held: _Held, *, lost: int = 0, close: bool = False
    ) -> Iterator[Row]:
        """Read what is in order; give the stream out if it has ended, or is to be closed."""
        if held.checkpoint:
            stream = RecordedStream.resume(held.checkpoint, self._rules, self._limits)
        else:
            stream = RecordedStream(self._rules, self._limits)
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
        result = stream.finish(repeats=held.repeats)
        status, *columns = _columns(result)
        if held.gaps and status == "complete":
            status = "truncated"
        held.given_out, held.checkpoint = True, b""
        waiting.clear()
        from pyspark.sql import Row  # noqa: PLC0415  # an optional dependency, and on the worker

        yield Row("id", *_COLUMNS)(key[0], status, *columns)


# --- both ---------------------------------------------------------------------------------


def _columns(result: StreamResult) -> list[object]:
    """Return the values of `_COLUMNS` for a result, as builtins."""
    problems = [
        {
            "kind": problem.kind,
            "message": problem.message,
            "event": problem.event,
            "path": problem.path,
            "detail": None
            if problem.detail is None
            else msgspec.json.encode(problem.detail).decode(),
        }
        for problem in result.problems
    ]
    counts: Mapping[str, int] = dict(result.problem_counts)
    completion = result.completion.to_json()
    return [result.status, completion, problems, counts, result.repeats, result.limit]


def _selected(
    df: DataFrame,
    id: str,
    seq: str,
    chunk: str,
    ordered: tuple[str, ...],
    time: str | None = None,
) -> DataFrame:
    """Return the columns under our names: chunks as bytes, a time also in milliseconds."""
    from pyspark.sql.functions import coalesce, col, lit, unix_millis  # noqa: PLC0415

    columns = [col(id).alias("id"), col(seq).alias("seq"), col(chunk).alias("chunk")]
    if time is not None:
        columns.append(col(time).alias("time"))
    rows = df.select(*columns)
    types = dict(rows.dtypes)
    if types["chunk"] not in ("string", "binary"):
        raise ValueError(f"{chunk}: chunks are strings or binary, not {types['chunk']}")
    is_decimal = types["seq"].startswith("decimal") and ordered is _ORDERED
    if types["seq"] not in ordered and not is_decimal:
        kinds = "integers" if ordered is _INTEGERS else "integers, strings, decimals or times"
        raise ValueError(f"{seq}: sequence numbers are {kinds}, not {types['seq']}")
    rows = rows.withColumn("chunk", rows["chunk"].cast("binary"))
    if time is None:
        return rows
    if types["time"] != "timestamp":
        raise ValueError(f"{time}: times are timestamps, not {types['time']}")
    return rows.withColumn("at", coalesce(unix_millis(rows["time"]), lit(0)))


def _schema(rows: DataFrame) -> StructType:
    from pyspark.sql.types import StructField, StructType, _parse_datatype_string  # noqa: PLC0415

    columns = _parse_datatype_string(", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items()))
    fields = cast("StructType", columns).fields
    return StructType([StructField("id", rows.schema["id"].dataType), *fields])


def _require(*modules: str) -> None:
    from importlib import import_module  # noqa: PLC0415

    for module in modules:
        try:
            import_module(module)
        except ImportError:
            raise ImportError(
                f"{module} is missing: pip install 'chunk-accumulator[spark]'"
            ) from None
