"""A line of JSON as a template: constant bytes, and gaps for the values that change between lines.

The gap of a string is between its quotes, that of a number is the number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import compress, count
from operator import ne
from typing import Any

import msgspec
from msgspec import Struct

Gap = tuple[int, int, bool]  # where a value of a line starts and ends, and whether it is a string

_CR, _BACKSLASH = 13, 92
_NUMBER = rb"(-?\d[\d.eE+-]*)"
_INDEX = b"index"  # the field whose value says where the others go
_TIME = b"created"  # the field of which only the first value is kept
decode_string = msgspec.json.Decoder(str).decode
_decode_strings = msgspec.json.Decoder(list[str]).decode
_decode_numbers = msgspec.json.Decoder(list[int | float]).decode
_decode_integers = msgspec.json.Decoder(list[int]).decode


class Template(Struct, frozen=True):
    """The constant bytes of an event, with gaps between them. They include strings' quotes."""

    head: bytes  # before the first gap
    joints: tuple[bytes, ...]  # between two gaps
    tail: bytes  # after the last, up to the line end
    end: bytes  # the same, and the blank line
    decoders: tuple[Callable[[list[bytes]], list[Any]], ...]  # one for each gap
    of_line: slice  # cuts what is between head and end out of a line
    of_event: slice  # and out of an event

    def join(self, cuts: list[bytes]) -> bytes:
        """Return the events from which these were cut."""
        return b"".join((self.head, (self.end + self.head).join(cuts), self.end))

    def split(self, cut: bytes) -> list[bytes]:
        """Return the values of an event, one for each gap; none if a joint is missing."""
        # `columns` would also do, in twice the time: most clients read one event at a time.
        values: list[bytes] = []
        for joint in self.joints:
            value, found, cut = cut.partition(joint)
            if not found:
                return []
            values.append(value)
        values.append(cut)
        return values

    def columns(self, cuts: list[bytes]) -> list[list[bytes]]:
        """Return the values of some events, gap by gap; none if one of them lacks a joint."""
        columns: list[list[bytes]] = []
        for joint in self.joints:
            halves = [cut.partition(joint) for cut in cuts]
            columns.append([value for value, _, _ in halves])
            cuts = [rest for _, found, rest in halves if found]
            if len(cuts) < len(halves):
                return []
        columns.append(cuts)
        return columns

    def fits(self, line: bytes) -> bool:
        """Return whether a line, including its line end, is an event of this template."""
        is_framed = line.startswith(self.head) and line.endswith(self.tail)
        return is_framed and all(joint in line for joint in self.joints)


def find_gaps(line: bytes, other: bytes, needed: Sequence[object]) -> list[Gap]:
    """Return where two lines differ in strings and numbers. Return no gaps if they also differ
    elsewhere, or in a field that never has a gap.

    A value that is the same in both lines also gets a gap if it is in `needed`.
    """
    tokens, others = _tokens_of(line), _tokens_of(other)
    if len(tokens) != len(others) or _CR in line[:-2] or not line.startswith(b"data:"):
        return []
    needed_at = _places_of(needed, tokens)
    gaps: list[Gap] = []
    for place in sorted({*compress(count(), map(ne, tokens, others)), *needed_at}):
        token = tokens[place]
        start = end = sum(map(len, tokens[:place])) + place
        is_name = place % 2 and tokens[place + 1].lstrip().startswith(b":")
        if is_name or tokens[place - 1 - place % 2] == _INDEX:
            return []
        if place % 2:
            gaps.append((start, start + len(token), True))
            continue
        ours, theirs = re.split(_NUMBER, token), re.split(_NUMBER, others[place])
        if ours[::2] != theirs[::2]:
            return []
        for number, was in zip(ours, theirs):  # noqa: B905  # as many
            end += len(number)
            if number != was or (place in needed_at and number.isdigit()):
                gaps.append((end - len(number), end, False))
    return gaps


def _places_of(needed: Sequence[object], tokens: list[bytes]) -> set[int]:
    """Return the places of values among the tokens; an integer is the time in a chunk."""
    places: set[int] = set()
    strings = {each for each in needed if type(each) is str}
    if strings:
        tokens_of_strings = enumerate(tokens[1::2])
        places.update(2 * i + 1 for i, token in tokens_of_strings if _string_of(token) in strings)
    if len(strings) < len(needed) and _TIME in tokens:
        places.add(tokens.index(_TIME) + 1)
    return places


def cut_at(line: bytes, gaps: Sequence[Gap]) -> Template:
    """Return the template of a line, given where its gaps are."""
    parts: list[bytes] = []
    before = 0
    for start, end, _ in gaps:
        parts.append(line[before:start])
        before = end
    (head, *joints), tail = parts, line[before:]
    closing = tail + (b"\r\n" if tail.endswith(b"\r\n") else b"\n")
    decoders = tuple([strings_of if is_string else numbers_of for _, _, is_string in gaps])
    of_line, of_event = slice(len(head), -len(tail)), slice(len(head), -len(closing))
    return Template(head, tuple(joints), tail, closing, decoders, of_line, of_event)


def _tokens_of(line: bytes) -> list[bytes]:
    """Split a line of JSON at its quotes, so that every second token is a string. Escaped quotes
    and backslashes are masked by NULs, which JSON never contains.
    """
    if _BACKSLASH in line:
        line = line.replace(b"\\\\", b"\0\0").replace(b'\\"', b"\0\1")
    return line.split(b'"')


def _string_of(token: bytes) -> str:
    return decode_string(b'"%b"' % token.replace(b"\0\1", b'\\"').replace(b"\0\0", b"\\\\"))


def strings_of(column: list[bytes]) -> list[Any]:
    """Decode some strings, given without quotes, each on its own. Raises ValueError."""
    # A JSON string cannot contain a line end, so one left open does not run into the next.
    strings = _decode_strings(b'["%b"]' % b'",\n"'.join(column))
    if len(strings) != len(column):
        raise ValueError("a quote inside a string")
    return strings


def integers_of(column: list[bytes]) -> list[Any]:
    """Decode some integers, each on its own. Raises ValueError."""
    return numbers_of(column, _decode_integers)


def numbers_of(
    column: list[bytes], decode: Callable[[bytes], list[Any]] = _decode_numbers
) -> list[Any]:
    """Decode some numbers, each on its own. Raises ValueError."""
    text = b",".join(column)
    numbers = decode(b"[%b]" % text)
    if _CR in text or len(numbers) != len(column):  # a CR ends a line of the body
        raise ValueError("more than a number")
    return numbers
