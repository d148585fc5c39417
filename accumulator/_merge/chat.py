"""The reducer of chat completion streams: the data of an event to a chunk, the chunk to the state.

Chunks are read by typed decoders if possible. What these refuse goes the general way: it is decoded
as any JSON, then read field by field. What is not JSON as a whole is read line by line.
`foreign` recognises what came instead of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any, ClassVar

from msgspec import Struct

from .._decode.chunk import (
    STACK_DEPTH,
    Chunk,
    MalformedJsonError,
    TooDeepError,
    decode_common,
    decode_untyped,
    exceeds_depth,
)
from .._decode.json_text import is_nothing
from .._decode.lenient import read_chunk
from .._decode.lines import Event, is_end
from .._decode.objects import MOST_MISSES, LastChunk, ObjectReader
from .._decode.values import InvalidChunkError, says_nothing
from .._decode.vendor_fields import ChunkDecoder, mismatch_of
from ..completion import ChatCompletion
from ..errors import LimitExceededError, ProblemKind
from ..limits import Limits
from ..rules import Rules
from .foreign import CHUNK_NAMES, error_object, find_other_api, is_raw_error, may_be_chunk
from .problem_log import ProblemLog
from .reducer import Reducer
from .rehearsal import Target
from .snapshot import freeze

_EXCERPT = 200  # characters of an unreadable text that its problem quotes
_TYPED_DEPTH = 16  # what the typed decoders accept has fewer levels


class Parsed(Struct):
    """A JSON value that may be a chunk."""

    value: object
    has_halves: bool = False  # whether a string in it may contain half a surrogate pair
    is_ours: bool = True  # false for an object of the caller's, who may change it later
    bad_utf8: bool = False
    may_be_deep: bool = True


class ChatReducer(Reducer, kw_only=True):
    """Reads events of chat completion streams, and applies them.

    `next_steps` returns the two steps for nearly every event. They depend on what has arrived, so a
    caller that keeps them must ask again after any other call.
    """

    think_tags: ClassVar[bool] = False  # whether reasoning between tags is separated from content

    _decoder: ChunkDecoder
    _objects: ObjectReader | None = None  # most streams have none

    @classmethod
    def begin(cls, rules: Rules, limits: Limits, log: ProblemLog) -> ChatReducer:
        """Return the reducer of a new stream."""
        # If a caller's rule moves fields out of their places, a shape is not worth its Structs. A
        # low limit of depth can only be enforced by counting levels.
        is_off = rules.moves or (limits.depth is not None and limits.depth < _TYPED_DEPTH)
        decoder, calls = ChunkDecoder(rules.levels, is_off), limits.tool_calls
        left = inf if calls is None else calls
        return cls(rules, limits, log, _decoder=decoder, _calls_left=left)

    @property
    def is_begun(self) -> bool:
        """Whether any JSON that says something was read."""
        return self._is_begun or self._head is not None or bool(self.state.choices)

    def next_steps(self) -> tuple[Callable[[bytes], Chunk], Callable[[Any, Chunk], object]]:
        """Return the decoder of the next event's data, and the method that applies the chunk.

        The decoder raises ValueError or RecursionError for data that `apply_refused` is for.
        """
        decoder = self._decoder
        if decoder.is_common and not self._checks_halves and not self._has_closing:
            listener = self.listener
            return decode_common, (ChatReducer if listener is None else listener).apply_common
        return decoder.decode, ChatReducer.apply_known

    def apply_event(self, event: Event) -> None:
        """Apply an event or a JSON text that does not end the stream. Raises LimitExceededError."""
        data = event.data
        if event.name == b"error":
            self._apply_error(data)
        elif event.form == "broken text":
            self._report_utf8(not _is_utf8(data))
            self._report_text("malformed_json", "JSON that has no end", data)
        elif event.form == "open text":
            self._report_text("unterminated_event", "the body ends inside JSON", data)
        else:
            self._apply_data(event)

    def _apply_data(self, event: Event) -> None:
        mismatch = ""
        if event.name in CHUNK_NAMES:
            try:
                chunk = self._decoder.decode(event.data)
            except (ValueError, RecursionError) as error:
                mismatch = mismatch_of(error)
            else:
                self.apply(chunk)
                return
        self._apply_undecoded(event, mismatch)

    def apply_refused(self, data: bytes, mismatch: str) -> None:
        """Apply the data of one event that was not decoded; `mismatch` is from `mismatch_of`.

        Raises LimitExceededError.
        """
        self._apply_undecoded(Event(data, None, None, len(data)), mismatch)

    def _apply_undecoded(self, event: Event, mismatch: str) -> None:
        if event.name in CHUNK_NAMES:
            chunk = self._decoder.decode_mismatched(event.data, mismatch)
            if chunk is not None and (self.is_begun or chunk.choices is not None):
                self.apply(chunk)
                return
        value = self._apply_generally(event)
        if isinstance(value, dict):
            self._decoder.learn(value)
        if not self.is_begun:
            self._decoder.begin_again()  # a shape learnt from another API would accept its events

    def append_object(self, value: object, room: float) -> int:
        """Append an object's fragment, if that is all it brings; return its characters, or 0."""
        objects = self._objects
        if objects is None or self._checks_halves or self._has_closing or self.listener is not None:
            return 0
        objects.misses += 1
        if objects.misses % 32 > MOST_MISSES:
            return 0
        found = objects.fragment(value, self._head)
        if found is None:
            return 0
        index, where, fragment, size = found
        into = self.state.choices.get(index)
        if into is None or into.finish_reason or size > room:
            return 0
        if type(where) is int:
            calls = into.calls
            return size if calls and self._append_arguments(calls, where, fragment) else 0
        text = into.content if where == "content" else into.reasoning_content
        if text is None:
            return 0
        text.append(fragment)
        return size

    def apply_object(self, value: object, count: Callable[[int, int], None]) -> bool:
        """Apply a chunk that is the caller's object, after `count` got its number of characters.

        Return whether `next_steps` may have changed. Raises LimitExceededError.
        """
        if self._head is None and not self.is_begun and (api := find_other_api(value)) is not None:
            self._refuse_other_api(api)
            return True
        if self._objects is None and not self._decoder.is_off:
            self._objects = ObjectReader()
        objects = self._objects
        found = None if objects is None else objects.read(value)
        if found is None:
            self._apply_value(Parsed(value, is_ours=False), count)
            self._is_begun |= not says_nothing(value)
            if type(value) is LastChunk and self.is_reading:
                self.end()
            return True
        chunk, size = found
        count(size, size)
        self._decoder.forget()
        self.apply_known(chunk)
        return False

    def may_repeat(self, chunk: Chunk) -> bool:
        """Return whether the next events may be like that of a chunk."""
        return (
            self.listener is None
            and self._decoder.may_be_alike
            and chunk.usage is None
            and all(
                (choice.delta is not None or choice.text is not None)
                and not choice.finish_reason
                and choice.logprobs is None
                for choice in chunk.choices or ()
            )
        )

    def rehearse(self, data: bytes) -> Sequence[tuple[Target | None, object]]:
        """Return each target that the data of an event would change, with the string or integer.

        Raises if it would do anything else, or if this cannot be known.
        """
        chunk = self._decoder.decode(data)
        brought: Sequence[tuple[Target | None, object]]
        try:
            brought = self.rehearse_texts(chunk)
        except ValueError:
            brought = self.rehearse_chunk(self._decoder.decode_alone(data))
        # llama.cpp and Ollama send the time of each chunk, and only the first time is kept.
        made = chunk.created
        return brought if made in (None, self.state.created) else [*brought, (None, made)]

    def snapshot(self) -> ChatCompletion:
        """Return the completion as far as it has arrived."""
        return freeze(self.state)

    def forget(self) -> None:
        """Forget which values are known: the chunk that brought the last ones was not applied."""
        self._decoder.forget()

    # --- the general way ---

    def _apply_generally(self, event: Event) -> object:
        """Apply the data of one event; return its JSON value if that is a chunk."""
        data = event.data
        if is_end(data):  # one of several lines
            self.end()
            return None
        text = data.decode("utf-8", "replace")
        bad_utf8 = "\ufffd" in text and not _is_utf8(data)
        try:
            value, has_halves = decode_untyped(text)
        except MalformedJsonError as error:
            self._report_utf8(bad_utf8)
            lines = [] if event.form == "text" else _lines_with_chunks(text)
            if lines:
                self._apply_lines(event, lines)
            else:
                self._apply_broken(event, text, str(error))
            return None
        except TooDeepError as error:
            self._too_deep(str(error))
            return None
        may_be_deep = text.count("{") + text.count("[") > (self.limits.depth or STACK_DEPTH)
        found = Parsed(value, has_halves, bad_utf8=bad_utf8, may_be_deep=may_be_deep)
        if event.form != "text" or not isinstance(value, list):
            return self._judge(found, event)
        if may_be_deep:
            self._check_depth(value)
        self._report_utf8(bad_utf8)
        for entry in value:
            if self.is_reading:
                self._judge(Parsed(entry, has_halves), event)
        return None

    def _apply_lines(self, event: Event, lines: list[bytes]) -> None:
        """Apply each line of an event as if it were an event of its own."""
        self._decoder.begin_again()  # the shape tried on all of it may take another API's first
        for number, line in enumerate(lines, 1):
            if self.is_reading and line.strip() and not is_nothing(line):
                form = event.form if number == len(lines) else "event"
                self._apply_data(Event(line, event.name, None, len(line), form))

    def _apply_broken(self, event: Event, text: str, why: str) -> None:
        """Apply a text that is not JSON."""
        is_open, is_foreign = event.form == "open event", event.name not in CHUNK_NAMES
        if not is_open and is_raw_error(text):
            self.fail(text)
        elif is_foreign and not text.lstrip().startswith(("{", "[")):
            self._report_text("foreign_event", "an event that is not a chunk", text)
        elif is_open:
            self._report_text("unterminated_event", "the body ends inside an event", text)
        else:
            self._report_text("malformed_json", why, text)

    def _judge(self, found: Parsed, event: Event) -> object:
        """Apply a JSON value if it is a chunk or an error, and then also return it."""
        value = found.value
        is_foreign = event.name not in CHUNK_NAMES
        if value is None or value in ("", []) or (value == {} and is_foreign):
            return None
        if not self.is_begun and (api := find_other_api(value)) is not None:
            self._report_utf8(found.bad_utf8)
            self._refuse_other_api(api)
            return None
        self._is_begun |= not says_nothing(value)
        if is_foreign and not may_be_chunk(value):
            self._report_utf8(found.bad_utf8)
            self._report_text("foreign_event", "an event that is not a chunk", str(value))
            return None
        if isinstance(value, list):
            value = found.value = error_object(value) or value
        self._apply_value(found)
        return value

    def _refuse_other_api(self, api: str) -> None:
        """Report a stream of another API, and stop reading it."""
        self._is_begun = True
        self._log.report("other_api", f"this is a stream of {api}, not of chat completions")
        self.is_reading = False

    def _apply_value(self, found: Parsed, count: Callable[[int, int], None] | None = None) -> None:
        """Apply a value field by field, after `count` got its number of characters."""
        try:
            if found.may_be_deep:
                self._check_depth(found.value)
            reading = read_chunk(
                found.value,
                self.rules.moved,
                copying=found.has_halves or not found.is_ours,
                has_halves=found.has_halves,
                depth=self.limits.depth or STACK_DEPTH,
            )
        except InvalidChunkError as error:
            self._report_utf8(found.bad_utf8)
            self._log.report("invalid_chunk", str(error))
            if error.server_error:
                self.fail(error.server_error)
            return
        except TooDeepError as error:
            self._too_deep(str(error))
            return
        if count is not None:
            count(reading.size, reading.size)
        self.prepare(reading)
        self._report_utf8(found.bad_utf8)
        self._decoder.forget()
        self.apply_reading(reading)

    def _apply_error(self, data: bytes) -> None:
        """Apply an event named `error`: its JSON, or otherwise its text, is the server's error."""
        text = data.decode("utf-8", "replace")
        found = Parsed(text, bad_utf8=not _is_utf8(data))
        try:
            value, has_halves = decode_untyped(text)
            self._check_depth(value)
        except (MalformedJsonError, TooDeepError):
            pass
        else:
            found.value, found.has_halves = value, has_halves
        chunk = error_object(found.value)
        if chunk is not None:
            found.value = chunk
            self._apply_value(found)
        else:
            self._report_utf8(found.bad_utf8)
            self.fail(True if found.value is None else found.value)

    # --- problems ---

    def _report_text(self, kind: ProblemKind, why: str, text: str | bytes) -> None:
        """Report a text that could not be read, with its first characters."""
        if isinstance(text, bytes):
            text = text[: 4 * _EXCERPT].decode("utf-8", "replace")
        self._log.report(kind, why, None, text[:_EXCERPT])

    def _report_utf8(self, is_bad: bool) -> None:
        if is_bad:
            self._log.report("invalid_utf8", "bytes that are not UTF-8, replaced by U+FFFD")

    def _check_depth(self, value: object) -> None:
        bound = self.limits.depth
        if exceeds_depth(value, bound or STACK_DEPTH):
            if bound is None:
                raise TooDeepError(f"nested deeper than {STACK_DEPTH} levels")
            raise LimitExceededError("depth", bound)

    def _too_deep(self, message: str) -> None:
        if self.limits.depth is not None:
            raise LimitExceededError("depth", self.limits.depth)
        self._log.report("invalid_chunk", message)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _lines_with_chunks(text: str) -> list[bytes]:
    """Return the lines of an event that is not JSON itself, if any is an object or all are JSON.

    Otherwise return an empty list. In logs without blank lines, each line is a chunk.
    """
    lines = text.split("\n")
    if len(lines) == 1:
        return []
    kinds = [_kind_of(line) for line in lines]
    return [line.encode() for line in lines] if dict in kinds or None not in kinds else []


def _kind_of(line: str) -> type | None:
    """Return the type of a line's JSON value, or None if it is not JSON."""
    try:
        return type(decode_untyped(line)[0])
    except (MalformedJsonError, TooDeepError):
        return None
