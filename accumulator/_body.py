"""The bytes of a body to events: reads that are cut anywhere, and lines.

Three ways lead from a read to its events. Where the shortcut is ready it takes what repeats. Events
of one line each, nearly all there are, go to the reducer in a run, with nothing made for each but
its chunk. The rest is split into `Event`s.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from ._decode.chunk import Chunk
from ._decode.sse import Event, EventParser, single_lines, split
from ._decode.vendor_fields import words_of
from ._intake import DONE, Intake
from ._merge.problem_log import ProblemLog, Run
from ._merge.reducer import Reducer
from ._merge.snapshot import freeze
from ._shortcut import Shortcut
from .errors import AccumulatorError, DecodeError, IncompleteStreamError, ServerError
from .limits import Limits
from .partial import is_complete
from .rules import Rules

__all__ = ["BodyIntake"]

_LEARN_AFTER = 16  # events; many streams are too short to earn a template's cost back
_LF, _CR = 10, 13
_DATA = b"data: "
_TIGHT = b"data:"  # as text-generation-inference writes it


class BodyIntake(Intake):
    """An `Intake` that takes the bytes of a body, too."""

    __slots__ = (
        "_by_line",
        "_line_end",
        "_line_start",
        "_may_shortcut",
        "_most_pending",
        "_one_chunk_waits",
        "learn_after",
        "parser",
        "queue",
        "shortcut",
    )

    def __init__(
        self, rules: Rules, limits: Limits, reducer: Reducer, log: ProblemLog, *, shortcut: bool
    ) -> None:
        super().__init__(rules, limits, reducer, log)
        self.parser = EventParser()
        self.queue: Sequence[Event] = ()  # events behind one that raised
        self.learn_after = _LEARN_AFTER
        self.shortcut: Shortcut | None = None  # made once a stream is long enough to need it
        self._may_shortcut = shortcut and not rules.moves
        self._most_pending = inf if limits.event_bytes is None else limits.event_bytes
        self._one_chunk_waits = False  # the parser holds one `data` line, a chunk by itself
        self._by_line = False  # the parser is fed lines, whose ends may be missing
        self._line_start: int | None = None  # where the lines that wait in the parser start
        # Where the next line starts; unknown once a line came without its end.
        self._line_end: int | None = 0

    # --- reads ---

    def take_read(self, data: bytes) -> None:
        """Apply what a read completes, and keep the rest of it. Raises LimitExceededError."""
        parser = self.parser
        self.count_bytes(len(data))
        if (
            not parser.size
            and data.startswith(b"data: {")
            and data.find(_LF) == len(data) - 2
            and data.endswith(b"\n")
            and not self.queue
            and _CR not in data
        ):
            self._apply_one(data)
            return
        if parser.size > self._most_pending:
            self.check_size(parser.size)
        events = parser.take(data)
        if events or self.queue:
            self._apply_read(events)
        if parser.size > self._most_pending:
            self.check_size(parser.size)

    def _apply_read(self, data: bytes) -> None:
        """Apply the whole events of a read: what repeats by the shortcut, else one by one."""
        start, shortcut = self.parser.start, self.shortcut
        single = None
        if not self.queue and len(data) <= self._most_pending:
            single = single_lines(data)
        taken, size = 0, 0
        if shortcut is not None:
            if single is not None and shortcut.ready:
                taken, size = shortcut.take(*single)
                self.log.event += taken
                if taken == len(single[0]):
                    return
            shortcut.forget()
        if single is not None:
            lines, line_end = single
            # OpenRouter keeps a connection open by comments until the first chunk is there.
            while taken < len(lines) and lines[taken].startswith(b":"):
                size += len(lines[taken]) + len(line_end)
                taken += 1
            if taken:
                lines, data, start = lines[taken:], data[size:], start + size
            opening = _DATA
            if not data.startswith(_DATA) and line_end + _DATA not in data:
                opening = _TIGHT
            text = slice(len(opening), -len(line_end))
            texts = [line[text] for line in lines]
            # That each line is data is seen at once from what they make when put together again.
            body = (line_end + line_end + opening).join(texts)
            more = len(opening) + 2 * len(line_end)
            if (
                len(data) == len(body) + more
                and data.startswith(opening)
                and data.startswith(body, len(opening))
            ):
                chunk = self._apply_run(Run(texts, start, start + len(data), more))
                if chunk is not None and self._may_learn():
                    self._find_shortcut().learn(lines[-1], chunk)
                return
        self._apply_events(split(data, start))

    def _apply_one(self, data: bytes) -> None:
        """Apply a read that is one event of one line, as clients hand them out."""
        log, parser, shortcut = self.log, self.parser, self.shortcut
        log.start_event(parser.taken)
        parser.taken += len(data)
        parser.skip_lf = False
        if shortcut is not None:
            shortcut.forget()
        text = data[len(_DATA) : -2]
        self.check_size(len(data))
        chunk = self.apply_text(text)
        if log.met is not None:
            self.raise_met()
        if chunk is not None and self._may_learn():
            self._find_shortcut().learn(data[:-1], chunk)

    def _apply_run(self, run: Run) -> Chunk | None:
        """Apply events of one line each; give the last one's chunk, if it was decoded typed."""
        log, decoder, texts = self.log, self.decoder, run.texts
        apply = self.reducer.apply
        chunk: Chunk | None = None
        # The end is no chunk, and a refused decode costs as much as several that are not.
        waiting = iter(texts[:-1] if texts[-1] == DONE else texts)
        log.run = run
        try:
            while run.place < len(texts):
                run.event = log.event
                refusal = None
                if not decoder.waits and (decode := decoder.decode) is not None:
                    for text in waiting:
                        try:
                            chunk = decode(text)
                        except (ValueError, RecursionError) as error:
                            refusal = words_of(error)
                            break
                        log.event += 1
                        apply(chunk)
                        if log.met is not None:
                            self.raise_met()
                    else:
                        if texts[-1] != DONE:
                            return chunk
                        text = DONE
                else:
                    text = next(waiting, DONE)
                chunk = None
                run.go_on(log.event)
                if not text or text.isspace():
                    run.place += 1
                    continue
                log.event += 1
                if refusal is None or text == DONE:
                    chunk = self.apply_text(text)
                else:
                    chunk = self.apply_refused(text, refusal)
                if log.met is not None:
                    self.raise_met()
                run.go_on(log.event)
                if not self.reducer.reading:
                    return None
        except AccumulatorError:
            if self.reducer.reading:
                self.queue = (*self.queue, *run.events_from(run.count(log.event)))
            raise
        finally:
            log.end_run()
        return chunk

    def _apply_events(self, events: Sequence[Event], *, unterminated: bool = False) -> None:
        waiting = iter([*self.queue, *events] if self.queue else events)
        log, reducer = self.log, self.reducer
        try:
            for event in waiting:
                if not reducer.reading:
                    break
                log.start_event(event.offset if not self._by_line else self._line_start)
                self.apply_event(event, unterminated=unterminated)
                if log.met is not None:
                    self.raise_met()
        finally:
            self.queue = tuple(waiting) if reducer.reading else ()

    # --- lines ---

    def take_line(self, line: bytes) -> None:
        """Take in a line of a body or of JSON Lines. Raises LimitExceededError."""
        text = line.rstrip(b"\r\n")
        offset = self._line_end
        self._line_end = None if offset is None or len(text) == len(line) else offset + len(line)
        if offset == 0:
            text = text.removeprefix(b"\xef\xbb\xbf")
        in_json_lines = text.lstrip(b" \t").startswith((b"{", DONE))
        is_chunk = in_json_lines or _is_chunk_line(text)
        if is_chunk and (in_json_lines or self._one_chunk_waits) and self.parser.size:
            # What waits lacks its blank line, as in many logs: no JSON goes on with a second chunk.
            self._parse_line(b"")
        if in_json_lines:
            self.take_text(text, offset)
            return
        if not self.parser.size:
            if not text or text.startswith(b":"):
                return
            self._line_start = offset
        self._one_chunk_waits = is_chunk and not self.parser.size
        self.count_bytes(len(line))
        self._parse_line(text)

    def _parse_line(self, line: bytes) -> None:
        self._by_line = True
        self.check_size(self.parser.size)
        taken = self.parser.take(line + b"\n")
        self._apply_events(split(taken, self.parser.start))
        self.check_size(self.parser.size)

    # --- chunks ---

    def take_text(self, text: bytes, offset: int | None = None) -> None:
        """Apply a chunk's JSON, unless it is blank. Raises LimitExceededError."""
        if self.reducer.reading and text and not text.isspace():
            self.count_bytes(len(text))
            self.check_size(len(text))
            self.log.start_event(offset)
            self.apply_text(text)

    def take_object(self, chunk: object) -> None:
        """Apply a chunk that is the caller's object. Raises LimitExceededError."""
        if self.reducer.reading:
            self.log.start_event(None)
            applied = self.apply_object(chunk)
            if applied is not None and self._may_shortcut:
                self._find_shortcut().learn_object(chunk, *applied)

    # --- all of these ---

    def end(self) -> None:
        """Read the event that has no blank line, too: nothing comes behind it. Raises
        LimitExceededError.
        """
        if self.shortcut is not None:
            self.shortcut.forget()
        if self.queue:
            self._apply_events(())
        if self.parser.size:
            self._apply_events(self.parser.close(), unterminated=True)

    def _may_learn(self) -> bool:
        """Tell whether a template of the next chunks is worth its cost."""
        return self._may_shortcut and self.log.event >= self.learn_after and self.decoder.repeats

    def _find_shortcut(self) -> Shortcut:
        if self.shortcut is None:
            self.shortcut = Shortcut(self.reducer, self.decoder, self._most_pending)
        return self.shortcut

    def raise_met(self) -> None:
        """In strict mode, raise the first problem since the last call."""
        problem = self.log.take_met()
        if problem is None or not self.log.strict:
            return
        message, partial, problems = str(problem), freeze(self.reducer.state), self.log.problems
        if problem.kind == "server_error":
            raise ServerError(
                message, error=problem.detail, partial=partial, problems=problems, problem=problem
            )
        error = IncompleteStreamError if problem.kind == "unterminated_event" else DecodeError
        raise error(message, partial=partial, problems=problems, problem=problem)


def _is_chunk_line(line: bytes) -> bool:
    """Tell whether a `data` line is a chunk by itself, or `[DONE]`."""
    if not line.startswith(b"data:"):
        return False
    text = line[5:].strip()
    return text == DONE or (text.startswith(b"{") and is_complete(text))
