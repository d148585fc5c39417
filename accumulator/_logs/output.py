"""Write results to a file that appears once it is complete; a pipe gets a copy of that file."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import IO, Any

import attrs
import msgspec

from .._extras import load
from ..batch import StreamResult
from .inputs import CommandError
from .terminal import Result, open_output

_STDOUT = "-"
_ZSTD = (".zst", ".zstd")
_LINES = ("", ".json", ".jsonl", ".ndjson")
_COLUMNS = ("id", "status", "completion", "problems", "repeats", "limit")
_ROWS, _BYTES = 256, 4 * 1024 * 1024  # the most of Parquet that is written at once


class Target:
    """The output named on the command line, checked before anything is read.

    Raises CommandError for an unknown suffix, OSError, ImportError if the form needs an extra.
    """

    def __init__(self, name: str) -> None:
        stem, last = os.path.splitext(name)
        suffix = os.path.splitext(stem)[1] if last in (".gz", *_ZSTD) else last
        if last != ".parquet" and suffix not in _LINES:
            raise CommandError(
                f"{name}: the output is JSON Lines (.jsonl, .ndjson, .json, or no suffix; .gz or "
                ".zst after that) or .parquet"
            )
        if last in (".parquet", *_ZSTD):
            load("pyarrow" if last in _ZSTD else "pyarrow.parquet")
        self.name = name
        self.path = os.path.realpath(name)  # a link is followed, not replaced
        if os.path.isdir(name):
            raise IsADirectoryError(21, os.strerror(21), name)
        is_stream = name == _STDOUT or (os.path.exists(name) and not os.path.isfile(name))
        # For temporary files: the folder of the output, or None for the system's.
        self.folder = None if is_stream else os.path.dirname(self.path)
        if self.folder is not None and not os.path.isdir(self.folder):
            raise FileNotFoundError(2, "there is no such folder", name)

    def put(self, file: str) -> None:
        """Move a complete file to the output, or copy its bytes into a stream. Raises OSError."""
        if self.folder is not None:
            if os.path.exists(self.path):
                shutil.copymode(self.path, file)
            os.replace(file, self.path)
            return
        with (
            open(file, "rb") as whole,
            # Not by its path: that of `/dev/stdout` may be the name of a pipe in no folder.
            open_output() if self.name == _STDOUT else open(self.name, "wb") as stream,
        ):
            shutil.copyfileobj(whole, stream)


def write_results(name: str, path: str, results: Iterable[Result]) -> None:
    """Write results to a file, in the format that the output's name implies, and sync the disk."""
    rows = (_row(id, result) for id, result in results)
    with open(path, "wb") as file:
        if name.endswith(".parquet"):
            _write_parquet(file, rows)
        else:
            with _compressed(name, file) as lines:
                lines.writelines(msgspec.json.encode(row) + b"\n" for row in rows)
    with open(path, "rb+") as whole:
        os.fsync(whole.fileno())


def _compressed(name: str, file: IO[bytes]) -> Any:
    if name.endswith(".gz"):
        return gzip.GzipFile("", "wb", 6, file, mtime=0)
    if name.endswith(_ZSTD):
        return load("pyarrow").CompressedOutputStream(file, "zstd")
    return nullcontext(file)


def _write_parquet(file: IO[bytes], rows: Iterator[dict[str, object]]) -> None:
    """Write completions and problems as JSON, in columns of text."""
    pa = load("pyarrow")
    schema = pa.schema(dict.fromkeys(_COLUMNS, pa.string()) | {"repeats": pa.int64()})
    with load("pyarrow.parquet").ParquetWriter(file, schema, compression="zstd") as writer:
        some: list[dict[str, object]] = []
        size = 0
        for row in rows:
            for name in ("completion", "problems"):
                row[name] = text = msgspec.json.encode(row[name])
                size += len(text)
            some.append(row)
            if len(some) == _ROWS or size >= _BYTES:
                writer.write_table(pa.Table.from_pylist(some, schema=schema))
                some, size = [], 0
        if some:
            writer.write_table(pa.Table.from_pylist(some, schema=schema))


def _row(id: str, result: StreamResult) -> dict[str, object]:
    given = attrs.filters.exclude(type(None))
    problems = [attrs.asdict(problem, filter=given) for problem in result.problems]
    completion = result.completion.to_dict()
    values = id, result.status, completion, problems, result.repeats, result.limit
    return dict(zip(_COLUMNS, values, strict=True))
