"""Apply events to a reducer: cut out of a read, read from lines, or by the fast path.

A stream's events and bytes are counted here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Protocol

from msgspec import Struct, field

from .._decode.lines import DONE, Event, LineReader, is_end
from .._decode.sse import CutEvents, cut_events
from .._decode.vendor_fields import mismatch_of
from .._fast_path import FastPath, Rehearser
from .._merge.problem_log import ProblemLog
from ..completion import ChatCompletion
from ..errors import DecodeError, IncompleteStreamError, LimitExceededError, ServerError

EVENT_END = b"\n\n"


class StreamReducer(Rehearser, Protocol):
    """What a pipeline feeds: it decodes the data of an event, and applies the result.

    `next_steps` returns a function for each of these two steps; any other method may change them.
    """

    is_reading: bool  # neither ended nor closed

    @property
    def is_begun(self) -> bool: ...  # whether it read any value
    def next_steps(self) -> tuple[Callable[[bytes], Any], Callable[[Any, Any], object]]: ...
    def apply_event(self, event: Event) -> None: ...
    def apply_refused(self, data: bytes, mismatch: str) -> None: ...
    def append_object(self, value: object, room: float) -> int: ...
    def apply_object(self, value: object, count: Callable[[int, int], None]) -> bool: ...
    def end(self) -> None: ...
    def snapshot(self) -> ChatCompletion: ...


class Tally(Struct, array_like=True, gc=False):
    """How much of a stream was fed, as a checkpoint keeps it."""

    size: int = 0  # bytes and characters
    besides: int = 0  # those of them that are not part of a body
    is_located: bool = True  # whether it is known at which byte of a body the next line starts
    is_closed: bool = False
    passed: tuple[str, int] | None = None  # the last limit that was passed, and its bound


class EventApplier(Struct, eq=False):
    """Applies the events of one stream, and keeps those after one that raised for later."""

    reducer: StreamReducer
    log: ProblemLog
    _most_bytes: float
    _most_event: float
    _learn_at: float  # from this event on the fast path may learn; inf if it is never used
    _decode: Callable[[bytes], Any]
    _apply: Callable[[Any, Any], object]
    _is_plain: bool  # whether the next read may be looked at on its own
    parser: LineReader = field(default_factory=LineReader)
    tally: Tally = field(default_factory=Tally)
    queue: Sequence[Event] = ()  # events after one that raised
    _fast: FastPath | None = None  # made once a stream is long enough to need it

    def resume(self, parser: LineReader, tally: Tally, queue: Sequence[Event]) -> None:
        """Go on from a restored parser, tally and queue."""
        self.parser, self.tally, self.queue = parser, tally, queue
        self.look_up_steps()

    def parse_all(self) -> None:
        """Never use the fast path: a listener hears of each chunk. It has taken none so far."""
        self._learn_at = inf
        self.look_up_steps()

    def look_up_steps(self) -> None:
        """Look up how the next event is decoded and applied: that may have changed."""
        self._decode, self._apply = self.reducer.next_steps()
        self._is_plain = self._may_be_plain()

    def _may_be_plain(self) -> bool:
        return not self.parser.pending and self._may_be_cut()

    def _may_be_cut(self) -> bool:
        """Return whether what is pending and the next read may be cut into events together."""
        parser, waits = self.parser, self.parser.unread or self.queue
        return not waits and parser.is_fresh and self.reducer.is_reading and not self.log.strict

    def count(self, size: int, besides: int = 0) -> None:
        """Count bytes, and those of them that are not part of a body."""
        tally = self.tally
        if tally.size + size > self._most_bytes:
            raise LimitExceededError("total_bytes", int(self._most_bytes))
        tally.size += size
        if besides:
            tally.besides += besides

    def check_open(self) -> None:
        """Raise ValueError if the input has ended."""
        if self.tally.is_closed:
            raise ValueError("the accumulator is closed; each stream needs its own")

    def _check_event(self, size: int) -> None:
        """Refuse an event, line or chunk text of too many bytes."""
        if size > self._most_event:
            raise LimitExceededError("event_bytes", int(self._most_event))

    def _apply_cut(self, cut: CutEvents, data: bytes, start: int) -> None:
        """Apply events of one line each, cut out of data that starts at a byte of the body."""
        log, texts, fast = self.log, cut.texts, self._fast
        if fast is not None:
            fast.invalidate()
        log.start_cut(cut)
        rest: int | None = None  # where the events for the line reader start
        try:
            mismatch, chunk = self._apply_texts(texts)
            while mismatch is not None:
                text = texts[log.done]
                if not text.startswith(b"{"):
                    # Its line alone does not show how many events it is, if any.
                    rest = cut.start_of(log.done)
                    break
                log.event += 1
                self._apply_refused(text, mismatch)
                if not self.reducer.is_reading:
                    return
                mismatch, chunk = self._apply_texts(texts[log.done :])
        except LimitExceededError:
            offset = cut.start_of(log.done)
            self.queue = self.parser.feed(data[offset - start :], offset)
            raise
        finally:
            log.end_cut()
        if rest is not None:
            cut.size = len(data)
            self._apply_events(self.parser.feed(data[rest - start :], rest))
        elif cut.is_last:
            log.start_event(cut.end)
            self._end_reading(cut.end)
        elif chunk is not None and log.event >= self._learn_at and cut.opening:
            self._learn(cut.line(-1), chunk, cut.line(-2) if len(texts) > 1 else b"")

    def _apply_texts(self, texts: Sequence[bytes]) -> tuple[str | None, object]:
        """Apply texts until one is refused; return its mismatch, or else the last chunk."""
        log, reducer, apply, chunk = self.log, self.reducer, self._apply, None
        try:
            for chunk in map(self._decode, texts):
                log.event += 1
                apply(reducer, chunk)
        except (ValueError, RecursionError) as error:
            return mismatch_of(error), None
        return None, chunk

    def _take_fast(self, fast: FastPath, data: bytes) -> bool:
        """Apply a read by the fast path if it is one matching event; return whether it is."""
        size, tally = len(data), self.tally
        start = tally.size
        fits = size <= self._most_event and start + size <= self._most_bytes
        if fits and fast.ready and fast.apply_event(data):
            self.log.event += 1
            self.log.offset = start - tally.besides
            tally.size = start + size
            return True
        return False

    def _apply_matching(self, fast: FastPath, data: bytes, start: int) -> int:
        """Apply events by the fast path, and those that do not match one at a time; return how many
        bytes they were. After two mismatches in a row the rest is left to the plain way.
        """
        done = misses = 0
        while fast.ready and misses < 2 and self.reducer.is_reading:
            count, size = fast.apply_matching(data[done:] if done else data)
            self.log.event += count
            done += size
            misses = 0 if count else misses
            end = data.find(EVENT_END, done) + len(EVENT_END)
            if not fast.may_match(data, end):
                break
            event = data[done:end]
            cut = cut_events(event, start + done) if event else None
            if cut is None:
                break
            try:
                self._apply_cut(cut, event, start + done)
            except LimitExceededError:
                self.queue = (*self.queue, *self.parser.feed(data[end:], start + end))
                raise
            done = end
            misses += 1
        return done

    def _learn(self, line: bytes, chunk: object, before: bytes = b"") -> None:
        """Learn how to apply events like the last one."""
        fast = self._fast
        if fast is None:
            fast = self._fast = FastPath(self.reducer)
        fast.learn(line, chunk, self.log.event, before)
        self._learn_at = fast.learn_at

    def _forget_fast(self) -> None:
        """Discard what the fast path proved: something else is about to be applied."""
        if self._fast is not None:
            self._fast.invalidate()

    def _apply_refused(self, text: bytes, mismatch: str) -> None:
        reducer = self.reducer
        try:
            reducer.apply_refused(text, mismatch)
        finally:
            self._decode, self._apply = reducer.next_steps()
            self._is_plain = self._is_plain and reducer.is_reading

    def _apply_events(self, events: Sequence[Event]) -> None:
        self._forget_fast()
        waiting = iter([*self.queue, *events] if self.queue else events)
        log, reducer = self.log, self.reducer
        try:
            for event in waiting:
                if not reducer.is_reading:
                    break
                log.start_event(event.offset)
                self._check_event(event.size)
                end = None if event.offset is None else event.offset + event.size
                if is_end(event.data):
                    self._end_reading(end)
                else:
                    reducer.apply_event(event)
                    if self.parser.unread and not self.reducer.is_reading:  # the end, in its lines
                        self._report_unread(end)
                self.raise_met()
        finally:
            self.queue = tuple(waiting) if reducer.is_reading else ()
            self.look_up_steps()

    def _apply_data(self, text: bytes, offset: int | None) -> None:
        """Apply the data of an event that starts at a byte of the body, if that is known."""
        self._forget_fast()
        self.log.start_event(offset)
        if text == DONE:
            self._end_reading(offset)
            return
        try:
            chunk = self._decode(text)
        except (ValueError, RecursionError) as error:
            mismatch = mismatch_of(error)
        else:
            self._apply(self.reducer, chunk)
            return
        self._apply_refused(text, mismatch)

    def _end_reading(self, end: int | None) -> None:
        """Stop reading: the stream signalled its end."""
        if self.parser.unread:
            self._report_unread(end)
        self.reducer.end()
        self._is_plain = False

    def _report_unread(self, end: int | None = None) -> None:
        """Report a body in which nothing could be read, such as a page of HTML; `end` is the byte
        at which it signalled its end.
        """
        parser, log = self.parser, self.log
        is_behind = end is not None and parser.unread_at is not None and parser.unread_at >= end
        if parser.unread and not self.reducer.is_begun and not log.counts and not is_behind:
            log.offset = parser.unread_at
            quote = parser.quote
            log.report("malformed_json", "nothing of the body could be read", None, quote)
        parser.unread = b""

    def raise_met(self) -> None:
        """In strict mode, raise the first problem since the last call."""
        problem = self.log.take_met()
        if problem is None:
            return
        message, partial, problems = str(problem), self.reducer.snapshot(), self.log.problems
        if problem.kind == "server_error":
            raise ServerError(
                message, error=problem.detail, partial=partial, problems=problems, problem=problem
            )
        error = IncompleteStreamError if problem.kind == "unterminated_event" else DecodeError
        raise error(message, partial=partial, problems=problems, problem=problem)
