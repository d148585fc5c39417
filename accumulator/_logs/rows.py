"""The rows of files, block by block; a line that is no row is reported with its file and line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from io import BufferedReader
from operator import itemgetter
from typing import Annotated, Protocol, cast

import msgspec
from msgspec import Meta, Struct

from .extras import parquet
from .inputs import READ_ERRORS, Source, UsageError, open_text

__all__ = ["BadRow", "Keys", "Progress", "RowLines", "Rows", "is_row", "read_rows", "why_unread"]

_BLOCK = 64 * 1024  # bytes that are read at a time; more falls out of the cache
_BATCH = 4096  # rows of Parquet
_LONGEST_LINE = 64 * 1024 * 1024  # bytes; four times what a chunk may have by default
_DONE = b"[DONE]"
_BOM = b"\xef\xbb\xbf"
_QUOTE = 34  # "
_EXCERPT = 200  # bytes of a bad row that are kept
_MOST, _LEAST = (1 << 63) - 1, -(1 << 63)  # 64 bits, as DuckDB sorts them


class Keys(Struct, frozen=True):
    """The keys or columns of a row. Raises UsageError if two are the same."""

    id: str = "id"
    seq: str = "seq"
    chunk: str = "chunk"

    def __post_init__(self) -> None:
        if len({self.id, self.seq, self.chunk}) < 3:
            raise UsageError("--id, --seq and --chunk must name three different keys")


class Rows(Struct):
    """Some rows in order of arrival, a list for each column. A chunk is JSON text."""

    ids: list[str]
    seqs: list[int | None]
    chunks: list[bytes]


class BadRow(Struct):
    """A line that holds no row, counted from 1 (of Parquet, a row), and why."""

    line: int
    why: str
    text: str


class Progress(Protocol):
    """Is called with what happens while files are read."""

    def begin(self, phase: str, size: int) -> None: ...
    def read(self, size: int, rows: int = 0) -> None: ...
    def bad_row(self, label: str, row: BadRow) -> None: ...
    def unread(self, label: str, why: str) -> None: ...


class _Row(Struct):
    id: str | int | None = None
    seq: int | None = None
    chunk: msgspec.Raw = msgspec.Raw()


def read_rows(sources: Iterable[Source], keys: Keys, progress: Progress) -> Iterator[Rows]:
    """Read the rows of files. What cannot be read is reported to `progress`."""
    for source in sources:
        read = _read_parquet if source.form == "parquet" else _read_lines
        try:
            yield from read(source, keys, progress)
        except READ_ERRORS as error:
            progress.unread(source.label, why_unread(error))


def is_row(line: bytes, keys: Keys) -> bool:
    """Return whether a line is a row with a chunk under its key, and so no chunk itself."""
    try:
        return bool(bytes(_row_decoder(keys).decode(line).chunk))
    except (ValueError, RecursionError):
        return False


def why_unread(error: Exception) -> str:
    """Return why a file could not be read to its end."""
    return getattr(error, "strerror", None) or str(error)


def _bad_row(line: int, why: str, text: bytes) -> BadRow:
    return BadRow(line, why, text[:_EXCERPT].decode("utf-8", "replace"))


# --- JSON Lines ---------------------------------------------------------------------------


def _read_lines(source: Source, keys: Keys, progress: Progress) -> Iterator[Rows]:
    lines = RowLines(keys, partial(progress.bad_row, source.label))
    position = 0  # on the disk
    with open(source.path, "rb") as raw, open_text(raw, source.compression) as file:
        for rows in lines.read(file):
            if rows.ids:
                yield rows
            progress.read(raw.tell() - position, len(rows.ids))
            position = raw.tell()
        progress.read(raw.tell() - position)


class RowLines:
    """Reads rows from the lines of one file, and reports those that are none."""

    def __init__(self, keys: Keys, report: Callable[[BadRow], None]) -> None:
        self._id_key = keys.id
        self._report_row = report
        self._decoder = _row_decoder(keys)
        self._count = 0  # lines
        self._last_id: str | None = None

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
        self._last_id = ids[-1] if isinstance(ids[-1], str) else None
        return Rows(cast("list[str]", ids), [row.seq for row in found], _unquoted(chunks))

    def _rows_one_by_one(self, block: bytes, before: int) -> Rows:
        rows = Rows([], [], [])
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
                self._report(number, f"no stream id under {self._id_key!r}", line)
                continue
            self._last_id = str(row.id)
            rows.ids.append(self._last_id)
            rows.seqs.append(row.seq)
            rows.chunks += _unquoted([bytes(row.chunk) or text])
        return rows

    def _report(self, line: int, why: str, text: bytes) -> None:
        self._report_row(_bad_row(line, why, text))


def _row_decoder(keys: Keys) -> msgspec.json.Decoder[_Row]:
    kind = msgspec.defstruct(
        "_Row",
        [
            ("id", str | int | None, None),
            ("seq", Annotated[int, Meta(ge=_LEAST, le=_MOST)] | None, None),  # pyright: ignore[reportOperatorIssue]  # a type at run time
            ("chunk", msgspec.Raw, msgspec.Raw()),
        ],
        rename={"id": keys.id, "seq": keys.seq, "chunk": keys.chunk},
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


def _read_parquet(source: Source, keys: Keys, progress: Progress) -> Iterator[Rows]:
    file = parquet().ParquetFile(source.path, buffer_size=_BLOCK)
    names = _columns_of(file.schema_arrow, keys)
    total = max(file.metadata.num_rows, 1)
    count = 0
    for batch in file.iter_batches(_BATCH, columns=names):
        columns = [
            batch.column(name).to_pylist() if name in names else [None] * batch.num_rows
            for name in (keys.id, keys.seq, keys.chunk)
        ]
        rows = Rows([], [], [])
        for number, (id, seq, chunk) in enumerate(zip(*columns, strict=True), count + 1):
            why = _misfit(id, seq, chunk)
            if why:
                text = msgspec.json.encode([id, seq, chunk], enc_hook=str)
                progress.bad_row(source.label, _bad_row(number, why, text))
                continue
            rows.ids.append(str(id))
            rows.seqs.append(seq)
            rows.chunks.append(_bytes_of(chunk))
        if rows.ids:
            yield rows
        count += batch.num_rows
        progress.read(source.size * batch.num_rows // total, len(rows.ids))


def _columns_of(schema: object, keys: Keys) -> list[str]:
    """Return the columns to read. Raises OSError for one that is missing, stands twice or holds
    what is no id.
    """
    names = cast("list[str]", schema.names)  # type: ignore[attr-defined]  # pyarrow has no types
    for name in (keys.id, keys.seq, keys.chunk):
        if names.count(name) > 1:
            raise OSError(None, f"{names.count(name)} columns are named {name!r}")
        if name not in names and name != keys.seq:
            raise OSError(None, f"there is no column {name!r}")
    kind = str(schema.field(keys.id).type)  # type: ignore[attr-defined]
    if "binary" in kind:
        raise OSError(None, f"a stream id is text or an integer, but column {keys.id!r} is {kind}")
    return [name for name in (keys.id, keys.seq, keys.chunk) if name in names]


def _misfit(id: object, seq: object, chunk: object) -> str | None:
    """Return why these values are no row."""
    if id is None or id == "":
        return "no stream id"
    if not isinstance(id, (str, int)) or isinstance(id, bool):
        return f"a stream id is text or an integer, not {type(id).__name__}"
    if seq is not None and (not isinstance(seq, int) or isinstance(seq, bool)):
        return f"a sequence number is an integer, not {type(seq).__name__}"
    if seq is not None and not _LEAST <= seq <= _MOST:
        return f"a sequence number of more than 64 bits: {seq}"
    if not isinstance(chunk, (str, bytes, dict)):
        return f"a chunk is text, bytes or an object, not {type(chunk).__name__}"
    return None


def _bytes_of(chunk: str | bytes | dict[str, object]) -> bytes:
    if isinstance(chunk, bytes):
        return chunk
    if isinstance(chunk, str):
        return chunk.encode("utf-8", "surrogatepass")
    return msgspec.json.encode(chunk, enc_hook=str)
