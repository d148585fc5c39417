"""`reduce_sorted`: sorted rows in, one result a stream, the same as one accumulator each makes."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_conformance import CASES

from accumulator import Accumulator, AccumulatorError, LimitExceededError, Limits
from accumulator.batch import RecordedStream, StreamResult, UnsortedRowsError, reduce_sorted
from accumulator.limits import DEFAULT_LIMITS

TESTS = Path(__file__).parents[1]
Json = dict[str, object]


def a_chunk(text: str, finish: str | None = None) -> Json:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


def text_of(result: StreamResult) -> object:
    return result.completion.choices[0].message.content


def plainly(chunks: list[object], limits: Limits) -> StreamResult:
    """Feed chunks one by one, and write down what came of them."""
    acc = Accumulator(limits=limits)
    limit = None
    for chunk in chunks:
        try:
            acc.feed(chunk)
        except LimitExceededError as error:
            limit = error.limit
            break
    if limit is None:
        acc.close()
    return StreamResult(
        completion=acc.snapshot(),
        status="truncated" if acc.status == "open" else acc.status,
        problems=acc.problems,
        problem_counts=acc.problem_counts,
        limit=limit,
    )


def recorded_streams() -> Iterator[tuple[str, list[object]]]:
    """Return every shipped stream as the texts of its events."""
    for case in CASES:
        if case.chunks:
            yield case.name, [json.dumps(chunk).encode() for chunk in case.chunks]
    for path in sorted(TESTS.glob("recordings/*.sse")):
        lines = path.read_bytes().splitlines()
        yield path.stem, [line[5:].strip() for line in lines if line.startswith(b"data:")]


STREAMS = dict(recorded_streams())
LONG: list[object] = [
    *[json.dumps({"id": "c", "model": "m", **a_chunk(f"t{i} ")}).encode() for i in range(300)],
    json.dumps({"id": "c", "model": "m", **a_chunk("", finish="stop")}).encode(),
]
ODD_CHOICES: Json = {"choices": [{"index": i, "delta": {}} for i in range(5)]}
ODD: list[object] = [
    b"null",
    b"[DONE]",
    b'{"choices": [',
    b"\xff{}",
    b"",
    b'{"choices":\n[]}',
    b'{"error": {"message": "overloaded"}}',
    json.dumps(a_chunk("\ud83d")),
    json.dumps(a_chunk("\ude00")),
    a_chunk("of a mapping"),
    json.dumps(a_chunk("x", finish="stop")).encode(),
    json.dumps(ODD_CHOICES).encode(),
]


@pytest.mark.parametrize("name", STREAMS)
def test_a_shipped_stream_comes_to_what_one_accumulator_makes_of_it(name: str) -> None:
    chunks = STREAMS[name]
    [(id, result)] = reduce_sorted((name, seq, chunk) for seq, chunk in enumerate(chunks))
    assert id == name
    assert result == plainly(chunks, Limits())


def chunks_of(fields: str, count: int = 60) -> list[bytes]:
    """Return chunks that differ in one text, or in `N` as well."""
    texts = (f"t{place} " for place in range(count))
    return [
        fields.replace("TEXT", text).replace("N", str(place)).encode()
        for place, text in enumerate(texts)
    ]


CONTENT = '{"id":"c","choices":[{"index":0,"delta":{"content":"TEXT"}}]}'
CALL = '{"index":0,"function":{"arguments":"TEXT"}}'
OPENING = b'{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"x","function":{"name":"f"}}]}}]}'
FINISH = b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
# What waits is fed as one read, unless a line end within a text or a limit makes a difference.
IN_BULK: dict[str, list[bytes]] = {
    "content": [*chunks_of(CONTENT), FINISH],
    "two": chunks_of(CONTENT, 2),
    "a call": [OPENING, *chunks_of('{"choices":[{"delta":{"tool_calls":[' + CALL + "]}}]}")],
    "a vendor's number": chunks_of(CONTENT[:-1] + ',"vendor":N}'),
    "behind the finish reason": [FINISH, *chunks_of(CONTENT)],
    "behind the end": [*chunks_of(CONTENT, 30), b"[DONE]", *chunks_of(CONTENT)],
    "behind an error": [b'{"error":{"message":"overloaded"}}', *chunks_of(CONTENT)],
    "halves of a pair": [
        *chunks_of(CONTENT),
        *(CONTENT.replace("TEXT", half).encode() for half in ("\\ud83d", "\\ude00")),
        *chunks_of(CONTENT),
    ],
    "escapes": chunks_of(CONTENT.replace("TEXT", '\\"TEXT\\n\\u00e9é')),
    "broken UTF-8": [each.replace(b" ", b"\xff") for each in chunks_of(CONTENT)],
    "no JSON": [each[:-1] for each in chunks_of(CONTENT)],
    "spaced over lines": [each.replace(b",", b",\n") for each in chunks_of(CONTENT)],
    "strings of JSON, which are no chunks": [
        json.dumps(each.decode()).encode() for each in chunks_of(CONTENT)
    ],
    "half a string": [b'"abc'],
}


def reduced(chunks: Sequence[object], limits: Limits = DEFAULT_LIMITS) -> StreamResult:
    """Reduce the chunks of one stream."""
    [(_, result)] = reduce_sorted((("a", None, chunk) for chunk in chunks), limits=limits)
    return result


LIMITS = [Limits(), Limits(event_bytes=100), Limits(event_bytes=300), Limits(choices=1)]
SIZES = st.sampled_from([3, 20, 40, None])


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("name", IN_BULK)
def test_many_chunks_come_to_what_one_accumulator_makes_of_them(name: str, limits: Limits) -> None:
    assert reduced(IN_BULK[name], limits) == plainly(list(IN_BULK[name]), limits)


# Some of the chunks of each, and odd ones one by one.
RUNS = st.one_of(
    st.sampled_from(ODD).map(lambda chunk: [chunk]),
    st.builds(lambda name, most: IN_BULK[name][:most], st.sampled_from([*IN_BULK]), SIZES),
)


@given(st.lists(RUNS, min_size=1, max_size=5), st.integers(0, 99), st.sampled_from(LIMITS))
def test_any_chunks_come_to_what_one_accumulator_makes_of_them_behind_a_checkpoint_too(
    runs: list[list[object]], cut: int, limits: Limits
) -> None:
    chunks = [chunk for run in runs for chunk in run]
    expected = plainly(chunks, limits)
    assert reduced(chunks, limits) == expected
    stream = RecordedStream(Accumulator(limits=limits))
    for chunk in chunks[:cut]:
        stream.feed(chunk)
    stream = RecordedStream(Accumulator.restore(stream.checkpoint(), limits=limits))
    for chunk in chunks[cut:]:
        stream.feed(chunk)
    assert stream.finish() == expected


ENDS = [
    b"[DONE]",
    "data: [DONE]\n\n",
    b'data: {"choices":[]}\n\ndata: [DONE]',
    b'{"error":{"message":"overloaded"}}',
]


@pytest.mark.parametrize("end", ENDS)
def test_a_stream_tells_that_nothing_more_will_be_read(end: object) -> None:
    stream = RecordedStream(Accumulator())
    for chunk in chunks_of(CONTENT, 3):
        stream.feed(chunk)
    assert not stream.has_ended
    stream.feed(end)
    assert stream.has_ended


def test_a_body_past_a_limit_is_read_no_further() -> None:
    stream = RecordedStream(Accumulator(limits=Limits(total_bytes=1000)))
    body = b"".join(b"data: %b\n\n" % chunk for chunk in chunks_of(CONTENT, 40))
    for start in range(0, len(body), 600):
        stream.feed_body(body[start : start + 600])
    assert stream.has_ended
    result = stream.finish()
    assert result.limit == "total_bytes"
    assert str(text_of(result)).startswith("t0 t1 ")


def test_past_total_bytes_a_stream_ends_and_the_next_is_read() -> None:
    limits = Limits(total_bytes=4000)
    rows = [(id, seq, chunk) for id in "ab" for seq, chunk in enumerate(LONG)]
    results = dict(reduce_sorted(rows, limits=limits))
    for result in results.values():
        assert result.limit == "total_bytes"
        assert result.error is not None
        whole = plainly(LONG, Limits()).completion.choices[0].message.content
        assert isinstance(whole, str)
        assert whole.startswith(str(text_of(result)))
        assert len(str(text_of(result))) > 50
    assert len(results) == 2


@pytest.mark.parametrize("form", ["bytes", "str", "mapping", "line", "line without a space", "raw"])
def test_a_chunk_may_come_in_any_form(form: str) -> None:
    chunk = a_chunk("Grüße", finish="stop")
    text = json.dumps(chunk)
    forms: dict[str, object] = {
        "bytes": text.encode(),
        "str": text,
        "mapping": chunk,
        "line": f"data: {text}\r\n",
        "line without a space": f"data:{text}".encode(),
        "raw": memoryview(text.encode()),
    }
    result = reduced([forms[form]])
    assert result == plainly([chunk], Limits())
    assert result.error is None


def test_the_lines_of_a_named_event_are_one_row() -> None:
    rows = ["data: " + json.dumps(a_chunk("x")), ": keep-alive", 'event: error\ndata: {"x": "y"}']
    result = reduced(rows)
    assert (result.status, text_of(result)) == ("failed", "x")


def test_a_row_may_hold_several_events() -> None:
    event = "data: " + json.dumps(a_chunk("x"))
    result = reduced([f"{event}\n\n{event}\n\ndata: [DONE]"])
    assert (result.status, text_of(result)) == ("complete", "xx")
    assert result.problem_counts == {"no_finish_reason": 1}


# The id, the number and the text of each row; the text and the repeats of each stream.
NUMBERED: dict[str, tuple[list[tuple[str, int | None, str]], list[tuple[str, int]]]] = {
    "a number again": (
        [("a", seq, text) for seq, text in zip([1, 1, 2, 3, 3, 3], "012345", strict=True)],
        [("023", 3)],
    ),
    "no number among others": (
        [("a", 5, "1"), ("a", None, "2"), ("a", 5, "1"), ("a", 6, "3"), ("b", 1, "4")],
        [("123", 1), ("4", 0)],
    ),
    "no numbers": ([("a", None, text) for text in "aabb"], [("aabb", 0)]),
}


@pytest.mark.parametrize(("rows", "expected"), NUMBERED.values(), ids=NUMBERED)
def test_a_repeated_number_is_dropped_and_counted(
    rows: list[tuple[str, int | None, str]], expected: list[tuple[str, int]]
) -> None:
    results = reduce_sorted((id, seq, a_chunk(text)) for id, seq, text in rows)
    assert [(text_of(each), each.repeats) for _, each in results] == expected


def test_rows_may_be_mappings() -> None:
    rows = [("a", 1, a_chunk("x")), ("a", 2, a_chunk("y")), ("b", 1, a_chunk("z"))]
    mappings = [{"id": id, "seq": seq, "chunk": chunk, "time": 7} for id, seq, chunk in rows]
    assert list(reduce_sorted(mappings)) == list(reduce_sorted(rows))
    assert list(reduce_sorted(map(list, rows))) == list(reduce_sorted(rows))  # type: ignore[arg-type]  # what engines hand out
    unnumbered = [{"id": id, "chunk": chunk} for id, _, chunk in rows]
    assert list(reduce_sorted(unnumbered)) == list(reduce_sorted(rows))
    with pytest.raises(TypeError, match=r"id, seq and chunk; this one has request, chunk$"):
        list(reduce_sorted([{"request": "a", "chunk": "{}"}]))


@pytest.mark.parametrize("row", ["seq", 7, ["a", 1]])
def test_what_is_no_row_is_named(row: object) -> None:
    with pytest.raises(TypeError, match=rf"^a row is .*, not {re.escape(repr(row))}$"):
        list(reduce_sorted([row]))  # type: ignore[arg-type]  # as a DataFrame has, names of columns


@pytest.mark.parametrize(("chunk", "problems"), [(None, {"invalid_chunk": 1}), ("null", {})])
def test_a_missing_chunk_is_a_problem_and_null_is_nothing(
    chunk: str | None, problems: dict[str, int]
) -> None:
    result = reduced([chunk, a_chunk("x", finish="stop")])
    assert result.problem_counts == problems
    assert (result.status, result.error is None) == ("complete", not problems)


UNSORTED: dict[str, tuple[list[tuple[object, object]], int]] = {
    "seq falls": ([("a", 1), ("a", 3), ("a", 2)], 3),
    "seqs of two types": ([("a", 1), ("a", "2")], 2),
    "id comes again": ([("a", 1), ("b", 1), ("a", 2)], 3),
    "ids descend": ([("b", 1), ("a", 1)], 2),
    "ids of two types": ([("a", 1), (2, 1)], 2),
    "a number falls behind rows without one": ([("a", 5), ("a", None), ("a", 1)], 3),
}


@pytest.mark.parametrize("case", UNSORTED)
def test_a_row_out_of_order_is_named(case: str) -> None:
    places, row = UNSORTED[case]
    with pytest.raises(UnsortedRowsError, match=f"^row {row}, id ") as raised:
        list(reduce_sorted((id, seq, a_chunk("x")) for id, seq in places))
    assert (raised.value.row, raised.value.id) == (row, places[row - 1][0])
    assert not isinstance(raised.value, AccumulatorError)


def test_grouped_rows_may_have_ids_in_any_order() -> None:
    rows = [(id, seq, a_chunk(id)) for id in "bca" for seq in (1, 2)]
    found = [(id, text_of(result)) for id, result in reduce_sorted(rows, grouped=True)]
    assert found == [("b", "bb"), ("c", "cc"), ("a", "aa")]


def test_what_is_no_chunk_raises_and_names_its_row() -> None:
    with pytest.raises(TypeError, match=r"^row 2, id 'a': a chunk is .*, not int$"):
        list(reduce_sorted([("a", 1, a_chunk("x")), ("a", 2, 7)]))


def test_it_reads_no_further_than_it_is_asked() -> None:
    read = []

    def rows() -> Iterator[tuple[str, int, Json]]:
        for id in "abc":
            read.append(id)
            yield id, 1, a_chunk(id)

    results = reduce_sorted(rows())
    assert read == []
    next(results)
    assert read == ["a", "b"]
