"""Chunks that are objects: mappings, and the chunk objects of any SDK.

Nearly all are read here: a mapping by one strict conversion, an object of openai's models with text
by its own fields, and all others level by level. What does not fit is left to `lenient`. No SDK is
imported for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from operator import attrgetter, itemgetter
from typing import Any, cast, get_args, get_type_hints

from msgspec import Struct, convert, to_builtins

from .chunk import (
    OTHERWISE_READ,
    Choice,
    Chunk,
    Delta,
    Extra,
    FunctionFragment,
    JsonObject,
    Logprobs,
    ToolCallFragment,
)
from .values import error_of, fields_of, is_object

_Strings = list[object]  # all of a chunk, to be looked at together
_MOST_LEVELS = 8  # of a vendor's value that is certainly not nested too deep
_SCALARS = frozenset({int, float, bool, type(None)})
_RESERVED = frozenset({"error", "message"})  # what is more than a vendor's field

# What each chunk of a stream repeats, and which of it are strings.
_HEAD = ("id", "created", "model", "service_tier", "system_fingerprint", "object")
head_of = attrgetter(*_HEAD)
_texts_of = itemgetter(0, 2, 3, 4)
_opening_of = itemgetter(*Chunk.__struct_fields__[:6])
_PADDING = frozenset({"obfuscation"})
_REASONING = frozenset({"reasoning", "reasoning_content", "reasoning_details"})
MOST_MISSES = 3  # of 32 objects, until the next are not looked at for a fragment
_NOTHING: dict[str, Any] = {}

Head = tuple[object, ...]
Fragment = tuple[int, int | None, str, int]


class LastChunk(JsonObject):
    """A chunk behind which `[DONE]` follows."""


class _UnfitError(Exception):
    """An object has something that is left to the reader of any value."""


def is_chunk_like(value: object) -> bool:
    """Return whether a value may be a chunk: a mapping, or an object with `choices`."""
    # In the order in which they are found out fastest.
    return type(value) is dict or hasattr(value, "choices") or isinstance(value, Mapping)


class ObjectReader:
    """Reads the objects of one stream. Most repeat the last but for one fragment of a text."""

    __slots__ = ("_count", "_get", "_head", "_repeated", "_size", "_takes_dicts", "misses")

    def __init__(self) -> None:
        self._head: Head | None = None  # of the last chunk
        self._size = 0  # its characters
        self._count = 0  # the fields of an object that may repeat it, 0 for none
        self._get: Callable[[Any], tuple[Any, ...]]  # returns those that do, and the choices last
        self._repeated: Head = ()
        self.misses = 0  # objects in a row that were more than a fragment
        self._takes_dicts = True  # until one had to be read level by level

    def fragment(self, value: Any, head: Head | None) -> Fragment | None:
        """Return the fragment of content or of a call's arguments that an object brings behind a
        chunk with this head, None if it brings anything else: the index of the choice, that of the
        call, the text, and the characters of all strings.
        """
        try:
            is_dict = type(value) is dict
            own = value if is_dict else value.__dict__
            if len(own) != self._count or head != self._head:
                return None
            found = self._get(own)
            if (
                found[: len(self._repeated)] != self._repeated
                or type(found[0]) is not int  # as 1.0 and true are, which equal 1
                or not (is_dict or _PADDING.issuperset(value.__pydantic_extra__ or ()))
            ):
                return None
            [choice] = found[-1]
            index, fields = _only(choice, is_dict, "delta", "logprobs", "finish_reason")
            call, text, calls = None, fields.get("content"), fields.get("tool_calls")
            if calls is not None:
                [entry] = calls
                call, fields = _only(entry, is_dict, "function", "id", "type")
                text = fields.get("arguments")
            if type(text) is not str:
                return None
            if not text.isascii():
                text.encode()
        except (AttributeError, LookupError, TypeError, ValueError):
            return None
        self.misses = 0
        return index, call, text, self._size + len(text)

    def read(self, value: object) -> tuple[Chunk, int] | None:
        """Return the chunk that an object is, and the characters of its strings; None if it is to
        be read field by field.

        The chunk is what `read_chunk` reads where it finds nothing odd. It shares nothing with the
        object that can change.
        """
        strings: _Strings = []
        try:
            chunk = self._converted(value) if type(value) is dict else _model(value, strings)
            if chunk is None:
                if type(value) is LastChunk:
                    return None
                chunk = convert(_fields(Chunk, value, strings), Chunk)
            _collect(chunk, strings)
            head = head_of(chunk)
            if head != self._head:
                self._size = _measure([text for text in _texts_of(head) if text is not None])
                self._head, self._count = head, 0
            if self.misses <= MOST_MISSES:
                own = value if type(value) is dict else getattr(value, "__dict__", _NOTHING)
                if len(own) != self._count:
                    self._repeat(own)
            return chunk, self._size + _measure(strings)
        except (_UnfitError, TypeError, ValueError):
            return None

    def _repeat(self, fields: JsonObject) -> None:
        """Take the fields of an object, all but its choices, for those that the next repeats."""
        names = [name for name in fields if name in _HEAD or fields[name] is None]
        rest = {*fields}.difference(names, _PADDING)
        names = ["created", *(name for name in names if name not in {"created", *_PADDING})]
        is_usual = rest == {"choices"} and "created" in fields
        self._count = len(fields) if is_usual else 0
        self._get = itemgetter(*(*names, *_PADDING.intersection(fields), "choices"))
        self._repeated = tuple(map(fields.get, names))

    def _converted(self, value: JsonObject) -> Chunk | None:
        """Convert a mapping at once; None where the stream has fields that do not fit."""
        if self._takes_dicts and type(value.get("choices")) is list:
            try:
                return convert(value, Chunk)
            except ValueError:
                self._takes_dicts = False
        return None


def _measure(strings: _Strings) -> int:
    """Return how many characters strings have, all of which must be whole."""
    for text in strings:
        if type(text) is not str:  # but a number, an enum's or another class's
            raise _UnfitError
    whole = "".join(cast("list[str]", strings))
    if not whole.isascii():
        whole.encode()  # refuses half a surrogate pair
    return len(whole)


def _only(value: Any, is_dict: bool, below: str, *nulls: str) -> tuple[int, dict[str, Any]]:
    """Return the index of a choice or call and the fields of what is below it, if that has one
    field and nothing is beside it; else no fields.
    """
    if is_dict:
        own, fields = value, value[below]
        is_odd = type(own) is not dict or type(fields) is not dict
    else:
        own = value.__dict__
        inner = own[below]
        fields, is_odd = inner.__dict__, value.__pydantic_extra__ or inner.__pydantic_extra__
    index = own["index"]
    if (
        is_odd
        or len(own) != 2 + (own.get(nulls[0], 0) is None) + (own.get(nulls[1], 0) is None)
        or [*fields.values()].count(None) != len(fields) - 1
        or type(index) is not int
    ):
        return 0, _NOTHING
    return index, fields


def _model(value: Any, strings: _Strings) -> Chunk | None:
    """Read an object of openai's models with one choice, as most have; None for any other."""
    try:
        own, more = value.__dict__, value.__pydantic_extra__
        # That there are no other fields is known by their number. Padding is a field of its own
        # since openai 3.
        if (
            len(own) != 8 + ("moderation" in own) + ("obfuscation" in own)
            or own["usage"] is not None
            or own.get("moderation") is not None
            or type(own["created"]) is not int
            or (more and more.keys() != _PADDING)
        ):
            return None
        [choice] = own["choices"]
        chunk = Chunk(*_opening_of(own))
        chunk.choices = [_model_choice(choice, strings)]
        return chunk
    except (_UnfitError, AttributeError, LookupError, TypeError, ValueError):
        strings.clear()
        return None


