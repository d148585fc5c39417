"""Hostile servers: memory stays inside what `Limits` promises, work grows with what arrives.

Nothing here is timed. Where work could be quadratic, so much arrives that a quadratic reducer
would take many minutes; where memory could grow, tracemalloc counts it.
"""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import cast

import pytest
from attacks import (
    ATTACKS,
    TINY,
    Attack,
    Pieces,
    calls,
    choice,
    delta,
    event,
    many,
    parts,
    vendor_list,
)
from judged import assert_as_judged
from streamed import fed, read_all, read_whole

from accumulator import Accumulator, AccumulatorError, Limits, ServerError
from accumulator.completion import Message, Usage
from accumulator.errors import LimitExceededError

MIB = 1024 * 1024
# What docs/limits.md promises: the bytes held for each byte received, whatever it says ...
MOST_FOR_A_BYTE = 30
# ... and what it takes to hold 1024 calls, or 100 problems.
MOST_ANYHOW = 2 * MIB


# --- memory ---


@contextmanager
def traced() -> Iterator[Callable[[], tuple[int, int]]]:
    """Trace memory; gives a function that returns what is held now, and was at most."""
    gc.collect()
    tracemalloc.start()
    try:
        yield tracemalloc.get_traced_memory
    finally:
        tracemalloc.stop()


