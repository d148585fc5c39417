"""When chunks came, by a clock that is read once for each call of input."""

from __future__ import annotations

from collections.abc import Callable

from ..completion import Timing
from .state import State

_TOKENS = "content parts refusal reasoning reasoning_content calls function_call audio text".split()
Clock = Callable[[], float]


class Stopwatch:
    """Measures what `Timing` reports, from when it is made or from an earlier time."""

    __slots__ = ("_count", "_known", "_last", "_start", "read")

    def __init__(self, clock: Clock, started: float | None = None) -> None:
        if not callable(clock):
            raise TypeError("a clock is a function: pass time.monotonic, not time.monotonic()")
        self.read = clock
        self._start = clock() if started is None else started
        self._last = 0.0  # when the last chunk came, after the start
        self._count = 0
        self._known: dict[str, float] = {}  # values of `Timing` so far, by field

    def lap(self, now: float, chunks: int, state: State, *, ended: bool) -> None:
        """Note a call of input that began at `now` and brought so many chunks."""
        known, since = self._known, now - self._start
        if "duration" in known:
            return
        if chunks:
            if not self._count:
                self._last = known["time_to_first_chunk"] = since
            if self._count + chunks > 1:
                known["gap_max"] = max(known.get("gap_max", 0.0), since - self._last)
            self._last = since
            self._count += chunks
            texts = (getattr(each, name) for each in state.choices.values() for name in _TOKENS)
            if "time_to_first_token" not in known and any(texts):
                known["time_to_first_token"] = since
        if ended:
            known["duration"] = since

    @property
    def timing(self) -> Timing:
        gaps = max(self._count - 1, 0)
        mean = (self._last - self._known["time_to_first_chunk"]) / gaps if gaps else None
        return Timing(**self._known, gap_count=gaps, gap_mean=mean)
