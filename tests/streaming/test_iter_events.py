"""`iter_events`: every kind of stream, and every way to leave it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from contextlib import aclosing, closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from strategies import rendered
from streamed import AsyncSource, Source, cancel, delta
from telling import events_of
from test_openai import ASKED, STREAMS, client_of, compared, helper_of

from accumulator import (
    DecodeError,
    LimitExceededError,
    Limits,
    ServerError,
    Timing,
    iter_chunks,
    iter_events,
)
from accumulator.events import DoneEvent, Event

CHUNKS = [delta({"content": text}) for text in ("Hel", "lo")] + [delta({}, finish_reason="stop")]
BODY = rendered([*CHUNKS]) + b"data: [DONE]\n\n"
TYPES = ["content.delta", "content.delta", "content.done", "choice.done", "done"]


Stream = type[Source] | type[AsyncSource]


def read(stream: Any, **options: Any) -> tuple[list[Event], Exception | None]:
    """Return the events of a sync or async stream, and the error that came after them."""
    events: list[Event] = []

    async def read_async() -> None:
        async for event in iter_events(stream, **options):
            events.append(event)

    try:
        if isinstance(stream, AsyncSource):
            asyncio.run(read_async())
        else:
            events.extend(iter_events(stream, **options))
    except Exception as error:
        return events, error
    return events, None


both = pytest.mark.parametrize("source", [Source, AsyncSource], ids=["sync", "async"])
FORMS: dict[str, tuple[Sequence[object], dict[str, object]]] = {
    "chunks": (CHUNKS, {}),
    "body": ([BODY], {}),
    "lines": (BODY.splitlines(), {"framing": "lines"}),
    "JSON Lines": (["\n".join(map(json.dumps, CHUNKS))], {}),
}


@both
@pytest.mark.parametrize(("items", "options"), FORMS.values(), ids=FORMS)
def test_every_form_of_a_stream(
    source: Stream, items: Sequence[object], options: dict[str, object]
) -> None:
    stream = source(items)
    events, error = read(stream, **options)
    assert error is None
    assert [event.type for event in events] == TYPES
    last = events[-1]
    assert isinstance(last, DoneEvent)
    assert last.status == "complete"
    assert last.completion.choices[0].message.content == "Hello"
    assert last.timing is None
    assert stream.closed == 1


# The finish reason is in the third chunk; only the end of the source tells that it was the last.
WHEN = list(zip(TYPES, [1, 2, 3, 3, 3], strict=True))


def test_the_events_of_an_item_come_before_the_next_is_read() -> None:
    stream = Source(CHUNKS)
    assert [(event.type, stream.handed_out) for event in iter_events(stream)] == WHEN

    async def read_async() -> list[tuple[str, int]]:
        stream = AsyncSource(CHUNKS)
        return [(event.type, stream.handed_out) async for event in iter_events(stream)]

    assert asyncio.run(read_async()) == WHEN


@both
def test_the_clock_is_read_for_each_item(source: Stream) -> None:
    clock = count()
    events, _ = read(source(CHUNKS), clock=lambda: next(clock))
    last = events[-1]
    assert isinstance(last, DoneEvent)
    # 0 at the start, 1 to 3 for the items, 4 for the end.
    assert last.timing == Timing(
        time_to_first_chunk=1, time_to_first_token=1, gap_count=2, gap_mean=1, gap_max=1, duration=4
    )


class Reset(Exception):
    pass


def texts(*chunks: object) -> list[object]:
    return [f"{json.dumps(chunk)}\n" for chunk in [CHUNKS[0], *chunks]]


MANY = texts({"choices": [{"index": 1}]}, *CHUNKS)
# The items of a source that then raises Reset or not, options, and the error behind the events.
ENDINGS: dict[str, tuple[list[object], bool, dict[str, object], type[Exception] | None]] = {
    "it is cut off": (texts(), False, {}, None),
    "an error of the source": (texts(), True, {}, Reset),
    "a limit": (MANY, False, {"limits": Limits(choices=1)}, LimitExceededError),
    "strict mode": ([*texts(), "{no json}\n", BODY], False, {"strict": True}, DecodeError),
    "strict mode, failed": (texts({"error": "no"}, *CHUNKS), False, {"strict": True}, ServerError),
}


@both
@pytest.mark.parametrize(("items", "resets", "options", "kind"), ENDINGS.values(), ids=ENDINGS)
def test_the_events_of_what_arrived_come_before_the_error(
    source: Stream,
    items: list[object],
    resets: bool,
    options: dict[str, object],
    kind: type[Exception] | None,
) -> None:
    stream = source(items, Reset() if resets else None)
    events, error = read(stream, **options)
    assert type(error) is (kind or type(None))
    found = [event.type for event in events if event.type != "problem"]
    assert found == ["content.delta", "content.done", "choice.done", "done"]
    assert isinstance(events[-1], DoneEvent)
    assert events[-1].status == ("failed" if kind is ServerError else "truncated")
    assert (stream.closed, stream.handed_out) == (1, min(len(items), 2))


def test_leaving_the_loop_closes_the_source() -> None:
    stream, async_stream = Source(CHUNKS), AsyncSource(CHUNKS)
    with closing(iter_events(stream)) as events:
        next(events)

    async def read() -> None:
        async with aclosing(iter_events(async_stream)) as events:
            await anext(events)

    asyncio.run(read())
    for each in stream, async_stream:
        assert (each.closed, each.handed_out) == (1, 1)


@pytest.mark.parametrize("function", [iter_events, iter_chunks])
def test_what_is_thrown_in_comes_out_at_once(function: Any) -> None:
    stream, async_stream = Source([BODY]), AsyncSource([BODY])
    thrown = KeyError("thrown")
    found = function(stream)
    next(found)
    with pytest.raises(KeyError) as caught:
        found.throw(thrown)
    assert caught.value is thrown

    async def read() -> None:
        found = function(async_stream)
        await anext(found)
        await found.athrow(thrown)

    with pytest.raises(KeyError):
        asyncio.run(read())
    assert (stream.closed, async_stream.closed) == (1, 1)


def test_cancelling_closes_the_source_and_tells_nothing_more() -> None:
    stream, events = AsyncSource(CHUNKS[:1], asyncio.CancelledError()), list[Event]()

    async def read() -> None:
        async for event in iter_events(stream):
            events.append(event)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel(read()))
    assert [event.type for event in events] == ["content.delta"]
    assert stream.closed == 1


@pytest.mark.parametrize("function", [iter_events, iter_chunks])
@pytest.mark.parametrize("thing", [None, 3, {"choices": []}])
def test_what_is_no_stream_is_refused_at_once(thing: object, function: Any) -> None:
    with pytest.raises(TypeError, match="a stream is an iterable"):
        function(thing)


# --- real clients ---


def test_an_openai_stream() -> None:
    with client_of(BODY) as completions:
        stream = completions.create(**ASKED, stream=True)
        events, error = read(stream)
        assert stream.response.is_closed
    assert error is None
    deltas = [event.delta for event in events if event.type == "content.delta"]
    assert deltas == ["Hel", "lo"]


# --- the events of openai-python, where it is right ---

# What each event contains, by openai-python's names.
FIELDS = {
    "content.delta": ("snapshot", "delta"),
    "content.done": ("content",),
    "refusal.delta": ("snapshot", "delta"),
    "refusal.done": ("refusal",),
    "tool_calls.function.arguments.delta": ("name", "index", "arguments", "arguments_delta"),
    "tool_calls.function.arguments.done": ("name", "index", "arguments"),
    "logprobs.content.delta": ("content",),
    "logprobs.content.done": ("content",),
    "logprobs.refusal.delta": ("refusal",),
    "logprobs.refusal.done": ("refusal",),
}
# It calls a call done as soon as a fragment of another comes, and forgets the one that was open.
UNFINISHED = {
    *("tools-interleaved", "tools-several-fragments-in-one-delta", "tools-whole-in-one-chunk")
}


def brought_by(events: Iterable[Any]) -> dict[str, list[object]]:
    """Return what the events contain, by type; for us an empty fragment is not an event."""
    found: dict[str, list[object]] = {}
    for event in events:
        brought = [_plain(getattr(event, name)) for name in FIELDS.get(event.type, ())]
        if brought and (brought[-1] or event.type == "tool_calls.function.arguments.done"):
            found.setdefault(event.type, []).append(brought)
    return found


def _plain(value: Any) -> object:
    return value if isinstance(value, (str, int, type(None))) else [item.token for item in value]


def theirs(body: bytes) -> dict[str, list[object]]:
    with helper_of(body) as stream:
        return brought_by(stream)


def ours(body: bytes) -> dict[str, list[object]]:
    return brought_by(events_of([body])[1])


@pytest.mark.parametrize("name", sorted(STREAMS.keys() - UNFINISHED))
def test_our_events_are_openai_pythons(name: str) -> None:
    # What is exactly `{}` may be replaced, so for us it waits for the end of its choice.
    body = STREAMS[name].replace(b'"{}"', b'"[]"')
    assert ours(body) == theirs(body)


@pytest.mark.many
def test_the_events_of_recorded_streams_are_openai_pythons(corpus: Path) -> None:
    assert [name for name, body in compared(corpus) if ours(body) != theirs(body)] == []
