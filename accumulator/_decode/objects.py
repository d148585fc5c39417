"""Chunks that are objects: mappings, and the chunk objects of any SDK.

Nearly all are read here: a mapping by one strict conversion, an object of openai's models by its
own fields, and either with a vendor's fields level by level. What does not fit is left to
`lenient`. No SDK is imported for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

from msgspec import Struct, convert, to_builtins

from .chunk import (
    OTHERWISE_READ,
    Choice,
    Chunk,
    CompletionTokensDetails,
    CustomFragment,
    Delta,
    Extra,
    FunctionFragment,
    JsonObject,
    Logprobs,
    PromptTokensDetails,
    TokenLogprob,
    ToolCallFragment,
    TopLogprob,
    Usage,
)
from .values import error_of, fields_of, is_object

__all__ = ["LastChunk", "is_chunk_like", "read_object"]

K = TypeVar("K", bound=Struct)
_Strings = list[object]  # all of a chunk, to be looked at together
_MOST_LEVELS = 8  # of a vendor's value that is certainly not nested too deep
_SCALARS = frozenset({int, float, bool, type(None)})
_BELOW: Mapping[type[Struct], Mapping[str, type[Struct]]] = {
    Chunk: {"choices": Choice, "usage": Usage},
    Choice: {"delta": Delta, "logprobs": Logprobs, "usage": Usage},
    Delta: {"tool_calls": ToolCallFragment},
    ToolCallFragment: {"function": FunctionFragment, "custom": CustomFragment},
    Logprobs: {"content": TokenLogprob, "refusal": TokenLogprob},
    TokenLogprob: {"top_logprobs": TopLogprob},
    Usage: {
        "prompt_tokens_details": PromptTokensDetails,
        "completion_tokens_details": CompletionTokensDetails,
    },
}
_KINDS: tuple[type[Struct], ...] = (
    *(Chunk, Choice, Delta, ToolCallFragment, FunctionFragment, CustomFragment),
    *(Logprobs, TokenLogprob, TopLogprob),
    *(Usage, PromptTokensDetails, CompletionTokensDetails),
)
_NAMES: Mapping[type[Struct], frozenset[str]] = {
    kind: frozenset(kind.__struct_fields__) - OTHERWISE_READ for kind in _KINDS
}
_CONVERTED = _NAMES[Delta] | {"reasoning_details"}  # the fields that a delta is converted with
_RESERVED = frozenset({"error", "message"})  # what is more than a vendor's field


class LastChunk(JsonObject):
    """A chunk behind which `[DONE]` follows."""


class _UnfitError(Exception):
    """An object has something that is left to the reader of any value."""


def is_chunk_like(value: object) -> bool:
    """Return whether a value may be a chunk: a mapping, or an object with `choices`."""
    # In the order in which they are found out fastest.
    return type(value) is dict or hasattr(value, "choices") or isinstance(value, Mapping)


def read_object(value: object) -> tuple[Chunk, int] | None:
    """Return the chunk that an object is, and the characters of its strings; None if it is to be
    read field by field.

    The chunk is what `read_chunk` reads where it finds nothing odd. It shares nothing with the
    object that can change.
    """
    strings: _Strings = []
    try:
        chunk = _convert(value) if type(value) is dict else _model(value, strings)
        if chunk is None:
            if type(value) is LastChunk:
                return None
            strings.clear()
            chunk = convert(_dict(Chunk, value, strings), Chunk)
        _collect(chunk, strings)
        for text in strings:
            if type(text) is not str:  # but a number, an enum's or another class's
                return None
        whole = "".join(cast("list[str]", strings))
        if not whole.isascii():
            whole.encode()  # refuses half a surrogate pair
    except (_UnfitError, TypeError, ValueError):
        return None
    return chunk, len(whole)


def _convert(value: Mapping[str, Any]) -> Chunk | None:
    """Convert a mapping at once; None if it has a vendor's field, or another that does not fit."""
    choices = value.get("choices")
    if type(choices) is not list:
        return None
    if choices and type(choices[0]) is dict:
        # A refusal costs more than all else, and most vendors' fields stand here.
        delta = choices[0].get("delta")
        if type(delta) is dict and not _CONVERTED.issuperset(delta):
            return None
    try:
        return convert(value, Chunk)
    except ValueError:
        return None


def _model(value: Any, strings: _Strings) -> Chunk | None:
    """Read an object of openai's models by the fields that most have; None for any other."""
    try:
        own, more = value.__dict__, value.__pydantic_extra__
        # That there are no other fields is known by their number. Padding is a field of its own
        # since openai 3.
        if (
            len(own) != 8 + ("moderation" in own) + ("obfuscation" in own)
            or own["usage"] is not None
            or own.get("moderation") is not None
            or type(own["created"]) is not int
            or (more and (len(more) > 1 or "obfuscation" not in more))
        ):
            return None
        return Chunk(
            own["id"],
            own["object"],
            own["created"],
            own["model"],
            own["service_tier"],
            own["system_fingerprint"],
            [_model_choice(choice, strings) for choice in _list(own["choices"])],
        )
    except (_UnfitError, AttributeError, LookupError, TypeError, ValueError):
        return None