def _model_choice(choice: Any, strings: _Strings) -> Choice:
    own, of_delta = choice.__dict__, choice.delta
    fields, index = of_delta.__dict__, own["index"]
    logprobs, calls = own["logprobs"], fields["tool_calls"]
    if (
        len(own) != 4
        or len(fields) != 5 + ("audio" in fields)
        or fields["function_call"] is not None
        or fields.get("audio") is not None
        or type(index) is not int
        or choice.__pydantic_extra__
    ):
        raise _UnfitError
    delta = Delta(fields["role"], fields["content"], fields["refusal"])
    if more := of_delta.__pydantic_extra__:
        if not _REASONING.issuperset(more):
            fields, more = _split(Delta, {**fields, **more}, strings), {}
        delta = convert({**fields, **more, "tool_calls": None}, Delta)
    if calls is not None:
        delta.tool_calls = [_model_call(call) for call in calls]
    return Choice(index, delta, _model_logprobs(logprobs), own["finish_reason"])


def _model_call(value: Any) -> ToolCallFragment:
    call, function = value.__dict__, value.function
    own = function.__dict__
    if (
        len(call) != 4
        or len(own) != 2
        or type(call["index"]) is not int
        or value.__pydantic_extra__
        or function.__pydantic_extra__
    ):
        raise _UnfitError
    fragment = FunctionFragment(own["name"], own["arguments"])
    return ToolCallFragment(call["index"], call["id"], call["type"], fragment)


