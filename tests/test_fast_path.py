"""SPEC law 6: the fast path has the results of the plain path, problem for problem."""

from __future__ import annotations

import gc
import json
import re
import tracemalloc
from collections.abc import Iterable
from functools import lru_cache
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged import assert_as_judged
from regular import IRREGULAR, ODD, REGULAR, STREAMS, event, text_chunk
from strategies import TEXTS
from strategies import cut as cuts_of
from streamed import cut, read_all, read_whole
from test_conformance import CASES, DONE, Case, cases_of_chunks, encode

from accumulator import DEFAULT_RULES, Accumulator, LimitExceededError, Limits
from accumulator.rules import Policy


def outcome(body: Iterable[bytes], *, shortcut: bool = True) -> tuple[object, ...]:
    acc = Accumulator(shortcut=shortcut)
    try:
        for data in body:
            acc.feed_sse(data)
    except LimitExceededError as error:
        return acc.snapshot(), str(error)
    acc.close()
    problems = [(p.kind, p.message, p.event, p.offset, p.path) for p in acc.problems]
    return acc.snapshot(), acc.status, problems, acc.problem_counts


@lru_cache(maxsize=512)
def plain(body: bytes) -> tuple[object, ...]:
    """Return what a body comes to without the fast path, which is the same in every cut."""
    return outcome([body], shortcut=False)


def assert_as_plain(body: bytes, *sizes: int) -> None:
    """Read a body in pieces of each size; all must come to the same as on the plain path."""
    for size in sizes:
        assert outcome(cut(body, size)) == plain(body), size


def body_of(chunks: Iterable[str]) -> bytes:
    return b"".join(map(event, chunks))


pytestmark = pytest.mark.usefixtures("no_shapes_of_other_tests", "learns_at_once")


# Reads of a few bytes are handled like reads of one.
@pytest.mark.many
@pytest.mark.parametrize(
    "size", [pytest.param(1, marks=pytest.mark.costs), 7, 100, 400, 1500, 4096, 10**9]
)
@pytest.mark.parametrize("name", STREAMS)
def test_regular_streams_come_out_the_same(name: str, size: int) -> None:
    body = body_of(STREAMS[name])
    assert_as_plain(body, size)
    for old, new in (b"data: ", b"data:"), (b"\n", b"\r\n"):
        body = body.replace(old, new)
        assert_as_plain(body, size)


# Rules that a template must heed before it appends: each changes what some stream here comes to.
ROWS: list[tuple[str, Policy]] = [
    ("delta.<object>.text", "last"),
    ("delta.<object>.thinking", "first"),
    ("delta.<object>.<string>", "concat"),
    ("delta.reasoning_details.text", "last"),
    ("delta.reasoning_details.<string>", "concat"),
    ("delta.reasoning_details", "extend"),
    ("delta.content", "last"),
    ("delta.reasoning", "first"),
    ("delta.refusal", "drop"),
    ("chunk.x_vendor", "concat"),
    ("chunk.<object>", "last"),
    ("chunk.<number>", "larger"),
    ("chunk.<number>", "first"),
    ("chunk.<string>", "first"),
    ("choice.<string>", "concat"),
    ("delta.<object>.<string>", "first"),
    ("chunk.x_vendor", "collect"),
    ("choice.<list>", "extend"),
    ("choice.<list>", "by_index"),
    ("chunk.created", "last"),
]


@pytest.mark.many
@pytest.mark.parametrize("row", ROWS, ids=" ".join)
@pytest.mark.parametrize(
    "name", [*REGULAR, *(pytest.param(name, marks=pytest.mark.costs) for name in IRREGULAR)]
)
def test_other_rules_hold_on_the_fast_path(name: str, row: tuple[str, Policy]) -> None:
    rules = DEFAULT_RULES.replace(dict([row]))
    reads = [*cut(body_of(STREAMS[name]), 1500)]
    ways = [read_all(reads, rules=rules, shortcut=shortcut) for shortcut in (True, False)]
    assert ways[0].snapshot() == ways[1].snapshot()
    assert ways[0].problems == ways[1].problems


