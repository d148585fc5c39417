"""Templates: the bytes of a chunk around the few values that change from chunk to chunk.

A template is learnt from a line that was decoded in full: its bytes, cut at the gaps where the
values stand. Lines that fit are then read as follows.

1. Each is cut at the gaps' outer ends, and all are put together again from the cuts and the
   template. If that is not what came, byte for byte, nothing is taken.
2. What was cut out is put together to one JSON array, a row an event, and decoded in one call, as
   strictly as in a chunk: bad escapes, control characters or broken UTF-8 are refused there.

What a row means, and whether the constant part changes nothing, is `_shortcut`'s business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import cast

import msgspec
from msgspec import Struct

from ._wire import Choice, Chunk, Delta, TokenLogprob, ToolCallFragment

__all__ = ["Template", "learn_template", "roles_of", "rows_decoder", "the_change"]

Decode = Callable[[bytes], Chunk]

_TEXT_FIELDS = ("content", "reasoning", "reasoning_content", "refusal")
_STRING = rb'"%s": ?"((?:[^"\\]|\\.)*)"'
_INDEX = re.compile(rb'"index": ?([0-9]+)')
_TOKENS = re.compile(rb'"content": ?\[')
_PADDING = re.compile(_STRING % b"obfuscation")
_STRINGS = {name: re.compile(_STRING % name.encode()) for name in (*_TEXT_FIELDS, "arguments")}


class Gap(Struct):
    """A place in a chunk's bytes where a value stands: a string without its quotes, a number, a
    list.
    """

    start: int
    end: int
    role: str  # "choice", "call", "text", "tokens" or "padding"


_TYPES = {
    "choice": int,
    "call": int,
    "text": str,
    "padding": str,
    "tokens": list[TokenLogprob],
}
_PROBES = {
    "choice": b"4001",
    "call": b"4002",
    "text": b"probe",
    "padding": b"probe",
    "tokens": b'[{"token":"probe"}]',
}


class Template:
    """A chunk's bytes around its gaps, and how to put the gaps of many together."""

    __slots__ = (
        "_joints",
        "between",
        "call",
        "choice",
        "close",
        "decode",
        "end",
        "field",
        "gap",
        "has_bare_gaps",
        "head",
        "key",
        "line_end",
        "opening",
        "roles",
        "row_end",
        "size",
        "tail",
        "text",
        "tokens",
    )

    def __init__(
        self, line: bytes, gaps: Sequence[Gap], field: str, choice: int, call: int | None
    ) -> None:
        self.roles = [gap.role for gap in gaps]
        self.text = self.roles.index("text")
        self.tokens = self.roles.index("tokens") if "tokens" in self.roles else None
        keys = [self.roles.index(role) for role in ("choice", "call") if role in self.roles]
        # What tells an event's text from those of others: the one index that changes, or both.
        self.key = itemgetter(*keys) if keys else None
        self.field = field
        self.choice = choice
        self.call = call
        self.head = line[: gaps[0].start]
        self.tail = line[gaps[-1].end :]
        self.line_end = b"\r\n" if line.endswith(b"\r\n") else b"\n"
        self.end = self.tail + self.line_end
        self.size = len(self.head) + len(self.tail)
        self.gap = slice(len(self.head), -len(self.tail))
        self.between = self.end + self.head
        quotes = [b'"' if _TYPES[role] is str else b"" for role in self.roles]
        # A CR ends a line, and is a blank between tokens.
        self.has_bare_gaps = b"" in quotes
        # Between two gaps of an event: the bytes there, and what stands for them in a row. What was
        # cut out holds no newline, and no JSON string does: so one in each separator proves that it
        # separates, and was not swallowed by a string whose end an event left open.
        self._joints = [
            (line[a.end : b.start], close + b",\n" + opening)
            for a, b, close, opening in zip(gaps, gaps[1:], quotes, quotes[1:], strict=False)
        ]
        brackets = (b"[", b"]") if len(gaps) > 1 else (b"", b"")
        self.opening = b"[" + brackets[0] + quotes[0]
        self.close = quotes[-1] + brackets[1] + b"]"
        self.row_end = quotes[-1] + brackets[1] + b",\n" + brackets[0] + quotes[0]
        self.decode = rows_decoder(tuple(self.roles))

    @property
    def is_clear(self) -> bool:
        """Whether no two of its joints are written alike in a row."""
        instead = [row for _, row in self._joints]
        return len(set(instead)) == len(instead)

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
            and all(joint in line for joint, _ in self._joints)
        )

    def read(self, cuts: list[bytes]) -> tuple[list[object], bytes] | None:
        """Give a row of values for each cut, and the JSON of all; None unless all can be read."""
        joints = self._joints
        if not joints:
            rows_text = b"%b%b%b" % (self.opening, self.row_end.join(cuts), self.close)
        else:
            count = len(cuts)
            if self.tokens is not None:
                # Long lists, in which the first joint need not be looked for.
                (joint, instead), *joints = joints
                whole = sum(map(len, cuts))
                cuts = [cut.replace(joint, instead, 1) for cut in cuts]
                if whole - sum(map(len, cuts)) != (len(joint) - len(instead)) * count:
                    return None
            rows_text = self.row_end.join(cuts)
            for joint, instead in joints:
                before = len(rows_text)
                rows_text = rows_text.replace(joint, instead)
                if before - len(rows_text) != (len(joint) - len(instead)) * count:
                    return None
            rows_text = b"%b%b%b" % (self.opening, rows_text, self.close)
        try:
            rows = self.decode(rows_text)
        except (ValueError, RecursionError):
            return None
        return (rows, rows_text) if len(rows) == len(cuts) else None


