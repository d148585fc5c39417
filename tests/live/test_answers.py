"""What a real server streams is what it answers in one piece, whichever client reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, OpenAI
from telling import check, events_of

from accumulator import ServerError, StreamEnd, accumulate, wrap
from live.serve import TIMEOUT, Body, LlamaServer, streamed

pytestmark = pytest.mark.live


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
# Complete characters, though of random bytes: the server itself may refuse anything else.
TEXT = {"grammar": 'root ::= "So " [^<]+', "ignore_eos": True}

Choices = list[Body]


def finished(choices: Choices, *reasons: str) -> bool:
    return tuple(choice["finish_reason"] for choice in choices) == reasons


# What a request asks for besides a prompt, and whether the answer is one that the case is about.
CASES: dict[str, tuple[Body, Callable[[Choices], object]]] = {
    "content": ({**TEXT, "max_tokens": 60}, lambda found: finished(found, "length")),
    "content-by-schema": (
        {"response_format": {"type": "json_schema", "json_schema": SCHEMA}, "max_tokens": 150},
        lambda found: finished(found, "stop"),
    ),
    "reasoning": (
        {**TEXT, "chat_template_kwargs": {"enable_thinking": True}, "max_tokens": 60},
        lambda found: found[0]["message"]["reasoning_content"],
    ),
    "calls": (
        {**CALLS, "max_tokens": 1500},
        lambda found: finished(found, "tool_calls") and len(found[0]["message"]["tool_calls"]) > 1,
    ),
    "cut-call": (
        {**CALLS, "tools": [NOTE], "max_tokens": 150},
        lambda found: finished(found, "length") and found[0]["message"]["tool_calls"],
    ),
    "logprobs": (
        {**TEXT, "logprobs": True, "top_logprobs": 3, "max_tokens": 20},
        lambda found: len(found[0]["logprobs"]["content"]) > 5,
    ),
    # Equal choices would not show which chunk went where.
    "two-choices": (
        {**TEXT, "n": 2, "temperature": 1, "seed": 1, "max_tokens": 40},
        lambda found: (
            finished(found, "length", "length") and found[0]["message"] != found[1]["message"]
        ),
    ),
}


def answer(server: LlamaServer, body: Body) -> Body:
    response = httpx.post(f"{server.url}/chat/completions", json=body, timeout=TIMEOUT)
    response.raise_for_status()
    answered: Body = response.json()
    return answered


@cache
def asked(server: LlamaServer, name: str) -> tuple[Body, Body]:
    """Return a request of the case, and its answer in one piece.

    What random weights say is chance, so a few prompts are tried.
    """
    more, is_about = CASES[name]
    for number in range(60):
        messages = [{"role": "user", "content": f"What of {number}?"}]
        body = {"model": "tiny", "temperature": 0, "messages": messages, **more}
        whole = answer(server, body)
        if is_about(whole["choices"]):
            return body, whole
    pytest.fail(f"no prompt led to an answer with {name}")


# --- ways to read a stream to its end ---


def read(stream: Any) -> StreamEnd:
    ends: list[StreamEnd] = []
    with wrap(stream, on_end=ends.append) as items:
        for _ in items:
            pass
    [end] = ends
    return end


async def read_async(stream: Any) -> StreamEnd:
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


Reader = Callable[[str, Body], StreamEnd | Coroutine[Any, Any, StreamEnd]]
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
    body, whole = asked(server, name)
    end = reader(server.url, streamed(body))
    if not isinstance(end, StreamEnd):
        end = asyncio.run(end)
    assert (end.status, end.error, end.problems) == ("complete", None, ())
    assert comparable(end.completion.to_dict()) == comparable(whole)


def test_the_role_is_there_where_the_server_leaves_it_out(server: LlamaServer) -> None:
    """llama.cpp does where the first token ends inside a character."""
    body = {"messages": [{"role": "user", "content": "Speak."}], "grammar": 'root ::= "日本"'}
    url = f"{server.url}/chat/completions"
    response = httpx.post(url, json=streamed(body), timeout=TIMEOUT)
    assert "role" not in response.text
    message = accumulate(response.content).choices[0].message
    assert (message.role, message.content) == ("assistant", "日本")


@pytest.mark.parametrize("name", ["content", "calls", "two-choices"])
def test_events_add_up_to_the_completion(server: LlamaServer, name: str) -> None:
    body = streamed(asked(server, name)[0])
    url = f"{server.url}/chat/completions"
    with httpx.stream("POST", url, json=body, timeout=TIMEOUT) as response:
        acc, events = events_of(response.iter_bytes())
    check(acc, events)


@pytest.mark.parametrize("name", ["content", "reasoning", "calls"])
def test_what_was_streamed_is_taken_as_history(server: LlamaServer, name: str) -> None:
    """The server makes the same prompt of it as of its answer in one piece."""
    body, whole = asked(server, name)
    message = by_httpx(server.url, streamed(body)).completion.choices[0].message
    turn = dict(message.to_message())
    assert prompt(server, body, turn) == prompt(server, body, whole["choices"][0]["message"])

    results = [
        {"role": "tool", "tool_call_id": call.id, "content": "21 °C"}
        for call in message.tool_calls or ()
    ]
    messages = [*body["messages"], turn, *results, {"role": "user", "content": "And then?"}]
    with OpenAI(base_url=server.url, api_key="none", timeout=TIMEOUT, max_retries=0) as client:
        create = client.chat.completions.create
        extra = {**TEXT, "messages": messages}
        stream = create(model="tiny", messages=[], max_tokens=9, stream=True, extra_body=extra)
        content = accumulate(stream).choices[0].message.content
    assert isinstance(content, str)
    assert content.startswith("So ")


def prompt(server: LlamaServer, body: Body, turn: Body) -> str:
    messages = [*body["messages"], turn, {"role": "user", "content": "And then?"}]
    tools = body.get("tools", [])
    response = httpx.post(
        f"{server.origin}/apply-template",
        json={"messages": messages, "tools": tools},
        timeout=TIMEOUT,
    )
    response.raise_for_status()
    rendered: str = response.json()["prompt"]
    return rendered


def test_an_error_in_place_of_a_stream_is_the_server_s(server: LlamaServer) -> None:
    body = {"messages": [{"role": "user", "content": "x" * 9000}]}
    url = f"{server.url}/chat/completions"
    with (
        httpx.stream("POST", url, json=streamed(body)) as response,
        pytest.raises(ServerError) as raised,
    ):
        accumulate(response)
    assert raised.value.error == httpx.post(url, json=body).json()["error"]
