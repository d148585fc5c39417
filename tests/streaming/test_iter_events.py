"""`iter_events`: every kind of stream, and every way to leave it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing, closing
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from loopback import serving
from strategies import rendered
from streamed import AsyncSource, Source, cancel
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

Chunk = dict[str, object]


def delta(text: str, **choice: object) -> Chunk:
    return {"choices": [{"index": 0, "delta": {"content": text}, **choice}]}


CHUNKS: list[Chunk] = [delta("Hel"), delta("lo"), delta("", finish_reason="stop")]
BODY = rendered([*CHUNKS]) + b"data: [DONE]\n\n"
TYPES = ["content.delta", "content.delta", "content.done", "choice.done", "done"]


Stream = type[Source] | type[AsyncSource]
Read = Callable[..., tuple[list[Event], Exception | None]]


def read_sync(stream: Any, **options: Any) -> tuple[list[Event], Exception | None]:
    events: list[Event] = []
    try:
        for event in iter_events(stream, **options):
            events.append(event)
    except Exception as error:
        return events, error
    return events, None


def read_async(stream: Any, **options: Any) -> tuple[list[Event], Exception | None]:
    events: list[Event] = []

    async def read() -> None:
        async for event in iter_events(stream, **options):
            events.append(event)

    try:
        asyncio.run(read())
    except Exception as error:
        return events, error
    return events, None


both = pytest.mark.parametrize(
    ("source", "read"), [(Source, read_sync), (AsyncSource, read_async)], ids=["sync", "async"]
)
FORMS: dict[str, tuple[Sequence[object], dict[str, object]]] = {
    "chunks": (CHUNKS, {}),
    "body": ([BODY], {}),
    "lines": (BODY.splitlines(), {"framing": "lines"}),
    "JSON Lines": (["\n".join(map(json.dumps, CHUNKS))], {}),
}


@both
@pytest.mark.parametrize(("items", "options"), FORMS.values(), ids=FORMS)
def test_every_form_of_a_stream(
    source: Stream, read: Read, items: Sequence[object], options: dict[str, object]
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

    async def read() -> list[tuple[str, int]]:
        stream = AsyncSource(CHUNKS)
        return [(event.type, stream.handed_out) async for event in iter_events(stream)]

    assert asyncio.run(read()) == WHEN


@both
def test_the_clock_is_read_for_each_item(source: Stream, read: Read) -> None:
    clock = count()
    events, _ = read(source(CHUNKS), clock=lambda: next(clock))
    last = events[-1]
    assert isinstance(last, DoneEvent)
    # 0 at the start, 1 to 3 for the items, 4 for the end.
    assert last.timing == Timing(
        time_to_first_chunk=1, time_to_first_token=1, gap_count=2, gap_mean=1, gap_max=1, duration=4
    )


@both
def test_a_stream_that_is_cut_off_ends_with_done(source: Stream, read: Read) -> None:
    events, error = read(source(CHUNKS[:2]))
    last = events[-1]
    assert isinstance(last, DoneEvent)
    assert (error, last.status) == (None, "truncated")
    assert [event.type for event in events] == TYPES


class Reset(Exception):
    pass


@both
def test_an_error_of_the_source_comes_after_the_events(source: Stream, read: Read) -> None:
    stream = source(CHUNKS[:2], reset := Reset())
    events, error = read(stream)
    assert error is reset
    assert [event.type for event in events] == TYPES
    assert stream.closed == 1


STOPS: dict[str, tuple[dict[str, object], object, type[Exception]]] = {
    "a limit": ({"limits": Limits(choices=1)}, {"choices": [{"index": 1}]}, LimitExceededError),
    "strict mode": ({"strict": True}, "{no json}", DecodeError),
    "strict mode, failed": ({"strict": True}, {"error": "no"}, ServerError),
}


@both
@pytest.mark.parametrize(("options", "item", "kind"), STOPS.values(), ids=STOPS)
def test_what_stops_the_reading_comes_after_the_events(
    source: Stream, read: Read, options: dict[str, object], item: object, kind: type[Exception]
) -> None:
    text = item if isinstance(item, str) else json.dumps(item)
    stream = source([json.dumps(CHUNKS[0]) + "\n", text + "\n", BODY])
    events, error = read(stream, **options)
    assert type(error) is kind
    found = [event.type for event in events if event.type != "problem"]
    assert found == ["content.delta", "content.done", "choice.done", "done"]
    assert (stream.closed, stream.handed_out) == (1, 2)


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


def answer(request: bytes) -> tuple[str, list[bytes]]:
    return "text/event-stream", [BODY]


def test_the_body_of_an_httpx_response() -> None:
    async def read(url: str) -> list[Event]:
        async with httpx.AsyncClient() as client:
            request = client.build_request("POST", url, json={})
            response = await client.send(request, stream=True)
            events = [event async for event in iter_events(response)]
            assert response.is_closed
            return events

    with serving(answer) as url, httpx.Client() as client:
        with client.stream("POST", url, json={}) as response:
            found = [*iter_events(response)], asyncio.run(read(url))
        assert response.is_closed
    assert [[event.type for event in events] for events in found] == [TYPES, TYPES]


def test_an_openai_stream() -> None:
    with client_of(BODY) as completions:
        stream = completions.create(**ASKED, stream=True)
        events, error = read_sync(stream)
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
    *("tools-interleaved", "tools-several-fragments-in-one-delta", "tools-whole-in-one-chunk"),
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
