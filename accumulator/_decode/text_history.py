"""A growing text as it was at an earlier time, for events that are read late."""

from __future__ import annotations

from ..partial import PartialJson
from .text import Text

__all__ = ["TextHistory"]


class TextHistory:
    """A text that can be read as it was at any earlier length.

    It reads the text of the state, so nothing is copied. Content that comes in parts has several
    texts there; from the second on this keeps a copy of its own.
    """

    __slots__ = ("_is_copy", "_partial", "_read", "length", "text")

    def __init__(self) -> None:
        self.length = 0
        self.text: Text | None = None
        self._is_copy = False
        self._partial: PartialJson | None = None  # made when `parsed` is called
        self._read = 0  # characters that `_partial` has

    def add(self, text: Text, fragment: str) -> int:
        """Add a fragment that was appended to a text. Return the length that includes it."""
        if text is not self.text:
            if self.text is None:
                self.text = text
            else:
                if not self._is_copy:
                    self.text, self._is_copy = Text(self.until(self.length)), True
                self.text.append(fragment)
        self.length += len(fragment)
        return self.length

    def until(self, length: int) -> str:
        """Return the text as it was at a length."""
        return str(self.text)[:length] if length else ""

    def parsed(self, length: int, fragment: str) -> object:
        """Return what is known of the JSON text at a length, when it ended in `fragment`.

        If every event is read in turn, each fragment is parsed once. For an earlier event the text
        is parsed from its start.
        """
        partial = self._partial
        if partial is None or length < self._read:
            partial = PartialJson(self.until(length))
            if length < self._read:
                return partial.value
            self._partial = partial
        elif self._read == length - len(fragment):
            partial.push(fragment)
        else:
            partial.push(self.until(length)[self._read :])
        self._read = length
        return partial.value
