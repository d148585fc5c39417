"""The cluster functions on a real Spark, held row for row to the plain reducer.

Takes a minute or two; left out by `pytest -m "not spark"`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import pytest

from accumulator.batch import reduce_sorted

if TYPE_CHECKING:
    from pyspark.sql import Row, SparkSession

pytest.importorskip("pyspark", reason="PySpark is not installed (extra `spark`)")
pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (extra `spark`)")
import pyarrow as pa  # noqa: E402  # not before it is known to be there
from streaming_query import ROCKSDB, STORE, start_query, start_spark, stream_from  # noqa: E402

from accumulator.spark import reduce_chunks, reduce_stream  # noqa: E402

pytestmark = [
    pytest.mark.spark,
    pytest.mark.skipif(
        not (shutil.which("java") or os.environ.get("JAVA_HOME")), reason="Spark needs Java"
    ),
]

Record = tuple[str, int | None, str | None]
NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
MIDNIGHT = datetime(2026, 1, 2, tzinfo=timezone.utc)


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    session = start_spark(tmp_path_factory.mktemp("warehouse"))
    yield session
    session.stop()


def chunk(stream: str, number: int, count: int) -> str:
    """Return a chunk as JSON; streams differ in what is odd about them."""
    delta: dict[str, object] = {"content": f"word {number} «é» "}
    if number == 0:
        delta["role"] = "assistant"
    finish = None
    if number == count - 1:
        delta, finish = {}, "stop"
    choice: dict[str, object] = {"index": 0, "delta": delta, "finish_reason": finish}
    fields: dict[str, object] = {"id": stream, "object": "chat.completion.chunk", "created": 1}
    if stream.endswith("3"):
        fields["citations"] = [number]
    if stream.endswith("4") and finish is None:
        function: dict[str, object] = {"arguments": f" {number}"}
        call: dict[str, object] = {"index": number % 2, "function": function}
        if number < 2:
            call["id"] = f"call_{number}"
            function["name"] = "f"
        choice["delta"] = {"tool_calls": [call]}
    return json.dumps({**fields, "model": "m", "choices": [choice]})


def stream_of(name: str, count: int, *, done: bool = True) -> list[Record]:
    """Return the rows of a stream; some have a row that is not a chunk."""
    rows: list[Record] = [(name, number, chunk(name, number, count)) for number in range(count)]
    if name.endswith("5"):
        rows[2] = (name, 2, '{"cut off')
    if name.endswith("6"):
        rows[2] = (name, 2, None)
    if name.endswith("7"):
        rows[2] = (name, 2, 'data: {"choices": []}')
    if name.endswith("8"):
        rows[2:] = [(name, 2, '{"error": {"message": "overloaded"}}')]
    return [*rows, (name, len(rows), "[DONE]")] if done else rows


def shuffled(rows: Sequence[Record], repeats: int) -> list[Record]:
    randomly = random.Random(6)
    out = [*rows, *randomly.sample(rows, repeats)]
    randomly.shuffle(out)
    return out


def outcome(result: Any, completion: object) -> tuple[object, ...]:
    problems = [(p.kind, p.message, p.event, p.path) for p in result.problems]
    return result.status, completion, problems, dict(result.problem_counts), result.repeats


def plain(rows: Sequence[Record]) -> dict[str, tuple[object, ...]]:
    """Reduce rows in this process."""
    results = reduce_sorted(sorted(rows, key=lambda row: row[:2]))
    return {name: outcome(result, result.completion.to_dict()) for name, result in results}


def found(rows: Sequence[Row]) -> dict[str, tuple[object, ...]]:
    out = {row.id: outcome(row, json.loads(row.completion)) for row in rows}
    assert len(out) == len(rows), "a stream came twice"
    return out


def write(path: Path, rows: Sequence[tuple[object, ...]], names: str = "id seq chunk") -> None:
    columns = dict(zip(names.split(), zip(*rows, strict=True), strict=True))
    pq.write_table(pa.table({name: list(column) for name, column in columns.items()}), path)


# --- tables -------------------------------------------------------------------------------


def test_a_table_of_shuffled_rows_is_reduced_as_each_stream_alone(
    spark: SparkSession, tmp_path: Path
) -> None:
    streams = [row for i in range(5200) for row in stream_of(f"stream-{i}", 42)]
    rows = shuffled(streams, 2000)
    assert len(rows) > 200_000
    for part in range(4):
        write(tmp_path / f"{part}.parquet", rows[part::4])
    result = found(reduce_chunks(spark.read.parquet(str(tmp_path))).collect())
    assert result == plain(rows)


def test_columns_have_the_names_and_types_that_the_caller_gives(
    spark: SparkSession, tmp_path: Path
) -> None:
    rows = [(7, f"{n:03}", chunk("a", n, 5).encode()) for n in range(5)]
    write(tmp_path / "a.parquet", [*reversed(rows), rows[0]], "request at body")
    table = spark.read.parquet(str(tmp_path))
    out = reduce_chunks(table, id="request", seq="at", chunk="body")
    assert [f"{name} {kind.split('<')[0]}" for name, kind in out.dtypes] == [
        "id bigint",
        "status string",
        "completion string",
        "problems array",
        "problem_counts map",
        "repeats bigint",
        "limit string",
    ]
    (row,) = out.collect()
    assert (row.id, row.status, row.repeats, row.limit) == (7, "complete", 1, None)
    # An empty table has no streams.
    assert reduce_chunks(table.where("false"), id="request", seq="at", chunk="body").collect() == []


def test_columns_that_cannot_be_meant_are_refused(spark: SparkSession) -> None:
    table = spark.range(1).selectExpr("id", "0.5D AS seq", "'{}' AS chunk")
    with pytest.raises(ValueError, match=r"seq: sequence numbers are integers, .* not double"):
        reduce_chunks(table)
    table = spark.range(1).selectExpr("id", "id AS seq", "id AS chunk")
    with pytest.raises(ValueError, match="chunk: chunks are strings or binary, not bigint"):
        reduce_chunks(table)


# --- streams ------------------------------------------------------------------------------


def files_of(folder: Path, rows: Sequence[Record], count: int) -> None:
    """Write rows as files that are read one after another; the last moves the watermark on."""
    folder.mkdir()
    parts = [[(*row, NOON) for row in rows[part::count]] for part in range(count)]
    parts.append([("the last", 0, chunk("the last", 0, 2), MIDNIGHT)])
    for number, part in enumerate(parts):
        path = folder / f"{number}.parquet"
        write(path, part, "id seq chunk time")
        os.utime(path, (number, number))


def check_all_given_out(spark: SparkSession, folder: Path, streams: Sequence[Record]) -> None:
    result = found(spark.read.parquet(str(folder / "out")).collect())
    expected = plain(streams)
    assert result.keys() == expected.keys()  # more may come of the last one
    for name, each in expected.items():
        assert result[name][:-1] == each[:-1]
    repeats = sum(row[-1] for row in result.values())  # type: ignore[misc]
    assert 0 < repeats <= 200  # those after the end are dropped uncounted


def test_a_query_that_is_stopped_and_started_again_reduces_as_each_stream_alone(
    spark: SparkSession, tmp_path: Path
) -> None:
    streams = [row for i in range(150) for row in stream_of(f"stream-{i}", 30, done=i % 3 > 0)]
    files_of(tmp_path / "in", shuffled(streams, 200), 3)
    query = start_query(spark, tmp_path, all_of_it=False)
    until = monotonic() + 120
    while not query.recentProgress and monotonic() < until:
        sleep(0.1)
    assert query.exception() is None
    query.stop()  # wherever it is
    start_query(spark, tmp_path, all_of_it=True).awaitTermination()
    check_all_given_out(spark, tmp_path, streams)


def kill_session(leader: int) -> int:
    """Kill a process and all that it started: the JVM, and its workers, which are in groups of
    their own. Return how many were killed.
    """
    killed = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader:
                os.kill(int(folder.name), signal.SIGKILL)
                killed += 1
    return killed


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells it so")
def test_a_query_that_is_killed_within_a_batch_goes_on_in_another_process(
    spark: SparkSession, tmp_path: Path
) -> None:
    streams = [row for i in range(60) for row in stream_of(f"stream-{i}", 30, done=i % 3 > 0)]
    files_of(tmp_path / "in", shuffled(streams, 200), 2)
    command = [sys.executable, str(Path(__file__).parents[1] / "streaming_query.py"), str(tmp_path)]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    # A micro-batch begins with a file in one folder, and ends with one in the other.
    begun, committed = tmp_path / "state/offsets/1", tmp_path / "state/commits"
    while not begun.exists() and process.poll() is None:
        sleep(0.002)
    sleep(0.2)
    assert kill_session(process.pid) >= 3  # it, the JVM, a worker's parent
    assert process.wait() == -signal.SIGKILL
    assert (committed / "0").exists()
    assert not (committed / "1").exists()

    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    check_all_given_out(spark, tmp_path, streams)


def test_rows_that_never_come_close_a_stream_as_truncated(
    spark: SparkSession, tmp_path: Path
) -> None:
    rows = [
        *(row for row in stream_of("gap", 9) if row[1] != 4),
        *(row for row in stream_of("many wait", 9) if row[1] != 1),
        *stream_of("early", 9, done=False)[:4],
        ("no number", None, chunk("no number", 0, 9)),
        ("no number", 0, chunk("no number", 0, 9)),
    ]
    files_of(tmp_path / "in", rows, 1)
    query = (
        reduce_stream(stream_from(spark, tmp_path / "in"), most_waiting=6)
        .writeStream.option("checkpointLocation", str(tmp_path / "state"))
        .trigger(availableNow=True)
        .format("parquet")
        .start(str(tmp_path / "out"))
    )
    query.awaitTermination()
    result = found(spark.read.parquet(str(tmp_path / "out")).collect())
    assert {status for status, *_ in result.values()} == {"truncated"}
    counts = {name: row[3] for name, row in result.items()}
    lost = {name: {"invalid_chunk": 1} for name in ("gap", "many wait", "no number")}
    assert counts == {"early": {}, **lost}
    filled: list[Record] = [
        (name, seq, None if (name, seq) in (("gap", 4), ("many wait", 1)) else text)
        for name in ("gap", "many wait")
        for name, seq, text in stream_of(name, 9)
    ]
    for name, expected in plain(filled).items():
        assert result[name][1] == expected[1]


def test_a_store_that_cannot_hold_the_state_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    source = stream_from(spark, tmp_path / "in")
    spark.conf.unset(STORE)
    try:
        with pytest.raises(ValueError, match="RocksDBStateStoreProvider"):
            reduce_stream(source)
    finally:
        spark.conf.set(STORE, ROCKSDB)
    with pytest.raises(ValueError, match="chunk: sequence numbers are integers, not string"):
        reduce_stream(source, seq="chunk")
    with pytest.raises(ValueError, match="times are timestamps"):
        reduce_stream(source, time="chunk")
