"""A unit of a log to blocks of rows; what is no row is noted with its line, and kept out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from typing import IO, Annotated, cast

import msgspec
from msgspec import Meta, Struct

from ._alike import Alike, AlikeRows
from ._extras import parquet
from ._inputs import Unit, UsageError, open_raw, open_text

__all__ = ["BadRow", "Keys", "RowReader", "Rows"]

_BLOCK = 64 * 1024  # bytes that are read at a time; more falls out of the cache
_BATCH = 4096  # rows of Parquet
_ATTEMPTS = 8  # in a block, to find lines that are alike; many logs have none
_LONGEST_LINE = 64 * 1024 * 1024  # bytes; four times what a chunk may have by default
_DONE = b"[DONE]"
_EXCERPT = 200  # bytes of a bad row that are kept


class Keys(Struct, frozen=True):
    """Under which keys or columns a row's parts stand. Raises UsageError for one key twice."""

    id: str = "id"
    seq: str = "seq"
    chunk: str = "chunk"

    def __post_init__(self) -> None:
        if len({self.id, self.seq, self.chunk}) < 3:
            raise UsageError("the id, the sequence number and the chunk have a key each")


class Rows(Struct):
    """Rows in order of arrival: a column each. A chunk is JSON text.

    `seqs` is None if no row has one.
    """

    ids: list[str]
    seqs: list[int | None] | None
    chunks: list[bytes]

    @property
    def count(self) -> int:
        return len(self.ids)


class BadRow(Struct):
    """A line (of Parquet, a row), counted from 1 within its unit, that holds no row, and why."""

    line: int
    why: str
    text: str


class _Row(Struct):
    id: str | int | None = None
    seq: int | None = None
    chunk: msgspec.Raw = msgspec.Raw()


_LEAST, _MOST = -(1 << 63), (1 << 63) - 2  # 64 bits, but for a value that stands for none
_Seq = Annotated[int, Meta(ge=_LEAST, le=_MOST)]


def _decoder(keys: Keys) -> msgspec.json.Decoder[_Row]:
    kind = msgspec.defstruct(
        "_Row",
        [
            ("id", str | int | None, None),
            ("seq", _Seq | None, None),
            ("chunk", msgspec.Raw, msgspec.Raw()),
        ],
        rename={"id": keys.id, "seq": keys.seq, "chunk": keys.chunk},
        gc=False,
    )
    return msgspec.json.Decoder(cast("type[_Row]", kind))


