"""Streams as people have them in hand: `accumulate` reads one, `wrap` looks on while they read it.

A stream is an iterable or async iterable of chunks, of the pieces of a body, or of lines; or the
response of an HTTP client, known by its attributes: none of these libraries is imported here.
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
    Mapping,
)
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    Protocol,
    TypeAlias,
    TypedDict,
    TypeVar,
    get_args,
    overload,
)

from ._accumulator import Accumulator
from ._feeder import Feeder
from ._reduce import Status
from ._timing import Clock
from .completion import ChatCompletion, Timing
from .errors import AccumulatorError, IncompleteStreamError, Problem
from .events import Event
from .limits import DEFAULT_LIMITS, Limits
from .rules import DEFAULT_RULES, Rules

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "AsyncWrappedStream",
    "DualWrappedStream",
    "Framing",
    "WrappedStream",
    "accumulate",
    "iter_events",
    "wrap",
]

Framing = Literal["body", "lines"]
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Text = TypeVar("Text", bytes, str)
Self = TypeVar("Self", bound="_Wrapped[Any]")


class _Options(TypedDict, total=False):
    framing: Framing
    rules: Rules
    limits: Limits
    strict: bool


class _Watching(_Options, total=False):
    on_event: Callable[[Event], object] | None
    clock: Clock | None


class _Timed(_Options, total=False):
    clock: Clock | None


# --- what a type checker takes for a stream ---


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


_Dual: TypeAlias = _DualBody[T] | _DualIterable[T]
_Sync: TypeAlias = Iterable[T] | _SyncBody[T]
_Async: TypeAlias = AsyncIterable[T] | _AsyncBody[T] | _ContentBody[T]
_Coroutine: TypeAlias = Coroutine[Any, Any, ChatCompletion]


# --- the two functions ---


# Any: httpx has one Response for both its clients, so the type does not tell whether to await.
@overload
def accumulate(stream: _Dual[object], **options: Unpack[_Options]) -> Any: ...
@overload
def accumulate(stream: _Sync[object], **options: Unpack[_Options]) -> ChatCompletion: ...
@overload
def accumulate(stream: _Async[object], **options: Unpack[_Options]) -> _Coroutine: ...
def accumulate(
    stream: Any,
    *,
    framing: Framing = "body",
    rules: Rules = DEFAULT_RULES,
    limits: Limits = DEFAULT_LIMITS,
    strict: bool = False,
) -> ChatCompletion | _Coroutine:
    """Read a stream to its end and close it; return its completion, to be awaited if it is async.

    Items that are bytes or text are a body, SSE or JSON, in pieces cut anywhere; with
    `framing="lines"` each is a line. All other items are chunks. A response is always a body.

    Raises the stream's own exceptions unchanged, LimitExceededError, and what
    `Accumulator.completion` raises; TypeError for what is no stream.
    """
    wrapped = wrap(stream, framing=framing, rules=rules, limits=limits, strict=strict)
    if isinstance(wrapped, DualWrappedStream):
        return _aread(wrapped) if _is_bound_to_async(stream) else _read(wrapped)
    return _aread(wrapped) if isinstance(wrapped, AsyncWrappedStream) else _read(wrapped)


@overload
def wrap(stream: Text, **options: Unpack[_Watching]) -> WrappedStream[Text]: ...
@overload
def wrap(stream: _Dual[T], **options: Unpack[_Watching]) -> DualWrappedStream[T]: ...
@overload
def wrap(stream: _Sync[T], **options: Unpack[_Watching]) -> WrappedStream[T]: ...
@overload
def wrap(stream: _Async[T], **options: Unpack[_Watching]) -> AsyncWrappedStream[T]: ...
def wrap(
    stream: Any,
    *,
    framing: Framing = "body",
    rules: Rules = DEFAULT_RULES,
    limits: Limits = DEFAULT_LIMITS,
    strict: bool = False,
    on_event: Callable[[Event], object] | None = None,
    clock: Clock | None = None,
) -> WrappedStream[Any] | AsyncWrappedStream[Any]:
    """Give a stream that hands out the same items, untouched, and accumulates them on the way.

    It is read like the stream itself; of a response the items are the pieces of its body. `with`
    and `async with` close it. `completion` and `snapshot()` are the result, `status` and `problems`
    tell of it; its other attributes are those of the stream. The arguments are as for `accumulate`;
    `on_event` and `clock` as for `Accumulator`, and `timing` is what came of the clock.

    What goes wrong in accumulating never stops the items: `completion` raises it.

    Raises TypeError for what is no stream.
    """
    if framing not in get_args(Framing):
        raise ValueError(f"framing is one of {', '.join(get_args(Framing))}, not {framing!r}")
    bodies = [read(stream) for marks, read in _RESPONSES if _has(stream, *marks)]
    whole = isinstance(stream, (bytes, bytearray, memoryview, str))
    given = bodies or [(stream,) if whole else stream]
    # Told by what came: the `iter_bytes` of openai's AsyncAPIResponse is async.
    items = next((each for each in given if _has(each, "__iter__")), None)
    aitems = next((each for each in given if _has(each, "__aiter__")), None)
    if items is aitems is None or isinstance(stream, Mapping):
        raise TypeError(f"a stream is an iterable or a response, not {type(stream).__name__}")
    kind: type[WrappedStream[Any] | AsyncWrappedStream[Any]] = DualWrappedStream
    if items is None:
        kind = AsyncWrappedStream
    elif aitems is None:
        kind = WrappedStream
    accumulator = Accumulator(
        rules=rules, limits=limits, strict=strict, on_event=on_event, clock=clock
    )
    feeder = Feeder(accumulator, limits, lines=framing == "lines" and not bodies)
    return kind(stream, items, aitems, accumulator, feeder)


def _read(stream: WrappedStream[object]) -> ChatCompletion:
    with stream:
        for _ in stream:
            if stream._error is not None:
                break
    return stream.completion


async def _aread(stream: AsyncWrappedStream[object]) -> ChatCompletion:
    async with stream:
        async for _ in stream:
            if stream._error is not None:
                break
    return stream.completion


# --- the wrapped stream ---


class _Wrapped(Generic[T_co]):
    """What every wrapped stream has: the result so far, and the attributes of the stream itself.

    All ways to stop reading it go through `close` or `aclose`; the first call alone does anything.
    """

    def __init__(
        self, source: object, items: Any, aitems: Any, accumulator: Accumulator, feeder: Feeder
    ) -> None:
        self._source = source
        self._items = items
        self._aitems = aitems
        self._iterator: Any = None
        self._accumulator = accumulator
        self._feeder = feeder
        self._error: Exception | None = None
        self._ended = False  # nothing more is accumulated
        self._closed = False

    @property
    def completion(self) -> ChatCompletion:
        """The whole completion; of a stream that is complete, also before its last item was read.

        What is read after that is not accumulated.

        Raises what `Accumulator.completion` raises, and what accumulating raised on the way.
        """
        if not self._ended and self.status == "open":
            # Not the accumulator's own gate, which closes it: debuggers look at properties, too.
            raise IncompleteStreamError(
                "the stream has not ended yet", partial=self.snapshot(), problems=self.problems
            )
        self._end()
        if self._error is not None:
            raise self._error
        return self._accumulator.completion()

    def snapshot(self) -> ChatCompletion:
        """Build the completion as far as it is known. It does not change afterwards."""
        return self._accumulator.snapshot()

    @property
    def status(self) -> Status:
        """How the stream stands: "open", "complete", "truncated" or "failed" (SPEC section 6)."""
        status = self._accumulator.status
        return "truncated" if self._ended and status == "open" else status

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was wrong with the stream: the first hundred problems, in order."""
        return self._accumulator.problems

    @property
    def timing(self) -> Timing | None:
        """When the chunks came, None without a `clock`."""
        return self._accumulator.timing

    @property
    def problem_counts(self) -> Mapping[str, int]:
        """How many problems of each kind there were, those that are not kept included."""
        return self._accumulator.problem_counts

    def __getattr__(self, name: str) -> Any:
        # SDK users ask a stream for its `response`. `copy` asks before there is a source.
        if name.startswith("__") or name == "_source":
            raise AttributeError(name)
        return getattr(self._source, name)

    def _feed(self, item: object) -> None:
        # Before the item is handed out: whatever the loop's body raises, what it was given counts,
        # and a snapshot taken there holds it.
        if not self._ended:
            try:
                self._feeder.feed(item)
            except Exception as error:
                self._error = error
                self._ended = True

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            try:
                self._feeder.close()
            except Exception as error:
                self._error = error


