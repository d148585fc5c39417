"""Accumulate a stream while somebody else reads it, and report its end once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, Literal, TypeAlias

from attrs import frozen

from .._accumulator import Accumulator
from ..completion import ChatCompletion, Timing
from ..errors import DecodeError, Problem
from ..events import Event

# They end an iterator or a generator, and are not errors.
_ENDS = (StopIteration, StopAsyncIteration, GeneratorExit)

# The attribute in which an event holds a chunk (openai's `stream()`, where the first event for a
# chunk has it; Mistral's SDK), or the data of an event of the body (httpx-sse, sseclient-py).
_HOLDERS = ("chunk", "data")

StreamStatus = Literal["open", "complete", "truncated", "failed", "cancelled"]


@frozen(kw_only=True)
class StreamEnd:
    """How the reading of a stream ended: what `wrap` and `tap` pass to `on_end`, once.

    `completion` is whole or partial. `error` is what the source or the loop raised, else what
    `on_event` raised first, else what `Accumulator.completion` raises, else None. `server_error`
    is the error that the server sent, unchanged, or None. `timing` is None without a `clock`. The
    first line that applies gives the `status`:

    | status      | the stream                                                                  |
    |-------------|-----------------------------------------------------------------------------|
    | "failed"    | the server sent an error, or its SDK raised it with the server's `body`     |
    | "complete"  | `[DONE]` was read or every choice finished, whatever happened after that    |
    | "truncated" | the source ended, or raised an `Exception`; or accumulating had to stop     |
    |             | itself: a limit, a problem in strict mode, items that are not chunks        |
    | "cancelled" | the caller stopped: `close`, the end of `with`, an error in the loop's body;|
    |             | cancellation or KeyboardInterrupt while waiting; garbage collection; an     |
    |             | error of `on_event` in `accumulate`                                         |

    After a `close` without an error, `error` is None if `status` is "cancelled".

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
    """Feeds the items of a stream to an accumulator, and never raises because of one.

    Bytes and text are pieces of a body, or with `lines` its lines. Everything else is chunks, or
    events that hold them: see `_HOLDERS`.
    """

    def __init__(
        self,
        accumulator: Accumulator,
        on_end: OnEnd | None,
        *,
        source: object = None,
        lines: bool = False,
    ) -> None:
        check_on_end(on_end)
        self.accumulator = accumulator
        self._lines = lines
        self._holder = ""  # the attribute of items in which chunks are, if they are events
        # Most streams have items of one class, so what feeds an item is kept for the next one.
        self._kind: type | None = None
        self._take: Callable[[Any], None]
        self.on_end = on_end
        self.raises: bool = False  # whether the reader raises what `on_end` gets as the error
        self.ended: bool = False  # nothing more is accumulated
        self.stopped: bool = False  # by the reader, not by the source
        self.error: Exception | None = None  # what accumulating raised
        self.raised: list[Exception] = []  # what `on_event` raised first
        if accumulator._on_event is not None:
            accumulator._on_event = partial(_call, accumulator._on_event, self.raised)
        self.cause: BaseException | None = None  # what source, loop, closing or on_end raised
        self.source = source  # perhaps an HTTP client's response, whose status errors name

    def feed(self, item: object) -> None:
        """Feed the next item."""
        if not self.ended:
            try:
                if type(item) is not self._kind:
                    self._kind, self._take = type(item), self._way_of(item)
                self._take(item)
            except Exception as error:
                self.error = error
                self.end(stopped=False)

    def _way_of(self, item: object) -> Callable[[Any], None]:
        """Return what feeds an item, and all others of its class."""
        accumulator = self.accumulator
        if not isinstance(item, (bytes, bytearray, memoryview, str)):
            if not isinstance(item, Mapping) and not hasattr(item, "choices"):
                found = [name for name in _HOLDERS if hasattr(item, name)]
                self._holder = self._holder or "".join(found[:1])
            return self._feed_event if self._holder else accumulator.feed
        if self._lines:
            return accumulator.feed_line
        return self._feed_text if isinstance(item, str) else accumulator.feed_sse

    def _feed_event(self, event: object) -> None:
        """Feed what an event holds: a chunk, or the data of an event of the body."""
        held = getattr(event, self._holder, None)
        if isinstance(held, str):
            name = getattr(event, "event", None) or "message"
            line = "" if name == "message" else f"event: {name}\n"
            self._feed_text(line + "data: " + held.replace("\n", "\ndata: ") + "\n\n")
        elif held is not None:
            self.accumulator.feed(held)

    def _feed_text(self, text: str) -> None:
        self.accumulator.feed_sse(text.encode("utf-8", "surrogatepass"))

    def refuse(self, encoding: str) -> None:
        """Accumulate nothing if the body has a content encoding: it is compressed."""
        if encoding.lower() not in ("", "identity"):
            self.ended = True
            self.error = refusal(encoding)

    def break_off(self, error: BaseException) -> None:
        """End it because the source raised: at its end, an error, or an exception from outside."""
        # openai, and SDKs built on it, remove the server's error from the stream and raise it.
        body = getattr(error, "body", None)
        if isinstance(error, Exception) and isinstance(body, (Mapping, str)):
            self._holder = ""
            self.feed({"error": body})
        self.end(error, stopped=not isinstance(error, Exception))

    def blame(self, cause: BaseException | None) -> None:
        """Note what the source, the loop or closing raised; only the first one counts."""
        if self.cause is None and not isinstance(cause, _ENDS):
            self.cause = cause

    def end(self, cause: BaseException | None = None, *, stopped: bool = True) -> None:
        """Stop accumulating. Only the first call counts, but a later one may add a `cause`."""
        self.blame(cause)
        if not self.ended:
            self.ended = True
            self.stopped = stopped
        try:
            self.accumulator.close()  # again, if need be: events may wait for `on_event`
        except Exception as error:
            self.error = self.error or error

    @property
    def status(self) -> StreamStatus:
        status = self.accumulator.status
        if not self.ended or status in ("complete", "failed"):
            return status
        return "cancelled" if self.stopped else "truncated"

    def completion(self) -> ChatCompletion:
        for error in (*self.raised, self.error):
            if error is not None:
                raise error
        # Not the accumulator's own gate, which closes it: debuggers read properties, too, and
        # OpenAI's usage comes after the last finish reason.
        return self.accumulator._judged(is_stopped=self.stopped, source=self.source)

    @contextmanager
    def ending(self) -> Iterator[None]:
        """End it, and call `on_end` after the block has closed the source. What closing raises is
        suppressed if it would hide the cause; else it is the cause.
        """
        known = self.cause
        try:
            try:
                self.end()
            finally:  # `on_event` may raise KeyboardInterrupt
                yield
        except BaseException as error:
            self.blame(error)
            if known is None or not isinstance(error, Exception):
                raise
        finally:
            self.call_on_end()

    def call_on_end(self) -> None:
        """Call `on_end` unless it was called before. What it raises hides no other error."""
        on_end, self.on_end = self.on_end, None
        if on_end is None:
            return
        error = self.cause
        if error is None and (self.raised or self.status != "cancelled"):
            try:
                self.completion()
            except Exception as refused:
                error = refused
        end = StreamEnd(
            completion=self.accumulator.snapshot(),
            status=self.status,  # type: ignore[arg-type]  # no longer "open"
            problems=self.accumulator.problems,
            error=error,
            timing=self.accumulator.timing,
            server_error=self.accumulator.server_error,
        )
        try:
            on_end(end)
        except Exception as raised:
            if (error if self.raises else self.cause) is None:
                self.cause = raised
                raise
            report("on_end raised")


def _call(on_event: Callable[[Event], object], raised: list[Exception], event: Event) -> None:
    """Call `on_event`. What it raises must not end the accumulating."""
    try:
        on_event(event)
    except Exception as error:
        if not raised:
            raised.append(error)


def refusal(encoding: str) -> DecodeError:
    """Return the error for a body that is compressed."""
    return DecodeError(
        f"the body is compressed ({encoding}) and was not read", partial=ChatCompletion()
    )


def check_on_end(on_end: object) -> None:
    """Raise TypeError for an `on_end` that cannot be called, or would have to be awaited."""
    if on_end is None:
        return
    if not callable(on_end):
        raise TypeError(f"on_end is a function of a StreamEnd, not {type(on_end).__name__}")
    if iscoroutinefunction(on_end) or iscoroutinefunction(type(on_end).__call__):
        raise TypeError("on_end is called, not awaited: a stream can end in the garbage collector")


def report(message: str) -> None:
    """Log the current exception, which must not reach the caller's code."""
    import logging  # noqa: PLC0415  # a seventh of the package's import time, and rarely needed

    logging.getLogger("accumulator").exception(message)
