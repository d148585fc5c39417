"""`accumulator inspect`: one stream to look at."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from typing import IO, cast

import msgspec
from msgspec import Struct

from ._extras import rich
from ._merge.chat import DONE
from ._terminal import printable, say
from .completion import ChatCompletion, Choice
from .errors import AccumulatorError, DecodeError, LimitExceededError
from .streams import WrappedStream, wrap

__all__ = ["add_arguments", "run"]

SHOWN, UNWRITABLE, WRONG, UNREADABLE = 0, 1, 2, 5
_BLOCK = 65536
_WIDTH = 60  # columns of the picture
_LEVELS = " ▁▂▃▄▅▆▇█"
_EXCERPT = 500  # characters of a text that are shown
_FIELDS = {b"", b"data", b"event", b"id", b"retry"}  # of SSE; without a name, a comment
_FRACTION = re.compile(r"\.([0-9]+)")


class _Timed(Struct):
    chunk: msgspec.Raw = msgspec.Raw()
    time: float | str | None = None
    choices: list[object] | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `inspect`."""
    parser.epilog = (
        "exit codes: 0 shown; 1 the SVG could not be written; 2 wrong usage; 5 FILE could not be "
        "read; 130 interrupted"
    )
    parser.add_argument("file", metavar="FILE", help="a recorded stream, SSE or JSON Lines")
    parser.add_argument(
        "--time",
        default="time",
        metavar="KEY",
        help="key, in a line of JSON Lines, of when it came: seconds or ISO 8601 (time)",
    )
    parser.add_argument("--chunk", default="chunk", metavar="KEY", help="of the chunk (chunk)")
    parser.add_argument("--svg", metavar="OUT", help="write the picture to a file, too")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    if arguments.time == arguments.chunk:
        return _end("the time and the chunk have a key each", WRONG)
    times: list[float] = []
    try:
        with open(arguments.file, "rb") as file:
            if file.peek().lstrip(b" \t\r\n\xef\xbb\xbf").startswith(b"{"):
                lines = _lines(file, arguments.time, arguments.chunk, times)
                stream = wrap(lines, framing="lines")
            else:
                stream = wrap(iter(lambda: file.read(_BLOCK), b""))
            with stream:
                for _ in stream:
                    pass
    except OSError as error:
        return _end(f"{arguments.file}: {error.strerror}", UNREADABLE)
    try:
        _ = stream.completion
    except DecodeError as error:
        if error.problem is None:
            return _end(f"{arguments.file}: {error}", UNREADABLE)
    except AccumulatorError:
        pass  # the status says it, and the problems
    try:
        _show(stream, times, arguments.svg)
    except (OSError, ImportError) as error:
        return _end(error, UNWRITABLE)
    return SHOWN


def _end(message: object, code: int) -> int:
    say(f"accumulator inspect: {message}")
    return code


def _lines(file: IO[bytes], time: str, chunk: str, times: list[float]) -> Iterator[bytes]:
    """Give each line's chunk, and note when those came that brought something."""
    kind = msgspec.defstruct(
        "_Line",
        [("chunk", msgspec.Raw, msgspec.Raw()), ("time", float | str | None, None)],
        rename={"time": time, "chunk": chunk},
    )
    decoder = msgspec.json.Decoder(cast("type[_Timed]", kind))
    bare = msgspec.json.Decoder(_Timed)
    for line in file:
        try:
            row = decoder.decode(line)
        except (ValueError, RecursionError):
            yield from _told(line)
            continue
        text = bytes(row.chunk) or line
        if text.startswith(b'"'):
            text = msgspec.json.decode(text, type=str).encode("utf-8", "surrogatepass")
        when = _seconds(row.time)
        try:
            brings = bool(bare.decode(text).choices)
        except (ValueError, RecursionError):
            brings = False
        if when is not None and brings:
            times.append(when)
        yield from _told(text)


def _told(text: bytes) -> Iterator[bytes]:
    """Give a line as it is, but what no line of a stream starts with as an event of its own: as a
    line it would be an unknown field of SSE, which nobody is told of.
    """
    start = text.strip()
    if not start or start.startswith((b"{", DONE)) or start.partition(b":")[0] in _FIELDS:
        yield text
    else:
        yield b"data: " + start
        yield b""


