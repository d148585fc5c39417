"""`accumulator reduce`: a log to one completion a stream."""

from __future__ import annotations

import argparse
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import IO

import msgspec

from ._extras import rich
from ._inputs import UsageError, in_utf8
from ._records import Stats
from ._rows import BadRow, Keys
from ._run import LogRun
from ._terminal import say

__all__ = ["add_arguments", "run"]

WRITTEN, UNWRITABLE, WRONG, UNREADABLE, INTERRUPTED = 0, 1, 2, 5, 128 + 2
_MOST_TOLD = 20  # bad rows; the rest is counted, and in the file of bad rows
_EVERY = 5.0  # seconds between two lines of progress
_REDRAWN = 0.1  # and between two looks of a bar; to draw one costs as much as to reduce a stream

EPILOG = """\
A row is an object with a stream's id, a sequence number (optional) and a chunk; a line without the
key of a chunk is itself a chunk. SSE files are a stream each. Rows whose streams stand together, in
order, are reduced as they come; others are sorted on disk first, which needs the extra 'logs'.

exit codes: 0 the output is written, whatever its streams came to; 1 it could not be written; 2
wrong usage; 5 it is written, but rows were bad or a file could not be read; 130 interrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `reduce`."""
    add = parser.add_argument
    parser.epilog = EPILOG
    add("paths", nargs="+", metavar="PATH", help="a file, a folder or a glob")
    add("-o", "--output", required=True, metavar="OUT", help="JSON Lines (.gz, .zst) or .parquet")
    add("--id", default="id", metavar="KEY", help="key or column of a stream's id (id)")
    add("--seq", default="seq", metavar="KEY", help="of the sequence number (seq)")
    add("--chunk", default="chunk", metavar="KEY", help="of the chunk (chunk)")
    add("--workers", type=_positive, default=1, metavar="N", help="processes (1)")
    add("--memory", type=_size, default=1 << 30, metavar="SIZE", help="for all of them (1G)")
    add("--bad-rows", metavar="FILE", help="write the rows that are none, as JSON Lines")
    add("--resume", action="store_true", help="go on with an interrupted run")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d+)([KMGT]?)(?:i?B)?", text, re.IGNORECASE)
    if found is None:
        raise argparse.ArgumentTypeError("a size is a number with K, M, G or T, as 512M")
    return int(found[1]) << 10 * " KMGT".index(found[2].upper() or " ")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    interrupt = _Interrupt()
    try:
        return _run(arguments, interrupt)
    except KeyboardInterrupt:
        pass
    except Exception:
        if not interrupt.met:
            raise
    finally:
        interrupt.close()
    say("interrupted; go on with --resume")
    return INTERRUPTED


def _run(arguments: argparse.Namespace, interrupt: _Interrupt) -> int:
    teller = _Teller(interrupt)
    bad_rows: str | None = arguments.bad_rows
    try:
        try:
            log = LogRun(
                arguments.paths,
                arguments.output,
                keys=Keys(arguments.id, arguments.seq, arguments.chunk),
                workers=arguments.workers,
                memory=arguments.memory,
                resume=arguments.resume,
                progress=teller,
                spared=[] if bad_rows is None else [bad_rows],
            )
        except (UsageError, FileNotFoundError) as error:
            say(f"accumulator reduce: {error}")
            return WRONG
        if bad_rows is not None:
            teller.open(bad_rows)
        stats = log.run()
    except (OSError, ImportError) as error:
        interrupt.check()
        teller.stop()
        say(f"accumulator reduce: {error}")
        return UNWRITABLE
    finally:
        teller.close()
    for line in _summary(stats):
        say(line)
    return UNREADABLE if stats.bad_rows or teller.files_unread else WRITTEN


def _summary(stats: Stats) -> list[str]:
    def listed(counts: dict[str, int]) -> str:
        return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items())) or "none"

    return [
        f"streams: {listed(stats.streams)}",
        f"problems: {listed(stats.problems)}",
        f"limits passed: {listed(stats.limits)}",
        f"tokens: {listed({k.removesuffix('_tokens'): n for k, n in stats.tokens.items()})}",
        f"rows: {stats.rows:,}, repeats dropped: {stats.repeats:,}, bad: {stats.bad_rows:,}",
    ]


