"""Turn the state of a stream into a frozen completion that no later chunk can change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Any, TypeVar, cast

import attrs
from msgspec import Struct, structs, to_builtins

from .._decode import chunk as wire
from .._decode.chunk import JsonObject
from .._decode.lenient import read_usage
from .._decode.text import Text
from .._result.convert import names_of
from .._result.outbound import may_be_cut
from ..completion import (
    Audio,
    ChatCompletion,
    Choice,
    ChoiceLogprobs,
    CompletionTokensDetails,
    Custom,
    Function,
    FunctionCall,
    Message,
    PromptTokensDetails,
    TokenLogprob,
    TokenLogprobs,
    ToolCall,
    TopLogprob,
    Usage,
)
from .arguments import ArgumentsText
from .json_merge import IndexedList
from .state import (
    AudioState,
    CallsState,
    CallState,
    ChoiceState,
    LogprobsState,
    State,
    TokensState,
    ToolState,
)
from .usage import sum_of

F = TypeVar("F", ChatCompletion, Message)
K = TypeVar("K")
_new, _set = object.__new__, object.__setattr__
_PLAIN = ("str | None", "int | None", "float | None")
# The result's class with the same fields as a Struct.
_CLASSES: Mapping[type[Struct], type] = {
    AudioState: Audio,
    LogprobsState: ChoiceLogprobs,
    wire.CompletionTokensDetails: CompletionTokensDetails,
    wire.PromptTokensDetails: PromptTokensDetails,
    wire.TokenLogprob: TokenLogprob,
    wire.TopLogprob: TopLogprob,
    wire.Usage: Usage,
}

# The fields of each that may be more than a string or a number, besides `extra`.
_COPIED = {
    kind: [
        n for n, held in kind.__annotations__.items() if str(held) not in _PLAIN and n != "extra"
    ]
    for kind in _CLASSES
}


def _made(kind: type[K], fields: JsonObject) -> K:
    """Return an instance of a frozen class, faster than by its `__init__`. `fields` has all of its
    fields.
    """
    made = _new(kind)
    _set(made, "__dict__", fields)
    return made


def freeze(
    state: State,
    known_usage: Usage | None = None,
    known_choices: Mapping[int, Choice] = MappingProxyType({}),
) -> ChatCompletion:
    """Build the completion as far as it has arrived, less what is already built."""
    extra = _object(state.extra) if state.extra else {}
    usage, known, is_text = state.usage, state.choices, state.is_text
    if usage is None and extra:
        usage = _stand_in(extra)
    completion = _made(
        ChatCompletion,
        {
            **_BLANK[ChatCompletion],
            "id": state.id,
            "object": "text_completion" if is_text else "chat.completion",
            "created": state.created,
            "model": state.model,
            "choices": tuple(
                [
                    known_choices.get(i) or freeze_choice(i, known[i], is_text=is_text)
                    for i in sorted(known)
                ]
            ),
            "service_tier": state.service_tier,
            "system_fingerprint": state.system_fingerprint,
            "usage": known_usage or (None if usage is None else freeze_usage(usage)),
            "moderation": None if state.moderation is None else _object(state.moderation),
            "extra": extra,
        },
    )
    return _fill_from_extra(completion) if extra else completion


def _stand_in(extra: JsonObject) -> wire.Usage | None:
    """Read the usage of `x_groq`, if there is one; what does not fit stays there."""
    groq = extra.get("x_groq")
    if not isinstance(groq, dict) or not isinstance(groq.get("usage"), dict):
        return None
    usage = read_usage(groq["usage"])
    for part in (usage, usage.prompt_tokens_details, usage.completion_tokens_details):
        if part is not None and part.extra:
            for name in names_of(_CLASSES[type(part)]):
                part.extra.pop(name, None)
    return usage


def freeze_choice(index: int, state: ChoiceState, *, is_text: bool = False) -> Choice:
    """Build a choice; a legacy completion gets none of a message's constants."""
    return _made(
        Choice,
        {
            "index": index,
            "message": _message(state, is_text=is_text),
            "finish_reason": state.finish_reason,
            "logprobs": None if state.logprobs is None else freeze_fields(state.logprobs),
            "text": _string(state.text),
            "extra": _object(state.extra) if state.extra else {},
        },
    )


def _message(state: ChoiceState, *, is_text: bool) -> Message:
    parts, call, reason = state.parts, state.function_call, state.finish_reason
    extra = _object(state.delta_extra) if state.delta_extra else {}
    message = _made(
        Message,
        {
            **_BLANK[Message],
            "role": state.role or None,  # an empty one counts as missing
            "content": _string(state.content) if parts is None else tuple(_json(parts)),
            "refusal": _string(state.refusal),
            "reasoning": _string(state.reasoning),
            "reasoning_content": _string(state.reasoning_content),
            "tool_calls": None if state.calls is None else _tool_calls(state.calls, reason),
            "function_call": None if call is None else _function(FunctionCall, call, reason),
            "audio": None if state.audio is None else freeze_fields(state.audio),
            "annotations": None if state.annotations is None else tuple(_json(state.annotations)),
            "extra": extra,
            "_finish_reason": reason,
        },
    )
    message = _fill_from_extra(message) if extra else message
    # The constant role, if no chunk sent one; a legacy text has none.
    if not message.role and "role" not in extra and not (is_text and message == Message()):
        message.__dict__["role"] = "assistant"
    return message


