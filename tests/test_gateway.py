"""The documented gateways between a real server and a real client."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai_played import playing
from serving import Replay, Server, serving
from streamed import BODY, CHUNKS, TEXTS

pytest.importorskip("uvicorn", reason="a server that is installed for the tests only")
from gateway_page import running

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


@pytest.mark.parametrize(
    ("app", "read_to_end", "told"),
    [
        ("app", False, "cancelled None None"),
        ("metered", False, "cancelled None None"),
        ("app", True, "complete 7 None"),
    ],
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
        if read_to_end:
            assert not replay.gone.wait(0.1)
        else:
            assert replay.gone.wait(PATIENCE)
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
