"""The files of a log: which ones a path means, and what they contain."""

from __future__ import annotations

import glob
import gzip
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Literal, cast

from msgspec import Struct

from .._decode.chunk import decode_untyped
from .._extras import load
from ..batch import SSE_FIELDS

# Gzip raises each of these for some kind of damage; Arrow's errors are among them.
READ_ERRORS = (OSError, EOFError, ValueError, zlib.error)
STDIN = "-"
FILE_HELP = (
    "a recorded stream: SSE, JSON Lines of chunks, or rows of id, seq and chunk; plain, gzip or "
    "zstd (extra logs); - is standard input"
)

Form = Literal["rows", "body", "page", "parquet"]  # a page is what a server sent in place of a body

_GZIP, PARQUET = b"\x1f\x8b", b"PAR1"
# pzstd begins with a frame that is to be skipped: its first byte is any of these, then comes `*M`.
_ZSTD = (b"\x28\xb5\x2f\xfd", *(bytes((first,)) + b"*M\x18" for first in range(0x50, 0x60)))
BLOCK = 65536  # bytes, the most that a pipe holds; they are enough to distinguish rows from a body
BOM = b"\xef\xbb\xbf"
BLANK = b" \t\r\n" + BOM


class CommandError(Exception):
    """Ends a command with an exit code; 2 means wrong usage."""

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


def in_utf8(path: str) -> str:
    """Return a path as characters that UTF-8 can express; the path may have any bytes."""
    return os.fsencode(path).decode("utf-8", "replace")


def label_of(path: str) -> str:
    return "standard input" if path == STDIN else path


class Source(Struct, frozen=True):
    """One file of a log. `label` is its name in messages, `name` is the id of an SSE stream."""

    path: str
    name: str
    label: str
    size: int
    form: Form


def find_files(paths: Sequence[str], outputs: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Find the files of paths, folders (all files in them that are not hidden) and globs (of files,
    or else of folders), sorted by name. Return the path and the name of each.

    Folders and globs leave out the `outputs`. A file in a folder is named by its path from there,
    and a second file with the same name by its full path. Raises CommandError for a path that
    matches nothing or is an output.
    """
    written = {os.path.realpath(path) for path in outputs}
    found: dict[str, tuple[str, str]] = {}  # keyed by real path, so that each file is read once
    names: set[str] = set()
    for path in paths:
        if os.path.realpath(path) in written:
            raise CommandError(f"{path} is both an input and an output")
        for file, short in _files_of(path):
            real = os.path.realpath(file)
            if real not in found and real not in written:
                name = in_utf8(short if short not in names else os.path.abspath(file))
                found[real] = file, name
                names.add(name)
    return list(found.values())


def _files_of(path: str) -> list[tuple[str, str]]:
    """Return the files of a path, a folder or a glob, each with its name."""
    if path == STDIN:
        return [(path, "stdin")]
    if os.path.isdir(path):
        found = sorted(file for file in Path(path).rglob("*") if file.is_file())
        named = [(str(file), file.relative_to(path).as_posix()) for file in found]
        return [(file, name) for file, name in named if "/." not in f"/{name}"]
    if os.path.exists(path):
        return [(path, os.path.basename(path))]
    matches = sorted(glob.glob(path, recursive=True))
    files = [(match, os.path.basename(match)) for match in matches if os.path.isfile(match)]
    folders = [*filter(os.path.isdir, matches)]
    if not files and not folders:
        raise CommandError(f"{path}: no such file")
    return files or [file for folder in folders for file in _files_of(folder)]


def detect_source(path: str, name: str, folder: str, keys: Sequence[str]) -> Source:
    """Detect from its first bytes what a file contains. A row has the `keys`. What cannot be read
    twice is copied to a folder first. Raises OSError.
    """
    label = label_of(path)
    if path == STDIN or not os.path.isfile(path):
        copy = os.path.join(folder, f"input-{len(os.listdir(folder))}")
        with opened(path) as (pipe, _), open(copy, "wb") as file:
            shutil.copyfileobj(pipe, file)
        path = copy
    with opened(path) as (raw, text):
        size = os.fstat(raw.fileno()).st_size
        if raw.peek(4).startswith(PARQUET):
            return Source(path, name, label, size, "parquet")
        head = b""
        with suppress(*READ_ERRORS):  # reported when the file is read
            while len(head) < BLOCK and (data := text.read1(BLOCK)):
                head += data
    return Source(path, name, label, size, _form_of(head.lstrip(BLANK), keys))


def _form_of(head: bytes, keys: Sequence[str]) -> Form:
    """Return what a file contains, by its head. One JSON value that is not a row is a page."""
    if head and not head.startswith((b"{", b"[")):
        if head.partition(b"\n")[0].partition(b":")[0] in SSE_FIELDS:
            return "body"
        # A log may be cut at its beginning.
        return "rows" if has_row(head, {*keys}, {keys[0], "choices"}) else "page"
    try:
        value, _ = decode_untyped(head)
    except ValueError:
        return "rows"
    entries: list[object] = value if isinstance(value, list) else [value]
    if any(isinstance(entry, dict) and {*keys} <= entry.keys() for entry in entries):
        return "rows"  # each line is reported, because rows are lines
    if len(entries) == 1:  # a list of one is what Gemini's server sends
        value = entries[0]
    is_page = b"\n" in head.strip()
    if isinstance(value, dict):
        expected = keys[:1] if "error" in value else [*keys, "choices"]
        is_page = is_page or value.keys().isdisjoint(expected)
    return "page" if is_page else "rows"


def has_row(head: bytes, *kinds: set[str]) -> bool:
    """Return whether any line of a file's head is an object with all keys of one of these kinds."""
    for line in head.splitlines():
        with suppress(ValueError):
            fields, _ = decode_untyped(line)
            if isinstance(fields, dict) and any(kind <= fields.keys() for kind in kinds):
                return True
    return False


@contextmanager
def opened(path: str) -> Iterator[tuple[BufferedReader, BufferedReader]]:
    """Open a file, or standard input; yield it and a reader that decompresses it.

    Raises OSError, and ImportError if it needs an extra.
    """
    file = FileIO(0 if path == STDIN else path, closefd=path != STDIN)
    raw: BufferedReader = BufferedReader(file, BLOCK)
    with raw:
        text, head = raw, raw.peek(4)
        if head.startswith(_GZIP):
            text = cast("BufferedReader", gzip.GzipFile(fileobj=raw))
        elif head.startswith(_ZSTD):
            text = BufferedReader(load("pyarrow").CompressedInputStream(raw, "zstd"))
        with text:
            yield raw, text


def why_unread(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)
