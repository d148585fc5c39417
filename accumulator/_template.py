"""Templates: the bytes of a chunk around the few values that change from chunk to chunk.

A template is learnt from a line that was decoded in full (`_learning`): its bytes, cut at the gaps
where the values stand. Lines that fit are then read as follows.

1. Each is cut at the gaps' outer ends, and all are put together again from the cuts and the
   template. If that is not what came, byte for byte, nothing is taken.
2. What was cut out is put together to one JSON array, a row for each event, and decoded in one
   call, as strictly as in a chunk: bad escapes, control characters or broken UTF-8 are refused
   there.

What the values mean, and whether the constant part changes nothing, is `_shortcut`'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from keyword import iskeyword
from typing import Any, Literal, cast

import msgspec
from msgspec import Struct

from ._cuts import decode_strings
from ._decode.chunk import ContentWithTokens, TokenLogprob, check_depth

__all__ = [
    "COUNTS",
    "Gap",
    "Rows",
    "Template",
    "kind_of_tokens",
]

# Counts of usage that grow with every chunk of servers that send it in each.
COUNTS = ("completion_tokens", "total_tokens", "reasoning_tokens")
_MOST_KINDS = 64
_LITERALS = (int, str, type(None))
# What stands around the value of a gap when it is read.
_STRING = (b'"', b'"')
_BARE = (b"", b"")
_AROUND = {
    **dict.fromkeys(("text", "twin", "padding"), _STRING),
    "tokens": (b'{"delta":{"content":"', b"}}"),
}
Rows = Sequence[tuple[Any, ...]]
Decode = Callable[[bytes], list[tuple[Any, ...]]]

_decode_value = msgspec.json.Decoder().decode
_decode_object = msgspec.json.Decoder(dict[str, object]).decode
_decode_integers = msgspec.json.Decoder(list[int]).decode


class Gap(Struct):
    """A place in a chunk's bytes where a value stands: a string without its quotes, a number, any
    value; or content and its logprobs, from within the string to the end of the list.
    """

    start: int
    end: int
    role: str  # "text", "twin", "choice", "call", "padding", "tokens", "vendor" or one of COUNTS
    probe: bytes = b""  # what to try a template with, if not what all of the role are tried with
    kind: type = ContentWithTokens  # of tokens, and of all that is constant between


class Template:
    """A chunk's bytes around its gaps, and how to read the gaps of many chunks together."""

    __slots__ = (
        "_close",
        "_created",
        "_decode",
        "_opening",
        "_row_end",
        "between",
        "call",
        "choice",
        "counts",
        "end",
        "field",
        "gap",
        "has_bare_gaps",
        "head",
        "joints",
        "keys",
        "line_end",
        "name",
        "read_tokens",
        "roles",
        "second",
        "size",
        "string",
        "tail",
        "text",
        "twin",
        "vendor",
        "whole",
    )

    def __init__(
        self,
        line: bytes,
        gaps: Sequence[Gap],
        field: str,
        choice: int,
        call: int | None,
        name: str | None = None,
        twin: str | None = None,
        created: Gap | None = None,
    ) -> None:
        roles = self.roles = tuple([gap.role for gap in gaps])
        places = {role: place for place, role in enumerate(_columns(roles))}
        # Where it is, by itself or with its tokens; and what reads these out of rows.
        self.text = places["tokens" if "tokens" in roles else "text"]
        self.read_tokens = _tokens_decoder(roles) if "tokens" in roles else None
        self.vendor = places.get("vendor")
        self.name = name  # of the vendor's field
        self.twin = twin  # the other field, or a vendor's list, of a text that comes twice
        self.second = places.get("twin")
        self.counts = [(role, places[role]) for role in COUNTS if role in roles]
        # What tells an event's text from those of others: the one index that changes, or both.
        self.keys = [places[role] for role in ("choice", "call") if role in roles]
        self.field = field
        self.choice = choice
        self.call = call
        self.line_end = b"\r\n" if line.endswith(b"\r\n") else b"\n"
        self._surround(line[: gaps[0].start], line[gaps[-1].end :])
        # Where the digits stand of when a chunk was created, from the start of a line or its end.
        self._created: slice | None = None
        if created is not None and created.end <= gaps[0].start:
            self._created = slice(created.start, created.end)
        elif created is not None and created.start >= gaps[-1].end:
            self._created = slice(created.start - len(line), created.end - len(line))
        self.size = len(self.head) + len(self.tail)
        self.gap = slice(len(self.head), -len(self.tail))
        # Of a whole event with one gap for a string: its bytes, and where that is with its quotes.
        self.whole = len(self.head) + len(self.end)
        self.string = slice(len(self.head) - 1, 1 - len(self.end))
        around = [_AROUND.get(role, _BARE) for role in roles]
        # A CR ends a line, and is a blank between numbers.
        self.has_bare_gaps = any(pair is not _STRING for pair in around)
        # Between two gaps of an event: the bytes there, and what stands for them in a row.
        self.joints: list[tuple[bytes, bytes]] = []
        for place, mark in enumerate(_marks(roles)):
            joint = line[gaps[place].end : gaps[place + 1].start]
            self.joints.append((joint, around[place][1] + b",\n" + mark + around[place + 1][0]))
        opening, close = around[0][0], around[-1][1]
        self._opening, self._close = b"[[" + opening, close + b"]]"
        self._row_end = close + b"],\n[" + opening
        kind = next((gap.kind for gap in gaps if gap.role == "tokens"), ContentWithTokens)
        self._decode = _row_decoder(roles, kind)

    def _surround(self, head: bytes, tail: bytes) -> None:
        """Set what stands before the first gap of a line, and behind the last."""
        self.head, self.tail = head, tail
        self.end = tail + self.line_end
        self.between = self.end + head

    def follow(self, line: bytes) -> bool:
        """Become the template of a line that was created at another time, if nothing else keeps it
        from fitting.

        No state changes by that: a template is learnt behind a chunk that said when, and the first
        to say so counts.
        """
        created, head, tail = self._created, self.head, self.tail
        if created is None:
            return False
        digits = line[created]
        if not digits.isdigit() or digits.startswith(b"0"):
            return False
        if created.start >= 0:
            head = head[: created.start] + digits + head[created.stop :]
        else:
            tail = tail[: created.start] + digits + tail[created.stop :]
        before = self.head, self.tail
        self._surround(head, tail)
        if self.fits(line):
            return True
        self._surround(*before)
        return False

    def address(self, key: object) -> tuple[int, int | None]:
        """Give the indices of choice and call that a key stands for."""
        if isinstance(key, tuple):
            return key
        index = cast("int", key)
        return (index, self.call) if "choice" in self.roles else (self.choice, index)

    def head_of(self, key: object) -> bytes | None:
        """Give the bytes before the text of a choice or call, if its indices all stand there."""
        if self.roles[-1] != "text" or len(self.keys) != len(self.roles) - 1:
            return None
        head = self.head
        for index, (joint, _) in zip(
            key if isinstance(key, tuple) else (key,), self.joints, strict=True
        ):
            head += b"%d%b" % (index, joint)
        return head

    def fits(self, line: bytes) -> bool:
        """Tell whether a line has all that the template has, by the look of it."""
        return (
            line.startswith(self.head)
            and line.endswith(self.tail)
            and len(line) >= self.size
            and all(joint in line for joint, _ in self.joints)
        )

    def read(self, cuts: list[bytes]) -> tuple[Rows, bytes] | None:
        """Give the values of the gaps, an event a row, and the JSON that they were read from; None
        unless all can be read.
        """
        if self.vendor is not None:
            return self._read_apart(cuts)
        # Each event has each joint once. What was cut out holds no newline, and no JSON string
        # does: so what is put in with one separates, and was not swallowed by a string whose end
        # an event left open. A row is as long as its type, and there are as many as events: so
        # none brings a separator of its own.
        text = self._row_end.join(cuts)
        for joint, instead in self.joints:
            parts = text.split(joint)
            if len(parts) != len(cuts) + 1:
                return None
            text = instead.join(parts)
        text = b"".join((self._opening, text, self._close))
        try:
            rows = self._decode(text)
        except (ValueError, RecursionError):
            return None
        return (rows, text) if len(rows) == len(cuts) else None

    def _read_apart(self, cuts: list[bytes]) -> tuple[Rows, bytes] | None:
        # A vendor's value may be an array or object that an event left open, which swallows any
        # separator: then each event's gaps are looked for in turn.
        columns: list[list[bytes]] = []
        rest = cuts
        for joint, _ in self.joints:
            parts = [part for cut in rest for part in cut.partition(joint)]
            if parts[1::3] != [joint] * len(cuts):
                return None
            columns.append(parts[::3])
            rest = parts[2::3]
        columns.append(rest)
        values: list[Sequence[object]] = []
        try:
            for role, column in zip(self.roles, columns, strict=True):
                read = _read_column(role, column)
                if read is None:
                    return None
                values.append(read)
        except (ValueError, RecursionError):
            return None
        return list(zip(*values, strict=True)), b""

    @property
    def is_usable(self) -> bool:
        """Whether events that fit can be read without taking one gap for another."""
        joints = [joint for joint, _ in self.joints]
        return len(set(joints)) == len(joints) and not (
            self.read_tokens is not None and self.vendor is not None
        )


