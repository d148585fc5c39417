"""What a Starlette app sends, over real sockets: the documented gateways, and single responses."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NoReturn

import httpx
import openai
import pytest
from gateway_page import running
from openai_played import playing
from serving import Replay, Server, on_a_socket, serving
from starlette import responses
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route
from streamed import BODY, CHUNKS, TEXTS, WHOLE

from accumulator import ChatCompletion, StreamEnd, accumulate, split, wrap
from accumulator.asgi import tap
from accumulator.replay import sse

ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Grüß dich"}]}
USAGE = {"stream_options": {"include_usage": True}}
FIRST = len(f"data: {TEXTS[0]}\n\ndata: {TEXTS[1]}\n\n".encode())
PATIENCE = 10  # seconds


@pytest.fixture
def upstream() -> Iterator[Server]:
    with serving() as server:
        yield server


def line_of(printed: list[str]) -> str:
    """Wait for the one line that is printed when the stream has ended."""
    end = time.monotonic() + PATIENCE
    while not printed:
        assert time.monotonic() < end
        time.sleep(0.01)
    [line] = printed
    return line


@pytest.mark.parametrize("app", ["app", "metered"])
@pytest.mark.parametrize("more", [{}, USAGE], ids=["plain", "usage"])
def test_a_client_reads_through_a_gateway(
    upstream: Server, monkeypatch: pytest.MonkeyPatch, app: str, more: dict[str, Any]
) -> None:
    url = upstream.add(Replay(BODY, (7,)))
    with (
        running(url, monkeypatch, app) as (gateway, printed),
        openai.OpenAI(base_url=gateway, api_key="a key", max_retries=0) as client,
    ):
        chunks = list(client.chat.completions.create(**ASKED, stream=True, **more))
        assert line_of(printed) == "/v1/chat/completions complete 7 None"
    is_hidden = app == "metered" and not more
    assert [chunk.to_dict() for chunk in chunks] == (CHUNKS[:-1] if is_hidden else CHUNKS)
    [(headers, body)] = upstream.asked
    assert headers["authorization"] == "Bearer a key"
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == {**ASKED, "stream": True, **(USAGE if is_hidden else more)}


@pytest.mark.parametrize("app", ["app", "metered"])
@pytest.mark.parametrize(
    ("read_to_end", "told"), [(False, "cancelled None None"), (True, "complete 7 None")]
)
def test_a_client_leaves_a_gateway(
    upstream: Server, monkeypatch: pytest.MonkeyPatch, app: str, read_to_end: bool, told: str
) -> None:
    replay = Replay(BODY, (FIRST, 65536), holds_after=1)
    with running(upstream.add(replay), monkeypatch, app, read_to_end) as (gateway, printed):
        with httpx.stream(
            "POST", f"{gateway}/chat/completions", json={**ASKED, "stream": True}, trust_env=False
        ) as response:
            next(response.iter_raw())
        assert replay.gone.wait(0.1 if read_to_end else PATIENCE) != read_to_end
        replay.goes_on.set()
        assert line_of(printed) == f"/v1/chat/completions {told}"


@pytest.mark.parametrize("app", ["app", "metered"])
def test_a_gateway_passes_a_refusal_on(monkeypatch: pytest.MonkeyPatch, app: str) -> None:
    with (
        playing() as upstream,
        running(upstream, monkeypatch, app) as (gateway, _),
        openai.OpenAI(base_url=gateway, api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.chat.completions.create(**ASKED, stream=True)


def serving_one(body: Callable[[], Any]) -> AbstractContextManager[str]:
    """Serve an app whose only response streams what a function returns."""

    def answer(request: object) -> StreamingResponse:
        return StreamingResponse(body(), media_type="text/event-stream")

    return on_a_socket(Starlette(routes=[Route("/", answer)]))


def test_a_split_completion_is_sent_without_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_threads(iterator: object) -> NoReturn:
        raise AssertionError("a thread would read it")

    monkeypatch.setattr(responses, "iterate_in_threadpool", in_threads)
    completion = ChatCompletion.from_dict(WHOLE)
    with (
        serving_one(lambda: sse(split(completion))) as url,
        httpx.stream("GET", url, trust_env=False) as response,
    ):
        assert accumulate(response) == completion


@pytest.mark.parametrize("around", [tap, wrap])
def test_the_response_of_a_sync_client_is_sent_whole(
    upstream: Server, around: Callable[..., object]
) -> None:
    ends: list[StreamEnd] = []
    url = f"{upstream.add(Replay(BODY, (7,)))}/chat/completions"
    with httpx.Client(trust_env=False) as client:

        def body() -> object:
            response = client.send(client.build_request("POST", url), stream=True)
            return around(response, on_end=ends.append)

        with serving_one(body) as origin:
            assert httpx.get(origin, trust_env=False).content == BODY
    assert [end.completion.to_dict() for end in ends] == [WHOLE]
