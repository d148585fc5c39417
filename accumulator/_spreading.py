"""Rows in any order, spread over buckets by their ids: all rows of a stream are in one bucket.

A unit's rows are written to one file, those of a bucket in parts, each the rows' ids, numbers and
sizes, and behind these their chunks as they came.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from io import BytesIO
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

__all__ = ["UNNUMBERED", "Bucket", "Buckets", "KeyColumns", "spread"]

_WAITING = 4 * 1024 * 1024  # bytes of chunks that wait to be written; more falls out of the cache
_LEAST_PART = 32 * 1024
_REMEMBERED = 100_000  # ids whose bucket is known
_KEYS = 50_000  # of rows, that are given at once
UNNUMBERED = (1 << 63) - 1  # stands for no number: such rows are behind those that have one

# Columns of rows: the stream, its row's number, and where the chunk starts and how long it is.
KeyColumns = tuple["array[int]", ...]


class _Columns(Struct, array_like=True):
    ids: list[str]
    seqs: bytes  # 64 bits each, as are these
    sizes: bytes


_encode_columns = msgspec.msgpack.Encoder().encode
_decode_columns = msgspec.msgpack.Decoder(_Columns).decode


class Buckets(dict[str, int]):
    """The bucket of an id, whichever unit it is met in."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count

    def __missing__(self, id: str) -> int:
        if len(self) > _REMEMBERED:
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
    buckets = Buckets(plan.buckets)
    most = min(max(_WAITING, plan.buckets * _LEAST_PART), memory // 8)
    ids: list[str] = []
    seqs = array("q")
    chunks: list[bytes] = []
    size = 0
    with open(f"{base}.spread", "wb") as out:
        for rows in UnitRows(plan, plan.units[number], bad, done, report):
            assert isinstance(rows, Rows)
            ids += rows.ids
            numbers = rows.seqs or [None] * rows.count
            if None in numbers:
                seqs.extend(UNNUMBERED if seq is None else seq for seq in numbers)
            else:
                seqs.extend(cast("list[int]", numbers))
            chunks += rows.chunks
            size += sum(map(len, rows.chunks))
            if size > most:
                done.parts += _write_parts(ids, seqs, chunks, buckets, out)
                ids, seqs, chunks, size = [], array("q"), [], 0
        done.parts += _write_parts(ids, seqs, chunks, buckets, out)
    return done


def _write_parts(
    ids: list[str],
    seqs: array[int],
    chunks: list[bytes],
    buckets: Buckets,
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
        sizes = array("q", map(len, some))
        numbers = array("q", [seqs[place] for place in own])
        own_ids = [ids[place] for place in own]
        head = _encode_columns(_Columns(own_ids, numbers.tobytes(), sizes.tobytes()))
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
                written = folder / f"spread-{number:06}"
                done = msgspec.msgpack.decode(Path(f"{written}.done").read_bytes(), type=Done)
                parts = [part for part in done.parts if part.bucket == bucket]
                self._parts.append((Path(f"{written}.spread"), parts))
                size += sum(part.size for part in parts)
        self._file: IO[bytes] = BytesIO() if size <= most else path.open("w+b")
        self._held = b""
        self._ids = _Numbers()
        self._names: list[str] = []

    def read_keys(self) -> Iterator[KeyColumns]:
        """Give what the rows are sorted by, in columns of some rows each."""
        columns: KeyColumns = tuple(array("q") for _ in range(4))
        start = 0
        for part in self._read_parts():
            streams, seqs, starts, sizes = columns
            first = len(sizes)
            streams.extend(map(self._ids.__getitem__, part.ids))
            seqs.frombytes(part.seqs)
            sizes.frombytes(part.sizes)
            *some, start = accumulate(sizes[first:], initial=start)
            starts.extend(some)
            if len(streams) >= _KEYS:
                yield columns
                columns = tuple(array("q") for _ in range(4))
        yield columns
        self._names = list(self._ids)
        if isinstance(self._file, BytesIO):
            self._held = self._file.getvalue()
        self._file.flush()

    def _read_parts(self) -> Iterator[_Columns]:
        for path, parts in self._parts:
            with path.open("rb") as file:
                for part in parts:
                    file.seek(part.start)
                    columns = _decode_columns(file.read(part.head))
                    self._file.write(file.read(part.size))
                    yield columns

    def id(self, stream: int) -> str:
        """Give the id that a number of the keys stands for, once all were given."""
        return self._names[stream]

    def chunks(self, starts: Sequence[int], sizes: Sequence[int]) -> list[bytes]:
        """Give the chunks that start at some places, once all keys were read."""
        places = zip(starts, sizes, strict=True)
        if isinstance(self._file, BytesIO):
            held = self._held
            return [held[start : start + size] for start, size in places]
        number = self._file.fileno()
        return [os.pread(number, size, start) for start, size in places]

    def __enter__(self) -> Bucket:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
