"""The state of a stream to a frozen completion, which shares nothing that a later chunk changes."""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Mapping
from itertools import islice
from typing import Any, TypeVar, cast

import attrs

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


# What attrs writes for a frozen class sets each field by a call, and a completion has fifty.
_new, _set = object.__new__, object.__setattr__


def _made(kind: type[K], fields: JsonObject) -> K:
    """Return an instance of a frozen class; all its fields are given."""
    made = _new(kind)
    _set(made, "__dict__", fields)
    return made


_EMPTY_MESSAGE: JsonObject = {a.name: None for a in attrs.fields(Message)}


def freeze(state: State) -> ChatCompletion:
    """Build the completion as far as it is known."""
    extra = {} if state.extra is None else _object(state.extra)
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
    return _read_back(completion, _OF_COMPLETION) if extra else completion


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
    fields = _EMPTY_MESSAGE.copy()
    fields["role"] = state.role
    fields["_finish_reason"] = state.finish_reason
    if state.parts is not None:
        fields["content"] = tuple(cast("list[object]", _json(state.parts)))
    elif state.content is not None:
        fields["content"] = str(state.content)
    if state.refusal is not None:
        fields["refusal"] = str(state.refusal)
    if state.reasoning is not None:
        fields["reasoning"] = str(state.reasoning)
    if state.reasoning_content is not None:
        fields["reasoning_content"] = str(state.reasoning_content)
    if state.calls is not None:
        fields["tool_calls"] = _tool_calls(state.calls, state.finish_reason)
    if state.function_call is not None:
        fields["function_call"] = _function(FunctionCall, state.function_call, state.finish_reason)
    if state.audio is not None:
        fields["audio"] = freeze_audio(state.audio)
    if state.annotations is not None:
        fields["annotations"] = tuple(cast("list[object]", _json(state.annotations)))
    extra = fields["extra"] = {} if state.delta_extra is None else _object(state.delta_extra)
    message = _made(Message, fields)
    if extra:
        message = _read_back(message, _OF_MESSAGE)
    if not message.role and "role" not in message.extra and not (is_text and message == Message()):
        _set(message, "role", "assistant")
    return message


# The typed fields that a rule of the user's may have merged in `extra`, and their types.
_OF_COMPLETION: Mapping[str, type] = {
    **dict.fromkeys(("id", "model", "service_tier", "system_fingerprint"), str),
    "created": int,
    "moderation": dict,
}
_OF_MESSAGE: Mapping[str, type] = {
    **dict.fromkeys(("role", "content", "refusal", "reasoning", "reasoning_content"), str),
    "annotations": list,
}


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
    last = len(items) - 1
    return tuple(
        [
            freeze_call(call, finish_reason, is_last=place == last)
            for place, call in enumerate(items)
        ]
    )


def freeze_call(
    state: CallState, finish_reason: str | None = None, *, is_last: bool = False
) -> ToolCall:
    """Build a call of a choice that has finished so, or not yet; `is_last` of its calls."""
    tools = dict(state.tools())
    function, custom = tools.get("function"), tools.get("custom")
    extra = {} if state.extra is None else _object(state.extra)
    type_ = state.type
    if not type_ and "type" not in extra:
        type_ = next(iter(tools), type_)
    return _made(
        ToolCall,
        {
            "id": state.id,
            "type": type_,
            "function": None if function is None else _function(Function, function, finish_reason),
            "custom": None
            if custom is None
            else Custom(
                name=_string(custom.name), input=_string(custom.text), extra=_object(custom.extra)
            ),
            "extra": extra,
            "_may_be_cut": may_be_cut(finish_reason, is_last=is_last),
        },
    )


def _function(kind: type[C], state: FunctionState, finish_reason: str | None) -> C:
    return _made(
        kind,
        {
            "name": _string(state.name),
            "arguments": _string(state.text),
            "extra": {} if state.extra is None else _object(state.extra),
            "_finish_reason": finish_reason,
        },
    )


def freeze_audio(state: AudioState) -> Audio:
    return Audio(
        id=state.id,
        data=None if state.data is None else b2a_base64(state.data, newline=False).decode(),
        transcript=_string(state.transcript),
        expires_at=state.expires_at,
        extra=_object(state.extra),
    )


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


def freeze_usage(state: wire.Usage) -> Usage:
    output, input_ = state.completion_tokens_details, state.prompt_tokens_details
    return _made(
        Usage,
        {
            "prompt_tokens": state.prompt_tokens,
            "completion_tokens": state.completion_tokens,
            "total_tokens": total_of(state),
            "completion_tokens_details": None if output is None else _output_counts(output),
            "prompt_tokens_details": None if input_ is None else _prompt_counts(input_),
            "extra": {} if state.extra is None else _object(state.extra),
        },
    )


def _output_counts(state: wire.CompletionTokensDetails) -> CompletionTokensDetails:
    return _made(
        CompletionTokensDetails,
        {
            "accepted_prediction_tokens": state.accepted_prediction_tokens,
            "audio_tokens": state.audio_tokens,
            "reasoning_tokens": state.reasoning_tokens,
            "rejected_prediction_tokens": state.rejected_prediction_tokens,
            "extra": {} if state.extra is None else _object(state.extra),
        },
    )


def _prompt_counts(state: wire.PromptTokensDetails) -> PromptTokensDetails:
    return _made(
        PromptTokensDetails,
        {
            "audio_tokens": state.audio_tokens,
            "cached_tokens": state.cached_tokens,
            "extra": {} if state.extra is None else _object(state.extra),
        },
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


_PLAIN = frozenset({str, int, float, bool, type(None)})


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
