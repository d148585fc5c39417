"""The rows of files, block by block; a line that is no row is reported with its file and line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from io import BufferedReader
from operator import itemgetter
from typing import Annotated, Any, TypeAlias, cast

import msgspec
from msgspec import Meta, Struct

from ..batch import StreamResult, reduce_sorted
from .extras import load
from .inputs import READ_ERRORS, Source, UsageError, open_text
from .progress import Display

__all__ = [
    "Keys",
    "RowLines",
    "Rows",
    "StreamRow",
    "begins_with_row",
    "read_rows",
    "read_streams",
    "reduce_rows",
    "why_unread",
]

Report: TypeAlias = Callable[[int, str, bytes], object]  # of a bad row: its line, why, its text
StreamRow: TypeAlias = tuple["int | None", bytes, object]  # number, chunk, time

_BLOCK = 64 * 1024  # bytes that are read at a time; more falls out of the cache
_BATCH = 4096  # rows of Parquet
_LONGEST_LINE = 64 * 1024 * 1024  # bytes; four times what a chunk may have by default
_DONE = b"[DONE]"
_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n" + _BOM
_QUOTE = 34  # "
# Types of Parquet; null is that of a column without values.
_IDS = re.compile(r"(large_)?string|u?int|null|dictionary<values=(large_)?string")
_SEQS = re.compile(r"u?int|null")
_CHUNKS = re.compile(r"(large_)?(string|binary)|struct|null")
_MOST, _LEAST = (1 << 63) - 1, -(1 << 63)  # 64 bits, as DuckDB sorts them


class Keys(Struct, frozen=True):
    """The keys or columns of a row. Raises UsageError if two are the same."""

    id: str = "id"
    seq: str = "seq"
    chunk: str = "chunk"
    time: str = ""  # asked for by `inspect` alone

    def __post_init__(self) -> None:
        if len({self.id, self.seq, self.chunk, self.time}) < 4:
            raise UsageError("each of --id, --seq, --chunk and --time must name another key")


class Rows(Struct):
    """Some rows in order of arrival, a list for each column. A chunk is JSON text."""

    ids: list[str] = []
    seqs: list[int | None] = []
    chunks: list[bytes] = []
    times: list[object] = []


class _Row(Struct):
    id: str | int | None = None
    seq: int | None = None
    chunk: msgspec.Raw = msgspec.Raw()
    time: object = None


def read_rows(sources: Iterable[Source], keys: Keys, display: Display) -> Iterator[Rows]:
    """Read the rows of files. What cannot be read is reported to the display."""
    for source in sources:
        read = _read_parquet if source.form == "parquet" else _read_lines
        try:
            yield from read(source, keys, display)
        except READ_ERRORS as error:
            display.unread(source.label, why_unread(error))


def read_streams(
    file: BufferedReader, keys: Keys, report: Report
) -> tuple[dict[str, list[StreamRow]], str | None]:
    """Read the rows of a file into memory; return those of each stream in the order of their
    numbers, and why the file could not be read to its end. A row without an id belongs to the
    stream of the row before it.
    """
    streams: dict[str, list[StreamRow]] = {}
    why = None
    try:
        for rows in RowLines(keys, report, last_id="").read(file):
            columns = zip(rows.seqs, rows.chunks, rows.times, strict=True)
            for id, row in zip(rows.ids, columns, strict=True):
                streams.setdefault(id, []).append(row)
    except READ_ERRORS as error:
        why = why_unread(error)
    for stream in streams.values():
        # Sorting is stable: rows without a number stay as they came, behind those with one.
        stream.sort(key=lambda row: (row[0] is None, row[0] or 0))
    return streams, why


def reduce_rows(rows: Iterable[StreamRow]) -> StreamResult:
    """Reduce the rows of one stream, in order."""
    [(_, result)] = reduce_sorted(("", seq, chunk) for seq, chunk, _ in rows)
    return result


def begins_with_row(file: BufferedReader, keys: Keys) -> bool:
    """Return whether the first line has a chunk under its key, and so is no chunk itself."""
    line = file.peek(1).lstrip(_BLANK).partition(b"\n")[0]
    try:
        return bool(bytes(_row_decoder(keys).decode(line).chunk))
    except (ValueError, RecursionError):
        return False


def why_unread(error: Exception) -> str:
    """Return why a file could not be read to its end."""
    return getattr(error, "strerror", None) or str(error)


# --- JSON Lines ---------------------------------------------------------------------------


def _read_lines(source: Source, keys: Keys, display: Display) -> Iterator[Rows]:
    lines = RowLines(keys, partial(display.bad_row, source.label))
    position = 0  # on the disk
    with open(source.path, "rb") as raw, open_text(raw, source.compression) as file:
        for rows in lines.read(file):
            if rows.ids:
                yield rows
            display.read(raw.tell() - position, len(rows.ids))
            position = raw.tell()
        display.read(raw.tell() - position)


class RowLines:
    """Reads rows from the lines of one file, and reports those that are none by their number."""

    def __init__(self, keys: Keys, report: Report, last_id: str | None = None) -> None:
        self._id_key = keys.id
        self._report = report
        self._decoder = _row_decoder(keys)
        self._count = 0  # lines
        self._last_id = last_id
        self._needs_id = last_id is None

    def read(self, file: BufferedReader) -> Iterator[Rows]:
        """Read the rows of a file, block by block."""
        return map(self._rows_of, self._blocks(file))

    def _blocks(self, file: BufferedReader) -> Iterator[bytes]:
        """Read whole lines, each with its end."""
        rest = b""
        is_first = True
        while block := file.read1(_BLOCK):  # of a file that breaks off, what there is
            if is_first:
                block, is_first = block.removeprefix(_BOM), False
            cut = block.rfind(b"\n") + 1
            if cut:
                yield rest + block[:cut]
                rest = block[cut:]
                continue
            rest += block + file.readline(_LONGEST_LINE)
            if rest.endswith(b"\n"):
                yield rest
                rest = b""
            elif len(rest) > _LONGEST_LINE:
                self._count += 1
                self._report(self._count, f"longer than {_LONGEST_LINE} bytes", rest)
                _skip_line(file)
                rest = b""
        if rest:
            yield rest + b"\n"

    def _rows_of(self, block: bytes) -> Rows:
        """Decode the rows of whole lines."""
        before, count = self._count, block.count(b"\n")
        self._count += count
        try:
            found = self._decoder.decode_lines(block)
        except (ValueError, RecursionError):
            found = []
        ids = [row.id for row in found]
        if len(found) != count or set(map(type, ids)) != {str} or "" in ids:
            return self._rows_one_by_one(block, before)
        chunks = [bytes(row.chunk) for row in found]
        if not all(chunks):
            # A line without the key of a chunk is itself a chunk.
            lines = block.split(b"\n")[:count]
            if not all(line.startswith(b"{") for line in lines):
                return self._rows_one_by_one(block, before)  # a blank line, and one with two values
            chunks = [chunk or line for chunk, line in zip(chunks, lines, strict=True)]
        self._last_id = cast("str", ids[-1])
        seqs, times = [row.seq for row in found], [row.time for row in found]
        return Rows(cast("list[str]", ids), seqs, _unquoted(chunks), times)

    def _rows_one_by_one(self, block: bytes, before: int) -> Rows:
        rows = Rows()
        for number, line in enumerate(block.split(b"\n"), before + 1):
            text = line.strip()
            if text.startswith(b"data:"):
                text = text[5:].strip()
            if not text or text.startswith(b":"):
                continue
            if text == _DONE:
                # The `[DONE]` behind bare chunks has no id: it ends the stream of the line before.
                row = _Row(self._last_id, None, msgspec.Raw(_DONE))
            else:
                try:
                    row = self._decoder.decode(text)
                except (ValueError, RecursionError) as error:
                    self._report(number, str(error), line)
                    continue
            if row.id is None or row.id == "":
                if self._needs_id:
                    self._report(number, f"no stream id under {self._id_key!r}", line)
                    continue
                row.id = self._last_id
            self._last_id = str(row.id)
            rows.ids.append(self._last_id)
            rows.seqs.append(row.seq)
            rows.chunks += _unquoted([bytes(row.chunk) or text])
            rows.times.append(row.time)
        return rows


def _row_decoder(keys: Keys) -> msgspec.json.Decoder[_Row]:
    kind = msgspec.defstruct(
        "_Row",
        [
            ("id", str | int | None, None),
            ("seq", Annotated[int, Meta(ge=_LEAST, le=_MOST)] | None, None),  # pyright: ignore[reportOperatorIssue]  # a type at run time
            ("chunk", msgspec.Raw, msgspec.Raw()),
            ("time", object, None),
        ],
        rename={"id": keys.id, "seq": keys.seq, "chunk": keys.chunk, "time": keys.time},
        gc=False,
    )
    return msgspec.json.Decoder(cast("type[_Row]", kind))


def _unquoted(chunks: list[bytes]) -> list[bytes]:
    """Return chunks as JSON; a log may keep them as strings of JSON in its own JSON."""
    if _QUOTE not in set(map(itemgetter(0), chunks)):
        return chunks
    return [_unquote(chunk) if chunk[0] == _QUOTE else chunk for chunk in chunks]


def _unquote(chunk: bytes) -> bytes:
    try:
        return msgspec.json.decode(chunk, type=str).encode("utf-8", "surrogatepass")
    except ValueError:
        return chunk  # the reducer reports what is wrong with it


def _skip_line(file: BufferedReader) -> None:
    while part := file.readline(_BLOCK):
        if part.endswith(b"\n"):
            break


# --- Parquet ------------------------------------------------------------------------------


def _read_parquet(source: Source, keys: Keys, display: Display) -> Iterator[Rows]:
    file = load("pyarrow.parquet").ParquetFile(source.path, buffer_size=_BLOCK)
    names = _columns_of(file.schema_arrow, keys)
    total = max(file.metadata.num_rows, 1)
    count = 0
    for batch in file.iter_batches(_BATCH, columns=names):
        columns = [
            batch.column(name).to_pylist() if name in names else [None] * batch.num_rows
            for name in (keys.id, keys.seq, keys.chunk)
        ]
        rows = Rows()
        for number, (id, seq, chunk) in enumerate(zip(*columns, strict=True), count + 1):
            why = ""
            if id is None or id == "" or chunk is None:
                why = "no chunk" if chunk is None else "no stream id"
            elif seq is not None and seq > _MOST:
                why = f"a sequence number of more than 64 bits: {seq}"
            if why:
                text = msgspec.json.encode([id, seq, chunk], enc_hook=str)
                display.bad_row(source.label, number, why, text)
                continue
            rows.ids.append(str(id))
            rows.seqs.append(seq)
            rows.chunks.append(_bytes_of(chunk))
        if rows.ids:
            yield rows
        count += batch.num_rows
        display.read(source.size * batch.num_rows // total, len(rows.ids))


def _columns_of(schema: Any, keys: Keys) -> list[str]:
    """Return the columns to read. Raises OSError for one that is missing, stands twice or has
    another type.
    """
    found = []
    for name, kinds, types in (
        (keys.id, _IDS, "text or integers"),
        (keys.seq, _SEQS, "integers"),
        (keys.chunk, _CHUNKS, "text, bytes or objects"),
    ):
        count = schema.names.count(name)
        if count > 1:
            raise OSError(None, f"{count} columns are named {name!r}")
        if count:
            found.append(name)
            kind = str(schema.field(name).type)
            if not kinds.match(kind):
                raise OSError(None, f"column {name!r} must hold {types}, not {kind}")
        elif name != keys.seq:
            raise OSError(None, f"there is no column {name!r}")
    return found


def _bytes_of(chunk: str | bytes | dict[str, object]) -> bytes:
    if isinstance(chunk, bytes):
        return chunk
    if isinstance(chunk, str):
        return chunk.encode("utf-8", "surrogatepass")
    return msgspec.json.encode(chunk, enc_hook=str)