@pytest.mark.many
@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_freed_without_the_garbage_collector(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = [*cut(body_of(STREAMS[name]), 1500), *ODD, b"data: [1]\n\n"]
    # Making the Structs of a shape leaves cycles: all are made before.
    monkeypatch.setattr("accumulator._decode.shapes._WORTHWHILE", 1)
    for _ in range(3):
        outcome(reads, shortcut=False)
    gc.disable()
    gc.freeze()  # what was there before is not looked at, which would take long
    try:
        outcome(reads, shortcut=False)
        assert gc.collect() == 0
    finally:
        gc.unfreeze()
        gc.enable()


def test_an_object_among_the_bytes_has_its_turn() -> None:
    ways = [Accumulator(shortcut=shortcut) for shortcut in (True, False)]
    for acc in ways:
        for chunk in STREAMS["text"][:60]:
            acc.feed_sse(event(chunk))
            if len(acc.snapshot().to_json()) % 3 == 0:
                acc.feed(json.loads(text_chunk("!")))
    assert ways[0].snapshot() == ways[1].snapshot()
    assert "!" in str(ways[0].snapshot().choices[0].message.content)


# For streams that a template fits, a sixth of the pairs are tried on every Python and all on one;
# for the commonest, all on every one; for those that no template fits, a third on one.
EVERYWHERE = ["text", "padding", "vendor", "reasoning that comes in details, too"]
EVERYWHERE += ["thinking in parts", "arguments beside a counter"]
PAIRS = [
    pytest.param(
        name,
        odd,
        marks=[]
        if name in EVERYWHERE or (name in REGULAR and (row + column) % 6 == 0)
        else [pytest.mark.costs],
        id=f"{name}, odd event {column}",
    )
    for row, name in enumerate(STREAMS)
    for column, odd in enumerate(ODD)
    if name in REGULAR or (row + column) % 3 == 0
]


@pytest.mark.parametrize(("name", "odd"), PAIRS)
def test_an_odd_event_in_a_regular_stream_comes_out_the_same(name: str, odd: bytes) -> None:
    events = [event(chunk) for chunk in STREAMS[name]]
    events[40:40] = [odd]
    body = b"".join(events)
    assert outcome(events) == plain(body)
    assert_as_plain(body, 1000, 4096)


def beside_content(field: str) -> tuple[str, str]:
    """Return what to replace in a chunk, and by what, to have a field after its text."""
    return '},"logprobs"', f',{field}}},"logprobs"'


FIELDS = [f'"{name}":5' for name in ("__dict__", "__slots__", "__del__", "__annotations__")]
INTEGERS = [f'"span_id":{number}' for number in (12345678901234567890, 2**64)]
# What a server may send, though it means nothing: what is replaced in its chunks.
LEGAL: dict[str, tuple[str, str]] = {
    "choices twice": ('"choices":', '"choices":null,"choices":'),
    "logprobs twice": ('"logprobs":', '"logprobs":null,"logprobs":'),
    **{field: beside_content(field) for field in [*FIELDS, *INTEGERS]},
}


@pytest.mark.parametrize("change", LEGAL.values(), ids=LEGAL)
@pytest.mark.parametrize("name", ["text", "logprobs", "padding", "choices in turn"])
def test_odd_but_legal_chunks_come_out_the_same_and_can_be_kept(
    name: str, change: tuple[str, str]
) -> None:
    reads = [event(chunk.replace(*change, 1)) for chunk in REGULAR[name]]
    assert reads[9] != event(REGULAR[name][9])
    expected = plain(b"".join(reads))
    assert outcome(reads) == outcome([b"".join(reads)]) == expected
    assert expected[3] == {}
    acc = Accumulator()
    for read in reads:
        acc.feed_sse(read)
        acc = Accumulator.restore(acc.checkpoint())
    assert acc.snapshot() == expected[0]


def test_a_process_keeps_nothing_of_long_constant_strings() -> None:
    size = 1 << 17

    def stream(letter: str) -> list[bytes]:
        role = beside_content(f'"role":"{letter * size}"')
        return [event(chunk.replace(*role, 1)) for chunk in REGULAR["logprobs"][:40]]

    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for letter in "abcdefghijklmnop":
            outcome(stream(letter))
        assert tracemalloc.get_traced_memory()[0] - before < size
    finally:
        tracemalloc.stop()


# What ends an event, a string or a line where none should end, or looks like part of a template.
BITS = [
    *(b"\n", b"\r", b"\n\n", b"\r\r", b"\n\r", b"\r\n\r\n", b"\\", b"\x7f", b"\xc3", b'","'),
    *(b"%c" % letter for letter in b'{}[],:"0a \x00'),
]


def assert_as_plain_after_each(reads: Iterable[bytes]) -> None:
    ways = Accumulator(), Accumulator(shortcut=False)
    for read in reads:
        for acc in ways:
            acc.feed_sse(read)
        quick, plain = ((acc.snapshot(), acc.problems, acc._pipeline.log.event) for acc in ways)
        assert quick == plain


def edges(event: bytes) -> st.SearchStrategy[int]:
    """Draw where something of a JSON text begins or ends."""
    return st.sampled_from([match.start() for match in re.finditer(rb'["{}[\],:]', event)])


@given(
    st.sampled_from(sorted(STREAMS)), st.sampled_from([b"\n", b"\r\n"]), st.booleans(), st.data()
)
def test_a_damaged_stream_stands_the_same_after_each_read(
    name: str, line_end: bytes, tight: bool, data: st.DataObject
) -> None:
    events = [event(chunk).replace(b"\n", line_end) for chunk in STREAMS[name]]
    if tight:
        events = [each.replace(b"data: ", b"data:") for each in events]
    for place in data.draw(st.lists(st.integers(20, len(events) - 1), min_size=1, max_size=3)):
        whole = events[place]
        start = data.draw(st.integers(0, len(whole)))
        kept = whole[start + data.draw(st.integers(0, 3)) :]
        events[place] = whole[:start] + data.draw(st.sampled_from(BITS)) + kept
    if data.draw(st.booleans()):  # a piece of an event moves into another
        source, target = data.draw(st.permutations(range(30, 40)))[:2]
        start, end = sorted(data.draw(st.tuples(*[edges(events[source])] * 2)))
        piece = events[source][start:end]
        events[source] = events[source][:start] + events[source][end:]
        place = data.draw(edges(events[target]))
        events[target] = events[target][:place] + piece + events[target][place:]
    size = data.draw(st.sampled_from([700, 1500, 4096]))
    assert_as_plain_after_each(cut(b"".join(events), size))


# Complete events that do not fit, at the end of a read of events that do.
PADDED, OPEN = event(text_chunk("a", padding="b")), event(text_chunk("a").replace("]", ""))
LAST: dict[str, bytes] = {
    "ended by CRs": PADDED[:-2] + b"\r\r",
    "ended by a CR and a CRLF": PADDED[:-2] + b"\r\r\n",
    "ended by an LF and a CR": PADDED[:-1] + b"\r",
    "without a bracket": PADDED.replace(b"]", b""),
    "without a bracket, ended by CRLFs": OPEN.replace(b"\n", b"\r\n"),
    "a comment": b": x\n\n",
    "a bracket": b"]\n\n",
    "a blank line": b"\n",
}


@pytest.mark.parametrize("last", LAST.values(), ids=LAST)
@pytest.mark.parametrize("name", ["text", "padding", "choices in turn", "usage"])
def test_a_whole_event_does_not_wait_behind_those_that_fit(name: str, last: bytes) -> None:
    chunks = REGULAR[name]
    reads = body_of(chunks[:30]), body_of(chunks[30:]) + last, b"data: {", b'"id":7}\n\n'
    assert_as_plain_after_each(reads)


@given(st.data())
def test_texts_of_any_kind_come_out_the_same(data: st.DataObject) -> None:
    paddings = st.sampled_from([None, "p", ""])
    drawn = st.one_of(
        st.builds(text_chunk, TEXTS),
        st.builds(text_chunk, TEXTS, st.integers(0, 2), paddings),
        st.sampled_from([chunk for stream in STREAMS.values() for chunk in stream[:5]]),
    )
    chunks = data.draw(st.lists(drawn, max_size=30))
    repeated = [chunk for chunk in chunks for _ in range(data.draw(st.integers(1, 4)))]
    body = body_of(repeated)
    expected = outcome([body], shortcut=False)
    assert outcome(data.draw(cuts_of(body))) == expected
    assert outcome([event(chunk) for chunk in repeated]) == expected


def test_recordings_come_out_the_same(corpus_stream: Path) -> None:
    assert_as_plain(corpus_stream.read_bytes(), 300, 4096, 10**9)


def test_conformance_cases_come_out_the_same() -> None:
    for case in CASES:
        escaped = body_of(DONE if chunk == DONE else json.dumps(chunk) for chunk in case.chunks)
        for body in (case.data, escaped):
            assert_as_plain(body, 64, 10**9)


def call_chunk(index: int, arguments: str, **call: object) -> str:
    fragment = {"index": index, **call, "function": {"arguments": arguments}}
    return json.dumps({"choices": [{"index": 0, "delta": {"tool_calls": [fragment]}}]})


# What each call of a stream sends as its arguments, piece by piece.
PIECES: dict[str, list[str]] = {
    "flat": ['{"a": "', *["word "] * 40, '"}'],
    "nested": ['{"a": [', *['{"b": [1', "]", "}", ", "] * 20, "0]}"],
    "a list": ["[", *["[1]", ", "] * 20, "2]"],
    "whole and then more": ['{"a": "', *["word "] * 40, '"}', *["more"] * 40],
    "whole again and again": ["{}", *['{"a": 1}'] * 40],
    "whole and blanks": ["[1", "]", *[" "] * 40, "x", *[" "] * 40],
    "a placeholder": ["{}", '{"a": "', *["word "] * 40, '"}'],
    "placeholders alone": ["{}"] * 40,
    "null": ["nu", "ll", *["x"] * 40],
    "nulls": ["null"] * 40,
    "no JSON": ["abcd"] * 40,
    "brackets in strings": ['{"a": "', *["}", "]", '{"', "}{", '\\"}'] * 10, '"}', "}", "x"],
}


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("size", [None, 300, 1500, 4096, 10**9])
@pytest.mark.parametrize("name", PIECES)
def test_arguments_come_out_the_same(name: str, size: int | None, padded: bool) -> None:
    """Whether they are whole depends on all that came, not on what a rehearsal saw."""
    chunks: list[str] = []
    for index in range(3):
        chunks.append(call_chunk(index, "", id=f"call_{index}", type="function"))
        chunks += [call_chunk(index, piece) for piece in PIECES[name]]
    # Two calls in turn, the first of which has become whole.
    chunks += [call_chunk(index, "word") for _ in range(40) for index in (1, 2)]
    if padded:
        padding = (f', "obfuscation": "{"p" * (i % 5)}"}}' for i in count())
        chunks = [chunk[:-1] + next(padding) for chunk in chunks]
    body = body_of(chunks)
    reads = [event(chunk) for chunk in chunks] if size is None else [*cut(body, size)]
    assert outcome(reads) == plain(body)
    assert_as_judged(read_all(reads), body)


@pytest.mark.many
@cases_of_chunks
def test_cases_come_out_the_same_when_they_go_on(case: Case) -> None:
    chunks = [chunk for chunk in case.chunks if chunk != DONE]
    body = b"".join(event(encode(chunk)) for chunk in chunks for _ in range(30))
    assert_as_plain(body, 500, 4096)
    assert_as_judged(read_whole(body), body)


@pytest.mark.parametrize("held", range(1, 8))
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_an_event_comes_with_the_read_that_completes_it(line_end: bytes, held: int) -> None:
    chunk = event(text_chunk("word")).replace(b"\n", line_end)
    acc = Accumulator()
    for times in range(1, 40):
        acc.feed_sse(chunk + chunk[:-held])
        acc.feed_sse(chunk[-held:])
        assert acc.snapshot().choices[0].message.content == "word" * 2 * times


@pytest.mark.parametrize("step", [1, -1], ids=["in turn", "out of turn"])
@pytest.mark.parametrize("count", range(8))
def test_a_fragment_without_index_goes_to_the_call_whose_turn_was_last(
    count: int, step: int
) -> None:
    calls = REGULAR["calls in turn"]
    calls = [*calls, *calls[3:]]
    reads = [body_of(calls[i : i + 10]) for i in range(0, 110, 10)]
    reads.append(body_of(calls[110 : 110 + count][::step]))
    reads.append(event(calls[10].replace('"index":1,"function"', '"function"')))
    assert reads[-1] != event(calls[10])
    assert outcome(reads) == plain(b"".join(reads))


@pytest.mark.parametrize("count", [10, 40])
def test_the_bytes_of_all_reads_are_counted_on_the_fast_path(count: int) -> None:
    chunk = event(text_chunk("word"))
    acc = Accumulator(limits=Limits(total_bytes=len(chunk) * count))
    for _ in range(count):
        acc.feed_sse(chunk)
    with pytest.raises(LimitExceededError, match="total_bytes"):
        acc.feed_sse(chunk)
    assert acc.snapshot().choices[0].message.content == "word" * count


def test_a_read_longer_than_an_event_may_be_is_looked_at_event_by_event() -> None:
    body = body_of(REGULAR["text"])
    acc = read_all([*cut(body, 900), *cut(body, 4096)], limits=Limits(event_bytes=1000))
    assert acc.snapshot() == plain(body * 2)[0]
