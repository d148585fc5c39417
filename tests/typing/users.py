"""What users write, for type checkers: mypy, pyright and ty read it, nothing runs it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator

import httpx
import openai
import requests
from openai.types.chat import ChatCompletionChunk
from typing_extensions import assert_type

from accumulator import (
    DEFAULT_RULES,
    Accumulator,
    AccumulatorError,
    ChatCompletion,
    Choice,
    DecodeError,
    IncompleteStreamError,
    LimitExceededError,
    Limits,
    Message,
    Problem,
    Rules,
    ServerError,
    ToolCall,
    Usage,
    accumulate,
    wrap,
)
from accumulator.streams import AsyncWrappedStream, WrappedStream


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
    message = completion.choices[0].message
    assert_type(message, Message)
    assert_type(message.tool_calls, tuple[ToolCall, ...] | None)
    for call in message.tool_calls or ():
        if call.function is not None and call.function.arguments_complete:
            assert_type(call.function.arguments, str | None)
    if isinstance(message.content, str):
        print(message.content.upper())
    messages: list[dict[str, object]] = [message.to_message()]
    assert_type(completion.to_dict(), dict[str, object])
    assert_type(completion.to_json(), str)
    assert_type(ChatCompletion.from_dict(completion.to_dict()), ChatCompletion)
    print(messages, completion.extra.get("citations"))


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


def read_sync(body: Iterator[bytes], chunks: list[dict[str, object]]) -> None:
    assert_type(accumulate(body), ChatCompletion)
    assert_type(accumulate(chunks, limits=Limits()), ChatCompletion)
    assert_type(accumulate(["{}"], framing="lines"), ChatCompletion)
    assert_type(wrap(body), WrappedStream[bytes])
    with wrap(body) as stream:
        for data in stream:
            assert_type(data, bytes)
    assert_type(stream.completion, ChatCompletion)


async def read_async(body: AsyncIterator[bytes]) -> None:
    assert_type(await accumulate(body), ChatCompletion)
    assert_type(wrap(body), AsyncWrappedStream[bytes])
    async with wrap(body) as stream:
        async for data in stream:
            assert_type(data, bytes)
    assert_type(stream.completion, ChatCompletion)


def read_the_sdk(client: openai.OpenAI) -> None:
    chunks = client.chat.completions.create(model="m", messages=[], stream=True)
    with wrap(chunks) as stream:
        for chunk in stream:
            assert_type(chunk, ChatCompletionChunk)
    assert_type(
        accumulate(client.chat.completions.create(model="m", messages=[], stream=True)),
        ChatCompletion,
    )


async def read_the_async_sdk(client: openai.AsyncOpenAI) -> None:
    async with wrap(
        await client.chat.completions.create(model="m", messages=[], stream=True)
    ) as stream:
        async for chunk in stream:
            assert_type(chunk, ChatCompletionChunk)
    assert_type(stream.snapshot(), ChatCompletion)


def read_responses(response: httpx.Response, other: requests.Response) -> None:
    completion: ChatCompletion = accumulate(response)
    assert_type(accumulate(other), ChatCompletion)
    with wrap(response) as stream:
        for data in stream:
            assert_type(data, bytes)
    print(completion)
