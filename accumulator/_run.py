"""A run over a whole log: units in order if they can be, sorted if they must, then one output.

Everything a run has done stands in a folder beside the output until the output is whole.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import IO, Protocol, cast

import msgspec

from ._extras import arrow, duckdb, parquet
from ._inputs import UsageError, find_inputs, units_of
from ._records import Done, Plan, Run, Stats, TornError, hash_of
from ._rows import BadRow, Keys
from ._runs import check_order, reduce_runs, row_of
from ._units import Job, work

__all__ = ["LogRun", "Progress"]

_MIB = 1024 * 1024
# What a process weighs beside what DuckDB is told to keep to: Python, Arrow and DuckDB are 110 MiB
# as they are loaded, the rest is rows on their way in and out.
_PROCESS = 185 * _MIB
_PARENT = 90 * _MIB  # and one that hands out the work and writes the output
_OVER = 1.25  # of what it is told DuckDB takes, at most
_LEAST = 60 * _MIB  # that DuckDB sorts with, and what goes over
_ID = 200  # bytes of an id that is remembered
_BEGUN = "plan.begun"


class Progress(Protocol):
    """Is told what goes on: progress, and each bad row with its place."""

    def begin(self, phase: str, size: int) -> None: ...
    def report(self, size: int, streams: int) -> None: ...
    def bad_row(self, path: str, row: BadRow) -> None: ...
    def unread(self, path: str, why: str) -> None: ...


class LogRun:
    """Reduces the streams of files to one file. `memory` bounds all processes, in bytes; `spared`
    are files that are written beside the output, and so are no input.

    Raises UsageError for what cannot be done as it is asked for, FileNotFoundError for a path that
    is nothing, ImportError if the form of the output needs an extra.
    """

    def __init__(
        self,
        paths: Sequence[str],
        output: str,
        *,
        keys: Keys,
        workers: int,
        memory: int,
        resume: bool,
        progress: Progress,
        spared: Sequence[str] = (),
    ) -> None:
        self._output = output
        self._folder = f"{output}.parts"
        self._workers = workers
        parent = _PARENT if workers > 1 else 0
        share = (memory - parent) // workers - _PROCESS
        if share < _LEAST:
            least = (workers * (_PROCESS + _LEAST) + parent) // _MIB
            raise UsageError(f"{workers} worker(s) need a memory of {least}M at least")
        self._memory = int(share / _OVER)
        self._remembered = self._memory // _ID  # ids looked at while reading; all are at the end
        self._progress = progress
        self._resume = resume
        _import_for(output)
        if os.path.realpath(output) in map(os.path.realpath, spared):
            raise UsageError(f"{output} is to be two files")
        inputs = find_inputs(paths, [output, self._folder, *spared])
        units = list(units_of(inputs))
        # Text is three to ten times what is compressed; a bucket that outgrows memory is spilled.
        size = sum(unit.size * (5 if unit.source.compression else 1) for unit in units)
        buckets = min(size * 4 // self._memory + 1, 1024)
        self._plan = Plan(units, keys, buckets, longest=max(share // 2, 32 * _MIB))
        self._plan_path = Path(self._folder, "plan.json")
        self._check_folder()

    def _plan_text(self) -> bytes:
        # By `json`, which writes a file's name in ASCII even if it has no form in UTF-8.
        return json.dumps(msgspec.to_builtins(self._plan)).encode()

    def _check_folder(self) -> None:
        if not self._plan_path.exists():
            if self._resume:
                raise UsageError(f"there is no interrupted run in {self._folder}")
            if os.path.isdir(self._folder) and not set(os.listdir(self._folder)) <= {_BEGUN}:
                raise UsageError(f"{self._folder} is no folder of a run, which would replace it")
        elif self._resume and self._plan_path.read_bytes() != self._plan_text():
            raise UsageError(
                f"{self._folder} is of a run with other files or options, or a file has changed"
            )

    def _begin(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        os.makedirs(self._folder)
        # At once: a run that is killed here was begun, or not.
        begun = Path(self._folder, _BEGUN)
        begun.write_bytes(self._plan_text())
        os.replace(begun, self._plan_path)

    def run(self) -> Stats:
        """Do it all, or what is left of it. Raises OSError, ImportError (sorting needs DuckDB)."""
        if not self._resume:
            self._begin()
        is_torn = Path(self._folder, "torn")
        parts: list[Job] | None = None
        if not is_torn.exists():
            try:
                parts = self._in_order()
            except TornError:
                duckdb()  # before anything is thrown away
                for path in Path(self._folder).glob("reduce-*"):
                    path.unlink()
                is_torn.touch()
        if parts is None:
            parts = self._sorted()
        stats = self._assemble(parts)
        shutil.rmtree(self._folder, ignore_errors=True)
        return stats

    # --- the two ways ---

    def _in_order(self) -> list[Job]:
        jobs = [("reduce", number) for number in range(len(self._plan.units))]
        seen: set[int] = set()
        for job in self._do("reading", jobs):
            if len(seen) < self._remembered:
                ids = self._done(job).ids
                before = len(seen)
                seen.update(ids)
                if len(seen) != before + len(ids):
                    raise TornError
        self._check(jobs)
        return jobs

    def _check(self, jobs: Sequence[Job]) -> None:
        """Ask whether a stream is in two places, of all ids a part at a time; and whether those at
        the edges of units are in order.
        """
        count = sum(len(self._done(job).ids) for job in jobs)
        portions = count // self._remembered + 1
        for ended, _ in self._edges(jobs):
            for runs in _by_stream(ended):
                check_order(runs)
        for portion in range(portions):
            seen: set[int] = set()
            for _, ids in self._edges(jobs):
                for digest in ids:
                    if digest % portions == portion:
                        if digest in seen:
                            raise TornError
                        seen.add(digest)

    def _sorted(self) -> list[Job]:
        jobs = [("spread", number) for number in range(len(self._plan.units))]
        for _ in self._do("reading", jobs):
            pass
        buckets = [("sort", number) for number in range(self._plan.buckets)]
        for _ in self._do("sorting", buckets):
            pass
        return jobs + buckets

    def _do(self, phase: str, jobs: Sequence[Job]) -> Iterator[Job]:
        size = sum(unit.size for unit in self._plan.units)
        left = [job for job in jobs if not self._path(job, "done").exists()]
        self._progress.begin(phase, size)
        units = self._plan.units
        for job in jobs:
            if job not in left:
                part = size // len(jobs) if job[0] == "sort" else units[job[1]].size
                streams = sum(self._done(job).stats.streams.values())
                self._progress.report(part, streams)
                yield job
        given = self._plan, self._folder
        if self._workers > 1 and len(left) > 1:
            from ._pool import run_jobs  # noqa: PLC0415  # a tenth of the start of a command

            yield from run_jobs(*given, left, self._workers, self._memory, self._progress.report)
            return
        for job in left:
            work(*given, job, self._memory, self._progress.report)
            yield job

    def _path(self, job: Job, suffix: str) -> Path:
        return Path(self._folder, f"{job[0]}-{job[1]:06}.{suffix}")

    def _done(self, job: Job) -> Done:
        return msgspec.msgpack.decode(self._path(job, "done").read_bytes(), type=Done)

    # --- the output ---

    def _edges(self, jobs: Sequence[Job]) -> Iterator[tuple[list[Run], list[int]]]:
        """Join the streams at the edges of units. Give for each unit the streams that ended before
        its own (their runs), and the digests of all that ended in it.
        """
        runs: list[Run] = []
        for job in jobs:
            done = self._done(job)
            ended: list[Run] = []
            ids = list(done.ids)
            for edge in (done.first, done.last):
                if edge and runs and runs[0].id != edge[0].id:
                    ids.append(hash_of(runs[0].id))
                    ended += runs
                    runs = []
                runs += edge
            if sum(run.size for run in runs) > self._plan.longest:
                raise TornError
            yield ended, ids
        yield runs, [hash_of(runs[0].id)] if runs else []

    def _assemble(self, parts: Sequence[Job]) -> Stats:
        stats = Stats()
        temporary = Path(self._folder, "output")
        with _Writer(self._output, temporary) as write:
            in_order = parts[-1][0] == "reduce" if parts else True
            edges = self._edges(parts) if in_order else iter(())
            lines: dict[str, int] = {}
            for job in parts:
                done = self._done(job)
                stats.add(done.stats)
                if job[0] != "sort":
                    self._tell(job, done, lines)
                self._write_edges(next(edges, ([], []))[0], stats, write)
                path = self._path(job, "rows")
                if path.exists():
                    with path.open("rb") as file:
                        while block := file.readlines(1024 * 1024):
                            write(b"".join(block))
            self._write_edges(next(edges, ([], []))[0], stats, write)
        os.replace(temporary, self._output)
        return stats

    def _write_edges(self, runs: list[Run], stats: Stats, write: Callable[[bytes], object]) -> None:
        for own in _by_stream(runs):
            id, result = reduce_runs(own)
            stats.count(result)
            write(row_of(id, result))

    def _tell(self, job: Job, done: Done, lines: dict[str, int]) -> None:
        path = self._plan.units[job[1]].source.path
        before = lines.get(path, 0)
        if done.stats.bad_rows:
            with self._path(job, "bad").open("rb") as file:
                for line in file:
                    row = msgspec.json.decode(line, type=BadRow)
                    row.line += before
                    self._progress.bad_row(path, row)
        lines[path] = before + done.lines
        if done.unread is not None:
            self._progress.unread(path, done.unread)


def _by_stream(runs: Sequence[Run]) -> Iterator[list[Run]]:
    for _, own in groupby(runs, key=attrgetter("id")):
        yield list(own)


_COLUMNS = ["id", "status", "completion", "problems", "repeats", "limit"]
_ZSTD = (".zst", ".zstd")


def _import_for(output: str) -> None:
    """Ask for what an output's form needs before anything is read. Raises ImportError."""
    if output.endswith(".parquet"):
        parquet()
    elif output.endswith(_ZSTD):
        arrow()


