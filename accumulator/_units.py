"""The work of one unit: its rows reduced in order, or spread over buckets that DuckDB sorts.

What a unit came to stands in files of its own, the record of it last and under its name at once. So
a unit is done or not, whatever killed the process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import IO, cast
from zlib import crc32

import msgspec
from msgspec import Struct

from ._bulk import BulkStream, StreamResult, chunk_text
from ._extras import arrow, compute, duckdb
from ._inputs import Unit, open_raw, open_text
from ._rows import BadRow, Keys, RowReader, Rows
from .limits import DEFAULT_LIMITS
from .rules import DEFAULT_RULES

__all__ = ["Done", "Plan", "Run", "Stats", "TornError", "hash_of", "reduce_runs", "row_of", "work"]

Report = Callable[[int, int], None]  # bytes and streams since the last one
_ORDINALS = 1 << 40  # rows of a unit, at most


class TornError(Exception):
    """The rows of a stream do not stand together, or not in order: they must be sorted."""


class Stats(Struct):
    """What a run came to, in numbers."""

    streams: dict[str, int] = {}
    problems: dict[str, int] = {}
    limits: dict[str, int] = {}
    tokens: dict[str, int] = {}
    repeats: int = 0
    rows: int = 0
    bad_rows: int = 0

    def count(self, result: StreamResult) -> None:
        _add(self.streams, {result.status: 1})
        _add(self.problems, result.problem_counts)
        if result.limit is not None:
            _add(self.limits, {result.limit: 1})
        usage = result.completion.usage
        if usage is not None:
            for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
                _add(self.tokens, {name: getattr(usage, name) or 0})
        self.repeats += result.repeats

    def add(self, other: Stats) -> None:
        for name in ("streams", "problems", "limits", "tokens"):
            _add(getattr(self, name), getattr(other, name))
        self.repeats += other.repeats
        self.rows += other.rows
        self.bad_rows += other.bad_rows


def _add(totals: dict[str, int], more: object) -> None:
    for name, count in cast("dict[str, int]", more).items():
        totals[name] = totals.get(name, 0) + count


class Run(Struct):
    """Rows of one stream that stand together."""

    id: str
    seqs: list[int | None]
    chunks: list[bytes]


class Done(Struct):
    """What a unit came to. Its first and its last stream may go on in its neighbours."""

    stats: Stats
    lines: int = 0
    first: Run | None = None
    last: Run | None = None
    unread: str | None = None  # why the file could not be read to the end
    ids: list[int] = []  # digests of the streams that are wholly within the unit


class Plan(Struct, frozen=True):
    """What is to be done; an interrupted run goes on only if this is still the same."""

    units: list[Unit]
    keys: Keys
    buckets: int
    version: int = 1


# --- one stream ---------------------------------------------------------------------------


def row_of(id: str, result: StreamResult) -> bytes:
    """Write a stream's result as a line of JSON Lines."""
    return (
        msgspec.json.encode(
            {
                "id": id,
                "status": result.status,
                "completion": msgspec.Raw(result.completion.to_json().encode()),
                "problems": [_without_nulls(problem) for problem in result.problems],
                "repeats": result.repeats,
                "limit": result.limit,
            }
        )
        + b"\n"
    )


def _without_nulls(problem: object) -> dict[str, object]:
    fields = cast("dict[str, object]", msgspec.to_builtins(problem, enc_hook=str))
    return {name: value for name, value in fields.items() if value is not None}


