"""Every way in which the reading of a wrapped stream can end, and the one `on_end` of each."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from attrs import Factory, frozen
from streamed import (
    BODY,
    CHUNKS,
    REFUSED,
    WHOLE,
    AsyncSource,
    BodyError,
    Source,
    cancel,
    content_of,
    run_by_itself,
)

from accumulator import (
    DecodeError,
    IncompleteStreamError,
    LimitExceededError,
    Limits,
    ServerError,
    StreamEnd,
)
from accumulator.asgi import CompletionMiddleware, tap
from accumulator.events import Event
from accumulator.streams import (
    AsyncWrappedStream,
    Framing,
    WrappedStream,
    accumulate,
    iter_events,
    wrap,
)


@frozen
class Form:
    """A stream whose first `some` items are its first two chunks."""

    framing: Framing
    whole: list[object]
    some: int
    refused: object


NO = b'data: {"error": {"message": "no"}}'
FORMS = {
    "chunks": Form("body", [*CHUNKS], 2, REFUSED),
    "body": Form("body", re.findall(b".*?\n\n", BODY, re.S), 2, NO + b"\n\n"),
    "lines": Form("lines", [*BODY.splitlines()], 4, NO),
}

# --- ways to read; a sync stream is read by them as if it were async ---


class AsAsync:
    """A sync stream that looks like an async one; underneath everything is sync."""

    def __init__(self, stream: WrappedStream[object]) -> None:
        self.stream = stream

    def __aiter__(self) -> AsAsync:
        return self

    async def __anext__(self) -> object:
        try:
            return next(self.stream)
        except StopIteration:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> AsAsync:
        self.stream.__enter__()
        return self

    async def __aexit__(self, *raised: Any) -> None:
        self.stream.__exit__(*raised)

    async def close(self) -> None:
        self.stream.close()


Stream = AsAsync | AsyncWrappedStream[object]
Make = Callable[[], Stream]


@frozen
class Way:
    """How far a stream is read, and what happens then; in a `with` or not."""

    name: str
    reads: Literal["all", "some", "none"]
    then: Literal["close", "raise", "cycle", "wait"] | None = None
    in_with: bool = False
    is_cancelled: bool = False  # once it waits for ever

    async def __call__(self, make: Make, after: int) -> None:
        reading = self._read_in_with(make, after) if self.in_with else self._read(make(), after)
        await (cancel(reading) if self.is_cancelled else reading)

    async def _read_in_with(self, make: Make, after: int) -> None:
        async with make() as stream:
            await self._read(stream, after)

    async def _read(self, stream: Stream, after: int) -> None:
        if self.reads == "all":
            async for _ in stream:
                pass
        elif self.reads == "some":
            for _ in range(after):
                await anext(stream)
        if self.then == "close":
            await stream.close()
        elif self.then == "raise":
            raise BODY_ERROR
        elif self.then == "cycle":
            stream.itself = stream  # type: ignore[union-attr]
        elif self.then == "wait":
            await asyncio.Event().wait()


exhaust = Way("exhaust", "all")
exhaust_in_with = Way("exhaust in with", "all", in_with=True)
stop_and_close = Way("stop and close", "some", "close")
stop_in_with = Way("stop in with", "some", in_with=True)
raise_in_with = Way("raise in with", "some", "raise", in_with=True)
never_read = Way("never read", "none", in_with=True)
never_read_and_dropped = Way("never read and dropped", "none")
drop = Way("drop", "some")
drop_by_error = Way("drop by error", "some", "raise")
drop_in_a_cycle = Way("drop in a cycle", "some", "cycle")
cancel_in_source = Way("cancel in source", "all", is_cancelled=True)
cancel_in_body = Way("cancel in body", "some", "wait", in_with=True, is_cancelled=True)
cancel_without_with = Way("cancel without with", "some", "wait", is_cancelled=True)


async def close_a_generator_around(make: Make, after: int) -> None:
    async def read() -> AsyncIterator[object]:
        async with make() as stream:
            async for item in stream:
                yield item

    reader = read()
    for _ in range(after):
        await anext(reader)
    del reader


async def close_a_sync_generator_around(make: Make, after: int) -> None:
    def read() -> Iterator[object]:
        around = make()
        assert isinstance(around, AsAsync)
        with around.stream as stream:
            yield from stream

    reader = read()
    for _ in range(after):
        next(reader)
    del reader


# --- the table ---

BODY_ERROR = BodyError("in the loop")
RESET = OSError("connection reset")


class SdkError(Exception):
    """Like openai-python's APIError, which takes the server's error out of the stream."""

    body: object = REFUSED["error"]


SDK_ERROR = SdkError()
INTERRUPT = KeyboardInterrupt()
CANCELLED = asyncio.CancelledError()


@frozen
class Case:
    """A way to read, a source of `items` that then raises `error`, and what is made of it.

    `told` is what `on_end` is given: the same object if it is an exception, else one of that class.
    `seen` is likewise what the reader sees, by default the source's error.
    """

    read: Any
    items: str  # whole, some, refused
    error: BaseException | None
    status: str
    told: BaseException | type[BaseException] | None
    seen: BaseException | type[BaseException] | None = Factory(lambda case: case.error, True)


INCOMPLETE = IncompleteStreamError
BOTH = [
    Case(exhaust, "whole", None, "complete", None),
    Case(exhaust_in_with, "whole", None, "complete", None),
    Case(exhaust, "some", None, "truncated", INCOMPLETE),
    Case(exhaust, "refused", None, "failed", ServerError),
    Case(exhaust, "some", RESET, "truncated", RESET),
    Case(exhaust_in_with, "some", RESET, "truncated", RESET),
    Case(exhaust, "whole", RESET, "complete", RESET),
    Case(exhaust, "some", SDK_ERROR, "failed", SDK_ERROR),
    Case(exhaust, "some", INTERRUPT, "cancelled", INTERRUPT),
    Case(stop_and_close, "whole", None, "cancelled", None),
    Case(stop_in_with, "whole", None, "cancelled", None),
    Case(raise_in_with, "whole", None, "cancelled", BODY_ERROR, BODY_ERROR),
    Case(close_a_generator_around, "whole", None, "cancelled", None),
    Case(never_read, "whole", None, "cancelled", None),
    Case(drop, "whole", None, "cancelled", None),
    Case(drop_by_error, "whole", None, "cancelled", None, BODY_ERROR),
    Case(drop_in_a_cycle, "whole", None, "cancelled", None),
]
SYNC = [
    Case(close_a_sync_generator_around, "whole", None, "cancelled", None),
    Case(never_read_and_dropped, "whole", None, "cancelled", None),
]
STOPPED = asyncio.CancelledError
ASYNC = [
    Case(cancel_in_source, "some", CANCELLED, "cancelled", STOPPED, STOPPED),
    Case(cancel_in_body, "whole", None, "cancelled", STOPPED, STOPPED),
    Case(cancel_without_with, "whole", None, "cancelled", None, STOPPED),
]
Kind = Literal["sync", "async"]
CASES: list[tuple[Kind, Case]] = [
    *(("sync", case) for case in [*BOTH, *SYNC]),
    *(("async", case) for case in [*BOTH, *ASYNC]),
]
SOURCES: dict[Kind, Any] = {"sync": Source, "async": AsyncSource}


def wrapping(kind: Kind, source: Any, **options: Any) -> Make:
    """Return what wraps a source of a kind when a way asks for the stream."""
    if kind == "sync":
        return lambda: AsAsync(wrap(source, **options))
    return lambda: wrap(source, **options)


def name_of(way: Any) -> str:
    return way.name if isinstance(way, Way) else str(way.__name__)


def named(case: object) -> str | None:
    if not isinstance(case, Case):
        return None
    told = getattr(case.told, "__name__", repr(case.told))
    return f"{name_of(case.read)}-{case.items}-{told}-{case.status}"


def items_of(case: Case, form: Form) -> list[object]:
    if case.items == "whole":
        return form.whole
    return [*form.whole[: form.some], *([form.refused] if case.items == "refused" else [])]


def assert_is(error: BaseException | None, expected: object) -> None:
    assert (type(error) if isinstance(expected, type) else error) is expected


def assert_one_end(ends: list[StreamEnd], case: Case) -> None:
    [end] = ends
    assert end.status == case.status
    assert_is(end.error, case.told)
    if end.status == "complete":
        assert end.completion.to_dict() == WHOLE
    else:
        assert content_of(end.completion) == (None if "never" in name_of(case.read) else "Grüße")
    kinds = [problem.kind for problem in end.problems]
    assert kinds == (["server_error"] if end.status == "failed" else [])


def assert_seen(seen: BaseException | None, case: Case) -> None:
    assert_is(seen, case.seen)
    if seen is None:
        return
    if seen is case.error:
        last = traceback.extract_tb(seen.__traceback__)[-1]
        assert (last.name, Path(last.filename).name) == ("__next__", "streamed.py")
    seen.__traceback__ = seen.__context__ = None  # they keep the stream alive


async def collected() -> None:
    """Let the collector and the event loop close what was dropped."""
    gc.collect()
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(("kind", "case"), CASES, ids=named)
def test_each_way_out_is_one_end(kind: Kind, case: Case, form: Form) -> None:
    ends: list[StreamEnd] = []

    async def run() -> None:
        source = SOURCES[kind](items_of(case, form), case.error)
        make = wrapping(kind, source, framing=form.framing, on_end=ends.append)
        seen = None
        try:
            await case.read(make, form.some)
        except BaseException as error:
            seen = error
        assert_seen(seen, case)
        await collected()
        assert source.closed == 1
        assert_one_end(ends, case)

    asyncio.run(run())


BAD: dict[str, tuple[list[object], Any, type[Exception], str]] = {
    "a limit": (
        [*CHUNKS[:2], CHUNKS[1] | {"choices": [{"index": 5}]}],
        {"limits": Limits(choices=1)},
        LimitExceededError,
        "truncated",
    ),
    "strict": ([b"data: {\n\n", BODY], {"strict": True}, DecodeError, "truncated"),
    "strict, at the end": ([BODY[:-20], b"{"], {"strict": True}, INCOMPLETE, "complete"),
    "no chunk": ([*CHUNKS, {"choices": 3}], {}, DecodeError, "complete"),
    "no object": ([*CHUNKS[:2], 3], {}, TypeError, "truncated"),
}


@pytest.mark.parametrize(("items", "options", "error", "status"), BAD.values(), ids=BAD)
def test_what_accumulating_raises_stops_no_items_and_is_the_error_of_the_end(
    items: list[object], options: Any, error: type[Exception], status: str
) -> None:
    ends: list[StreamEnd] = []
    make = wrapping("sync", items, on_end=ends.append, **options)
    asyncio.run(exhaust(make, 0))
    asyncio.run(stop_and_close(make, len(items)))
    assert [(end.status, type(end.error)) for end in ends] == [(status, error)] * 2
    stream = wrap(items, **options)
    assert list(stream) == items
    for _ in range(2):
        with pytest.raises(error):
            _ = stream.completion


# --- on_event ---


class CallbackError(Exception):
    """Raised by a callback."""


def failing_first(seen: list[Event], *, from_event: int = 0, times: int = 1) -> Any:
    """Return an `on_event` that raises for some events."""

    def on_event(event: Event) -> None:
        seen.append(event)
        if from_event < len(seen) <= from_event + times:
            raise CallbackError(len(seen))

    return on_event


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize(("from_event", "times"), [(0, 1), (1, 1), (5, 1), (0, 99)])
def test_what_on_event_raises_ends_nothing_and_is_the_error_of_the_end(
    kind: Kind, from_event: int, times: int
) -> None:
    ends: list[StreamEnd] = []
    seen: list[Event] = []
    on_event = failing_first(seen, from_event=from_event, times=times)
    make = wrapping(kind, SOURCES[kind](CHUNKS), on_event=on_event, on_end=ends.append)
    stream: Any = make()
    asyncio.run(exhaust(lambda: stream, 0))
    [end] = ends
    assert (end.status, end.completion.to_dict()) == ("complete", WHOLE)
    assert (type(end.error), end.error and end.error.args) == (CallbackError, (from_event + 1,))
    assert [event.type for event in seen] == [event.type for event in iter_events(CHUNKS)]
    with pytest.raises(CallbackError):
        getattr(stream, "stream", stream).completion  # noqa: B018


def test_a_stop_after_an_error_of_on_event_has_that_error() -> None:
    ends: list[StreamEnd] = []
    make = wrapping("sync", CHUNKS, on_event=failing_first([]), on_end=ends.append)
    asyncio.run(stop_and_close(make, 1))
    assert [(end.status, type(end.error)) for end in ends] == [("cancelled", CallbackError)]


def test_what_on_event_raises_stops_accumulate_at_once() -> None:
    ends: list[StreamEnd] = []
    source = Source(CHUNKS)
    with pytest.raises(CallbackError):
        accumulate(source, on_event=failing_first([]), on_end=ends.append)
    async_source = AsyncSource(CHUNKS)
    with pytest.raises(CallbackError):
        asyncio.run(accumulate(async_source, on_event=failing_first([]), on_end=ends.append))
    assert (source.handed_out, async_source.handed_out) == (2, 2)  # the first only has a role
    assert [(end.status, type(end.error)) for end in ends] == [("cancelled", CallbackError)] * 2


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize(
    ("way", "type_", "status"),
    [
        (stop_in_with, "content.done", "cancelled"),
        (stop_and_close, "content.done", "cancelled"),
        (exhaust, "done", "complete"),  # the last event, after the source's end
    ],
)
def test_an_interrupt_in_on_event_leaves_nothing_open(
    kind: Kind, way: Way, type_: str, status: str
) -> None:
    ends: list[StreamEnd] = []

    def on_event(event: Event) -> None:
        if event.type == type_:
            raise INTERRUPT

    source = SOURCES[kind](CHUNKS)
    stream = wrapping(kind, source, on_event=on_event, on_end=ends.append)()
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(way(lambda: stream, 2))
    assert source.closed == 1
    assert [(end.status, end.error) for end in ends] == [(status, INTERRUPT)]


@pytest.mark.parametrize("options", [{"limits": Limits(total_bytes=300)}, {"strict": True}])
def test_the_last_event_is_done_after_an_error_in_accumulating_too(options: Any) -> None:
    events: list[Event] = []
    bad = [*CHUNKS[:2], {"choices": 5}, *CHUNKS[2:]]
    stream = wrap(bad, on_event=events.append, **options)
    assert list(stream) == bad
    assert [event.type for event in events].index("done") == len(events) - 1
    with pytest.raises((LimitExceededError, DecodeError)):
        _ = stream.completion


# --- on_end itself ---


def failing(end: StreamEnd) -> None:
    raise CallbackError(end.status)


CLOSING = RuntimeError("closing failed")


class BadlyClosing(Source):
    """Cannot be closed without an error."""

    def close(self) -> None:
        super().close()
        raise CLOSING


class AsyncBadlyClosing(AsyncSource):
    async def close(self) -> None:
        await super().close()
        raise CLOSING


BADLY: dict[Kind, Any] = {"sync": BadlyClosing, "async": AsyncBadlyClosing}
# The error that reaches the caller where there are several.
ERRORS: list[tuple[BaseException | None, bool, Any, type[BaseException]]] = [
    (None, False, exhaust, CallbackError),
    (None, False, stop_and_close, CallbackError),
    (None, False, stop_in_with, CallbackError),
    (RESET, False, exhaust, OSError),
    (RESET, False, exhaust_in_with, OSError),
    (None, False, raise_in_with, BodyError),
    (None, True, exhaust, RuntimeError),
    (None, True, stop_and_close, RuntimeError),
    (RESET, True, exhaust, OSError),
    (None, True, raise_in_with, BodyError),
]


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return what goes to `sys.unraisablehook`."""
    found: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", found.append)
    return found


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize(("error", "badly", "way", "seen"), ERRORS)
def test_an_error_in_on_end_hides_no_other_one(
    kind: Kind,
    error: BaseException | None,
    badly: bool,
    way: Any,
    seen: type[BaseException],
    caplog: pytest.LogCaptureFixture,
    dropped: list[Any],
) -> None:
    async def run() -> None:
        source = (BADLY if badly else SOURCES)[kind](CHUNKS[:2], error)
        await way(wrapping(kind, source, on_end=failing), 1)
        await collected()

    with pytest.raises(seen) as caught:
        asyncio.run(run())
    assert error is None or caught.value is error
    assert dropped == []
    logged = [record.exc_info[0] for record in caplog.records if record.exc_info]
    assert logged == ([] if seen is CallbackError else [CallbackError])
    assert {record.name for record in caplog.records} <= {"accumulator"}


