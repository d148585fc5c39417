"""What a real server streams is what it answers in one piece, whichever client reads it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import Any

import httpx
import pytest
from live.serve import LlamaServer
from openai import AsyncOpenAI, OpenAI

from accumulator import ChatCompletion, ServerError, StreamEnd, accumulate, iter_events, wrap

pytestmark = pytest.mark.live

Body = dict[str, Any]
TIMEOUT = 30


def tool(name: str, **properties: Body) -> Body:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


WEATHER = tool(
    "get_weather", city={"type": "string", "maxLength": 12}, days={"type": "integer", "maximum": 99}
)
TIME = tool("get_time", zone={"enum": ["UTC", "CET"]})
# No call of it ends soon.
NOTE = tool("take_note", text={"type": "string", "minLength": 200})
CALLS = {"tools": [WEATHER, TIME], "tool_choice": "required", "parallel_tool_calls": True}
SCHEMA = {"name": "weather", "schema": WEATHER["function"]["parameters"]}

# What a request asks for besides a prompt, and the finish reasons of the answer.
CASES: dict[str, tuple[Body, list[str]]] = {
    "content": ({"max_tokens": 60, "ignore_eos": True}, ["length"]),
    # llama.cpp leaves the role out where the first token ends inside a character.
    "content-without-role": ({"grammar": 'root ::= "日本" [a-z]{20}'}, ["stop"]),
    "content-by-schema": (
        {"response_format": {"type": "json_schema", "json_schema": SCHEMA}, "max_tokens": 500},
        ["stop"],
    ),
    "reasoning": (
        {
            "chat_template_kwargs": {"enable_thinking": True},
            "max_tokens": 60,
            "ignore_eos": True,
        },
        ["length"],
    ),
    "calls": ({**CALLS, "max_tokens": 1500}, ["tool_calls"]),
    "cut-call": ({**CALLS, "tools": [NOTE], "max_tokens": 150}, ["length"]),
    "logprobs": (
        {"logprobs": True, "top_logprobs": 3, "max_tokens": 20, "ignore_eos": True},
        ["length"],
    ),
    # Equal choices would not show which chunk went where.
    "two-choices": (
        {"n": 2, "temperature": 1, "seed": 1, "max_tokens": 40, "ignore_eos": True},
        ["length", "length"],
    ),
}


def request(name: str, **more: object) -> Body:
    messages = [{"role": "user", "content": f"What of {name}?"}]
    return {"model": "tiny", "temperature": 0, "messages": messages, **CASES[name][0], **more}


def streamed(body: Body) -> Body:
    return {**body, "stream": True, "stream_options": {"include_usage": True}}


def answer(server: LlamaServer, body: Body) -> Body:
    response = httpx.post(f"{server.url}/chat/completions", json=body, timeout=TIMEOUT)
    response.raise_for_status()
    answered: Body = response.json()
    return answered


# --- ways to read a stream to its end ---


def read(stream: Iterable[object]) -> StreamEnd:
    ends: list[StreamEnd] = []
    with wrap(stream, on_end=ends.append) as items:
        for _ in items:
            pass
    [end] = ends
    return end


async def read_async(stream: AsyncIterable[object]) -> StreamEnd:
    ends: list[StreamEnd] = []
    async with wrap(stream, on_end=ends.append) as items:
        async for _ in items:
            pass
    [end] = ends
    return end


def by_httpx(url: str, body: Body) -> StreamEnd:
    with httpx.stream("POST", f"{url}/chat/completions", json=body, timeout=TIMEOUT) as response:
        return read(response)


async def by_httpx_async(url: str, body: Body) -> StreamEnd:
    async with (
        httpx.AsyncClient(timeout=TIMEOUT) as client,
        client.stream("POST", f"{url}/chat/completions", json=body) as response,
    ):
        return await read_async(response)


def by_openai(url: str, body: Body) -> StreamEnd:
    with OpenAI(base_url=url, api_key="none", timeout=TIMEOUT, max_retries=0) as client:
        create = client.chat.completions.create
        return read(create(model="tiny", messages=[], stream=True, extra_body=body))


async def by_openai_async(url: str, body: Body) -> StreamEnd:
    async with AsyncOpenAI(base_url=url, api_key="none", timeout=TIMEOUT, max_retries=0) as client:
        create = client.chat.completions.create
        return await read_async(
            await create(model="tiny", messages=[], stream=True, extra_body=body)
        )


Reader = Callable[[str, Body], StreamEnd | Awaitable[StreamEnd]]
READERS: list[Reader] = [by_httpx, by_httpx_async, by_openai, by_openai_async]


# --- what is compared ---


def comparable(value: Any) -> Any:
    """Leave out what differs between two answers to one request: random ids, times, and whether
    what is empty is null, `""` or left out.
    """
    if isinstance(value, list):
        return [comparable(each) for each in value]
    if not isinstance(value, dict):
        return value
    kept = {
        key: sorted(each) if key == "timings" else comparable(each)
        for key, each in value.items()
        if key != "created" and not (key == "id" and isinstance(each, str))
    }
    return {key: each for key, each in kept.items() if each not in (None, "")}


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
@pytest.mark.parametrize("name", CASES)
def test_a_stream_is_what_the_server_answers_in_one_piece(
    server: LlamaServer, name: str, reader: Reader
) -> None:
    body = request(name)
    whole = answer(server, body)
    assert [choice["finish_reason"] for choice in whole["choices"]] == CASES[name][1]

    end = reader(server.url, streamed(body))
    if inspect.isawaitable(end):
        end = asyncio.run(awaited(end))
    assert (end.status, end.error, end.problems) == ("complete", None, ())
    assert comparable(end.completion.to_dict()) == comparable(whole)


async def awaited(end: Awaitable[StreamEnd]) -> StreamEnd:
    return await end


def test_the_cases_have_what_they_are_about(server: LlamaServer) -> None:
    """Random weights could say nothing, and all would agree."""
    choices = {name: answer(server, request(name))["choices"] for name in CASES}
    assert len(choices["calls"][0]["message"]["tool_calls"]) > 1
    assert len(choices["cut-call"][0]["message"]["tool_calls"]) == 1
    assert choices["reasoning"][0]["message"]["reasoning_content"]
    assert len(choices["logprobs"][0]["logprobs"]["content"]) > 5
    first, second = choices["two-choices"]
    assert first["message"] != second["message"]


def test_events_add_up_to_the_completion(server: LlamaServer) -> None:
    for name in ("content", "calls", "two-choices"):
        texts = dict[tuple[str, int, int], str]()
        body = streamed(request(name))
        with httpx.stream("POST", f"{server.url}/chat/completions", json=body) as response:
            for event in iter_events(response):
                if event.type == "content.delta":
                    key = ("content", event.choice_index, 0)
                elif event.type == "tool_calls.function.arguments.delta":
                    key = ("call", event.choice_index, event.index)
                else:
                    continue
                texts[key] = texts.get(key, "") + event.delta
        assert event.type == "done"
        expected = dict[tuple[str, int, int], str]()
        for choice in event.completion.choices:
            if choice.message.content:
                expected["content", choice.index, 0] = choice.message.content
            for index, call in enumerate(choice.message.tool_calls or ()):
                assert call.function
                expected["call", choice.index, index] = call.function.arguments
        assert texts == expected


def test_what_was_streamed_is_taken_as_history(server: LlamaServer) -> None:
    """The server writes the same prompt of it as of its answer in one piece."""
    for name in ("content", "reasoning", "calls"):
        body = request(name)
        whole = answer(server, body)["choices"][0]["message"]
        message = by_httpx(server.url, streamed(body)).completion.choices[0].message
        prompts = [prompt(server, body, turn) for turn in (whole, message.to_message())]
        assert prompts[0] == prompts[1]
        for text in (message.content, message.extra.get("reasoning_content")):
            assert (text or "") in prompts[0]


def prompt(server: LlamaServer, body: Body, turn: Body) -> str:
    messages = [*body["messages"], turn, {"role": "user", "content": "And then?"}]
    asked = {"messages": messages, "tools": body.get("tools", [])}
    response = httpx.post(f"{server.origin}/apply-template", json=asked, timeout=TIMEOUT)
    response.raise_for_status()
    rendered: str = response.json()["prompt"]
    return rendered


def test_calls_and_their_results_are_answered(server: LlamaServer) -> None:
    body = request("calls")
    with OpenAI(base_url=server.url, api_key="none", timeout=TIMEOUT, max_retries=0) as client:
        create = client.chat.completions.create
        for _ in range(3):
            stream = create(model="tiny", messages=[], stream=True, extra_body=body)
            message = accumulate(stream).choices[0].message
            results = [
                {"role": "tool", "tool_call_id": call.id, "content": "21 °C"}
                for call in message.tool_calls or ()
            ]
            assert results
            body = {**body, "messages": [*body["messages"], message.to_message(), *results]}


def test_an_error_in_place_of_a_stream_is_the_server_s(server: LlamaServer) -> None:
    body = request("content", messages=[{"role": "user", "content": "x" * 9000}])
    url = f"{server.url}/chat/completions"
    with (
        httpx.stream("POST", url, json=streamed(body)) as response,
        pytest.raises(ServerError) as raised,
    ):
        accumulate(response)
    assert raised.value.error == httpx.post(url, json=body).json()["error"]
