"""What the commands say on standard error, and print of what others wrote."""

from __future__ import annotations

import sys

__all__ = ["printable", "say"]


def printable(text: str) -> str:
    """Put a space for each line end, and for what a terminal could take for a command."""
    return "".join(c if c.isprintable() else " " for c in text)


def say(text: str) -> None:
    """Print a line on standard error."""
    # If that was closed it is None, which `print` takes for standard output.
    if sys.stderr is not None:
        print(printable(text), file=sys.stderr, flush=True)