class _Interrupt:
    """Remembers Ctrl-C: DuckDB and Arrow make other errors of it, or nothing, where it meets them
    while they sort or are imported.
    """

    def __init__(self) -> None:
        self.met = False
        # Whoever ignores it, or has a handler, is left alone; and threads cannot set any.
        self._is_noting = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self._is_noting:
            signal.signal(signal.SIGINT, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.met = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raise KeyboardInterrupt if there was one."""
        if self.met:
            raise KeyboardInterrupt

    def close(self) -> None:
        """Leave Ctrl-C to Python again."""
        if self._is_noting:
            signal.signal(signal.SIGINT, signal.default_int_handler)


class _Teller:
    """Tells on standard error: a bar on a terminal, lines anywhere else."""

    def __init__(self, interrupt: _Interrupt) -> None:
        self._interrupt = interrupt
        self.files_unread = 0
        self._bad_rows: IO[bytes] | None = None
        self._told = 0
        self._phase = ""
        self._size = self._read = self._streams = 0
        self._start = self._last = time.monotonic()
        self._every = _EVERY
        self._update: Callable[[], None] = self._print_line
        self._stop: Callable[[], None] | None = None

    def open(self, bad_rows: str) -> None:
        """Write bad rows to a file, too. Raises OSError."""
        self._bad_rows = open(bad_rows, "wb")  # noqa: SIM115  # closed with the teller

    def begin(self, phase: str, size: int) -> None:
        self.stop()
        self._phase, self._size, self._read, self._streams = phase, size, 0, 0
        self._start = self._last = time.monotonic()
        if sys.stderr is not None and sys.stderr.isatty():
            with suppress(ImportError):  # lines tell the same
                self._begin_bar()

    def _begin_bar(self) -> None:
        progress, console = rich("progress"), rich("console")
        bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TextColumn("{task.fields[streams]:,} streams"),
            progress.TimeRemainingColumn(),
            console=console.Console(file=sys.stderr),
        )
        task = bar.add_task(self._phase, total=self._size, streams=0)
        bar.start()
        self._stop = bar.stop
        self._update = lambda: bar.update(task, completed=self._read, streams=self._streams)
        self._every = _REDRAWN

    def report(self, size: int, streams: int) -> None:
        self._interrupt.check()
        self._read += size
        self._streams += streams
        now = time.monotonic()
        if now - self._last >= self._every:
            self._last = now
            self._update()

    def _print_line(self) -> None:
        rate = self._read / (self._last - self._start)
        left = (self._size - self._read) / rate if rate else 0
        say(
            f"{self._phase}: {self._read / 1e6:,.0f} of {self._size / 1e6:,.0f} MB, "
            f"{rate / 1e6:,.1f} MB/s, {self._streams:,} streams, {left:,.0f} s left"
        )

    def bad_row(self, path: str, row: BadRow) -> None:
        self._told += 1
        if self._told <= _MOST_TOLD:
            say(f"{path}:{row.line}: bad row: {row.why}")
        if self._bad_rows is not None:
            entry = {"file": in_utf8(path), "line": row.line, "why": row.why, "text": row.text}
            self._bad_rows.write(msgspec.json.encode(entry) + b"\n")

    def unread(self, path: str, why: str) -> None:
        self.files_unread += 1
        say(f"{path}: cannot be read to its end: {why}")

    def stop(self) -> None:
        if self._stop is not None:
            self._update()
            self._stop()
            self._stop = None
            self._update, self._every = self._print_line, _EVERY

    def close(self) -> None:
        self.stop()
        if self._told > _MOST_TOLD:
            say(f"{self._told - _MOST_TOLD:,} more bad rows")
        if self._bad_rows is not None:
            self._bad_rows.close()
