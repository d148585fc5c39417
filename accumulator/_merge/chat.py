"""The reducer of chat completion streams: the data of an event to a chunk, the chunk to the state.

A chunk is decoded typed where it can be. What the typed decoders refuse takes the general way: any
JSON first, then field by field, and what is no JSON at all is looked at line by line.
"""

from __future__ import annotations

from collections.abc import Callable

from .._decode.chunk import (
    STACK_DEPTH,
    Chunk,
    MalformedJsonError,
    TooDeepError,
    decode_text,
    decode_untyped,
    exceeds_depth,
)
from .._decode.lenient import InvalidChunkError, read_chunk
from .._decode.objects import read_object
from .._decode.text import Text, healed
from .._decode.vendor_fields import ChunkDecoder, words_of
from ..completion import ChatCompletion
from ..errors import LimitExceededError
from ..limits import Limits
from ..rules import Rules
from .problem_log import ProblemLog
from .reducer import Reducer
from .snapshot import freeze

__all__ = ["DONE", "ChatReducer"]

DONE = b"[DONE]"
_EXCERPT = 200  # characters of an unreadable text that its problem keeps
_TYPED_DEPTH = 16  # what a typed decoder takes nests less deep


class ChatReducer(Reducer):
    """Reads events of chat completion streams, and applies them.

    `next_steps` are the two steps of nearly every event. They change with what a stream brings, so
    whoever keeps them looks again after each other call.
    """

    __slots__ = ("_decoder", "_reads_objects", "rules")

    def __init__(self, rules: Rules, limits: Limits, log: ProblemLog) -> None:
        Reducer.__init__(self, rules, limits, log)
        self.rules = rules
        depth = limits.depth
        # A stream's shape is not worth Structs where another rule moves fields out of their places,
        # and a low limit of depth can only be held by counting.
        refuses = rules.moves or (depth is not None and depth < _TYPED_DEPTH)
        self._decoder = ChunkDecoder(rules.levels, refuses)
        self._reads_objects = not refuses

    def next_steps(self) -> tuple[Callable[[bytes], Chunk], Callable[[Chunk], None]]:
        """Return what decodes the data of the next event, and what applies the chunk.

        The first raises ValueError or RecursionError for data that goes to `apply_refused`.
        """
        decoder = self._decoder
        if self.listener is not None:
            return decoder.decode, self.apply
        if decoder.is_text and not self._careful:
            return decode_text, self.apply_text
        return decoder.decode, self.apply_known

    def apply_data(self, data: bytes, *, unterminated: bool = False) -> None:
        """Apply the data of one event. Raises LimitExceededError."""
        if data == DONE:
            self.end()
            return
        try:
            chunk = self._decoder.decode(data)
        except (ValueError, RecursionError) as error:
            refused = words_of(error)
        else:
            self.apply(chunk)
            return
        self.apply_refused(data, refused, unterminated=unterminated)

    def apply_refused(self, data: bytes, refused: str, *, unterminated: bool = False) -> None:
        """Apply the data of one event that was not decoded; `refused` is what `words_of` found.

        Raises LimitExceededError.
        """
        chunk = self._decoder.retry(data, refused, self._log.event)
        if chunk is not None:
            self.apply(chunk)
            return
        value = self._apply_generally(data, unterminated=unterminated)
        if isinstance(value, dict):
            self._decoder.learn(value)

    def apply_object(self, value: object, count: Callable[[int], None]) -> bool:
        """Apply a chunk that is the caller's object, whose characters are to be counted first.

        Return whether `next_steps` may have changed. Raises LimitExceededError.
        """
        found = read_object(value) if self._reads_objects else None
        if found is None:
            self._apply_value(value, copying=True, count=count)
            return True
        chunk, size = found
        count(size)
        self._decoder.forget()
        if self.listener is None:
            self.apply_known(chunk)
        else:
            self.apply(chunk)
        return False

    def may_repeat(self, chunk: Chunk) -> bool:
        """Return whether a chunk may change nothing but texts when it is applied once more."""
        return (
            self.listener is None
            and self._decoder.repeats
            and chunk.usage is None
            and all(
                choice.delta is not None and not choice.finish_reason and choice.logprobs is None
                for choice in chunk.choices or ()
            )
        )

    def rehearse(self, data: bytes) -> list[tuple[Text, str]]:
        """Return each text that the data of an event would append to, and what.

        Raises if it would do anything else, or if that is not known.
        """
        return self.rehearse_chunk(self._decoder.decode_alone(data))

    def snapshot(self) -> ChatCompletion:
        """Return the completion as far as it is known."""
        return freeze(self.state)

    def forget(self) -> None:
        """Take no value for known: the chunk that brought it was not applied."""
        self._decoder.forget()

    def _apply_generally(self, text: bytes, *, unterminated: bool) -> object:
        """Apply the data of one event in the general way; return the JSON value that it is."""
        if text.strip() == DONE:
            self.end()
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

    def _apply_lines(self, text: str, why: str, *, unterminated: bool) -> None:
        """Apply the `data` lines of an event that are no JSON together; in logs without blank
        lines each is a chunk.
        """
        lines = text.split("\n")
        each = [_parsed(line) for line in lines] if len(lines) > 1 else []
        if each and (any(isinstance(value, dict) for value in each) or None not in each):
            for place, line in enumerate(lines, 1):
                if self.reading and line and not line.isspace():
                    is_last = place == len(lines)
                    self.apply_data(line.encode(), unterminated=unterminated and is_last)
            return
        if unterminated:
            self._log.report(
                "unterminated_event", "the body ends inside an event", None, text[:_EXCERPT]
            )
        else:
            self._log.report("malformed_json", why, None, text[:_EXCERPT])

    def _apply_value(
        self,
        value: object,
        *,
        copying: bool,
        has_halves: bool = False,
        bad_utf8: bool = False,
        may_be_deep: bool = True,
        count: Callable[[int], None] | None = None,
    ) -> None:
        report = self._log.report
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
                self.fail(refusal.error)
            return
        except TooDeepError as error:
            self._too_deep(str(error))
            return
        if count is not None:
            count(reading.size)
        self.check_limits(reading.chunk.choices or ())
        if bad_utf8:
            self._report_utf8()
        for misfit in reading.misfits:
            found, _ = healed(misfit.value)
            report("invalid_field", misfit.message, misfit.path, found)
        self._decoder.forget()
        self.apply_halved(reading.chunk, has_halves=reading.has_halves)
        for _ in range(reading.lone):
            report("lone_surrogate", "half a surrogate pair, replaced by U+FFFD")
        if reading.error is not None:
            self.fail(reading.error)

    def apply_error(self, data: bytes) -> None:
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
            self.fail(value)

    def _report_utf8(self) -> None:
        self._log.report("invalid_utf8", "bytes that are not UTF-8, replaced by U+FFFD")

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
        self._log.report("invalid_chunk", message)


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
