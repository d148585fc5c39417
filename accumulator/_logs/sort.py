"""Rows in the order that `reduce_sorted` wants: as they come if that is one, else by DuckDB."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from errno import EIO, ENOMEM
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

from ..batch import StreamResult, reduce_sorted
from .extras import load
from .progress import Display
from .rows import Row

_MIB = 1024 * 1024
# What the process weighs beside DuckDB's share: Python, Arrow and DuckDB are 110 MiB as they are
# loaded, the rest is rows on their way in and out.
_PROCESS = 185 * _MIB
_OVER = 1.1  # DuckDB takes this much more than it is told to, at most
LEAST_MEMORY = 256 * _MIB
_BYTES_OF_ID = 128  # in a set that grows
_SPILLED = "sort"  # folder of what does not fit into the memory
_SENT = _MIB  # bytes of chunks that go to DuckDB at once
_VECTOR = 2048  # rows that DuckDB works on at once, and that it returns at once here
_LARGE = 1024  # bytes; a longer chunk is kept in a file beside DuckDB, whose memory it would take
_QUERY = """
SELECT id, seq, chunk, start, size FROM arriving ORDER BY id, seq NULLS LAST, arrival
"""
_READERS = ("to_arrow_reader", "fetch_arrow_reader")  # DuckDB 1.5 renamed it

Result = tuple[str, StreamResult]


class OutOfOrderError(Exception):
    """The rows of a stream do not stand together, or not in order."""


def reduce_in_order(blocks: Iterable[list[Row]], memory: int) -> Iterator[Result]:
    """Reduce rows as they come. Raises UnsortedRowsError or OutOfOrderError if they are out of
    order, and for more streams than can be remembered: one may then come again unnoticed.
    """
    seen: set[int] = set()
    most = memory // _BYTES_OF_ID
    rows = chain.from_iterable(_numbered_first(blocks))
    for id, result in reduce_sorted(rows, grouped=True):
        digest = hash(id)
        if digest in seen or len(seen) == most:
            raise OutOfOrderError
        seen.add(digest)
        yield id, result


def _numbered_first(blocks: Iterable[list[Row]]) -> Iterator[list[Row]]:
    """Yield the blocks. Raises OutOfOrderError for a number behind a row without one."""
    unnumbered: str | None = None  # the stream of the last row, if that has no number
    for rows in blocks:
        if unnumbered is not None or None in map(itemgetter(1), rows):
            for id, seq, _ in rows:
                if seq is not None and id == unnumbered:
                    raise OutOfOrderError
                unnumbered = id if seq is None else None
        yield rows


def sorted_rows(
    blocks: Iterable[list[Row]], memory: int, folder: str, display: Display
) -> Iterator[Row]:
    """Sort rows by DuckDB, in a folder if they do not fit into the memory (bytes).

    Raises ImportError without DuckDB, OSError if memory or disk do not suffice.
    """
    library = load("duckdb")
    settings = {
        "memory_limit": f"{int((memory - _PROCESS) / _OVER) // 1024}KiB",
        "threads": "1",
        "temp_directory": os.path.join(folder, _SPILLED),
        "preserve_insertion_order": "false",
    }
    connection = library.connect(config=settings)
    try:
        with Path(folder, "large-chunks").open("w+b") as large:
            pa = load("pyarrow")
            numbers = dict.fromkeys(("seq", "arrival", "start", "size"), pa.int64())
            schema = pa.schema({"id": pa.string(), "chunk": pa.binary(), **numbers})
            batches = _batches(blocks, schema, large, display)
            reader = pa.RecordBatchReader.from_batches(schema, batches)
            connection.register("arriving", reader)
            relation = connection.sql(_QUERY)
            name = next(each for each in _READERS if hasattr(relation, each))
            for batch in getattr(relation, name)(_VECTOR):
                yield from _rows_of(batch, large)
                display.read(batch.nbytes)
    except library.OutOfMemoryException:
        raise OSError(ENOMEM, "these rows need a larger --memory to be sorted") from None
    except library.IOException as error:
        raise OSError(EIO, str(error).partition("\n")[0]) from None
    finally:
        connection.close()


def _batches(
    blocks: Iterable[list[Row]], schema: Any, large: IO[bytes], display: Display
) -> Iterator[Any]:
    """Yield rows as Arrow batches. A large chunk goes to a file, and a row says where."""
    columns: list[list[Any]] = [[] for _ in schema.names]
    arrival = size = end = total = 0
    for rows in blocks:
        for id, seq, chunk in rows:
            row: tuple[object, ...]
            if len(chunk) > _LARGE:
                large.write(chunk)
                row = (id, None, seq, arrival, end, len(chunk))
                end += len(chunk)
            else:
                row = (id, chunk, seq, arrival, None, None)
                size += len(chunk)
            for column, value in zip(columns, row, strict=True):
                column.append(value)
            arrival += 1
        if size > _SENT:
            batch = load("pyarrow").record_batch(columns, schema=schema)
            total += batch.nbytes
            yield batch
            columns, size = [[] for _ in schema.names], 0
    large.flush()
    batch = load("pyarrow").record_batch(columns, schema=schema)
    yield batch
    display.begin("reducing", total + batch.nbytes)


def _rows_of(batch: Any, large: IO[bytes]) -> Iterator[Row]:
    ids, seqs, chunks, starts, sizes = (column.to_pylist() for column in batch.columns)
    if None in chunks:
        for arrival, chunk in enumerate(chunks):
            if chunk is None:
                large.seek(starts[arrival])
                chunks[arrival] = large.read(sizes[arrival])
    return zip(ids, seqs, chunks, strict=True)
