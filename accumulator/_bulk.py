"""Chunks of a recorded stream in bulk: as many to a read as the accumulator is fastest with.

A recorded stream is all there, so its chunks need not go in one by one. Framed as the events of one
read they take the shortcut, which is several times cheaper than a parse each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import attrs
import msgspec
from attrs import field, frozen

from ._accumulator import Accumulator
from ._alike import BETWEEN, AlikeRows, tell_alike
from ._decode.sse import EventParser
from ._merge.state import Status
from .completion import ChatCompletion
from .errors import LOSSY_KINDS, CheckpointError, LimitExceededError, Problem
from .limits import Limits
from .rules import Rules

__all__ = ["BulkStream", "StreamResult", "chunk_text", "frame"]

_FIRST = 16  # events after which a template is learnt; a read it was not learnt for is wasted
_WORTH_LEARNING = 16  # events that differ in one text
_WORTH_FRAMING = 3  # events
_TRIES = 4  # to find chunks that are alike, one after the other
_READ = 32  # events of a later read; the one with the finish reason in it is parsed in full
_LONGEST = 64 * 1024  # bytes that wait for a read, so that memory is one stream's, not 32 images'
_LF, _CR = 10, 13  # looking for one byte as a number is several times faster
_OPENING, _CLOSING = b"data: ", b"\n\n"
_JOINT = _CLOSING + _OPENING
_decode_checkpoint = msgspec.msgpack.Decoder(tuple[str | None, bytes]).decode
_SSE_FIELDS = (b"data", b"event", b"error", b"id", b"retry", b"")


@frozen(kw_only=True)
class StreamResult:
    """What one recorded stream came to.

    `completion` is the whole one or what is known of it, `status` "complete", "truncated" or
    "failed" (SPEC section 6). `problems` are those that `Accumulator.problems` keeps,
    `problem_counts` count all by kind. `repeats` is the number of rows dropped because their
    sequence number had come before. `limit` names the bound of `Limits` that the stream passed,
    after which nothing more of it was read.
    """

    completion: ChatCompletion
    status: Status
    problems: tuple[Problem, ...] = ()
    problem_counts: Mapping[str, int] = field(factory=dict)
    repeats: int = 0
    limit: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing: what `Accumulator.completion` would return, not raise."""
        return (
            self.status == "complete"
            and self.limit is None
            and LOSSY_KINDS.isdisjoint(self.problem_counts)
        )


def frame(texts: Iterable[bytes]) -> bytes:
    """Write JSON texts without line ends as the events of a `text/event-stream` body."""
    return _OPENING + _JOINT.join(texts) + _CLOSING


def chunk_text(chunk: bytes) -> bytes:
    """Give a chunk's JSON as bytes; a log may keep it as a string of JSON inside its own JSON."""
    if chunk.startswith(b'"'):
        try:
            return msgspec.json.decode(chunk, type=str).encode("utf-8", "surrogatepass")
        except ValueError:
            pass  # what is wrong with it is for the reducer to say
    return chunk


class _Recorded(Accumulator):
    """An accumulator whose input is known to be over at any point."""

    __slots__ = ()

    @property
    def size(self) -> int:
        """Bytes and characters it has taken in."""
        return self._intake.size

    @property
    def has_ended(self) -> bool:
        """Whether the stream said its end itself, by `[DONE]` or an error."""
        return not self._intake.reducer.reading

    def stop(self) -> None:
        """Close, and leave unread what stands behind the event that raised."""
        self._intake.queue = ()
        self._intake.parser = EventParser()
        self.close()


