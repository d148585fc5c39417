"""`accumulator inspect`: one stream as tables, and when its chunks came."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from io import BufferedReader
from itertools import pairwise
from math import inf
from typing import cast

import attrs
import msgspec
from msgspec import Struct

from ..batch import RecordedStream, StreamResult, reduce_sorted
from ..completion import ChatCompletion, Choice
from ..errors import LOSSY_KINDS
from ..limits import DEFAULT_LIMITS
from ..rules import DEFAULT_RULES
from .extras import rich
from .inputs import READ_ERRORS, STDIN, is_error_page, open_stream
from .rows import why_unread
from .terminal import printable, say

__all__ = ["add_arguments", "run"]

SHOWN, UNWRITABLE, WRONG, UNREADABLE = 0, 1, 2, 5
_BLOCK = 65536
_BLANK = b" \t\r\n\xef\xbb\xbf"
_MOST_NAMED = 20  # other streams of the file
_WIDTH = 60  # columns of the picture
_LEVELS = " ▁▂▃▄▅▆▇█"
_EXCERPT = 500  # characters of a text that are shown
_FRACTION = re.compile(r"\.([0-9]+)")
_STYLES = {"complete": "green", "truncated": "yellow"}  # of a status; others are red
_TABLES: dict[str, list[str]] = {
    "stream": ["id", "model", "created", "status"],
    "choices": ["index", "finish reason", "message"],
    "tool calls": ["choice", "id", "name", "arguments"],
    "usage": ["", "tokens"],
    "problems": ["kind", "event", "byte", "path", ""],
}


class _Line(Struct):
    """A row of a log, or a bare chunk."""

    id: str | int | None = None
    seq: int | None = None
    chunk: msgspec.Raw = msgspec.Raw()
    time: float | str | None = None
    choices: list[object] | None = None


_NOTHING = StreamResult(completion=ChatCompletion(), status="truncated")


class _Found(Struct):
    """What was read: the result of one stream, when its chunks came, and the ids of the others."""

    result: StreamResult
    times: list[float] = []
    id: str | None = None
    others: list[str] = []


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `inspect`."""
    parser.description = "Show one recorded stream as tables, and when its chunks came."
    parser.epilog = (
        "exit codes: 0 shown; 1 the SVG could not be written; 2 wrong usage; 5 FILE could not be\n"
        "read, or holds no stream; 130 interrupted"
    )
    add = parser.add_argument
    add(
        "file",
        metavar="FILE",
        help="a recorded stream: SSE, JSON Lines of chunks, or rows of id, seq and chunk; plain or "
        "gzip; - for standard input",
    )
    add("--stream", metavar="ID", help="which stream of many to show (the first)")
    add(
        "--time",
        default="time",
        metavar="KEY",
        help="key of the time at which a row's chunk came, in seconds or as ISO 8601 (time)",
    )
    add("--id", default="id", metavar="KEY", help="of the stream's id (id)")
    add("--seq", default="seq", metavar="KEY", help="of the sequence number (seq)")
    add("--chunk", default="chunk", metavar="KEY", help="of the chunk (chunk)")
    add("--svg", metavar="OUT", help="write what is shown to a file, too")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    keys = [arguments.id, arguments.seq, arguments.chunk, arguments.time]
    if len(set(keys)) < len(keys):
        return _end("--id, --seq, --chunk and --time must name four different keys", WRONG)
    name = "standard input" if arguments.file == STDIN else arguments.file
    try:
        with open_stream(arguments.file) as file:
            found = _read(file, keys, arguments.stream)
    except READ_ERRORS as error:
        return _end(f"{name}: {why_unread(error)}", UNREADABLE)
    if arguments.stream is not None and found.id is None:
        return _end(f"{name}: there is no stream {arguments.stream!r}", UNREADABLE)
    if found.others:
        say(f"accumulator inspect: this is stream {found.id!r}; --stream ID shows another: ")
        more = len(found.others) - _MOST_NAMED
        say(", ".join(found.others[:_MOST_NAMED]) + (f" and {more:,} more" if more > 0 else ""))
    result = found.result
    known = attrs.evolve(result.completion, extra={})
    is_nothing = known == ChatCompletion() and result.status == "truncated"
    try:
        if not is_nothing or result.problems or result.limit:
            _show(result, found.times, arguments.svg)
    except (OSError, ImportError) as error:
        return _end(error, UNWRITABLE)
    if is_nothing and result.limit is None:
        return _end(f"{name}: no chunk was read: this is no stream of chunks", UNREADABLE)
    return SHOWN


