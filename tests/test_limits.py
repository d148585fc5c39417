"""A server cannot make an accumulator hold more than its limits allow."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable
from types import MappingProxyType, SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import FRAGMENTS
from streamed import Chunk, cut, delta

from accumulator import Accumulator, DecodeError, IncompleteStreamError, LimitExceededError, Limits


def chunk(**fields: object) -> Chunk:
    return delta(fields)


def call(index: int, **fields: object) -> Chunk:
    return chunk(tool_calls=[{"index": index, "id": f"call_{index}", **fields}])


def both(*chunks: Chunk) -> Chunk:
    """Return a chunk with the choices of others."""
    return {
        "choices": [choice for each in chunks for choice in cast("list[Chunk]", each["choices"])]
    }


TWO_CALLS: Chunk = {
    "choices": [{"index": 1, "delta": {"tool_calls": [{"index": 0}, {"index": 1, "id": "b"}]}}]
}


def nested(levels: int, around: Callable[[object], object] = lambda value: {"x": value}) -> object:
    value: object = 1
    for _ in range(levels):
        value = around(value)
    return value


def sse(chunk: object) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


FEEDS: dict[str, Callable[[Accumulator, object], None]] = {
    "feed": lambda acc, chunk: acc.feed(chunk),
    "feed text": lambda acc, chunk: acc.feed(json.dumps(chunk)),
    "feed_sse": lambda acc, chunk: acc.feed_sse(sse(chunk)),
    "feed_line": lambda acc, chunk: acc.feed_line(json.dumps(chunk)),
}


@pytest.mark.parametrize("feed", FEEDS.values(), ids=FEEDS)
@pytest.mark.parametrize(
    ("limits", "within", "beyond", "name"),
    [
        (Limits(choices=1), chunk(content="a"), {"choices": [{"index": 7}]}, "choices"),
        (Limits(choices=1), chunk(content="a"), {"choices": [{}, {}]}, "choices"),
        (Limits(tool_calls=1), call(0), call(1), "tool_calls"),
        (Limits(tool_calls=1), call(0), both(call(0), call(1)), "tool_calls"),
        (
            Limits(tool_calls=1),
            chunk(content="a"),
            both({"choices": [{"index": 0}]}, TWO_CALLS),
            "tool_calls",
        ),
        (Limits(tool_calls=5), chunk(role="a"), both(*map(call, range(6))), "tool_calls"),
        (Limits(depth=20), {"x": nested(19)}, {"x": nested(20)}, "depth"),
        (Limits(total_bytes=120), chunk(content="a" * 20), chunk(content="a" * 120), "total_bytes"),
    ],
)
def test_what_passes_a_limit_raises_and_changes_nothing(
    feed: Callable[[Accumulator, object], None],
    limits: Limits,
    within: object,
    beyond: object,
    name: str,
) -> None:
    acc = Accumulator(limits=limits)
    feed(acc, within)
    before = acc.snapshot()
    with pytest.raises(LimitExceededError) as caught:
        feed(acc, beyond)
    assert caught.value.limit == name
    assert caught.value.bound == getattr(limits, name)
    assert caught.value.partial == before == acc.snapshot()
    assert acc.problems == ()
    if name == "total_bytes" and feed is FEEDS["feed_sse"]:
        return  # the beginning of a body was read, and nothing can follow it
    feed(acc, {"model": "still open"})
    assert acc.snapshot().model == "still open"


TEN = sse(chunk(content="a")) * 10


@pytest.mark.parametrize(
    ("body", "passes"),
    [
        (TEN, True),
        (TEN.replace(b"\n", b"\r\n"), True),
        (sse(chunk(content="a")) + b"data: [DONE]\n\n" + TEN, False),
        (sse(chunk(content="a")) + sse({"error": {"message": "no"}}) + TEN, False),
    ],
)
def test_total_bytes_are_the_same_events_however_a_body_is_cut(body: bytes, passes: bool) -> None:
    found = []
    for size in (1, 7, 64, len(body)):
        acc = Accumulator(limits=Limits(total_bytes=200))
        error = None
        try:
            for start in range(0, len(body), size):
                acc.feed_sse(body[start : start + size])
        except LimitExceededError as exceeded:
            error = exceeded.limit, exceeded.partial
        found.append((error, acc.snapshot(), acc.status, acc.problems))
    assert found == [found[0]] * 4
    assert (found[0][0] is not None) is passes


@pytest.mark.parametrize("feed", FEEDS.values(), ids=FEEDS)
def test_a_stream_is_restored_with_fewer_bytes_than_it_has(
    feed: Callable[[Accumulator, object], None],
) -> None:
    acc = Accumulator()
    acc.feed_sse(TEN)
    acc = Accumulator.restore(acc.checkpoint(), limits=Limits(total_bytes=20))
    with pytest.raises(LimitExceededError, match="total_bytes"):
        feed(acc, chunk(content="a"))
    assert acc.snapshot().choices[0].message.content == "a" * 10


@pytest.mark.parametrize("before", [[], ["id: 1"]])
def test_a_line_of_too_many_bytes_is_not_applied_by_its_blank_line(before: list[str]) -> None:
    acc = Accumulator(limits=Limits(event_bytes=90))
    raised = 0
    for line in [*before, f"data: {json.dumps(chunk(content='a' * 90))}", ""]:
        try:
            acc.feed_line(line)
        except LimitExceededError as error:
            raised += error.limit == "event_bytes"
    assert raised
    assert acc.snapshot() == Accumulator().snapshot()
    for line in ['data: {"model": "still open"}', ""]:
        acc.feed_line(line)
    assert acc.snapshot().model == "still open"


FRAGMENTS_OF_CALLS = st.lists(FRAGMENTS.filter(lambda each: each.get("index") != "0"), max_size=3)


@given(st.lists(st.lists(FRAGMENTS_OF_CALLS, min_size=1, max_size=2), min_size=1, max_size=6))
def test_calls_are_refused_if_they_would_be_too_many_and_only_then(
    chunks: list[list[list[dict[str, object]]]],
) -> None:
    bounded, free = Accumulator(limits=Limits(tool_calls=2)), Accumulator()
    for lists in chunks:
        event = {"choices": [{"index": 0, "delta": {"tool_calls": calls}} for calls in lists]}
        free.feed(event)
        if len(free.snapshot().choices[0].message.tool_calls or ()) > 2:
            with pytest.raises(LimitExceededError):
                bounded.feed(event)
            return
        bounded.feed(event)
        assert bounded.snapshot() == free.snapshot()


ENDLESS = {
    "one line": [b"data: " + b"x" * 200],
    "one line in pieces": [b"data: " + b"x" * 60, b"x" * 60],
    "one event of many lines": [b"data: 1\n"] * 20,
    "comments": [b": comment\r\n"] * 20,
    "a whole event": [b"data: " + b"x" * 120 + b"\n\n"],
    "a read that is one chunk": [sse({"x": "x" * 120})],
}


@pytest.mark.parametrize("pieces", ENDLESS.values(), ids=ENDLESS)
def test_an_endless_event_is_bounded(pieces: list[bytes]) -> None:
    acc = Accumulator(limits=Limits(event_bytes=100))
    acc.feed_sse(sse({"model": "m"}))
    with pytest.raises(LimitExceededError, match="event_bytes=100"):  # noqa: PT012  # any of them
        for piece in pieces:
            acc.feed_sse(piece)
    assert acc.snapshot().model == "m"
    if not pieces[0].endswith(b"\n\n"):
        with pytest.raises(LimitExceededError, match="event_bytes=100"):
            acc.feed_sse(b"x")  # what waits is still as long


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("lines", [[], [b": comment"] * 4, [b"id: 7", b": x"]])
def test_an_event_is_as_long_however_it_is_cut(lines: list[bytes], end: bytes) -> None:
    long = end.join([*lines, b"data: " + json.dumps(chunk(content="b" * 50)).encode(), b"", b""])
    body = sse(chunk(content="a")) + long + sse(chunk(content="c"))
    for bound in range(len(long) - 4, len(long) + 4):
        passed = {}
        for size in (1, 2, 3, 7, 64, len(body) - 1, len(body)):
            acc = Accumulator(limits=Limits(event_bytes=bound))
            try:
                for data in cut(body, size):
                    acc.feed_sse(data)
            except LimitExceededError:
                passed[size] = acc.snapshot().choices[0].message.content
        assert passed == ({} if bound >= len(long) else dict.fromkeys(passed, "a"))
        assert len(passed) in (0, 7)


@pytest.mark.parametrize("more", [b"", sse(chunk(content="c")), None])
def test_events_behind_one_that_passes_a_limit_are_read_by_the_next_call(
    more: bytes | None,
) -> None:
    acc = Accumulator(limits=Limits(choices=1))
    body = sse(chunk(content="a")) + sse({"choices": [{"index": 9}]}) + sse(chunk(content="b"))
    with pytest.raises(LimitExceededError):
        acc.feed_sse(body)
    if more is None:
        acc.close()
    else:
        acc.feed_sse(more)
    assert acc.snapshot().choices[0].message.content == ("abc" if more else "ab")


def test_what_a_limit_refused_is_missing_and_completion_says_so() -> None:
    acc = Accumulator(limits=Limits(choices=1))
    acc.feed(chunk(content="a"))
    with pytest.raises(LimitExceededError):
        acc.feed({"choices": [{"index": 9}]})
    acc.feed({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    for each in (acc, Accumulator.restore(acc.checkpoint(), limits=Limits(choices=1))):
        for _ in range(2):
            with pytest.raises(LimitExceededError, match="choices=1") as caught:
                each.completion()
            assert caught.value.partial == acc.snapshot()


@pytest.mark.parametrize("feed", FEEDS.values(), ids=FEEDS)
def test_what_a_limit_refused_was_not_seen(feed: Callable[[Accumulator, object], None]) -> None:
    """A vendor's value that is the same in each chunk is not read again, unless it was refused."""
    acc = Accumulator(limits=Limits(choices=1))
    for _ in range(20):
        feed(acc, {"x": "old", **chunk(content="a")})
    with pytest.raises(LimitExceededError):
        feed(acc, {"x": "new", "choices": [{"index": 9, "delta": {"content": "a"}}]})
    feed(acc, {"x": "new", **chunk(content="a")})
    assert acc.snapshot().extra == {"x": "new"}


