"""When chunks came: a clock read once for each call of input."""

from __future__ import annotations

from collections.abc import Callable

from ..completion import Timing
from .state import State

__all__ = ["Clock", "Stopwatch"]

_TOKEN_FIELDS = (
    *("content", "parts", "refusal", "reasoning", "reasoning_content"),
    *("calls", "function_call", "audio"),
)
Clock = Callable[[], float]


class Stopwatch:
    """Keeps what `Timing` tells. It starts when it is made, or at a time before."""

    __slots__ = ("_count", "_duration", "_first", "_gap_max", "_last", "_start", "_token", "read")

    def __init__(self, clock: Clock, started: float | None = None) -> None:
        if not callable(clock):
            raise TypeError("a clock is called for the time: time.monotonic, not time.monotonic()")
        self.read = clock
        self._start = clock() if started is None else started
        self._first: float | None = None
        self._last: float | None = None
        self._token: float | None = None
        self._gap_max: float | None = None
        self._duration: float | None = None
        self._count = 0

    def lap(self, now: float, chunks: int, state: State, *, ended: bool) -> None:
        """Note a call of input that was begun at `now` and brought so many chunks."""
        if self._duration is not None:
            return
        if chunks:
            if self._last is None:
                self._first = now
            elif self._gap_max is None or now - self._last > self._gap_max:
                self._gap_max = now - self._last
            if chunks > 1 and self._gap_max is None:
                self._gap_max = 0.0
            self._last = now
            self._count += chunks
            if self._token is None and _has_token(state):
                self._token = now
        if ended:
            self._duration = now - self._start

    @property
    def timing(self) -> Timing:
        first, last, gaps = self._first, self._last, max(self._count - 1, 0)
        return Timing(
            time_to_first_chunk=None if first is None else first - self._start,
            time_to_first_token=None if self._token is None else self._token - self._start,
            gap_count=gaps,
            gap_mean=None if first is None or last is None or not gaps else (last - first) / gaps,
            gap_max=self._gap_max,
            duration=self._duration,
        )


def _has_token(state: State) -> bool:
    choices = state.choices.values()
    return any(getattr(choice, name) for choice in choices for name in _TOKEN_FIELDS)