def _model_choice(value: Any, strings: _Strings) -> Choice:
    own, of_delta = value.__dict__, value.delta
    fields, more = of_delta.__dict__, of_delta.__pydantic_extra__
    index, logprobs, calls = own["index"], own["logprobs"], fields["tool_calls"]
    if (
        len(own) != 4
        or len(fields) != 5 + ("audio" in fields)
        or fields["function_call"] is not None
        or fields.get("audio") is not None
        or type(index) is not int
        or value.__pydantic_extra__
    ):
        raise _UnfitError
    role, content, refusal = fields["role"], fields["content"], fields["refusal"]
    if more and _CONVERTED.issuperset(more):  # reasoning
        delta = convert({"role": role, "content": content, "refusal": refusal, **more}, Delta)
    else:
        delta = Delta(role, content, refusal)
        if more:
            vendors = {name: item for name, item in more.items() if item is not None}
            delta.reasoning = vendors.pop("reasoning", None)
            delta.reasoning_content = vendors.pop("reasoning_content", None)
            if not _NAMES[Delta].isdisjoint(vendors):  # that this openai does not know yet
                raise _UnfitError
            delta.extra = _extra(vendors, strings)
    if calls is not None:
        delta.tool_calls = [*map(_model_call, _list(calls))]
    logprobs = None if logprobs is None else _model_logprobs(logprobs)
    return Choice(index, delta, logprobs, own["finish_reason"])


def _model_call(value: Any) -> ToolCallFragment:
    call, function = value.__dict__, value.function.__dict__
    index = call["index"]
    if (
        len(call) != 4
        or len(function) != 2
        or type(index) is not int
        or value.__pydantic_extra__
        or call["function"].__pydantic_extra__
    ):
        raise _UnfitError
    return ToolCallFragment(
        index, call["id"], call["type"], FunctionFragment(function["name"], function["arguments"])
    )


def _model_logprobs(value: Any) -> Logprobs:
    if value.__pydantic_extra__:
        raise _UnfitError
    return convert({name: _model_tokens(item) for name, item in value.__dict__.items()}, Logprobs)


def _model_tokens(value: Any) -> list[JsonObject] | None:
    if value is None:
        return None
    tokens = []
    for token in _list(value):
        own, tops = token.__dict__, token.top_logprobs
        if token.__pydantic_extra__ or (
            tops is not None and any(top.__pydantic_extra__ for top in _list(tops))
        ):
            raise _UnfitError
        if tops is not None:
            own = {**own, "top_logprobs": [top.__dict__ for top in tops]}
        tokens.append(own)
    return tokens


def _list(value: list[K]) -> list[K]:
    if type(value) is not list:
        raise _UnfitError
    return value


def _dict(kind: type[Struct], value: Any, strings: _Strings) -> JsonObject:
    """Return the fields of an object, and of those below it, as Structs have them."""
    own = _fields(kind, value, strings)
    for name, below in _BELOW.get(kind, {}).items():
        item = own.get(name)
        if type(item) is list:
            own = {**own, name: [_dict(below, entry, strings) for entry in item]}
        elif item is not None:
            own = {**own, name: _dict(below, item, strings)}
    return own


def _fields(kind: type[Struct], value: Any, strings: _Strings) -> JsonObject:
    """Return the fields of an object that a Struct has, and copies of the others in `extra`.

    The strings of those are added to `strings`.
    """
    if type(value) is not dict and not is_object(value):
        raise _UnfitError
    fields, names = fields_of(value), _NAMES[kind]
    if names.issuperset(fields):
        return fields
    own, vendors = {}, {}
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
    """Add the strings of a chunk, but for those in `extra`."""
    # One by one: of ten that a chunk may have at its place most are missing.
    if chunk.id is not None:
        strings.append(chunk.id)
    if chunk.model is not None:
        strings.append(chunk.model)
    if chunk.service_tier is not None:
        strings.append(chunk.service_tier)
    if chunk.system_fingerprint is not None:
        strings.append(chunk.system_fingerprint)
    for choice in chunk.choices or ():
        if choice.finish_reason is not None:
            strings.append(choice.finish_reason)
        if choice.text is not None:
            strings.append(choice.text)
        if choice.delta is not None:
            _collect_delta(choice.delta, strings)
        if choice.logprobs is not None:
            _collect_tokens(choice.logprobs, strings)


def _collect_delta(delta: Delta, strings: _Strings) -> None:
    if delta.audio is not None or delta.function_call is not None:
        raise _UnfitError
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
    if delta.tool_calls is not None:
        _collect_calls(delta.tool_calls, strings)


def _collect_calls(calls: list[ToolCallFragment], strings: _Strings) -> None:
    for call in calls:
        texts: _Strings = [call.id, call.type]
        if call.function is not None:
            texts += (call.function.name, call.function.arguments)
        if call.custom is not None:
            texts += (call.custom.name, call.custom.input)
        strings += [text for text in texts if text is not None]


def _collect_tokens(logprobs: Logprobs, strings: _Strings) -> None:
    for token in (*(logprobs.content or ()), *(logprobs.refusal or ())):
        tokens = [token, *(token.top_logprobs or ())]
        strings += [each.token for each in tokens if each.token is not None]
