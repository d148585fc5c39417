"""Every way in which the reading of a wrapped stream can end, and the one `on_end` of each."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest
from attrs import frozen
from streamed import (
    BODY,
    CHUNKS,
    REFUSED,
    TEXTS,
    WHOLE,
    AsyncSource,
    BodyError,
    Source,
    content_of,
)

from accumulator import (
    DecodeError,
    IncompleteStreamError,
    LimitExceededError,
    Limits,
    ServerError,
    StreamEnd,
)
from accumulator.streams import AsyncWrappedStream, Framing, OnEnd, WrappedStream, accumulate, wrap

Make = Callable[[], WrappedStream[object]]
AsyncMake = Callable[[], AsyncWrappedStream[object]]
Way = Callable[[Make], object]
AsyncWay = Callable[[AsyncMake], Awaitable[object]]


@frozen
class Form:
    """A stream whose first `some` items are its first two chunks."""

    framing: Framing
    whole: list[object]
    some: int
    refused: object


FORMS = {
    "chunks": Form("body", [*CHUNKS], 2, REFUSED),
    "body": Form(
        "body",
        [f"data: {text}\n\n".encode() for text in [*TEXTS, "[DONE]"]],
        2,
        b'data: {"error": {"message": "no"}}\n\n',
    ),
    "lines": Form("lines", [*BODY.splitlines()], 4, b'data: {"error": {"message": "no"}}'),
}

# --- ways to read, sync ---


def exhaust(make: Make) -> None:
    for _ in make():
        pass


def exhaust_in_with(make: Make) -> None:
    with make() as stream:
        for _ in stream:
            pass


def stop_and_close(make: Make, after: int) -> None:
    stream = make()
    for number, _ in enumerate(stream, 1):
        if number == after:
            break
    stream.close()


def stop_in_with(make: Make, after: int) -> None:
    with make() as stream:
        for number, _ in enumerate(stream, 1):
            if number == after:
                break


def raise_in_with(make: Make, after: int) -> None:
    with make() as stream:
        for number, _ in enumerate(stream, 1):
            if number == after:
                raise BODY_ERROR


def close_a_generator_around(make: Make, after: int) -> None:
    def read() -> Iterator[object]:
        with make() as stream:
            yield from stream

    reader = read()
    for _ in range(after):
        next(reader)
    del reader


def never_read(make: Make) -> None:
    with make():
        pass


def never_read_and_dropped(make: Make) -> None:
    make()


def drop(make: Make, after: int) -> None:
    stream = make()
    for _ in range(after):
        next(stream)


def drop_by_error(make: Make, after: int) -> None:
    for number, _ in enumerate(make(), 1):
        if number == after:
            raise BODY_ERROR


def drop_in_a_cycle(make: Make, after: int) -> None:
    stream = make()
    for _ in range(after):
        next(stream)
    stream.itself = stream  # type: ignore[attr-defined]


# --- ways to read, async ---


async def aexhaust(make: AsyncMake) -> None:
    async for _ in make():
        pass


async def aexhaust_in_with(make: AsyncMake) -> None:
    async with make() as stream:
        async for _ in stream:
            pass


async def some(stream: AsyncWrappedStream[object], after: int) -> None:
    for _ in range(after):
        await anext(stream)


async def astop_and_close(make: AsyncMake, after: int) -> None:
    stream = make()
    await some(stream, after)
    await stream.close()


async def astop_in_with(make: AsyncMake, after: int) -> None:
    async with make() as stream:
        await some(stream, after)


async def araise_in_with(make: AsyncMake, after: int) -> None:
    async with make() as stream:
        await some(stream, after)
        raise BODY_ERROR


async def aclose_a_generator_around(make: AsyncMake, after: int) -> None:
    async def read() -> AsyncIterator[object]:
        async with make() as stream:
            async for item in stream:
                yield item

    reader = read()
    for _ in range(after):
        await anext(reader)
    del reader


async def anever_read(make: AsyncMake) -> None:
    async with make():
        pass


async def adrop(make: AsyncMake, after: int) -> None:
    await some(make(), after)


async def adrop_by_error(make: AsyncMake, after: int) -> None:
    await some(make(), after)
    raise BODY_ERROR


async def adrop_in_a_cycle(make: AsyncMake, after: int) -> None:
    stream = make()
    await some(stream, after)
    stream.itself = stream  # type: ignore[attr-defined]


async def cancel(reading: Coroutine[Any, Any, None], waits: asyncio.Event) -> None:
    task = asyncio.ensure_future(reading)
    await waits.wait()
    task.cancel()
    await task


async def acancel_in_source(make: AsyncMake) -> None:
    source: list[AsyncSource] = []

    def watched() -> AsyncWrappedStream[object]:
        stream = make()
        source.append(stream._source)  # type: ignore[arg-type]
        return stream

    reading = asyncio.ensure_future(aexhaust(watched))
    await asyncio.sleep(0)
    await source[0].waits.wait()
    reading.cancel()
    await reading


async def acancel_in_body(make: AsyncMake, after: int) -> None:
    waits = asyncio.Event()

    async def read() -> None:
        async with make() as stream:
            await some(stream, after)
            waits.set()
            await asyncio.Event().wait()

    await cancel(read(), waits)


async def acancel_without_with(make: AsyncMake, after: int) -> None:
    waits = asyncio.Event()

    async def read() -> None:
        stream = make()
        await some(stream, after)
        waits.set()
        await asyncio.Event().wait()

    await cancel(read(), waits)


# --- the table ---

BODY_ERROR = BodyError("in the loop")
RESET = OSError("connection reset")


class SdkError(Exception):
    """As openai-python's APIError, which takes the server's error out of the stream."""

    body: object = REFUSED["error"]


SDK_ERROR = SdkError()
INTERRUPT = KeyboardInterrupt()
CANCELLED = asyncio.CancelledError()


@frozen
class Case:
    """A way to read and a source: `items` of it, then the `error` it raises; then what is seen.

    `seen` is what reaches the caller, `told` what `on_end` is given: the same object, if `told` is
    an exception, else one of that class.
    """

    read: Any
    items: str  # whole, some, refused
    error: BaseException | None
    status: str
    told: BaseException | type[BaseException] | None


INCOMPLETE = IncompleteStreamError
# What is the same for both kinds, by the names of the ways.
BOTH = [
    ("exhaust", "whole", None, "complete", None),
    ("exhaust_in_with", "whole", None, "complete", None),
    ("exhaust", "some", None, "truncated", INCOMPLETE),
    ("exhaust", "refused", None, "failed", ServerError),
    ("exhaust", "some", RESET, "truncated", RESET),
    ("exhaust_in_with", "some", RESET, "truncated", RESET),
    ("exhaust", "whole", RESET, "complete", RESET),
    ("exhaust", "some", SDK_ERROR, "failed", SDK_ERROR),
    ("exhaust", "some", INTERRUPT, "cancelled", INTERRUPT),
    ("stop_and_close", "whole", None, "cancelled", None),
    ("stop_in_with", "whole", None, "cancelled", None),
    ("raise_in_with", "whole", None, "cancelled", BODY_ERROR),
    ("close_a_generator_around", "whole", None, "cancelled", None),
    ("never_read", "whole", None, "cancelled", None),
    ("drop", "whole", None, "cancelled", None),
    ("drop_by_error", "whole", None, "cancelled", None),
    ("drop_in_a_cycle", "whole", None, "cancelled", None),
]
SYNC = [
    *(Case(globals()[way], *rest) for way, *rest in BOTH),  # type: ignore[arg-type]
    Case(never_read_and_dropped, "whole", None, "cancelled", None),
]
ASYNC = [
    *(Case(globals()[f"a{way}"], *rest) for way, *rest in BOTH),  # type: ignore[arg-type]
    Case(acancel_in_source, "some", CANCELLED, "cancelled", asyncio.CancelledError),
    Case(acancel_in_body, "whole", None, "cancelled", asyncio.CancelledError),
    Case(acancel_without_with, "whole", None, "cancelled", None),
]


def named(case: object) -> str | None:
    if not isinstance(case, Case):
        return None
    told = getattr(case.told, "__name__", repr(case.told))
    return f"{case.read.__name__}-{case.items}-{told}-{case.status}"


def items_of(case: Case, form: Form) -> list[object]:
    if case.items == "whole":
        return form.whole
    return [*form.whole[: form.some], *([form.refused] if case.items == "refused" else [])]


def arguments_of(case: Case, form: Form) -> list[int]:
    takes_a_number = case.read.__code__.co_argcount == 2
    return [form.some] if takes_a_number else []


def assert_one_end(ends: list[StreamEnd], case: Case) -> None:
    [end] = ends
    assert end.status == case.status
    if isinstance(case.told, BaseException) or case.told is None:
        assert end.error is case.told
    else:
        assert type(end.error) is case.told
    content = content_of(end.completion)
    if end.status == "complete":
        assert end.completion.to_dict() == WHOLE
    elif "never" in case.read.__name__:
        assert content is None
    else:
        assert content == "Grüße"
    kinds = [problem.kind for problem in end.problems]
    assert kinds == (["server_error"] if end.status == "failed" else [])


def assert_seen(seen: BaseException | None, case: Case) -> None:
    if "raise" in case.read.__name__ or "error" in case.read.__name__:
        assert seen is BODY_ERROR
    elif "cancel" in case.read.__name__:
        assert type(seen) is asyncio.CancelledError
    else:
        assert seen is case.error
        if seen is not None:
            assert traceback.extract_tb(seen.__traceback__)[-1].name == "__next__"
            assert traceback.extract_tb(seen.__traceback__)[-1].filename.endswith("streamed.py")
    if seen is not None:
        seen.__traceback__ = seen.__context__ = None  # they keep the stream alive


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("case", SYNC, ids=named)
def test_each_way_out_is_one_end(case: Case, form: Form) -> None:
    ends: list[StreamEnd] = []
    source = Source(items_of(case, form), case.error)
    seen = None
    try:
        case.read(
            lambda: wrap(source, framing=form.framing, on_end=ends.append),
            *arguments_of(case, form),
        )
    except BaseException as error:
        seen = error
    assert_seen(seen, case)
    gc.collect()
    assert source.closed == 1
    assert_one_end(ends, case)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("case", ASYNC, ids=named)
def test_each_way_out_is_one_end_async(case: Case, form: Form) -> None:
    ends: list[StreamEnd] = []

    async def run() -> None:
        source = AsyncSource(items_of(case, form), case.error)
        seen = None
        try:
            await case.read(
                lambda: wrap(source, framing=form.framing, on_end=ends.append),
                *arguments_of(case, form),
            )
        except BaseException as error:
            seen = error
        assert_seen(seen, case)
        gc.collect()
        for _ in range(10):  # the event loop closes what was dropped
            await asyncio.sleep(0)
        assert source.closed == 1
        assert_one_end(ends, case)

    asyncio.run(run())


def test_what_accumulating_raises_is_the_error_of_the_end() -> None:
    bad: list[tuple[list[object], Limits, bool, type[Exception], str]] = [
        ([*CHUNKS[:2], CHUNKS[1] | {"choices": [{"index": 5}]}], Limits(choices=1), False,
         LimitExceededError, "truncated"),
        ([b"data: {\n\n", BODY], Limits(), True, DecodeError, "truncated"),
        ([*CHUNKS, {"choices": 3}], Limits(), False, DecodeError, "complete"),
        ([*CHUNKS[:2], 3], Limits(), False, TypeError, "truncated"),
    ]  # fmt: skip
    for items, limits, strict, error, status in bad:
        for way in exhaust, lambda make: stop_and_close(make, len(items)):  # noqa: B023
            ends: list[StreamEnd] = []
            way(lambda: wrap(items, limits=limits, strict=strict, on_end=ends.append))  # noqa: B023
            [end] = ends
            assert (end.status, type(end.error)) == (status, error)


# --- on_end itself ---


class CallbackError(Exception):
    """Raised by `on_end`."""


def failing(end: StreamEnd) -> None:
    raise CallbackError(end.status)


class BadlyClosing(Source):
    """Cannot be closed without an error."""

    def close(self) -> None:
        super().close()
        raise CLOSING


class AsyncBadlyClosing(AsyncSource):
    async def close(self) -> None:
        await super().close()
        raise CLOSING


CLOSING = RuntimeError("closing failed")
# Of the errors there are, the one that reaches the caller.
ERRORS: list[tuple[BaseException | None, bool, str, type[BaseException]]] = [
    (None, False, "exhaust", CallbackError),
    (None, False, "stop_and_close", CallbackError),
    (None, False, "stop_in_with", CallbackError),
    (None, False, "close_a_generator_around", CallbackError),
    (RESET, False, "exhaust", OSError),
    (RESET, False, "exhaust_in_with", OSError),
    (None, False, "raise_in_with", BodyError),
    (None, True, "exhaust", RuntimeError),
    (None, True, "stop_and_close", RuntimeError),
    (RESET, True, "exhaust", OSError),
    (None, True, "raise_in_with", BodyError),
]


@pytest.mark.parametrize(("error", "badly", "way", "seen"), ERRORS)
def test_an_error_in_on_end_hides_no_other_one(
    error: BaseException | None,
    badly: bool,
    way: str,
    seen: type[BaseException],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dropped: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", dropped.append)
    arguments = [] if "exhaust" in way else [1]

    async def run() -> None:
        source = (AsyncBadlyClosing if badly else AsyncSource)(CHUNKS[:2], error)
        reader = globals()[f"a{way}"]
        await reader(lambda: wrap(source, on_end=failing), *arguments)
        for _ in range(10):
            await asyncio.sleep(0)

    def run_sync() -> None:
        source = (BadlyClosing if badly else Source)(CHUNKS[:2], error)
        globals()[way](lambda: wrap(source, on_end=failing), *arguments)

    runs = [run_sync] if "generator" in way else [run_sync, lambda: asyncio.run(run())]
    for each in runs:
        caplog.clear()
        dropped.clear()
        if "generator" in way:  # closed by the collector, where no caller is
            each()
            assert [type(unraisable.exc_value) for unraisable in dropped] == [seen]
        else:
            with pytest.raises(seen) as caught:
                each()
            assert error is None or caught.value is error
            assert dropped == []
        logged = [record.exc_info[0] for record in caplog.records if record.exc_info]
        assert logged == ([] if seen is CallbackError else [CallbackError])
        assert {record.name for record in caplog.records} <= {"accumulator"}


def test_an_error_in_closing_is_the_error_of_the_end_if_it_is_the_only_one() -> None:
    ends: list[StreamEnd] = []
    for error in None, RESET:
        with pytest.raises((RuntimeError, OSError)):
            exhaust(lambda: wrap(BadlyClosing(CHUNKS, error), on_end=ends.append))  # noqa: B023
    assert [end.error for end in ends] == [CLOSING, RESET]
    assert {end.status for end in ends} == {"complete"}


def test_an_error_in_on_end_of_a_dropped_stream_is_unraisable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dropped: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", dropped.append)
    drop(lambda: wrap(CHUNKS, on_end=failing), 1)
    asyncio.run(adrop(lambda: wrap(AsyncSource(CHUNKS), on_end=failing), 1))
    assert [type(unraisable.exc_value) for unraisable in dropped] == [CallbackError] * 2


def test_on_end_is_called_when_the_source_is_closed() -> None:
    closed: list[int] = []
    source, asource = Source(CHUNKS), AsyncSource(CHUNKS)
    stop_in_with(lambda: wrap(source, on_end=lambda end: closed.append(source.closed)), 1)
    async_stop = astop_in_with(
        lambda: wrap(asource, on_end=lambda end: closed.append(asource.closed)), 1
    )
    asyncio.run(async_stop)
    assert closed == [1, 1]


class AsyncCallable:
    async def __call__(self, *args: object) -> None: ...


@pytest.mark.parametrize("on_end", [AsyncCallable(), AsyncCallable().__call__])
def test_an_on_end_to_be_awaited_is_a_type_error(on_end: OnEnd) -> None:
    with pytest.raises(TypeError, match="not awaited"):
        wrap(CHUNKS, on_end=on_end)


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

class Source:
    def __init__(self, name): self.name, self.left = name, 2
    def __iter__(self): return self
    def __next__(self):
        return {"choices": [{"index": 0, "delta": {"content": self.name}}]}
    def close(self): print("closed", self.name)

async def agen():
    try:
        while True:
            yield {"choices": [{"index": 0, "delta": {"content": "async"}}]}
    finally:
        await asyncio.sleep(0)
        print("closed async")

def begin(name):
    stream = wrap(
        Source(name),
        on_end=lambda end: print(name, end.status, end.completion.choices[0].message.content),
    )
    next(stream)
    return stream

async def main():
    global held
    held = wrap(agen(), on_end=lambda end: print("async", end.status))
    await anext(held)

a_global = begin("global")
in_a_cycle = begin("cycle")
in_a_cycle.itself = in_a_cycle
sys.kept = begin("module")
asyncio.run(main())
"""


def test_streams_that_are_open_when_the_interpreter_exits_end() -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", AT_EXIT], capture_output=True, text=True, check=True
    )
    assert run.stderr == ""
    assert sorted(run.stdout.splitlines()) == sorted(
        [f"closed {name}" for name in ("async", "cycle", "global", "module")]
        + [f"{name} cancelled {name}" for name in ("cycle", "global", "module")]
        + ["async cancelled"]
    )


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
    command = [sys.executable, "-c", FORKED]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert sorted(run.stdout.splitlines()) == [
        "False the child's own",
        "True dropped",
        "True kept",
    ]


FAILING_AT_EXIT = """
from accumulator import wrap

def on_end(end):
    raise ValueError("at the end")

kept = wrap(iter([{}, {}]), on_end=on_end)
next(kept)
"""


def test_what_on_end_raises_at_exit_is_told() -> None:
    command = [sys.executable, "-c", FAILING_AT_EXIT]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "ValueError: at the end" in run.stderr


def test_logging_is_not_imported_for_nothing() -> None:
    code = "import sys, accumulator; print('logging' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
