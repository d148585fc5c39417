"""The state of a stream to a frozen completion, which shares nothing that a later chunk changes."""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable, Mapping
from itertools import islice
from operator import attrgetter
from typing import Any, TypeVar, cast, get_args

import attrs
from msgspec import Struct, structs

from .._decode import chunk as wire
from .._decode.chunk import JsonObject
from .._decode.lenient import read_usage
from .._decode.text import Text
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
    may_be_cut,
)
from ..rules import TYPED
from .json_merge import IndexedList
from .state import (
    AudioState,
    CallsState,
    CallState,
    ChoiceState,
    FunctionState,
    LogprobsState,
    State,
    TokensState,
)
from .usage import total_of

__all__ = [
    "freeze",
    "freeze_audio",
    "freeze_call",
    "freeze_choice",
    "freeze_token",
    "freeze_tokens",
    "freeze_usage",
]

F = TypeVar("F", ChatCompletion, Message)
K = TypeVar("K")
C = TypeVar("C", Function, FunctionCall)
_PLAIN = frozenset({str, int, float, bool, type(None)})

# What attrs writes for a frozen class sets each field by a call, and a completion has fifty.
_new, _set = object.__new__, object.__setattr__


def _made(kind: type[K], fields: JsonObject) -> K:
    """Return an instance of a frozen class; all its fields are given."""
    made = _new(kind)
    _set(made, "__dict__", fields)
    return made


def _shared(kind: type, state: type[Struct], *but: str) -> Shared:
    own = {attribute.name for attribute in attrs.fields(kind)}
    names = tuple(n for n in state.__struct_fields__ if n in own and n not in but)
    return names, attrgetter(*names)


def _fields(shared: Shared, state: object) -> JsonObject:
    """Return the fields of a result that its state has under the same names."""
    names, get = shared
    fields = dict(zip(names, get(state)))  # noqa: B905  # one for each
    for name, value in fields.items():
        if type(value) not in _PLAIN:
            fields[name] = _FREEZE[type(value)](value)
    if fields.get("extra") is None:
        fields["extra"] = {}
    return fields


Shared = tuple[tuple[str, ...], Callable[[object], tuple[object, ...]]]
_OF_CHOICE = _shared(Choice, ChoiceState)
_OF_MESSAGE = _shared(Message, ChoiceState, "extra", "function_call")
_OF_COMPLETION = _shared(ChatCompletion, State, "choices")
_OF_USAGE = _shared(Usage, wire.Usage)
_OF_OUTPUT = _shared(CompletionTokensDetails, wire.CompletionTokensDetails)
_OF_PROMPT = _shared(PromptTokensDetails, wire.PromptTokensDetails)
_OF_AUDIO = _shared(Audio, AudioState)
_OF_LOGPROBS = _shared(ChoiceLogprobs, LogprobsState)
_EMPTY_MESSAGE: JsonObject = {a.name: None for a in attrs.fields(Message)}


def freeze(state: State) -> ChatCompletion:
    """Build the completion as far as it is known."""
    fields, known, is_text = _fields(_OF_COMPLETION, state), state.choices, state.is_text
    extra = cast("JsonObject", fields["extra"])
    if extra and fields["usage"] is None:
        groq = extra.get("x_groq")
        if isinstance(groq, dict) and isinstance(groq.get("usage"), dict):
            fields["usage"] = freeze_usage(read_usage(groq["usage"]))
    places = sorted(known) if len(known) > 1 else known
    fields["choices"] = tuple([freeze_choice(i, known[i], is_text=is_text) for i in places])
    fields["object"] = "text_completion" if is_text else "chat.completion"
    completion = _made(ChatCompletion, fields)
    return _read_back(completion, TYPED_KINDS["chunk"]) if extra else completion


def freeze_choice(index: int, state: ChoiceState, *, is_text: bool = False) -> Choice:
    """Build a choice; a legacy completion has none of a message's constants."""
    fields = _fields(_OF_CHOICE, state)
    fields["index"] = index
    fields["message"] = _message(state, is_text=is_text)
    return _made(Choice, fields)


def _message(state: ChoiceState, *, is_text: bool) -> Message:
    fields = _EMPTY_MESSAGE | _fields(_OF_MESSAGE, state)
    if state.parts is not None:
        fields["content"] = _tuple(state.parts)
    if state.calls is not None:
        fields["tool_calls"] = _tool_calls(state.calls, state.finish_reason)
    if state.function_call is not None:
        fields["function_call"] = _function(
            FunctionCall, state.function_call, is_finished=bool(state.finish_reason)
        )
    extra = fields["extra"] = _object(state.delta_extra)
    message = _made(Message, fields)
    if extra:
        message = _read_back(message, TYPED_KINDS["delta"])
    if not message.role and "role" not in message.extra and not (is_text and message == Message()):
        _set(message, "role", "assistant")
    return message


def _kinds(level: str, kind: type[Struct]) -> Mapping[str, type]:
    """Return the typed fields of a level, each with the JSON type of its values."""
    types = {field.name: get_args(field.type)[0] for field in structs.fields(kind)}
    return {
        name: next(json for json in (str, int, list, dict) if issubclass(types[name], json))
        for name in TYPED[level]
    }


# What a rule of the user's may have merged in `extra`.
TYPED_KINDS = {"chunk": _kinds("chunk", wire.Chunk), "delta": _kinds("delta", wire.Delta)}


