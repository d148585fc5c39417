"""Rows in any order: spread over buckets by their ids, each of which DuckDB then sorts.

Arrow takes its memory from the C library here, and gives it back to it after each step. Its own
allocator keeps what was freed, which comes to more than all that is held at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from errno import ENOMEM
from pathlib import Path
from types import ModuleType
from typing import IO
from zlib import crc32

import msgspec

from ._bulk import chunk_text
from ._extras import arrow, compute, duckdb
from ._reading import Report, UnitRows
from ._records import Done, Plan, Stats
from ._rows import Rows
from ._runs import RowStream, row_of, runs_in

__all__ = ["sort", "spread"]

_ORDINALS = 1 << 40  # rows of a unit, at most
_WAITING = 4 * 1024 * 1024  # bytes of chunks that wait to be written; five times that is held
_SORTED = 1024  # rows of a batch from DuckDB
_READERS = ("to_arrow_reader", "fetch_arrow_reader")


def _lean_arrow() -> ModuleType:
    pa = arrow()
    pa.set_memory_pool(pa.system_memory_pool())
    # A thread has an arena of memory of its own; there is a process for each core as it is.
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    return pa


def _schema() -> object:
    pa = arrow()
    return pa.schema(
        [("id", pa.string()), ("seq", pa.int64()), ("place", pa.int64()), ("chunk", pa.binary())]
    )


class _Buckets(dict[str, int]):
    """The bucket of an id: the same for the rows of a stream, whichever unit they are in."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count

    def __missing__(self, id: str) -> int:
        if len(self) > 100_000:
            self.clear()
        bucket = self[id] = crc32(id.encode("utf-8", "surrogatepass")) % self._count
        return bucket


def spread(plan: Plan, number: int, base: Path, bad: IO[bytes], report: Report) -> Done:
    """Write a unit's rows to an Arrow file, those of a bucket in batches of their own."""
    pa, pc = _lean_arrow(), compute()
    done = Done(Stats())
    buckets = _Buckets(plan.buckets)
    at = number * _ORDINALS
    places: list[int] = []  # the bucket of each batch
    waiting: list[object] = []
    size = 0
    schema = _schema()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_file(f"{base}.arrow", schema, options=options) as out:

        def flush() -> None:
            table = pa.Table.from_batches(waiting)
            waiting.clear()
            order = pc.sort_indices(table.column("bucket"))
            table = table.take(order)
            counts = pc.value_counts(table.column("bucket")).to_pylist()
            table = table.drop_columns(["bucket"])
            start = 0
            for entry in counts:
                part = table.slice(start, entry["counts"]).combine_chunks()
                start += entry["counts"]
                for batch in part.to_batches():
                    out.write_batch(batch)
                    places.append(entry["values"])

        for rows in UnitRows(plan, plan.units[number], bad, done, report):
            assert isinstance(rows, Rows)
            count = rows.count
            chunks = [chunk_text(chunk) for chunk in rows.chunks]
            columns = [
                pa.array(rows.ids, pa.string()),
                pa.array(rows.seqs or [None] * count, pa.int64()),
                pa.array(range(at, at + count), pa.int64()),
                pa.array(chunks, pa.binary()),
                pa.array([buckets[id] for id in rows.ids], pa.int32()),
            ]
            at += count
            names = ["id", "seq", "place", "chunk", "bucket"]
            waiting.append(pa.record_batch(columns, names=names))
            size += sum(map(len, chunks))
            if size > _WAITING:
                flush()
                size = 0
        if waiting:
            flush()
    pa.default_memory_pool().release_unused()
    done.ids = places
    return done


def sort(plan: Plan, folder: Path, bucket: int, memory: int, base: Path, report: Report) -> Done:
    """Sort a bucket on disk, and reduce its streams."""
    pa = _lean_arrow()
    done = Done(Stats())

    def batches() -> Iterator[object]:
        for number, unit in enumerate(plan.units):
            if unit.source.form == "sse":
                continue
            spread = folder / f"spread-{number:06}"
            places = msgspec.msgpack.decode(Path(f"{spread}.done").read_bytes(), type=Done).ids
            with pa.OSFile(f"{spread}.arrow") as file:
                source = pa.ipc.open_file(file)
                for place, found in enumerate(places):
                    if found == bucket:
                        yield source.get_batch(place)
            report(unit.size // plan.buckets, 0)

    settings = {
        "memory_limit": f"{memory // 1024}KiB",
        "threads": "1",
        "temp_directory": f"{base}.tmp",
        "preserve_insertion_order": "false",
    }
    connection = duckdb().connect(config=settings)
    try:
        connection.register("piece", pa.Table.from_batches([], _schema()))
        connection.execute("CREATE TABLE spread AS SELECT * FROM piece")
        # Not as a reader over a generator: DuckDB scans that in a thread of Arrow's, of which there
        # is one, and the files are opened by the same: it waited for itself, now and then.
        for batch in batches():
            connection.register("piece", pa.Table.from_batches([batch]))
            connection.execute("INSERT INTO spread SELECT * FROM piece")
        connection.unregister("piece")
        query = "SELECT id, seq, chunk FROM spread ORDER BY id, seq NULLS LAST, place"
        relation = connection.sql(query)
        # DuckDB 1.5 renamed it.
        name = next(each for each in _READERS if hasattr(relation, each))
        result = getattr(relation, name)(_SORTED)
        stream: RowStream | None = None
        with open(f"{base}.rows", "wb") as out:

            def end(stream: RowStream) -> None:
                result = stream.finish()
                done.stats.count(result)
                out.write(row_of(stream.id, result))
                report(0, 1)

            for batch in result:
                for run in runs_in(Rows(*(column.to_pylist() for column in batch.columns))):
                    if stream is None or stream.id != run.id:
                        if stream is not None:
                            end(stream)
                        stream = RowStream(run.id)
                    stream.take(run)
            if stream is not None:
                end(stream)
    except duckdb().OutOfMemoryException:
        # It holds 2048 rows at a time, whatever their size.
        raise OSError(ENOMEM, "rows as large as these need a larger --memory") from None
    finally:
        connection.close()
    pa.default_memory_pool().release_unused()
    return done
