"""Where results go: a file that appears at once when it is whole, or a pipe behind a whole file."""

from __future__ import annotations

import gzip
import os
import shutil
from typing import IO, Any, Protocol, cast

import msgspec

from ..batch import StreamResult
from .extras import arrow, parquet
from .inputs import UsageError
from .terminal import write_output

__all__ = ["STDOUT", "Target", "Writer", "open_writer"]

STDOUT = "-"
_COMPRESSED = (".gz", ".zst", ".zstd")
_LINES = ("", ".json", ".jsonl", ".ndjson")
_COLUMNS = ("id", "status", "completion", "problems", "repeats", "limit")
_ROWS = 256  # of Parquet, that are written at once
_BLOCK = 1024 * 1024


class Target:
    """The output that a command names, checked before anything is read.

    Raises UsageError for a suffix that stands for no form of output, OSError for what cannot be
    written, ImportError if the form needs an extra.
    """

    def __init__(self, name: str) -> None:
        form, compression = os.path.splitext(name)
        if compression not in _COMPRESSED:
            form, compression = name, ""
        suffix = os.path.splitext(form)[1]
        if name.endswith(".parquet"):
            parquet()
        elif suffix not in _LINES:
            raise UsageError(
                f"{name}: the output is JSON Lines (.jsonl, .ndjson, .json, or no suffix; .gz or "
                ".zst behind that) or .parquet"
            )
        elif compression in _COMPRESSED[1:]:
            arrow()
        self.name = name
        self.path = os.path.realpath(name)  # a link is followed, not replaced
        self._is_stream = name == STDOUT or (os.path.exists(name) and not os.path.isfile(name))
        if os.path.isdir(name):
            raise IsADirectoryError(21, os.strerror(21), name)

    @property
    def folder(self) -> str | None:
        """The folder for what is written on the way; None for that of temporary files."""
        return None if self._is_stream else os.path.dirname(self.path)

    def put(self, file: str) -> None:
        """Put a whole file in the place of the output, or write it through. Raises OSError."""
        if not self._is_stream:
            if os.path.exists(self.path):
                shutil.copymode(self.path, file)
            os.replace(file, self.path)
            return
        with open(file, "rb") as whole:
            if self.name == STDOUT:
                while block := whole.read(_BLOCK):
                    write_output(block)
                return
            with open(self.path, "wb") as stream:
                shutil.copyfileobj(whole, stream)


class Writer(Protocol):
    """Writes results to a file."""

    def write(self, id: str, result: StreamResult) -> None: ...
    def close(self) -> None: ...


def open_writer(name: str, path: str) -> Writer:
    """Open a file for results, in the form that the name of the output stands for."""
    if name.endswith(".parquet"):
        return _ParquetWriter(path)
    return _LineWriter(name, path)


class _LineWriter:
    """Writes JSON Lines, compressed or not."""

    def __init__(self, name: str, path: str) -> None:
        self._file = open(path, "wb")  # noqa: SIM115  # closed with the writer
        self._stream: IO[bytes] = self._file
        if name.endswith(".gz"):
            self._stream = cast("IO[bytes]", gzip.GzipFile("", "wb", 6, self._file, mtime=0))
        elif name.endswith(_COMPRESSED):
            self._stream = arrow().CompressedOutputStream(self._file, "zstd")

    def write(self, id: str, result: StreamResult) -> None:
        """Write a result as a line."""
        row = {
            "id": id,
            "status": result.status,
            "completion": result.completion.to_dict(),
            "problems": _problems_of(result),
            "repeats": result.repeats,
            "limit": result.limit,
        }
        self._stream.write(msgspec.json.encode(row) + b"\n")

    def close(self) -> None:
        """Write what is left to the disk."""
        if self._stream is not self._file:
            self._stream.close()
        _sync(self._file)


class _ParquetWriter:
    """Writes Parquet; the completion and the problems are columns of JSON."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "wb")  # noqa: SIM115  # closed with the writer
        types: dict[str, Any] = dict.fromkeys(_COLUMNS, arrow().string())
        types["repeats"] = arrow().int64()
        self._schema = arrow().schema(types)
        self._writer = parquet().ParquetWriter(self._file, self._schema, compression="zstd")
        self._rows: list[tuple[object, ...]] = []

    def write(self, id: str, result: StreamResult) -> None:
        """Write a result as a row."""
        problems = msgspec.json.encode(_problems_of(result)).decode()
        completion = result.completion.to_json()
        self._rows.append((id, result.status, completion, problems, result.repeats, result.limit))
        if len(self._rows) >= _ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            columns = list(zip(*self._rows, strict=True))
            self._writer.write_table(arrow().table(columns, schema=self._schema))
            self._rows = []

    def close(self) -> None:
        """Write what is left to the disk."""
        self._flush()
        self._writer.close()
        _sync(self._file)


def _sync(file: IO[bytes]) -> None:
    if not file.closed:
        file.flush()
        os.fsync(file.fileno())
        file.close()


def _problems_of(result: StreamResult) -> list[dict[str, object]]:
    """Return the problems of a result as builtins, without the fields that are None."""
    found = []
    for problem in result.problems:
        fields = cast("dict[str, object]", msgspec.to_builtins(problem, enc_hook=str))
        found.append({name: value for name, value in fields.items() if value is not None})
    return found