class WrappedStream(_Wrapped[T_co]):
    """A stream that accumulates what it hands out; made by `wrap`."""

    def __iter__(self: Self) -> Self:
        return self

    def __next__(self) -> T_co:
        if self._closed:
            raise StopIteration
        try:
            if self._iterator is None:
                self._iterator = iter(self._items)
            item: T_co = next(self._iterator)
        except BaseException as error:
            with _after(error):
                self.close()
            raise
        self._feed(item)
        return item

    def close(self) -> None:
        """Close the stream and end the accumulating. Does nothing when called again."""
        if self._closed:
            return
        self._closed = True
        self._end()
        try:
            _close(self._iterator)
        finally:
            if self._source is not self._iterator:
                _close(self._source)

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        with _after(error):
            self.close()


class AsyncWrappedStream(_Wrapped[T_co]):
    """An async stream that accumulates what it hands out; made by `wrap`."""

    def __aiter__(self: Self) -> Self:
        return self

    async def __anext__(self) -> T_co:
        if self._closed:
            raise StopAsyncIteration
        try:
            if self._iterator is None:
                self._iterator = aiter(self._aitems)
            item: T_co = await anext(self._iterator)
        except BaseException as error:
            with _after(error):
                await self.aclose()
            raise
        self._feed(item)
        return item

    async def aclose(self) -> None:
        """Close the stream and end the accumulating. Does nothing when called again."""
        if self._closed:
            return
        self._closed = True
        self._end()
        try:
            await _aclose(self._iterator)
        finally:
            if self._source is not self._iterator:
                await _aclose(self._source)

    async def close(self) -> None:
        """Do as `aclose`, by the name that openai's AsyncStream has for it."""
        await self.aclose()

    async def __aenter__(self: Self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        with _after(error):
            await self.aclose()


# As with httpx's Response, `close` is the sync one.
class DualWrappedStream(WrappedStream[T_co], AsyncWrappedStream[T_co]):  # type: ignore[misc]
    """A stream to be read either way, like httpx's Response; made by `wrap`."""


def _after(error: BaseException | None) -> AbstractContextManager[None]:
    """Keep what closing raises from hiding the error that led to it."""
    if error is None or isinstance(error, (StopIteration, StopAsyncIteration)):
        return nullcontext()
    return suppress(Exception)


def _close(stream: object) -> None:
    close = getattr(stream, "close", None)
    if close is not None:
        close()


async def _aclose(stream: object) -> None:
    close = getattr(stream, "aclose", None) or getattr(stream, "close", None)
    if close is not None:
        closing = close()
        if hasattr(closing, "__await__"):  # that of aiohttp's response is not async
            await closing


# --- responses ---


def _has(thing: object, *names: str) -> bool:
    # Asked of the type: requests' `content` reads the body, and a wrapper answers for its source.
    return all(hasattr(type(thing), name) for name in names)


# What a response is known by, and how its body is read in the pieces that arrive.
_RESPONSES: tuple[tuple[tuple[str, ...], Callable[[Any], object]], ...] = (
    # httpx, httpx2, openai's raw responses
    (("iter_bytes",), lambda response: response.iter_bytes()),
    (("aiter_bytes",), lambda response: response.aiter_bytes()),
    # requests, which hands out 128 bytes at a time when iterated over
    (("iter_content",), lambda response: response.iter_content(chunk_size=None)),
    # aiohttp
    (("content", "request_info"), lambda response: response.content.iter_any()),
    # http.client, urllib, and urllib3, whose `stream` waits for 64 KiB where a body is not chunked
    (("geturl", "read1"), lambda response: iter(lambda: response.read1(65536), b"")),
)


def _is_bound_to_async(response: object) -> bool:
    """Tell by what it reads from whether an httpx Response is that of an async client."""
    source = getattr(response, "stream", None)
    return _has(source, "__aiter__") and not _has(source, "__iter__")


# --- events ---


# Any, as for `accumulate`.
@overload
def iter_events(stream: _Dual[object], **options: Unpack[_Timed]) -> Any: ...
@overload
def iter_events(
    stream: _Sync[object], **options: Unpack[_Timed]
) -> Generator[Event, None, None]: ...
@overload
def iter_events(
    stream: _Async[object], **options: Unpack[_Timed]
) -> AsyncGenerator[Event, None]: ...
def iter_events(
    stream: Any,
    *,
    framing: Framing = "body",
    rules: Rules = DEFAULT_RULES,
    limits: Limits = DEFAULT_LIMITS,
    strict: bool = False,
    clock: Clock | None = None,
) -> Generator[Event, None, None] | AsyncGenerator[Event, None]:
    """Read a stream to its end and close it; yield its typed events, async if the stream is.

    The last event is always `done`, which has the completion and how the stream ended; a stream
    that was cut off raises nothing. The events of what one item brought come together, before the
    next item is read. The arguments are as for `accumulate`; `clock` as for `Accumulator`.

    Raises the stream's own exceptions unchanged, LimitExceededError, and in strict mode what
    `Accumulator.feed` raises, all of them after the events of what had arrived; TypeError for what
    is no stream.

        for event in iter_events(client.chat.completions.create(stream=True, **request)):
            match event.type:
                case "content.delta":
                    print(event.delta, end="", flush=True)
                case "tool_calls.function.arguments.done":
                    start(event.name, json.loads(event.arguments))
                case "done":
                    save(event.completion)

    The stream is closed as soon as the generator is: use `contextlib.aclosing` to leave an async
    one early.
    """
    events: deque[Event] = deque()
    wrapped = wrap(
        stream,
        framing=framing,
        rules=rules,
        limits=limits,
        strict=strict,
        on_event=events.append,
        clock=clock,
    )
    if isinstance(wrapped, AsyncWrappedStream) and (
        not isinstance(wrapped, DualWrappedStream) or _is_bound_to_async(stream)
    ):
        return _aevents(wrapped, events)
    return _events(wrapped, events)


def _events(stream: WrappedStream[object], events: deque[Event]) -> Generator[Event, None, None]:
    try:
        with stream:
            for _ in stream:
                while events:
                    yield events.popleft()
                if stream._error is not None:
                    break
    except Exception:
        yield from _rest(stream, events)
        raise
    yield from _rest(stream, events)
    if stream._error is not None:
        raise stream._error


async def _aevents(
    stream: AsyncWrappedStream[object], events: deque[Event]
) -> AsyncGenerator[Event, None]:
    try:
        async with stream:
            async for _ in stream:
                while events:
                    yield events.popleft()
                if stream._error is not None:
                    break
    except Exception:
        for event in _rest(stream, events):
            yield event
        raise
    for event in _rest(stream, events):
        yield event
    if stream._error is not None:
        raise stream._error


def _rest(stream: _Wrapped[object], events: deque[Event]) -> Iterator[Event]:
    """End a stream that a limit or strict mode stopped, too, and give the events left."""
    with suppress(AccumulatorError):
        stream._accumulator.close()
    while events:
        yield events.popleft()
