"""The yardstick: the loop that a good engineer writes by hand, and the same for events.

`completion_of` reads the bytes of a stream and returns one completion in the API's shape;
`events_of` yields what each chunk adds. Both decode what the job needs into typed Structs, skip
every other field, and trust the server: no limits, no problems, no lone surrogates, no CRLF. What
need not be joined (usage, logprobs) stays a Struct, which `msgspec.json.encode` accepts.
Nothing here comes from the package, so that no change of the package moves the yardstick.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from bare import Function, Logprobs, TokenLogprob, ToolCall, Usage
from msgspec import Struct


class ReasoningDetail(Struct):
    index: int = 0
    type: str | None = None
    id: str | None = None
    format: str | None = None
    text: str | None = None
    summary: str | None = None
    data: str | None = None
    signature: str | None = None


class Delta(Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    reasoning_details: list[ReasoningDetail] | None = None
    tool_calls: list[ToolCall] | None = None


class Choice(Struct):
    index: int = 0
    delta: Delta = msgspec.field(default_factory=Delta)
    logprobs: Logprobs | None = None
    finish_reason: str | None = None


class Chunk(Struct):
    id: str | None = None
    created: int | None = None
    model: str | None = None
    service_tier: str | None = None
    system_fingerprint: str | None = None
    choices: list[Choice] = []
    usage: Usage | None = None


decode = msgspec.json.Decoder(Chunk).decode


# --- one completion -----------------------------------------------------------------------


class Joined:
    """What has arrived of one choice."""

    def __init__(self) -> None:
        self.content: list[str] = []
        self.refusal: list[str] = []
        self.reasoning: list[str] = []
        self.reasoning_content: list[str] = []
        self.details: dict[int, tuple[ReasoningDetail, list[str]]] = {}
        self.calls: dict[int | None, tuple[ToolCall, list[str]]] = {}
        self.logprobs: list[TokenLogprob] = []
        self.refusal_logprobs: list[TokenLogprob] = []
        self.finish_reason: str | None = None


def completion_of(reads: Iterable[bytes]) -> dict[str, Any]:
    """Return the completion of a stream. Raises ValueError for what it cannot read."""
    choices: dict[int, Joined] = {}
    first = usage = None
    buffer = b""
    for data in reads:
        buffer += data
        *events, buffer = buffer.split(b"\n\n")
        for event in events:
            if not event.startswith(b"data: ") or event == b"data: [DONE]":
                continue
            chunk = decode(event[6:])
            if first is None:
                first = chunk
            if chunk.usage is not None:
                usage = chunk.usage
            for choice in chunk.choices:
                joined = choices.get(choice.index)
                if joined is None:
                    joined = choices[choice.index] = Joined()
                delta = choice.delta
                if delta.content:
                    joined.content.append(delta.content)
                if delta.refusal:
                    joined.refusal.append(delta.refusal)
                if delta.reasoning:
                    joined.reasoning.append(delta.reasoning)
                if delta.reasoning_content:
                    joined.reasoning_content.append(delta.reasoning_content)
                if delta.reasoning_details:
                    add_details(joined.details, delta.reasoning_details)
                if delta.tool_calls:
                    add_calls(joined.calls, delta.tool_calls)
                if choice.logprobs is not None:
                    joined.logprobs += choice.logprobs.content or ()
                    joined.refusal_logprobs += choice.logprobs.refusal or ()
                if choice.finish_reason is not None:
                    joined.finish_reason = choice.finish_reason
    if first is None:
        raise ValueError("no chunk arrived")
    return {
        "id": first.id,
        "object": "chat.completion",
        "created": first.created,
        "model": first.model,
        "service_tier": first.service_tier,
        "system_fingerprint": first.system_fingerprint,
        "choices": [choice_of(index, joined) for index, joined in sorted(choices.items())],
        "usage": usage,
    }


def add_calls(
    calls: dict[int | None, tuple[ToolCall, list[str]]], fragments: list[ToolCall]
) -> None:
    """Add fragments of tool calls, each to the call at its index."""
    for fragment in fragments:
        call = calls.get(fragment.index)
        if call is None:
            call = calls[fragment.index] = (fragment, [])
        function = fragment.function
        if function is not None and function.arguments:
            call[1].append(function.arguments)


def add_details(
    details: dict[int, tuple[ReasoningDetail, list[str]]], fragments: list[ReasoningDetail]
) -> None:
    """Add fragments of `reasoning_details`, each to the detail at its index."""
    for fragment in fragments:
        detail = details.get(fragment.index)
        if detail is None:
            detail = details[fragment.index] = (fragment, [])
        text = fragment.text or fragment.summary or fragment.data
        if text:
            detail[1].append(text)
        if fragment.signature:
            detail[0].signature = fragment.signature


def choice_of(index: int, joined: Joined) -> dict[str, Any]:
    """Return a choice in the API's shape."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(joined.content) or None,
        "refusal": "".join(joined.refusal) or None,
    }
    if joined.reasoning:
        message["reasoning"] = "".join(joined.reasoning)
    if joined.reasoning_content:
        message["reasoning_content"] = "".join(joined.reasoning_content)
    if joined.details:
        message["reasoning_details"] = [detail_of(*each) for each in joined.details.values()]
    if joined.calls:
        message["tool_calls"] = [call_of(*each) for each in joined.calls.values()]
    logprobs = None
    if joined.logprobs or joined.refusal_logprobs:
        refusal = joined.refusal_logprobs or None
        logprobs = {"content": joined.logprobs or None, "refusal": refusal}
    return {
        "index": index,
        "message": message,
        "logprobs": logprobs,
        "finish_reason": joined.finish_reason,
    }


