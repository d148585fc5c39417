"""JSON texts that arrive in fragments: is one whole yet?"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

__all__ = ["JsonScan", "PartialJson", "is_complete"]

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


class PartialJson:
    """Reads a JSON text that is still growing: what is known of it so far.

    It is read again once it has grown by a sixteenth, so that the cost stays linear; until then the
    value is that of a little earlier. None is a text that is no JSON. Raises ImportError without
    the extra `partial`.
    """

    __slots__ = ("_read_at", "_text", "_value")

    def __init__(self) -> None:
        self._text = bytearray()
        self._read_at = 0  # how long the text was when it was last read
        self._value: object = None

    def push(self, fragment: str) -> None:
        """Take in the next fragment of the text."""
        self._text += fragment.encode("utf-8", "replace")

    @property
    def value(self) -> object:
        """What is known of the text; an unfinished string at its end as far as it has come."""
        if len(self._text) > self._read_at + self._read_at // 16:
            self._read_at = len(self._text)
            self._value = _read_partial(bytes(self._text))
        return self._value


def _read_partial(text: bytes) -> object:
    try:
        import jiter  # noqa: PLC0415  # an extra
    except ImportError:
        raise ImportError(
            "unfinished JSON is read by jiter: pip install 'chunk-accumulator[partial]'"
        ) from None
    try:
        return jiter.from_json(text, partial_mode="trailing-strings")
    except ValueError:
        return None