class _Writer:
    """Writes lines of results to a file, in the form that the output's name asks for."""

    def __init__(self, name: str, path: Path) -> None:
        self._file = path.open("wb")
        self._close: list[Callable[[], None]] = []
        self.write: Callable[[bytes], object]
        if name.endswith(".parquet"):
            self.write = self._write_parquet
            schema = [(each, arrow().string()) for each in _COLUMNS]
            schema[_COLUMNS.index("repeats")] = ("repeats", arrow().int64())
            self._schema = arrow().schema(schema)
            self._parquet = parquet().ParquetWriter(self._file, self._schema, compression="zstd")
            self._close.append(self._parquet.close)
        else:
            stream: IO[bytes] = self._file
            if name.endswith(".gz"):
                stream = cast("IO[bytes]", gzip.GzipFile("", "wb", 6, self._file, mtime=0))
            elif name.endswith(_ZSTD):
                stream = arrow().CompressedOutputStream(self._file, "zstd")
            self.write = stream.write
            if stream is not self._file:
                self._close.append(stream.close)

    def __enter__(self) -> Callable[[bytes], object]:
        return self.write

    def __exit__(self, *_: object) -> None:
        for close in self._close:
            close()
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def _write_parquet(self, lines: bytes) -> None:
        rows = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode_lines(lines)
        values: dict[str, list[object]] = {name: [] for name in _COLUMNS}
        for row in rows:
            for name in _COLUMNS:
                raw = row[name]
                if name in ("completion", "problems"):
                    values[name].append(bytes(cast("bytes", raw)).decode())
                else:
                    values[name].append(msgspec.json.decode(raw))
        self._parquet.write_table(arrow().table(values, schema=self._schema))
