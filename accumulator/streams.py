"""Streams as other code has them: `accumulate` reads one, `wrap` looks on while somebody reads it.

A stream is an iterable or async iterable of chunks, of the pieces of a body, or of lines; or the
response of an HTTP client, recognised by its attributes, so that no client is imported here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
)
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypedDict, TypeVar, overload

from ._accumulator import Accumulator
from ._merge.stopwatch import Clock
from ._streaming.chunk_texts import ChunkTexts
from ._streaming.clients import find
from ._streaming.observer import Observer, OnEnd, StreamEnd, StreamStatus
from ._streaming.wrapped import AsyncWrappedStream, DualWrappedStream, WrappedStream
from .completion import ChatCompletion
from .errors import AccumulatorError
from .events import Event
from .limits import DEFAULT_LIMITS, Limits
from .rules import Rules

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "Accumulating",
    "AsyncWrappedStream",
    "DualWrappedStream",
    "Framing",
    "OnEnd",
    "Options",
    "Reading",
    "StreamEnd",
    "StreamStatus",
    "WrappedStream",
    "accumulate",
    "iter_chunks",
    "iter_events",
    "wrap",
]

Framing = Literal["body", "lines"]
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Accumulating(TypedDict, total=False):
    """The keywords of `Accumulator` that say how a stream is accumulated."""

    rules: Rules
    limits: Limits
    strict: bool
    think_tags: bool
    clock: Clock | None


class Reading(Accumulating, total=False):
    """The keywords of `wrap` that say how a stream is read."""

    framing: Framing
    started: float | None


class Options(Reading, total=False):
    """The keywords of `wrap`, for a function that passes its own on to it."""

    on_event: Callable[[Event], object] | None
    on_end: OnEnd | None


class _SyncBody(Protocol[T_co]):
    def iter_bytes(self) -> Iterator[T_co]: ...


class _AsyncBody(Protocol[T_co]):
    def aiter_bytes(self) -> AsyncIterator[T_co]: ...


class _Content(Protocol[T_co]):
    def iter_any(self) -> AsyncIterator[T_co]: ...


class _ContentBody(Protocol[T_co]):
    @property
    def content(self) -> _Content[T_co]: ...


class _DualBody(_SyncBody[T_co], _AsyncBody[T_co], Protocol[T_co]): ...


class _DualIterable(Protocol[T_co]):
    def __iter__(self) -> Iterator[T_co]: ...
    def __aiter__(self) -> AsyncIterator[T_co]: ...


DualSource: TypeAlias = _DualBody[T] | _DualIterable[T]
SyncSource: TypeAlias = Iterable[T] | _SyncBody[T]
AsyncSource: TypeAlias = AsyncIterable[T] | _AsyncBody[T] | _ContentBody[T]
_Coroutine: TypeAlias = Coroutine[Any, Any, ChatCompletion]

if TYPE_CHECKING:
    # httpx has one Response for both its clients, so its type does not say whether to await.
    class EitherCompletion(ChatCompletion, _Coroutine): ...

    class EitherIterator(Generator[T, None, None], AsyncGenerator[T, None]): ...


@overload
def accumulate(stream: DualSource[object], **options: Unpack[Options]) -> EitherCompletion: ...
@overload
def accumulate(stream: SyncSource[object], **options: Unpack[Options]) -> ChatCompletion: ...
@overload
def accumulate(stream: AsyncSource[object], **options: Unpack[Options]) -> _Coroutine: ...
def accumulate(stream: Any, **options: Unpack[Options]) -> ChatCompletion | _Coroutine:
    """Read a stream to its end and close it; return its completion. Await it if it is async.

    The arguments are those of `wrap`.

    Raises the stream's own exceptions unchanged, LimitExceededError, what `on_event` raises (at
    once, without reading on), and what `Accumulator.completion` raises; TypeError for an object
    that is not a stream. If the stream itself raises, `on_end` gets what came before.
    """
    wrapped: Any = wrap(stream, **options)
    wrapped._observer.raises = True
    if not isinstance(wrapped, WrappedStream):
        return _read_async(wrapped)
    next(_take(wrapped, deque[object]()), None)  # the queue stays empty, so it reads to the end
    return wrapped.completion


# What fits both comes first: mypy takes the first if openai's `create(**a_dict)` is awaited.
@overload
def wrap(stream: DualSource[T], **options: Unpack[Options]) -> DualWrappedStream[T]: ...
@overload
def wrap(stream: SyncSource[T], **options: Unpack[Options]) -> WrappedStream[T]: ...
@overload
def wrap(stream: AsyncSource[T], **options: Unpack[Options]) -> AsyncWrappedStream[T]: ...
def wrap(
    stream: Any, *, framing: Framing = "body", on_end: OnEnd | None = None, **options: Any
) -> WrappedStream[Any] | AsyncWrappedStream[Any]:
    """Return a stream that yields the same items, untouched, and accumulates them on the way.

    Items that are bytes or text are pieces of a body, SSE or JSON, cut anywhere; with
    `framing="lines"` each is a line. All other items are chunks, or events that hold one: openai's,
    those of Mistral's SDK, of httpx-sse and of sseclient-py. The items of a response are the pieces
    of its body. `rules`, `limits`, `strict`, `think_tags`, `clock`, `started` and `on_event` are
    those of `Accumulator`; `timing` needs a clock.

    Read it like the stream itself; `with` and `async with` close it. `completion` and `snapshot()`
    are the result, `status` and `problems` describe it; its other attributes are those of the
    stream. An error in accumulating never stops the items: `completion` raises it. Nor does an
    error of `on_event`, which does not even stop the accumulating: `on_event` gets the next event,
    and `completion` raises the first error.

    `on_end` is called once, with the `StreamEnd`, when the source has closed: after the last item,
    `close`, the end of `with`, an error, a cancellation; or when the stream is garbage-collected,
    in whichever thread that happens. What it raises reaches the caller, unless it would hide
    another error; then it is logged as `accumulator`.

    Raises TypeError if `stream` is not a stream, or if `on_end` would have to be awaited.
    """
    return _wrapped(stream, framing, Accumulator(**options), on_end)


def _wrapped(
    stream: Any, framing: Framing, accumulator: Accumulator, on_end: OnEnd | None = None
) -> WrappedStream[Any] | AsyncWrappedStream[Any]:
    if framing not in ("body", "lines"):
        raise ValueError(f'framing is "body" or "lines", not {framing!r}')
    found = find(stream)
    kind: type[WrappedStream[Any] | AsyncWrappedStream[Any]] = DualWrappedStream
    if found.items is None:
        kind = AsyncWrappedStream
    elif found.aitems is None:
        kind = WrappedStream
    is_lines = framing == "lines" and not found.is_body
    observer = Observer(accumulator, on_end, source=stream, lines=is_lines)
    observer.refuse(found.encoding)
    return kind(stream, found, observer)


async def _read_async(stream: AsyncWrappedStream[object]) -> ChatCompletion:
    await anext(_take_async(stream, deque[object]()), None)
    return stream.completion


@overload
def iter_events(
    stream: DualSource[object], **options: Unpack[Reading]
) -> EitherIterator[Event]: ...
@overload
def iter_events(
    stream: SyncSource[object], **options: Unpack[Reading]
) -> Generator[Event, None, None]: ...
@overload
def iter_events(
    stream: AsyncSource[object], **options: Unpack[Reading]
) -> AsyncGenerator[Event, None]: ...
def iter_events(
    stream: Any, **options: Unpack[Reading]
) -> Generator[Event, None, None] | AsyncGenerator[Event, None]:
    """Read a stream to its end and close it; yield its typed events, async if the stream is.

    The last event is always `done`, which has the completion and says how the stream ended; a
    stream that was cut off raises nothing. All events of an item are yielded before the next item
    is read. The keywords are those of `wrap`, except `on_event` and `on_end`.

    Raises the stream's own exceptions unchanged, LimitExceededError, and in strict mode what
    `Accumulator.feed` raises, in each case after the events of what had arrived; TypeError for an
    object that is not a stream.

    Closing the generator closes the stream: use `contextlib.aclosing` to leave an async one early.
    """
    wrapped = wrap(stream, on_event=None, on_end=None, **options)
    return _taken(wrapped, wrapped._observer.accumulator._collect_events())


@overload
def iter_chunks(
    stream: DualSource[object], *, framing: Framing = ..., limits: Limits = ...
) -> EitherIterator[bytes]: ...
@overload
def iter_chunks(
    stream: SyncSource[object], *, framing: Framing = ..., limits: Limits = ...
) -> Generator[bytes, None, None]: ...
@overload
def iter_chunks(
    stream: AsyncSource[object], *, framing: Framing = ..., limits: Limits = ...
) -> AsyncGenerator[bytes, None]: ...
def iter_chunks(
    stream: Any, *, framing: Framing = "body", limits: Limits = DEFAULT_LIMITS
) -> Generator[bytes, None, None] | AsyncGenerator[bytes, None]:
    """Read a stream to its end and close it; yield each chunk as it comes, async if the stream is.

    A chunk is the JSON that the server sent, unchanged, on one line. A server's error is yielded,
    too, always as `{"error": …}`, and so is JSON that is damaged or cut off. The `[DONE]` of an
    event stream is `b"[DONE]"`. Comments, event names and other protocols' events are left out.
    Chunks that are objects are written as JSON. `framing` is that of `wrap`; of `limits`, only
    `event_bytes` applies.

    Raises the stream's own exceptions unchanged, LimitExceededError, DecodeError for a compressed
    body, and TypeError for an object that is not a stream.
    """
    collector = ChunkTexts(limits)
    return _taken(_wrapped(stream, framing, collector), collector.texts)


def _taken(stream: Any, found: deque[T]) -> Generator[T, None, None] | AsyncGenerator[T, None]:
    """Yield what reading a stream adds to a queue."""
    is_async = not isinstance(stream, WrappedStream)
    return _take_async(stream, found) if is_async else _take(stream, found)


def _take(stream: WrappedStream[object], found: deque[T]) -> Generator[T, None, None]:
    observer, take = stream._observer, stream.__next__  # which is faster than `next(stream)`
    with stream:
        while not stream._closed:
            try:
                take()
                if observer.error or observer.raised:
                    stream.close()
            except Exception:
                break  # it has ended, and the observer knows why
            while found:
                yield found.popleft()
    yield from _rest(observer, found)


async def _take_async(
    stream: AsyncWrappedStream[object], found: deque[T]
) -> AsyncGenerator[T, None]:
    observer = stream._observer
    async with stream:
        while not stream._closed:
            try:
                await anext(stream)
                if observer.error or observer.raised:
                    await stream.aclose()
            except Exception:
                break  # as in `_take`
            while found:
                yield found.popleft()
    for each in _rest(observer, found):
        yield each


def _rest(observer: Observer, found: deque[T]) -> Iterator[T]:
    """Close the accumulator, yield what is left, and raise the error that ended the stream."""
    with suppress(AccumulatorError):
        observer.accumulator.close()
    while found:
        yield found.popleft()
    if error := observer.cause or observer.error:
        raise error