def _read_column(role: str, cuts: list[bytes]) -> Sequence[object] | None:
    """Read what stands in one gap of each event; None or ValueError unless all can be read."""
    if role == "vendor":
        return [_read_value(cut) for cut in cuts]
    if _AROUND.get(role) is _STRING:
        return decode_strings(cuts)
    numbers = _decode_integers(b"[%b]" % b",\n".join(cuts))
    return numbers if len(numbers) == len(cuts) else None


def _read_value(text: bytes) -> object:
    value: object = _decode_value(text)
    check_depth(value, text)
    return value


# --- rows ---------------------------------------------------------------------------------


def _marks(roles: tuple[str, ...]) -> list[bytes]:
    """Give what stands in a row before the second gap, and before each that follows.

    Where there are more than two, a number tells one joint from another.
    """
    return [b""] if len(roles) == 2 else [b"%d,\n" % place for place in range(1, len(roles))]


def _columns(roles: tuple[str, ...]) -> list[str | int]:
    """Give what the values of a row are: roles, and the numbers of `_marks`."""
    if len(roles) < 3 or "vendor" in roles:  # those are told apart otherwise
        return list(roles)
    columns: list[str | int] = [roles[0]]
    for place, role in enumerate(roles[1:], 1):
        columns += (place, role)
    return columns