def failing_event(event: Event) -> None:
    raise BodyError(event.type)


# What `accumulate` raises where `on_end` raises, too.
HIDDEN: list[tuple[list[object], BaseException | None, dict[str, Any], type[BaseException]]] = [
    ([*CHUNKS], None, {}, CallbackError),
    ([*CHUNKS[:2]], None, {}, IncompleteStreamError),
    ([*CHUNKS[:2], REFUSED], None, {}, ServerError),
    ([*CHUNKS, {"choices": 3}], None, {}, DecodeError),
    ([*CHUNKS, {"choices": 3}], None, {"strict": True}, DecodeError),
    ([*CHUNKS, 3], None, {}, TypeError),
    ([*CHUNKS], None, {"limits": Limits(total_bytes=2)}, LimitExceededError),
    ([*CHUNKS], None, {"on_event": failing_event}, BodyError),
    ([*CHUNKS], RESET, {}, OSError),
]


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize(("items", "error", "options", "seen"), HIDDEN)
def test_an_error_in_on_end_does_not_hide_what_accumulate_raises(
    kind: Kind,
    items: list[object],
    error: BaseException | None,
    options: dict[str, Any],
    seen: type[BaseException],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run() -> None:
        found: Any = accumulate(SOURCES[kind](items, error), on_end=failing, **options)
        await found

    with pytest.raises(seen):
        asyncio.run(run())
    logged = [record.exc_info[0] for record in caplog.records if record.exc_info]
    assert logged == ([] if seen is CallbackError else [CallbackError])


@pytest.mark.parametrize(("error", "told"), [(None, CLOSING), (RESET, RESET)])
def test_an_error_in_closing_is_the_error_of_the_end_if_it_is_the_only_one(
    error: BaseException | None, told: BaseException
) -> None:
    ends: list[StreamEnd] = []
    make = wrapping("sync", BadlyClosing(CHUNKS, error), on_end=ends.append)
    with pytest.raises(type(told)):
        asyncio.run(exhaust(make, 0))
    assert [(end.error, end.status) for end in ends] == [(told, "complete")]


@pytest.mark.parametrize(
    ("kind", "way"), [("sync", drop), ("async", drop), ("sync", close_a_sync_generator_around)]
)
def test_an_error_in_on_end_of_a_dropped_stream_is_unraisable(
    kind: Kind, way: Any, dropped: list[Any]
) -> None:
    asyncio.run(way(wrapping(kind, SOURCES[kind](CHUNKS), on_end=failing), 1))
    assert [type(unraisable.exc_value) for unraisable in dropped] == [CallbackError]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_on_end_is_called_when_the_source_is_closed(kind: Kind) -> None:
    closed: list[int] = []
    source = SOURCES[kind](CHUNKS)
    make = wrapping(kind, source, on_end=lambda end: closed.append(source.closed))
    asyncio.run(stop_in_with(make, 1))
    assert closed == [1]


class AsyncCallable:
    async def __call__(self, *args: object) -> None: ...


@pytest.mark.parametrize("door", [wrap, tap, CompletionMiddleware])
@pytest.mark.parametrize(
    ("on_end", "why"),
    [
        (AsyncCallable(), "not awaited"),
        (AsyncCallable().__call__, "not awaited"),
        (5, "on_end is a function of a StreamEnd, not int"),
    ],
)
def test_an_on_end_that_cannot_be_called_is_a_type_error(
    on_end: Any, why: str, door: Callable[..., Any]
) -> None:
    with pytest.raises(TypeError, match=why):
        door(CHUNKS, on_end=on_end)


def test_accumulate_hands_what_came_before_an_error_to_on_end() -> None:
    ends: list[StreamEnd] = []
    with pytest.raises(OSError, match="reset"):
        accumulate(Source(CHUNKS[:2], RESET), on_end=ends.append)
    with pytest.raises(OSError, match="reset"):
        asyncio.run(accumulate(AsyncSource(CHUNKS[:2], RESET), on_end=ends.append))
    assert [content_of(end.completion) for end in ends] == ["Grüße"] * 2


def test_a_stream_that_its_own_on_end_holds_is_collected() -> None:
    class Span:
        def __init__(self) -> None:
            self.stream = wrap(CHUNKS, on_end=self.end)
            next(self.stream)

        def end(self, end: StreamEnd) -> None:
            ends.append(end)

    ends: list[StreamEnd] = []
    Span()
    gc.collect()
    assert [end.status for end in ends] == ["cancelled"]


AT_EXIT = """
import asyncio, sys
from accumulator import wrap

def chunk(name):
    return {"choices": [{"index": 0, "delta": {"content": name}}]}

def source(name):
    try:
        while True: yield chunk(name)
    finally: print("closed", name)

async def async_source():
    try:
        while True: yield chunk("async")
    finally:
        await asyncio.sleep(0)
        print("closed async")

def tell(end):
    name = end.completion.choices[0].message.content
    print(name, end.status)

def begin(name):
    stream = wrap(source(name), on_end=tell)
    next(stream)
    return stream

async def main():
    global held
    held = wrap(async_source(), on_end=tell)
    await anext(held)

a_global = begin("global")
in_a_cycle = begin("cycle")
in_a_cycle.itself = in_a_cycle
sys.kept = begin("module")
asyncio.run(main())
"""


def test_streams_that_are_open_when_the_interpreter_exits_end() -> None:
    run = run_by_itself(AT_EXIT, "-W", "error")
    assert run.stderr == ""
    names = ("async", "cycle", "global", "module")
    expected = [f"{name} cancelled" for name in names] + [f"closed {name}" for name in names]
    assert sorted(run.stdout.splitlines()) == sorted(expected)


FORKED = """
import os, sys
from accumulator import wrap

def begin(name):
    stream = wrap(iter([{}, {}]), on_end=lambda end: print(os.getpid() == parent, name))
    next(stream)
    return stream

parent = os.getpid()
kept, dropped = begin("kept"), begin("dropped")
child = os.fork()
if not child:
    del dropped
    begin("the child's own").close()
    sys.exit()
os.waitpid(child, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_leaves_the_ends_to_its_parent() -> None:
    printed = sorted(run_by_itself(FORKED).stdout.splitlines())
    assert printed == ["False the child's own", "True dropped", "True kept"]


FAILING_AT_EXIT = """
from accumulator import wrap

def on_end(end):
    raise ValueError("at the end")

kept = wrap(iter([{}, {}]), on_end=on_end)
next(kept)
"""


def test_what_on_end_raises_at_exit_is_told() -> None:
    assert "ValueError: at the end" in run_by_itself(FAILING_AT_EXIT).stderr


def test_logging_is_not_imported_for_nothing() -> None:
    code = "import sys, accumulator; print('logging' in sys.modules)"
    assert run_by_itself(code).stdout == "False\n"