class RowReader:
    """Reads the rows of one unit. `lines` and `position` (bytes on disk) tell how far it is."""

    def __init__(
        self,
        unit: Unit,
        keys: Keys,
        tell_bad: Callable[[BadRow], None],
        *,
        alike: bool = False,
    ) -> None:
        self._unit = unit
        self._keys = keys
        self._tell_bad = tell_bad
        self.lines = 0
        self.position = 0
        self._last_id: str | None = None
        self._decoder = _decoder(keys)
        self._with_alike = alike
        self._alike: Alike | None = None

    def __iter__(self) -> Iterator[Rows | AlikeRows]:
        """Give the rows, block by block; those that are alike together, if that was asked for.

        Raises OSError if the file cannot be read further.
        """
        if self._unit.source.form == "parquet":
            return self._read_parquet()
        return self._read_lines()

    # --- JSON Lines ---

    def _read_lines(self) -> Iterator[Rows | AlikeRows]:
        for block in self._blocks():
            if self._with_alike:
                yield from self._alike_of(block)
            else:
                yield from self._rows_of(block)

    def _alike_of(self, block: bytes) -> Iterator[Rows | AlikeRows]:
        lines = BytesIO(block).readlines()
        attempts = _ATTEMPTS
        start = at = 0  # the first line that was not given, and the one that is looked at
        offset = 0  # where that one starts
        alike = self._alike
        while at < len(lines):
            if alike is None:
                if not attempts or at + 1 == len(lines):
                    break
                attempts -= 1
                alike = Alike.learn(self._decoder.decode, lines[at], lines[at + 1])
                if alike is None:
                    offset += len(lines[at])
                    at += 1
                    continue
            rows, size = alike.take(block, offset, lines[at:])
            if rows is None:
                alike = None
                continue
            if start < at:
                yield from self._rows_of(b"".join(lines[start:at]))
            offset += size
            at += rows.count
            start = at
            self.lines += rows.count
            self._last_id = alike.id
            attempts = min(attempts + 1, _ATTEMPTS)
            yield rows
        self._alike = alike
        if start < len(lines):
            yield from self._rows_of(b"".join(lines[start:]))
            self._alike = None

    def _rows_of(self, block: bytes) -> Iterator[Rows]:
        rows = self._decoded(block)
        if rows is not None:
            self._last_id = rows.ids[-1]
            yield rows

    def _decoded(self, block: bytes) -> Rows | None:
        before, count = self.lines, block.count(b"\n")
        self.lines += count
        try:
            rows = self._decoder.decode_lines(block)
        except (ValueError, RecursionError):
            rows = []
        if len(rows) != count:
            return self._rows_one_by_one(block, before)
        ids = [row.id for row in rows]
        chunks = [bytes(row.chunk) for row in rows]
        if not all(chunks):
            # A line without the key is itself a chunk.
            lines = block.split(b"\n")
            lines.pop()
            chunks = [chunk or line for chunk, line in zip(chunks, lines, strict=True)]
        kinds = set(map(type, ids))
        if kinds != {str} or "" in ids:
            return self._rows_one_by_one(block, before)
        seqs = [row.seq for row in rows]
        return _joined(cast("list[str]", ids), seqs, chunks)

    def _rows_one_by_one(self, block: bytes, before: int) -> Rows | None:
        ids: list[str] = []
        seqs: list[int | None] = []
        chunks: list[bytes] = []
        last = self._last_id
        for number, line in enumerate(block.split(b"\n"), before + 1):
            text = line.strip()
            if text.startswith(b"data:"):
                text = text[5:].strip()
            if not text or text.startswith(b":"):
                continue
            if text == _DONE:
                # A bare chunk's `[DONE]` says no id: it ends the stream of the line before.
                row = _Row(last, None, msgspec.Raw(_DONE))
            else:
                try:
                    row = self._decoder.decode(text)
                except (ValueError, RecursionError) as error:
                    self._tell(number, str(error), line)
                    continue
            if row.id is None or row.id == "":
                self._tell(number, f"no stream id under {self._keys.id!r}", line)
                continue
            last = str(row.id)
            ids.append(last)
            seqs.append(row.seq)
            chunks.append(bytes(row.chunk) or text)
        return _joined(ids, seqs, chunks)

    def _blocks(self) -> Iterator[bytes]:
        """Give whole lines, each with its end. A line belongs to the unit that its first byte is
        in; `[DONE]` on a line of its own to that of the line before.
        """
        unit = self._unit
        with open_raw(unit.source) as raw, open_text(unit.source, raw) as file:
            compressed = file is not raw
            # Where the unread line starts; of what is decompressed nobody knows the end before.
            at, end = (0, None) if compressed else (unit.start, unit.end)
            if not compressed and unit.start:
                file.seek(unit.start - 1)
                at += len(file.readline()) - 1
                while at < unit.end and _is_done(line := file.readline()):
                    at += len(line)
                file.seek(at)
            rest = b""
            while end is None or at < end:
                block = file.read(_BLOCK)
                if not block:
                    break
                self.position = raw.tell() - (0 if compressed else unit.start)
                cut = block.rfind(b"\n") + 1
                if not cut:
                    rest += block + file.readline(_LONGEST_LINE)
                    if not rest.endswith(b"\n") and len(rest) > _LONGEST_LINE:
                        self.lines += 1
                        self._tell(self.lines, f"longer than {_LONGEST_LINE} bytes", rest)
                        at += len(rest) + _skip_line(file)
                        rest = b""
                        continue
                    lines, rest = rest, b""
                else:
                    lines = b"".join((rest, memoryview(block)[:cut]))
                    rest = block[cut:]
                if end is not None and at + len(lines) > end:
                    lines = _cut_behind(lines, end - at)
                    at += len(lines)
                    yield from self._bomless(lines)
                    while _is_done(line := _line_at(file, at)):
                        at += len(line)
                        yield line
                    return
                at += len(lines)
                yield from self._bomless(lines)
            if rest and (end is None or at < end):
                yield from self._bomless(rest + b"\n")

    def _bomless(self, lines: bytes) -> Iterator[bytes]:
        if not self.lines and not self._unit.start:
            lines = lines.removeprefix(b"\xef\xbb\xbf")
        if lines:
            yield lines if lines.endswith(b"\n") else lines + b"\n"

    # --- Parquet ---

    def _read_parquet(self) -> Iterator[Rows]:
        unit, keys = self._unit, self._keys
        file = parquet().ParquetFile(unit.source.path)
        names = file.schema_arrow.names
        columns = [name for name in (keys.id, keys.seq, keys.chunk) if name in names]
        if keys.id not in columns or keys.chunk not in columns:
            missing = keys.id if keys.id not in columns else keys.chunk
            raise OSError(None, f"there is no column {missing!r}")
        groups = range(unit.start, unit.end)
        for batch in file.iter_batches(_BATCH, row_groups=groups, columns=columns):
            self.position += unit.size * batch.num_rows // max(file.metadata.num_rows, 1)
            values = [
                batch.column(name).to_pylist() if name in columns else [None] * batch.num_rows
                for name in (keys.id, keys.seq, keys.chunk)
            ]
            ids: list[str] = []
            seqs: list[int | None] = []
            chunks: list[bytes] = []
            for number, (id, seq, chunk) in enumerate(zip(*values, strict=True), self.lines + 1):
                why = _misfit(id, seq, chunk)
                if why:
                    text = msgspec.json.encode([id, seq, chunk], enc_hook=str)
                    self._tell(number, why, text)
                    continue
                ids.append(id if type(id) is str else _text_of(id))
                seqs.append(seq)
                chunks.append(_bytes_of(chunk))
            self.lines += batch.num_rows
            rows = _joined(ids, seqs, chunks)
            if rows is not None:
                yield rows

    def _tell(self, line: int, why: str, text: bytes) -> None:
        self._tell_bad(BadRow(line, why, text[:_EXCERPT].decode("utf-8", "replace")))


