"""Templates: the bytes of a chunk around the few values that change from chunk to chunk.

A template is learnt from a line that was decoded in full (`_learning`): its bytes, cut at the gaps
where the values stand. Lines that fit are then read as follows.

1. Each is cut at the gaps' outer ends, and all are put together again from the cuts and the
   template. If that is not what came, byte for byte, nothing is taken.
2. What was cut out is put together to one JSON array and decoded in one call, as strictly as in a
   chunk: bad escapes, control characters or broken UTF-8 are refused there.

What the values mean, and whether the constant part changes nothing, is `_shortcut`'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import cast

import msgspec
from msgspec import Struct

from ._wire import TokenLogprob, UnreadTokens

__all__ = ["COUNTS", "Columns", "Gap", "Template", "roles_of", "rows_decoder"]

# Counts of usage that grow with every chunk of servers that send it in each.
COUNTS = ("completion_tokens", "total_tokens", "reasoning_tokens")
_STRINGS = ("text", "padding")
_MOST_BRACKETS = 8  # of a value that is certainly not nested too deep
_CR = 13
Columns = Sequence[Sequence[object]]

_decode_value = msgspec.json.Decoder().decode
_decode_texts = msgspec.json.Decoder(list[str]).decode
_decode_mixed = msgspec.json.Decoder(list[int | str]).decode


class Gap(Struct):
    """A place in a chunk's bytes where a value stands: a string without its quotes, a number, a
    list, any value.
    """

    start: int
    end: int
    role: str  # "text", "choice", "call", "padding", "tokens", "vendor" or one of COUNTS


class Template:
    """A chunk's bytes around its gaps, and how to read the gaps of many chunks together."""

    __slots__ = (
        "_apart",
        "_close",
        "_decode",
        "_joints",
        "_opening",
        "_row_end",
        "between",
        "call",
        "choice",
        "counts",
        "decode_rows",
        "end",
        "field",
        "gap",
        "has_bare_gaps",
        "head",
        "keys",
        "line_end",
        "name",
        "roles",
        "size",
        "string",
        "tail",
        "text",
        "tokens",
        "vendor",
        "whole",
        "width",
    )

    def __init__(
        self,
        line: bytes,
        gaps: Sequence[Gap],
        field: str,
        choice: int,
        call: int | None,
        name: str | None = None,
    ) -> None:
        roles = self.roles = [gap.role for gap in gaps]
        self.width = len(gaps)
        self.text = roles.index("text")
        self.tokens = roles.index("tokens") if "tokens" in roles else None
        self.vendor = roles.index("vendor") if "vendor" in roles else None
        self.name = name  # of the vendor's field
        self.counts = [(role, roles.index(role)) for role in COUNTS if role in roles]
        # What tells an event's text from those of others: the one index that changes, or both.
        self.keys = [roles.index(role) for role in ("choice", "call") if role in roles]
        self.field = field
        self.choice = choice
        self.call = call
        self.head = line[: gaps[0].start]
        self.tail = line[gaps[-1].end :]
        self.line_end = b"\r\n" if line.endswith(b"\r\n") else b"\n"
        self.end = self.tail + self.line_end
        self.size = len(self.head) + len(self.tail)
        self.gap = slice(len(self.head), -len(self.tail))
        # Of a whole event with one gap for a string: its bytes, and where that is with its quotes.
        self.whole = len(self.head) + len(self.end)
        self.string = slice(len(self.head) - 1, 1 - len(self.end))
        self.between = self.end + self.head
        quotes = [b'"' if role in _STRINGS else b"" for role in roles]
        # A CR ends a line, and is a blank between tokens.
        self.has_bare_gaps = b"" in quotes
        # Between two gaps of an event: the bytes there, what stands for them among the values, and
        # how much shorter that is. What was cut out holds no newline, and no JSON string does: so
        # one in each separator proves that it separates, and was not swallowed by a string whose
        # end an event left open.
        self._joints: list[tuple[bytes, bytes, int]] = []
        for a, b, close, opening in zip(gaps, gaps[1:], quotes, quotes[1:], strict=False):
            joint, instead = line[a.end : b.start], close + b",\n" + opening
            self._joints.append((joint, instead, len(joint) - len(instead)))
        # Joints that are written alike could be taken for one another, and an array or object that
        # an event left open swallows any separator: then each event's gaps are looked for in turn.
        self._apart = self.vendor is not None or len({i for _, i, _ in self._joints}) < len(
            self._joints
        )
        self._opening, self._close = b"[" + quotes[0], quotes[-1] + b"]"
        self._row_end = quotes[-1] + b",\n" + quotes[0]
        self.decode_rows = None if self.tokens is None else rows_decoder(tuple(roles))
        self._decode = _decode_mixed if self.has_bare_gaps else _decode_texts

    def address(self, key: object) -> tuple[int, int | None]:
        """Give the indices of choice and call that a key stands for."""
        if isinstance(key, tuple):
            return key
        index = cast("int", key)
        return (index, self.call) if "choice" in self.roles else (self.choice, index)

    def fits(self, line: bytes) -> bool:
        """Tell whether a line has all that the template has, by the look of it."""
        return (
            line.startswith(self.head)
            and line.endswith(self.tail)
            and len(line) >= self.size
            and all(joint in line for joint, _, _ in self._joints)
        )

    def reads(self, cut: bytes) -> bool:
        """Tell whether what was cut out of a line can be read."""
        read = self.read if self.tokens is None else self.read_tokens
        return read([cut]) is not None

    def read(self, cuts: list[bytes]) -> Columns | None:
        """Give the values of each gap, an event a value; None unless all can be read.

        Not for templates with tokens.
        """
        if self._apart:
            return self._read_apart(cuts)
        text = self._row_end.join(cuts)
        count, width = len(cuts), self.width
        for joint, instead, less in self._joints:
            before = len(text)
            text = text.replace(joint, instead)
            if before - len(text) != less * count:
                return None
        try:
            values = self._decode(b"%b%b%b" % (self._opening, text, self._close))
        except ValueError:
            return None
        if len(values) != count * width:
            return None
        return [values] if width == 1 else [values[i::width] for i in range(width)]

    def _read_apart(self, cuts: list[bytes]) -> Columns | None:
        columns: list[Sequence[object]] = []
        rest = cuts
        for joint, _, _ in self._joints:
            parts = [cut.partition(joint) for cut in rest]
            if not all(map(itemgetter(1), parts)):
                return None
            columns.append(list(map(itemgetter(0), parts)))
            rest = list(map(itemgetter(2), parts))
        columns.append(rest)
        try:
            for place, (role, column) in enumerate(zip(self.roles, columns, strict=True)):
                parts_of = cast("list[bytes]", column)
                if role == "vendor":
                    columns[place] = [_read_value(part) for part in parts_of]
                    continue
                quote = b'"' if role in _STRINGS else b""
                decode = _decode_texts if quote else _decode_mixed
                separator = quote + b",\n" + quote
                columns[place] = decode(b"[%b%b%b]" % (quote, separator.join(parts_of), quote))
                if len(columns[place]) != len(cuts):
                    return None
        except (ValueError, RecursionError):
            return None
        return columns

    def read_tokens(self, cuts: list[bytes]) -> tuple[Columns, UnreadTokens] | None:
        """Do as `read`, for a template with tokens, and give the tokens as they are kept, too."""
        decode, place = self.decode_rows, self.tokens
        if decode is None or place is None:
            return None
        first, instead, _ = self._joints[0]
        row_end = self._close + b",\n" + self._opening
        parts: list[bytes] = []
        for cut in cuts:
            # Long lists, in which the first joint need not be looked for.
            text, found, rest = cut.partition(first)
            if not found:
                return None
            parts += (row_end, text, instead, rest)
        parts[0] = b"[" + self._opening
        parts.append(self._close + b"]")
        rows_text = b"".join(parts)
        for joint, instead, less in self._joints[1:]:
            before = len(rows_text)
            rows_text = rows_text.replace(joint, instead)
            if before - len(rows_text) != less * len(cuts):
                return None
        try:
            rows = cast("list[tuple[object, ...]]", decode(rows_text))
        except (ValueError, RecursionError):
            return None
        if len(rows) != len(cuts):
            return None
        return list(zip(*rows, strict=True)), UnreadTokens(rows_text, decode, place)

    @property
    def is_usable(self) -> bool:
        """Whether events that fit can be read without taking one gap for another."""
        if any(less <= 0 for _, _, less in self._joints):
            return False
        # A list of tokens is only looked for behind its text, and nothing is read apart beside it.
        return self.tokens is None or (self.roles[:2] == ["text", "tokens"] and not self._apart)


def _read_value(text: bytes) -> object:
    if text.count(b"{") + text.count(b"[") > _MOST_BRACKETS:
        raise ValueError("perhaps nested too deep")
    return _decode_value(text)


_decoders: dict[tuple[str, ...], Callable[[bytes], list[object]]] = {}


def rows_decoder(roles: tuple[str, ...]) -> Callable[[bytes], list[object]]:
    """Give the decoder of rows whose columns have these roles."""
    if roles not in _decoders:
        types = tuple(
            list[TokenLogprob] if role == "tokens" else str if role in _STRINGS else int
            for role in roles
        )
        row = tuple[types]  # type: ignore[valid-type]
        decode: object = msgspec.json.Decoder(list[row]).decode
        _decoders[roles] = cast("Callable[[bytes], list[object]]", decode)
    return _decoders[roles]


def roles_of(decode: Callable[[bytes], list[object]]) -> tuple[str, ...]:
    """Give the roles that a decoder was made for."""
    return next(roles for roles, known in _decoders.items() if known == decode)
