"""The files of a log, and how they are cut into units of work that can be read on their own."""

from __future__ import annotations

import glob
import gzip
import io
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Literal, cast

from msgspec import Struct

from ._extras import arrow, parquet

__all__ = [
    "READ_ERRORS",
    "Input",
    "Unit",
    "UsageError",
    "find_inputs",
    "in_utf8",
    "open_raw",
    "open_text",
    "units_of",
    "why_unread",
]

# Gzip raises each of these for one damage or another; those of Arrow are among them.
READ_ERRORS = (OSError, EOFError, ValueError, zlib.error)

Form = Literal["json", "sse", "parquet"]
Compression = Literal["", "gzip", "zstd"]

_GZIP, _ZSTD, _PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
_HEAD = 4096  # bytes that tell JSON from SSE
_BLANK = b" \t\r\n\xef\xbb\xbf"
_UNIT = 32 * 1024 * 1024  # bytes: what is done again after an interruption, and a worker's portion
_MOST_UNITS = 4096


class UsageError(Exception):
    """What was asked for cannot be done, or would destroy what is to be read."""


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


def find_inputs(paths: Sequence[str], outputs: Sequence[str] = ()) -> list[Input]:
    """Find the files of paths, folders (all in them, hidden ones aside) and globs, in order of
    their names. Folders and globs are without `outputs`, files or folders that a run writes.

    The name of a file in a folder is its path from there; a second one of that name has its whole
    path for a name. Raises FileNotFoundError for a path or a glob that is nothing, UsageError for a
    path that is an output or no regular file, OSError for a file that cannot be read.
    """
    written = [os.path.realpath(path) for path in outputs]
    found: dict[str, tuple[str, str]] = {}  # by its real path: a file is read once
    names: set[str] = set()
    for path in paths:
        if _is_within(os.path.realpath(path), written):
            raise UsageError(
                f"{path} is written by this run, and no input; a folder or a quoted glob is read "
                "without it"
            )
        for file, name in _files_of(path):
            place = os.path.realpath(file)
            if place not in found and not _is_within(place, written):
                own = in_utf8(name if name not in names else os.path.abspath(file))
                found[place] = file, own
                names.add(own)
    return [_looked_at(path, name) for path, name in found.values()]


def _is_within(place: str, places: Sequence[str]) -> bool:
    return any(place == each or place.startswith(each + os.sep) for each in places)


def _files_of(path: str) -> Iterator[tuple[str, str]]:
    """Give the files of a path, a folder or a glob, each with its name."""
    if os.path.isdir(path):
        for each in sorted(Path(path).rglob("*")):
            name = each.relative_to(path)
            if each.is_file() and not any(part.startswith(".") for part in name.parts):
                yield str(each), name.as_posix()
    elif os.path.isfile(path):
        yield path, os.path.basename(path)
    elif os.path.exists(path):
        raise UsageError(f"{path} is no regular file; a log is read in parts, so write it to one")
    else:
        matches = sorted(glob.glob(path, recursive=True))
        if not matches:
            raise FileNotFoundError(2, os.strerror(2), path)
        for match in matches:
            if os.path.isfile(match):
                yield match, os.path.basename(match)


def in_utf8(path: str) -> str:
    """Write a path in characters that have a form in UTF-8; its bytes may be anything."""
    return os.fsencode(path).decode("utf-8", "replace")


def why_unread(error: Exception) -> str:
    """Tell why a file could not be read to its end."""
    return getattr(error, "strerror", None) or str(error)


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
        except READ_ERRORS:
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
            try:
                groups = parquet().ParquetFile(each.path).metadata.num_row_groups
            except READ_ERRORS:
                groups = 1  # told when it is read
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
