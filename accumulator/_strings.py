"""Events in which nothing but strings changes, read without a row for each: the text of one choice,
of choices or calls that take turns, or a text and its padding or twin.

As in `_template`, what was cut out is put together again around it, and compared with what came.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import msgspec

from ._cuts import BETWEEN, decode_joined, decode_strings
from ._template import Template

__all__ = ["Padded", "Pair", "Turns", "padded_of", "pair_of", "turns_of"]

_MANY = 32  # pieces that events are put together of, in a read of a few KiB
_PAIRS = [("text", "padding"), ("padding", "text"), ("text", "twin"), ("twin", "text")]
_LF = 10
_MARKS = (b"]", b"}", b"{", b"[")  # that are rare in a text
_decode_string = msgspec.json.Decoder(str).decode


class Turns:
    """Events of a template whose choices or calls take turns: where each stands is known before."""

    __slots__ = ("_constant", "_end", "_heads", "gap", "next", "order", "period")

    def __init__(
        self, template: Template, order: list[object], heads: Sequence[bytes], next_: int
    ) -> None:
        self.order = order
        self._heads = heads
        self._end = template.end
        # What stands around the strings, in every other place: a round, or some.
        a_round = [part for head in heads for part in (template.end + head, b"")]
        self._constant = a_round * (_MANY // len(a_round) + 1)
        self.gap = slice(len(heads[0]), template.gap.stop)
        self.period = len(heads)
        self.next = next_  # whose turn it is

    def body(self, cuts: Sequence[bytes]) -> bytes:
        """Put events together again around what was cut out of them."""
        start = 2 * self.next
        stop = start + 2 * len(cuts) + 1
        constant = self._constant
        if len(constant) < stop:
            constant = constant * (stop // len(constant) + 1)
        parts = constant[start:stop]
        parts[1::2] = cuts
        parts[0], parts[-1] = self._heads[self.next], self._end
        return b"".join(parts)


def turns_of(template: Template, order: list[object], next_: int) -> Turns | None:
    """Tell the turns of keys that come in an order, if all of their events are cut alike."""
    heads = [template.head_of(key) for key in order]
    known = [head for head in heads if head is not None]
    if len(known) < len(heads) or len(set(map(len, known))) > 1:
        return None
    return Turns(template, order, known, next_)


class Pair:
    """Events of a template with two strings, of which one comes alone: a text, and its twin or
    padding.
    """

    __slots__ = ("_has_text_first", "_is_padding", "_joint")

    def __init__(self, template: Template) -> None:
        [(self._joint, _)] = template.joints
        self._has_text_first = template.roles[0] == "text"
        self._is_padding = "padding" in template.roles

    def read(self, strings: bytes) -> tuple[str, str] | None:
        """Give the text of an event and its twin, "" for padding, of what stands between its outer
        quotes, and these; None unless both can be read.
        """
        first, _, second = strings.partition(self._joint)
        text, other = first + b'"', b'"' + second
        if not self._has_text_first:
            text, other = other, text
        try:
            # Letters and digits, as OpenAI's server pads, are a string as they are.
            if self._is_padding and other[1:-1].isalnum():
                return _decode_string(text), ""
            twin = _decode_string(other)
            return _decode_string(text), "" if self._is_padding else twin
        except ValueError:
            return None


def pair_of(template: Template) -> Pair | None:
    """Tell how to read a template's events one by one, if they have two strings."""
    return Pair(template) if template.roles in _PAIRS else None


class Padded:
    """Events of a template with a text and padding: a byte that each has once, between the two,
    is made a line end, so that cutting lines cuts them apart, too.
    """

    __slots__ = ("_constant", "_gaps", "_has_text_first", "_mark", "_template")

    def __init__(self, template: Template, joint: bytes, mark: bytes) -> None:
        self._template = template
        self._mark = mark
        before, _, behind = joint.partition(mark)
        self._gaps = (
            slice(len(template.head), -1 - len(before)),
            slice(len(behind), template.gap.stop),
        )
        self._has_text_first = template.roles[0] == "text"
        self._constant = [template.between, b"", joint, b""]  # what stands around the strings

    def read(self, data: bytes) -> tuple[bytes, int, int] | None:
        """Give the texts of all whole events as UTF-8, how many events and how many bytes they
        are; None unless all can be read.
        """
        lines = BytesIO(data.replace(self._mark, b"\n"))
        first, second = self._gaps
        before: list[bytes] = []
        behind: list[bytes] = []
        for line, next_line, _ in zip(lines, lines, lines):  # noqa: B905  # the rest waits
            before.append(line[first])
            behind.append(next_line[second])
        count = len(before)
        if not count:
            return None
        parts = self._constant * count
        parts[1::4] = before
        parts[3::4] = behind
        parts[0] = self._template.head
        parts.append(self._template.end)
        body = b"".join(parts)
        # Behind them may stand an event without that byte.
        if not data.startswith(body) or (data[-1] == _LF and len(data) > len(body)):
            return None
        texts, paddings = (before, behind) if self._has_text_first else (behind, before)
        # As in `Pair.read`, letters and digits are a string as they are.
        if not b"".join(paddings).isalnum() and decode_strings(paddings) is None:
            return None
        text = decode_joined(BETWEEN.join(texts), count)
        return None if text is None else (text, count, len(body))


def padded_of(template: Template) -> Padded | None:
    """Tell how to cut a template's events apart, if they are of a text and padding, and have a byte
    for it.
    """
    if set(template.roles) != {"text", "padding"}:
        return None
    [(joint, _)] = template.joints
    constant = b"".join((template.head, joint, template.tail))
    mark = next((mark for mark in _MARKS if mark in joint and constant.count(mark) == 1), None)
    return None if mark is None else Padded(template, joint, mark)
