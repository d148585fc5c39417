"""Feed a reducer with every form of input: bytes cut anywhere, lines, chunk texts, objects.

There are three ways from a read to its events. If the fast path is ready, it takes what repeats.
Events of one line each, which nearly all are, go to the reducer as they are cut out of the read.
The rest is read line by line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import inf

from .._decode.json_text import is_nothing
from .._decode.lines import DONE, Event
from .._decode.sse import cut_events
from .._decode.vendor_fields import mismatch_of
from .._fast_path import LEARN_AFTER
from .._merge.problem_log import ProblemLog
from ..errors import AccumulatorError
from ..limits import Limits
from .apply import EVENT_END, EventApplier, StreamReducer

_LF, _CR = 10, 13
_OPENING = b"data: "
_OBJECT = b'{"'  # the start of an object that is not empty
_OPENS_CHUNK = _OPENING + _OBJECT
_LAST = _OPENING + DONE + EVENT_END
_COMMENT = re.compile(rb":[^\r\n]*\n\n")  # OpenRouter sends many, each a read of its own
# Bytes of a large read that are applied at once: more leave the processor's cache. At first half of
# them, because the fast path may then be ready for the rest.
_WINDOW = 32768


class Pipeline(EventApplier):
    """Feeds the input of one stream to its reducer.

    `feed_sse` and its neighbours raise LimitExceededError, with the state as it was before the
    event at fault. In strict mode they also raise the first problem.
    """

    @classmethod
    def begin(
        cls, reducer: StreamReducer, log: ProblemLog, limits: Limits, *, shortcut: bool
    ) -> Pipeline:
        """Return the pipeline of a new stream."""
        return cls(
            reducer,
            log,
            inf if limits.total_bytes is None else limits.total_bytes,
            inf if limits.event_bytes is None else limits.event_bytes,
            LEARN_AFTER if shortcut else inf,
            *reducer.next_steps(),
            not log.strict,
        )

    # --- a body ---

    def feed_sse(self, data: object) -> None:
        """Feed the next bytes of a body, cut anywhere."""
        if self._is_plain and type(data) is bytes:
            if self._fast is not None and self._take_fast(self._fast, data):
                return
            if data[:8] == _OPENS_CHUNK and data[-2:] == EVENT_END:
                # A read of one event, as most clients deliver them.
                text, size, tally = data[6:-2], len(data), self.tally
                start = tally.size
                fits = size <= self._most_event and start + size <= self._most_bytes
                if fits and _LF not in text and _CR not in text:
                    if self._fast is not None:
                        self._fast.invalidate()
                    log = self.log
                    log.event += 1
                    log.offset = start - tally.besides
                    tally.size = start + size
                    try:
                        chunk = self._decode(text)
                    except (ValueError, RecursionError) as error:
                        mismatch = mismatch_of(error)
                    else:
                        self._apply(self.reducer, chunk)
                        if log.event >= self._learn_at:
                            self._learn(data[:-1], chunk)
                        return
                    self._apply_refused(text, mismatch)
                    return
        self._feed_read(data if type(data) is bytes else _bytes_of(data))

    def _feed_read(self, data: bytes) -> None:
        if not self.reducer.is_reading:
            self.check_open()
            return
        tally, size = self.tally, len(data)
        start, room = tally.size - tally.besides, self._most_bytes - tally.size
        if size > room:
            if room >= 0:  # it is less if a stream was restored with a lower limit
                # Wherever a body is cut, the same events are read.
                self._feed_read(data[: int(room)])
            if self.reducer.is_reading:
                self.count(size)
            return
        tally.size += size
        if size > 2 * _WINDOW:
            self._take_windows(data, start)
        elif self._is_plain and data == _LAST:
            self._apply_data(DONE, start)
        elif self._is_plain and data.startswith(b":") and _COMMENT.fullmatch(data):
            self.parser.is_begun = True
        else:
            self._take(data, start)

    def _take_windows(self, data: bytes, start: int) -> None:
        done = 0
        try:
            while done < len(data) and self.reducer.is_reading:
                may_learn = self._fast is None and self._learn_at < inf
                most = done + (_WINDOW // 2 if may_learn else _WINDOW)
                end = data.rfind(EVENT_END, done, most) + len(EVENT_END)
                window = data[done : end if end > done + 1 else most]
                done += len(window)
                self._take(window, start + done - len(window))
        except AccumulatorError:
            self.queue = (*self.queue, *self.parser.feed(data[done:], start + done))
            raise

    def _take(self, data: bytes, start: int) -> None:
        """Apply what a read completes, and keep the rest. It begins at the body's byte `start`."""
        parser = self.parser
        pending = parser.pending
        if parser.size + len(pending or b"") > self._most_event:
            self._check_event(parser.held)
        if parser.unread:
            self._forget_unread()
        try:
            if _LF in data and self._may_be_cut():
                if pending:
                    start -= len(pending)
                    data = b"".join((pending, data))
                    parser.pending = None
                done = self._apply_lines(data, start)
                data, start = data[done:], start + done
            events = parser.feed(data, start) if data else ()
            if events or self.queue:
                self._apply_events(events)
        finally:
            self._is_plain = not parser.pending and self._may_be_cut()
        if parser.size + len(parser.pending or b"") > self._most_event:
            self._check_event(parser.held)

    def _forget_unread(self) -> None:
        """Forget the lines in which nothing could be read, once a chunk was."""
        if self.parser.unread and self.reducer.is_begun:
            self.parser.unread = b""

    def _apply_lines(self, data: bytes, start: int) -> int:
        """Apply the events at the start of a read that have one line each; return how many bytes
        they are.
        """
        done, fast = 0, self._fast
        if fast is not None and fast.ready and len(data) <= self._most_event:
            done = self._apply_matching(fast, data, start)
            data = data[done:]
            if _LF not in data or not self.reducer.is_reading:
                return done
        cut = cut_events(data, start + done)
        if cut is None or cut.end - cut.start > self._most_event:
            return done
        self._apply_cut(cut, data, start + done)
        if cut.opening:
            return done + cut.size
        if cut.size < len(data):  # these lines may be cut with the next read
            self.parser.pending = bytearray(data[cut.size :])
        return done + len(data)

    # --- lines ---

    def feed_line(self, line: bytes) -> None:
        """Feed a line of a body or of JSON Lines."""
        if not self._is_plain and not self.reducer.is_reading:
            self.check_open()
            return
        text, size, tally = line.rstrip(b"\r\n"), len(line), self.tally
        offset = tally.size - tally.besides if tally.is_located else None
        tally.is_located = tally.is_located and len(text) < size
        if tally.size + size > self._most_bytes:
            self.count(size)  # which raises
        tally.size += size
        if self._is_plain and self._take_plain_line(text, size, offset):
            return
        if not text and self._end_chunk():
            return
        self._parse_line(text, size, offset)

    def _parse_line(self, text: bytes, size: int, offset: int | None) -> None:
        """Feed the parser a line, and apply the events that it completes."""
        parser = self.parser
        events: list[Event] = []
        self._forget_unread()
        if parser.pending:
            offset = None if offset is None else offset - len(parser.pending)
            size += len(parser.pending)
            text, parser.pending = bytes(parser.pending + text), None
        for each in text.splitlines() or (text,):
            parser.feed_line(each, size, offset, events)
        try:
            if events or self.queue:
                self._apply_events(events)
            self._check_event(parser.held)
        finally:
            self._is_plain = self._may_be_plain()
        self.raise_met()

    def _end_chunk(self) -> bool:
        """Apply the one-line object that a blank line ends; return False for any other event."""
        parser, data = self.parser, self.parser.data
        if data is None or _LF in data or not data.startswith(_OBJECT):
            return False
        waits = self.queue or parser.pending or parser.unread or self.log.strict
        is_too_long = parser.size > self._most_event  # its line has been refused
        if waits or is_too_long or parser.name is not None or parser.text is not None:
            return False
        offset, parser.data, parser.start, parser.size = parser.start, None, None, 0
        self._is_plain = not parser.skip_lf
        self._apply_data(bytes(data), offset)
        return True

    def _take_plain_line(self, text: bytes, size: int, offset: int | None) -> bool:
        """Keep a line that is an event's data, or apply one that is a chunk without `data:`. Return
        whether it was either.
        """
        if text.startswith(_OPENS_CHUNK):
            if _LF in text or _CR in text:
                return False
            if size > self._most_event:
                self._check_event(size)
            self.parser.open_event(text[6:], size, offset)
            self._is_plain = False
            return True
        if not text.startswith(_OBJECT):
            return False
        self._check_event(len(text))
        try:
            chunk = self._decode(text)
        except (ValueError, RecursionError):
            return False
        self.parser.is_begun = True
        self._forget_fast()
        self.log.start_event(offset)
        self._apply(self.reducer, chunk)
        return True

    # --- chunks ---

    def feed_text(self, text: bytes) -> None:
        """Feed the JSON of a chunk, unless it is blank, a comment or nothing."""
        if not self.reducer.is_reading or not text or text.isspace():
            return
        size = len(text)
        if not text.startswith(_OBJECT) and (text.startswith(b":") or is_nothing(text)):
            return
        self.count(size, size)
        self._check_event(size)
        self._apply_data(text, None)
        if self.log.met is not None:
            self.raise_met()

    def feed_object(self, chunk: object) -> None:
        """Feed a chunk that is the caller's object, unless it is empty."""
        reducer = self.reducer
        if reducer.is_reading and (chunk or not isinstance(chunk, Mapping)):
            log, tally = self.log, self.tally
            log.event += 1
            log.offset = None
            if self._fast is not None:
                self._fast.invalidate()
            size = reducer.append_object(chunk, self._most_bytes - tally.size)
            if size:
                tally.size += size
                tally.besides += size
            elif reducer.apply_object(chunk, self.count):
                self.look_up_steps()
            if log.met is not None:
                self.raise_met()

    # --- all of these ---

    def end(self) -> None:
        """End the input, and read a last event whose blank line is missing."""
        parser, tally = self.parser, self.tally
        tally.is_closed = True
        self._is_plain = False
        if not self.reducer.is_reading:
            return
        events: Sequence[Event] = ()
        if parser.held:
            place = tally.size - tally.besides - len(parser.pending or b"")
            events = parser.close(place if tally.is_located else None)
        if events or self.queue:
            self._apply_events(events)
        if parser.unread and self.reducer.is_reading and not self.reducer.is_begun:
            self.log.event += 1
            self._report_unread()


def _bytes_of(data: object) -> bytes:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        hint = "; encode it, or use feed_line for its lines" if isinstance(data, str) else ""
        raise TypeError(f"a body is bytes, not {type(data).__name__}{hint}")
    return bytes(data)
