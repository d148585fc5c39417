"""Timing: from the clock that was given, read once for each call of input."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from strategies import rendered
from streamed import Chunk, delta, fed

from accumulator import Accumulator, StreamEnd, Timing, accumulate, iter_events, wrap
from accumulator.asgi import tap
from accumulator.events import DoneEvent, Event

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


def test_off_by_default() -> None:
    assert fed([TEXT]).timing is None


def test_nothing_has_come_yet() -> None:
    assert timed() == Timing()


def test_chunks_one_by_one() -> None:
    assert timed((2, ROLE), (3, TEXT), (1, TEXT), (5, FINISH), close_after=7) == Timing(
        time_to_first_chunk=2,
        time_to_first_token=5,
        gap_count=3,
        gap_mean=3,
        gap_max=5,
        duration=18,
    )


def test_the_chunks_of_one_read_have_no_gaps_between_them() -> None:
    read = rendered([TEXT, TEXT, TEXT])
    assert timed((1, read)) == Timing(
        time_to_first_chunk=1, time_to_first_token=1, gap_count=2, gap_mean=0, gap_max=0
    )
    assert timed((1, read), (10, read)) == Timing(
        time_to_first_chunk=1, time_to_first_token=1, gap_count=5, gap_mean=2, gap_max=10
    )


def test_a_chunk_comes_with_its_last_byte() -> None:
    body = rendered([TEXT])
    assert timed((1, body[:9]), (2, body[9:])).time_to_first_chunk == 3


def test_done_is_no_chunk_but_the_end() -> None:
    expected = Timing(time_to_first_chunk=1, time_to_first_token=1, duration=3)
    assert timed((1, rendered([TEXT])), (2, DONE), close_after=50) == expected
    assert timed((3, DONE)) == Timing(duration=3)


def test_an_error_of_the_server_is_the_end() -> None:
    assert timed((1, TEXT), (2, {"error": "no"}), close_after=50).duration == 3


TOKENS: dict[str, Chunk] = {
    "content": {"content": "a"},
    "parts": {"content": [{"type": "text", "text": "a"}]},
    "refusal": {"refusal": "a"},
    "reasoning": {"reasoning": "a"},
    "reasoning_content": {"reasoning_content": "a"},
    "a tool call": {"tool_calls": [{"index": 0, "id": "c"}]},
    "the old function call": {"function_call": {"name": "f"}},
    "audio": {"audio": {"id": "a"}},
}


@pytest.mark.parametrize("fields", TOKENS.values(), ids=TOKENS)
def test_what_the_first_token_is(fields: Chunk) -> None:
    timing = timed((1, ROLE), (1, delta({"vendor": "x"})), (1, delta(fields)), (1, delta(fields)))
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
        time_to_first_chunk=1,
        time_to_first_token=1,
        gap_count=count,
        gap_mean=sum(range(2, 101)) / count,
        gap_max=100,
    )
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


async def aticking(clock: Clock) -> AsyncIterator[Chunk]:
    for chunk in ticking(clock):
        yield chunk


EXPECTED = Timing(
    time_to_first_chunk=2, time_to_first_token=4, gap_count=2, gap_mean=2, gap_max=2, duration=6
)


# The clock starts at 100 and the request was sent at 90: ten seconds until the headers came.
FROM_THE_REQUEST = Timing(
    time_to_first_chunk=12, time_to_first_token=14, gap_count=2, gap_mean=2, gap_max=2, duration=16
)


def by_accumulate(clock: Clock, **options: Any) -> Timing | None:
    ends: list[StreamEnd] = []
    accumulate(ticking(clock), clock=clock, on_end=ends.append, **options)
    return ends[0].timing


def by_wrap(clock: Clock, **options: Any) -> Timing | None:
    stream = wrap(ticking(clock), clock=clock, **options)
    list(stream)
    return stream.timing


def by_tap(clock: Clock, **options: Any) -> Timing | None:
    ends: list[StreamEnd] = []
    list(tap(ticking(clock), clock=clock, on_end=ends.append, **options))
    return ends[0].timing


def by_iter_events(clock: Clock, **options: Any) -> Timing | None:
    (*_, last) = iter_events(ticking(clock), clock=clock, **options)
    assert isinstance(last, DoneEvent)
    return last.timing


def by_async_events(clock: Clock, **options: Any) -> Timing | None:
    async def read() -> list[Event]:
        return [event async for event in iter_events(aticking(clock), clock=clock, **options)]

    last = asyncio.run(read())[-1]
    assert isinstance(last, DoneEvent)
    return last.timing


def by_hand(clock: Clock, **options: Any) -> Timing | None:
    return fed(ticking(clock), clock=clock, **options).timing


WAYS = [by_accumulate, by_wrap, by_tap, by_iter_events, by_async_events, by_hand]


@pytest.mark.parametrize("read", WAYS)
def test_timing_counts_from_the_first_call_or_a_start_that_is_given(
    read: Callable[..., Timing | None],
) -> None:
    assert read(Clock()) == EXPECTED
    clock = Clock()
    assert read(clock, started=90.0) == FROM_THE_REQUEST
    assert clock.asked == 4  # for each chunk and the end
