"""Every way to read a whole stream; each returns what tells of its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from streamed import drip

from accumulator import StreamEnd, accumulate, iter_events, wrap
from accumulator.asgi import tap
from accumulator.events import DoneEvent

Door = Callable[..., Any]  # a StreamEnd or a DoneEvent


def ended(read: Callable[..., object]) -> Door:
    """Return a door that hands out what `on_end` is given."""

    def door(stream: Iterable[object], **options: Any) -> StreamEnd:
        ends: list[StreamEnd] = []
        read(stream, on_end=ends.append, **options)
        [end] = ends
        return end

    return door


def by_accumulate_async(stream: Iterable[object], **options: Any) -> object:
    return asyncio.run(accumulate(drip(stream), **options))


def by_events(stream: Iterable[object], **options: Any) -> DoneEvent:
    (*_, last) = iter_events(stream, **options)
    assert isinstance(last, DoneEvent)
    return last


def by_events_async(stream: Iterable[object], **options: Any) -> DoneEvent:
    async def read() -> list[object]:
        return [event async for event in iter_events(drip(stream), **options)]

    last = asyncio.run(read())[-1]
    assert isinstance(last, DoneEvent)
    return last


DOORS: dict[str, Door] = {
    "accumulate": ended(accumulate),
    "accumulate, async": ended(by_accumulate_async),
    "wrap": ended(lambda stream, **options: list(wrap(stream, **options))),
    "tap": ended(lambda stream, **options: list(tap(stream, **options))),
    "iter_events": by_events,
    "iter_events, async": by_events_async,
}