# The JSON type of a field, by how its annotation begins.
_JSON = {"str": str, "int": int, "float": float, "bool": bool, "tuple": list, "JsonObject": dict}
_NOT_MERGED = {"object", "choices", "usage", "tool_calls", "function_call", "audio", "extra"}

# The fields of each class that are merged by rules, with their JSON types.
_KINDS: Mapping[type, Mapping[str, type]] = {
    kind: {
        field.name: next(json for name, json in _JSON.items() if str(field.type).startswith(name))
        for field in attrs.fields(kind)
        if field.name not in _NOT_MERGED and not field.name.startswith("_")
    }
    for kind in (ChatCompletion, Message)
}
# Their fields before anything arrived; some are only ever filled by `_fill_from_extra`.
_BLANK = {kind: dict.fromkeys(each.name for each in attrs.fields(kind)) for kind in _KINDS}


def _fill_from_extra(frozen: F) -> F:
    """Move values from `extra` to their fields: those that a rule of the caller's merged there, and
    those that the state has no field for.
    """
    extra, kinds = cast("dict[str, Any]", frozen.extra), _KINDS[type(frozen)]
    if kinds.keys().isdisjoint(extra):
        return frozen
    found: dict[str, Any] = {
        name: tuple(extra.pop(name)) if kind is list else extra.pop(name)
        for name, kind in kinds.items()
        if type(extra.get(name)) is kind and getattr(frozen, name) is None
    }
    return attrs.evolve(frozen, **found)


def _tool_calls(state: CallsState, finish_reason: str | None) -> tuple[ToolCall, ...]:
    calls = state.in_order()
    return tuple([freeze_call(c, finish_reason, is_last=c is calls[-1]) for c in calls])


def freeze_call(state: CallState, reason: str | None = None, *, is_last: bool = False) -> ToolCall:
    """Build a call of a choice with this finish reason, if any; `is_last` if it is the last one."""
    function, custom, kind = state.function, state.custom, state.type
    extra = _object(state.extra) if state.extra else {}
    if function is not None and custom is not None:
        tools = dict(state.tools())  # of two, an empty one is nothing
        function, custom = tools.get("function"), tools.get("custom")
    if not kind and "type" not in extra:
        kind = "function" if function is not None else kind if custom is None else "custom"
    return _made(
        ToolCall,
        {
            "id": state.id,
            "type": kind,
            "function": None if function is None else _function(Function, function, reason),
            "custom": None if custom is None else _custom(custom),
            "extra": extra,
            "_may_be_cut": may_be_cut(reason, is_last=is_last),
        },
    )


def _function(kind: type[K], state: ToolState, reason: str | None) -> K:
    return _made(
        kind,
        {
            "name": _string(state.name),
            "arguments": _string(state.text),
            "extra": _object(state.extra),
            "_finish_reason": reason,
        },
    )


def _custom(state: ToolState) -> Custom:
    name, text, extra = _string(state.name), _string(state.text), _object(state.extra)
    return _made(Custom, {"name": name, "input": text, "extra": extra})


def freeze_usage(state: wire.Usage) -> Usage:
    """Build the usage; a total that never arrived is the sum."""
    usage = cast("Usage", freeze_fields(state))
    if usage.total_tokens is None:
        usage.__dict__["total_tokens"] = sum_of(state)
    return usage


def freeze_tokens(state: TokensState) -> TokenLogprobs:
    # The list of runs only grows, so its first entries can be shared until someone looks.
    runs, until = state.runs, len(state.runs)
    return TokenLogprobs(
        state.count,
        lambda: [token for run in islice(runs, until) for token in run],
        freeze_token,
    )


def freeze_fields(state: Struct) -> Any:
    """Build the instance with the same fields as a Struct."""
    return _made(_CLASSES[type(state)], _fields(state))


def freeze_token(state: Struct) -> Any:
    """Build a token. There may be thousands, so they have slots."""
    return _CLASSES[type(state)](**_fields(state))


def _fields(state: Struct) -> JsonObject:
    fields = structs.asdict(state)
    fields["extra"] = _object(fields["extra"])
    for name in _COPIED[type(state)]:
        value = fields[name]
        fields[name] = _MAKERS.get(type(value), _same)(value)
    return fields


def _same(value: object) -> object:
    return value


def _string(text: Text | None) -> str | None:
    return None if text is None else str(text)


def _json(value: Any) -> Any:
    """Copy merged JSON, and join the strings in it."""
    return to_builtins(value, enc_hook=_joined)


def _joined(value: object) -> object:
    return value.entries if isinstance(value, IndexedList) else str(value)


def _object(state: JsonObject | None) -> JsonObject:
    return cast("JsonObject", _json(state)) if state else {}


# How to copy a value out of a Struct, by its type; values of other types never change.
_MAKERS: Mapping[type, Callable[[Any], Any]] = {
    **dict.fromkeys((Text, ArgumentsText), str),
    list: lambda state: tuple([_MAKERS.get(type(value), _same)(value) for value in state]),
    **dict.fromkeys(_CLASSES, freeze_fields),
    wire.TopLogprob: freeze_token,
    TokensState: freeze_tokens,
    bytearray: to_builtins,  # to base64
}
