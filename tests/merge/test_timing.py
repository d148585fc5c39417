"""Timing: from the clock that was given, read once for each call of input."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from doors import DOORS, Door
from strategies import rendered
from streamed import Chunk, delta, fed

from accumulator import Accumulator, Timing, accumulate, iter_events, wrap

DONE = b"data: [DONE]\n\n"


class Clock:
    """A clock that stands still until it is told to go on, and counts who asks."""

    def __init__(self) -> None:
        self.now = 100.0
        self.asked = 0

    def __call__(self) -> float:
        self.asked += 1
        return self.now


ROLE = delta({"role": "assistant", "content": ""})
TEXT = delta({"content": "a"})
FINISH = delta({}, finish_reason="stop")


def timed(*steps: tuple[float, object], close_after: float | None = None) -> Timing:
    """Feed each chunk, or the bytes of a read, so many seconds after what came before it."""
    clock = Clock()
    acc = Accumulator(clock=clock)
    for seconds, item in steps:
        clock.now += seconds
        if isinstance(item, bytes):
            acc.feed_sse(item)
        else:
            acc.feed(item)
    if close_after is not None:
        clock.now += close_after
        acc.close()
    assert acc.timing is not None
    return acc.timing


def test_it_is_off_by_default_and_empty_at_first() -> None:
    assert fed([TEXT]).timing is None
    assert timed() == Timing()


def timing(first: float | None = None, token: float | None = None, **more: float) -> Timing:
    return Timing(time_to_first_chunk=first, time_to_first_token=token, **more)  # type: ignore[arg-type]


READ, BODY = rendered([TEXT, TEXT, TEXT]), rendered([TEXT])
# What came how many seconds after what was before it, and what is measured.
MEASURED: dict[str, tuple[list[tuple[float, object]], Timing]] = {
    "chunks one by one": (
        [(2, ROLE), (3, TEXT), (1, TEXT), (5, FINISH)],
        timing(2, 5, gap_count=3, gap_mean=3, gap_max=5, duration=18),
    ),
    "no gaps between the chunks of a read": (
        [(1, READ)], timing(1, 1, gap_count=2, gap_mean=0, gap_max=0, duration=8)
    ),
    "two reads": (
        [(1, READ), (10, READ)], timing(1, 1, gap_count=5, gap_mean=2, gap_max=10, duration=18)
    ),
    "a chunk comes with its last byte": ([(1, BODY[:9]), (2, BODY[9:])], timing(3, 3, duration=10)),
    "[DONE] is no chunk but the end": ([(1, BODY), (2, DONE)], timing(1, 1, duration=3)),
    "[DONE] alone": ([(3, DONE)], timing(duration=3)),
    "an error of the server is the end": (
        [(1, TEXT), (2, {"error": "no"})],
        timing(1, 1, gap_count=1, gap_mean=2, gap_max=2, duration=3),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("steps", "expected"), MEASURED.values(), ids=MEASURED)
def test_what_is_measured_of_what_comes(
    steps: list[tuple[float, object]], expected: Timing
) -> None:
    assert timed(*steps, close_after=7) == expected


TOKENS: dict[str, Chunk] = {
    "content": delta({"content": "a"}),
    "parts": delta({"content": [{"type": "text", "text": "a"}]}),
    "refusal": delta({"refusal": "a"}),
    "reasoning": delta({"reasoning": "a"}),
    "reasoning_content": delta({"reasoning_content": "a"}),
    "a tool call": delta({"tool_calls": [{"index": 0, "id": "c"}]}),
    "the old function call": delta({"function_call": {"name": "f"}}),
    "audio": delta({"audio": {"id": "a"}}),
    "a legacy completion": {"choices": [{"index": 0, "text": "a"}]},
}


@pytest.mark.parametrize("chunk", TOKENS.values(), ids=TOKENS)
def test_what_the_first_token_is(chunk: Chunk) -> None:
    timing = timed((1, ROLE), (1, delta({"vendor": "x"})), (1, chunk), (1, chunk))
    assert timing.time_to_first_token == 3


@pytest.mark.usefixtures("learns_at_once")
@pytest.mark.parametrize("form", ["chunks", "reads", "single reads"])
@pytest.mark.parametrize("shortcut", [True, False], ids=["shortcut", "plain"])
def test_the_fast_path_counts_the_same(form: str, shortcut: bool) -> None:
    clock = Clock()
    acc = Accumulator(clock=clock, shortcut=shortcut)
    for i in range(100):
        clock.now += i + 1
        if form == "chunks":
            acc.feed(TEXT)
        else:
            acc.feed_sse(rendered([TEXT] * (1 if form == "single reads" else 3)))
    count = 299 if form == "reads" else 99
    assert acc.timing == Timing(
        time_to_first_chunk=1, time_to_first_token=1,
        gap_count=count, gap_mean=sum(range(2, 101)) / count, gap_max=100,
    )  # fmt: skip
    assert acc.snapshot().choices[0].message.content == "a" * (count + 1)


def test_the_clock_is_read_once_for_each_call() -> None:
    clock = Clock()
    acc = Accumulator(clock=clock)
    acc.feed(TEXT)
    acc.feed_line("data: [DONE]")
    acc.feed_sse(b"")
    acc.close()
    assert clock.asked == 5


def test_what_the_clock_raises_leaves_the_state_as_it_was() -> None:
    clock = iter([0.0])
    acc = Accumulator(clock=lambda: next(clock))
    with pytest.raises(StopIteration):
        acc.feed(TEXT)
    assert acc.snapshot().choices == ()


@pytest.mark.parametrize("function", [accumulate, iter_events, wrap, Accumulator])
def test_a_start_without_a_clock_is_a_mistake(function: Callable[..., object]) -> None:
    stream = () if function is Accumulator else ([TEXT],)
    with pytest.raises(TypeError, match="there is no clock"):
        list(function(*stream, started=1.0))  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="a clock is a function"):
        list(function(*stream, clock=1.0))  # type: ignore[call-overload]


def ticking(clock: Clock) -> Iterator[Chunk]:
    for chunk in (ROLE, TEXT, FINISH):
        clock.now += 2
        yield chunk


# The clock starts at 100 and the request was sent at 90: ten seconds until the headers came.
@pytest.mark.parametrize(("options", "before"), [({}, 0), ({"started": 90.0}, 10)])
@pytest.mark.parametrize("door", [*DOORS.values(), fed], ids=[*DOORS, "by hand"])
def test_timing_counts_from_the_first_call_or_a_start_that_is_given(
    door: Door, options: dict[str, float], before: float
) -> None:
    clock = Clock()
    assert door(ticking(clock), clock=clock, **options).timing == Timing(
        time_to_first_chunk=before + 2, time_to_first_token=before + 4,
        gap_count=2, gap_mean=2, gap_max=2, duration=before + 6,
    )  # fmt: skip
    assert clock.asked == 4 + (not options)  # for each chunk and the end
