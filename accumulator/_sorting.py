"""The rows of a bucket, sorted by DuckDB and reduced.

Of a row DuckDB holds four numbers, whatever its size: chunks are no part of what is sorted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from errno import ENOMEM
from itertools import pairwise
from pathlib import Path
from typing import IO, Protocol, cast

from ._extras import arrow, duckdb
from ._reading import Report
from ._records import Done, Plan, Run, Stats
from ._runs import RowStream, row_of
from ._spreading import UNNUMBERED, Bucket, KeyColumns

__all__ = ["sort"]

_SORTED = 20_000  # rows that DuckDB gives at once
_GATHERED = 4 * 1024 * 1024  # bytes of chunks that are held at once
_NAMES = ["stream", "seq", "start", "size"]
_ORDER = "FROM keys ORDER BY stream, seq, start"
_READERS = ("to_arrow_reader", "fetch_arrow_reader")  # DuckDB 1.5 renamed it


class _Column(Protocol):
    """An array of Arrow's."""

    offset: int

    def __len__(self) -> int: ...
    def buffers(self) -> list[memoryview]: ...


class _Batch(Protocol):
    columns: list[_Column]


def sort(plan: Plan, folder: Path, bucket: int, memory: int, base: Path, report: Report) -> Done:
    """Sort a bucket, on disk if it must be, and reduce its streams. `memory` is what may be held,
    in bytes.
    """
    done = Done(Stats())
    rows = Bucket(plan, folder, bucket, memory // 2, Path(f"{base}.chunks"))
    with rows, open(f"{base}.rows", "wb") as out:
        stream: RowStream | None = None
        for run in _runs_of(rows, memory // 2, f"{base}.tmp"):
            if stream is None or stream.id != run.id:
                _end(stream, done, out, report)
                stream = RowStream(run.id)
            stream.take(run)
        _end(stream, done, out, report)
    report(sum(unit.size for unit in plan.units) // plan.buckets, 0)
    return done


def _end(stream: RowStream | None, done: Done, out: IO[bytes], report: Report) -> None:
    if stream is not None:
        result = stream.finish()
        done.stats.count(result)
        out.write(row_of(stream.id, result))
        report(0, 1)


def _runs_of(rows: Bucket, memory: int, folder: str) -> Iterator[Run]:
    settings = {
        "memory_limit": f"{memory // 1024}KiB",
        "threads": "1",
        "temp_directory": folder,
        "preserve_insertion_order": "false",
    }
    connection = duckdb().connect(config=settings)
    try:
        create = "CREATE TABLE keys AS"
        for keys in rows.read_keys():
            connection.register("piece", _table(keys))
            connection.execute(f"{create} SELECT * FROM piece")
            connection.unregister("piece")
            create = "INSERT INTO keys"
        relation = connection.sql(_ORDER)
        name = next(each for each in _READERS if hasattr(relation, each))
        for batch in getattr(relation, name)(_SORTED):
            columns = cast("_Batch", batch).columns
            yield from _cut(rows, *map(_integers, columns))
    except duckdb().OutOfMemoryException:
        raise OSError(ENOMEM, "so many rows need a larger --memory") from None
    finally:
        connection.close()


def _table(keys: KeyColumns) -> object:
    pa = arrow()
    # Not by `pa.array`, which imports pandas where there is one.
    columns = [
        pa.Array.from_buffers(pa.int64(), len(column), [None, pa.py_buffer(column)])
        for column in keys
    ]
    return pa.table(columns, names=_NAMES)


def _integers(column: _Column) -> list[int]:
    numbers = memoryview(column.buffers()[1]).cast("q")
    return numbers[column.offset : column.offset + len(column)].tolist()


def _cut(
    rows: Bucket,
    streams: Sequence[int],
    seqs: Sequence[int],
    starts: Sequence[int],
    sizes: Sequence[int],
) -> Iterator[Run]:
    """Cut sorted rows into runs of one stream each, of so many bytes at most."""
    start = 0
    ends = [end for end, (a, b) in enumerate(pairwise(streams), 1) if a != b]
    for end in [*ends, len(streams)]:
        while start < end:
            stop = end
            if sum(sizes[start:end]) > _GATHERED:
                stop, size = start + 1, sizes[start]
                while stop < end and size + sizes[stop] <= _GATHERED:
                    size += sizes[stop]
                    stop += 1
            some = slice(start, stop)
            numbers: list[int | None] | None = list(seqs[some])
            if seqs[start] == UNNUMBERED:
                numbers = None
            elif seqs[stop - 1] == UNNUMBERED:
                numbers = [None if seq == UNNUMBERED else seq for seq in seqs[some]]
            chunks = rows.chunks(starts[some], sizes[some])
            yield Run(rows.id(streams[start]), numbers, chunks)
            start = stop
