"""`Accumulator`: it passes every form of input to the reducer, and is the gate at the end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import NoReturn, TypeVar, cast

from ._decode.objects import is_chunk_like
from ._merge.chat import ChatReducer
from ._merge.event_emitter import EventEmitter
from ._merge.problem_log import ProblemLog, brief
from ._merge.snapshot import freeze
from ._merge.state import Status
from ._merge.stopwatch import Clock, Stopwatch
from ._merge.think_tags import ThinkTagReducer
from ._merge.verdict import why_truncated
from ._pipeline.pipeline import Pipeline
from .completion import ChatCompletion, Timing
from .errors import (
    LOSSY_KINDS,
    DecodeError,
    IncompleteStreamError,
    LimitExceededError,
    Problem,
    ServerError,
)
from .events import Event
from .limits import DEFAULT_LIMITS, Limits
from .rules import DEFAULT_RULES, Rules

F = TypeVar("F", bound=Callable[..., object])


def to_be_called(function: F) -> F:
    """Return a method that must be called: reading its attributes raises an error that says so."""
    return cast("F", _Called(function))


class _Called(partial[object]):
    def __get__(self, owner: object, kind: type) -> Callable[..., object]:
        return self.func if owner is None else _Called(self.func, owner)

    def __getattr__(self, name: str) -> object:
        call = f"{self.func.__name__}()"
        message = f"{call} is a method, so what it returns has {name!r}: write {call}.{name}"
        raise AttributeError(message, name=name, obj=self)


class Accumulator:
    """Turns a stream of `chat.completion.chunk` objects into one `ChatCompletion`, without doing
    any I/O.

    `rules` say how fields are merged, and `limits` bound what a server can make it keep. `strict`
    raises every problem as an exception at once; `shortcut=False` parses every chunk in full. With
    `think_tags`, reasoning between `<think>` tags at the start of content goes to
    `reasoning_content`.

    `on_event` is called with each `Event` of an input call, once the input is applied, and in
    strict mode before the exception. The caller of that call gets what `on_event` raises: nothing
    of the stream is lost, and the remaining events come with the next call. With `on_event`, every
    chunk is parsed in full. `clock`, such as `time.monotonic`, is called once at the start and once
    for each input call; `timing` is the result. It counts from `started`, if given: a time of that
    clock from before the request.

    Do not share an accumulator between threads without a lock.

    Source: SPEC sections 1 to 8.
    """

    __slots__ = (
        "_emitter",
        "_kind",
        "_observed",
        "_on_event",
        "_pipeline",
        "_reducer",
        "_stopwatch",
    )

    def __init__(
        self,
        *,
        rules: Rules = DEFAULT_RULES,
        limits: Limits = DEFAULT_LIMITS,
        strict: bool = False,
        shortcut: bool = True,
        think_tags: bool = False,
        on_event: Callable[[Event], object] | None = None,
        clock: Clock | None = None,
        started: float | None = None,
    ) -> None:
        if not isinstance(rules, Rules):
            raise TypeError("rules are DEFAULT_RULES.replace({path: policy, ...})")
        if not isinstance(limits, Limits):
            raise TypeError(f"limits are Limits(total_bytes=...), not {type(limits).__name__}")
        if on_event is not None and not callable(on_event):
            raise TypeError(f"on_event is a function of an event, not {type(on_event).__name__}")
        if started is not None and clock is None:
            raise TypeError("started is a time of the clock, and there is no clock")
        log = ProblemLog(strict=strict)
        reducer = (ThinkTagReducer if think_tags else ChatReducer).begin(rules, limits, log)
        self._reducer = reducer
        self._kind: type | None = None  # of the last chunk that was an object
        self._on_event = on_event
        self._emitter: EventEmitter | None = None
        may_repeat = shortcut and not rules.moves
        self._pipeline = Pipeline.begin(reducer, log, limits, shortcut=may_repeat)
        self._stopwatch = None if clock is None else Stopwatch(clock, started)
        # Whether to time each input call, or to emit events after it.
        self._observed = clock is not None
        if on_event is not None:
            self._collect_events()

    def __repr__(self) -> str:
        return f"<Accumulator status={self.status!r} chunks={self._chunks}>"

    @property
    def _chunks(self) -> int:
        """How many events came, not counting `[DONE]`."""
        return self._pipeline.log.event - self._reducer.state.done

    # --- input ---

    def feed(self, chunk: object) -> None:
        """Feed one chunk: JSON text, a mapping, or any SDK's chunk object.

        Raises TypeError for anything else, ValueError after `close`, LimitExceededError.
        """
        if self._observed:
            self._observe(self.feed, chunk)
            return
        pipeline = self._pipeline
        if not self._reducer.is_reading:
            pipeline.check_open()
        try:
            if type(chunk) is self._kind:
                pipeline.feed_object(chunk)
            elif isinstance(chunk, (bytes, bytearray, memoryview)):
                pipeline.feed_text(bytes(chunk))
            elif isinstance(chunk, str):
                pipeline.feed_text(chunk.encode("utf-8", "surrogatepass"))
            elif chunk is None:
                return  # an SDK passes on `data: null`
            elif is_chunk_like(chunk):
                # The chunks of a stream have one class. It is remembered, because checking it
                # against every other form takes long.
                self._kind = type(chunk)
                pipeline.feed_object(chunk)
            else:
                hint = ""
                if hasattr(chunk, "__iter__") or hasattr(chunk, "__aiter__"):
                    hint = "; accumulate() reads a whole stream, sync or async"
                raise TypeError(
                    "a chunk is JSON text, a mapping or an SDK's object, not "
                    f"{type(chunk).__name__}{hint}"
                )
        except LimitExceededError as error:
            raise self._exceeded(error) from None

    def feed_sse(self, data: bytes | bytearray | memoryview) -> None:
        """Feed the next bytes of a `text/event-stream` body, cut anywhere.

        Raises TypeError for text, ValueError after `close`, LimitExceededError.
        """
        if self._observed:
            self._observe(self._pipeline.feed_sse, data)
            return
        try:
            self._pipeline.feed_sse(data)
        except LimitExceededError as error:
            raise self._exceeded(error) from None

    def feed_line(self, line: bytes | bytearray | memoryview | str) -> None:
        """Feed one line of a `text/event-stream` body or of JSON Lines, with or without its line
        end.

        Raises TypeError for anything else, ValueError after `close`, LimitExceededError.
        """
        if self._observed:
            self._observe(self.feed_line, line)
            return
        if type(line) is not bytes:
            if isinstance(line, str):
                line = line.encode("utf-8", "surrogatepass")
            elif isinstance(line, (bytes, bytearray, memoryview)):
                line = bytes(line)
            else:
                raise TypeError(f"a line is bytes or text, not {type(line).__name__}")
        try:
            self._pipeline.feed_line(line)
        except LimitExceededError as error:
            raise self._exceeded(error) from None

    def close(self) -> None:
        """End the input, and read an event whose blank line is missing. Does nothing when called
        again. Raises LimitExceededError.
        """
        if self._observed:
            self._observe(self.close)
            return
        if self._pipeline.tally.is_closed:
            return
        try:
            self._pipeline.end()
        except LimitExceededError as error:
            raise self._exceeded(error) from None
        finally:
            self._reducer.close()
        self._pipeline.raise_met()

    def _collect_events(self) -> deque[Event]:
        """Collect events from now on; return the queue in which they wait for `on_event`."""
        reducer = self._reducer
        # The listener must not refer back to the reducer: only the collector can free a cycle.
        events: deque[Event] = deque()
        reducer.listener = EventEmitter(None, reducer.rules.levels, events, state=reducer.state)
        self._emitter = reducer.listener
        self._pipeline.log.on_problem = self._emitter.add_problem
        self._pipeline.parse_all()
        self._observed = True
        return events

    def _observe(self, take: Callable[..., None], *data: object) -> None:
        """Run an input call, time it, and call `on_event` with its events."""
        self._observed = False
        try:
            if self._stopwatch is None:
                take(*data)
            else:
                self._time(self._stopwatch, take, *data)
        except LimitExceededError as error:
            raise self._exceeded(error) from None
        finally:
            self._observed = True
            emitter, on_event = self._emitter, self._on_event
            if emitter is not None:
                if not self._reducer.is_reading:
                    emitter.finish(self.timing)
                events = emitter.events
                while on_event is not None and events:
                    on_event(events.popleft())

    def _time(self, stopwatch: Stopwatch, take: Callable[..., None], *data: object) -> None:
        state, log = self._reducer.state, self._pipeline.log
        now = 0.0 if state.closed else stopwatch.read()
        before, was_done = log.event, state.done
        try:
            take(*data)
        finally:
            # `[DONE]` is an event, but not a chunk.
            chunks = log.event - before - (state.done and not was_done)
            stopwatch.lap(now, chunks, state, ended=not self._reducer.is_reading)

    # --- output ---

    @property
    def status(self) -> Status:
        """The stream's status: "open", "complete", "truncated" or "failed" (SPEC section 6)."""
        return self._reducer.state.status

    @property
    def server_error(self) -> object:
        """The error object that the server sent, unchanged; None if it sent none."""
        return self._reducer.state.error

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was wrong with the stream: the first hundred problems, in order, followed by the
        first after which something is missing, if that came later.
        """
        return self._pipeline.log.problems

    @property
    def problem_counts(self) -> Mapping[str, int]:
        """How many problems of each kind there were, including those that are not kept."""
        return {kind: count for kind, count in self._pipeline.log.counts.items()}  # noqa: C416  # wider keys

    @property
    def timing(self) -> Timing | None:
        """When the chunks came; None without a `clock`.

        The clock is read once at the start of each input call: the chunks of one read have no gaps
        between them, and the first token has the time of its read.
        """
        return None if self._stopwatch is None else self._stopwatch.timing

    def snapshot(self) -> ChatCompletion:
        """Build the completion as far as it has arrived. It does not change afterwards."""
        return freeze(self._reducer.state)

    @to_be_called
    def completion(self) -> ChatCompletion:
        """Close the input, and return the whole completion.

        Raises LimitExceededError if a limit was passed, now or before, ServerError if the server
        sent an error, IncompleteStreamError if the stream stopped early, and DecodeError if a chunk
        could not be read. Each has the `partial` completion and the `problems`.
        """
        self.close()
        return self._judged()

    def _judged(self, *, is_stopped: bool = False, source: object = None) -> ChatCompletion:
        """Return the completion, or raise what `completion` raises, but do not close the input.

        The error says whether the reader stopped, and the status of a `source` that is a response.
        """
        passed = self._pipeline.tally.passed
        if passed is not None:  # what was refused is missing
            raise self._exceeded(LimitExceededError(*passed))
        state, problems = self._reducer.state, self._pipeline.log.problems
        partial, status = freeze(state), state.status
        if status == "open":
            raise IncompleteStreamError(
                "the stream has not ended yet", partial=partial, problems=problems
            )
        if status == "failed":
            raise ServerError(
                _message_of(state.error), error=state.error, partial=partial, problems=problems
            )
        if status == "truncated":
            why = why_truncated(
                partial,
                problems,
                chunks=self._chunks,
                size=self._pipeline.tally.size,
                is_stopped=is_stopped,
                source=source,
            )
            raise IncompleteStreamError(why, partial=partial, problems=problems)
        for problem in problems:
            if problem.kind in LOSSY_KINDS:
                raise DecodeError(str(problem), partial=partial, problems=problems, problem=problem)
        return partial

    # --- going on elsewhere ---

    def checkpoint(self) -> bytes:
        """Return the whole state as bytes, from which `restore` goes on. This works at any time,
        even in the middle of an event.

        The bytes contain what arrived (texts as UTF-8, the rest as msgpack) and about 200 bytes
        more. So checkpoints after every read of a long stream cost the square of its length.
        """
        from ._checkpoint import pack  # noqa: PLC0415  # takes time to import, and few streams are kept

        return pack(self._pipeline, self._reducer)

    @classmethod
    def restore(
        cls,
        data: bytes | bytearray | memoryview,
        *,
        rules: Rules = DEFAULT_RULES,
        limits: Limits = DEFAULT_LIMITS,
        strict: bool = False,
        shortcut: bool = True,
        think_tags: bool = False,
    ) -> Accumulator:
        """Go on from a checkpoint, in this process or another one.

        Pass the keywords of `Accumulator` again, except `on_event` and `clock`: a checkpoint does
        not know which events were emitted or are waiting, nor the timing. `rules` must have the
        same rows as before, and `think_tags` must be the same; the others may differ. Nothing in a
        checkpoint is run.

        Raises CheckpointError for bytes that are not a checkpoint, are damaged, or come from other
        rules or another version of this package; TypeError for anything but bytes.
        """
        from ._checkpoint import unpack  # noqa: PLC0415  # as in `checkpoint`

        restored = cls(
            rules=rules, limits=limits, strict=strict, shortcut=shortcut, think_tags=think_tags
        )
        unpack(data, restored._pipeline, restored._reducer)
        return restored

    def __reduce__(self) -> NoReturn:
        # Copies would share mutable state, and pickled bytes could run code.
        raise TypeError("an Accumulator is copied by Accumulator.restore(acc.checkpoint())")

    # --- what is raised ---

    def _exceeded(self, error: LimitExceededError) -> LimitExceededError:
        # The decoder remembers values of the refused chunk, but the next one may repeat them.
        self._reducer.forget()
        self._pipeline.tally.passed = (error.limit, error.bound)
        error.partial = self.snapshot()
        error.problems = self.problems
        return error


def _message_of(error: object) -> str:
    """Return a message with the sentence in a server's error object."""
    if isinstance(error, Mapping) and isinstance(error.get("message"), str):
        return f"the server sent an error: {error['message']}"
    return f"the server sent an error: {brief(error)}"
