"""Read the rows of files; a line that is not a row is reported with its file and number."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from io import BufferedReader, BytesIO
from itertools import chain, count, islice, repeat
from typing import Annotated, Any, TypeAlias, cast

import msgspec
from msgspec import Meta, Struct, structs

from .._decode.chunk import decode_untyped
from .._decode.lines import DONE
from .._extras import load
from ..batch import LOST
from .inputs import BLOCK, BOM, READ_ERRORS, CommandError, Source, has_row, opened, why_unread
from .terminal import Display

Row: TypeAlias = tuple[str, "int | None", bytes]  # a chunk is JSON text
Report: TypeAlias = Callable[[int, str, bytes], object]  # a bad row's line, reason and text

_BATCH, _BATCH_BYTES = 4096, 4 * 1024 * 1024  # the most of Parquet that is read at once
LONGEST_LINE = 64 * 1024 * 1024  # bytes; four times the default limit of a chunk
_LEADING = 8  # blocks of lines in which the first id is looked for
_QUOTE = 34  # "
_MOST, _LEAST = (1 << 63) - 1, -(1 << 63)  # 64 bits, as in DuckDB's columns
# The types that columns of Parquet may have; null is the type of one without values.
_TYPES = {
    "id": (re.compile(r"(dictionary<values=)?(large_)?string|u?int|null"), "text or integers"),
    "seq": (re.compile(r"u?int|null"), "integers"),
    "chunk": (
        re.compile(r"(dictionary<values=)?(large_)?(string|binary)|struct|null"),
        "text, bytes or objects",
    ),
}


class Keys(Struct, frozen=True):
    """The keys or columns of a row. Raises CommandError if two are the same."""

    id: str = "id"
    seq: str = "seq"
    chunk: str = "chunk"
    time: str = ""  # only used by `inspect`

    def __post_init__(self) -> None:
        if len({self.id, self.seq, self.chunk, self.time}) < 4:
            raise CommandError("--id, --seq, --chunk and --time must each name a different key")


def add_keys(parser: ArgumentParser) -> None:
    """Add the options that name keys."""
    for name, what in ("id", "a stream's id"), ("seq", "a sequence number"), ("chunk", "a chunk"):
        text = f"key or column of {what} (default: {name})"
        parser.add_argument(f"--{name}", default=name, metavar="KEY", help=text)


class _Line(Struct):
    id: str | int | None = None
    seq: Annotated[int, Meta(ge=_LEAST, le=_MOST)] | None = None
    chunk: msgspec.Raw = msgspec.Raw()
    time: object = None


def read_rows(sources: Iterable[Source], keys: Keys, display: Display) -> Iterator[list[Row]]:
    """Yield the rows of files, some at a time. The display reports what cannot be read."""
    for source in sources:
        read = _read_parquet if source.form == "parquet" else _read_file
        try:
            yield from read(source, keys, display)
        except READ_ERRORS as error:
            display.unread(source.label, why_unread(error))


def _read_file(source: Source, keys: Keys, display: Display) -> Iterator[list[Row]]:
    position = 0  # in the file on disk
    first, report = _first_id(source, keys), partial(display.bad_row, source.label)
    with opened(source.path) as (raw, file):
        for rows in read_lines(lines_of(file), keys, report, last_id=first):
            yield rows
            display.read(raw.tell() - position, len(rows))
            position = raw.tell()


def _first_id(source: Source, keys: Keys) -> str:
    """Return the id for bare chunks without one at the start of a file: the first id that comes, or
    the file's name if none comes soon, or none before `[DONE]`.
    """
    with suppress(*READ_ERRORS), opened(source.path) as (_, file):
        blocks = islice(read_lines(lines_of(file), keys, lambda *_: None), _LEADING)
        for id, _, chunk in chain.from_iterable(blocks):
            if id or chunk == DONE:
                return id or source.name
    return source.name


def read_lines(
    blocks: Iterable[list[bytes]],
    keys: Keys,
    report: Report,
    times: list[object] | None = None,
    last_id: str = "",
) -> Iterator[list[Row]]:
    """Yield the rows among lines, some at a time.

    A bare chunk without an id belongs to the stream of the line before it, at first to `last_id`.
    If there is a list of `times`, add the rows' times to it; then this holds for any row without an
    id.
    """
    decode = _line_decoder(keys)
    chunk = b""
    numbers = count(1)
    for lines in blocks:
        rows: list[Row] = []
        for line, number in zip(lines, numbers):  # noqa: B905  # as many numbers as lines
            try:
                text = line if line.startswith(b"{") else _text_of(line)
                if not text and len(line) <= LONGEST_LINE:
                    continue
                row = _Line(chunk=msgspec.Raw(text)) if text == DONE else decode(text)
            except (ValueError, RecursionError) as error:
                is_cut = len(line) > LONGEST_LINE
                why = f"the line is longer than {LONGEST_LINE:,} bytes" if is_cut else str(error)
                report(number, why, line)
                continue
            id = row.id
            if id not in ("", None):
                last_id = str(id)
            elif times is None and not _goes_on(row, text, chunk):
                report(number, f"no stream id under {keys.id!r}", line)
                continue
            chunk = bytes(row.chunk) or text.strip()
            if chunk[0] == _QUOTE:  # some logs keep a chunk as a string of JSON
                with suppress(ValueError):  # the reducer reports what is wrong with it
                    chunk = msgspec.json.decode(chunk, type=str).encode()
            rows.append((last_id, row.seq, chunk))
            if times is not None:
                times.append(row.time)
        yield rows


def _goes_on(row: _Line, text: bytes, before: bytes) -> bool:
    """Return whether a line without an id belongs to the stream of the chunk before it."""
    if text == DONE:
        return before != b""
    if bytes(row.chunk) or before == DONE:  # it has the keys of a row, or begins another stream
        return False
    return has_row(text, {"choices"}) or (before != b"" and has_row(text, {"error"}))


def lines_of(file: BufferedReader) -> Iterator[list[bytes]]:
    """Yield the lines of a file as it is read; of a line that is too long, only the beginning."""
    while data := file.read1(BLOCK):
        *lines, last = BytesIO(data).readlines()  # uses memchr; `split` looks at each byte
        yield lines
        rest = b"" if last.endswith(b"\n") else file.readline(LONGEST_LINE)
        last += rest
        while rest and not rest.endswith(b"\n"):
            rest = file.readline(BLOCK)
        yield [last]


def _text_of(line: bytes) -> bytes:
    """Return the JSON of a line, which may be an SSE line."""
    text = line.strip().removeprefix(BOM).removeprefix(b"data:").strip()
    return b"" if text.startswith(b":") else text


def _line_decoder(keys: Keys) -> Callable[[bytes], _Line]:
    """Return a decoder of lines with these keys. It raises ValueError, RecursionError."""
    fields = [(field.name, field.type, field.default) for field in structs.fields(_Line)]
    made = msgspec.defstruct("_Line", fields, rename=structs.asdict(keys), gc=False)
    kind = cast("type[_Line]", made)
    decoder = msgspec.json.Decoder(kind)

    def decode(text: bytes) -> _Line:
        try:
            return decoder.decode(text)
        except msgspec.ValidationError:
            raise
        except ValueError:  # it also refuses half a surrogate pair
            import json  # noqa: PLC0415  # takes time to import

            fields, _ = decode_untyped(text)
            if isinstance(fields, dict) and keys.chunk in fields:
                fields[keys.chunk] = msgspec.Raw(json.dumps(fields[keys.chunk]).encode())
            row = msgspec.convert(fields, kind)
            str(row.id).encode()  # an id must be UTF-8
            return row

    return decode


def _read_parquet(source: Source, keys: Keys, display: Display) -> Iterator[list[Row]]:
    file = load("pyarrow.parquet").ParquetFile(source.path, buffer_size=BLOCK)
    names = _columns_of(file.schema_arrow, keys)
    total = max(file.metadata.num_rows, 1)
    groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
    largest = max([1, *(group.total_byte_size // (group.num_rows or 1) for group in groups)])
    size = min(_BATCH, 1 + _BATCH_BYTES // largest)  # in rows
    numbers = count(1)
    for batch in file.iter_batches(size, columns=list(filter(None, names))):
        columns = [batch.column(name).to_pylist() if name else repeat(None) for name in names]
        rows: list[Row] = []
        for id, seq, chunk, number in zip(*columns, numbers, strict=False):
            if id is None or id == "":
                why = "no stream id"
            elif seq is not None and seq > _MOST:
                why = f"a sequence number of more than 64 bits: {seq}"
            else:
                data = LOST if chunk is None else chunk
                if isinstance(data, str):
                    data = data.encode()
                elif not isinstance(data, bytes):
                    data = msgspec.json.encode(data, enc_hook=str)
                rows.append((str(id), seq, data))
                continue
            text = msgspec.json.encode([id, seq, chunk], enc_hook=str)
            display.bad_row(source.label, number, why, text)
        yield rows
        display.read(source.size * batch.num_rows // total, len(rows))


def _columns_of(schema: Any, keys: Keys) -> list[str | None]:
    """Return the columns of ids, sequence numbers and chunks. Raises OSError if there are none."""
    names: list[str | None] = []
    for key, (kinds, what) in _TYPES.items():
        name = getattr(keys, key)
        types = [str(field.type) for field in schema if field.name == name]
        if (types or key != "seq") and not (len(types) == 1 and kinds.match(types[0])):
            found = " and ".join(types) or "none"
            raise OSError(None, f"there must be one column {name!r} of {what}; there is {found}")
        names.append(name if types else None)
    return names