@pytest.mark.costs
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.what)
def test_what_is_endless_is_ended_by_a_limit(attack: Attack) -> None:
    limits = Limits(event_bytes=MIB // 8, total_bytes=MIB // 4)
    pieces = attack.pieces()
    if attack.limit == "depth":
        limits = Limits()
    acc = Accumulator(limits=limits)
    count = 0
    raised: LimitExceededError | None = None
    with traced() as memory:
        for piece in pieces:
            try:
                acc.feed_sse(bytes(bytearray(piece)))  # a read is bytes of its own
            except LimitExceededError as error:
                raised = error
                break
            count += len(piece)
        assert raised is not None
        assert raised.limit == attack.limit
        assert raised.partial == acc.snapshot()
        raised = None
        gc.collect()
        held, _ = memory()
    assert held <= MOST_FOR_A_BYTE * count + MOST_ANYHOW
    completion = acc.snapshot()
    assert len(completion.choices) <= 1024
    assert all(len(choice.message.tool_calls or ()) <= 1024 for choice in completion.choices)


@pytest.mark.costs
@pytest.mark.parametrize("size", [1, 2, 100])
def test_an_event_in_small_reads_is_held_once(size: int) -> None:
    acc = Accumulator()
    with traced() as memory:
        for _ in range(MIB // 2 // size):
            acc.feed_sse(bytes(bytearray(size)))
        held, _ = memory()
    assert held <= 3 * MIB // 2


@pytest.mark.costs
def test_text_is_held_once_and_a_snapshot_holds_it_once_more() -> None:
    fragment = event(delta(b'"content":"%s"' % (b"a" * 64 * 1024)))
    acc = Accumulator(limits=Limits(total_bytes=64 * MIB))
    with traced() as memory:
        with pytest.raises(LimitExceededError) as caught:  # noqa: PT012  # whichever passes it
            while True:
                acc.feed_sse(bytes(bytearray(fragment)))
        _, most = memory()
    assert caught.value.limit == "total_bytes"
    assert caught.value.partial is not None
    content = caught.value.partial.choices[0].message.content
    assert isinstance(content, str)
    assert len(content) > 63 * MIB
    assert most <= 3.5 * 64 * MIB


@pytest.mark.costs
def test_a_chunk_of_many_choices_is_bounded_by_its_bytes() -> None:
    text = b'{"choices":[' + b"{}," * (2 * MIB // 3) + b"{}]}"
    acc = Accumulator()
    with traced() as memory:
        with pytest.raises(LimitExceededError) as caught:
            acc.feed(text)
        _, most = memory()
    assert caught.value.limit == "choices"
    assert most <= 100 * len(text)
    ten_million = b'{"choices":[' + b"{}," * 10_000_000 + b"{}]}"
    with pytest.raises(LimitExceededError) as caught:
        acc.feed(ten_million)
    assert caught.value.limit == "event_bytes"


@pytest.mark.costs
def test_an_idle_accumulator_holds_a_kilobyte() -> None:
    Accumulator().feed_sse(b"")
    with traced() as memory:
        idle = [Accumulator() for _ in range(1000)]
        held, _ = memory()
    assert held <= 1024 * len(idle)


@pytest.mark.costs
@pytest.mark.parametrize(
    "fragment", ["a", "word", "\u3042", "\\u3042", "a longer piece of text, " * 3]
)
def test_a_stream_in_flight_holds_little_more_than_its_text(fragment: str) -> None:
    chunk = event(delta(b'"content":"%s"' % fragment.encode()))
    acc = Accumulator()
    with traced() as memory:
        for _ in range(1000):
            acc.feed_sse(chunk * 10)
        held, _ = memory()
    text = acc.snapshot().choices[0].message.content
    assert isinstance(text, str)
    assert held <= 1.5 * len(text.encode()) + 2048


# --- work ---

MANY = 100_000
flood = partial(many, times=MANY)
chunks = partial(flood, bytes, size=1)


def in_one_read(item: bytes, between: bytes = b"") -> Pieces:
    return lambda: iter([between.join(item % number for number in range(MANY)) + b"\n\n"])


def message(acc: Accumulator) -> Message:
    return acc.snapshot().choices[0].message


def content(acc: Accumulator) -> object:
    return message(acc).content


def counts(acc: Accumulator) -> object:
    return acc.problem_counts


def arguments(acc: Accumulator) -> list[int]:
    """Return the length of each call's arguments or input."""
    calls = message(acc).tool_calls or ()
    return [len(call.custom.input or "" if call.custom else call.arguments or "") for call in calls]


def names(acc: Accumulator) -> list[str]:
    return [call.name or "" for call in message(acc).tool_calls or ()]


def named(prefix: str) -> str:
    return "".join(f"{prefix}{number}" for number in range(MANY))


def count_of(field: str) -> Callable[[Accumulator], int]:
    return lambda acc: len(cast("list[object]", message(acc).extra[field]))


WHOLE = b'{"index":0,"id":"c","function":{"name":"f","arguments":"{}"}}'
TWICE = b'{"index":0,"id":"c","function":{"name":"f","arguments":"{}{}"}}'

TEXT = {"type": "text"}
CALL = b'{"index":0,"id":"c%d","function":{"name":"f","arguments":"{}"}}'
# The flood, and what is then in the result: nothing may be fast because it lost data.
FLOODS: dict[str, tuple[Pieces, Callable[[Accumulator], object], object]] = {
    "fragments of a call, each with a new id and name": (
        flood(calls, CALL.replace(b"{}", b"[[1],")), arguments, [5 * MANY]
    ),
    "fragments of a custom call, each with a new id and name": (
        flood(calls, b'{"index":0,"id":"c%d","custom":{"name":"f","input":"[[1],"}}'),
        arguments, [5] * MANY,  # a custom call is whole once it has input
    ),
    "arguments that look complete at each fragment": (
        flood(calls, CALL, first=TWICE), arguments, [4 + 2 * MANY]
    ),
    "arguments that are complete at each fragment": (flood(calls, CALL), arguments, [2] * MANY),
    "blanks after complete arguments": (
        flood(calls, b'{"index":0,"id":"c%d","function":{"arguments":"     "}}', first=WHOLE),
        arguments, [2 + 5 * MANY],
    ),
    "fragments without id and index, with a name": (
        flood(calls, b'{"x":%d,"function":{"name":"f","arguments":"[1]"}}'),
        lambda acc: set(arguments(acc)), {3},  # each a call, in the next list it says it again
    ),
    "a name repeated": (
        flood(calls, b'{"index":0,"x":%d,"function":{"name":"get_weather"}}'),
        lambda acc: set(names(acc)), {"get_weather"},
    ),
    "a name that grows": (
        flood(calls, b'{"index":0,"function":{"name":"n%d"}}'),
        lambda acc: sorted("".join(names(acc))), sorted(named("n")),
    ),
    "tiny calls": (flood(calls, TINY), arguments, [0] * MANY),
    "choices": (
        flood(lambda each: b'{"choices":[%s]}' % each, b'{"index":%d}'),
        lambda acc: len(acc.snapshot().choices), MANY,
    ),
    "a list by index": (flood(vendor_list, b'{"index":%d}'), count_of("x"), MANY),
    "reasoning details by index": (
        flood(lambda each: delta(b'"reasoning_details":[%s]' % each), b'{"index":%d,"text":"a"}'),
        count_of("reasoning_details"), MANY,
    ),
    "neighbouring text parts": (
        flood(parts, b'{"type":"text","text":"a%d"}'), content, (TEXT | {"text": named("a")},)
    ),
    "fields of a delta": (flood(delta, b'"x%d":1'), lambda acc: len(message(acc).extra), MANY),
    "fields of usage": (
        chunks(b'{"usage":{"x%d":1}}'),
        lambda acc: len((acc.snapshot().usage or Usage()).extra), MANY,
    ),
    "first halves of surrogate pairs, each in another field": (
        chunks(b'{"choices":[{"delta":{"x%d":"\\ud83d"}}]}'), counts, {"lone_surrogate": MANY}
    ),
    "surrogate pairs, each cut in two": (
        chunks(b'{"x":%d,"choices":[{"delta":{"content":"\\ude00\\ud83d"}}]}'),
        lambda acc: (len(str(content(acc))), counts(acc)), (MANY + 1, {"lone_surrogate": 2}),
    ),
    "problems": (
        chunks(b"{%d"),
        lambda acc: (len(acc.problems), counts(acc)), (100, {"malformed_json": MANY}),
    ),
    "another id in each chunk": (chunks(b'{"id":"c%d"}'), counts, {"id_changed": MANY - 1}),
    "chunks that lost their blank lines": (
        in_one_read(b'data: {"choices":[{"index":0,"delta":{"content":"a%d"}}]}\n'),
        content, named("a"),
    ),
    "lines that are no JSON": (in_one_read(b"data: {%d\n"), counts, {"malformed_json": 1}),
    "carriage returns": (
        lambda: (b'data: {"x%d":1}\r\r' % number for number in range(MANY)),
        lambda acc: len(acc.snapshot().extra), MANY,
    ),
    "events without data between others, in one read": (
        in_one_read(b'data: {"x":%d}', b"\n\ndata: \n\n"),
        lambda acc: acc.snapshot().extra, {"x": MANY - 1},
    ),
    "problems, in one read": (
        in_one_read(b'data: {"id":"c%d"}', b"\n\n"), counts, {"id_changed": MANY - 1}
    ),
    "a line of one byte a read": (
        lambda: (b"%d" % (number % 10) for number in range(5 * MANY)),
        lambda acc: acc.snapshot().to_dict(), {"object": "chat.completion", "choices": []},
    ),
}  # fmt: skip


@pytest.mark.costs
@pytest.mark.parametrize(("pieces", "found", "expected"), FLOODS.values(), ids=FLOODS)
def test_work_grows_with_what_arrives_and_not_with_its_square(
    pieces: Pieces, found: Callable[[Accumulator], object], expected: object
) -> None:
    acc = read_all(pieces(), limits=Limits(choices=None, tool_calls=None, total_bytes=None))
    assert found(acc) == expected


# --- values that break decoders ---


@pytest.mark.parametrize("index", [10**9, -1, 2**63, 10**30])
def test_an_index_is_a_key_and_no_position(index: int) -> None:
    fields = {"tool_calls": [{"index": index, "id": "a"}], "x": [{"index": index}]}
    text = json.dumps({"choices": [{"index": index, "delta": fields}]})
    [choice] = fed([text, text]).snapshot().choices
    assert choice.index == index
    assert len(choice.message.tool_calls or ()) == 1
    assert choice.message.extra == {"x": [{"index": index}]}


FIELDS: dict[str, bytes] = {
    "the chunk": b'{"x":%s}',
    "created": b'{"created":%s}',
    "usage": b'{"usage":{"prompt_tokens":%s,"completion_tokens":1}}',
    "an index": b'{"choices":[{"index":%s,"delta":{"content":"a"}}]}',
    "a call's index": b'{"choices":[{"delta":{"tool_calls":[{"index":%s,"id":"a"}]}}]}',
    "a logprob": b'{"choices":[{"logprobs":{"content":[{"token":"a","logprob":%s}]}}]}',
    "content": b'{"choices":[{"delta":{"content":%s}}]}',
    "an error": b'{"error":%s}',
    "a delta's field": b'{"choices":[{"delta":{"x":%s}}]}',
}
SOUND = ["18446744073709551616", "-9223372036854775809", "9" * 100, "1e308", "1e-999", "-0", "-0.0"]
SOUND += ["0." + "9" * 5000]
UNSOUND = ["1e999", "-1e999", "9" * 5000, "NaN", "Infinity", "-Infinity", "01", "1.", "0x1"]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("number", [*SOUND, *UNSOUND], ids=lambda value: value[:22])
def test_a_number_is_kept_or_its_chunk_is_malformed(field: str, number: str) -> None:
    """It is malformed if Python and JSON cannot both have it."""
    body = event(b'{"model":"m"}') + event(FIELDS[field] % number.encode())
    acc = read_whole(body)
    assert ("malformed_json" in acc.problem_counts) == (number in UNSOUND)
    completion = acc.snapshot()
    assert completion.model == "m"
    assert json.loads(completion.to_json()) == completion.to_dict()
    if field != "a logprob":  # it is a float, and rounds
        assert_as_judged(acc, body)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"id":"a","id":"b"}', {"id": "b"}),
        (b'{"x":1,"x":{"y":2}}', {"x": {"y": 2}}),
        (b'{"id":"a","id":null}', {}),
        (b'{"choices":[{"index":0}],"choices":[]}', {}),
        (b'{"usage":{"prompt_tokens":1,"prompt_tokens":2}}', {"usage": {"prompt_tokens": 2}}),
        (b'{"i\\u0064":"b","id":"c"}', {"id": "c"}),
    ],
)
def test_of_duplicate_keys_the_last_counts(text: bytes, expected: dict[str, object]) -> None:
    found = fed([text]).snapshot().to_dict()
    assert found == {"object": "chat.completion", "choices": [], **expected}


