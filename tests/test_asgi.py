"""`accumulator.asgi` in a real server: bytes pass at once and unchanged, completions come out."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import logging
import queue
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from typing import Any

import pytest
from serving import Replay, Server, serving
from streamed import BODY, TEXTS, WHOLE, a_piece, content_of

from accumulator import (
    AccumulatorError,
    DecodeError,
    Event,
    IncompleteStreamError,
    Limits,
    StreamEnd,
)
from accumulator.asgi import CompletionMiddleware, Scope, tap

httpx = pytest.importorskip("httpx", reason="a client that is installed for the tests only")

EVENTS = [f"data: {text}\n\n".encode() for text in [*TEXTS, "[DONE]"]]
FIRST = len(EVENTS[0] + EVENTS[1])
PATIENCE = 10  # seconds, for what comes at once


class Gateway:
    """A server that uses the package, and the ends that it recorded."""

    def __init__(self, server: Server, ends: queue.Queue[StreamEnd], way: object = None) -> None:
        self.way = way
        self.server = server
        self.ends = ends

    def stream(self, replay: Replay, path: str = "chat/completions") -> Any:
        return httpx.stream("GET", f"{self.server.add(replay)}/{path}", trust_env=False)

    def end(self) -> StreamEnd:
        for _ in range(PATIENCE * 100):
            with suppress(queue.Empty):
                return self.ends.get(timeout=0.01)
            gc.collect()  # Starlette leaves what a thread reads in a reference cycle
        raise TimeoutError("no end came")


def by_middleware(on_end: Callable[[StreamEnd], object]) -> dict[str, Any]:
    return {"around": lambda app: CompletionMiddleware(app, on_end=lambda end, scope: on_end(end))}


def by_tap(on_end: Callable[[StreamEnd], object]) -> dict[str, Any]:
    return {"tapped": lambda pieces: tap(pieces, on_end=on_end)}


def by_sync_tap(on_end: Callable[[StreamEnd], object]) -> dict[str, Any]:
    return {"tapped": lambda pieces: tap(in_a_thread(pieces), on_end=on_end)}


def in_a_thread(pieces: Any) -> Iterator[bytes]:
    """Return a sync iterator over an async one; Starlette reads it in a thread."""
    loop = asyncio.get_running_loop()

    async def following() -> bytes:
        return await anext(pieces, b"")

    def read() -> bytes:
        return asyncio.run_coroutine_threadsafe(following(), loop).result(PATIENCE)

    return iter(read, b"")


WAYS = [by_middleware, by_tap, by_sync_tap]


@pytest.fixture(params=WAYS, scope="module")
def gateway(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    ends: queue.Queue[StreamEnd] = queue.Queue()
    with serving(**request.param(ends.put)) as server:
        yield Gateway(server, ends, request.param)


@pytest.mark.parametrize("sizes", [(1, 2, 3, 200), (65536,)])
def test_bytes_pass_unchanged_and_the_completion_comes_once(
    gateway: Gateway, sizes: tuple[int, ...]
) -> None:
    with gateway.stream(Replay(BODY, sizes)) as response:
        assert response.read() == BODY
    end = gateway.end()
    assert (end.status, end.error, end.completion.to_dict()) == ("complete", None, WHOLE)
    assert gateway.ends.empty()


def test_each_piece_passes_before_the_next_is_there(gateway: Gateway) -> None:
    replay = Replay(BODY, (FIRST, 65536), holds_after=1)
    with gateway.stream(replay) as response:
        pieces = response.iter_raw()
        assert next(pieces) == BODY[:FIRST]
        assert gateway.ends.empty()
        replay.goes_on.set()
        assert b"".join(pieces) == BODY[FIRST:]
    assert gateway.end().status == "complete"


def test_a_client_that_disconnects_leaves_the_partial_completion(gateway: Gateway) -> None:
    replay = Replay(BODY, (FIRST, 1), holds_after=1)
    with gateway.stream(replay) as response:
        next(response.iter_raw())
    # A thread cannot be cancelled: it goes on to the end of its piece.
    assert (replay.gone if gateway.way is by_sync_tap else replay.cancelled).wait(PATIENCE)
    replay.goes_on.set()
    end = gateway.end()
    assert (end.status, end.error) == ("cancelled", None)
    assert content_of(end.completion) == "Grüße"
    assert gateway.ends.empty()


def test_an_app_that_fails_leaves_the_partial_completion(gateway: Gateway) -> None:
    with (
        pytest.raises(httpx.RemoteProtocolError),
        gateway.stream(Replay(BODY[:FIRST], fails=True)) as response,
    ):
        response.read()
    end = gateway.end()
    assert end.status == "truncated"
    assert str(end.error) == "upstream broke"
    assert content_of(end.completion) == "Grüße"


def test_a_compressed_body_is_left_alone_and_reported(gateway: Gateway) -> None:
    with gateway.stream(Replay(BODY, (1, 50), "gzip")) as response:
        assert response.headers["content-encoding"] == "gzip"
        assert response.read() == BODY
    end = gateway.end()
    assert isinstance(end.error, AccumulatorError)
    assert "the body is compressed (gzip)" in str(end.error)
    assert end.completion.choices == ()


@pytest.mark.parametrize("way", WAYS)
def test_what_on_end_raises_disturbs_no_response(
    way: Callable[[Callable[[StreamEnd], object]], dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    called: queue.Queue[StreamEnd] = queue.Queue()

    def on_end(end: StreamEnd) -> None:
        called.put(end)
        raise ValueError("in on_end")

    with serving(**way(on_end)) as server:
        for _ in range(2):
            with Gateway(server, called).stream(Replay(BODY, (100,))) as response:
                assert response.read() == BODY
    assert called.qsize() == 2
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.name for record in errors] == ["accumulator"] * 2


# --- by the protocol alone ---

SSE = [(b"Content-Type", b"text/event-stream; charset=utf-8")]


def start(headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": headers}


def body(data: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def nobody(message: Any) -> None:
    """Ignore what is sent."""


async def gone(message: Any) -> None:
    """Refuse a body, as servers do whose client is gone."""
    if message["type"] == "http.response.body":
        raise OSError("the client is gone")


def run(
    messages: list[dict[str, Any]],
    send: Callable[[Any], Any] = nobody,
    raises: str = "",
    type: str = "http",
    path: str = "/chat/completions",
    **options: Any,
) -> list[StreamEnd]:
    """Let an app send messages, or receive one for an empty one; return the ends of its streams."""
    ends: list[StreamEnd] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await (send(message) if message else receive())

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    middleware = CompletionMiddleware(app, on_end=lambda end, scope: ends.append(end), **options)
    with pytest.raises(OSError, match=raises) if raises else nullcontext():
        asyncio.run(middleware({"type": type, "path": path}, receive, send))
    return ends


LINES = "\n".join(TEXTS).encode()


@pytest.mark.parametrize(
    ("content_type", "data", "scope", "looked_at"),
    [
        (b"text/event-stream", BODY, {}, True),
        (b"Text/Event-Stream;charset=UTF-8", BODY, {}, True),
        (b"application/x-ndjson", LINES, {}, True),
        (b"application/jsonl", LINES, {}, True),
        (b"application/json", TEXTS[0].encode(), {}, False),
        (b"text/plain", BODY, {}, False),
        (b"text/event-stream", BODY, {"path": "/v1/chat/completions"}, True),
        (b"text/event-stream", BODY, {"path": "/v1/chat/completions/7"}, False),
        (b"text/event-stream", BODY, {"path": "/r0/v1/b/c", "paths": ("/a", "/b/c")}, True),
        (b"text/event-stream", BODY, {"path": "/r0/v1/b", "paths": ("/a", "/b/c")}, False),
        (b"text/event-stream", BODY, {"type": "websocket"}, False),
    ],
)
def test_content_type_and_path_tell_what_is_a_stream(
    content_type: bytes, data: bytes, scope: dict[str, Any], looked_at: bool
) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    messages = [start([(b"content-type", content_type)]), body(data), body(b"", more=False)]
    ends = run(messages, send, **scope)
    assert list(map(id, sent)) == list(map(id, messages))
    assert [end.completion.to_dict() for end in ends] == [WHOLE] * looked_at


def test_a_piece_that_the_server_holds_back_holds_back_the_app() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)
        for _ in range(10):
            await asyncio.sleep(0)
        assert sent[-1] is message

    messages = [start(SSE), body(BODY[:FIRST]), body(BODY[FIRST:], more=False)]
    assert [end.status for end in run(messages, send)] == ["complete"]
    assert sent == messages


CUT_OFF = [start(SSE), body(BODY[:FIRST])]
PIECES = [BODY[:FIRST], BODY[FIRST:], b": nothing more\n\n"]
READ_ON = [start(SSE), *map(body, PIECES), body(b"", more=False)]
# What an app sends and what becomes of it, the options, and the status and content of its end.
ENDS: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str, str]] = {
    "an app that stops early": (CUT_OFF, {}, "truncated", "Grüße"),
    "a client that is gone": (CUT_OFF, {"send": gone, "raises": "gone"}, "cancelled", "Grüße"),
    "an app that asks for it and ends its body": (
        [*CUT_OFF, {}, body(b"", more=False)], {}, "cancelled", "Grüße"
    ),
    "an app that reads on for it": (
        READ_ON, {"send": gone, "read_to_end": True}, "complete", "Grüße, 世界 🌍\u2028\n"
    ),
    "an app that reads on until a limit is passed": (
        READ_ON,
        {"send": gone, "read_to_end": True, "limits": Limits(total_bytes=FIRST), "raises": "gone"},
        "truncated", "Grüße",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("messages", "options", "status", "content"), ENDS.values(), ids=ENDS)
def test_a_response_ends_once_however_it_does(
    messages: list[dict[str, Any]], options: dict[str, Any], status: str, content: str
) -> None:
    [end] = run(messages, **options)
    assert (end.status, content_of(end.completion)) == (status, content)
    assert (end.error is None) == (status != "truncated")


def test_a_disconnect_that_comes_with_the_last_message_did_not_stop_the_app() -> None:
    """Hypercorn under trio tells of one whenever it sends it; Starlette then cancels sending."""
    ends: list[StreamEnd] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def respond() -> None:
            for message in (*CUT_OFF, body(b"", more=False)):
                await send(message)

        both = [asyncio.ensure_future(receive()), asyncio.ensure_future(respond())]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        both[1].cancel()
        await asyncio.wait(both)

    async def run_by_hypercorn() -> None:
        is_sent = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await is_sent.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if not message.get("more_body", True):
                is_sent.set()
                await asyncio.Event().wait()

        middleware = CompletionMiddleware(app, on_end=lambda end, scope: ends.append(end))
        await middleware({"type": "http", "path": "/chat/completions"}, receive, send)

    asyncio.run(run_by_hypercorn())
    [end] = ends
    assert (end.status, type(end.error)) == ("truncated", IncompleteStreamError)


@pytest.mark.parametrize(
    ("request_is_whole", "messages", "is_told"),
    [
        (True, [start(SSE), body(BODY[:FIRST])], False),
        (True, [], False),
        (False, [], True),
        (True, [start(SSE), body(b"", more=False)], True),
        (True, [start([(b"content-type", b"text/plain")]), body(b"a")], True),
        (True, [start([*SSE, (b"content-encoding", b"gzip")]), body(b"a")], True),
    ],
)
def test_an_app_is_told_of_a_client_that_left_where_there_is_nothing_to_read_on_for(
    request_is_whole: bool, messages: list[dict[str, Any]], is_told: bool
) -> None:
    told: list[str] = []
    received = [{"type": "http.request", "body": b"a", "more_body": not request_is_whole}]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for message in messages:
            await send(message)
        with suppress(asyncio.TimeoutError):
            told.append((await asyncio.wait_for(receive(), 0.05))["type"])

    async def receive() -> dict[str, Any]:
        return received.pop() if received else {"type": "http.disconnect"}

    middleware = CompletionMiddleware(app, on_end=print, read_to_end=True)
    asyncio.run(middleware({"type": "http", "path": "/chat/completions"}, receive, nobody))
    assert told == ["http.disconnect"] * is_told


def test_the_middleware_takes_what_an_accumulator_does() -> None:
    events: list[tuple[str, str]] = []

    def on_event(event: Event, scope: Scope) -> None:
        events.append((event.type, scope["path"]))

    thought = f"data: {json.dumps(a_piece('<think>a</think>b'))}\n\n".encode()
    messages = [start(SSE), body(thought), body(b"data: {no\n\n", more=False)]
    clock = map(float, itertools.count()).__next__
    [end] = run(messages, on_event=on_event, clock=clock, strict=True, think_tags=True)
    assert isinstance(end.error, DecodeError)
    # The request arrived at 0, the first piece was read at 1.
    assert end.timing is not None
    assert end.timing.time_to_first_chunk == 1
    assert {path for _, path in events} == {"/chat/completions"}
    kinds = [kind for kind, _ in events]
    assert kinds[:3] == ["reasoning.delta", "content.delta", "problem"]
    assert kinds[-2:] == ["choice.done", "done"]
    assert end.completion.choices[0].message.reasoning_content == "a"


def test_what_on_event_raises_ends_nothing() -> None:
    def on_event(event: Event, scope: Scope) -> None:
        raise ValueError(event.type)

    pieces = [BODY[:-100], BODY[-100:]]
    [end] = run([start(SSE), *map(body, pieces), body(b"", more=False)], on_event=on_event)
    assert (end.status, end.completion.to_dict()) == ("complete", WHOLE)
    assert isinstance(end.error, ValueError)


def test_a_tapped_response_is_closed_where_its_client_disconnects() -> None:
    ends: list[StreamEnd] = []

    async def disconnect(url: str) -> bool:
        async with httpx.AsyncClient(trust_env=False) as client:
            upstream = await client.send(client.build_request("GET", url), stream=True)
            async with tap(upstream, on_end=ends.append) as pieces:
                await anext(pieces)
            return bool(upstream.is_closed)

    with serving() as server:
        replay = Replay(BODY, (FIRST, 1), holds_after=1)
        assert asyncio.run(disconnect(f"{server.add(replay)}/chat/completions"))
        replay.goes_on.set()
    assert [end.status for end in ends] == ["cancelled"]
