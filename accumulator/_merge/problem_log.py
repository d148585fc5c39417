"""What was wrong with a stream, on record: the first problems whole, all of them counted.

Also whole is the first after which something is missing, however late: `DecodeError` tells it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from .._decode.sse import Event
from ..errors import LOSSY_KINDS, Problem, ProblemKind

__all__ = ["ProblemLog", "Run"]

_MOST_PROBLEMS = 100  # a server can go wrong in every chunk; all are counted, these many are kept


class Run(Struct, gc=False):
    """Events of one line each, in a row, and where they stand in the body."""

    texts: Sequence[bytes]  # their data
    start: int  # the byte at which the first begins
    end: int  # and the one behind the last
    more: int  # bytes of an event beside its data
    place: int = 0  # of the text that follows event number `event`
    event: int = 0
    last: int = -1  # the place of the text of event number `event`, if it is one of these
    counted: int = 0  # texts whose bytes are summed up
    size: int = 0  # of these, with what is beside their data

    def count(self, event: int) -> int:
        """Count the texts up to and with that of an event; not of one that is over."""
        return self.place + event - self.event

    def go_on(self, event: int) -> None:
        """Come to the text behind that of an event."""
        if event > self.event:
            self.place, self.event = self.count(event), event
            self.last = self.place - 1

    def offset_of(self, event: int) -> int:
        """Give the byte at which an event begins."""
        place = self.count(event) - 1 if event > self.event else self.last
        if place == len(self.texts) - 1:
            return self.end - len(self.texts[place]) - self.more
        return self.offset(place)

    def offset(self, count: int) -> int:
        """Give the byte behind so many texts."""
        # Of each problem of a long read the offset is asked for: only what is new is summed up.
        if count < self.counted:
            self.counted = self.size = 0
        new = self.texts[self.counted : count]
        self.size += sum(map(len, new)) + len(new) * self.more
        self.counted = count
        return self.start + self.size

    def events_from(self, count: int) -> Iterator[Event]:
        """Give what comes after so many texts."""
        for place, text in enumerate(self.texts[count:], count):
            if text and not text.isspace():
                yield Event(text, None, self.offset(place), len(text) + self.more)


class ProblemLog:
    """Records problems under the event that is being read."""

    __slots__ = ("counts", "event", "met", "offset", "problems", "run", "strict", "tell")

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.event = 0  # counted from 1
        self.offset: int | None = None  # the byte of the body at which it starts
        self.run: Run | None = None  # which knows the offset if the event is one of it
        self.problems: tuple[Problem, ...] = ()
        self.counts: dict[ProblemKind, int] | None = None
        self.tell: Callable[[Problem], None] | None = None  # somebody who wants each of them
        self.met: Problem | None = None  # if strict, the first since somebody asked

    def start_event(self, offset: int | None) -> None:
        """Go on to the next event, which starts at a byte of the body, if that is known."""
        self.event += 1
        self.offset = offset
        self.run = None

    def end_run(self) -> None:
        """Hold nothing of a run that was read."""
        run, self.run = self.run, None
        if run is not None and (self.event > run.event or run.last >= 0):
            self.offset = run.offset_of(self.event)

    def report(
        self, kind: ProblemKind, message: str, path: str | None = None, detail: object = None
    ) -> None:
        """Put a problem on record."""
        if self.counts is None:
            self.counts = {}
        is_kept = len(self.problems) < _MOST_PROBLEMS or (
            kind in LOSSY_KINDS and LOSSY_KINDS.isdisjoint(self.counts)
        )
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if not is_kept and not self.strict and self.tell is None:
            return
        if self.run is not None:
            self.offset = self.run.offset_of(self.event)
        problem = Problem(kind, message, self.event, self.offset, path, detail)
        if is_kept:
            self.problems += (problem,)
        if self.strict:
            self.met = self.met or problem
        if self.tell is not None:
            self.tell(problem)

    def take_met(self) -> Problem | None:
        """In strict mode, give the first problem since the last call."""
        problem, self.met = self.met, None
        return problem