def _model_logprobs(value: Any) -> Logprobs | None:
    if value is None:
        return None
    if value.__pydantic_extra__:
        raise _UnfitError
    return convert({name: _model_tokens(item) for name, item in value.__dict__.items()}, Logprobs)


def _model_tokens(tokens: Any) -> list[JsonObject] | None:
    """Return the fields of tokens, and of the likeliest below each."""
    if tokens is None:
        return None
    found = []
    for token in tokens:
        if token.__pydantic_extra__:
            raise _UnfitError
        fields = token.__dict__
        if fields.get("top_logprobs"):
            fields = {**fields, "top_logprobs": _model_tokens(fields["top_logprobs"])}
        found.append(fields)
    return found


@cache
def _levels_of(kind: type[Struct]) -> tuple[frozenset[str], Mapping[str, type[Struct]]]:
    """Return the names of a Struct's fields, and the Structs below it."""
    names, below = frozenset(kind.__struct_fields__) - OTHERWISE_READ, {}
    for name, hint in get_type_hints(kind).items():
        [of, *_] = get_args(hint)
        [of, *_] = get_args(of) or [of]  # of a list's entries
        if name in names and isinstance(of, type) and issubclass(of, Struct):
            below[name] = of
    return names, below


def _fields(kind: type[Struct], value: Any, strings: _Strings) -> JsonObject:
    """Return the fields of an object that a Struct has, those below it as well, and copies of the
    others in `extra`.

    The strings of those are added to `strings`.
    """
    names, levels = _levels_of(kind)
    if type(value) is not dict and not is_object(value):
        raise _UnfitError
    fields = fields_of(value)
    if not names.issuperset(fields):
        fields = _split(kind, fields, strings)
    for name, below in levels.items():
        item: Any = fields.get(name)
        if item is not None:
            is_list = type(item) is list
            found = [_fields(below, entry, strings) for entry in (item if is_list else [item])]
            fields = {**fields, name: found if is_list else found[0]}
    return fields


def _split(kind: type[Struct], fields: JsonObject, strings: _Strings) -> JsonObject:
    """Return the fields that a Struct has, and copies of the others in `extra`."""
    (names, _), own, vendors = _levels_of(kind), {}, {}
    for name, item in fields.items():
        if name in names:
            own[name] = item
        elif item is not None:
            vendors[name] = item
    own["extra"] = _extra(vendors, strings)
    return own


def _extra(fields: JsonObject, strings: _Strings) -> Extra | None:
    """Copy a vendor's fields."""
    if not fields:
        return None
    groq = fields.get("x_groq")
    if not _RESERVED.isdisjoint(fields) or (groq is not None and error_of(groq)):
        raise _UnfitError
    strings += fields
    return Extra({name: _copied(fields[name], strings, _MOST_LEVELS) for name in sorted(fields)})


def _copied(value: Any, strings: _Strings, levels: int) -> object:
    kind = type(value)
    if kind is str:
        strings.append(value)
        return value
    if kind in _SCALARS:
        return value
    if not levels:
        raise _UnfitError
    places: Iterable[tuple[Any, object]]
    if kind is dict:
        strings += value
        places = value.items()
    elif kind is list:
        places = enumerate(value)
    else:
        raise _UnfitError
    copy = value.copy()
    for place, item in places:
        if type(item) is str:  # as above, without the call
            strings.append(item)
        elif type(item) not in _SCALARS:
            copy[place] = _copied(item, strings, levels - 1)
    return copy


def _collect(chunk: Chunk, strings: _Strings) -> None:
    """Add the strings of a chunk's choices, but for those in `extra`."""
    # One by one: of ten that a choice may have at its place most are missing.
    for choice in chunk.choices or ():
        delta = choice.delta
        if delta is not None:
            if delta.audio is not None or delta.function_call is not None:
                raise _UnfitError
            _collect_delta(delta, strings)
        if choice.finish_reason is not None:
            strings.append(choice.finish_reason)
        if choice.text is not None:
            strings.append(choice.text)
        if choice.logprobs is not None:
            for token in (*(choice.logprobs.content or ()), *(choice.logprobs.refusal or ())):
                tokens = [token, *(token.top_logprobs or ())]
                strings += [each.token for each in tokens if each.token is not None]


def _collect_delta(delta: Delta, strings: _Strings) -> None:
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
            strings += [*detail, *(item for item in detail.values() if type(item) is str)]
    for call in delta.tool_calls or ():
        texts: _Strings = [call.id, call.type]
        if call.function is not None:
            texts += (call.function.name, call.function.arguments)
        if call.custom is not None:
            texts += (call.custom.name, call.custom.input)
        strings += [text for text in texts if text is not None]
