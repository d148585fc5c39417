"""`accumulator inspect`: show one stream as tables, and when its chunks came."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from io import TextIOWrapper
from itertools import pairwise
from math import inf
from pathlib import Path

import msgspec

from .._extras import load
from .._merge.verdict import has_chunks
from ..batch import StreamResult
from ..completion import Choice
from ..errors import LOSSY_KINDS, IncompleteStreamError
from .inputs import FILE_HELP, CommandError, label_of
from .recording import read_recording
from .rows import Keys, add_keys
from .terminal import printable, say

_EPILOG = """\
exit codes:
  0    shown
  1    it could not be shown
  2    wrong usage
  5    FILE could not be read to its end, or contains no stream
  130  interrupted
"""

SHOWN, UNREADABLE = 0, 5
_MOST_NAMED = 20  # ids of other streams that are listed
_WIDTH = 60  # columns of the picture
_LEVELS = " ▁▂▃▄▅▆▇█"
_EXCERPT = 500  # characters of a text that are shown
# For a status, or for the kind of a problem after which something is missing.
_COLOURS: dict[str, str] = {
    "complete": "green",
    "truncated": "yellow",
    "failed": "red",
    **dict.fromkeys(LOSSY_KINDS, "red"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Show one recorded stream as tables, and when its chunks came."
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("file", metavar="FILE", help=FILE_HELP)
    add("--stream", metavar="ID", help="the stream to show (default: the first)")
    add_keys(parser)
    time = "key of the time at which a chunk came, in seconds or as RFC 3339 (default: time)"
    add("--time", default="time", metavar="KEY", help=time)
    add("--svg", metavar="OUT", help="also write what is shown to this file")


def run(arguments: argparse.Namespace) -> int:
    name = label_of(arguments.file)
    keys = Keys(arguments.id, arguments.seq, arguments.chunk, arguments.time)
    svg = arguments.svg
    if svg is not None and os.path.realpath(svg) == os.path.realpath(arguments.file):
        raise CommandError(f"{svg} is both the input and the output")
    found = read_recording(arguments.file, keys, has_rows=arguments.stream is not None)
    id = next(iter(found.streams), "") if arguments.stream is None else arguments.stream
    if id not in found.streams:
        raise CommandError(f"{name}: {found.why or f'there is no stream {id!r}'}", UNREADABLE)
    others = [each for each in found.streams if each != id]
    if others:
        more = f" and {len(others) - _MOST_NAMED:,} more" if others[_MOST_NAMED:] else ""
        say(f"accumulator inspect: this is stream {id!r}; --stream ID shows another:")
        say(", ".join(others[:_MOST_NAMED]) + more)
    (result, times), why = found.streams[id], found.why
    is_cut = isinstance(result.error, IncompleteStreamError)
    is_nothing = is_cut and not has_chunks(result.completion)
    if not is_nothing or result.problems:
        _show(result, times, svg)
    if why is None and is_nothing:
        why = str(result.error)
    if why is not None:
        raise CommandError(f"{name}: {why}", UNREADABLE)
    return SHOWN


def _seconds(value: object) -> float | None:
    try:
        time = msgspec.convert(value, float | datetime)
        return time if isinstance(time, float) else time.timestamp()
    except (ValueError, OverflowError):  # also for a date without a zone, near the year 1
        return None


def _show(result: StreamResult, times: list[object], svg: str | None) -> None:
    """Print the tables and the picture, and also write them to a file if one is named. Raises
    OSError, and ImportError without rich.
    """
    if isinstance(sys.stdout, TextIOWrapper):  # its encoding may lack what is shown
        sys.stdout.reconfigure(errors="replace")
    console = load("rich.console", "cli").Console(record=svg is not None)
    table, text = load("rich.table", "cli").Table, load("rich.text", "cli").Text
    for title, columns, rows in _tables_of(result):
        if rows:
            grid = table(*columns, title=title, title_justify="left")
            for row in rows:
                # As `Text`: what a server wrote must not act as markup or as a terminal command.
                grid.add_row(*[text(_cell(c), _colour(c), overflow="fold") for c in row])
            console.print(grid)
    if isinstance(result.error, IncompleteStreamError) and has_chunks(result.completion):
        console.print(text(_cell(result.error)))
    for line in _picture([time for time in map(_seconds, times) if time is not None]):
        console.print(text(line))
    if svg is not None:
        picture = console.export_svg(title="accumulator inspect")
        # The picture would load its font from the network.
        picture = re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL)
        Path(svg).write_text(picture, "utf-8")


def _tables_of(result: StreamResult) -> Iterator[tuple[str, list[str], Sequence[Sequence[object]]]]:
    """Yield each table: its title, the names of its columns, its rows."""
    completion = result.completion
    status = result.status if result.limit is None else f"limit {result.limit}"
    head = [completion.id, completion.model, _date(completion.created), status]
    yield "stream", ["id", "model", "created", "status"], [head]
    choices = completion.choices
    answers = [[choice.index, choice.finish_reason, _message_of(choice)] for choice in choices]
    yield "choices", ["index", "finish reason", "message"], answers
    calls = [
        [choice.index, call.id, call.name, _shortened(call._given)]
        for choice in choices
        for call in choice.message.tool_calls or ()
    ]
    yield "tool calls", ["choice", "id", "name", "arguments"], calls
    yield "usage", ["", "tokens"], [*(completion.usage or ())]
    problems = [[p.kind, p.event, p.offset, p.path, p.message] for p in result.problems]
    yield "problems", ["kind", "event", "byte", "path", ""], problems


def _message_of(choice: Choice) -> str:
    names = ("reasoning", "reasoning_content", "content", "refusal")
    found = [(name, getattr(choice.message, name)) for name in names]
    return "\n".join(f"{name}: {_shortened(value)}" for name, value in found if value)


def _shortened(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]}… ({len(text):,} characters)"


def _date(seconds: int | None) -> str | None:
    """Return a server's timestamp, with its date if it has one."""
    if seconds is None:
        return None
    try:
        return f"{seconds} ({datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S} UTC)"
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return "\n".join(map(printable, text.split("\n")))


def _colour(value: object) -> str:
    text = str(value)
    return "red" if text.startswith("limit ") else _COLOURS.get(text, "")


def _picture(times: list[float]) -> list[str]:
    """Draw how many chunks came in each sixtieth of the time that the stream took."""
    span = max(times) - min(times) if times else 0.0
    if not 0 < span < inf:
        return []
    first = min(times)
    counts = Counter(min(int((time - first) / span * _WIDTH), _WIDTH - 1) for time in times)
    most = max(counts.values())
    bars = "".join(_LEVELS[-(-counts[i] * (len(_LEVELS) - 1) // most)] for i in range(_WIDTH))
    gaps = [later - earlier for earlier, later in pairwise(times)]
    return [
        "chunks over time",
        f"│{bars}│",
        f"{len(times)} chunks in {span:.3f} s, {len(times) / span:.1f} a second, "
        f"longest pause {max(gaps):.3f} s",
        f"at most {most} in {span / _WIDTH * 1000:.1f} ms",
    ]