_decoders: dict[tuple[str, ...], Callable[[bytes], list[object]]] = {}


def rows_decoder(roles: tuple[str, ...]) -> Callable[[bytes], list[object]]:
    """Give the decoder of rows whose columns have these roles. Raises KeyError for unknown ones."""
    if roles not in _decoders:
        types = tuple(_TYPES[role] for role in roles)
        row = types[0] if len(types) == 1 else tuple[types]  # type: ignore[valid-type]
        _decoders[roles] = msgspec.json.Decoder(list[row]).decode  # type: ignore[valid-type]
    return _decoders[roles]


def roles_of(decode: Callable[[bytes], list[object]]) -> tuple[str, ...]:
    """Give the roles that a decoder was made for."""
    return next(roles for roles, known in _decoders.items() if known == decode)


# --- learning -----------------------------------------------------------------------------


def learn_template(
    line: bytes, chunk: Chunk, decode: Decode, *, many: bool, calls: frozenset[int]
) -> Template | None:
    """Learn from the line of a chunk, if all it brings is one text, and perhaps its logprobs.

    `many` says that choices take turns, `calls` name calls that were seen to.
    """
    found = the_change(chunk, many=many)
    if found is None:
        return None
    field, choice, fragment = found
    gaps = [_one(_STRINGS[field], line, "text")]
    if choice.logprobs is not None:
        gaps.append(_list_gap(line, choice))
    if chunk.obfuscation is not None or choice.obfuscation is not None:
        gaps.append(_one(_PADDING, line, "padding"))
    if None in gaps:
        return None
    indices = [Gap(*match.span(1), "") for match in _INDEX.finditer(line)]
    orders: list[tuple[str, ...]] = [("choice",)]
    several_calls = False
    if fragment is not None:
        # The choice's `index` stands before its delta or behind it, the call's within.
        orders = [("choice", "call"), ("call", "choice")]
        # Calls that come one after another are constant, those that take turns are not.
        several_calls = fragment.index in calls
    for order in orders:
        if len(indices) != len(order):
            return None
        for gap, role in zip(indices, order, strict=True):
            gap.role = role
        wanted = [gap for gap in indices if (several_calls if gap.role == "call" else many)]
        ordered = sorted([*cast("list[Gap]", gaps), *wanted], key=lambda gap: gap.start)
        if _is_sound(line, ordered, field, decode):
            call = None if fragment is None else fragment.index
            template = Template(line, ordered, field, choice.index or 0, call)
            # Joints that are written alike could be taken for one another, and a list of tokens is
            # only looked for behind its text.
            in_order = template.tokens is None or template.roles[:2] == ["text", "tokens"]
            return template if template.is_clear and in_order else None
    return None


