"""What the commands print: results on standard output, messages on standard error."""

from __future__ import annotations

import os
import sys
from errno import EBADF
from io import BufferedWriter


def in_utf8(path: str) -> str:
    """Return a path as characters that UTF-8 can express; the path may have any bytes."""
    return os.fsencode(path).decode("utf-8", "replace")


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
