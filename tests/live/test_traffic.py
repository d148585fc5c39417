"""The documented gateway with many clients at once; clients that leave; a server that dies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from gateway_page import running
from openai import OpenAI

from accumulator import ChatCompletion, StreamEnd, accumulate, wrap
from live.serve import TIMEOUT, Body, LlamaServer, serving, streamed

pytestmark = pytest.mark.live

CLIENTS = 20


def request(grammar: str, **more: object) -> Body:
    """Ask for what a grammar allows: a text that is known, however the server divides its work."""
    messages = [{"role": "user", "content": "Speak."}]
    return {"model": "tiny", "messages": messages, "grammar": f"root ::= {grammar}", **more}


# Ten megabytes, more than sockets can buffer: it does not end while nobody reads on.
SAYING = "日本 zürich "
ENDLESS = request(
    f'("{SAYING}")*', max_tokens=3900, ignore_eos=True, logprobs=True, top_logprobs=50
)


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def slots(server: LlamaServer) -> list[Body]:
    found: list[Body] = httpx.get(f"{server.origin}/slots", timeout=TIMEOUT).json()
    return found


def busy(server: LlamaServer) -> list[int]:
    return [slot["id"] for slot in slots(server) if slot["is_processing"]]


def was_stopped(server: LlamaServer, number: int) -> bool:
    """Wait until the slot is idle; return whether it had more to say."""
    until(lambda: number not in busy(server))
    [slot] = [slot for slot in slots(server) if slot["id"] == number]
    more: bool = slot["next_token"][0]["has_next_token"]
    return more


def test_twenty_clients_at_once_through_the_documented_gateway(
    server: LlamaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{SAYING * (1 + number % 4)}{number}" for number in range(CLIENTS)]

    async def ask(client: httpx.AsyncClient, text: str) -> ChatCompletion:
        body = streamed(request(f'"{text}"'))
        async with client.stream("POST", "/chat/completions", json=body) as response:
            completion: ChatCompletion = await accumulate(response)
            return completion

    async def ask_all(url: str) -> list[ChatCompletion]:
        async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT) as client:
            return await asyncio.gather(*(ask(client, text) for text in texts))

    with running(server.url, monkeypatch) as (url, printed):
        completions = asyncio.run(ask_all(url))
    assert [each.choices[0].message.content for each in completions] == texts
    # The page prints a line for each response, with its status and tokens.
    assert all("complete" in line.split() for line in printed)
    totals = [each.usage.total_tokens for each in completions if each.usage]
    for total in set(totals):
        assert sum(str(total) in line.split() for line in printed) == totals.count(total)
    assert len(printed) == len(totals) == CLIENTS


def test_who_leaves_the_gateway_leaves_the_server(
    server: LlamaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(server.url, monkeypatch) as (url, printed):
        with httpx.stream("POST", f"{url}/chat/completions", json=streamed(ENDLESS)) as response:
            pieces = response.iter_bytes()
            next(pieces)
            [slot] = busy(server)
        assert was_stopped(server, slot)
        until(lambda: bool(printed))
    [line] = printed
    assert "cancelled" in line.split()


def test_the_gateway_reads_on_for_who_leaves_it(
    server: LlamaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(server.url, monkeypatch, read_to_end=True) as (url, printed):
        body = streamed(request(f'"{SAYING * 20}"', max_tokens=3000))
        with httpx.stream("POST", f"{url}/chat/completions", json=body) as response:
            next(response.iter_bytes())
        until(lambda: bool(printed))
    [line] = printed
    _, status, tokens, error = line.split()
    assert (status, error) == ("complete", "None")
    assert int(tokens) > 100


def test_who_breaks_off_leaves_the_server(server: LlamaServer) -> None:
    ends: list[StreamEnd] = []
    with OpenAI(base_url=server.url, api_key="none", timeout=TIMEOUT, max_retries=0) as client:
        create = client.chat.completions.create
        stream = create(model="tiny", messages=[], stream=True, extra_body=streamed(ENDLESS))
        with wrap(stream, on_end=ends.append) as items:
            for chunk in items:
                if chunk.choices[0].delta.content:
                    break
            [slot] = busy(server)
        assert was_stopped(server, slot)
    [end] = ends
    assert (end.status, end.error) == ("cancelled", None)
    content = end.completion.choices[0].message.content
    assert isinstance(content, str)
    assert SAYING.startswith(content)


def test_of_a_server_that_dies_is_kept_what_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[StreamEnd] = []
    with (
        serving(tmp_path) as server,
        running(server.url, monkeypatch) as (url, printed),
        ExitStack() as stack,
    ):
        streams = []
        for base in (server.url, url):
            response = stack.enter_context(
                httpx.stream("POST", f"{base}/chat/completions", json=streamed(ENDLESS))
            )
            stream = stack.enter_context(wrap(response, on_end=ends.append))
            for _ in zip(range(3), stream, strict=False):
                pass
            streams.append(stream)
        server.kill()
        for stream in streams:
            with pytest.raises(httpx.RemoteProtocolError):
                list(stream)
        until(lambda: bool(printed))
    assert [end.status for end in ends] == ["truncated", "truncated"]
    for end in ends:
        assert isinstance(end.error, httpx.RemoteProtocolError)
        content = end.completion.choices[0].message.content
        assert isinstance(content, str)
        assert (SAYING * len(content)).startswith(content)
    [line] = printed
    assert "truncated" in line.split()