class BulkStream:
    """One recorded stream: its chunks in order, then what they come to."""

    __slots__ = (
        "_accumulator",
        "_limit",
        "_most",
        "_of_body",
        "_read",
        "_size",
        "_taken",
        "_waiting",
    )

    def __init__(self, rules: Rules, limits: Limits) -> None:
        self._accumulator = _Recorded(rules=rules, limits=limits)
        self._waiting: list[bytes] = []
        self._size = 0  # bytes of these
        self._taken = 0  # bytes
        self._read = _FIRST
        # Near a bound chunks go in one by one: a read passes it wholly or not at all.
        bounds = [each for each in (limits.event_bytes, limits.total_bytes) if each is not None]
        self._most = min(bounds, default=None)
        self._limit: str | None = None
        self._of_body = False

    def feed(self, chunk: object) -> None:
        """Take in the next chunk: JSON text, one event of a `text/event-stream` body, a mapping.

        None counts as the JSON `null`: a chunk that is missing is on record as a problem. Raises
        TypeError for what is no chunk.
        """
        if self._limit is not None:
            return
        if isinstance(chunk, str):
            text = chunk.encode("utf-8", "surrogatepass")
        elif isinstance(chunk, (bytes, bytearray, memoryview, msgspec.Raw)):
            text = bytes(chunk)
        elif chunk is None:
            text = b"null"
        else:
            self._flush()
            self._feed_one(chunk)
            return
        text = text.strip(b" \t\r\n")
        if text.startswith((b"data: {", b"data:{")):
            text = text[5:].lstrip()
        if text.startswith(b"{") and b"\n" not in text and b"\r" not in text:
            self._waiting.append(text)
            self._size += len(text)
            if len(self._waiting) >= self._read or self._size > _LONGEST:
                self._flush()
            return
        self._flush()
        self._feed_one(text)

    def feed_texts(self, texts: Sequence[bytes]) -> None:
        """Take in chunks: JSON texts, or strings of JSON in JSON, as lines of a log hold them."""
        start, tries = 0, _TRIES
        while start < len(texts) and self._limit is None:
            if tries and len(texts) - start >= _WORTH_LEARNING:
                rows = tell_alike(texts[start:])
                if rows is not None:
                    self.feed_alike(rows)
                    start, tries = start + rows.count, _TRIES
                    continue
                tries -= 1
                some = texts[start : start + 1]
            else:
                some = texts[start : start + self._read]
            start += len(some)
            self._feed_some(some)

    def _feed_some(self, texts: Sequence[bytes]) -> None:
        joined = b"".join(texts)
        size = len(joined) + len(texts) * len(_JOINT)
        if (
            len(texts) >= _WORTH_FRAMING
            and {text[:1] for text in texts} == {b"{"}
            and _LF not in joined
            and _CR not in joined
            and (self._most is None or self._taken + size <= self._most // 2)
        ):
            self._flush()
            self._read = _READ
            self._feed_body(frame(texts))
            return
        for text in texts:
            if text.startswith(b"{"):
                self._flush()
                self._feed_one(text)
            else:
                self.feed(chunk_text(text))

    def feed_alike(self, rows: AlikeRows) -> None:
        """Take in chunks that differ in one text."""
        if self._limit is not None or not rows.count:
            return
        self._flush()
        size = rows.count * (len(rows.head) + len(rows.tail) + len(_JOINT)) + len(rows.joined)
        if self._most is not None and self._taken + size > self._most // 2:
            for text in rows.joined.split(BETWEEN):
                self._feed_one(rows.head + text + rows.tail)
            return
        texts = rows.joined.split(BETWEEN)
        for start in range(0, len(texts), _READ):
            self._feed_framed(rows, texts[start : start + _READ])

    def _feed_framed(self, rows: AlikeRows, texts: list[bytes]) -> None:
        self._feed_body(frame([rows.head + text + rows.tail for text in texts]))

    def feed_body(self, data: bytes) -> None:
        """Take in the next bytes of a `text/event-stream` body, cut anywhere."""
        self._of_body = True
        self._feed_body(data)

    def checkpoint(self) -> bytes:
        """Give all that was taken in as bytes, from which `resume` goes on."""
        self._flush()
        return msgspec.msgpack.encode((self._limit, self._accumulator.checkpoint()))

    @classmethod
    def resume(cls, checkpoint: bytes, rules: Rules, limits: Limits) -> BulkStream:
        """Go on from a checkpoint. Raises CheckpointError."""
        try:
            limit, state = _decode_checkpoint(checkpoint)
        except msgspec.MsgspecError as error:
            raise CheckpointError(f"no checkpoint: {error}") from None
        stream = cls(rules, limits)
        stream._limit = limit
        stream._accumulator = cast(
            "_Recorded", _Recorded.restore(state, rules=rules, limits=limits)
        )
        stream._taken = stream._accumulator.size
        return stream

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will be read: the stream said its end, or passed a bound."""
        self._flush()
        return self._limit is not None or self._accumulator.has_ended

    def finish(self, *, repeats: int = 0) -> StreamResult:
        """End the stream and tell what it came to."""
        self._flush()
        acc = self._accumulator
        if self._limit is None:
            acc.close()
        else:
            acc.stop()
        # The events were framed here: the bytes they start at mean nothing to anybody.
        problems = acc.problems
        if not self._of_body:
            problems = tuple(attrs.evolve(problem, offset=None) for problem in problems)
        return StreamResult(
            completion=acc.snapshot(),
            status="truncated" if acc.status == "open" else acc.status,
            problems=problems,
            problem_counts=acc.problem_counts,
            repeats=repeats,
            limit=self._limit,
        )

    def _flush(self) -> None:
        texts, self._waiting = self._waiting, []
        size, self._size = self._size, 0
        if not texts:
            return
        self._read = _READ
        framed = size + len(texts) * len(_JOINT)
        if self._most is not None and self._taken + framed > self._most // 2:
            for text in texts:
                self._feed_one(text)
            return
        self._feed_body(frame(texts))

    def _feed_body(self, body: bytes) -> None:
        self._taken += len(body)
        if self._limit is not None:
            return
        try:
            self._accumulator.feed_sse(body)
        except LimitExceededError as error:
            self._limit = error.limit

    def _feed_one(self, chunk: object) -> None:
        if self._limit is not None:
            return
        try:
            if isinstance(chunk, bytes):
                self._taken += len(chunk)
                if chunk.partition(b":")[0] in _SSE_FIELDS:
                    self._accumulator.feed_sse(chunk + _CLOSING)
                    return
            self._accumulator.feed(chunk)
        except LimitExceededError as error:
            self._limit = error.limit