def _end(message: object, code: int) -> int:
    say(f"accumulator inspect: {message}")
    return code


# --- what is read -------------------------------------------------------------------------


def _read(file: BufferedReader, keys: list[str], asked: str | None) -> _Found:
    """Read a file: line by line if it is JSON Lines, else as one body."""
    head = file.peek(1).lstrip(_BLANK)
    if head.startswith(b"{") and not is_error_page(head):
        return _read_lines(file, keys, asked)
    stream = RecordedStream(DEFAULT_RULES, DEFAULT_LIMITS)
    if head.startswith((b"{", b"[")):
        stream.feed(file.read())
    else:
        while data := file.read1(_BLOCK):
            stream.feed_body(data)
    return _Found(stream.finish())


def _read_lines(file: BufferedReader, keys: list[str], asked: str | None) -> _Found:
    bare = msgspec.json.Decoder(_Line)
    ids: dict[str, None] = {}
    lines: list[tuple[int, int, int | None, bytes]] = []
    times: dict[int, float] = {}  # by the number of the line
    seq = 0  # of the row, or of the one before it
    for number, (row, line) in enumerate(_lines_of_one(file, _line_decoder(keys), asked, ids)):
        seq = seq if row.seq is None else row.seq
        text = _unquoted(bytes(row.chunk) or line)
        lines.append((seq, number, row.seq, text))
        when = _seconds(row.time)
        if when is not None and _decode(bare, text).choices:
            times[number] = when
    lines.sort()
    results = list(reduce_sorted(("", seq, text) for _, _, seq, text in lines))
    in_order = [times[number] for _, number, _, _ in lines if number in times]
    shown = asked if asked is not None or not ids else next(iter(ids))
    return _Found(
        results[0][1] if results else _NOTHING,
        in_order,
        shown if shown in ids else None,
        [id for id in ids if id != shown],
    )


def _lines_of_one(
    file: BufferedReader,
    decoder: msgspec.json.Decoder[_Line],
    asked: str | None,
    ids: dict[str, None],
) -> Iterator[tuple[_Line, bytes]]:
    """Yield the lines of the stream that is asked for, else of the first; add all ids to `ids`. A
    line that has none belongs to the stream of the line before it.
    """
    is_asked = asked is None
    for line in file:
        text = line.strip(_BLANK)
        row = _decode(decoder, text)
        if bytes(row.chunk) or (asked is not None and row.id is not None):
            id = str(row.id)
            asked = id if asked is None else asked
            is_asked = id == asked
            ids[id] = None
        if text and is_asked:
            yield row, text


def _line_decoder(keys: list[str]) -> msgspec.json.Decoder[_Line]:
    id, seq, chunk, time = keys
    kind = msgspec.defstruct(
        "_Line",
        [
            ("id", str | int | None, None),
            ("seq", int | None, None),
            ("chunk", msgspec.Raw, msgspec.Raw()),
            ("time", float | str | None, None),
            ("choices", list[object] | None, None),
        ],
        rename={"id": id, "seq": seq, "chunk": chunk, "time": time},
    )
    return msgspec.json.Decoder(cast("type[_Line]", kind))


def _decode(decoder: msgspec.json.Decoder[_Line], text: bytes) -> _Line:
    try:
        return decoder.decode(text)
    except (ValueError, RecursionError):
        return _Line()  # the reducer reports what is wrong with it


def _unquoted(chunk: bytes) -> bytes:
    """Return the JSON of a chunk that a log keeps as a string of JSON."""
    if not chunk.startswith(b'"'):
        return chunk
    return msgspec.json.decode(chunk, type=str).encode("utf-8", "surrogatepass")


