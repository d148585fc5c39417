"""A string that arrives in fragments: kept as fragments until someone looks."""

from __future__ import annotations

__all__ = ["Text"]

# Few enough that the fragments' own overhead stays under a kilobyte, enough that joining them is
# cheap.
_COMPACT_AT = 16


class Text:
    """A growing string, at a cost per fragment that does not depend on what has arrived.

    A short list of the last fragments is joined into UTF-8 as it fills: a str would take four
    bytes a character as soon as one is beyond U+FFFF. Looking decodes only what is new since the
    last look.
    """

    __slots__ = ("_seen", "_unseen", "fragments", "half")

    def __init__(self, seen: str = "") -> None:
        self._seen = seen
        self._unseen: bytearray | None = None
        self.fragments: list[str] = []
        self.half = ""  # the first half of a surrogate pair whose second has not arrived

    def append(self, fragment: str) -> None:
        """Add a fragment; it holds no half of a surrogate pair."""
        fragments = self.fragments
        fragments.append(fragment)
        if len(fragments) >= _COMPACT_AT:
            self._compact()

    def compact(self) -> None:
        """Join the fragments if they are many; for those who add to `fragments` directly."""
        if len(self.fragments) >= _COMPACT_AT:
            self._compact()

    def _compact(self) -> None:
        if self._unseen is None:
            self._unseen = bytearray()
        self._unseen += "".join(self.fragments).encode()
        self.fragments.clear()

    def __str__(self) -> str:
        fragments = self.fragments
        if self._unseen:
            fragments.insert(0, self._unseen.decode())
            self._unseen = None
        if fragments:
            self._seen += "".join(fragments)
            fragments.clear()
        return self._seen

    def __bool__(self) -> bool:
        return bool(self._seen or self._unseen or self.half or any(self.fragments))

    def equals(self, text: str) -> bool:
        """Compare with a string, at a cost that grows with that string and not with this one."""
        if self.half:
            return False
        known = len(self._seen) + len(self._unseen or b"") + sum(map(len, self.fragments))
        return known <= 4 * len(text) and str(self) == text
