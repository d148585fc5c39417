"""What was wrong with a stream, on record: the first problems whole, all of them counted.

Also whole is the first after which something is missing, however late: `DecodeError` tells it.
"""

from __future__ import annotations

from collections.abc import Callable

from .._decode.sse import CutEvents
from ..errors import LOSSY_KINDS, Problem, ProblemKind

__all__ = ["ProblemLog"]

_MOST_PROBLEMS = 100  # a server can go wrong in every chunk; all are counted, these many are kept


class ProblemLog:
    """Records problems under the event that is being read."""

    __slots__ = (
        "_before",
        "_cut",
        "counts",
        "event",
        "met",
        "offset",
        "problems",
        "strict",
        "tell",
    )

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.event = 0  # counted from 1
        self.offset: int | None = None  # the byte of the body at which it starts
        self._cut: CutEvents | None = None  # which know the offset of the event
        self._before = 0  # the number of the event before the first of them
        self.problems: tuple[Problem, ...] = ()
        self.counts: dict[ProblemKind, int] | None = None
        self.tell: Callable[[Problem], None] | None = None  # somebody who wants each of them
        self.met: Problem | None = None  # if strict, the first since somebody asked

    def start_event(self, offset: int | None) -> None:
        """Go on to the next event, which starts at a byte of the body, if that is known."""
        self.event += 1
        self.offset = offset

    def start_cut(self, cut: CutEvents) -> None:
        """Go on to events of a read."""
        self._cut = cut
        self._before = self.event

    @property
    def done(self) -> int:
        """How many events of the read are done, the present one included."""
        return self.event - self._before

    def end_cut(self) -> None:
        """Hold nothing of a read."""
        self._locate()
        self._cut = None

    def _locate(self) -> None:
        if self._cut is not None and self.event > self._before:
            self.offset = self._cut.start_of(self.event - self._before - 1)

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
        self._locate()
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
