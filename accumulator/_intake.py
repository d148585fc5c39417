"""Events to chunks to the reducer, with what is wrong about them on record.

A chunk is decoded typed where it can be. What the typed decoders refuse takes the general way: any
JSON first, then field by field, and what is no JSON at all is looked at line by line.
"""

from __future__ import annotations

from math import inf

from ._decode.chunk import (
    STACK_DEPTH,
    Chunk,
    MalformedJsonError,
    TooDeepError,
    decode_untyped,
    exceeds_depth,
)
from ._decode.lenient import InvalidChunkError, read_chunk
from ._decode.sse import Event
from ._decode.text import healed
from ._decode.vendor_fields import ChunkDecoder, words_of
from ._merge.problem_log import ProblemLog
from ._merge.reducer import Reducer
from .errors import LimitExceededError
from .limits import Limits
from .rules import Rules

__all__ = ["DONE", "Intake"]

DONE = b"[DONE]"
_EXCERPT = 200  # characters of an unreadable text that its problem keeps
_TYPED_DEPTH = 16  # what a typed decoder takes nests less deep


class Intake:
    """Reads events and chunks into a `Reducer`."""

    __slots__ = ("_limits", "decoder", "log", "most_bytes", "passed", "reducer", "rules", "size")

    def __init__(self, rules: Rules, limits: Limits, reducer: Reducer, log: ProblemLog) -> None:
        self.rules = rules
        self._limits = limits
        self.reducer = reducer
        self.log = log
        self.size = 0  # bytes taken in
        self.passed: tuple[str, int] | None = None  # the last limit that was passed, and its bound
        self.most_bytes = inf if limits.total_bytes is None else limits.total_bytes
        self.decoder = ChunkDecoder(
            rules,
            # A stream's shape is not worth Structs where another rule moves fields out of their
            # places, and a low limit of depth can only be held by counting.
            refuses=rules.moves or (limits.depth is not None and limits.depth < _TYPED_DEPTH),
        )

    def count_bytes(self, count: int) -> None:
        """Raise LimitExceededError if so many more bytes are too many."""
        if self.size + count > self.most_bytes:
            raise LimitExceededError("total_bytes", int(self.most_bytes))
        self.size += count

    def check_size(self, size: int) -> None:
        """Raise LimitExceededError for an event, line or chunk text of too many bytes."""
        bound = self._limits.event_bytes
        if bound is not None and size > bound:
            raise LimitExceededError("event_bytes", bound)

    def apply_event(self, event: Event, *, unterminated: bool = False) -> None:
        """Apply an event of a body. Raises LimitExceededError."""
        self.check_size(event.size)
        if event.name == b"error" and event.data.strip() != DONE:
            self._apply_error(event.data)
        else:
            self.apply_text(event.data, unterminated=unterminated)

    def apply_text(self, text: bytes, *, unterminated: bool = False) -> Chunk | None:
        """Apply the data of one event; return the chunk if it was decoded typed.

        Raises LimitExceededError.
        """
        decoder = self.decoder
        if text == DONE:
            self.reducer.end()
            return None
        if decoder.waits:
            decoder.waits -= 1
        elif (decode := decoder.decode) is not None:
            try:
                chunk = decode(text)
            except (ValueError, RecursionError) as error:
                refusal = words_of(error)
            else:
                self.reducer.apply(chunk)
                return chunk
            return self.apply_refused(text, refusal, unterminated=unterminated)
        self._apply_generally(text, unterminated=unterminated)
        return None

    def apply_refused(
        self, text: bytes, refusal: str, *, unterminated: bool = False
    ) -> Chunk | None:
        """Apply a text that `decoder.decode` refused with these words, as `apply_text` does."""
        chunk = self.decoder.retry(text, refusal, self.log.event)
        if chunk is not None:
            self.reducer.apply(chunk)
            return chunk
        value = self._apply_generally(text, unterminated=unterminated)
        if isinstance(value, dict):
            self.decoder.learn(value)
        return None

    def _apply_generally(self, text: bytes, *, unterminated: bool) -> object:
        """Apply the data of one event in the general way; return the JSON value that it is."""
        if text.strip() == DONE:
            self.reducer.end()
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
            return value
        return None

    def apply_object(self, value: object) -> tuple[Chunk, int] | None:
        """Apply a chunk that is the caller's object; return it and the characters in it, if there
        was nothing odd about it.

        Raises LimitExceededError.
        """
        return self._apply_value(value, copying=True, sized=False)

    def _apply_lines(self, text: str, why: str, *, unterminated: bool) -> None:
        """Apply the `data` lines of an event that are no JSON together; in logs without blank
        lines each is a chunk.
        """
        lines = text.split("\n")
        each = [_parsed(line) for line in lines] if len(lines) > 1 else []
        if each and (any(isinstance(value, dict) for value in each) or None not in each):
            for place, line in enumerate(lines, 1):
                if self.reducer.reading and line and not line.isspace():
                    is_last = place == len(lines)
                    self.apply_text(line.encode(), unterminated=unterminated and is_last)
            return
        if unterminated:
            self.log.report(
                "unterminated_event", "the body ends inside an event", None, text[:_EXCERPT]
            )
        else:
            self.log.report("malformed_json", why, None, text[:_EXCERPT])

    def _apply_value(
        self,
        value: object,
        *,
        copying: bool,
        has_halves: bool = False,
        sized: bool = True,
        bad_utf8: bool = False,
        may_be_deep: bool = True,
    ) -> tuple[Chunk, int] | None:
        report = self.log.report
        try:
            if may_be_deep:
                self._check_depth(value)
            reading = read_chunk(
                value,
                self.rules.moved,
                copying=copying,
                has_halves=has_halves,
                depth=self._limits.depth or STACK_DEPTH,
            )
        except InvalidChunkError as refusal:
            if bad_utf8:
                self._report_utf8()
            report("invalid_chunk", str(refusal))
            if refusal.error is not None:
                self.reducer.fail(refusal.error)
            return None
        except TooDeepError as error:
            self._too_deep(str(error))
            return None
        if not sized:
            self.count_bytes(reading.size)
        self.reducer.check(reading.chunk)
        if bad_utf8:
            self._report_utf8()
        for misfit in reading.misfits:
            found, _ = healed(misfit.value)
            report("invalid_field", misfit.message, misfit.path, found)
        self.decoder.forget()
        self.reducer.apply(reading.chunk, has_halves=reading.has_halves)
        for _ in range(reading.lone):
            report("lone_surrogate", "half a surrogate pair, replaced by U+FFFD")
        if reading.error is not None:
            self.reducer.fail(reading.error)
        is_odd = reading.misfits or reading.lone or reading.has_halves
        return None if is_odd else (reading.chunk, reading.size)

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
            self.reducer.fail(value)

    def _report_utf8(self) -> None:
        self.log.report("invalid_utf8", "bytes that are not UTF-8, replaced by U+FFFD")

    def _has_brackets(self, text: str) -> bool:
        """Whether a text has brackets enough to be nested too deep."""
        return text.count("{") + text.count("[") > (self._limits.depth or STACK_DEPTH)

    def _check_depth(self, value: object) -> None:
        bound = self._limits.depth
        if exceeds_depth(value, bound or STACK_DEPTH):
            if bound is None:
                raise TooDeepError(f"nested deeper than {STACK_DEPTH} levels")
            raise LimitExceededError("depth", bound)

    def _too_deep(self, message: str) -> None:
        if self._limits.depth is not None:
            raise LimitExceededError("depth", self._limits.depth)
        self.log.report("invalid_chunk", message)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _parsed(line: str) -> object:
    """Give what a line is as JSON: a dict for an object, True for another value, None for none."""
    try:
        value, _ = decode_untyped(line)
    except (MalformedJsonError, TooDeepError):
        return None
    return value if isinstance(value, dict) else True