def _seconds(value: float | str | None) -> float | None:
    if not isinstance(value, str):
        return value
    # Python 3.10 reads no Z, and only fractions of three or six digits.
    value = _FRACTION.sub(lambda found: f".{found[1]:0<6.6}", value.replace("Z", "+00:00"))
    try:
        return datetime.fromisoformat(value).timestamp()
    except ValueError:
        return None


# --- what is shown ------------------------------------------------------------------------


def _show(result: StreamResult, times: list[float], svg: str | None) -> None:
    """Print the tables and the picture."""
    consoles, tables, texts = rich("console"), rich("table"), rich("text")
    console = consoles.Console(record=svg is not None)
    for title, rows in _rows_of(result).items():
        if rows:
            grid = tables.Table(title=title, title_justify="left")
            for column in _TABLES[title]:
                grid.add_column(column, overflow="fold")
            for row in rows:
                # As text of its own: what a server wrote is no markup, and no terminal command.
                grid.add_row(*[texts.Text(_cell(cell), _style(cell)) for cell in row])
            console.print(grid)
    for line in _picture(times):
        console.print(texts.Text(line))
    if svg is not None:
        picture = console.export_svg(title="accumulator inspect")
        # It would load its font from a network.
        without_font = re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL)
        with open(svg, "w", encoding="utf-8") as file:
            file.write(without_font)


def _rows_of(result: StreamResult) -> dict[str, list[list[object]]]:
    """Return the rows of each table."""
    completion = result.completion
    status = result.status if result.limit is None else f"limit {result.limit}"
    usage = completion.to_dict().get("usage") or {}
    return {
        "stream": [[completion.id, completion.model, _date(completion.created), status]],
        "choices": [
            [choice.index, choice.finish_reason, _message_of(choice)]
            for choice in completion.choices
        ],
        "tool calls": [
            [choice.index, call.id, getattr(part, "name", ""), _input_of(part)]
            for choice in completion.choices
            for call in choice.message.tool_calls or ()
            for part in [call.function or call.custom]
        ],
        "usage": [[name, count] for name, count in cast("dict[str, object]", usage).items()],
        "problems": [
            [problem.kind, problem.event, problem.offset, problem.path, problem.message]
            for problem in result.problems
        ],
    }


def _message_of(choice: Choice) -> str:
    parts = []
    for name in ("reasoning", "reasoning_content", "content", "refusal"):
        value = getattr(choice.message, name)
        if value:
            parts.append(f"{name}: {_shortened(value if isinstance(value, str) else repr(value))}")
    return "\n".join(parts)


def _input_of(part: object) -> str:
    return _shortened(getattr(part, "arguments", None) or getattr(part, "input", None) or "")


def _shortened(text: str) -> str:
    return text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]}… ({len(text):,} characters)"


def _date(seconds: int | None) -> str | None:
    """Return a time of the server with its date, if it is one."""
    if seconds is None:
        return None
    try:
        return f"{seconds} ({datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S} UTC)"
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return "\n".join(map(printable, text.split("\n")))


def _style(value: object) -> str:
    """Return the colour of a status, and of a problem after which something is missing."""
    if not isinstance(value, str):
        return ""
    is_bad = value == "failed" or value.startswith("limit ") or value in LOSSY_KINDS
    return "red" if is_bad else _STYLES.get(value, "")


def _picture(times: list[float]) -> list[str]:
    """Draw how many chunks came in each of sixty spans of the time that the stream took."""
    span = max(times) - min(times) if times else 0.0
    if not 0 < span < inf:
        return []
    first = min(times)
    counts = [0] * _WIDTH
    for time in times:
        counts[min(int((time - first) / span * _WIDTH), _WIDTH - 1)] += 1
    most = max(counts)
    bars = "".join(_LEVELS[-(-count * (len(_LEVELS) - 1) // most)] for count in counts)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    return [
        "chunks over time",
        f"│{bars}│ at most {most} in {span / _WIDTH * 1000:.1f} ms",
        f"{len(times)} chunks in {span:.3f} s, {len(times) / span:.1f} a second, "
        f"longest pause {max(gaps):.3f} s",
    ]
