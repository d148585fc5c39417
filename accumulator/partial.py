"""JSON texts that arrive in fragments: whether one is complete, and what it says so far."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import inf

import msgspec
from msgspec import Struct

from ._extras import load

__all__ = ["JsonScan", "PartialJson", "is_complete", "parse_partial"]

_decode = msgspec.json.Decoder(msgspec.Raw).decode
# The escapes of a surrogate pair; or, in a group, of half a pair that no more text can complete.
_SURROGATES = re.compile(
    rb"\\(?:\\|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(u[dD](?:[c-fC-F]|[89abAB](?![0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?\Z))[0-9a-fA-F]{2}))"
)
_TOKEN = re.compile(r'\\.?|["{}\[\]]', re.DOTALL)
_BLANKS = " \t\r\n"
_LONGEST_SCALAR = 400  # digits; a longer number is never called complete


def is_complete(text: str | bytes) -> bool:
    """Return whether `text` is exactly one JSON value. There may be blanks around it."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    try:
        _decode(data)
    except RecursionError:
        return False
    except ValueError:
        healed = heal_escapes(data)
        return healed != data and is_complete(healed)
    return True


def heal_escapes(data: bytes) -> bytes:
    """Return JSON with U+FFFD for each escape of half a surrogate pair that is alone: msgspec and
    jiter refuse it.
    """
    return _SURROGATES.sub(lambda found: rb"\ufffd" if found[1] else found[0], data)


class JsonScan(Struct, array_like=True, gc=False):
    """Follows the strings and brackets of a growing JSON text to know when it is complete.

    Each fragment is read once; the text is parsed once, when the outermost bracket has closed.
    """

    _depth: int = 0
    _length: int = 0
    _in_string: bool = False
    _escaped: bool = False
    closed: bool = False  # its outermost bracket or string, so that only blanks may follow
    _verdict: bool | None = None

    def push(self, fragment: str) -> None:
        """Add the next fragment of the text."""
        if self.closed:
            if fragment.strip(_BLANKS):
                self._verdict = False
            return
        self._verdict = None
        self._length += len(fragment)
        start = 1 if self._escaped and fragment else 0
        self._escaped = self._escaped and not fragment
        for token in _TOKEN.finditer(fragment, start):
            mark = token[0]
            if mark[0] == "\\":
                self._escaped = mark == "\\"
                continue
            if mark == '"':
                self._in_string = not self._in_string
            elif not self._in_string:
                self._depth += 1 if mark in "{[" else -1
            if self._depth <= 0 and not self._in_string:
                self.closed = True
                self.push(fragment[token.end() :])
                return

    def complete(self, text: Callable[[], str]) -> bool:
        """Return whether the text is exactly one JSON value. `text` returns all of it so far."""
        if self._verdict is None and (self.closed or self._length <= _LONGEST_SCALAR):
            self._verdict = is_complete(text())
        return bool(self._verdict)


def parse_partial(text: str | bytes | bytearray) -> object:
    """Parse a JSON text that is still arriving: strings as far as they have come, entries and
    fields once they have a value. Returns None for an empty text and one that cannot become JSON.

    Raises ImportError without jiter, which comes with the extra `partial`.
    """
    jiter = load("jiter", "partial")
    data = text.encode("utf-8", "replace") if isinstance(text, str) else bytes(text)
    try:
        # NaN is not JSON, and a string that is seen once is not worth caching.
        return jiter.from_json(
            heal_escapes(data),
            partial_mode="trailing-strings",
            allow_inf_nan=False,
            cache_mode="keys",
        )
    except ValueError:
        return None


class PartialJson:
    """Follows a growing JSON text and parses what has arrived, in linear time.

        arguments = PartialJson()
        for event in events:
            arguments.push(event.delta)
            show(arguments.value)

    Parsing the whole text at every fragment would take quadratic time. So `value` only parses it
    again when it has grown by a sixteenth, and when its outermost bracket has closed: it may lag
    behind by that sixteenth, but is exact at the end. Needs jiter, from the extra `partial`.
    """

    __slots__ = ("_data", "_due", "_scan", "_value", "length")

    def __init__(self, text: str = "") -> None:
        self._data = bytearray()
        self._scan = JsonScan()
        self._due = 1.0  # the size at which it is parsed next
        self._value: object = None
        self.length: int = 0  # characters
        self.push(text)

    def push(self, fragment: str) -> None:
        """Add the next fragment of the text."""
        self.length += len(fragment)
        self._data += fragment.encode("utf-8", "replace")
        self._scan.push(fragment)

    @property
    def value(self) -> object:
        """The value so far, None if there is none yet; do not change it. Raises ImportError without
        jiter.
        """
        size = len(self._data)
        if size >= self._due or (self._scan.closed and self._due < inf):
            self._due = inf if self._scan.closed else max(size * 17 / 16, size + 1)
            found = parse_partial(self._data)
            if found is not None:
                self._value = found
        return self._value
