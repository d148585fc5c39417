"""`Accumulator`: every form of input to the reducer, problems on record, and the gate at the
end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf

from ._checkpoint import pack, unpack
from ._freeze import freeze
from ._reduce import Reducer, Status
from ._schema import Names, find_schema, unknown_names
from ._shortcut import Shortcut
from ._sse import Event, EventParser, single_lines, split
from ._wire import (
    Chunk,
    InvalidChunkError,
    MalformedJsonError,
    TooDeepError,
    decode_typed,
    decode_untyped,
    exceeds_depth,
    healed,
    is_chunk_like,
    read_chunk,
)
from .completion import ChatCompletion
from .errors import (
    LOSSY_KINDS,
    AccumulatorError,
    DecodeError,
    IncompleteStreamError,
    LimitExceededError,
    Problem,
    ProblemKind,
    ServerError,
)
from .limits import DEFAULT_LIMITS, Limits
from .partial import is_complete
from .rules import DEFAULT_RULES, Rules

__all__ = ["Accumulator"]

_MOST_PROBLEMS = 100  # a server can go wrong in every chunk; all are counted, these many are kept
_EXCERPT = 200  # characters of an unreadable text that its problem keeps
_LONGEST_BACKOFF = 256  # chunks
_LEARN_AFTER = 8  # events; many streams are too short to earn a template's cost back
_MOST_SHAPES = 8  # that one stream has decoders made for
_STACK_DEPTH = 200  # levels that can be merged without exhausting the stack, limit or not
_TYPED_DEPTH = 16  # what a typed decoder takes nests less deep
_DONE = b"[DONE]"


class Accumulator:
    """Turns a stream of `chat.completion.chunk` objects into one `ChatCompletion`, without doing
    any I/O.

    `rules` say how fields are merged, `limits` bound what a server can make it hold, `strict`
    raises every problem as an exception at once, `shortcut=False` parses every chunk in full. Not
    to be shared between threads without a lock.

    Source: SPEC sections 1 to 8.
    """

    __slots__ = (
        "_backoff",
        "_by_line",
        "_counts",
        "_decode",
        "_event",
        "_limits",
        "_line_end",
        "_line_start",
        "_may_shortcut",
        "_met",
        "_most_bytes",
        "_most_pending",
        "_names",
        "_offset",
        "_one_chunk_waits",
        "_parser",
        "_problems",
        "_queue",
        "_reducer",
        "_rules",
        "_shapes_left",
        "_shortcut",
        "_size",
        "_strict",
        "_untyped",
    )

    def __init__(
        self,
        *,
        rules: Rules = DEFAULT_RULES,
        limits: Limits = DEFAULT_LIMITS,
        strict: bool = False,
        shortcut: bool = True,
    ) -> None:
        self._rules = rules
        self._limits = limits
        self._strict = strict
        self._reducer = Reducer(rules, limits, self._report)
        self._parser = EventParser()
        self._may_shortcut = shortcut and not rules.moves
        self._shortcut: Shortcut | None = None  # made once a stream is long enough to need it
        self._queue: Sequence[Event] = ()  # events behind one that raised
        self._problems: tuple[Problem, ...] = ()
        self._counts: dict[str, int] = {}
        self._met: Problem | None = None  # the first problem of the chunk at hand
        self._event = 0
        self._offset: int | None = None
        self._size = 0
        self._most_bytes = inf if limits.total_bytes is None else limits.total_bytes
        self._most_pending = inf if limits.event_bytes is None else limits.event_bytes
        self._one_chunk_waits = False  # the parser holds one `data` line, a chunk by itself
        self._by_line = False  # the parser is fed lines, whose ends may be missing
        self._line_start: int | None = None  # where the lines that wait in the parser start
        self._line_end: int | None = (
            0  # where the next line starts; unknown once a line came without its end
        )
        # How many chunks to decode untyped before the typed decoder is tried again: a stream that
        # once sent more than the API's fields tends to do it in every chunk, and a refused decode
        # is wasted.
        self._untyped = 0
        self._backoff = 1
        self._decode: Callable[[bytes], Chunk] = decode_typed
        self._names: Names = ((), (), (), ())  # the fields that it knows beyond the API's
        # A shape is not worth its Structs where another rule moves fields out of their places.
        self._shapes_left = _MOST_SHAPES
        if rules.moves or (limits.depth is not None and limits.depth < _TYPED_DEPTH):
            self._decode, self._shapes_left = _refuse, 0

    # --- input ---

    def feed(self, chunk: object) -> None:
        """Take in one chunk: JSON text, a mapping, or any SDK's chunk object.

        Raises TypeError for anything else, ValueError after `close`, LimitExceededError.
        """
        shortcut = self._shortcut
        if shortcut is not None:
            if shortcut.object is not None:
                size = shortcut.object.take(chunk, self._most_bytes - self._size)
                if size:
                    self._size += size
                    self._event += 1
                    return
            shortcut.forget()
        self._check_open()
        if isinstance(chunk, (bytes, bytearray, memoryview)):
            self._feed_text(bytes(chunk))
        elif isinstance(chunk, str):
            self._feed_text(chunk.encode("utf-8", "surrogatepass"))
        elif is_chunk_like(chunk):
            if not self._reducer.ended:
                self._event += 1
                self._offset = None
                self._apply_value(chunk, copying=True, sized=False)
                self._raise_met()
        else:
            raise TypeError(
                f"a chunk is JSON text, a mapping or an SDK's object, not {type(chunk).__name__}"
            )

    def feed_sse(self, data: bytes | bytearray | memoryview) -> None:
        """Take in the next bytes of a `text/event-stream` body, cut anywhere.

        Raises TypeError for text, ValueError after `close`, LimitExceededError.
        """
        shortcut, parser = self._shortcut, self._parser
        if shortcut is not None and shortcut.single and not parser.size and type(data) is bytes:
            size = self._size + len(data)
            if size <= self._most_bytes and shortcut.take_one(data):
                self._size = size
                self._event += 1
                parser.skip(len(data))
                return
        if self._reducer.ended or self._reducer.state.closed or type(data) is not bytes:
            self._check_open()
            if not isinstance(data, (bytes, bytearray, memoryview)):
                raise TypeError(f"a body is bytes, not {type(data).__name__}")
            if self._reducer.ended:
                return
            data = bytes(data)
        size = self._size = self._size + len(data)
        if size > self._most_bytes:
            self._size -= len(data)
            self._count_bytes(len(data))
        if parser.size > self._most_pending:
            self._check_pending()
        taken = parser.take(data)
        if taken or self._queue:
            self._apply_read(taken)
        if parser.size > self._most_pending:
            self._check_pending()

    def feed_line(self, line: bytes | bytearray | memoryview | str) -> None:
        """Take in one line, with or without its line end: of a `text/event-stream` body, or of
        JSON Lines.

        Raises TypeError for anything else, ValueError after `close`, LimitExceededError.
        """
        self._check_open()
        if isinstance(line, str):
            line = line.encode("utf-8", "surrogatepass")
        elif isinstance(line, (bytearray, memoryview)):
            line = bytes(line)
        elif not isinstance(line, bytes):
            raise TypeError(f"a line is bytes or text, not {type(line).__name__}")
        if self._reducer.ended:
            return
        if self._shortcut is not None:
            self._shortcut.forget()
        text = line.rstrip(b"\r\n")
        offset = self._line_end
        self._line_end = None if offset is None or len(text) == len(line) else offset + len(line)
        if offset == 0:
            text = text.removeprefix(b"\xef\xbb\xbf")
        in_json_lines = text.startswith((b"{", _DONE))
        is_chunk = in_json_lines or _is_chunk_line(text)
        if is_chunk and (in_json_lines or self._one_chunk_waits) and self._parser.size:
            # What waits lacks its blank line, as in many logs: no JSON goes on with a second chunk.
            self._take_line(b"")
        if in_json_lines:
            self._feed_text(text, offset)
            return
        if not self._parser.size:
            if not text or text.startswith(b":"):
                return
            self._line_start = offset
        self._one_chunk_waits = is_chunk and not self._parser.size
        self._count_bytes(len(line))
        self._take_line(text)

    def _take_line(self, line: bytes) -> None:
        self._by_line = True
        self._check_pending()
        taken = self._parser.take(line + b"\n")
        self._apply_events(split(taken, self._parser.start))
        self._check_pending()

    def close(self) -> None:
        """End the input: an event without its blank line is read, too. Does nothing when called
        again.
        """
        state = self._reducer.state
        if state.closed:
            return
        if self._shortcut is not None:
            self._shortcut.forget()
        try:
            self._apply_events(())
            self._apply_events(self._parser.close(), unterminated=True)
        finally:
            self._reducer.close()
        self._raise_met()

    # --- output ---

    @property
    def status(self) -> Status:
        """How the stream stands: "open", "complete", "truncated" or "failed" (SPEC section 6)."""
        return self._reducer.status

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was wrong with the stream: the first hundred problems, in order."""
        return self._problems

    @property
    def problem_counts(self) -> Mapping[str, int]:
        """How many problems of each kind there were, those that are not kept included."""
        return {**self._counts}

    def snapshot(self) -> ChatCompletion:
        """Build the completion as far as it is known. It does not change afterwards."""
        return freeze(self._reducer.state)

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
            error = self._reducer.state.error
            raise ServerError(_message_of(error), error=error, partial=partial, problems=problems)
        if status == "truncated":
            raise IncompleteStreamError(
                "the stream stopped before its end", partial=partial, problems=problems
            )
        for kind in LOSSY_KINDS:
            if kind in self._counts:
                first = next((problem for problem in problems if problem.kind == kind), None)
                raise DecodeError(
                    str(first or kind), partial=partial, problems=problems, problem=first
                )
        return partial

    # --- going on elsewhere ---

    def checkpoint(self) -> bytes:
        """Give the whole state as bytes, from which `restore` goes on: at any time, also between
        two bytes of an event.

        They hold what arrived (texts as UTF-8, the rest as msgpack) and about 200 bytes more, so a
        checkpoint after each read of a long stream costs in all the square of its length.
        """
        return pack(self, self._reducer, self._parser, self._rules)

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
        unpack(data, restored, restored._reducer, restored._parser, rules)
        return restored

    # --- from events to chunks ---

    def _apply_read(self, data: bytes) -> None:
        """Apply the whole events of a read: by the shortcut, else one by one."""
        shortcut, bound = self._shortcut, self._limits.event_bytes
        if shortcut is not None:
            count = shortcut.take(data) if shortcut.ready else 0
            if count:
                self._event += count
                return
            shortcut.forget()
        lines = None
        if not self._queue and (bound is None or len(data) <= bound):
            lines = single_lines(data)
        if lines is None:
            self._apply_events(split(data, self._parser.start))
            return
        chunk = None
        offset = self._parser.start
        apply = self._reducer.apply
        try:
            for line in lines:
                start, offset = offset, offset + len(line) + 2
                if self._untyped or not line.startswith(b"data: {"):
                    chunk = None
                else:
                    try:
                        chunk = self._decode(line[6:])
                    except (ValueError, RecursionError):
                        chunk = None
                if chunk is None:
                    self._apply_events(split(line, start))
                    if self._reducer.ended:
                        return
                else:
                    self._event += 1
                    self._offset = start
                    apply(chunk)
                    if self._met is not None:
                        self._raise_met()
        except AccumulatorError as error:
            rest = data[offset - self._parser.start :]
            self._queue = (*self._queue, *split(rest, offset))
            if isinstance(error, LimitExceededError):
                raise self._exceeded(error) from None
            raise
        if chunk is not None and self._may_shortcut and self._event >= _LEARN_AFTER:
            self._find_shortcut().learn(lines[-1], chunk)

    def _find_shortcut(self) -> Shortcut:
        if self._shortcut is None:
            self._shortcut = Shortcut(self._reducer)
        return self._shortcut

    def _apply_events(self, events: Sequence[Event], *, unterminated: bool = False) -> None:
        waiting = iter([*self._queue, *events] if self._queue else events)
        bound = self._limits.event_bytes
        try:
            for event in waiting:
                if self._reducer.ended:
                    break
                self._event += 1
                self._offset = event.offset if not self._by_line else self._line_start
                if bound is not None and len(event.data) > bound:
                    raise self._exceeded(LimitExceededError("event_bytes", bound))
                if event.name == b"error" and event.data.strip() != _DONE:
                    self._apply_error(event.data)
                else:
                    self._apply_text(event.data, unterminated=unterminated)
        finally:
            self._queue = () if self._reducer.ended else tuple(waiting)

    def _feed_text(self, text: bytes, offset: int | None = None) -> None:
        if self._reducer.ended or not text or text.isspace():
            return
        self._count_bytes(len(text))
        bound = self._limits.event_bytes
        if bound is not None and len(text) > bound:
            raise self._exceeded(LimitExceededError("event_bytes", bound))
        self._event += 1
        self._offset = offset
        self._apply_text(text)

    def _apply_text(self, text: bytes, *, unterminated: bool = False) -> Chunk | None:
        """Apply the data of one event; return the chunk if the typed decoder took it."""
        refused = False
        if self._untyped:
            self._untyped -= 1
        else:
            try:
                chunk = self._decode(text)
            except (ValueError, RecursionError):
                # More than the decoder knows, or no chunk at all: the general way tells.
                refused = True
                self._untyped = self._backoff
                self._backoff = min(2 * self._backoff, _LONGEST_BACKOFF)
            else:
                self._backoff = 1
                try:
                    self._reducer.apply(chunk)
                except LimitExceededError as error:
                    raise self._exceeded(error) from None
                if self._met is not None:
                    self._raise_met()
                return chunk
        if text.strip() == _DONE:
            self._reducer.end()
            return None
        valid = text.decode("utf-8", "replace")
        bad_utf8 = "\ufffd" in valid and not _is_utf8(text)
        try:
            value, has_halves = decode_untyped(valid)
        except MalformedJsonError as error:
            if bad_utf8:
                self._report_utf8()
            self._apply_lines(valid, str(error), unterminated=unterminated)
        except TooDeepError as error:
            self._too_deep(str(error))
        else:
            self._apply_value(
                value,
                copying=has_halves,
                has_halves=has_halves,
                bad_utf8=bad_utf8,
                may_be_deep=self._has_brackets(valid),
            )
            if refused and isinstance(value, dict):
                self._learn_shape(value)
        self._raise_met()
        return None

    def _learn_shape(self, value: Mapping[str, object]) -> None:
        """Look for a typed decoder that knows the fields of a chunk that one refused."""
        if self._shapes_left:
            names = unknown_names(value, self._names)
            schema = None if names is None else find_schema(names)
            if schema is not None:
                self._shapes_left -= 1
                self._names, self._decode = schema.names, schema.decode
                self._untyped, self._backoff = 0, 1

    def _apply_lines(self, text: str, why: str, *, unterminated: bool) -> None:
        """Apply the `data` lines of an event that are no JSON together; in logs without blank
        lines each is a chunk.
        """
        lines = text.split("\n")
        each = [_parsed(line) for line in lines] if len(lines) > 1 else []
        if each and (any(isinstance(value, dict) for value in each) or None not in each):
            for place, line in enumerate(lines, 1):
                if not self._reducer.ended and line and not line.isspace():
                    is_last = place == len(lines)
                    self._apply_text(line.encode(), unterminated=unterminated and is_last)
            return
        if unterminated:
            self._report(
                "unterminated_event", "the body ends inside an event", None, text[:_EXCERPT]
            )
        else:
            self._report("malformed_json", why, None, text[:_EXCERPT])

    def _apply_value(
        self,
        value: object,
        *,
        copying: bool,
        has_halves: bool = False,
        sized: bool = True,
        bad_utf8: bool = False,
        may_be_deep: bool = True,
    ) -> None:
        try:
            if may_be_deep:
                self._check_depth(value)
            reading = read_chunk(value, self._rules.moved, copying=copying, has_halves=has_halves)
        except InvalidChunkError as error:
            if bad_utf8:
                self._report_utf8()
            self._report("invalid_chunk", str(error))
            return
        except TooDeepError as error:
            self._too_deep(str(error))
            return
        if not sized:
            self._count_bytes(reading.size)
        try:
            self._reducer.check(reading.chunk)
        except LimitExceededError as error:
            raise self._exceeded(error) from None
        if bad_utf8:
            self._report_utf8()
        for misfit in reading.misfits:
            found, _ = healed(misfit.value)
            self._report("invalid_field", misfit.message, misfit.path, found)
        self._reducer.apply(reading.chunk, has_halves=reading.has_halves)
        odd = reading.misfits or reading.lone or reading.has_halves
        if not sized and self._may_shortcut and not odd:
            self._find_shortcut().learn_object(value, reading.chunk, reading.size)
        for _ in range(reading.lone):
            self._report("lone_surrogate", "half a surrogate pair, replaced by U+FFFD")
        if reading.error is not None:
            self._reducer.fail(reading.error)

    def _apply_error(self, data: bytes) -> None:
        """Apply an event named `error`: its JSON, else its text, is the server's error."""
        text = data.decode("utf-8", "replace")
        bad_utf8 = not _is_utf8(data)
        try:
            value, has_halves = decode_untyped(text)
            self._check_depth(value)
        except (MalformedJsonError, TooDeepError):
            value, has_halves = text, False
        if isinstance(value, dict) and value.get("error") is not None:
            self._apply_value(value, copying=has_halves, has_halves=has_halves, bad_utf8=bad_utf8)
        else:
            if bad_utf8:
                self._report_utf8()
            self._reducer.fail(value)
        self._raise_met()

    def _report_utf8(self) -> None:
        self._report("invalid_utf8", "bytes that are not UTF-8, replaced by U+FFFD")

    # --- problems and limits ---

    def _report(
        self, kind: ProblemKind, message: str, path: str | None = None, detail: object = None
    ) -> None:
        self._counts[kind] = self._counts.get(kind, 0) + 1
        if len(self._problems) < _MOST_PROBLEMS or self._strict:
            problem = Problem(kind, message, self._event, self._offset, path, detail)
            if len(self._problems) < _MOST_PROBLEMS:
                self._problems += (problem,)
            self._met = self._met or problem

    def _raise_met(self) -> None:
        """In strict mode, raise the first problem of the chunk just applied."""
        problem, self._met = self._met, None
        if problem is None or not self._strict:
            return
        message, partial, problems = str(problem), self.snapshot(), self.problems
        if problem.kind == "server_error":
            raise ServerError(
                message, error=problem.detail, partial=partial, problems=problems, problem=problem
            )
        error = IncompleteStreamError if problem.kind == "unterminated_event" else DecodeError
        raise error(message, partial=partial, problems=problems, problem=problem)

    def _has_brackets(self, text: str) -> bool:
        """Whether a text has brackets enough to be nested too deep."""
        return text.count("{") + text.count("[") > (self._limits.depth or _STACK_DEPTH)

    def _check_depth(self, value: object) -> None:
        bound = self._limits.depth
        if exceeds_depth(value, bound or _STACK_DEPTH):
            if bound is None:
                raise TooDeepError(f"nested deeper than {_STACK_DEPTH} levels")
            raise self._exceeded(LimitExceededError("depth", bound))

    def _too_deep(self, message: str) -> None:
        if self._limits.depth is not None:
            raise self._exceeded(LimitExceededError("depth", self._limits.depth))
        self._report("invalid_chunk", message)

    def _exceeded(self, error: LimitExceededError) -> LimitExceededError:
        error.partial = self.snapshot()
        error.problems = self.problems
        return error

    def _count_bytes(self, count: int) -> None:
        if self._size + count > self._most_bytes:
            raise self._exceeded(LimitExceededError("total_bytes", int(self._most_bytes)))
        self._size += count

    def _check_pending(self) -> None:
        if self._parser.size > self._most_pending:
            raise self._exceeded(LimitExceededError("event_bytes", int(self._most_pending)))

    def _check_open(self) -> None:
        if self._reducer.state.closed:
            raise ValueError("the accumulator is closed")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _refuse(text: bytes) -> Chunk:
    raise ValueError


def _is_chunk_line(line: bytes) -> bool:
    """Tell whether a `data` line is a chunk by itself, or `[DONE]`."""
    if not line.startswith(b"data:"):
        return False
    text = line[5:].strip()
    return text == _DONE or (text.startswith(b"{") and is_complete(text))


def _parsed(line: str) -> object:
    """Give what a line is as JSON: a dict for an object, True for another value, None for none."""
    try:
        value, _ = decode_untyped(line)
    except (MalformedJsonError, TooDeepError):
        return None
    return value if isinstance(value, dict) else True


def _message_of(error: object) -> str:
    """Find the sentence in a server's error object."""
    if isinstance(error, Mapping) and isinstance(error.get("message"), str):
        return f"the server sent an error: {error['message']}"
    return f"the server sent an error: {error!r}"
