"""A growing text as it was at an earlier time: what events look back on."""

from __future__ import annotations

from ..partial import PartialJson
from .text import Text

__all__ = ["TextHistory"]


class TextHistory:
    """A text of which any earlier length can be read. Texts only grow, so a length is a time.

    It reads the text of the state, which costs nothing. Content in parts stands in several texts:
    from the second on it keeps a copy of its own.
    """

    __slots__ = ("_is_copy", "_partial", "_read", "_text", "length")

    def __init__(self) -> None:
        self.length = 0
        self._text: Text | None = None
        self._is_copy = False
        self._partial: PartialJson | None = None  # made when somebody looks
        self._read = 0  # characters of the text that it has

    def add(self, text: Text, fragment: str) -> int:
        """Note a fragment that was appended to a text; return the length with it."""
        if text is not self._text:
            if self._text is None:
                self._text = text
            else:
                if not self._is_copy:
                    self._text, self._is_copy = Text(self.until(self.length)), True
                self._text.append(fragment)
        self.length += len(fragment)
        return self.length

    def until(self, length: int) -> str:
        """Return the text as it was at a length."""
        return str(self._text)[:length] if length else ""

    def parsed(self, length: int, fragment: str) -> object:
        """Return what is known of the JSON text at a length, where it ended in `fragment`.

        Whoever looks at every event in turn pays for each fragment once. Looking back at an
        earlier one starts afresh.
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