def the_change(chunk: Chunk, *, many: bool) -> tuple[str, Choice, ToolCallFragment | None] | None:
    """Find the one text that a chunk brings; None if it brings more, or changes the state
    otherwise.
    """
    if chunk.usage is not None or not chunk.choices or len(chunk.choices) != 1:
        return None
    choice = chunk.choices[0]
    if chunk.extra is not None or chunk.moderation is not None or choice.extra is not None:
        return None
    delta = choice.delta
    if delta is None or choice.index is None or choice.finish_reason or choice.usage is not None:
        return None
    if many and (delta.role is not None or choice.logprobs is not None):
        return None  # another choice may have none yet
    texts = [name for name in _TEXT_FIELDS if getattr(delta, name) is not None]
    if delta.tool_calls and len(delta.tool_calls) == 1 and not texts and choice.logprobs is None:
        fragment = delta.tool_calls[0]
        function = fragment.function
        if function is None or function.arguments is None or fragment.index is None:
            return None
        others = (fragment.id, fragment.type, fragment.custom, fragment.extra)
        if any(other is not None for other in (*others, function.name, function.extra)):
            return None
        return ("arguments", choice, fragment) if _brings_only(delta, "tool_calls") else None
    if len(texts) != 1 or not _brings_only(delta, texts[0]):
        return None
    if choice.logprobs is not None and (
        not choice.logprobs.content
        or choice.logprobs.refusal is not None
        or choice.logprobs.extra is not None
        or texts != ["content"]
    ):
        return None
    return texts[0], choice, None


_SILENT_FIELDS = tuple(name for name in Delta.__struct_fields__ if name != "role")


def _brings_only(delta: Delta, field: str) -> bool:
    return all(name == field or getattr(delta, name) is None for name in _SILENT_FIELDS)


def _one(pattern: re.Pattern[bytes], line: bytes, role: str) -> Gap | None:
    found = list(pattern.finditer(line))
    return Gap(*found[0].span(1), role) if len(found) == 1 else None


class _RawLogprobs(Struct):
    content: msgspec.Raw = msgspec.Raw(b"")


class _RawChoice(Struct):
    logprobs: _RawLogprobs


class _RawChunk(Struct):
    choices: list[_RawChoice]


def _list_gap(line: bytes, choice: Choice) -> Gap | None:
    found = list(_TOKENS.finditer(line))
    if len(found) != 1:
        return None
    raw = bytes(msgspec.json.decode(line[6:], type=_RawChunk).choices[0].logprobs.content)
    start = found[0].end() - 1
    return Gap(start, start + len(raw), "tokens") if line.startswith(raw, start) else None


def _is_sound(line: bytes, gaps: Sequence[Gap], field: str, decode: Decode) -> bool:
    """Try a template: other values at its gaps must be read as those values at their places."""
    probe, end = b"", 0
    for gap in gaps:
        probe += line[end : gap.start] + _PROBES[gap.role]
        end = gap.end
    try:
        read = decode((probe + line[end:])[6:])
        expected = decode(line[6:])
    except ValueError:
        return False
    choice = (expected.choices or [])[0]
    delta = choice.delta or Delta()
    for gap in gaps:
        match gap.role:
            case "choice":
                choice.index = 4001
            case "tokens" if choice.logprobs is not None:
                choice.logprobs.content = [TokenLogprob(token="probe")]
            case "padding" if expected.obfuscation is not None:
                expected.obfuscation = "probe"
            case "padding":
                choice.obfuscation = "probe"
            case "call" if delta.tool_calls:
                delta.tool_calls[0].index = 4002
            case "text" if field == "arguments" and delta.tool_calls:
                function = delta.tool_calls[0].function
                if function is not None:
                    function.arguments = "probe"
            case "text":
                setattr(delta, field, "probe")
    return read == expected
