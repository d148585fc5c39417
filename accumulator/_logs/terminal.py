"""What the commands print: results on standard output; messages and progress on standard error."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EBADF
from io import BufferedWriter
from types import FrameType
from typing import IO, Any, TypeAlias

import msgspec

from .._extras import load
from ..batch import StreamResult
from .inputs import in_utf8

Result: TypeAlias = tuple[str, StreamResult]

_MOST_REPORTED = 20  # bad rows; more are only counted, and written to the file of bad rows
_TOKENS = ("prompt", "completion", "total")


def printable(text: str) -> str:
    """Return a text with blanks instead of line ends and of anything that controls a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def say(text: str) -> None:
    # If it was closed it is None, which `print` would take for standard output.
    if sys.stderr is not None:
        print(printable(text), file=sys.stderr, flush=True)


def open_output() -> BufferedWriter:
    """Return a file that writes to standard output, and does not close it. Raises OSError."""
    if sys.stdout is None:  # it was closed before the command began
        raise OSError(EBADF, os.strerror(EBADF))
    return open(sys.stdout.fileno(), "wb", closefd=False)


class Stats:
    def __init__(self) -> None:
        self.streams: Counter[str] = Counter()
        self.problems: Counter[str] = Counter()
        self.limits: Counter[str] = Counter()
        self.tokens: Counter[str] = Counter()
        self.rows = self.repeats = self.bad_rows = self.files_unread = 0

    def counted(self, row: Result) -> Result:
        """Count a result, and return it."""
        _, result = row
        self.streams[result.status] += 1
        self.problems.update(result.problem_counts)
        if result.limit is not None:
            self.limits[result.limit] += 1
        usage = result.completion.usage
        if usage is not None:
            self.tokens.update({kind: getattr(usage, f"{kind}_tokens") or 0 for kind in _TOKENS})
        self.repeats += result.repeats
        return row

    def lines(self) -> list[str]:
        return [
            f"streams: {_listed(self.streams)}",
            f"problems: {_listed(self.problems)}",
            f"limits passed: {_listed(self.limits)}",
            f"tokens: {_listed(self.tokens)}",
            f"rows: {self.rows:,}, repeats dropped: {self.repeats:,}, bad: {self.bad_rows:,}",
        ]


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items())) or "none"


class Display:
    """Shows progress as bars, if standard error is a terminal, and bad rows as lines."""

    def __init__(self) -> None:
        self.stats = Stats()
        self.is_interrupted = False
        self.bad_rows: IO[bytes] | None = None  # a file
        self._reported_rows = 0  # bad rows, in all attempts
        self._reported_files: set[str] = set()
        self._bars: Any = None

    @contextmanager
    def noticing_interrupt(self) -> Iterator[None]:
        """Remember that Ctrl-C was pressed: DuckDB and Arrow swallow it or raise another error."""

        def handle(_: int, __: FrameType | None) -> None:
            self.is_interrupted = True
            raise KeyboardInterrupt

        # Another handler stays as it is, and only the main thread can set one.
        is_main = threading.current_thread() is threading.main_thread()
        is_ours = is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if is_ours:
            signal.signal(signal.SIGINT, handle)
        try:
            yield
        finally:
            if is_ours:
                signal.signal(signal.SIGINT, signal.default_int_handler)

    def check(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed."""
        if self.is_interrupted:
            raise KeyboardInterrupt

    def begin(self, phase: str, size: int) -> None:
        """Begin a phase that reads so many bytes, with a bar of its own."""
        if self._bars is None and sys.stderr is not None and sys.stderr.isatty():
            with suppress(ImportError):
                progress, console = load("rich.progress", "cli"), load("rich.console", "cli")
                self._bars = progress.Progress(
                    *progress.Progress.get_default_columns(),
                    progress.TransferSpeedColumn(),
                    progress.TextColumn("{task.fields[streams]:,} streams"),
                    console=console.Console(stderr=True),
                )
                self._bars.start()
        if self._bars is not None:
            self._bars.add_task(phase, total=size, streams=0)

    def read(self, size: int, rows: int = 0) -> None:
        """Count bytes and rows that were read, and show how far this phase has got."""
        self.check()
        self.stats.rows += rows
        self._advance(size)

    def _advance(self, size: int) -> None:
        if self._bars is not None:
            streams = sum(self.stats.streams.values())
            self._bars.update(self._bars.task_ids[-1], advance=size, streams=streams)

    def bad_row(self, label: str, line: int, why: str, text: bytes) -> None:
        """Count a bad row; report it unless an earlier attempt has done so."""
        self.stats.bad_rows += 1
        if self.stats.bad_rows <= self._reported_rows:
            return
        self._reported_rows += 1
        if self._reported_rows <= _MOST_REPORTED:
            say(f"{label}:{line}: bad row: {why}")
        if self.bad_rows is not None:
            row = text.decode("utf-8", "replace")  # whole, so that it can be repaired
            entry = {"file": in_utf8(label), "line": line, "why": why, "text": row}
            self.bad_rows.write(msgspec.json.encode(entry) + b"\n")

    def unread(self, label: str, why: str) -> None:
        """Count a file that could not be read to its end; report it once."""
        self.stats.files_unread += 1
        if label not in self._reported_files:
            self._reported_files.add(label)
            say(f"{label}: cannot be read to its end: {why}")

    def close(self) -> None:
        """Stop the bars, and say how many bad rows were not reported one by one."""
        if self._bars is not None:
            self._advance(0)
            self._bars.stop()
        if self._reported_rows > _MOST_REPORTED:
            say(f"{self._reported_rows - _MOST_REPORTED:,} more bad rows")
