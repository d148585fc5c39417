"""Rows in any order, spread over buckets by their ids: all rows of a stream are in one bucket.

A unit's rows are written to one file, those of a bucket in parts, each the rows' ids, numbers and
sizes, and behind these their chunks as they came.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import IO, cast
from zlib import crc32

import msgspec
from msgspec import Struct

from ._reading import Report, UnitRows
from ._records import Done, Part, Plan, Stats
from ._rows import Rows

__all__ = ["Bucket", "Keys", "spread"]

_KEYS = 50_000  # of rows, that are given at once
_PART_BITS = 40  # of a place, for where in its part it is

# Columns of numbers: stream, 1 if it has no number, number, place of the chunk, size of it.
Keys = tuple["array[int]", ...]


class _Columns(Struct, array_like=True):
    ids: list[str]
    seqs: list[int | None]
    sizes: list[int]


_encode_columns = msgspec.msgpack.Encoder().encode
_decode_columns = msgspec.msgpack.Decoder(_Columns).decode


class _Buckets(dict[str, int]):
    """The bucket of an id, whichever unit it is met in."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count

    def __missing__(self, id: str) -> int:
        if len(self) > 100_000:
            self.clear()
        bucket = self[id] = crc32(id.encode("utf-8", "surrogatepass")) % self._count
        return bucket


class _Numbers(dict[str, int]):
    """A number for each id, by which rows are sorted faster."""

    def __missing__(self, id: str) -> int:
        number = self[id] = len(self)
        return number


def spread(
    plan: Plan, number: int, memory: int, base: Path, bad: IO[bytes], report: Report
) -> Done:
    """Write a unit's rows to a file. `memory` is what may be held, in bytes."""
    done = Done(Stats())
    buckets = _Buckets(plan.buckets)
    ids: list[str] = []
    seqs: list[int | None] = []
    chunks: list[bytes] = []
    size = 0
    with open(f"{base}.spread", "wb") as out:
        for rows in UnitRows(plan, plan.units[number], bad, done, report):
            assert isinstance(rows, Rows)
            ids += rows.ids
            seqs += rows.seqs or [None] * rows.count
            chunks += rows.chunks
            size += sum(map(len, rows.chunks))
            if size > memory // 8:
                done.parts += _write_parts(ids, seqs, chunks, buckets, out)
                ids, seqs, chunks, size = [], [], [], 0
        done.parts += _write_parts(ids, seqs, chunks, buckets, out)
    return done


def _write_parts(
    ids: list[str],
    seqs: list[int | None],
    chunks: list[bytes],
    buckets: _Buckets,
    out: IO[bytes],
) -> Iterator[Part]:
    places: dict[int, list[int]] = {}
    for place, bucket in enumerate(map(buckets.__getitem__, ids)):
        if bucket in places:
            places[bucket].append(place)
        else:
            places[bucket] = [place]
    for bucket, own in places.items():
        some = [chunks[place] for place in own]
        sizes = list(map(len, some))
        columns = _Columns([ids[place] for place in own], [seqs[place] for place in own], sizes)
        head = _encode_columns(columns)
        start = out.tell()
        out.write(head)
        out.write(b"".join(some))
        yield Part(bucket, start, len(head), sum(sizes))


class Bucket:
    """The rows of a bucket, in the order in which they came. To be closed.

    Their chunks are held if they are no more than `most` bytes, else written to a file at `path`.
    """

    def __init__(self, plan: Plan, folder: Path, bucket: int, most: int, path: Path) -> None:
        self._parts: list[tuple[Path, list[Part]]] = []
        size = 0
        for number, unit in enumerate(plan.units):
            if unit.source.form != "sse":
                spread = folder / f"spread-{number:06}"
                done = msgspec.msgpack.decode(Path(f"{spread}.done").read_bytes(), type=Done)
                parts = [part for part in done.parts if part.bucket == bucket]
                self._parts.append((Path(f"{spread}.spread"), parts))
                size += sum(part.size for part in parts)
        self._held: list[bytes] = []
        self._file: IO[bytes] | None = None if size <= most else path.open("w+b")
        self._ids = _Numbers()
        self._names: list[str] = []

    def keys(self) -> Iterator[Keys]:
        """Give what the rows are sorted by, in columns of some rows each."""
        columns: Keys = tuple(array("q") for _ in range(5))
        for ids, seqs, sizes, start in self._read_parts():
            streams, unnumbered, numbers, places, lengths = columns
            streams.extend(map(self._ids.__getitem__, ids))
            if None in seqs:
                unnumbered.extend(seq is None for seq in seqs)
                numbers.extend(seq or 0 for seq in seqs)
            else:
                unnumbered.frombytes(bytes(8 * len(seqs)))
                numbers.extend(cast("list[int]", seqs))
            ends = list(accumulate(sizes, initial=start))
            ends.pop()
            places.extend(ends)
            lengths.extend(sizes)
            if len(streams) >= _KEYS:
                yield columns
                columns = tuple(array("q") for _ in range(5))
        yield columns
        self._names = list(self._ids)

    def _read_parts(self) -> Iterator[tuple[list[str], list[int | None], list[int], int]]:
        start = 0
        for path, parts in self._parts:
            with path.open("rb") as file:
                for part in parts:
                    file.seek(part.start)
                    columns = _decode_columns(file.read(part.head))
                    chunks = file.read(part.size)
                    if self._file is None:
                        start = len(self._held) << _PART_BITS
                        self._held.append(chunks)
                    yield columns.ids, columns.seqs, columns.sizes, start
                    if self._file is not None:
                        self._file.write(chunks)
                        start += len(chunks)
        if self._file is not None:
            self._file.flush()

    def id(self, stream: int) -> str:
        """Give the id that a number of the keys stands for, once all were given."""
        return self._names[stream]

    def chunks(self, places: Sequence[int], sizes: Sequence[int]) -> list[bytes]:
        """Give the chunks at some places, once all keys were given."""
        if self._file is not None:
            number = self._file.fileno()
            return [os.pread(number, size, at) for at, size in zip(places, sizes, strict=True)]
        held, within = self._held, (1 << _PART_BITS) - 1
        return [
            held[at >> _PART_BITS][at & within : (at & within) + size]
            for at, size in zip(places, sizes, strict=True)
        ]

    def __enter__(self) -> Bucket:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
