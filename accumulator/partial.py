"""JSON texts that arrive in fragments: what is known of one, and is it whole yet?"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from functools import cache

import msgspec

__all__ = ["JsonScan", "PartialJson", "is_complete", "parse_partial"]

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

    @property
    def closed(self) -> bool:
        """Whether the outermost bracket or string has closed, so that only blanks may follow."""
        return self._closed

    def complete(self, text: Callable[[], str]) -> bool:
        """Tell whether the text is exactly one JSON value; `text` gives all that was pushed so
        far.
        """
        if self._overrun or not (self._closed or self._length <= _LONGEST_SCALAR):
            return False
        if self._verdict is None:
            self._verdict = is_complete(text())
        return self._verdict


def parse_partial(text: str | bytes | bytearray) -> object:
    """Give what is known of a JSON text that is still arriving: a string as far as it has come, the
    entries and fields that have values.

    None where nothing is known, and for a text that no JSON begins with. Raises ImportError without
    jiter, which the extra `partial` brings.
    """
    data = text.encode("utf-8", "replace") if isinstance(text, str) else bytes(text)
    try:
        return _from_json()(data)
    except ValueError:
        return None


@cache
def _from_json() -> Callable[[bytes], object]:
    try:
        import jiter  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            "unfinished JSON is read with jiter: pip install 'chunk-accumulator[partial]'"
        ) from error
    # A lone surrogate or NaN is no JSON, and a string that is seen once is not worth caching.
    return functools.partial(
        jiter.from_json, partial_mode="trailing-strings", allow_inf_nan=False, cache_mode="keys"
    )


class PartialJson:
    """Follows a growing JSON text and gives what is known of it, at a cost that is linear in the
    text.

        arguments = PartialJson()
        for event in events:
            arguments.push(event.delta)
            show(arguments.value)

    Reading the whole text at every fragment would be quadratic. So `value` reads it again only when
    the text has grown by a sixteenth since the last time, and once more when its outermost bracket
    closes: it may lag behind by that sixteenth, and is exact at the end.
    Needs jiter, which the extra `partial` brings.
    """

    __slots__ = ("_data", "_read", "_read_whole", "_scan", "_value")

    def __init__(self, text: str = "") -> None:
        self._data = bytearray()
        self._scan = JsonScan("")
        self._read = 0  # bytes that were there when it was read last
        self._read_whole = False
        self._value: object = None
        self.push(text)

    def push(self, fragment: str) -> None:
        """Take in the next fragment of the text."""
        self._data += fragment.encode("utf-8", "replace")
        self._scan.push(fragment)

    @property
    def value(self) -> object:
        """What is known so far, None for nothing. Not to be changed: it is kept for the next look.

        Raises ImportError without jiter.
        """
        size, closed = len(self._data), self._scan.closed
        if (
            size > self._read
            and not self._read_whole
            and (closed or 16 * (size - self._read) >= self._read)
        ):
            self._read, self._read_whole = size, closed
            found = parse_partial(self._data)
            if found is not None:
                self._value = found
        return self._value