def _joined(ids: list[str], seqs: list[int | None], chunks: list[bytes]) -> Rows | None:
    if not ids:
        return None
    return Rows(ids, None if set(seqs) == {None} else seqs, chunks)


def _misfit(id: object, seq: object, chunk: object) -> str | None:
    if id is None or id in ("", b""):
        return "no stream id"
    if not isinstance(id, (str, bytes, int)) or isinstance(id, bool):
        return f"a stream id is text or an integer, not {type(id).__name__}"
    if seq is not None and (not isinstance(seq, int) or isinstance(seq, bool)):
        return f"a sequence number is an integer, not {type(seq).__name__}"
    if seq is not None and not _LEAST <= seq <= _MOST:
        return f"a sequence number of more than 64 bits: {seq}"
    if not isinstance(chunk, (str, bytes, dict)):
        return f"a chunk is text, bytes or an object, not {type(chunk).__name__}"
    return None


def _text_of(id: object) -> str:
    return id.decode("utf-8", "replace") if isinstance(id, bytes) else str(id)


def _bytes_of(chunk: str | bytes | dict[str, object]) -> bytes:
    if isinstance(chunk, bytes):
        return chunk
    if isinstance(chunk, str):
        return chunk.encode("utf-8", "surrogatepass")
    return msgspec.json.encode(chunk, enc_hook=str)


def _line_at(file: IO[bytes], offset: int) -> bytes:
    file.seek(offset)
    return file.readline(64)


def _skip_line(file: IO[bytes]) -> int:
    skipped = 0
    while part := file.readline(_BLOCK):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped


def _is_done(line: bytes) -> bool:
    return line.strip().removeprefix(b"data:").strip() == _DONE


def _cut_behind(lines: bytes, size: int) -> bytes:
    """Cut lines behind the one that the last of so many bytes is in."""
    end = lines.find(b"\n", max(size - 1, 0)) + 1
    return lines[:end] if end else lines