DEEP: dict[str, Callable[[bytes], bytes]] = {
    "the chunk": lambda value: event(b'{"x":%s}' % value),
    "no chunk": event,
    "a delta": lambda value: event(delta(b'"x":%s' % value)),
    "the content": lambda value: event(delta(b'"content":%s' % value)),
    "arguments": lambda value: event(calls(b'{"function":{"arguments":%s}}' % value)),
    "usage": lambda value: event(b'{"usage":%s}' % value),
    "logprobs": lambda value: event(choice(b'"logprobs":%s' % value)),
    "an error": lambda value: event(b'{"error":%s}' % value),
    "an error event": lambda value: b"event: error\ndata: " + value + b"\n\n",
    "an error line": lambda value: b"error: " + value + b"\n\n",
    "one of several lines": lambda value: b'data: {"x":1}\ndata: ' + value + b"\n\n",
}


@pytest.mark.parametrize("levels", [65, 300, 500, 1000, 3000, 100_000])
@pytest.mark.parametrize("bound", [64, None])
@pytest.mark.parametrize("place", DEEP.values(), ids=DEEP)
def test_nesting_is_a_limit_or_a_problem_and_never_a_crash(
    place: Callable[[bytes], bytes], bound: int | None, levels: int
) -> None:
    for value in (
        b"[" * levels + b"]" * levels,
        b'{"x":' * levels + b"1" + b"}" * levels,
        b"[" * levels,
        b'["\\ud83d",' + b"[" * levels + b"]" * levels + b"]",
        b'[{"text":' * (levels // 2) + b'"\\ud83d"' + b"}]" * (levels // 2),
    ):
        acc = Accumulator(limits=Limits(depth=bound))
        acc.feed_sse(event(b'{"model":"m"}'))
        try:
            acc.feed_sse(place(value))
            acc.close()
        except LimitExceededError as error:
            assert error.limit == "depth"
            assert bound is not None
        else:
            # Without a bound it may be shallow enough to be read.
            assert acc.problems or (bound is None and levels <= 1000)
        completion = acc.snapshot()
        assert completion.model == "m"
        assert json.loads(completion.to_json()) == completion.to_dict()
        for problem in acc.problems:
            str(problem)
        with pytest.raises(AccumulatorError):
            acc.completion()


def test_an_error_that_python_does_not_write_out_is_the_servers_error() -> None:
    acc = Accumulator()
    acc.feed({"choices": [], "error": 10**5000})  # more digits than `repr` gives
    with pytest.raises(ServerError, match="too long to be shown") as caught:
        acc.completion()
    assert caught.value.error == 10**5000
