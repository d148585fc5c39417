"""Read chunks that are objects: mappings, and the chunk objects of any SDK.

Most repeat the last chunk except for a fragment of a text, and only that is read. Other mappings
and openai's models are converted at once if they only have fields of the API. Everything else is
left to `lenient`. No SDK is imported for this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter, itemgetter
from typing import Any

from msgspec import Struct, convert, to_builtins

from ..rules import DEFAULT_RULES
from .chunk import SAFE_LEVELS, Chunk, Delta, JsonObject
from .lenient import read_chunk

# What each chunk of a stream repeats, and the strings in it whose characters are counted.
_HEAD = ("id", "created", "model", "service_tier", "system_fingerprint", "object")
head_of = attrgetter(*_HEAD)
_measured_of = itemgetter(0, 2, 3, 4)
_token_of = attrgetter("token")
_VARYING = frozenset({"choices", "obfuscation"})
_PAUSE = 8  # objects read field by field after one with a vendor's fields: the next have them, too
MOST_MISSES = 3  # in a row; then only a few of each 32 objects are searched for a fragment
_NOTHING: dict[str, Any] = {}
_BUILTINS = frozenset({str, int, float, bool, type(None), dict, list})

Head = tuple[object, ...]


class LastChunk(JsonObject):
    """A chunk that is followed by `[DONE]`."""


def is_chunk_like(value: object) -> bool:
    """Return whether a value may be a chunk: a mapping, or an object with `choices`."""
    # The fastest check comes first.
    return type(value) is dict or hasattr(value, "choices") or isinstance(value, Mapping)


class ObjectReader(Struct):
    """Reads the objects of one stream. Most repeat the last except for one fragment of a text."""

    misses: int = 0  # objects in a row that were more than a fragment
    _head: Head | None = None  # of the last chunk
    _size: int = 0  # characters of the head
    # What an object that repeats the last one has: how many fields, 0 if none can repeat it; the
    # values of those that are the same; and "obfuscation", if it has that, or else "choices".
    _count: int = 0
    _get: Callable[[Any], object] = itemgetter("choices")  # returns those values
    _repeated: object = None
    _also: str = ""
    _are_dicts: bool = False  # whether the choices of a mapping were dicts
    _waits: int = 0  # how many objects to read field by field before one is converted again

    def fragment(self, value: Any, head: Head | None) -> tuple[int, int | str, str, int] | None:
        """Return the fragment of a text that an object brings after a chunk with this head, or None
        if it brings anything else. The tuple has the index of the choice, the name of the text or
        the index of the call with the arguments, the fragment, and the characters of all strings.
        """
        try:
            is_dict = type(value) is dict
            own = value if is_dict else value.__dict__
            if (
                len(own) != self._count
                or self._also not in own
                or head != self._head
                or self._get(own) != self._repeated
                or type(own["created"]) is not int  # 1.0 and true are not, but equal 1
                or not (is_dict or _VARYING.issuperset(value.__pydantic_extra__))
            ):
                return None
            [choice] = own["choices"]
            index, fields = _only(choice, is_dict, "delta", "logprobs", "finish_reason")
            where: int | str = "content"
            text = fields.get("content")
            if text is None and (calls := fields.get("tool_calls")) is not None:
                [entry] = calls
                where, fields = _only(entry, is_dict, "function", "id", "type")
                text = fields.get("arguments")
            elif text is None:
                where, text = "reasoning_content", fields.get("reasoning_content")
            if type(text) is not str:
                return None
            if not text.isascii():
                text.encode()
        except (AttributeError, LookupError, TypeError, ValueError):
            return None
        self.misses = 0
        return index, where, text, self._size + len(text)

    def read(self, value: Any) -> tuple[Chunk, int] | None:
        """Return the chunk that an object is, and how many characters its strings have; or None if
        anything about it is odd.

        The chunk is the same as from `read_chunk`. It shares nothing mutable with the object.
        """
        if self._waits:
            self._waits -= 1
            return _read_generally(value)
        try:
            own = value if type(value) is dict else value.__dict__
            if own is value:
                self._check(value)
            chunk = convert(value if own is value else _opened(value), Chunk)
            strings = _strings_of(chunk)
            head = head_of(chunk)
            if head != self._head:
                self._size = _measure([text for text in _measured_of(head) if text is not None])
                self._head, self._count = head, 0
            size = self._size + _measure(strings)
        except (AttributeError, LookupError, TypeError, ValueError):
            self._waits = _PAUSE
            return _read_generally(value)
        if self.misses <= MOST_MISSES and len(own) != self._count:
            # The next object is expected to repeat everything except the choices.
            self._count, names = 0, own.keys() - _VARYING
            if "created" in names and all(own[name] is None for name in names.difference(_HEAD)):
                self._count, self._get = len(own), itemgetter(*names)
                self._also = "obfuscation" if "obfuscation" in own else "choices"
                self._repeated = self._get(own)
        return chunk, size

    def _check(self, chunk: JsonObject) -> None:
        """Raise TypeError for a mapping in a chunk that is not a dict: `convert` would drop what
        the API does not name. A stream whose choices were dicts once has no others.
        """
        if type(chunk.get("usage")) not in _BUILTINS:
            raise TypeError("a usage that is not a dict")
        choices: Any = () if self._are_dicts else chunk.get("choices")
        for choice in choices or ():
            if type(choice) is not dict or not _BUILTINS.issuperset(map(type, choice.values())):
                raise TypeError("a choice with more than builtins")
            self._are_dicts = True


def _read_generally(value: object) -> tuple[Chunk, int] | None:
    """Read an object field by field; return None if anything about it is odd."""
    if type(value) is LastChunk:
        return None
    moved = DEFAULT_RULES.moved
    try:
        reading = read_chunk(value, moved, copying=True, has_halves=False, depth=SAFE_LEVELS)
    except ValueError:
        return None
    is_odd = reading.error is not None or reading.lone or reading.has_halves
    if is_odd or any(choice.closing for choice in reading.chunk.choices or ()):
        return None
    return reading.chunk, reading.size


def _only(of: Any, is_dict: bool, below: str, null: str, other: str) -> tuple[int, dict[str, Any]]:
    """Return the index of a choice or call and the fields of the object below it. Return no fields
    if that object has more than one, or if anything but two nulls is beside it.
    """
    if is_dict:
        own, fields = of, of[below]
        is_odd = type(own) is not dict or type(fields) is not dict
    else:
        own = of.__dict__
        inner = own[below]
        fields, extra, is_odd = inner.__dict__, inner.__pydantic_extra__, of.__pydantic_extra__
        if extra:
            fields = fields | extra
    index = own["index"]
    if (
        is_odd
        or type(index) is not int
        or len(own) > 4
        or (len(own) == 4 and (own[null] is not None or own[other] is not None))
        or (len(own) == 3 and own.get(null, own.get(other, 0)) is not None)
        or (len(fields) > 1 and [*fields.values()].count(None) < len(fields) - 1)
    ):
        return 0, _NOTHING
    return index, fields


def _opened(chunk: Any) -> JsonObject:
    """Return the fields of an openai model, and of the models in it that most chunks have."""
    fields = _fields(chunk).copy()
    if type(fields["choices"]) is not list:
        raise TypeError("no list of choices")
    fields["choices"] = [_fields(choice).copy() for choice in fields["choices"]]
    for choice in fields["choices"]:
        delta = choice["delta"] = _fields(choice["delta"])
        if calls := delta.get("tool_calls"):
            opened = [_fields(call) | {"function": _fields(call.function)} for call in calls]
            choice["delta"] = delta | {"tool_calls": opened}
        if logprobs := choice.get("logprobs"):
            lists = _fields(logprobs).items()
            choice["logprobs"] = {name: tokens and _tokens(tokens) for name, tokens in lists}
    if usage := fields.get("usage"):
        counts = _fields(usage).items()
        fields["usage"] = {
            name: _fields(count) if count and name.endswith("_details") else count
            for name, count in counts
        }
    return fields


def _fields(value: Any) -> dict[str, Any]:
    own: dict[str, Any] = value.__dict__
    extra = value.__pydantic_extra__
    return own | extra if extra else own


def _tokens(tokens: Iterable[Any]) -> list[JsonObject]:
    """Return the fields of tokens, and of the likeliest alternatives in each."""
    found = []
    for token in tokens:
        if token.__pydantic_extra__:
            raise ValueError("a vendor's field of a token")
        fields = token.__dict__
        if likeliest := fields.get("top_logprobs"):
            fields = {**fields, "top_logprobs": _tokens(likeliest)}
        found.append(fields)
    return found


def _measure(strings: list[str]) -> int:
    """Return how many characters strings have. Raises ValueError for half a surrogate pair, an enum
    or another subclass of str.
    """
    for text in strings:
        if type(text) is not str:
            raise ValueError("a string of another class, or none")
    whole = "".join(strings)
    if not whole.isascii():
        whole.encode()
    return len(whole)


def _strings_of(chunk: Chunk) -> list[str]:
    """Return the strings of a chunk's choices. Raises ValueError for fields that few have."""
    strings: list[str] = []
    # Each is checked on its own: of ten that a choice may have, most are missing.
    for choice in chunk.choices or ():
        delta = choice.delta
        if delta is not None:
            if delta.audio is not None or delta.function_call is not None:
                raise ValueError("audio or the call of a function")
            _add_strings(delta, strings)
        if choice.finish_reason is not None:
            strings.append(choice.finish_reason)
        if choice.text is not None:
            strings.append(choice.text)
        if choice.logprobs is not None:
            for token in (*(choice.logprobs.content or ()), *(choice.logprobs.refusal or ())):
                strings += map(_token_of, (token, *(token.top_logprobs or ())))
    return strings


def _add_strings(delta: Delta, strings: list[str]) -> None:
    if delta.content is not None:
        strings.append(delta.content)
    if delta.role is not None:
        strings.append(delta.role)
    if delta.refusal is not None:
        strings.append(delta.refusal)
    if delta.reasoning is not None:
        strings.append(delta.reasoning)
    if delta.reasoning_content is not None:
        strings.append(delta.reasoning_content)
    if delta.reasoning_details is not None:
        strings.append("reasoning_details")
        for detail in to_builtins(delta.reasoning_details):
            values = [value for value in detail.values() if type(value) is str]
            strings.append("".join((*detail, *values)))
    for call in delta.tool_calls or ():
        texts = [call.id, call.type]
        if call.function is not None:
            texts += (call.function.name, call.function.arguments)
        if call.custom is not None:
            texts += (call.custom.name, call.custom.input)
        strings += [text for text in texts if text is not None]
