"""When chunks came, by a clock that is read once for each call of input."""

from __future__ import annotations

from collections.abc import Callable

from ..completion import Timing
from .state import State

_TOKENS = "content parts refusal reasoning reasoning_content calls function_call audio text".split()
Clock = Callable[[], float]


class Stopwatch:
    """Measures what `Timing` reports, from when it is made or from an earlier time."""

    __slots__ = ("_count", "_first", "_known", "_last", "_start", "read")

    def __init__(self, clock: Clock, started: float | None = None) -> None:
        if not callable(clock):
            raise TypeError("a clock is a function: pass time.monotonic, not time.monotonic()")
        self.read = clock
        self._start = clock() if started is None else started
        self._first = self._last = 0.0  # the times of the first and the last chunk
        self._count = 0
        self._known: dict[str, float] = {}  # values of `Timing` so far, by field

    def lap(self, now: float, chunks: int, state: State, *, ended: bool) -> None:
        """Note a call of input that began at `now` and brought so many chunks."""
        known, since = self._known, now - self._start
        if "duration" in known:
            return
        if chunks:
            if not self._count:
                self._first, known["time_to_first_chunk"] = now, since
            else:
                known["gap_max"] = max(known.get("gap_max", 0.0), now - self._last)
            if chunks > 1:
                known.setdefault("gap_max", 0.0)
            self._last = now
            self._count += chunks
            texts = (getattr(each, name) for each in state.choices.values() for name in _TOKENS)
            if "time_to_first_token" not in known and any(texts):
                known["time_to_first_token"] = since
        if ended:
            known["duration"] = since

    @property
    def timing(self) -> Timing:
        gaps = max(self._count - 1, 0)
        mean = (self._last - self._first) / gaps if gaps else None
        return Timing(**self._known, gap_count=gaps, gap_mean=mean)