NESTED: dict[str, Callable[[object], object]] = {
    "dicts": lambda value: {"x": value},
    "lists": lambda value: [value],
    "tuples": lambda value: (value,),
    "mappings": lambda value: MappingProxyType({"x": value}),
    "objects": lambda value: SimpleNamespace(x=value),
}


@pytest.mark.parametrize("nest", NESTED.values(), ids=NESTED)
@pytest.mark.parametrize("bound", [None, 64])
def test_depth_is_counted_in_values_of_any_class(
    nest: Callable[[object], object], bound: int | None
) -> None:
    acc = Accumulator(limits=Limits(depth=bound))
    value = nested(300, nest)
    if bound is None:
        acc.feed({"x": value})
        assert acc.problem_counts == {"invalid_chunk": 1}
    else:
        with pytest.raises(LimitExceededError, match="depth=64"):
            acc.feed({"x": value})
    assert acc.snapshot().extra == {}


def test_a_stack_that_is_nearly_used_up_makes_a_chunk_invalid_and_raises_nothing() -> None:
    acc = Accumulator(limits=Limits(depth=None))
    value = nested(190, lambda value: (value,))

    def feed_below(frames: int) -> None:
        if frames:
            feed_below(frames - 1)
        else:
            acc.feed({"x": value})

    feed_below(sys.getrecursionlimit() - len(inspect.stack(0)) - 100)
    assert acc.problem_counts == {"invalid_chunk": 1}
    acc.feed({"x": value})
    assert len(acc.snapshot().extra) == 1