def _seconds(value: float | str | None) -> float | None:
    if not isinstance(value, str):
        return value
    # Python 3.10 reads no Z, and a fraction of three or six digits alone.
    value = _FRACTION.sub(lambda found: f".{found[1]:0<6.6}", value.replace("Z", "+00:00"))
    try:
        return datetime.fromisoformat(value).timestamp()
    except ValueError:
        return None


# --- what is shown ------------------------------------------------------------------------


def _status_of(stream: WrappedStream[bytes]) -> str:
    try:
        _ = stream.completion
    except LimitExceededError as error:
        return f"limit {error.limit}"
    except AccumulatorError:
        pass  # the status says it, and the problems
    return stream.status


def _show(stream: WrappedStream[bytes], times: list[float], svg: str | None) -> None:
    consoles, tables, texts = rich("console"), rich("table"), rich("text")
    console = consoles.Console(record=svg is not None)
    completion = stream.snapshot()

    def table(title: str, columns: list[str], rows: list[list[object]]) -> None:
        if rows:
            grid = tables.Table(title=title, title_justify="left")
            for column in columns:
                grid.add_column(column, overflow="fold")
            for row in rows:
                # As text of its own: what a server wrote is no markup, and no terminal command.
                grid.add_row(*[texts.Text(_cell(cell)) for cell in row])
            console.print(grid)

    head: list[object] = [completion.id, completion.model, completion.created, _status_of(stream)]
    table("stream", ["id", "model", "created", "status"], [head])
    table("choices", ["index", "finish reason", "message"], _choice_rows(completion))
    calls: list[list[object]] = [
        [choice.index, call.id, getattr(part, "name", ""), _input_of(part)]
        for choice in completion.choices
        for call in choice.message.tool_calls or ()
        for part in [call.function or call.custom]
    ]
    table("tool calls", ["choice", "id", "name", "arguments"], calls)
    usage = completion.usage
    counts = {} if usage is None else cast("dict[str, object]", completion.to_dict()["usage"])
    table("usage", ["", "tokens"], [[name, count] for name, count in counts.items()])
    problems: list[list[object]] = [
        [problem.kind, problem.event, problem.message] for problem in stream.problems
    ]
    table("problems", ["kind", "event", ""], problems)
    picture = _picture(times)
    if picture:
        console.print(texts.Text("chunks over time"))
        for line in picture:
            console.print(texts.Text(line))
    if svg is not None:
        picture_text = console.export_svg(title="accumulator inspect")
        # It would load its font from a network.
        without_font = re.sub(r"@font-face \{.*?\}", "", picture_text, flags=re.DOTALL)
        with open(svg, "w", encoding="utf-8") as file:
            file.write(without_font)


def _choice_rows(completion: ChatCompletion) -> list[list[object]]:
    rows: list[list[object]] = []
    for choice in completion.choices:
        parts = [f"{name}: {_shortened(text)}" for name, text in _texts(choice)]
        rows.append([choice.index, choice.finish_reason, "\n".join(parts)])
    return rows


def _texts(choice: Choice) -> Iterator[tuple[str, str]]:
    for name in ("reasoning", "reasoning_content", "content", "refusal"):
        value = getattr(choice.message, name, None)
        if value:
            yield name, value if isinstance(value, str) else repr(value)


def _input_of(part: object) -> str:
    return _shortened(getattr(part, "arguments", None) or getattr(part, "input", None) or "")


def _shortened(text: str) -> str:
    return text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]}… ({len(text):,} characters)"


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return "\n".join(map(printable, text.split("\n")))


def _picture(times: list[float]) -> list[str]:
    """Draw how many chunks came in each of sixty spans of the time that the stream took."""
    if len(times) < 2:
        return []
    first, last = min(times), max(times)
    span = (last - first) or 1.0
    counts = [0] * _WIDTH
    for time in times:
        counts[min(int((time - first) / span * _WIDTH), _WIDTH - 1)] += 1
    most = max(counts)
    bars = "".join(_LEVELS[-(-count * (len(_LEVELS) - 1) // most)] for count in counts)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    return [
        f"│{bars}│ at most {most} in {span / _WIDTH * 1000:.1f} ms",
        f"{len(times)} chunks in {span:.3f} s, {len(times) / span:.1f} a second, "
        f"longest pause {max(gaps):.3f} s",
    ]
