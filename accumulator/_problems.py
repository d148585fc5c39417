"""What was wrong with a stream, on record: the first problems whole, all of them counted."""

from __future__ import annotations

from .errors import Problem, ProblemKind

__all__ = ["ProblemLog"]

_MOST_PROBLEMS = 100  # a server can go wrong in every chunk; all are counted, these many are kept


class ProblemLog:
    """Records problems under the event that is being read."""

    __slots__ = ("counts", "event", "met", "offset", "problems")

    def __init__(self) -> None:
        self.event = 0  # counted from 1
        self.offset: int | None = None  # the byte of the body at which it starts
        self.problems: tuple[Problem, ...] = ()
        self.counts: dict[ProblemKind, int] | None = None
        self.met: Problem | None = None  # the first since somebody asked

    def report(
        self, kind: ProblemKind, message: str, path: str | None = None, detail: object = None
    ) -> None:
        """Put a problem on record."""
        if self.counts is None:
            self.counts = {}
        self.counts[kind] = self.counts.get(kind, 0) + 1
        problem = Problem(kind, message, self.event, self.offset, path, detail)
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems += (problem,)
        self.met = self.met or problem

    def take_met(self) -> Problem | None:
        """Give the first problem since the last call."""
        problem, self.met = self.met, None
        return problem
