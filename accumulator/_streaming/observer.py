"""What is made of a stream while somebody else reads it, and how its end is told: once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import iscoroutinefunction
from typing import Literal, TypeAlias

from attrs import frozen

from .._accumulator import Accumulator
from ..completion import ChatCompletion, Timing
from ..errors import Problem
from .feeder import Feeder, refusal

__all__ = [
    "Observer",
    "OnEnd",
    "StreamEnd",
    "StreamStatus",
    "cause_of",
    "refuse_coroutine",
    "report",
]

StreamStatus = Literal["open", "complete", "truncated", "failed", "cancelled"]


@frozen(kw_only=True)
class StreamEnd:
    """How the reading of a stream ended: what `wrap` and `tap` hand to `on_end`, once.

    `completion` is whole or partial. `error` is what the source or the loop raised, else what
    `Accumulator.completion` raises, else None. `server_error` is the error that the server sent, as
    it came, None if it sent none. `timing` is None without a `clock`. `status` is, by the first
    line that holds:

    | status      | the stream                                                                  |
    |-------------|-----------------------------------------------------------------------------|
    | "failed"    | the server sent an error, or its SDK raised it with the server's `body`     |
    | "complete"  | `[DONE]` was read or every choice finished, whatever happened after that    |
    | "truncated" | the source ended, or raised an `Exception`; or accumulating had to stop     |
    |             | itself: a limit, a problem in strict mode, items that are no chunks         |
    | "cancelled" | the caller stopped: `close`, the end of `with`, an error in the loop's body;|
    |             | cancellation or KeyboardInterrupt while waiting; nobody had it any more     |

    After a `close` without an error, `error` is None where `status` is "cancelled".

    Source: SPEC section 6, which has all but "cancelled".
    """

    completion: ChatCompletion
    status: Literal["complete", "truncated", "failed", "cancelled"]
    problems: tuple[Problem, ...]
    error: BaseException | None
    timing: Timing | None = None
    server_error: object = None


OnEnd: TypeAlias = Callable[[StreamEnd], object]


class Observer:
    """Accumulates items, and never raises because of one."""

    __slots__ = (
        "_feeder",
        "_on_end",
        "accumulator",
        "cause",
        "ended",
        "error",
        "source",
        "stopped",
    )

    accumulator: Accumulator
    ended: bool
    stopped: bool

    def __init__(self, accumulator: Accumulator, feeder: Feeder, on_end: OnEnd | None) -> None:
        if on_end is not None:
            refuse_coroutine(on_end)
        self.accumulator = accumulator
        self._feeder = feeder
        self._on_end = on_end
        self.ended = False  # nothing more is accumulated
        self.stopped = False  # by the reader, not by the source
        self.error: Exception | None = None  # what accumulating raised
        self.cause: BaseException | None = None  # what the source or the loop raised
        self.source: object = None  # perhaps an HTTP client's response, whose status errors name

    def feed(self, item: object) -> None:
        if not self.ended:
            try:
                feed_bytes = self._feeder.feed_bytes
                if feed_bytes is not None and type(item) is bytes:
                    feed_bytes(item)
                else:
                    self._feeder.feed(item)
            except Exception as error:
                self.error = error
                self.ended = True

    def refuse(self, encoding: str) -> None:
        """Accumulate nothing, because the body is compressed."""
        self.ended = True
        self.error = refusal(encoding)

    def break_off(self, error: BaseException) -> None:
        """End it because the source raised: its end, an error, or what came from outside."""
        cause = cause_of(error)
        # openai, and the SDKs built on it, take the server's error out of the stream and raise it.
        if cause is not None and isinstance(error, Exception):
            body = getattr(error, "body", None)
            if isinstance(body, (Mapping, str)):
                self.feed({"error": body})
        self.end(cause, stopped=not isinstance(error, Exception))

    def end(self, cause: BaseException | None = None, *, stopped: bool = True) -> None:
        """Accumulate nothing more. Only the first call counts, but for a `cause`."""
        if self.cause is None:
            self.cause = cause
        if not self.ended:
            self.ended = True
            self.stopped = stopped
            try:
                self._feeder.close()
            except Exception as error:
                self.error = error

    @property
    def has_on_end(self) -> bool:
        return self._on_end is not None

    @property
    def status(self) -> StreamStatus:
        status = self.accumulator.status
        if not self.ended or status in ("complete", "failed"):
            return status
        return "cancelled" if self.stopped else "truncated"

    def completion(self) -> ChatCompletion:
        if self.error is not None:
            raise self.error
        # Not the accumulator's own gate, which closes it: debuggers look at properties, too, and
        # OpenAI's usage comes behind the last finish reason.
        return self.accumulator._judged(is_stopped=self.stopped, source=self.source)

    def forget_on_end(self) -> None:
        """Leave `on_end` to the process that this one was forked from."""
        self._on_end = None

    def call_on_end(self, closing: BaseException | None = None) -> None:
        """Call `on_end`, if nobody has; what it raises hides neither the cause nor an error in
        closing.
        """
        on_end, self._on_end = self._on_end, None
        if on_end is None:
            return
        cause = closing if self.cause is None else self.cause
        try:
            on_end(self._described(cause))
        except Exception:
            if cause is None:
                raise
            report("on_end raised")

    def _described(self, error: BaseException | None) -> StreamEnd:
        status = self.status
        assert status != "open"
        if error is None and status != "cancelled":
            try:
                self.completion()
            except Exception as refused:  # an AccumulatorError, or TypeError for no chunks
                error = refused
        return StreamEnd(
            completion=self.accumulator.snapshot(),
            status=status,
            problems=self.accumulator.problems,
            error=error,
            timing=self.accumulator.timing,
            server_error=self.accumulator.server_error,
        )


def refuse_coroutine(on_end: object) -> None:
    """Raise TypeError for one that would have to be awaited."""
    if iscoroutinefunction(on_end) or (
        callable(on_end) and iscoroutinefunction(type(on_end).__call__)
    ):
        raise TypeError("on_end is called, not awaited: a stream can end in the collector")


def cause_of(error: BaseException | None) -> BaseException | None:
    """Return an error, or None for those by which iterators and generators end."""
    return None if isinstance(error, (StopIteration, StopAsyncIteration, GeneratorExit)) else error


def report(message: str) -> None:
    """Log the exception at hand, which must not reach anybody's code."""
    import logging  # noqa: PLC0415  # a seventh of the package's import time, and rarely needed

    logging.getLogger("accumulator").exception(message)
