"""The arguments of a call as they arrive: are they whole, and does a fragment repeat them?

Most fragments are only appended. So a text knows which character the next fragment must contain to
make it whole, and does not examine a fragment without that character (SPEC section 4).
"""

from __future__ import annotations

from .._decode.text import COMPACT_AT, Text
from ..partial import JsonScan

BLANKS = " \t\r\n"  # of JSON
_CLOSERS = {"{": "}", "[": "]", "n": "l"}  # an object, a list, null
_NEVER = "\0\0"  # a text that begins otherwise is never whole, whatever it contains


class ArgumentsText(Text):
    """A growing JSON text. It is whole once it is one object or list, or `null`.

    `closer` is what a fragment must contain to make it whole; empty if it may be whole already.
    """

    may_refuse = True

    __slots__ = ("_known", "_opener", "_scan", "_scanned", "closer")

    def __init__(self, seen: str = "") -> None:
        Text.__init__(self, seen)
        self.closer = ""
        self._opener = seen.lstrip(BLANKS)[:1] if seen else ""
        self._scan: JsonScan | None = None  # made when first needed
        self._scanned = 0
        self._known: list[object] | None = None  # the value, once it was compared

    def append(self, fragment: str) -> None:
        """Add a fragment."""
        fragments = self.fragments  # `Text.append`, without the call
        fragments.append(fragment)
        if len(fragments) >= COMPACT_AT:
            self.compact()
        if self.closer in fragment:
            self.note(fragment)

    def extend(self, fragments: list[str]) -> None:
        """Add several fragments."""
        for fragment in fragments:
            self.append(fragment)

    def note(self, fragment: str) -> None:
        """Find out whether a fragment that was just appended may have made the text whole."""
        stripped = fragment.strip(BLANKS)
        if stripped:
            self._opener = self._opener or stripped[0]
            closer = _CLOSERS.get(self._opener, _NEVER)
            self.closer = "" if stripped.endswith(closer) else closer
            self._known = None

    def is_whole(self) -> bool:
        """Return whether it is one JSON object or list, or `null`, blanks around it allowed."""
        if self.closer or self._opener not in _CLOSERS:
            return False
        text = str(self)
        if self._scan is None:
            self._scan = JsonScan()
        self._scan.push(text[self._scanned :])
        self._scanned = len(text)
        return self._scan.complete(lambda: text)

    def accepts(self, fragment: str) -> bool:
        """Return whether a fragment can simply be appended: it does not follow whole JSON."""
        return bool(self.closer) or not fragment.strip(BLANKS) or not self.is_whole()

    def is_repeated_by(self, fragment: str) -> bool:
        """Return whether a fragment is the same JSON again. Only call this for a whole text.

        `true` is not `1`, and numbers are equal by their value.
        """
        stripped = fragment.strip(BLANKS)
        if not stripped.endswith(_CLOSERS.get(stripped[:1], _NEVER)):
            return False
        if stripped == str(self).strip(BLANKS):
            return True
        new = _parse(stripped)
        if not new:
            return False
        if self._known is None:
            self._known = _parse(str(self))
        try:
            return self._known == new
        except RecursionError:
            return False


def _parse(text: str) -> list[object]:
    """Return the value of a JSON text in a list, its numbers exact; [] if it is not JSON."""
    import json  # noqa: PLC0415  # takes time to import, and few streams need it
    from decimal import Decimal  # noqa: PLC0415

    def number(digits: str) -> object:
        return "number", Decimal(digits)  # a bare 1 would equal true

    try:
        return [json.loads(text, parse_int=number, parse_float=number, parse_constant=_refuse)]
    except (ValueError, ArithmeticError, RecursionError):
        return []


def _refuse(constant: str) -> object:
    raise ValueError(constant)