def call_of(call: ToolCall, arguments: list[str]) -> dict[str, Any]:
    """Return a tool call in the API's shape."""
    name = call.function.name if call.function is not None else None
    function = {"name": name, "arguments": "".join(arguments)}
    return {"id": call.id, "type": "function", "function": function}


def detail_of(detail: ReasoningDetail, texts: list[str]) -> dict[str, Any]:
    """Return a reasoning detail with its text joined."""
    key = "text" if detail.text is not None else "summary" if detail.summary is not None else "data"
    return {
        "type": detail.type,
        "id": detail.id,
        "format": detail.format,
        "index": detail.index,
        "signature": detail.signature,
        key: "".join(texts),
    }


# --- events -------------------------------------------------------------------------------


class TextDelta(Struct):
    type: str
    index: int
    text: str


class ToolCallDelta(Struct):
    index: int
    call: int | None
    id: str | None
    name: str | None
    arguments: str


class Finished(Struct):
    index: int
    finish_reason: str


class Done(Struct):
    usage: Usage | None


def events_of(reads: Iterable[bytes]) -> Iterator[TextDelta | ToolCallDelta | Finished | Done]:
    """Yield what each chunk of a stream adds, and Done at its end. Raises ValueError for what
    it cannot read.
    """
    usage = None
    buffer = b""
    for data in reads:
        buffer += data
        *events, buffer = buffer.split(b"\n\n")
        for event in events:
            if not event.startswith(b"data: ") or event == b"data: [DONE]":
                continue
            chunk = decode(event[6:])
            for choice in chunk.choices:
                index, delta = choice.index, choice.delta
                if delta.content:
                    yield TextDelta("content", index, delta.content)
                if delta.refusal:
                    yield TextDelta("refusal", index, delta.refusal)
                if text := delta.reasoning or delta.reasoning_content:
                    yield TextDelta("reasoning", index, text)
                for call in delta.tool_calls or ():
                    function = call.function or Function()
                    arguments = function.arguments or ""
                    yield ToolCallDelta(index, call.index, call.id, function.name, arguments)
                if choice.finish_reason is not None:
                    yield Finished(index, choice.finish_reason)
            if chunk.usage is not None:
                usage = chunk.usage
    yield Done(usage)
