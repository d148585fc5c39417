"""What users write, for type checkers: mypy, pyright and ty read it, nothing runs it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, Literal, TypedDict

import aiohttp
import attrs
import httpx
import msgspec
import openai
import requests
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam
from pydantic import TypeAdapter
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from typing_extensions import assert_never, assert_type

from accumulator import (
    DEFAULT_RULES,
    Accumulator,
    AccumulatorError,
    ChatCompletion,
    Choice,
    DecodeError,
    Event,
    IncompleteStreamError,
    LimitExceededError,
    Limits,
    Message,
    ParseError,
    Problem,
    Rules,
    ServerError,
    StreamEnd,
    Timing,
    ToolCall,
    Usage,
    accumulate,
    iter_chunks,
    iter_events,
    split,
    telemetry,
    wrap,
)
from accumulator.asgi import CompletionMiddleware, Scope, tap
from accumulator.batch import reduce_sorted
from accumulator.replay import sse
from accumulator.streams import AsyncWrappedStream, DualWrappedStream, WrappedStream


def feed_everything(body: Iterable[bytes], lines: Iterable[str], chunks: Iterable[object]) -> None:
    acc = Accumulator(rules=DEFAULT_RULES, limits=Limits(event_bytes=None, depth=9), strict=True)
    for data in body:
        acc.feed_sse(data)
        acc.feed_sse(memoryview(data))
    for line in lines:
        acc.feed_line(line)
    for chunk in chunks:
        acc.feed(chunk)
    acc.close()
    assert_type(acc.completion(), ChatCompletion)
    assert_type(acc.snapshot(), ChatCompletion)
    assert_type(acc.problems, tuple[Problem, ...])
    if acc.status == "truncated":
        print(dict(acc.problem_counts))


def read_result(completion: ChatCompletion) -> None:
    assert_type(completion.choices, tuple[Choice, ...])
    assert_type(completion.usage, Usage | None)
    assert_type(completion.usage and completion.usage.total_tokens, int | None)
    message = completion.choices[0].message
    assert_type(message, Message)
    assert_type(message.tool_calls, tuple[ToolCall, ...] | None)
    for call in message.tool_calls or ():
        if call.function is not None and call.function.arguments_complete:
            assert_type(call.function.arguments, str | None)
        assert_type(call.name, str | None)
        assert_type(call.arguments, str | None)
    if isinstance(message.content, str):
        print(message.content.upper())
    messages: list[ChatCompletionMessageParam] = [message.to_message()]
    messages.append(message.to_message(content_beside_calls="empty"))
    plain: list[dict[str, object]] = [dict(message.to_message())]
    assert_type(completion.to_dict(), dict[str, object])
    assert_type(completion.to_json(), str)
    assert_type(ChatCompletion.from_dict(completion.to_dict()), ChatCompletion)
    assert_type(ChatCompletion.from_json(completion.to_json()), ChatCompletion)
    assert_type(attrs.evolve(completion, model="m"), ChatCompletion)
    print(messages, plain, completion.extra.get("citations"), {completion: 1})


def send_back(client: openai.OpenAI, message: Message) -> None:
    client.chat.completions.create(model="m", messages=[message.to_message()], stream=True)


def handle_errors(acc: Accumulator) -> ChatCompletion | None:
    try:
        return acc.completion()
    except ServerError as error:
        print(error.error)
    except IncompleteStreamError as error:
        return error.partial
    except DecodeError as error:
        if error.problem is not None:
            assert_type(error.problem.event, int)
            assert_type(error.problem.offset, int | None)
    except LimitExceededError as error:
        assert_type(error.limit, str)
        assert_type(error.bound, int)
    except AccumulatorError as error:
        assert_type(error.problems, tuple[Problem, ...])
    return None


def change_rules() -> Rules:
    return DEFAULT_RULES.replace({"delta.channel": "concat", "chunk.citations": "extend"})


# --- streams, and however they end ---


def record(end: StreamEnd) -> None:
    assert_type(end.completion, ChatCompletion)
    assert_type(end.status, Literal["complete", "truncated", "failed", "cancelled"])
    assert_type(end.error, BaseException | None)
    assert_type(end.timing, Timing | None)


def read_sync(body: Iterator[bytes], chunks: list[dict[str, object]]) -> None:
    assert_type(accumulate(body), ChatCompletion)
    assert_type(accumulate(chunks, limits=Limits()), ChatCompletion)
    assert_type(accumulate(["{}"], framing="lines"), ChatCompletion)
    assert_type(accumulate(chunks, on_end=lambda end: print(end.status)), ChatCompletion)
    with wrap(body, on_end=record, clock=time.monotonic, started=1.0, limits=Limits()) as stream:
        assert_type(stream, WrappedStream[bytes])
        for data in stream:
            assert_type(data, bytes)
    assert_type(stream.completion, ChatCompletion)


async def read_async(body: AsyncIterator[bytes]) -> None:
    assert_type(await accumulate(body, on_end=record), ChatCompletion)
    async with wrap(body, on_end=record) as stream:
        assert_type(stream, AsyncWrappedStream[bytes])
        async for data in stream:
            assert_type(data, bytes)
    assert_type(stream.completion, ChatCompletion)


def read_the_sdk(client: openai.OpenAI) -> None:
    chunks = client.chat.completions.create(model="m", messages=[], stream=True)
    assert_type(accumulate(chunks), ChatCompletion)
    with wrap(chunks) as stream:
        for chunk in stream:
            assert_type(chunk, ChatCompletionChunk)


async def read_the_async_sdk(client: openai.AsyncOpenAI, request: dict[str, Any]) -> None:
    chunks = await client.chat.completions.create(model="m", messages=[], stream=True)
    assert_type(await accumulate(chunks), ChatCompletion)
    async with wrap(chunks) as stream:
        async for chunk in stream:
            assert_type(chunk, ChatCompletionChunk)
    assert_type(stream.snapshot(), ChatCompletion)
    # What a dict asks for may be a stream or none.
    async with wrap(await client.chat.completions.create(**request)) as unsure:
        async for _ in unsure:
            pass
    async for _ in iter_events(await client.chat.completions.create(**request)):
        pass
    await accumulate(await client.chat.completions.create(**request))


def read_responses(response: httpx.Response, other: requests.Response) -> None:
    completion: ChatCompletion = accumulate(response)
    assert_type(accumulate(response).usage, Usage | None)
    assert_type(accumulate(other), ChatCompletion)
    for event in iter_events(response):
        assert_type(event, Event)
    for chunk in (*iter_chunks(response), *iter_chunks(other)):
        assert_type(chunk, bytes)
    with wrap(response) as stream:
        for data in stream:
            assert_type(data, bytes)
    print(completion)


async def read_async_responses(response: httpx.Response, other: aiohttp.ClientResponse) -> None:
    assert_type(await accumulate(response), ChatCompletion)
    assert_type(await accumulate(other), ChatCompletion)
    async for event in iter_events(response):
        assert_type(event, Event)
    async for chunk in iter_chunks(other):
        assert_type(chunk, bytes)


# --- events ---


def show(event: Event) -> str | None:
    match event.type:
        case "content.delta" | "refusal.delta" | "reasoning.delta":
            return event.delta
        case "tool_calls.function.arguments.delta" | "tool_calls.custom.input.delta":
            return event.delta
        case "content.done":
            return event.content
        case "refusal.done":
            return event.refusal
        case "reasoning.done":
            return event.reasoning
        case "tool_calls.function.arguments.done":
            return event.arguments
        case "tool_calls.custom.input.done":
            return event.input
        case "logprobs.content.delta" | "logprobs.content.done":
            return event.content[0].token
        case "logprobs.refusal.delta" | "logprobs.refusal.done":
            return event.refusal[0].token
        case "audio.delta":
            return event.transcript
        case "audio.done":
            return event.audio.transcript
        case "choice.done":
            return event.choice.finish_reason
        case "extra.delta":
            return f"{event.path}: {event.value}"
        case "usage":
            return str(event.usage.total_tokens)
        case "problem":
            return event.problem.message
        case "done":
            assert_type(event.completion, ChatCompletion)
            return f"{event.status}: {event.error}"
    assert_never(event)


async def show_all(chunks: Iterable[dict[str, object]], body: AsyncIterator[bytes]) -> None:
    for event in iter_events(chunks):
        assert_type(event, Event)
    async for event in iter_events(body, strict=True):
        assert_type(event, Event)
    Accumulator(on_event=show).feed({"choices": []})


# --- arguments, in types of one's own ---


@attrs.frozen
class AttrsQuery:
    city: str


class StructQuery(msgspec.Struct):
    city: str


class DictQuery(TypedDict):
    city: str


def read_arguments(call: ToolCall, message: Message) -> None:
    assert_type(call.arguments_as(AttrsQuery), AttrsQuery)
    assert_type(call.arguments_as(StructQuery), StructQuery)
    assert_type(call.arguments_as(DictQuery), DictQuery)
    assert_type(call.arguments_as(dict[str, int]), dict[str, int])
    if call.function is not None:
        assert_type(call.function.arguments_as(AttrsQuery), AttrsQuery)
    assert_type(message.content_as(list[str]), list[str])
    assert_type(message.content_as(TypeAdapter(list[str])), list[str])
    try:
        query: AttrsQuery | StructQuery = message.content_as(AttrsQuery | StructQuery)
    except ParseError as error:
        assert_type(error.errors, tuple[tuple[str, str], ...])
    else:
        print(query)


# --- a cache, a gateway, a trace, logs ---


def replay(completion: ChatCompletion) -> StreamingResponse:
    assert_type(split(completion), Iterator[dict[str, object]])
    body: Iterator[bytes] = sse(split(completion, by=5))
    async_body: AsyncIterator[bytes] = sse(split(completion))
    print(body, async_body)
    return StreamingResponse(sse(split(completion)), media_type="text/event-stream")


def serve(app: Starlette, upstream: httpx.Response, pieces: Iterator[bytes]) -> StreamingResponse:
    def on_end(end: StreamEnd, scope: Scope) -> None:
        print(scope["path"], end.completion.usage)

    def on_event(event: Event, scope: Scope) -> None:
        print(scope["path"], event.type)

    app.add_middleware(CompletionMiddleware, on_end=on_end, paths=["/chat/completions"])
    app.add_middleware(CompletionMiddleware, on_end=on_end, on_event=on_event, read_to_end=True)
    app.add_middleware(CompletionMiddleware, on_end=on_end, strict=True, clock=time.monotonic)
    assert_type(tap(pieces, on_end=record), WrappedStream[bytes])
    body = tap(upstream.aiter_bytes(), on_end=record, strict=True)
    assert_type(body, AsyncWrappedStream[bytes])
    body = tap(upstream, on_end=record)
    assert_type(body, DualWrappedStream[bytes])
    return StreamingResponse(body, media_type="text/event-stream")


def go_on_elsewhere(acc: Accumulator) -> None:
    data = acc.checkpoint()
    assert_type(data, bytes)
    again = Accumulator.restore(data, rules=DEFAULT_RULES, limits=Limits())
    assert_type(again, Accumulator)


def trace(acc: Accumulator, end: StreamEnd) -> None:
    found = telemetry.attributes(end.completion, timing=end.timing, content=True)
    assert_type(found, dict[str, str | int | float | list[str]])
    assert_type(telemetry.output_messages(acc.completion()), list[dict[str, object]])


def reduce_logs(rows: Iterable[tuple[str, int, bytes]]) -> None:
    for id, result in reduce_sorted(rows):
        assert_type(id, str)
        assert_type(result.completion, ChatCompletion)
        print(result.status, result.problems)
    for key, result in reduce_sorted({"id": id, "chunk": chunk} for id, _, chunk in rows):
        print(key, result.status)
