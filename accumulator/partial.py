"""JSON texts that arrive in fragments: is one whole yet?"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

__all__ = ["JsonScan", "is_complete"]

_decode = msgspec.json.Decoder(msgspec.Raw).decode
_TOKEN = re.compile(r'\\.?|["{}\[\]]', re.DOTALL)
_BLANKS = " \t\r\n"
_LONGEST_SCALAR = 400  # digits; a longer number is never called complete


def is_complete(text: str | bytes) -> bool:
    """Tell whether `text` is exactly one JSON value, blanks around it allowed."""
    try:
        _decode(text)
    except (ValueError, RecursionError):
        return False
    return True


class JsonScan:
    """Follows a growing JSON text and tells whether it is whole, at a cost that grows with what is
    new.

    A server can raise the question with every fragment, so reading the whole text each time would
    be quadratic. The scan follows strings and brackets; the one real parse happens after the
    outermost closes.
    """

    __slots__ = ("_closed", "_depth", "_escaped", "_in_string", "_length", "_overrun", "_verdict")

    def __init__(self, text: str) -> None:
        self._depth = self._length = 0
        self._in_string = self._escaped = self._closed = self._overrun = False
        self._verdict: bool | None = None
        self.push(text)

    def push(self, fragment: str) -> None:
        """Take in the next fragment of the text."""
        if self._closed:
            self._overrun = self._overrun or bool(fragment.strip(_BLANKS))
            return
        self._verdict = None
        self._length += len(fragment)
        start = 1 if self._escaped and fragment else 0
        self._escaped = self._escaped and not fragment
        for token in _TOKEN.finditer(fragment, start):
            match token[0]:
                case '"':
                    self._in_string = not self._in_string
                case "{" | "[" if not self._in_string:
                    self._depth += 1
                case "}" | "]" if not self._in_string:
                    self._depth -= 1
                case "\\":
                    self._escaped = True
                    continue
                case _:
                    continue
            if self._depth <= 0 and not self._in_string:
                self._closed = True
                self._overrun = bool(fragment[token.end() :].strip(_BLANKS))
                return

    def complete(self, text: Callable[[], str]) -> bool:
        """Tell whether the text is exactly one JSON value; `text` gives all that was pushed so
        far.
        """
        if self._overrun or not (self._closed or self._length <= _LONGEST_SCALAR):
            return False
        if self._verdict is None:
            self._verdict = is_complete(text())
        return self._verdict
