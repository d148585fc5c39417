"""A real server that replays recorded bodies badly: in awkward pieces, compressed, cut, reset.

Starlette on uvicorn in a thread. Nothing in it sleeps: whatever waits, waits for a handshake.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import socket
import struct
import threading
import warnings
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from attrs import Factory, define
from streamed import cut

uvicorn = pytest.importorskip("uvicorn", reason="a server that is installed for the tests only")
from starlette.applications import Starlette  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import StreamingResponse  # noqa: E402
from starlette.routing import Route  # noqa: E402
from uvicorn.protocols.http.h11_impl import H11Protocol  # noqa: E402

Compress = Callable[[bytes], bytes]
COMPRESSIONS: dict[str, Compress] = {"gzip": gzip.compress, "deflate": zlib.compress}


@define
class Replay:
    """A body, how it is cut into `sizes`, and its end: complete, reset, or with the app's error.

    After `holds_after` pieces, if given, it sets `waits` and waits for `goes_on`.
    """

    body: bytes
    sizes: tuple[int, ...] = (65536,)
    encoding: str | None = None
    sized: bool = False  # by its Content-Length, not in HTTP's chunks
    resets: bool = False
    fails: bool = False  # the app does
    holds_after: int | None = None
    goes_on: threading.Event = Factory(threading.Event)
    waits: threading.Event = Factory(threading.Event)
    gone: threading.Event = Factory(threading.Event)  # the client is
    cancelled: threading.Event = Factory(threading.Event)  # the app was


class Server:
    """Answers a request to /name/… with the replay of that name."""

    def __init__(self, around: Callable[[Any], Any], tapped: Callable[[Any], Any]) -> None:
        self.replays: dict[str, Replay] = {}
        self.asked: list[tuple[Mapping[str, str], bytes]] = []  # headers and body of each request
        routes = [Route("/{name}/{rest:path}", self._answer, methods=["GET", "POST"])]
        self.app = around(Starlette(routes=routes))
        self._tapped = tapped
        transports = self._transports = dict[object, Any]()
        replaying = self._replaying = dict[object, Replay]()

        class Protocol(H11Protocol):
            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                transports[self.client] = transport

            def connection_lost(self, exc: Exception | None) -> None:
                super().connection_lost(exc)
                if self.client in replaying:
                    replaying[self.client].gone.set()

        self.protocol = Protocol
        self.origin = ""  # once it runs

    def add(self, replay: Replay) -> str:
        """Add a replay; return its base URL."""
        name = f"r{len(self.replays)}"
        self.replays[name] = replay
        return f"{self.origin}/{name}/v1"

    async def _answer(self, request: Request) -> StreamingResponse:
        self.asked.append((request.headers, await request.body()))
        replay = self.replays[request.path_params["name"]]
        self._replaying[request.scope["client"]] = replay
        headers = {"Content-Encoding": replay.encoding} if replay.encoding else {}
        if replay.sized:
            headers["Content-Length"] = str(len(replay.body))
        pieces = self._tapped(self._pieces(replay, request))
        return StreamingResponse(pieces, headers=headers, media_type="text/event-stream")

    async def _pieces(self, replay: Replay, request: Request) -> AsyncIterator[bytes]:
        compress = COMPRESSIONS.get(replay.encoding or "", bytes)
        try:
            for number, piece in enumerate(cut(compress(replay.body), *replay.sizes)):
                if number == replay.holds_after:
                    replay.waits.set()
                    await asyncio.to_thread(replay.goes_on.wait, 10)
                yield piece
            if replay.fails:
                raise OSError("upstream broke")
            if replay.resets:
                await self._reset(request)
        except asyncio.CancelledError:
            replay.cancelled.set()
            raise

    async def _reset(self, request: Request) -> None:
        transport = self._transports[request.scope["client"]]
        while transport.get_write_buffer_size():
            await asyncio.sleep(0)
        # Closing a socket with a linger time of 0 sends RST.
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        await asyncio.sleep(0)


@contextmanager
def serving(
    around: Callable[[Any], Any] = lambda app: app,
    tapped: Callable[[Any], Any] = lambda pieces: pieces,
) -> Iterator[Server]:
    """Run a server, with something `around` its app and each body's pieces `tapped`."""
    server = Server(around, tapped)
    with on_a_socket(server.app, http=server.protocol) as server.origin:
        try:
            yield server
        finally:
            for replay in server.replays.values():
                replay.goes_on.set()


@contextmanager
def on_a_socket(app: Any, *clients: Any, **options: Any) -> Iterator[str]:
    """Run an ASGI app, and close its clients after it; gives its address."""
    config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1, **options)
    server = uvicorn.Server(config)
    listening = socket.create_server(("127.0.0.1", 0))

    async def run() -> None:
        await server.serve(sockets=[listening])
        for client in clients:
            await client.aclose()

    thread = threading.Thread(target=asyncio.run, args=[run()])
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


# --- clients that are too heavy to be installed for every run of the tests ---

HEAVY = "a client with an extra of its own: pip install 'chunk-accumulator[clients]'"


@contextmanager
def heavy(name: str) -> Iterator[Any]:
    """Return litellm or any_llm, without the warnings that they cause."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the internet for prices
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip(name, reason=HEAVY)
        yield module


async def drop_connections() -> None:
    """Close what they keep open in this event loop, which pytest would complain about."""
    for transport in list(asyncio.get_running_loop()._transports.values()):  # type: ignore[attr-defined]
        transport.abort()
    await asyncio.sleep(0)
