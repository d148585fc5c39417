"""The files of a log, and how they are cut into units of work that can be read on their own."""

from __future__ import annotations

import glob
import gzip
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Literal, cast

from msgspec import Struct

from ._extras import arrow, parquet

__all__ = ["Input", "Unit", "find_inputs", "open_raw", "open_text", "units_of"]

Form = Literal["json", "sse", "parquet"]
Compression = Literal["", "gzip", "zstd"]

_GZIP, _ZSTD, _PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
_HEAD = 4096  # bytes that tell JSON from SSE
_BLANK = b" \t\r\n\xef\xbb\xbf"
_UNIT = 32 * 1024 * 1024  # bytes: what is done again after an interruption, and a worker's portion
_MOST_UNITS = 4096


class Input(Struct, frozen=True):
    """One file: its size and time are kept, so that a run does not go on over another one."""

    path: str
    name: str
    size: int
    modified: int  # nanoseconds
    form: Form
    compression: Compression = ""


class Unit(Struct, frozen=True):
    """A part of a file: bytes from `start` to `end`, or, of Parquet, row groups."""

    source: Input
    start: int
    end: int
    size: int  # bytes on disk


def find_inputs(paths: Sequence[str]) -> list[Input]:
    """Find the files of paths, folders (all in them, hidden ones aside) and globs, in order of
    their names.

    The name of a file in a folder is its path from there. Raises FileNotFoundError for a path or a
    glob that is nothing, OSError for a file that cannot be read.
    """
    found: dict[str, str] = {}
    for path in paths:
        if os.path.isdir(path):
            for each in sorted(Path(path).rglob("*")):
                name = each.relative_to(path)
                if each.is_file() and not any(part.startswith(".") for part in name.parts):
                    found.setdefault(str(each), name.as_posix())
        elif os.path.exists(path):
            found.setdefault(path, os.path.basename(path))
        else:
            matches = sorted(glob.glob(path, recursive=True))
            if not matches:
                raise FileNotFoundError(2, os.strerror(2), path)
            for match in matches:
                if os.path.isfile(match):
                    found.setdefault(match, os.path.basename(match))
    return [_looked_at(path, name) for path, name in found.items()]


def _looked_at(path: str, name: str) -> Input:
    """Tell by its first bytes what a file holds; a suffix may say anything."""
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        head = file.read(4)
    form: Form = "json"
    compression: Compression = ""
    if head == _PARQUET:
        form = "parquet"
    else:
        if head.startswith(_GZIP):
            compression = "gzip"
        elif head == _ZSTD:
            compression = "zstd"
        try:
            source = Input(path, name, 0, 0, form, compression)
            with open_raw(source) as raw, open_text(source, raw) as text:
                head = text.read(_HEAD).lstrip(_BLANK)
        except (OSError, EOFError):
            head = b""  # told when the file is read
        if head and not head.startswith((b"{", b"[")):
            form = "sse"
    return Input(path, name, status.st_size, status.st_mtime_ns, form, compression)


def units_of(inputs: Sequence[Input]) -> Iterator[Unit]:
    """Cut files into units. What cannot be read from its middle (SSE, compressed) is one."""
    total = sum(each.size for each in inputs)
    size = max(_UNIT, total // _MOST_UNITS)
    for each in inputs:
        if each.form == "parquet":
            groups = parquet().ParquetFile(each.path).metadata.num_row_groups
            portion = max(1, groups * size // max(each.size, 1))
            for start in range(0, groups, portion):
                end = min(start + portion, groups)
                yield Unit(each, start, end, each.size * (end - start) // groups)
        elif each.form == "sse" or each.compression:
            yield Unit(each, 0, each.size, each.size)
        else:
            for start in range(0, each.size, size):
                end = min(start + size, each.size)
                yield Unit(each, start, end, end - start)


def open_raw(source: Input) -> io.BufferedReader:
    """Open a file's bytes as they are on disk."""
    return open(source.path, "rb")


def open_text(source: Input, raw: IO[bytes]) -> IO[bytes]:
    """Open what an open file holds, decompressed."""
    if source.compression == "gzip":
        return cast("IO[bytes]", gzip.GzipFile(fileobj=raw))
    if source.compression == "zstd":
        return io.BufferedReader(arrow().CompressedInputStream(raw, "zstd"))
    return raw
