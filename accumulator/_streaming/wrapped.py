"""The streams that `wrap` gives: the items of another, and an `Observer` that is shown each."""

from __future__ import annotations

import atexit
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from inspect import isasyncgen
from typing import Any, Generic, NoReturn, TypeVar
from weakref import ref

from ..completion import ChatCompletion, Timing
from ..errors import Problem
from .clients import Found
from .observer import Observer, StreamStatus, cause_of, report

T_co = TypeVar("T_co", covariant=True)
Self = TypeVar("Self", bound="_Wrapped[Any]")

# Those that are open and have an `on_end`. No WeakSet: to iterate over it, at exit, raises where a
# daemon thread adds to it.
_OPEN: set[ref[_Wrapped[Any]]] = set()


class _Wrapped(Generic[T_co]):
    """What every wrapped stream has: the result so far, and the attributes of the stream itself.

    All ways to stop reading it go through `close` or `aclose`, or through `__del__` where nobody
    has it any more; the first call alone does anything.
    """

    _closed = True  # until it was made: `__del__` is called even if that failed

    def __init__(self, source: object, found: Found, observer: Observer) -> None:
        self._source = source
        self._found = found
        self._iterator: Any = None
        self._held = [source]  # what an async stream still has to close
        self._keeper: AsyncGenerator[None, None] | None = None
        self._observer = observer
        self._feed = observer.feed
        self._closed = False
        if observer.on_end is not None:
            _OPEN.add(ref(self, _OPEN.discard))

    def __repr__(self) -> str:
        chunks = self._observer.accumulator._chunks
        return f"<{type(self).__name__} status={self.status!r} chunks={chunks}>"

    @property
    def completion(self) -> ChatCompletion:
        """The whole completion; of a stream that is complete, also before its last item was read:
        as it is then, without a usage that is still to come.

        Raises what `Accumulator.completion` raises, and what accumulating raised on the way.
        """
        return self._observer.completion()

    def snapshot(self) -> ChatCompletion:
        """Build the completion as far as it is known. It does not change afterwards."""
        return self._observer.accumulator.snapshot()

    @property
    def status(self) -> StreamStatus:
        """How the stream stands: "open", or as the table of `StreamEnd` says."""
        return self._observer.status

    @property
    def server_error(self) -> object:
        """The error object that the server sent, as `Accumulator.server_error`."""
        return self._observer.accumulator.server_error

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was wrong with the stream, as `Accumulator.problems`."""
        return self._observer.accumulator.problems

    @property
    def problem_counts(self) -> Mapping[str, int]:
        """How many problems of each kind there were, those that are not kept included."""
        return self._observer.accumulator.problem_counts

    @property
    def timing(self) -> Timing | None:
        """When the chunks came, None without a `clock`."""
        return self._observer.accumulator.timing

    def __getattr__(self, name: str) -> Any:
        # SDK users ask a stream for its `response`. `_source` is not there yet while it is made.
        if name.startswith("__") or name == "_source":
            raise AttributeError(name)
        return getattr(self._source, name)

    def __reduce__(self) -> NoReturn:
        # Two that share one source would end it twice.
        raise TypeError(f"{type(self).__name__} cannot be copied")

    def __del__(self) -> None:
        if not self._closed:  # to close it may have to be awaited
            self._closed = True
            self._observer.end()
            self._observer.call_on_end()


class WrappedStream(_Wrapped[T_co]):
    """A stream that accumulates what it hands out; made by `wrap`."""

    def __iter__(self: Self) -> Self:
        return self

    def __next__(self) -> T_co:
        if self._closed:
            raise StopIteration
        try:
            if self._iterator is None:
                self._iterator = iter(self._found.items)
            item: T_co = next(self._iterator)
        except BaseException as error:
            self._observer.break_off(error)
            with _after(error):
                self.close()
            raise
        # Before the item is handed out: whatever the loop's body raises, what it was given counts,
        # and a snapshot taken there holds it.
        self._feed(item)
        return item

    def close(self) -> None:
        """Close the stream, end the accumulating, call `on_end`. Does nothing when called again."""
        if not self._closed:
            self._closed = True
            with self._observer.ending():
                try:
                    _close(self._iterator)
                finally:
                    if self._source is not self._iterator:
                        _close(self._source)

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._observer.end(cause_of(error))
        with _after(error):
            self.close()

    def __del__(self) -> None:
        self.close()


class AsyncWrappedStream(_Wrapped[T_co]):
    """An async stream that accumulates what it hands out; made by `wrap`.

    One that nobody has any more cannot wait for its source to close: it leaves that to the event
    loop in which it was read.
    """

    def __aiter__(self: Self) -> Self:
        return self

    async def __anext__(self) -> T_co:
        if self._closed:
            raise StopAsyncIteration
        try:
            if self._iterator is None:
                iterator = self._iterator = aiter(self._found.aitems)
                if iterator is not self._source:
                    self._held.insert(0, iterator)
                self._keeper = _keep(self._held)
                await anext(self._keeper)
            item: T_co = await anext(self._iterator)
        except BaseException as error:
            self._observer.break_off(error)
            with _after(error):
                await self.aclose()
            raise
        self._feed(item)
        return item

    async def aclose(self) -> None:
        """Close the stream, end the accumulating, call `on_end`. Does nothing when called again."""
        if not self._closed:
            self._closed = True
            with self._observer.ending():
                await _aclose_each(self._held)
                if self._keeper is not None:
                    await self._keeper.aclose()

    async def close(self) -> None:
        """Do as `aclose`, by the name that openai's AsyncStream has for it."""
        await self.aclose()

    async def __aenter__(self: Self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._observer.end(cause_of(error))
        with _after(error):
            await self.aclose()


# As with httpx's Response, `close` is the sync one.
class DualWrappedStream(WrappedStream[T_co], AsyncWrappedStream[T_co]):  # type: ignore[misc]
    """A stream to be read either way, like httpx's Response; made by `wrap`."""

    def __del__(self) -> None:
        if self._keeper is not None or self._found.is_async:
            _Wrapped.__del__(self)
        else:
            self.close()


async def _keep(held: list[object]) -> AsyncGenerator[None, None]:
    """Close what is held when it is closed itself: an event loop closes the generators that were
    begun in it and that nobody has any more.
    """
    try:
        yield
    finally:
        held[:] = [each for each in held if not isasyncgen(each)]  # those it closes, too
        await _aclose_each(held)


def _after(error: BaseException | None) -> AbstractContextManager[None]:
    """Keep what closing raises from hiding the error that led to it."""
    return nullcontext() if cause_of(error) is None else suppress(Exception)


def _close(stream: object) -> None:
    close = getattr(stream, "close", None)
    if close is not None:
        close()


async def _aclose_each(held: list[object]) -> None:
    while held:
        stream = held.pop(0)
        close = getattr(stream, "aclose", None) or getattr(stream, "close", None)
        try:
            closing: Any = None if close is None else close()
            if hasattr(closing, "__await__"):  # that of aiohttp's response is not async
                await closing
        except BaseException:
            await _aclose_each(held)
            raise


def _leave_to_parent() -> None:
    """Forget each `on_end` in a process that was forked: the parent calls them."""
    for stream in [stream for each in list(_OPEN) if (stream := each()) is not None]:
        stream._observer.on_end = None
    _OPEN.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_leave_to_parent)


@atexit.register
def _end_what_is_open() -> None:
    # Python collects what modules hold after their functions have lost what they need, or never.
    for stream in [stream for each in list(_OPEN) if (stream := each()) is not None]:
        try:
            stream.__del__()
        except Exception:
            report("a stream that was open at exit raised")
