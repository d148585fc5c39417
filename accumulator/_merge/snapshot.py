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
from .state import AudioState, ChoiceState, LogprobsState, State, TokensState
from .tool_calls import CallsState, CallState, FunctionState

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


def freeze(state: State) -> ChatCompletion:
    """Build the completion as far as it is known."""
    extra = _object(state.extra)
    usage = state.usage
    if usage is None:
        groq = extra.get("x_groq")
        if isinstance(groq, dict) and isinstance(groq.get("usage"), dict):
            usage = read_usage(groq["usage"])
    return _read_back(
        ChatCompletion(
            id=state.id,
            created=state.created,
            model=state.model,
            choices=tuple(
                [freeze_choice(index, choice) for index, choice in sorted(state.choices.items())]
            ),
            service_tier=state.service_tier,
            system_fingerprint=state.system_fingerprint,
            usage=None if usage is None else freeze_usage(usage),
            moderation=None if state.moderation is None else _object(state.moderation),
            extra=extra,
        ),
        _OF_COMPLETION,
    )


def freeze_choice(index: int, state: ChoiceState) -> Choice:
    return Choice(
        index=index,
        message=_message(state),
        finish_reason=state.finish_reason,
        logprobs=None if state.logprobs is None else _logprobs(state.logprobs),
        extra=_object(state.extra),
    )


def _message(state: ChoiceState) -> Message:
    annotations = state.annotations
    parts = None if state.parts is None else tuple(cast("list[object]", _json(state.parts)))
    return _read_back(
        Message(
            role=state.role,
            content=_string(state.content) if parts is None else parts,
            refusal=_string(state.refusal),
            reasoning=_string(state.reasoning),
            reasoning_content=_string(state.reasoning_content),
            tool_calls=None if state.calls is None else _tool_calls(state.calls),
            function_call=None
            if state.function_call is None
            else _function_call(state.function_call),
            audio=None if state.audio is None else freeze_audio(state.audio),
            annotations=None
            if annotations is None
            else tuple(cast("list[object]", _json(annotations))),
            extra=_object(state.delta_extra),
        ),
        _OF_MESSAGE,
    )


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


def _tool_calls(state: CallsState) -> tuple[ToolCall, ...]:
    return tuple(freeze_call(call) for call in sorted(state.items, key=lambda call: call.order))


def freeze_call(state: CallState) -> ToolCall:
    function, custom = state.function, state.custom
    return ToolCall(
        id=state.id,
        type=state.type,
        function=None
        if function is None
        else Function(
            name=_string(function.name),
            arguments=_string(function.text),
            extra=_object(function.extra),
        ),
        custom=None
        if custom is None
        else Custom(
            name=_string(custom.name), input=_string(custom.text), extra=_object(custom.extra)
        ),
        extra=_object(state.extra),
    )


def _function_call(state: FunctionState) -> FunctionCall:
    return FunctionCall(
        name=_string(state.name), arguments=_string(state.text), extra=_object(state.extra)
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
        lambda: tuple(
            freeze_token(token)
            for run in islice(runs, until)
            for token in (run.read() if isinstance(run, wire.UnreadTokens) else run)
        ),
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
    prompt, completion, total = state.prompt_tokens, state.completion_tokens, state.total_tokens
    if prompt is not None and completion is not None:
        # Split usage: the totals that came with each half are only that half's.
        total = max(total or 0, prompt + completion)
    completion_details, prompt_details = (
        state.completion_tokens_details,
        state.prompt_tokens_details,
    )
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=total,
        completion_tokens_details=None
        if completion_details is None
        else CompletionTokensDetails(
            accepted_prediction_tokens=completion_details.accepted_prediction_tokens,
            audio_tokens=completion_details.audio_tokens,
            reasoning_tokens=completion_details.reasoning_tokens,
            rejected_prediction_tokens=completion_details.rejected_prediction_tokens,
            extra=_object(completion_details.extra),
        ),
        prompt_tokens_details=None
        if prompt_details is None
        else PromptTokensDetails(
            audio_tokens=prompt_details.audio_tokens,
            cached_tokens=prompt_details.cached_tokens,
            extra=_object(prompt_details.extra),
        ),
        extra=_object(state.extra),
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
