"""For gateways: the completion of each streaming response, while its bytes pass through untouched.

`CompletionMiddleware` is ASGI middleware, `tap` is for the iterator of a single response. No other
package is imported. An error in this code is logged as `accumulator`; the response goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, overload

from attrs import evolve

from ._accumulator import Accumulator
from ._streaming.observer import Observer, OnEnd, StreamEnd, check_on_end, report
from .events import Event
from .streams import (
    Accumulating,
    AsyncSource,
    AsyncWrappedStream,
    DualSource,
    DualWrappedStream,
    Reading,
    SyncSource,
    WrappedStream,
    wrap,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["CompletionMiddleware", "tap"]

T = TypeVar("T")
Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

# SSE, and the names for JSON Lines.
_STREAMS = (b"text/event-stream", b"application/x-ndjson", b"application/jsonl")


@overload
def tap(
    stream: DualSource[T], *, on_end: OnEnd, **options: Unpack[Reading]
) -> DualWrappedStream[T]: ...
@overload
def tap(
    stream: SyncSource[T], *, on_end: OnEnd, **options: Unpack[Reading]
) -> WrappedStream[T]: ...
@overload
def tap(
    stream: AsyncSource[T], *, on_end: OnEnd, **options: Unpack[Reading]
) -> AsyncWrappedStream[T]: ...
def tap(stream: Any, *, on_end: OnEnd, **options: Any) -> Any:
    """Return an iterator for a streaming response. It passes each piece on as it comes.

        return StreamingResponse(tap(upstream, on_end=record), ...)

    This is `wrap`, with its keywords, but what `on_end` raises is always logged, never raised. When
    the client disconnects, the server cancels or drops the iterator, and `on_end` is called with
    the partial completion, the status "cancelled" and no `error`. A sync iterator is read in
    threads, so that call may come as late as the next garbage collection.

    A compressed body passes through as it is. `on_end` gets an empty completion, and its `error`
    names the compression if it is gzip, zlib or zstd; otherwise it says that no chunk was read.

    Pass the HTTP client's response itself: it is closed with the iterator. httpx's `aiter_bytes()`
    cannot close it.

    Raises TypeError for an object that is not a stream, and for an `on_end` that would have to be
    awaited.
    """
    return wrap(stream, on_end=_guarded(on_end), **options)


class CompletionMiddleware:
    """Calls `on_end(end, scope)` with the completion of each streaming response.

        app.add_middleware(CompletionMiddleware, on_end=record)

    It reads responses of the type `text/event-stream` or JSON Lines, to requests whose path ends in
    one of `paths`. Each message is sent before it is read. `on_end` is called in the event loop,
    once for each such response. The status is "truncated" if the app raised or stopped early, and
    "cancelled", without an `error`, if the client disconnected before the stream was complete. With
    `read_to_end` (under asyncio) the app is not told of the disconnect: it reads its stream to the
    end, where the usage is; what it sends then only goes to `on_end`.

    `rules`, `limits`, `strict`, `think_tags` and `clock` are those of `Accumulator`; `on_event` is
    called with each event and the scope; `on_end` gets the first error it raises. With a clock,
    timing counts from when the request arrived.

    A response with a `content-encoding` is not read: `on_end` gets an empty completion, and an
    `error` that names the encoding. So add this middleware before (inside) one that compresses.

    The constructor raises TypeError for an `on_end` that would have to be awaited.
    """

    def __init__(
        self,
        app: App,
        *,
        on_end: Callable[[StreamEnd, Scope], object],
        on_event: Callable[[Event, Scope], object] | None = None,
        paths: str | Iterable[str] = "/chat/completions",
        read_to_end: bool = False,
        **options: Unpack[Accumulating],
    ) -> None:
        self._app = app
        self._on_end = _guarded(on_end)
        self._on_event = on_event
        self._paths = (paths,) if isinstance(paths, str) else tuple(paths)
        self._read_to_end = read_to_end
        self._accumulator = partial(Accumulator, **options)
        self._accumulator(clock=None)  # raises for wrong options before a request comes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].endswith(self._paths):
            await self._app(scope, receive, send)
            return
        on_event = self._on_event
        # Made before the response begins: its clock starts when the request arrives.
        observer = Observer(
            self._accumulator(
                on_event=None if on_event is None else lambda event: on_event(event, scope)
            ),
            lambda end: self._on_end(end, scope),
        )
        response = _Response(receive, send, observer, to_end=self._read_to_end)
        try:
            await self._app(scope, response.receive, response.send)
        except BaseException as error:
            response.end(error)
            raise
        response.end()


class _Response:
    """Passes one response on, from an app to its server."""

    def __init__(self, receive: Receive, send: Send, observer: Observer, *, to_end: bool) -> None:
        self._receive = receive
        self._send = send
        self._observer = observer
        self._is_stream = False
        self._is_asked = False  # the request has arrived in full
        self._disconnected = False
        # Set once there is nothing to read on for; only then is the app told of a disconnect.
        self._told = asyncio.Event()
        if not to_end:
            self._told.set()

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._disconnected = True
            # If the request was cut off, there is no response to read on for.
            if self._is_asked:
                await self._told.wait()
        elif not message.get("more_body", False):
            self._is_asked = True
        return message

    async def send(self, message: Message) -> None:
        is_body = message["type"] == "http.response.body"
        # An app that was told of the disconnect may end its body as if all were well. But hypercorn
        # under trio tells it of one whenever it sends the last message.
        was_left = self._disconnected
        try:
            await self._send(message)
        except OSError:  # from servers of ASGI 2.4: the client is gone
            was_left = self._disconnected = True
            if self._told.is_set():
                raise
        finally:
            # Even if the client did not get it: it is part of the response.
            if is_body and self._is_stream:
                self._observer.feed(message.get("body", b""))
                if self._observer.ended:
                    self._told.set()
            elif message["type"] == "http.response.start":
                self._begin(message)
            if is_body and not message.get("more_body", False):
                self._close(stopped=was_left and self._told.is_set())

    def end(self, error: BaseException | None = None) -> None:
        """End the response because the app is done, unless its body has ended already."""
        stopped = self._disconnected or not isinstance(error, (Exception, type(None)))
        self._close(None if self._disconnected else error, stopped=stopped)

    def _begin(self, start: Message) -> None:
        headers = {bytes(name).lower(): bytes(value) for name, value in start.get("headers", ())}
        if headers.get(b"content-type", b"").split(b";")[0].strip().lower() not in _STREAMS:
            self._told.set()
            return
        kind = headers[b"content-type"].decode("latin-1")
        source = SimpleNamespace(status=start["status"], headers={"content-type": kind})
        self._observer.source = source
        self._observer.refuse(headers.get(b"content-encoding", b"").decode("latin-1"))
        self._is_stream = True

    def _close(self, error: BaseException | None = None, *, stopped: bool) -> None:
        if self._is_stream:
            self._observer.end(error, stopped=stopped)
            self._observer.call_on_end()
        self._told.set()


def _guarded(on_end: Callable[..., object]) -> Callable[..., None]:
    """Return a callback that logs what `on_end` raises. That a client left is not an error, however
    the server signals it.
    """
    check_on_end(on_end)

    def guarded(end: StreamEnd, *scope: Scope) -> None:
        try:
            on_end(end if isinstance(end.error, Exception) else evolve(end, error=None), *scope)
        except Exception:
            report("on_end raised")

    return guarded