class _Open:
    """A stream whose rows come run by run."""

    def __init__(self, id: str) -> None:
        self.id = id
        self._stream = BulkStream(DEFAULT_RULES, DEFAULT_LIMITS)
        self._last: int | None = None
        self._begun = False
        self._repeats = 0

    def take(self, seqs: Sequence[int | None] | None, chunks: Sequence[bytes]) -> None:
        if seqs is not None:
            chunks = self._in_order(seqs, chunks)
        elif self._last is not None:
            self._last = None
        self._begun = True
        self._stream.feed_texts(chunks)

    def _in_order(self, seqs: Sequence[int | None], chunks: Sequence[bytes]) -> Sequence[bytes]:
        """Drop repeats. Rows without a number stand behind those that have one."""
        first, last = seqs[0], self._last
        if (
            first is not None
            and (not self._begun or (last is not None and last < first))
            and seqs == list(range(first, first + len(seqs)))
        ):
            self._last = seqs[-1]
            return chunks
        kept = []
        begun = self._begun
        for seq, chunk in zip(seqs, chunks, strict=True):
            if begun and seq is not None and (last is None or seq < last):
                raise TornError
            if begun and seq is not None and seq == last:
                self._repeats += 1
            else:
                kept.append(chunk)
            last, begun = seq, True
        self._last = last
        return kept

    def finish(self) -> StreamResult:
        return self._stream.finish(repeats=self._repeats)


def reduce_runs(id: str, runs: Sequence[Run]) -> StreamResult:
    """Reduce one stream. Raises TornError if its rows are out of order."""
    stream = _Open(id)
    for run in runs:
        stream.take(None if set(run.seqs) == {None} else run.seqs, run.chunks)
    return stream.finish()


def _runs(rows: Rows) -> Iterator[tuple[str, int, int]]:
    ids = rows.ids
    start = 0
    if ids[0] != ids[-1] or ids.count(ids[0]) != len(ids):
        for end in [i for i, (a, b) in enumerate(pairwise(ids), 1) if a != b]:
            yield ids[start], start, end
            start = end
    yield ids[start], start, len(ids)


# --- a unit -------------------------------------------------------------------------------


def work(plan: Plan, folder: str, job: tuple[str, int], memory: int, report: Report) -> None:
    """Do one job: ("reduce", unit), ("spread", unit) or ("sort", bucket). Raises TornError."""
    kind, number = job
    name = f"{kind}-{number:06}"
    # Under names of its own: the workers of a run that was killed live on for a moment.
    base = Path(folder, f"{name}.{os.getpid()}")
    if kind == "sort":
        done = _sort(plan, Path(folder), number, memory, base, report)
    else:
        unit = plan.units[number]
        with open(f"{base}.bad", "wb") as bad:
            if unit.source.form == "sse":
                done = _reduce_sse(unit, base, report)
            elif kind == "reduce":
                done = _reduce(plan, unit, base, bad, report)
            else:
                done = _spread(plan, number, base, bad, report)
    Path(f"{base}.done").write_bytes(msgspec.msgpack.encode(done))
    for suffix in ("bad", "rows", "arrow", "done"):
        if os.path.exists(f"{base}.{suffix}"):
            os.replace(f"{base}.{suffix}", Path(folder, f"{name}.{suffix}"))


def _reader(plan: Plan, unit: Unit, bad: IO[bytes], stats: Stats) -> RowReader:
    def tell(row: BadRow) -> None:
        stats.bad_rows += 1
        bad.write(msgspec.json.encode(row) + b"\n")

    return RowReader(unit, plan.keys, tell)


def _readable(reader: RowReader, done: Done, report: Report) -> Iterator[Rows]:
    """Give the rows of a unit as far as it can be read."""
    position = 0
    blocks = iter(reader)
    while True:
        try:
            rows = next(blocks, None)
        except (OSError, EOFError, ValueError) as error:
            done.unread = getattr(error, "strerror", None) or str(error)
            break
        if rows is None:
            break
        done.stats.rows += len(rows.ids)
        yield rows
        # Not within the `try`: that the parent is gone says nothing of the file.
        report(reader.position - position, 0)
        position = reader.position
    done.lines = reader.lines