def test_a_last_event_that_passes_a_limit_raises_from_close_which_closes() -> None:
    acc = Accumulator(limits=Limits(choices=1))
    acc.feed_sse(sse(chunk(content="a")) + sse({"choices": [{"index": 9}]}).rstrip(b"\n"))
    with pytest.raises(LimitExceededError, match="choices=1") as caught:
        acc.close()
    assert caught.value.partial == acc.snapshot()
    assert acc.status == "truncated"
    acc.close()


def test_the_first_problem_that_loses_something_is_kept_whatever_its_number() -> None:
    acc = Accumulator()
    choice = {"index": 0, "delta": {"role": 5}}
    for position in range(300):  # one problem with a path of its own a chunk
        acc.feed({"choices": [{"index": 0}] * position + [choice]})
    for odd in (b"[1]", b"{", b"[2]"):
        acc.feed(odd)
    acc.feed({"choices": [{"finish_reason": "stop"}]})
    with pytest.raises(DecodeError) as caught:
        acc.completion()
    problem = caught.value.problem
    assert problem is not None
    assert (problem.kind, problem.event) == ("invalid_chunk", 301)
    assert str(caught.value) == str(problem)
    assert [each.kind for each in acc.problems] == ["invalid_field"] * 100 + ["invalid_chunk"]
    assert acc.problem_counts == {"invalid_field": 300, "invalid_chunk": 2, "malformed_json": 1}


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "1"])
def test_a_limit_is_a_positive_integer_or_none(value: int) -> None:
    with pytest.raises(ValueError, match="positive integer"):
        Limits(choices=value)


def test_none_is_no_limit() -> None:
    acc = Accumulator(
        limits=Limits(event_bytes=None, choices=None, tool_calls=None, total_bytes=None)
    )
    acc.feed({"choices": [{"index": i} for i in range(2000)]})
    acc.feed(chunk(tool_calls=[{"index": i} for i in range(2000)]))
    assert len(acc.snapshot().choices) == 2000
    with pytest.raises(IncompleteStreamError):
        acc.completion()