@lru_cache(_MOST_KINDS)
def _row_decoder(roles: tuple[str, ...], tokens: type) -> Decode:
    types: dict[str | int, object] = {
        **dict.fromkeys(("text", "twin", "padding"), str),
        "tokens": tokens,
    }
    row: object = tuple[  # type: ignore[misc]
        tuple(
            Literal[column] if isinstance(column, int) else types.get(column, int)
            for column in _columns(roles)
        )
    ]
    decode: object = msgspec.json.Decoder(list[row]).decode  # type: ignore[valid-type]
    return cast("Decode", decode)


@lru_cache(_MOST_KINDS)
def _tokens_decoder(roles: tuple[str, ...]) -> Callable[[bytes], list[TokenLogprob]]:
    decode, place = _row_decoder(roles, ContentWithTokens), _columns(roles).index("tokens")

    def read(text: bytes) -> list[TokenLogprob]:
        return [token for row in decode(text) for token in row[place].logprobs.content]

    return read


# --- content with its logprobs ------------------------------------------------------------

Constants = tuple[tuple[str, object], ...]


def kind_of_tokens(text: bytes) -> type | None:
    """Give the type of content and its logprobs, from what was cut out of a line: what stands
    between them is of a type that has this one value. None if there is none for that.
    """
    opening, close = _AROUND["tokens"]
    try:
        choice: dict[str, object] = _decode_object(opening + text + close)
    except ValueError:
        return None
    levels = [choice, choice.pop("delta", None), choice.pop("logprobs", None)]
    constants: list[Constants] = []
    for level in levels:
        fields = level if isinstance(level, dict) else {"": level}  # which is no name
        constants.append(tuple(pair for pair in fields.items() if pair[0] != "content"))
        for name, value in constants[-1]:
            if not name.isidentifier() or iskeyword(name) or type(value) not in _LITERALS:
                return None
    return _kind(*constants)


@lru_cache(_MOST_KINDS)
def _kind(choice: Constants, delta: Constants, logprobs: Constants) -> type:
    content = _strict(("content", str), constants=delta)
    tokens = _strict(("content", list[TokenLogprob]), constants=logprobs)
    kind = _strict(("delta", content), ("logprobs", tokens), constants=choice)
    msgspec.json.Decoder(kind)  # before two threads meet it at once, see `_wire`
    return kind


def _strict(*fields: tuple[str, object], constants: Constants) -> type:
    same = [(name, None if value is None else Literal[value]) for name, value in constants]
    return msgspec.defstruct("Strict", [*fields, *same], forbid_unknown_fields=True, gc=False)