def _reduce(plan: Plan, unit: Unit, base: Path, bad: IO[bytes], report: Report) -> Done:
    done = Done(Stats())
    reader = _reader(plan, unit, bad, done.stats)
    ids: set[int] = set()
    open_runs: list[Run] = []
    open_id: str | None = None
    with open(f"{base}.rows", "wb") as out:

        def end() -> None:
            digest = hash_of(open_id or "")
            if digest in ids:
                raise TornError
            ids.add(digest)
            if done.first is None:
                done.first = _joined(open_runs)
                return
            result = reduce_runs(open_id or "", open_runs)
            done.stats.count(result)
            out.write(row_of(open_id or "", result))
            report(0, 1)

        for rows in _readable(reader, done, report):
            for id, start, stop in _runs(rows):
                if id != open_id:
                    if open_runs:
                        end()
                    open_id, open_runs = id, []
                seqs: list[int | None] = [None] * (stop - start)
                if rows.seqs:
                    seqs = rows.seqs[start:stop]
                chunks = rows.chunks[start:stop]
                open_runs.append(Run(id, seqs, chunks))
    if open_runs:
        done.last = _joined(open_runs)
        if hash_of(done.last.id) in ids:
            raise TornError
    if done.first is not None:
        ids.discard(hash_of(done.first.id))
    done.ids = list(ids)
    return done


def hash_of(id: str) -> int:
    """Give 64 bits that tell ids apart, in any process. Two that share them cost only a sort."""
    data = id.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")


def _joined(runs: Sequence[Run]) -> Run:
    seqs = [seq for run in runs for seq in run.seqs]
    return Run(runs[0].id, seqs, [chunk for run in runs for chunk in run.chunks])


def _reduce_sse(unit: Unit, base: Path, report: Report) -> Done:
    """Reduce an SSE dump: one stream, named as its file."""
    done = Done(Stats())
    stream = BulkStream(DEFAULT_RULES, DEFAULT_LIMITS)
    try:
        with open_raw(unit.source) as raw, open_text(unit.source, raw) as file:
            while data := file.read(65536):
                stream.feed_body(data)
    except (OSError, EOFError, ValueError) as error:
        done.unread = getattr(error, "strerror", None) or str(error)
    result = stream.finish()
    done.stats.count(result)
    Path(f"{base}.rows").write_bytes(row_of(unit.source.name, result))
    report(unit.size, 1)
    return done


# --- sorting ------------------------------------------------------------------------------


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


def _spread(plan: Plan, number: int, base: Path, bad: IO[bytes], report: Report) -> Done:
    """Write a unit's rows to an Arrow file, those of a bucket in batches of their own."""
    pa, pc = arrow(), compute()
    done = Done(Stats())
    reader = _reader(plan, plan.units[number], bad, done.stats)
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

        for rows in _readable(reader, done, report):
            count = len(rows.ids)
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
            if size > _SPREAD:
                flush()
                size = 0
        if waiting:
            flush()
    done.ids = places
    return done


_SPREAD = 16 * 1024 * 1024  # bytes of chunks that wait to be written


def _sort(plan: Plan, folder: Path, bucket: int, memory: int, base: Path, report: Report) -> Done:
    """Sort a bucket on disk, and reduce its streams."""
    pa = arrow()
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

    rows = pa.RecordBatchReader.from_batches(_schema(), batches())
    settings = {
        "memory_limit": f"{memory // 1024}KiB",
        "threads": "1",
        "temp_directory": f"{base}.tmp",
        "preserve_insertion_order": "false",
    }
    connection = duckdb().connect(config=settings)
    try:
        connection.register("spread", rows)
        query = "SELECT id, seq, chunk FROM spread ORDER BY id, seq NULLS LAST, place"
        relation = connection.sql(query)
        # DuckDB 1.5 renamed it.
        name = next(each for each in _READERS if hasattr(relation, each))
        result = getattr(relation, name)(_SORTED)
        stream: _Open | None = None
        with open(f"{base}.rows", "wb") as out:

            def end(stream: _Open) -> None:
                result = stream.finish()
                done.stats.count(result)
                out.write(row_of(stream.id, result))
                report(0, 1)

            for batch in result:
                ids, seqs, chunks = (column.to_pylist() for column in batch.columns)
                for id, start, stop in _runs(Rows(ids, seqs, chunks)):
                    if stream is None or stream.id != id:
                        if stream is not None:
                            end(stream)
                        stream = _Open(id)
                    some = seqs[start:stop]
                    stream.take(None if some[0] is None else some, chunks[start:stop])
            if stream is not None:
                end(stream)
    finally:
        connection.close()
    return done


_READERS = ("to_arrow_reader", "fetch_arrow_reader")
_SORTED = 8192  # rows of a batch from DuckDB
