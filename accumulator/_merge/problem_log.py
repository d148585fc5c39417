"""A record of what was wrong with a stream: all problems are counted, the first ones are kept.

Informing problems of the same kind and path are kept as one with a count, so that a server that
does the same in every chunk does not fill the list. The first problem after which something is
missing is kept however late it comes, because `DecodeError` shows it.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
from msgspec import Struct

from .._decode.chunk import EMPTY
from .._decode.sse import CutEvents
from .._decode.text import heal_value
from ..errors import LOSSY_KINDS, Problem, ProblemKind

_MOST_PROBLEMS = 100  # a server can go wrong in every chunk; all are counted, this many are kept


class ProblemLog(Struct, eq=False):
    """Records problems under the event that is being read."""

    strict: bool = False
    event: int = 0  # counted from 1
    offset: int | None = None  # the byte of the body at which it starts
    counts: dict[ProblemKind, int] = EMPTY
    on_problem: Callable[[Problem], None] | None = None  # called with each but repetitions
    met: Problem | None = None  # in strict mode, the first since `take_met`
    # By kind and path, each with how often it was met; lossy ones by kind and number.
    _kept: dict[tuple[str, str | int | None], tuple[Problem, int]] = EMPTY
    _cut: CutEvents | None = None  # the events being read, which know their offsets
    _before: int = 0  # the number of the event before the first of them

    def start_event(self, offset: int | None) -> None:
        """Go on to the next event, which starts at the byte `offset` of the body, if known."""
        self.event += 1
        self.offset = offset

    def start_cut(self, cut: CutEvents) -> None:
        """Go on to the events that were cut out of a read."""
        self._cut = cut
        self._before = self.event

    @property
    def done(self) -> int:
        """How many events of the read are done, the current one included."""
        return self.event - self._before

    def end_cut(self) -> None:
        """Keep nothing of a read but the offset of its current event."""
        self._locate()
        self._cut = None

    def _locate(self) -> None:
        """Look up the offset of the current event, if it was cut out of a read."""
        cut, done = self._cut, self.event - self._before
        if cut is not None and done:
            self.offset = cut.start_of(done - 1)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problems that are kept, each with its count."""
        if not self._kept:  # as in most streams
            return ()
        return tuple(
            problem if count == 1 else attrs.evolve(problem, count=count)
            for problem, count in self._kept.values()
        )

    def keep(self, problem: Problem) -> None:
        """Keep a problem that was met."""
        self._kept = self._kept or {}
        key = len(self._kept) if problem.kind in LOSSY_KINDS else problem.path
        self._kept[problem.kind, key] = (problem, problem.count)

    def report(
        self, kind: ProblemKind, message: str, path: str | None = None, detail: object = None
    ) -> None:
        """Put a problem on record."""
        counts = self.counts = self.counts or {}
        is_lossy = kind in LOSSY_KINDS
        is_first_lossy = is_lossy and LOSSY_KINDS.isdisjoint(counts)
        counts[kind] = counts.get(kind, 0) + 1
        known = None if is_lossy else self._kept.get((kind, path))
        if known is not None:
            self._kept[kind, path] = (known[0], known[1] + 1)
        is_kept = known is None and (is_first_lossy or len(self._kept) < _MOST_PROBLEMS)
        on_problem = self.on_problem if known is None else None
        if not is_kept and not self.strict and on_problem is None:
            return
        self._locate()
        whole, _ = heal_value(detail)  # what cannot be written as UTF-8 could not be checkpointed
        problem = Problem(kind, message, self.event, self.offset, path, whole)
        if is_kept:
            self.keep(problem)
        if self.strict:
            self.met = self.met or problem
        if on_problem is not None:
            on_problem(problem)

    def take_met(self) -> Problem | None:
        """Return the first problem since the last call, in strict mode."""
        problem, self.met = self.met, None
        return problem


def brief(value: object, most: int = 100) -> str:
    """Return a value as a message shows it, in at most so many characters."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes out
        text = f"too long to be shown ({type(value).__name__})"
    return text if len(text) <= most else text[: most - 3] + "..."
