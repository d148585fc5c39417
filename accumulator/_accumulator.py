"""`Accumulator`: every form of input to the reducer, and the gate at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf

from ._checkpoint import pack, unpack
from ._emit import EmittingReducer
from ._freeze import freeze
from ._growing import Later
from ._intake import Intake
from ._problems import ProblemLog, Run
from ._reader import is_chunk_like
from ._reduce import Reducer, Status
from ._shortcut import Shortcut
from ._sse import Event, EventParser, single_lines, split
from ._timing import Clock, Stopwatch
from ._wire import Chunk
from .completion import ChatCompletion, Timing
from .errors import (
    LOSSY_KINDS,
    AccumulatorError,
    DecodeError,
    IncompleteStreamError,
    LimitExceededError,
    Problem,
    ServerError,
)
from .events import DoneEvent
from .events import Event as StreamEvent
from .limits import DEFAULT_LIMITS, Limits
from .partial import is_complete
from .rules import DEFAULT_RULES, Rules

__all__ = ["Accumulator"]

_LEARN_AFTER = 16  # events; many streams are too short to earn a template's cost back
_LF, _CR = 10, 13
_DATA = b"data: "
_DONE = b"[DONE]"


class Accumulator:
    """Turns a stream of `chat.completion.chunk` objects into one `ChatCompletion`, without doing
    any I/O.

    `rules` say how fields are merged, `limits` bound what a server can make it hold, `strict`
    raises every problem as an exception at once, `shortcut=False` parses every chunk in full.

    `on_event` is called with each `Event` of what a call of input brought, once all of that is
    applied; in strict mode before the exception. What it raises goes to the caller of that call:
    nothing of the stream is lost, and the events behind come with the next call. With it every
    chunk is parsed in full. `clock`, such as `time.monotonic`, is asked once at the start and once
    for each call of input; `timing` is what came of it.

    Not to be shared between threads without a lock.

    Source: SPEC sections 1 to 8.
    """

    __slots__ = (
        "_by_line",
        "_done_told",
        "_emitter",
        "_intake",
        "_line_end",
        "_line_start",
        "_log",
        "_may_shortcut",
        "_most_pending",
        "_observed",
        "_on_event",
        "_one_chunk_waits",
        "_parser",
        "_queue",
        "_rules",
        "_shortcut",
        "_stopwatch",
        "_strict",
    )

    def __init__(
        self,
        *,
        rules: Rules = DEFAULT_RULES,
        limits: Limits = DEFAULT_LIMITS,
        strict: bool = False,
        shortcut: bool = True,
        on_event: Callable[[StreamEvent], object] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._rules = rules
        log = self._log = ProblemLog(strict=strict)
        self._on_event = on_event
        self._emitter: EmittingReducer | None = None
        if on_event is not None:
            self._emitter = EmittingReducer(rules, limits, log.report)
            log.tell = self._emitter.tell_problem
        self._done_told = False  # whether the last event was made
        self._stopwatch = None if clock is None else Stopwatch(clock)
        # Whether a call of input is to be timed, and events are to be handed out behind it.
        self._observed = on_event is not None or clock is not None
        self._intake = Intake(
            rules, limits, self._emitter or Reducer(rules, limits, log.report), log
        )
        self._strict = strict
        self._parser = EventParser()
        self._may_shortcut = shortcut and not rules.moves and on_event is None
        self._shortcut: Shortcut | None = None  # made once a stream is long enough to need it
        self._queue: Sequence[Event] = ()  # events behind one that raised
        self._most_pending = inf if limits.event_bytes is None else limits.event_bytes
        self._one_chunk_waits = False  # the parser holds one `data` line, a chunk by itself
        self._by_line = False  # the parser is fed lines, whose ends may be missing
        self._line_start: int | None = None  # where the lines that wait in the parser start
        # Where the next line starts; unknown once a line came without its end.
        self._line_end: int | None = 0

    # --- input ---

    def feed(self, chunk: object) -> None:
        """Take in one chunk: JSON text, a mapping, or any SDK's chunk object.

        Raises TypeError for anything else, ValueError after `close`, LimitExceededError.
        """
        if self._observed:
            self._observe(self.feed, chunk)
            return
        shortcut, intake = self._shortcut, self._intake
        if shortcut is not None:
            if shortcut.object is not None:
                size = shortcut.object.take(chunk, intake.most_bytes - intake.size)
                if size:
                    intake.size += size
                    self._log.event += 1
                    return
            shortcut.forget()
        self._check_open()
        try:
            if isinstance(chunk, (bytes, bytearray, memoryview)):
                self._feed_text(bytes(chunk))
            elif isinstance(chunk, str):
                self._feed_text(chunk.encode("utf-8", "surrogatepass"))
            elif not is_chunk_like(chunk):
                kind = type(chunk).__name__
                raise TypeError(f"a chunk is JSON text, a mapping or an SDK's object, not {kind}")
            elif intake.reducer.reading:
                self._log.start_event(None)
                applied = intake.apply_object(chunk)
                if applied is not None and self._may_shortcut:
                    self._find_shortcut().learn_object(chunk, *applied)
        except LimitExceededError as error:
            raise self._exceeded(error) from None
        self._raise_met()

    def feed_sse(self, data: bytes | bytearray | memoryview) -> None:
        """Take in the next bytes of a `text/event-stream` body, cut anywhere.

        Raises TypeError for text, ValueError after `close`, LimitExceededError.
        """
        if self._observed:
            self._observe(self.feed_sse, data)
            return
        shortcut, parser, intake = self._shortcut, self._parser, self._intake
        if shortcut is not None and shortcut.ready and type(data) is bytes:
            size = intake.size + len(data)
            if size <= intake.most_bytes:
                taken = shortcut.take_read(parser, data)
                if taken:
                    intake.size = size
                    self._log.event += taken
                    return
        if not intake.reducer.reading or type(data) is not bytes:
            self._check_open()
            if not isinstance(data, (bytes, bytearray, memoryview)):
                raise TypeError(f"a body is bytes, not {type(data).__name__}")
            if not intake.reducer.reading:
                return
            data = bytes(data)
        try:
            intake.count_bytes(len(data))
            if (
                not parser.size
                and data.startswith(b"data: {")
                and data.find(_LF) == len(data) - 2
                and data.endswith(b"\n")
                and not self._queue
                and _CR not in data
            ):
                self._apply_one(data)
                return
            if parser.size > self._most_pending:
                intake.check_size(parser.size)
            events = parser.take(data)
            if events or self._queue:
                self._apply_read(events)
            if parser.size > self._most_pending:
                intake.check_size(parser.size)
        except LimitExceededError as error:
            raise self._exceeded(error) from None

    def feed_line(self, line: bytes | bytearray | memoryview | str) -> None:
        """Take in one line, with or without its line end: of a `text/event-stream` body, or of
        JSON Lines.

        Raises TypeError for anything else, ValueError after `close`, LimitExceededError.
        """
        if self._observed:
            self._observe(self.feed_line, line)
            return
        self._check_open()
        if isinstance(line, str):
            line = line.encode("utf-8", "surrogatepass")
        elif isinstance(line, (bytearray, memoryview)):
            line = bytes(line)
        elif not isinstance(line, bytes):
            raise TypeError(f"a line is bytes or text, not {type(line).__name__}")
        if not self._intake.reducer.reading:
            return
        if self._shortcut is not None:
            self._shortcut.forget()
        try:
            self._take_line(line)
        except LimitExceededError as error:
            raise self._exceeded(error) from None
        self._raise_met()

    def _take_line(self, line: bytes) -> None:
        text = line.rstrip(b"\r\n")
        offset = self._line_end
        self._line_end = None if offset is None or len(text) == len(line) else offset + len(line)
        if offset == 0:
            text = text.removeprefix(b"\xef\xbb\xbf")
        in_json_lines = text.startswith((b"{", _DONE))
        is_chunk = in_json_lines or _is_chunk_line(text)
        if is_chunk and (in_json_lines or self._one_chunk_waits) and self._parser.size:
            # What waits lacks its blank line, as in many logs: no JSON goes on with a second chunk.
            self._parse_line(b"")
        if in_json_lines:
            self._feed_text(text, offset)
            return
        if not self._parser.size:
            if not text or text.startswith(b":"):
                return
            self._line_start = offset
        self._one_chunk_waits = is_chunk and not self._parser.size
        self._intake.count_bytes(len(line))
        self._parse_line(text)

    def _parse_line(self, line: bytes) -> None:
        self._by_line = True
        self._intake.check_size(self._parser.size)
        taken = self._parser.take(line + b"\n")
        self._apply_events(split(taken, self._parser.start))
        self._intake.check_size(self._parser.size)

    def _feed_text(self, text: bytes, offset: int | None = None) -> None:
        intake = self._intake
        if intake.reducer.reading and text and not text.isspace():
            intake.count_bytes(len(text))
            intake.check_size(len(text))
            self._log.start_event(offset)
            intake.apply_text(text)

    def close(self) -> None:
        """End the input: an event without its blank line is read, too. Does nothing when called
        again.
        """
        if self._observed:
            self._observe(self.close)
            return
        reducer = self._intake.reducer
        if reducer.state.closed:
            return
        if self._shortcut is not None:
            self._shortcut.forget()
        try:
            if self._queue:
                self._apply_events(())
            if self._parser.size:
                self._apply_events(self._parser.close(), unterminated=True)
        except LimitExceededError as error:
            raise self._exceeded(error) from None
        finally:
            reducer.close()
        self._raise_met()

    def _observe(self, take: Callable[..., None], *data: object) -> None:
        """Make a call of input; time it, and hand out the events of what it brought."""
        stopwatch, reducer, log = self._stopwatch, self._intake.reducer, self._log
        now = 0.0 if stopwatch is None or reducer.state.closed else stopwatch.read()
        before, was_done = log.event, reducer.state.done
        self._observed = False
        try:
            take(*data)
        finally:
            self._observed = True
            if stopwatch is not None:
                # `[DONE]` is an event, but no chunk.
                chunks = log.event - before - (reducer.state.done and not was_done)
                stopwatch.lap(now, chunks, reducer.state, ended=not reducer.reading)
            self._hand_out()

    def _hand_out(self) -> None:
        emitter, on_event = self._emitter, self._on_event
        if emitter is None or on_event is None:
            return
        status = self.status
        if not self._done_told and not emitter.reading and status != "open":
            self._done_told = True
            emitter.events.append(
                DoneEvent(status=status, timing=self.timing, _completion=Later(self.snapshot))
            )
        while emitter.events:
            on_event(emitter.events.popleft())

    # --- output ---

    @property
    def status(self) -> Status:
        """How the stream stands: "open", "complete", "truncated" or "failed" (SPEC section 6)."""
        return self._intake.reducer.status

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was wrong with the stream: the first hundred problems, in order, and behind them the
        first after which something is missing, if that came later.
        """
        return self._log.problems

    @property
    def problem_counts(self) -> Mapping[str, int]:
        """How many problems of each kind there were, those that are not kept included."""
        return {kind: count for kind, count in (self._log.counts or {}).items()}  # noqa: C416  # wider keys

    @property
    def timing(self) -> Timing | None:
        """When the chunks came, None without a `clock`.

        The clock is read once for each call of input, as it begins: the chunks of one read have no
        gaps between them, and the first token is timed by the read that brought it.
        """
        return None if self._stopwatch is None else self._stopwatch.timing

    def snapshot(self) -> ChatCompletion:
        """Build the completion as far as it is known. It does not change afterwards."""
        return freeze(self._intake.reducer.state)

    def completion(self) -> ChatCompletion:
        """Close, and return the whole completion.

        Raises ServerError if the server sent an error, IncompleteStreamError if the stream stopped
        early, DecodeError if a chunk could not be read; each carries the `partial` completion and
        the `problems`.
        """
        self.close()
        partial, problems = self.snapshot(), self.problems
        status = self.status
        if status == "failed":
            error = self._intake.reducer.state.error
            raise ServerError(_message_of(error), error=error, partial=partial, problems=problems)
        if status == "truncated":
            raise IncompleteStreamError(
                "the stream stopped before its end", partial=partial, problems=problems
            )
        lossy = next((problem for problem in problems if problem.kind in LOSSY_KINDS), None)
        if lossy is not None:
            raise DecodeError(str(lossy), partial=partial, problems=problems, problem=lossy)
        return partial

    # --- going on elsewhere ---

    def checkpoint(self) -> bytes:
        """Give the whole state as bytes, from which `restore` goes on: at any time, also between
        two bytes of an event.

        They hold what arrived (texts as UTF-8, the rest as msgpack) and about 200 bytes more, so a
        checkpoint after each read of a long stream costs in all the square of its length.
        """
        return pack(self, self._intake, self._parser, self._rules)

    @classmethod
    def restore(
        cls,
        data: bytes | bytearray | memoryview,
        *,
        rules: Rules = DEFAULT_RULES,
        limits: Limits = DEFAULT_LIMITS,
        strict: bool = False,
        shortcut: bool = True,
    ) -> Accumulator:
        """Go on from a checkpoint, in this process or another one.

        The keywords are those of `Accumulator`, given again; `rules` must have the same rows as
        before, the others may differ. Nothing in a checkpoint is run. Raises CheckpointError for
        bytes that are none, are damaged, or come from other rules or another version of this
        package; TypeError for what is no bytes.
        """
        restored = cls(rules=rules, limits=limits, strict=strict, shortcut=shortcut)
        unpack(data, restored, restored._intake, restored._parser, rules)
        return restored

    # --- from a read to events ---

    def _apply_read(self, data: bytes) -> None:
        """Apply the whole events of a read: what repeats by the shortcut, else one by one."""
        start, shortcut = self._parser.start, self._shortcut
        single = None
        if not self._queue and len(data) <= self._most_pending:
            single = single_lines(data)
        taken, size = 0, 0
        if shortcut is not None:
            if single is not None and shortcut.ready:
                taken, size = shortcut.take(*single)
                self._log.event += taken
                if taken == len(single[0]):
                    return
            shortcut.forget()
        if single is not None:
            lines, line_end = single
            if taken:
                lines, data, start = lines[taken:], data[size:], start + size
            text = slice(len(_DATA), -len(line_end))
            texts = [line[text] for line in lines]
            # That each line is data is seen at once from what they make when put together again.
            body = (line_end + line_end + _DATA).join(texts)
            if data.startswith(_DATA) and data[len(_DATA) : -2 * len(line_end)] == body:
                more = len(_DATA) + 2 * len(line_end)
                chunk = self._apply_run(Run(texts, start, start + len(data), more))
                if chunk is not None and self._may_shortcut and self._log.event >= _LEARN_AFTER:
                    self._find_shortcut().learn(lines[-1], chunk, events=len(lines))
                return
        self._apply_events(split(data, start))

    def _apply_one(self, data: bytes) -> None:
        """Apply a read that is one event of one line, as clients hand them out."""
        log, parser, shortcut = self._log, self._parser, self._shortcut
        log.start_event(parser.taken)
        parser.taken += len(data)
        parser.skip_lf = False
        if shortcut is not None:
            shortcut.forget()
        text = data[len(_DATA) : -2]
        self._intake.check_size(len(text))
        chunk = self._intake.apply_text(text)
        if log.met is not None:
            self._raise_met()
        if chunk is not None and self._may_shortcut and log.event >= _LEARN_AFTER:
            self._find_shortcut().learn(data[:-1], chunk, events=1)

    def _apply_run(self, run: Run) -> Chunk | None:
        """Apply events of one line each; give the last one's chunk, if it was decoded typed."""
        log, intake, texts = self._log, self._intake, run.texts
        apply, decoder = intake.reducer.apply, intake.decoder
        chunk: Chunk | None = None
        # The end is no chunk, and a refused decode costs as much as several that are not.
        end = -1 if texts[-1] == _DONE else None
        log.run = run
        try:
            while run.place < len(texts):
                run.event = log.event
                refusal = None
                if not decoder.waits and decoder.decode is not None:
                    decode = decoder.decode
                    for text in texts[run.place : end] if run.place or end else texts:
                        try:
                            chunk = decode(text)
                        except (ValueError, RecursionError) as error:
                            refusal = error
                            break
                        log.event += 1
                        apply(chunk)
                        if log.met is not None:
                            self._raise_met()
                    if refusal is None and not end:
                        return chunk
                chunk = None
                run.go_on(log.event)
                text = texts[run.place]
                if not text or text.isspace():
                    run.place += 1
                    continue
                log.event += 1
                if refusal is None or text == _DONE:
                    chunk = intake.apply_text(text)
                else:
                    chunk = intake.apply_refused(text, refusal)
                if log.met is not None:
                    self._raise_met()
                run.go_on(log.event)
                if not intake.reducer.reading:
                    return None
        except AccumulatorError:
            if intake.reducer.reading:
                self._queue = (*self._queue, *run.events_from(run.count(log.event)))
            raise
        finally:
            log.end_run()
        return chunk

    def _find_shortcut(self) -> Shortcut:
        if self._shortcut is None:
            self._shortcut = Shortcut(
                self._intake.reducer, self._intake.decoder, self._most_pending
            )
        return self._shortcut

    def _apply_events(self, events: Sequence[Event], *, unterminated: bool = False) -> None:
        waiting = iter([*self._queue, *events] if self._queue else events)
        log, reducer = self._log, self._intake.reducer
        try:
            for event in waiting:
                if not reducer.reading:
                    break
                log.start_event(event.offset if not self._by_line else self._line_start)
                self._intake.apply_event(event, unterminated=unterminated)
                if log.met is not None:
                    self._raise_met()
        finally:
            self._queue = tuple(waiting) if reducer.reading else ()

    # --- what is raised ---

    def _raise_met(self) -> None:
        """In strict mode, raise the first problem since the last call."""
        problem = self._log.take_met()
        if problem is None or not self._strict:
            return
        message, partial, problems = str(problem), self.snapshot(), self.problems
        if problem.kind == "server_error":
            raise ServerError(
                message, error=problem.detail, partial=partial, problems=problems, problem=problem
            )
        error = IncompleteStreamError if problem.kind == "unterminated_event" else DecodeError
        raise error(message, partial=partial, problems=problems, problem=problem)

    def _exceeded(self, error: LimitExceededError) -> LimitExceededError:
        error.partial = self.snapshot()
        error.problems = self.problems
        return error

    def _check_open(self) -> None:
        if self._intake.reducer.state.closed:
            raise ValueError("the accumulator is closed")


def _is_chunk_line(line: bytes) -> bool:
    """Tell whether a `data` line is a chunk by itself, or `[DONE]`."""
    if not line.startswith(b"data:"):
        return False
    text = line[5:].strip()
    return text == _DONE or (text.startswith(b"{") and is_complete(text))


def _message_of(error: object) -> str:
    """Find the sentence in a server's error object."""
    if isinstance(error, Mapping) and isinstance(error.get("message"), str):
        return f"the server sent an error: {error['message']}"
    return f"the server sent an error: {error!r}"
