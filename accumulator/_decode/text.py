"""Strings that arrive in fragments, and characters that arrive in halves."""

from __future__ import annotations

import re

from ..partial import PartialJson

# Few enough that the fragments' own overhead stays under a kilobyte, enough that joining them is
# cheap.
COMPACT_AT = 16
_FEW = 8  # fragments; more than these are joined at once


class Text:
    """A string that grows by fragments. Adding one costs the same however long the string is.

    The last fragments are in a short list. When it is full they are joined into UTF-8, because a
    str takes four bytes a character as soon as one character is beyond U+FFFF. `str()` decodes
    only what arrived since its last call.

    The first `taken` characters have been emitted as events.
    """

    # Only an `ArgumentsText` refuses fragments, and looks at those that contain its `closer`.
    may_refuse = False
    closer = "\0\0"

    __slots__ = ("_partial", "_seen", "_unseen", "fragments", "half", "taken")

    def __init__(self, seen: str = "") -> None:
        self._seen = seen  # what `str()` returned last
        self._unseen: bytearray | None = None  # the UTF-8 of what came after that
        self.fragments: list[str] = []
        self.half = ""  # the first half of a surrogate pair whose second has not arrived
        self.taken = len(seen)
        self._partial: PartialJson | None = None  # made when `parsed` is called

    def note(self, fragment: str) -> None:
        """Look at a fragment that was just appended and contains `closer`."""

    def accepts(self, fragment: str) -> bool:
        """Return whether a fragment can simply be appended."""
        return True

    def append(self, fragment: str) -> None:
        """Add a fragment. It must not contain half a surrogate pair."""
        fragments = self.fragments
        fragments.append(fragment)
        if len(fragments) >= COMPACT_AT:
            self.compact()

    def extend(self, fragments: list[str]) -> None:
        """Add several fragments, as `append` adds one."""
        if len(fragments) < _FEW:
            self.fragments += fragments
            if len(self.fragments) >= COMPACT_AT:
                self.compact()
        else:
            if self.fragments:
                self.compact()
            if self._unseen is None:
                self._unseen = bytearray()
            self._unseen += "".join(fragments).encode()

    def compact(self) -> None:
        """Join the fragments."""
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
            # A string grows in place while nothing else refers to it, else it would be copied.
            seen, self._seen = self._seen, ""
            seen += "".join(fragments)
            self._seen = seen
            fragments.clear()
        return self._seen

    def take(self) -> str:
        """Return what was added since the last call."""
        whole = str(self) if self.fragments or self._unseen else self._seen
        taken, self.taken = self.taken, len(whole)
        return whole[taken:]

    def parsed(self, length: int) -> object:
        """Parse the first `length` characters as JSON that may not be complete.

        If the lengths grow from call to call, each fragment is parsed once. For a smaller one the
        text is parsed from its start.
        """
        partial = self._partial
        if partial is None or length < partial.length:
            partial = PartialJson()
            self._partial = self._partial or partial
        partial.push(str(self)[partial.length : length])
        return partial.value

    def __bool__(self) -> bool:
        return bool(self._seen or self._unseen or self.half or any(self.fragments))

    def equals(self, text: str) -> bool:
        """Return whether this text equals `text`, including a half that waits for its other half.
        This takes time for the length of `text`, however long this one is.
        """
        known = len(self._seen) + len(self._unseen or b"") + sum(map(len, self.fragments))
        if known > 4 * len(text):
            return False
        whole, half = split_half(text)
        return self.half == half and str(self) == heal(whole)[0]


# --- halves of surrogate pairs ------------------------------------------------------------

# Two escapes make one character beyond U+FFFF; servers cut between them (SPEC section 2).
_HALF = "[\ud800-\udfff]"


def holds_half(text: str) -> bool:
    """Return whether a text contains half a surrogate pair, or a complete one as two halves."""
    return not text.isascii() and re.search(_HALF, text) is not None


def split_half(text: str) -> tuple[str, str]:
    """Split off the first half of a pair at the end of a text, which more text may complete."""
    return (text[:-1], text[-1]) if "\ud800" <= text[-1:] <= "\udbff" else (text, "")


def heal(text: str) -> tuple[str, int]:
    """Join surrogate pairs into characters, and replace the halves that remain.

    Return the text, and how many halves were replaced.
    """
    if not holds_half(text):
        return text, 0
    joined = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    return re.subn(_HALF, "\ufffd", joined)


def heal_value(value: object) -> tuple[object, int]:
    """Heal all strings of a JSON value; return it, and how many halves were replaced."""
    if isinstance(value, str):
        return heal(value)
    lone = 0
    if isinstance(value, dict):
        fields: dict[str, object] = {}
        for name, item in value.items():
            whole_name, lone_in_name = heal(name)
            fields[whole_name], lone_in_item = heal_value(item)
            lone += lone_in_name + lone_in_item
        return fields, lone
    if isinstance(value, list):
        pairs = [heal_value(item) for item in value]
        return [item for item, _ in pairs], sum(alone for _, alone in pairs)
    return value, 0