def _read_back(frozen: F, kinds: Mapping[str, type]) -> F:
    """Put what a rule of the user's merged in `extra` to its typed field."""
    extra = cast("JsonObject", frozen.extra)
    if not extra or kinds.keys().isdisjoint(extra):
        return frozen
    found: dict[str, Any] = {
        name: extra.pop(name)
        for name, kind in kinds.items()
        if type(extra.get(name)) is kind and getattr(frozen, name) is None
    }
    if isinstance(found.get("annotations"), list):
        found["annotations"] = tuple(found["annotations"])
    return attrs.evolve(frozen, **found)


def _tool_calls(state: CallsState, finish_reason: str | None) -> tuple[ToolCall, ...]:
    items = state.items
    if len(items) > 1:
        items = sorted(items, key=lambda call: call.order)
    return tuple([freeze_call(c, finish_reason, is_last=c is items[-1]) for c in items])


def freeze_call(
    state: CallState, finish_reason: str | None = None, *, is_last: bool = False
) -> ToolCall:
    """Build a call of a choice that has finished so, or not yet; `is_last` of its calls."""
    tools = dict(state.tools())
    function, custom = tools.get("function"), tools.get("custom")
    extra = _object(state.extra)
    type_ = state.type
    if not type_ and "type" not in extra:
        type_ = next(iter(tools), type_)
    fields: JsonObject = {
        "id": state.id,
        "type": type_,
        "function": None,
        "custom": None,
        "extra": extra,
        "_may_be_cut": may_be_cut(finish_reason, is_last=is_last),
    }
    if function is not None:
        fields["function"] = _function(Function, function, is_finished=bool(finish_reason))
    if custom is not None:
        name, text = _string(custom.name), _string(custom.text)
        fields["custom"] = Custom(name=name, input=text, extra=_object(custom.extra))
    return _made(ToolCall, fields)


def _function(kind: type[C], state: FunctionState, *, is_finished: bool = False) -> C:
    return _made(
        kind,
        {
            "name": _string(state.name),
            "arguments": _string(state.text),
            "extra": _object(state.extra),
            "_is_finished": is_finished,
        },
    )


def freeze_audio(state: AudioState) -> Audio:
    return _made(Audio, _fields(_OF_AUDIO, state))


def freeze_usage(state: wire.Usage) -> Usage:
    fields = _fields(_OF_USAGE, state)
    fields["total_tokens"] = total_of(state)
    return _made(Usage, fields)


def freeze_tokens(state: TokensState) -> TokenLogprobs:
    # The list of runs only grows, so its first entries can be shared until someone looks.
    runs, until = state.runs, len(state.runs)
    return TokenLogprobs(
        state.count,
        lambda: [token for run in islice(runs, until) for token in run],
        freeze_token,
    )


def freeze_token(token: wire.TokenLogprob) -> TokenLogprob:
    top = token.top_logprobs
    return TokenLogprob(
        token=token.token,
        logprob=token.logprob,
        bytes=None if token.bytes is None else tuple(token.bytes),
        top_logprobs=None if top is None else tuple(map(_top, top)),
        extra=_object(token.extra),
    )


def _top(token: wire.TopLogprob) -> TopLogprob:
    return TopLogprob(
        token=token.token,
        logprob=token.logprob,
        bytes=None if token.bytes is None else tuple(token.bytes),
        extra=_object(token.extra),
    )


def _string(text: Text | None) -> str | None:
    return None if text is None else str(text)


def _object(state: JsonObject | None) -> JsonObject:
    """Copy an object of merged JSON out of the state."""
    if state is None:
        return {}
    copy = dict(state)
    # Most objects hold strings and numbers alone, which is asked for all at once.
    if not _PLAIN.issuperset(map(type, copy.values())):
        for name, value in state.items():
            if type(value) not in _PLAIN:
                copy[name] = _json(value)
    return copy


def _json(value: object) -> object:
    """Copy merged JSON out of the state."""
    if isinstance(value, dict):
        return _object(value)
    if isinstance(value, list):
        if _PLAIN.issuperset(map(type, value)):
            return value.copy()
        return [item if type(item) in _PLAIN else _json(item) for item in value]
    if isinstance(value, Text):
        return str(value)
    if isinstance(value, IndexedList):
        return [_json(item) for item in value.entries]
    return value


def _tuple(state: list[object]) -> tuple[object, ...]:
    return tuple(cast("list[object]", _json(state)))


def _base64(data: bytearray) -> str:
    return b2a_base64(data, newline=False).decode()


# What stands in a result for a value of the state.
_FREEZE: Mapping[type, Callable[[Any], object]] = {
    Text: str,
    list: _tuple,
    dict: _object,
    wire.Extra: _object,
    bytearray: _base64,
    AudioState: freeze_audio,
    TokensState: freeze_tokens,
    LogprobsState: lambda state: _made(ChoiceLogprobs, _fields(_OF_LOGPROBS, state)),
    wire.Usage: freeze_usage,
    wire.CompletionTokensDetails: lambda state: _made(
        CompletionTokensDetails, _fields(_OF_OUTPUT, state)
    ),
    wire.PromptTokensDetails: lambda state: _made(PromptTokensDetails, _fields(_OF_PROMPT, state)),
}
