"""Bring rows into the order that `reduce_sorted` needs, by DuckDB if they are not in it already."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from operator import itemgetter
from typing import IO, Any

from .._extras import load
from ..batch import UnsortedRowsError, reduce_sorted
from .inputs import CommandError
from .rows import Row
from .terminal import Display, Result

_MIB = 1024 * 1024
# What the process needs besides DuckDB's share: 110 MiB for Python, Arrow and DuckDB themselves,
# the rest for rows on their way in and out.
_PROCESS = 185 * _MIB
_OVER = 1.1  # DuckDB exceeds its limit by at most this factor
LEAST_MEMORY = 256 * _MIB
_BYTES_OF_ID = 128  # what one id takes in a set that grows
_SPILLED = "sort"  # the folder for what does not fit into memory
_SENT = 4096  # rows that go to DuckDB at once
_VECTOR = 2048  # rows that DuckDB processes at once, and returns at once here
_LARGE = 1024  # bytes; a longer chunk goes to a file, because DuckDB would keep it in memory
_QUERY = "SELECT id, seq, chunk, start, size FROM arriving ORDER BY id, seq NULLS LAST, arrival"


def reduce_in_order(blocks: Iterable[list[Row]], memory: int) -> Iterator[Result]:
    """Reduce rows as they come. Raises UnsortedRowsError if they are out of order, or if there are
    more streams than can be remembered: one of them might come again unnoticed.
    """
    seen: set[int] = set()
    most = memory // _BYTES_OF_ID
    rows = chain.from_iterable(_numbered_first(blocks))
    for id, result in reduce_sorted(rows, grouped=True):
        digest = hash(id)
        if digest in seen or len(seen) == most:
            raise UnsortedRowsError("its stream may have come before", row=0, id=id)
        seen.add(digest)
        yield id, result


def _numbered_first(blocks: Iterable[list[Row]]) -> Iterator[list[Row]]:
    """Yield the blocks. Raises UnsortedRowsError for a number after a row without one."""
    unnumbered: str | None = None  # the stream of the last row, if that has no number
    for rows in blocks:
        if unnumbered is not None or None in map(itemgetter(1), rows):
            for id, seq, _ in rows:
                if seq is not None and id == unnumbered:
                    raise UnsortedRowsError("it has a number", row=0, id=id)
                unnumbered = id if seq is None else None
        yield rows


def sorted_rows(
    blocks: Iterable[list[Row]], memory: int, folder: str, display: Display
) -> Iterator[Row]:
    """Sort rows with DuckDB, using a folder if they do not fit into the memory (in bytes).

    Raises ImportError without DuckDB, CommandError if the memory or the disk is too small.
    """
    duckdb, pa = load("duckdb"), load("pyarrow")
    settings = {
        "memory_limit": f"{int((memory - _PROCESS) / _OVER) // 1024}KiB",
        "threads": "1",
        "temp_directory": os.path.join(folder, _SPILLED),
        "preserve_insertion_order": "false",
    }
    numbers = dict.fromkeys(("seq", "arrival", "start", "size"), pa.int64())
    schema = pa.schema({"id": pa.string(), "chunk": pa.binary(), **numbers})
    try:
        with (
            open(os.path.join(folder, "large-chunks"), "w+b") as large,
            duckdb.connect(config=settings) as connection,
        ):
            batches = _batches(_kept(blocks, large), schema, display)
            connection.register("arriving", pa.RecordBatchReader.from_batches(schema, batches))
            relation = connection.sql(_QUERY)
            # DuckDB 1.5 renamed it.
            read = getattr(relation, "to_arrow_reader", None) or relation.fetch_arrow_reader
            for batch in read(_VECTOR):
                columns = [column.to_pylist() for column in batch.columns]
                for id, seq, chunk, start, size in zip(*columns, strict=True):
                    if chunk is None:
                        large.seek(start)
                        yield id, seq, large.read(size)
                    else:
                        yield id, seq, chunk
                display.read(batch.nbytes)
    except duckdb.OutOfMemoryException:
        raise CommandError("these rows need a larger --memory to be sorted", 1) from None
    except duckdb.IOException as error:
        raise CommandError(str(error).partition("\n")[0], 1) from None


def _kept(blocks: Iterable[list[Row]], large: IO[bytes]) -> Iterator[tuple[object, ...]]:
    """Yield the rows for DuckDB. A large chunk goes to a file, and its row says where."""
    for arrival, (id, seq, chunk) in enumerate(chain.from_iterable(blocks)):
        if len(chunk) > _LARGE:
            yield id, None, seq, arrival, large.tell(), len(chunk)
            large.write(chunk)
        else:
            yield id, chunk, seq, arrival, None, None
    large.flush()


def _batches(rows: Iterator[tuple[object, ...]], schema: Any, display: Display) -> Iterator[Any]:
    record_batch, total = load("pyarrow").record_batch, 0
    while some := list(islice(rows, _SENT)):
        batch = record_batch(list(zip(*some, strict=True)), schema=schema)
        total += batch.nbytes
        yield batch
    display.begin("reducing", total)
