"""The streams that `wrap` returns: they yield another's items and feed each to an `Observer`."""

from __future__ import annotations

import atexit
import os
from collections.abc import AsyncGenerator, Mapping
from inspect import isasyncgen
from typing import Any, Generic, NoReturn, TypeVar
from weakref import ref

from ..completion import ChatCompletion, Timing
from ..errors import Problem
from .clients import Found
from .observer import Observer, StreamStatus, report

T_co = TypeVar("T_co", covariant=True)

# Open streams that have an `on_end`. This is not a WeakSet, because iterating over one at exit
# raises if a daemon thread adds to it.
_OPEN: set[ref[_Wrapped[Any]]] = set()


class _Wrapped(Generic[T_co]):
    """What every wrapped stream has: the result so far, and the attributes of the stream itself.

    All ways to stop reading go through `close` or `aclose`, or through `__del__` when it is
    garbage-collected. Only the first call does anything.
    """

    def __init__(self, source: object, found: Found, observer: Observer) -> None:
        self._source = source
        self._found = found
        self._iterator: Any = None
        self._held = [source]  # what an async stream has yet to close
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
        """The whole completion. A stream can be complete before its last item is read: then this is
        the completion so far, without a usage that is still to come.

        Raises what `Accumulator.completion` raises, and what accumulating raised.
        """
        return self._observer.completion()

    def snapshot(self) -> ChatCompletion:
        """Build the completion as far as it has arrived. It does not change afterwards."""
        return self._observer.accumulator.snapshot()

    @property
    def status(self) -> StreamStatus:
        """The stream's status: "open", or as in the table of `StreamEnd`."""
        return self._observer.status

    @property
    def server_error(self) -> object:
        """The error object that the server sent, like `Accumulator.server_error`."""
        return self._observer.accumulator.server_error

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was wrong with the stream, like `Accumulator.problems`."""
        return self._observer.accumulator.problems

    @property
    def problem_counts(self) -> Mapping[str, int]:
        """How many problems of each kind there were, including those that are not kept."""
        return self._observer.accumulator.problem_counts

    @property
    def timing(self) -> Timing | None:
        """When the chunks came; None without a `clock`."""
        return self._observer.accumulator.timing

    def __getattr__(self, name: str) -> Any:
        # SDK users want a stream's `response`.
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._source, name)

    def __reduce__(self) -> NoReturn:
        # Two streams that share one source would end it twice.
        raise TypeError(f"{type(self).__name__} cannot be copied")

    def __del__(self) -> None:
        if not self._closed:  # closing may have to be awaited
            self._closed = True
            self._observer.end()
            self._observer.call_on_end()


class WrappedStream(_Wrapped[T_co]):
    """A stream that accumulates what it yields; made by `wrap`."""

    def __iter__(self) -> WrappedStream[T_co]:
        return self

    def __next__(self) -> T_co:
        if self._closed:
            raise StopIteration
        try:
            if self._iterator is None:
                self._iterator = iter(self._found.items)
            item: T_co = next(self._iterator)
        except BaseException as error:
            with self:  # `on_event` may raise KeyboardInterrupt
                self._observer.break_off(error)
            raise
        # Before the item is returned: it counts whatever the loop's body raises, and a snapshot
        # taken there includes it.
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

    def __enter__(self) -> WrappedStream[T_co]:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._observer.blame(error)
        self.close()

    def __del__(self) -> None:
        if self._keeper is None:
            self.close()
        else:  # it was read async
            super().__del__()


class AsyncWrappedStream(_Wrapped[T_co]):
    """An async stream that accumulates what it yields; made by `wrap`.

    When it is garbage-collected, it cannot wait for its source to close. It leaves that to the
    event loop in which it was read.
    """

    def __aiter__(self) -> AsyncWrappedStream[T_co]:
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
            async with self:  # as in `WrappedStream`
                self._observer.break_off(error)
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
        """Do the same as `aclose`, under the name that openai's AsyncStream has for it."""
        await self.aclose()

    async def __aenter__(self) -> AsyncWrappedStream[T_co]:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._observer.blame(error)
        await self.aclose()


# As with httpx's Response, `close` is the sync one.
class DualWrappedStream(WrappedStream[T_co], AsyncWrappedStream[T_co]):  # type: ignore[misc]
    """A stream for sync or async reading, like httpx's Response; made by `wrap`."""


async def _keep(held: list[object]) -> AsyncGenerator[None, None]:
    """Close what is held when this generator is closed: an event loop closes the generators that
    were started in it, once they are garbage-collected.
    """
    try:
        yield
    finally:
        held[:] = [each for each in held if not isasyncgen(each)]  # the loop closes those
        await _aclose_each(held)


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
            if hasattr(closing, "__await__"):  # aiohttp's `close` is not async
                await closing
        except BaseException:
            await _aclose_each(held)
            raise


def _leave_to_parent() -> None:
    """Forget each `on_end` in a forked process: the parent calls them."""
    for stream in [stream for each in list(_OPEN) if (stream := each()) is not None]:
        stream._observer.on_end = None
    _OPEN.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_leave_to_parent)


@atexit.register
def _end_what_is_open() -> None:
    # Python collects objects in modules after their functions have lost what they need, or never.
    for stream in [stream for each in list(_OPEN) if (stream := each()) is not None]:
        try:
            stream.__del__()
        except Exception:
            report("a stream that was open at exit raised")
