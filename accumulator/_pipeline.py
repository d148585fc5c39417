"""Every form of input to a reducer: bytes cut anywhere, lines, chunk texts, objects.

Three ways lead from a read to its events. Where the fast path is ready it takes what repeats.
Events of one line each, nearly all there are, go to the reducer as they are cut out of the read.
The rest is split into `Event`s. A stream's events and bytes are counted here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Protocol

from msgspec import Struct

from ._decode.sse import SHORT, CutEvents, Event, EventParser, cut_events, split
from ._decode.vendor_fields import words_of
from ._fast_path import LEARN_AFTER, FastPath, Rehearser
from ._merge.problem_log import ProblemLog
from .completion import ChatCompletion
from .errors import (
    AccumulatorError,
    DecodeError,
    IncompleteStreamError,
    LimitExceededError,
    ServerError,
)
from .limits import Limits
from .partial import is_complete

__all__ = ["LineState", "Pipeline", "StreamReducer"]

_DONE = b"[DONE]"
_LF, _CR = 10, 13
_OPENING, _CLOSING = b"data: ", b"\n\n"
_OPENS_CHUNK = b"data: {"
_ENDS = b"data: [DONE]"
_LAST = _ENDS + _CLOSING
_BOM = b"\xef\xbb\xbf"
_WINDOW = 65536  # bytes of a read that are taken at once; more of them leave the processor's cache


class StreamReducer(Rehearser, Protocol):
    """What a pipeline feeds: it decodes the data of an event, and applies what came of it.

    `next_steps` returns what does the one and the other; each other method may change them.
    """

    reading: bool  # neither ended nor closed

    def next_steps(self) -> tuple[Callable[[bytes], Any], Callable[[Any], None]]: ...
    def apply_data(self, data: bytes, *, unterminated: bool = False) -> None: ...
    def apply_refused(self, data: bytes, refused: str, *, unterminated: bool = False) -> None: ...
    def apply_error(self, data: bytes) -> None: ...
    def apply_object(self, value: object, count: Callable[[int], None]) -> bool: ...
    def end(self) -> None: ...
    def snapshot(self) -> ChatCompletion: ...


class LineState(Struct):
    """What a stream of lines needs to know beyond what waits in the parser."""

    waiting: bytes = b""  # a `data` line that may be a chunk by itself
    start: int | None = None  # the body's byte at which the lines that wait start
    end: int | None = 0  # where the next line starts; unknown once a line came without its end


class Pipeline:
    """Takes the input of one stream to its reducer.

    `feed_sse` and the others raise LimitExceededError, with the state as it was before the event
    at fault; in strict mode they raise the first problem that is met.
    """

    __slots__ = (
        "_apply",
        "_decode",
        "_fast",
        "_is_plain",
        "_learn_at",
        "_most_bytes",
        "_most_event",
        "besides",
        "closed",
        "lines",
        "log",
        "parser",
        "passed",
        "queue",
        "reducer",
        "size",
    )

    def __init__(
        self, reducer: StreamReducer, log: ProblemLog, limits: Limits, *, shortcut: bool
    ) -> None:
        self.reducer = reducer
        self.log = log
        self.parser = EventParser()
        self.lines: LineState | None = None  # made with the first line
        self.queue: Sequence[Event] = ()  # events behind one that raised
        self.size = 0  # bytes and characters taken in
        self.besides = 0  # those of them that are no part of a body
        self.closed = False
        self.passed: tuple[str, int] | None = None  # the last limit that was passed, and its bound
        self._most_bytes = inf if limits.total_bytes is None else limits.total_bytes
        self._most_event = inf if limits.event_bytes is None else limits.event_bytes
        self._decode, self._apply = reducer.next_steps()
        self._is_plain = not log.strict
        self._fast: FastPath | None = None  # made once a stream is long enough to need it
        self._learn_at: float = LEARN_AFTER if shortcut else inf  # events

    def look_again(self) -> None:
        """Take up how the next event is decoded and applied, which may have changed."""
        self._decode, self._apply = self.reducer.next_steps()
        self._is_plain = self._may_be_plain()

    def _may_be_plain(self) -> bool:
        """Whether the next read may be looked at by itself."""
        parser = self.parser
        waits = parser.size or parser.skip_lf or self.queue or (self.lines and self.lines.waiting)
        return not waits and self.reducer.reading and not self.log.strict

    def advance(self, events: int, size: int) -> None:
        """Count events and bytes."""
        if self.size + size > self._most_bytes:
            raise LimitExceededError("total_bytes", int(self._most_bytes))
        self.size += size
        self.log.event += events

    def check_open(self) -> None:
        """Raise ValueError if the input has ended."""
        if self.closed:
            raise ValueError("the accumulator is closed")

    def _count_besides(self, size: int) -> None:
        if self.size + size > self._most_bytes:
            self.advance(0, size)  # which raises
        self.size += size
        self.besides += size

    def _check_event(self, size: int) -> None:
        """Refuse an event, line or chunk text of too many bytes."""
        if size > self._most_event:
            raise LimitExceededError("event_bytes", int(self._most_event))

    # --- a body ---

    def feed_sse(self, data: object) -> None:
        """Take in the next bytes of a body, cut anywhere."""
        if self._is_plain and type(data) is bytes:
            if self._fast is not None and self._take_fast(self._fast, data):
                return
            if data.startswith(_OPENS_CHUNK) and data.endswith(_CLOSING):
                # A read of one event, as most clients hand them out.
                text, size, start = data[6:-2], len(data), self.size
                fits = size <= self._most_event and start + size <= self._most_bytes
                if fits and _LF not in text and _CR not in text:
                    log = self.log
                    self.size = start + size
                    log.event += 1
                    log.offset = start - self.besides
                    try:
                        chunk = self._decode(text)
                    except (ValueError, RecursionError) as error:
                        refused = words_of(error)
                    else:
                        self._apply(chunk)
                        if log.event >= self._learn_at:
                            self._learn(data[:-1], chunk)
                        return
                    self._apply_refused(text, refused)
                    return
        self._feed_read(_bytes_of(data, "a body"))

    def _feed_read(self, data: bytes) -> None:
        self.check_open()
        if not self.reducer.reading:
            return
        self.advance(0, len(data))
        start = self.size - self.besides - len(data)
        if self._is_plain and data == _LAST:
            self._apply_data(_DONE, start)
        elif len(data) <= _WINDOW:
            self._take(data, start)
        else:
            self._take_windows(data, start)

    def _take_windows(self, data: bytes, start: int) -> None:
        done = 0
        try:
            while done < len(data) and self.reducer.reading:
                window = data[done : done + _WINDOW]
                done += len(window)
                self._take(window, start + done - len(window))
        except AccumulatorError:
            self.queue = (*self.queue, *self._split(data[done:], start + done))
            raise

    def _take_fast(self, fast: FastPath, data: bytes) -> bool:
        """Apply a read that is one event by the fast path, if it fits."""
        size, start = len(data), self.size
        fits = size <= self._most_event and start + size <= self._most_bytes
        if fits and fast.ready and fast.apply_event(data):
            self.size = start + size
            self.log.event += 1
            self.log.offset = start - self.besides
            return True
        fast.invalidate()
        return False

    def _take(self, data: bytes, start: int) -> None:
        """Apply what a read completes that begins at the body's byte `start`; keep the rest."""
        parser = self.parser
        if self.lines is not None:
            self._hold_waiting(self.lines)
        if parser.size > self._most_event:
            self._check_event(parser.size)
        waits = self.queue or parser.skip_lf or parser.size > SHORT
        try:
            if not waits and not self.log.strict and _LF in data:
                start -= parser.size
                data = bytes(parser.pending) + data
                parser.hold(b"")
                done = self._apply_lines(data, start)
                data, start = data[done:], start + done
            events = self._split(data, start)
            if events or self.queue:
                self._apply_events(events)
        finally:
            self._is_plain = self._may_be_plain()
        if parser.size > self._most_event:
            self._check_event(parser.size)

    def _apply_lines(self, data: bytes, start: int) -> int:
        """Apply the events at the start of a read that are of one line each; return how many bytes
        they are.
        """
        done, fast = 0, self._fast
        if fast is not None and fast.ready and len(data) <= self._most_event:
            done = self._apply_matching(fast, data, start)
            data = data[done:]
        if self.reducer.reading and _LF in data:
            cut = cut_events(data, start + done)
            if cut is not None and cut.end - cut.start <= self._most_event:
                self._apply_cut(cut, data, start + done)
                done += cut.size
        return done

    def _apply_matching(self, fast: FastPath, data: bytes, start: int) -> int:
        """Apply events by the fast path, and one at a time those that do not fit; return how many
        bytes they are. Two in a row that do not fit leave the rest to the plain way.
        """
        done = misses = 0
        while fast.ready and misses < 2 and self.reducer.reading:
            count, size = fast.apply_matching(data[done:] if done else data)
            self.log.event += count
            done += size
            misses = 0 if count else misses
            end = data.find(_CLOSING, done) + len(_CLOSING)
            event = data[done:end]
            cut = cut_events(event, start + done) if event else None
            if cut is None:
                break
            try:
                self._apply_cut(cut, event, start + done)
            except LimitExceededError:
                self.queue = (*self.queue, *self._split(data[end:], start + end))
                raise
            done = end
            misses += 1
        return done

    def _split(self, data: bytes, start: int) -> list[Event]:
        """Return the events that a read completes, and keep the rest."""
        whole = self.parser.feed(data, start)
        return split(whole, start + len(data) - self.parser.size - len(whole))

    def _apply_cut(self, cut: CutEvents, data: bytes, start: int) -> None:
        """Apply events of one line each, cut out of data that starts at a byte of the body."""
        log, texts = self.log, cut.texts
        is_last = texts[-1] == _DONE
        if is_last:
            texts.pop()
            cut.end -= len(_DONE) + cut.around
        self._forget_fast()
        log.start_cut(cut)
        try:
            refused, chunk = self._apply_texts(texts)
            while refused is not None:
                text = texts[log.done]
                if not text.startswith(b"{"):
                    # Not a chunk: how many events it is, if any, is not told by its line alone.
                    offset = cut.start_of(log.done)
                    log.end_cut()
                    self._apply_events(split(data[offset - start : cut.size], offset))
                    return
                log.event += 1
                self._apply_refused(text, refused)
                if not self.reducer.reading:
                    return
                refused, chunk = self._apply_texts(texts[log.done :])
        except LimitExceededError:
            offset = cut.start_of(log.done)
            self.queue = split(data[offset - start : cut.size], offset)
            raise
        finally:
            log.end_cut()
        if is_last:
            log.start_event(cut.end)
            self.reducer.end()
        elif chunk is not None and log.event >= self._learn_at:
            self._learn(cut.line(-1), chunk, cut.line(-2) if len(texts) > 1 else b"")

    def _apply_texts(self, texts: Sequence[bytes]) -> tuple[str | None, object]:
        """Apply texts until one is refused; return the refusal's words, or else the last chunk."""
        log, apply, chunk = self.log, self._apply, None
        try:
            for chunk in map(self._decode, texts):
                log.event += 1
                apply(chunk)
        except (ValueError, RecursionError) as error:
            return words_of(error), None
        return None, chunk

    def _learn(self, line: bytes, chunk: object, before: bytes = b"") -> None:
        """Learn how to apply events like the last one."""
        fast = self._fast
        if fast is None:
            fast = self._fast = FastPath(self.reducer)
        fast.learn(line, chunk, self.log.event, before)
        self._learn_at = fast.learn_at

    def _forget_fast(self) -> None:
        """Take nothing for proved: something else is about to be applied."""
        if self._fast is not None:
            self._fast.invalidate()

    def _apply_refused(self, text: bytes, refused: str) -> None:
        try:
            self.reducer.apply_refused(text, refused)
        finally:
            self.look_again()

    def _apply_events(self, events: Sequence[Event], *, unterminated: bool = False) -> None:
        self._forget_fast()
        waiting = iter([*self.queue, *events] if self.queue else events)
        log, reducer = self.log, self.reducer
        try:
            for event in waiting:
                if not reducer.reading:
                    break
                log.start_event(event.offset)
                self._check_event(event.size)
                if event.name == b"error" and event.data.strip() != _DONE:
                    reducer.apply_error(event.data)
                else:
                    reducer.apply_data(event.data, unterminated=unterminated)
                self.raise_met()
        finally:
            self.queue = tuple(waiting) if reducer.reading else ()
            self.look_again()

    # --- lines ---

    def feed_line(self, line: bytes) -> None:
        """Take in a line of a body or of JSON Lines."""
        if not self.reducer.reading:
            return
        lines = self.lines
        if lines is None:
            lines = self.lines = LineState()
        text = line.rstrip(b"\r\n")
        offset = lines.end
        lines.end = None if offset is None or len(text) == len(line) else offset + len(line)
        if offset == 0:
            text = text.removeprefix(_BOM)
        is_json = text.lstrip(b" \t").startswith((b"{", _DONE))
        if lines.waiting and (not text or is_json or _are_chunks(lines.waiting, text)):
            # A second chunk ends the first, too: many logs lack the blank line.
            if not self._end_waiting(lines):
                return
        elif is_json and self.parser.size:
            self._parse_line(b"", lines.start)
        if is_json:
            self.feed_text(text, offset)
            return
        if not self.parser.size and not lines.waiting:
            if not text or text.startswith(b":"):
                self.raise_met()
                return
            lines.start = offset
        self.advance(0, len(line))
        if not self.parser.size and not lines.waiting and text.startswith((_OPENS_CHUNK, _ENDS)):
            self._check_event(len(text))
            lines.waiting = text
            self._is_plain = False
        else:
            self._hold_waiting(lines)
            self._parse_line(text, lines.start)
        self.raise_met()

    def _end_waiting(self, lines: LineState, *, unterminated: bool = False) -> bool:
        """Apply the line that waited as an event; return whether more is to be read."""
        text, lines.waiting = lines.waiting, b""
        if unterminated:
            self.log.start_event(lines.start)
            self.reducer.apply_data(text[5:].strip(), unterminated=True)
        else:
            self._apply_data(text[5:].strip(), lines.start)
        return self.reducer.reading

    def _hold_waiting(self, lines: LineState) -> None:
        """Keep the line that waited as one of several of its event."""
        text, lines.waiting = lines.waiting, b""
        if text:
            self._parse_line(text, lines.start)

    def _parse_line(self, line: bytes, start: int | None) -> None:
        self._check_event(self.parser.size)
        # At no byte of a body, so that a BOM in it stays.
        events = split(self.parser.feed(line + b"\n", -1), 0)
        for event in events:
            event.offset = start
        self._apply_events(events)
        self._check_event(self.parser.size)

    # --- chunks ---

    def feed_text(self, text: bytes, offset: int | None = None) -> None:
        """Take in a chunk's JSON, unless it is blank."""
        if self.reducer.reading and text and not text.isspace():
            size = len(text)
            self.advance(0, size)
            self.besides += size
            self._check_event(size)
            self._apply_data(text, offset)
            if self.log.met is not None:
                self.raise_met()

    def feed_object(self, chunk: object) -> None:
        """Take in a chunk that is the caller's object."""
        if self.reducer.reading:
            log = self.log
            log.event += 1
            log.offset = None
            self._forget_fast()
            if self.reducer.apply_object(chunk, self._count_besides):
                self.look_again()
            if log.met is not None:
                self.raise_met()

    def _apply_data(self, text: bytes, offset: int | None) -> None:
        """Apply the data of an event that starts at a byte of the body, if that is known."""
        self._forget_fast()
        self.log.start_event(offset)
        if text == _DONE:
            self.reducer.end()
            self._is_plain = False
            return
        try:
            chunk = self._decode(text)
        except (ValueError, RecursionError) as error:
            refused = words_of(error)
        else:
            self._apply(chunk)
            return
        self._apply_refused(text, refused)

    # --- all of these ---

    def end(self) -> None:
        """Read the event that has no blank line, too: nothing comes behind it."""
        self.closed = True
        self._is_plain = False
        lines = self.lines
        if self.queue:
            self._apply_events(())
        if lines is not None and lines.waiting and self.reducer.reading:
            self._end_waiting(lines, unterminated=True)
        if self.parser.size:
            events = self.parser.close(self.size - self.besides - self.parser.size)
            if lines is not None:
                for event in events:
                    event.offset = lines.start
            self._apply_events(events, unterminated=True)

    def raise_met(self) -> None:
        """In strict mode, raise the first problem since the last call."""
        if self.log.met is None:
            return
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


def _bytes_of(data: object, what: str) -> bytes:
    if type(data) is bytes:
        return data
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"{what} is bytes, not {type(data).__name__}")
    return bytes(data)


def _are_chunks(*lines: bytes) -> bool:
    """Whether each `data` line is a chunk by itself, or `[DONE]`."""
    texts = [line[5:].strip() for line in reversed(lines) if line.startswith(b"data:")]
    return len(texts) == len(lines) and all(
        text == _DONE or (text.startswith(b"{") and is_complete(text)) for text in texts
    )
