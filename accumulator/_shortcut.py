"""The shortcut for bytes that repeat: what `_reduce` would do, without parsing what is known.

From chunk to chunk of a stream only a few values change; the rest is the same to the byte. A
template is learnt from a chunk that was decoded in full and applied: its bytes, cut at the gaps
where the values stand. From then on a read whose events all fit is taken as follows.

1. Its lines are cut out at the gaps' outer ends and the whole read is put together again from the
   cuts and the template. If that is not the read, byte for byte, nothing is taken.
2. What was cut out is put together to one JSON array, a row an event, and decoded in one call, as
   strictly as in a chunk: bad escapes, control characters or broken UTF-8 are refused there.
3. The constant part was applied before, and once more changes nothing: that is asked for when a
   template is learnt, and asked again (`forget`) after anything else was applied in between.

Whatever is refused goes the plain way. So a template can make a stream faster, but it cannot make
an answer another one; SPEC law 6 holds that over every stream the tests have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import cast

import msgspec
from msgspec import Struct

from ._reduce import Reducer, TokensState
from ._text import Text
from ._wire import (
    Choice,
    Chunk,
    Delta,
    TokenLogprob,
    ToolCallFragment,
    UnreadTokens,
    decode_typed,
    heal,
)

__all__ = ["Shortcut", "roles_of", "rows_decoder"]

_TEXT_FIELDS = ("content", "reasoning", "reasoning_content", "refusal")
_STRING = rb'"%s": ?"((?:[^"\\]|\\.)*)"'
_INDEX = re.compile(rb'"index": ?([0-9]+)')
_TOKENS = re.compile(rb'"content": ?\[')
_PADDING = re.compile(_STRING % b"obfuscation")
_STRINGS = {name: re.compile(_STRING % name.encode()) for name in (*_TEXT_FIELDS, "arguments")}
_LONGEST_BACKOFF = 256  # reads
_LF = 10
Fields = dict[str, object]
_CONSTANTS = (str, int, type(None))


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
        "between",
        "call",
        "choice",
        "close",
        "decode",
        "field",
        "head",
        "joints",
        "key",
        "opening",
        "roles",
        "row_end",
        "tail",
        "text",
    )

    def __init__(
        self, line: bytes, gaps: Sequence[Gap], field: str, choice: int, call: int | None
    ) -> None:
        self.roles = [gap.role for gap in gaps]
        self.text = self.roles.index("text")
        keys = [self.roles.index(role) for role in ("choice", "call") if role in self.roles]
        # What tells an event's text from those of others: the one index that changes, or both.
        self.key = itemgetter(*keys) if keys else None
        self.field = field
        self.choice = choice
        self.call = call
        self.head = line[: gaps[0].start]
        self.tail = line[gaps[-1].end :] + b"\n\n"
        self.between = self.tail + self.head
        quotes = [b'"' if _TYPES[role] is str else b"" for role in self.roles]
        # Between two gaps of an event: the bytes there, and what stands for them in a row. What was
        # cut out holds no newline, and no JSON string does: so one in each separator proves that it
        # separates, and was not swallowed by a string whose end an event left open.
        self.joints = [
            (line[a.end : b.start], close + b",\n" + opening)
            for a, b, close, opening in zip(gaps, gaps[1:], quotes, quotes[1:], strict=False)
        ]
        brackets = (b"[", b"]") if len(gaps) > 1 else (b"", b"")
        self.opening = b"[" + brackets[0] + quotes[0]
        self.close = quotes[-1] + brackets[1] + b"]"
        self.row_end = quotes[-1] + brackets[1] + b",\n" + brackets[0] + quotes[0]
        self.decode = rows_decoder(tuple(self.roles))

    def address(self, key: object) -> tuple[int, int | None]:
        """Give the indices of choice and call that a key stands for."""
        if isinstance(key, tuple):
            return key
        index = cast("int", key)
        return (index, self.call) if "choice" in self.roles else (self.choice, index)

    def take(self, data: bytes) -> tuple[list[object], bytes] | None:
        """Give a row of values for each event, and the JSON of all; None unless all events fit."""
        a, b = len(self.head), 2 - len(self.tail)
        cuts = [line[a:b] for line in data.split(b"\n")[:-2:2]]
        if self.head + self.between.join(cuts) + self.tail != data:
            return None
        rows_text = self.row_end.join(cuts)
        for joint, instead in self.joints:
            before = len(rows_text)
            rows_text = rows_text.replace(joint, instead)
            if before - len(rows_text) != (len(joint) - len(instead)) * len(cuts):
                return None
        rows_text = self.opening + rows_text + self.close
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


_decode_string = msgspec.json.Decoder(str).decode


class ObjectTemplate:
    """An SDK's chunk object, or a mapping, without the one text that changes.

    What stands around it is compared as it is: three dicts against the three of a chunk that was
    read in full and applied.
    """

    __slots__ = ("_choice", "_chunk", "_created", "_delta", "_field", "_size", "_text")

    def __init__(
        self, parts: tuple[Fields, Fields, Fields], field: str, size: int, text: Text
    ) -> None:
        chunk, choice, delta = parts
        self._chunk = {**chunk, "choices": None}
        self._choice = {**choice, "delta": None}
        self._delta = {**delta, field: None}
        self._created = type(chunk.get("created"))
        self._field = field
        self._text = text
        self._size = size - len(cast("str", delta[field]))

    def take(self, chunk: object, room: float) -> int:
        """Append the chunk's text, if nothing else is in it; return how many characters the chunk
        holds, 0 if nothing was done or they are more than `room`.
        """
        parts = _object_parts(chunk)
        if parts is None:
            return 0
        fields, choice, delta = parts
        text = delta.get(self._field)
        if type(text) is not str or not (text.isascii() or heal(text) == (text, 0)):
            return 0
        # What changes is put in for the comparison, and taken out again: nothing of the caller's
        # is kept.
        self._chunk["choices"] = fields["choices"]
        self._choice["delta"] = choice["delta"]
        self._delta[self._field] = text
        same = (
            delta == self._delta
            and choice == self._choice
            and fields == self._chunk
            # 1 == 1.0 == True, but not for a field that should be an integer.
            and type(fields.get("created")) is self._created
            and type(choice.get("index")) is int
        )
        self._chunk["choices"] = self._choice["delta"] = None
        size = self._size + len(text)
        if not same or size > room:
            return 0
        self._text.append(text)
        return size


def _object_parts(chunk: object) -> tuple[Fields, Fields, Fields] | None:
    """Give the fields of a chunk, of its one choice and of its delta, if they are all there is."""
    if type(chunk) is dict:
        choices = chunk.get("choices")
        if type(choices) is not list or len(choices) != 1 or type(choices[0]) is not dict:
            return None
        delta = choices[0].get("delta")
        return (chunk, choices[0], delta) if type(delta) is dict else None
    try:
        fields = chunk.__dict__
        (choice,) = fields["choices"]
        of_choice = choice.__dict__
        delta = of_choice["delta"]
        # pydantic keeps apart what a class has no field for.
        if (
            chunk.__pydantic_extra__  # type: ignore[attr-defined]  # an AttributeError is an answer
            or choice.__pydantic_extra__
            or delta.__pydantic_extra__
        ):
            return None
        return fields, of_choice, delta.__dict__
    except (AttributeError, LookupError, TypeError, ValueError):
        return None


class Shortcut:
    """Holds the templates of a stream and applies what fits them."""

    __slots__ = (
        "_backoff",
        "_calls_seen",
        "_reducer",
        "_template",
        "_text",
        "_texts",
        "_tokens",
        "_wait",
        "object",
        "ready",
        "single",
    )

    def __init__(self, reducer: Reducer) -> None:
        self._reducer = reducer
        self._template: Template | None = None
        self._text: Text | None = None  # where the fragments go, if it is one text
        self._tokens: TokensState | None = None
        self._texts: dict[object, Text] = {}  # where they go if not, as they are met
        self._calls_seen: frozenset[int] = frozenset()
        self._wait = 0  # how many more reads to go by before learning again
        self._backoff = 1
        self.object: ObjectTemplate | None = None
        self.ready = False  # there is a template, and nothing else was applied since it held
        self.single = False  # and it has one gap, so that `take_one` can be tried

    def forget(self) -> None:
        """Something else was applied: what the templates take for known may have changed."""
        self.ready = self.single = False
        self.object = None

    def learn_object(self, value: object, chunk: Chunk, size: int) -> None:
        """Learn from an object that was read as a chunk, which was applied last."""
        parts = _object_parts(value)
        found = _changing(chunk, many=False)
        if parts is None or found is None or found[1].logprobs is not None:
            return
        field, choice, fragment = found
        state = self._reducer.state
        text = self._reducer.open_text(field, choice.index or 0, None)
        if text is None or fragment is not None or not state.model:
            return
        constant = [*parts[0].items(), *parts[1].items(), *parts[2].items()]
        if type(parts[2].get(field)) is str and all(
            type(value) in _CONSTANTS or name in ("choices", "delta") for name, value in constant
        ):
            self.object = ObjectTemplate(parts, field, size, text)

    def take_one(self, data: bytes) -> bool:
        """Apply a read that is one event which fits; only if `single`."""
        template, text = self._template, self._text
        if template is None or text is None:
            return False
        head, tail = template.head, template.tail
        if not (data.startswith(head) and data.endswith(tail)):
            return False
        cut = data[len(head) : -len(tail)]
        if _LF in cut or len(data) < len(head) + len(tail):
            return False
        try:
            text.append(_decode_string(b'"' + cut + b'"'))
        except ValueError:
            return False
        return True

    def take(self, data: bytes) -> int:
        """Apply a read of whole events if they all fit; return how many, 0 if nothing was done."""
        template = self._template
        if template is None:
            return 0
        taken = template.take(data)
        if taken is None:
            return 0
        rows, rows_text = taken
        if template.key is not None:
            if not self._apply_by_key(template, cast("list[tuple[object, ...]]", rows)):
                return 0
        else:
            text = cast("Text", self._text)
            if len(template.roles) == 1:
                text.fragments += cast("list[str]", rows)
            else:
                column = [row[template.text] for row in cast("list[tuple[str, ...]]", rows)]
                text.fragments += column
                if self._tokens is not None:
                    place = template.roles.index("tokens")
                    self._tokens.runs.append(UnreadTokens(rows_text, template.decode, place))
                    lists = cast("list[tuple[list[TokenLogprob], ...]]", rows)
                    self._tokens.count += sum([len(row[place]) for row in lists])
            text.compact()
        self._backoff = 1
        return len(rows)

    def _apply_by_key(self, template: Template, rows: list[tuple[object, ...]]) -> bool:
        """Add fragments of several choices or calls, each to its own text."""
        key_of, place, texts = (
            cast("Callable[[object], object]", template.key),
            template.text,
            self._texts,
        )
        keys = list(map(key_of, rows))
        for key in set(keys):
            if key not in texts:
                text = self._reducer.open_text(template.field, *template.address(key))
                if text is None:
                    return False
                texts[key] = text
        for key, row in zip(keys, rows, strict=True):
            texts[key].fragments.append(cast("str", row[place]))
        for text in texts.values():
            text.compact()
        if template.call is not None:
            for choice, call in dict(map(template.address, keys)).items():
                self._reducer.set_last_call(choice, cast("int", call))
        return True

    def learn(self, line: bytes, chunk: Chunk) -> None:
        """Learn from the line of the chunk that was applied last."""
        template = self._template
        if template is None or template.take(line + b"\n\n") is None:
            if self._wait:
                self._wait -= 1
                return
            self._wait = self._backoff
            self._backoff = min(2 * self._backoff, _LONGEST_BACKOFF)
            template = _learn(
                line, chunk, many=len(self._reducer.state.choices) > 1, calls=self._calls_seen
            )
            if template is not None and template.call is not None:
                self._calls_seen |= {template.call}
            if template is None:
                return
            self._template = template
        self._text = self._tokens = None
        self._texts.clear()
        if template.key is None:
            self._text = self._reducer.open_text(template.field, template.choice, template.call)
            if self._text is None:
                return
            if "tokens" in template.roles:
                self._tokens = self._reducer.open_tokens(template.choice)
                if self._tokens is None:
                    return
        self.ready = True
        self.single = len(template.roles) == 1


def _learn(line: bytes, chunk: Chunk, *, many: bool, calls: frozenset[int]) -> Template | None:
    """Find the gaps of a chunk whose constant part changes nothing when it is applied again."""
    found = _changing(chunk, many=many)
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
        if _is_sound(line, ordered, field):
            call = None if fragment is None else fragment.index
            template = Template(line, ordered, field, choice.index or 0, call)
            instead = [row for _, row in template.joints]
            # Joints that are written alike could be taken for one another.
            return template if len(set(instead)) == len(instead) else None
    return None


def _changing(chunk: Chunk, *, many: bool) -> tuple[str, Choice, ToolCallFragment | None] | None:
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
        if fragment == ToolCallFragment(
            index=fragment.index, function=type(function)(arguments=function.arguments)
        ) and _brings_only(delta, "tool_calls"):
            return "arguments", choice, fragment
        return None
    if len(texts) != 1 or not _brings_only(delta, texts[0]):
        return None
    if choice.logprobs is not None and (
        not choice.logprobs.content or choice.logprobs.refusal is not None or texts != ["content"]
    ):
        return None
    return texts[0], choice, None


def _brings_only(delta: Delta, field: str) -> bool:
    return delta == Delta(**{"role": delta.role, field: getattr(delta, field)})


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


def _is_sound(line: bytes, gaps: Sequence[Gap], field: str) -> bool:
    """Try a template: other values at its gaps must be read as those values at their places."""
    probe, end = b"", 0
    for gap in gaps:
        probe += line[end : gap.start] + _PROBES[gap.role]
        end = gap.end
    try:
        read = decode_typed((probe + line[end:])[6:])
        expected = decode_typed(line[6:])
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
