"""The state of a stream to a frozen completion, which shares nothing that a later chunk changes."""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Mapping
from itertools import islice
from typing import Any, TypeVar, cast

import attrs
from msgspec import structs

from .._decode import chunk as wire
from .._decode.chunk import JsonObject
from .._decode.lenient import read_usage
from .._decode.text import Text
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


def freeze(state: State) -> ChatCompletion:
    """Build the completion as far as it is known."""
    extra = _object(state.extra) if state.extra else {}
    usage = state.usage
    if usage is None and extra:
        groq = extra.get("x_groq")
        if isinstance(groq, dict) and isinstance(groq.get("usage"), dict):
            usage = read_usage(groq["usage"])
    known, is_text = state.choices, state.is_text
    places = sorted(known) if len(known) > 1 else known
    choices = [freeze_choice(i, known[i], is_text=is_text) for i in places]
    completion = _made(
        ChatCompletion,
        {
            "id": state.id,
            "object": "text_completion" if is_text else "chat.completion",
            "created": state.created,
            "model": state.model,
            "choices": tuple(choices),
            "service_tier": state.service_tier,
            "system_fingerprint": state.system_fingerprint,
            "usage": None if usage is None else freeze_usage(usage),
            "moderation": None if state.moderation is None else _object(state.moderation),
            "extra": extra,
        },
    )
    return _read_back(completion) if extra else completion


def freeze_choice(index: int, state: ChoiceState, *, is_text: bool = False) -> Choice:
    """Build a choice; a legacy completion has none of a message's constants."""
    return _made(
        Choice,
        {
            "index": index,
            "message": _message(state, is_text=is_text),
            "finish_reason": state.finish_reason,
            "logprobs": None if state.logprobs is None else _logprobs(state.logprobs),
            "text": None if state.text is None else str(state.text),
            "extra": {} if state.extra is None else _object(state.extra),
        },
    )


def _message(state: ChoiceState, *, is_text: bool) -> Message:
    content = state.content
    extra = _object(state.delta_extra) if state.delta_extra else {}
    fields: JsonObject = {
        "role": state.role,
        "content": None if content is None else str(content),
        "refusal": _string(state.refusal),
        "reasoning": _string(state.reasoning),
        "reasoning_content": _string(state.reasoning_content),
        "tool_calls": None,
        "function_call": None,
        "audio": None if state.audio is None else freeze_audio(state.audio),
        "annotations": None if state.annotations is None else _tuple(state.annotations),
        "extra": extra,
        "_finish_reason": state.finish_reason,
    }
    if state.parts is not None:
        fields["content"] = _tuple(state.parts)
    if state.calls is not None:
        fields["tool_calls"] = _tool_calls(state.calls, state.finish_reason)
    if state.function_call is not None:
        fields["function_call"] = _function(FunctionCall, state.function_call, state.finish_reason)
    if extra or is_text:
        return _with_role(_read_back(_made(Message, fields)), is_text)
    fields["role"] = state.role or "assistant"
    return _made(Message, fields)


def _with_role(message: Message, is_text: bool) -> Message:
    """Add the role that no chunk brought; a legacy text has none."""
    if not message.role and "role" not in message.extra and not (is_text and message == Message()):
        _set(message, "role", "assistant")
    return message


_JSON = {"str": str, "int": int, "tuple": list, "JsonObject": dict}  # by how an annotation begins
_NOT_MERGED = {"object", "choices", "usage", "tool_calls", "function_call", "audio", "extra"}


def _kinds(of: type[attrs.AttrsInstance]) -> Mapping[str, type]:
    """Return the fields of a class that are merged by rules, each with its JSON type."""
    return {
        field.name: next(kind for name, kind in _JSON.items() if str(field.type).startswith(name))
        for field in attrs.fields(of)
        if field.name not in _NOT_MERGED and not field.name.startswith("_")
    }


_KINDS: Mapping[type, Mapping[str, type]] = {
    kind: _kinds(kind) for kind in (ChatCompletion, Message)
}


def _read_back(frozen: F) -> F:
    """Put what was merged in `extra` to its field: what a rule of the user's moved there, and what
    has a field of its class alone.
    """
    extra, kinds = cast("JsonObject", frozen.extra), _KINDS[type(frozen)]
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
        fields["function"] = _function(Function, function, finish_reason)
    if custom is not None:
        name, text = _string(custom.name), _string(custom.text)
        fields["custom"] = Custom(name=name, input=text, extra=_object(custom.extra))
    return _made(ToolCall, fields)


def _function(kind: type[C], state: FunctionState, finish_reason: str | None) -> C:
    return _made(
        kind,
        {
            "name": _string(state.name),
            "arguments": _string(state.text),
            "extra": _object(state.extra),
            "_finish_reason": finish_reason,
        },
    )


def freeze_audio(state: AudioState) -> Audio:
    fields = structs.asdict(state)
    if state.data is not None:
        fields["data"] = b2a_base64(state.data, newline=False).decode()
    fields["transcript"] = _string(state.transcript)
    fields["extra"] = _object(state.extra)
    return _made(Audio, fields)


def freeze_usage(state: wire.Usage) -> Usage:
    fields = structs.asdict(state)
    output, input_ = state.completion_tokens_details, state.prompt_tokens_details
    fields["total_tokens"] = total_of(state)
    if output is not None:
        fields["completion_tokens_details"] = _details(CompletionTokensDetails, output)
    if input_ is not None:
        fields["prompt_tokens_details"] = _details(PromptTokensDetails, input_)
    fields["extra"] = _object(state.extra)
    return _made(Usage, fields)


def _details(kind: type[K], state: wire.CompletionTokensDetails | wire.PromptTokensDetails) -> K:
    fields = structs.asdict(state)
    fields["extra"] = _object(state.extra)
    return _made(kind, fields)


def _logprobs(state: LogprobsState) -> ChoiceLogprobs:
    return ChoiceLogprobs(
        content=None if state.content is None else freeze_tokens(state.content),
        refusal=None if state.refusal is None else freeze_tokens(state.refusal),
        extra=_object(state.extra),
    )


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
