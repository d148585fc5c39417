"""What the commands print of what others wrote."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    """Put a space for each line end, and for what a terminal could take for a command."""
    return "".join(c if c.isprintable() else " " for c in text)
