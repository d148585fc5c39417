"""Read one recorded file, for `accumulator FILE` and `inspect`: a body, or rows of some streams."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from io import BufferedReader, BytesIO
from itertools import chain
from typing import TypeAlias

import msgspec

from .._accumulator import Accumulator
from ..batch import SSE_FIELDS, RecordedStream, StreamResult, reduce_sorted
from .inputs import BLANK, BLOCK, PARQUET, READ_ERRORS, has_row, label_of, opened, why_unread
from .rows import LONGEST_LINE, Keys, lines_of, read_lines
from .terminal import say

Heard: TypeAlias = Callable[[Accumulator, int], object]  # called with how many bytes came


class Recording(msgspec.Struct):
    """The streams of a file by their ids, each with the times of its rows. A body has the id "".

    `why` says why the file could not be read to its end.
    """

    streams: dict[str, tuple[StreamResult, list[object]]] = msgspec.field(default_factory=dict)
    has_bad_rows: bool = False
    why: str | None = None


def read_recording(
    path: str, keys: Keys, *, has_rows: bool = False, heard: Heard | None = None
) -> Recording:
    """Read a file, into memory if it has rows; report bad rows. `heard` is called after each block
    of a body.
    """
    found, head = Recording(), b""
    with ExitStack() as stack:
        try:
            raw, file = stack.enter_context(opened(path))
            if raw.peek(4).startswith(PARQUET):
                raise OSError(None, "it is Parquet, which `accumulator reduce` reads")
            if not has_rows:
                head, has_rows = _read_head(file, keys.chunk)
        except (*READ_ERRORS, ImportError) as error:
            found.why = why_unread(error)
            return found
        if has_rows:
            blocks = chain([BytesIO(head).readlines()], lines_of(file))
            _read_rows(blocks, keys, label_of(path), found)
        else:
            result, found.why = reduce_body(file, heard, head)
            found.streams[""] = result, []
    return found


def _read_head(file: BufferedReader, key: str) -> tuple[bytes, bool]:
    """Read lines until one shows what they are; return them, and whether they are rows."""
    head = b""
    while len(head) < BLOCK and (line := file.readline(LONGEST_LINE)):
        head += line
        text = line.lstrip(BLANK)
        field = text.partition(b":")[0]
        if field and field in SSE_FIELDS:
            break
        is_row = has_row(text, {key})
        if is_row or has_row(text, {"choices"}):
            return head, is_row
    return head, False


def reduce_body(
    file: BufferedReader, heard: Heard | None = None, head: bytes = b""
) -> tuple[StreamResult, str | None]:
    """Reduce a body whose `head` has been read; also return why it could not be read to its end,
    or None if it was.
    """
    stream = RecordedStream(Accumulator())
    why = None
    while True:
        try:
            data = head or file.read1(BLOCK)
        except READ_ERRORS as error:
            data, why = b"", why_unread(error)
        if not data:
            return stream.finish(), why
        head = b""
        stream.feed_body(data)
        if heard is not None:
            heard(stream.accumulator, len(data))


def _read_rows(blocks: Iterable[list[bytes]], keys: Keys, label: str, found: Recording) -> None:
    """Reduce the rows of each stream, in the order of their sequence numbers."""

    def report(line: int, why: str, _: bytes) -> None:
        found.has_bad_rows = True
        say(f"{label}:{line}: bad row: {why}")

    streams: dict[str, list[tuple[int | None, bytes, object]]] = {}
    times: list[object] = []
    try:
        for rows in read_lines(blocks, keys, report, times):
            for (id, seq, chunk), time in zip(rows, times, strict=True):
                streams.setdefault(id, []).append((seq, chunk, time))
            times.clear()
    except READ_ERRORS as error:
        found.why = why_unread(error)
    for id, stream in streams.items():
        # Sorting is stable: rows without a number keep their order, after those with one.
        stream.sort(key=lambda row: (row[0] is None, row[0] or 0))
        [(_, result)] = reduce_sorted((id, seq, chunk) for seq, chunk, _ in stream)
        found.streams[id] = result, [time for _, _, time in stream]
