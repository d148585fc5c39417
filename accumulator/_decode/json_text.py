"""JSON in place of an event stream: where a text begins, what ends it, and what says nothing.

Servers answer a request for a stream with a whole completion or an error, and logs are JSON Lines
(SPEC section 1).
"""

from __future__ import annotations

import re

from msgspec import Struct, field

from .chunk import MalformedJsonError, TooDeepError, decode_untyped

_BEGINNING = re.compile(rb"[ \t]*(?:\{|\[[ \t]*(?:[{\[\]]|$))")
_FIELDS = (b"data:", b"event:", b"error:", b":")
_NOTHING = re.compile(rb'[ \t\r\n]*(?:null|""|\[[ \t\r\n]*\]|\{[ \t\r\n]*\})[ \t\r\n]*')
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*("?)|[{\[]|[}\]]')
_END_OF_STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*"')


def is_nothing(data: bytes | bytearray) -> bool:
    """Return whether data is JSON that says nothing: null, an empty string, list or object."""
    return _NOTHING.fullmatch(data) is not None


def begins_text(line: bytes) -> bool:
    """Return whether a line outside any event begins a JSON text."""
    return _BEGINNING.match(line) is not None


def ends_text(line: bytes) -> bool:
    """Return whether a line cannot belong to a JSON text that began before it."""
    if line.startswith(_FIELDS):
        return True
    line = line.strip()
    if not (line.startswith(b"{") and line.endswith(b"}")):
        return line == b"[DONE]"
    try:
        value, _ = decode_untyped(line.decode("utf-8", "replace"))
    except (MalformedJsonError, TooDeepError):
        return False
    return value != {}


class JsonText(Struct, array_like=True):
    """A JSON text of several lines whose closing bracket has not arrived."""

    text: bytearray = field(default_factory=bytearray)
    depth: int = 0
    in_string: bool = False  # a damaged string goes on past the line's end

    def add(self, line: bytes) -> int | None:
        """Add a line; return where the text's closing bracket ends in it, or None."""
        if self.text:
            self.text += b"\n"
        self.text += line
        start = 0
        if self.in_string:
            end = _END_OF_STRING.match(line)
            if end is None:
                return None
            start = end.end()
            self.in_string = False
        for token in _TOKEN.finditer(line, start):
            kind = line[token.start()]
            if kind == ord('"'):
                self.in_string = not token[1]
            else:
                self.depth += 1 if kind in b"{[" else -1
                if not self.depth:
                    return token.end()
        return None
