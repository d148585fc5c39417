"""A vendor's fields are the same in the result, whichever decoder reads them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from judged import assert_as_judged
from regular import STREAMS, Streams, event, repeated
from streamed import fed, read_all

from accumulator._decode import shapes as _shapes

COUNT = 40


pytestmark = pytest.mark.usefixtures("no_shapes_of_other_tests")


def chunk(delta: object, **more: object) -> str:
    return json.dumps({"id": "a", "choices": [{"index": 0, "delta": delta}], **more})


def call(**fields: object) -> str:
    return chunk({"tool_calls": [{"index": 0, **fields}]})


def usage(count: int, **details: object) -> str:
    counts = {"prompt_tokens": 9, "completion_tokens": count, "prompt_tokens_details": details}
    return chunk({"content": "u"}, usage=counts)


PLACES: dict[str, Callable[[object], str]] = {
    "a chunk's field": lambda value: chunk({"content": "x"}, x=value),
    "a delta's field": lambda value: chunk({"content": "x", "x": value}),
    "a usage's field": lambda value: chunk({}, usage={"prompt_tokens": 1, "x": value}),
    "a call's field": lambda value: call(id="c", function={"name": "f"}, x=value),
    "content": lambda value: chunk({"content": value}),
    "moderation": lambda value: chunk({"content": "x"}, moderation={"x": value}),
}


def token(**fields: object) -> str:
    return chunk_of_choice(delta={"content": "t"}, logprobs={"content": [{"token": "t", **fields}]})


def chunk_of_choice(**fields: object) -> str:
    return json.dumps({"id": "a", "choices": [{"index": 0, **fields}]})


def of_chunk(name: str, value: object) -> str:
    return chunk({"content": "x"}, **{name: value})


def of_choice(name: str, value: object) -> str:
    return chunk_of_choice(delta={"content": "x"}, **{name: value})


def of_delta(name: str, value: object) -> str:
    return chunk({name: value})


# Fields of the API that get values of other types, each with what makes a chunk of the value.
OF_CHUNK = "created model object obfuscation error usage moderation extra misfits".split()
OF_CHOICE = "index finish_reason logprobs obfuscation text closing".split()
OF_DELTA = (
    "role content refusal reasoning reasoning_content reasoning_details tool_calls function_call"
    " audio annotations parts".split()
)
TYPED: dict[str, Callable[[object], str]] = {
    **{name: partial(of_chunk, name) for name in OF_CHUNK},
    **{f"choice.{name}": partial(of_choice, name) for name in OF_CHOICE},
    **{f"delta.{name}": partial(of_delta, name) for name in OF_DELTA},
    "call.index": lambda v: chunk({"tool_calls": [{"index": v, "function": {"arguments": "1"}}]}),
    "call.id": lambda v: call(id=v, function={"arguments": "1"}),
    "arguments": lambda v: call(function={"name": "f", "arguments": v}),
    "details.index": lambda v: chunk({"reasoning_details": [{"type": "t", "index": v}]}),
    "details.x": lambda v: chunk({"reasoning_details": [{"type": "t", "index": 0, "x": v}]}),
    "details without index": lambda v: chunk({"reasoning_details": [{"type": "t", "text": "x"}]}),
    "token.x": lambda v: token(x=v),
    "token.bytes": lambda v: token(bytes=v),
    "top_logprobs.x": lambda v: token(top_logprobs=[{"token": "t", "x": v}]),
    "usage.prompt_tokens": lambda v: chunk({}, usage={"prompt_tokens": v}),
    "usage.details.cached_tokens": lambda v: usage(1, cached_tokens=v),
}
ODD = [1.5, "x", True, [1], {"a": 1}, 7, "0", None, {}, [], False, "", [{"type": "text"}]]


# Streams in which a shape is met often enough to get Structs of its own, and then changes.
SHAPES: Streams = {
    "a usage's fields that come again": lambda i: usage(i, x_cached=i // 20),
    "a usage's details that stop coming": lambda i: usage(i, x_cached=i) if i < 20 else usage(i),
    "a call's field that comes again": [
        call(id="c", type="function", function={"name": "f", "arguments": ""}, x=["a"]),
        *[call(function={"arguments": "1"}, x=["a"]) for _ in range(COUNT)],
    ],
    "a function's field": lambda i: call(id="c", function={"name": "f", "x": [i // 9]}),
    "a field of audio": lambda i: chunk({"audio": {"id": "a", "data": "AAAA", "x": f"{i // 9}"}}),
    "a choice's field in each of several choices": lambda i: json.dumps(
        {
            "choices": [
                {"index": i % 2, "delta": {"content": "x"}, "x_a": {"n": i // 8}},
                {"delta": {"content": "y", "x_b": "z"}, "index": 2 + i % 3},
            ]
        }
    ),
    "a message to be dropped, with a number out of range": lambda i: json.dumps(
        {"choices": [{"delta": {"content": "x"}, "message": {"n": i}}]}
    ).replace(": 30}", ": 1e999}"),
    "a logprobs' field": lambda i: json.dumps(
        {"choices": [{"delta": {"content": "x"}, "logprobs": {"content": [], "x_n": [i % 3]}}]}
    ),
    "moderation that is no object any more": lambda i: chunk(
        {"content": "x"}, moderation={"flagged": i} if i < 30 else i
    ),
    "annotations that are no list any more": lambda i: chunk(
        {"content": "x", "annotations": [i] if i < 30 else i}
    ),
    "parts that are a number in the end": lambda i: chunk(
        {"content": [{"type": "text", "text": "x"}] if i < 30 else i}
    ),
    "a message that comes without its delta": lambda i: json.dumps(
        {"choices": [{"index": 0, "delta": {"content": "x"}, "message": {"content": "x"}}]}
        if i < 30
        else {"choices": [{"index": 0, "message": {"content": "x"}}]}
    ),
    "a name that no Struct's field can have": lambda i: chunk({"content": "x"}, **{'x"y\\': i}),
    "more names than a shape may have": lambda i: chunk(
        {"content": "x", **{f"x{n}": i for n in range(65)}}
    ),
    **{
        f"{where} nested as deep as is read typed, and deeper": [
            put(json.loads("[" * (7 + i % 3) + "]" * (7 + i % 3))) for i in range(COUNT)
        ]
        for where, put in PLACES.items()
    },
    **{f"{name}, of any type": [*map(put, 4 * ODD)] for name, put in TYPED.items()},
    **{
        f"{name}, always {odd!r}": [put(odd)] * COUNT
        for name, put in TYPED.items()
        for odd in ODD[:5]
    },
    "a legacy completion's object": [
        json.dumps({"object": kind, "choices": [{"index": 0, "text": "x"}]})
        for kind in [7, "text", ["x"]] * 9 + ["text_completion"]
    ],
    **{
        f"a field that stops coming for a while, and {what}": [
            odd if i in (9, 34) else chunk({"content": f"{i}"}, **{"x": 1} if i % 25 < 4 else {})
            for i in range(60)
        ]
        for what, odd in {
            "nothing else": chunk({"content": "y"}),
            "a refusal": chunk({"refusal": "r"}),
            "half a pair": '{"choices": [{"delta": {"content": "\\ud83d"}}]}',
            "broken JSON": '{"choices": [}',
            "no chunk": "[1]",
            "a null": chunk({"content": "y"}, x=None),
            "another field": chunk({"content": "y"}, z=1),
        }.items()
    },
    "a value too long to be compared with the next": lambda i: chunk(
        {"content": "x"}, x_long="é" * 40_000, x_short=i // 20
    ),
    "a value that is as it was before one that is too long": lambda i: chunk(
        {"content": "x"}, x="a" * (70_000 if i == 30 else 1)
    ),
}


ALL = repeated(SHAPES) | STREAMS


def reads(chunks: list[str]) -> Iterator[list[bytes]]:
    events = [event(text) for text in chunks]
    yield events
    yield [b"".join(events)]
    yield [b"".join(events[i : i + 7]) for i in range(0, len(events), 7)]


@pytest.mark.parametrize("chunks", ALL.values(), ids=ALL)
def test_the_second_reducer_agrees(chunks: list[str]) -> None:
    body = b"".join(map(event, chunks))
    for pieces in reads(chunks):
        assert_as_judged(read_all(pieces), body)


@pytest.mark.parametrize("most", [0, 1, 4])
def test_shapes_beyond_those_that_a_process_knows_are_read_all_the_same(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_shapes, "_MOST_SHAPES", most)
    for name in "abcdefgh":
        chunks = [chunk({"content": "x", f"x_{name}": f"{i}"}) for i in range(COUNT)]
        assert_as_judged(read_all(map(event, chunks)), b"".join(map(event, chunks)))
    assert len(_shapes._shapes) <= max(most, 1)
    assert len(_shapes._first_shapes) <= max(most, 1)


def test_fields_stand_by_name_whatever_a_process_read_before() -> None:
    def names(*fields: str) -> list[str]:
        acc = fed([chunk({"content": "x"}, **dict.fromkeys(fields, 1))])
        return list(acc.snapshot().extra)

    assert names("x_c", "x_a", "x_b") == ["x_a", "x_b", "x_c"]
    for fields in ("x_c",), ("x_c", "x_b"), ("x_c", "x_a", "x_b"), ("x_b", "x_a", "x_c"):
        for _ in range(COUNT):
            assert names(*fields) == sorted(fields)


@pytest.mark.parametrize("first", [b"", b'data: ""\n'])
def test_a_shape_does_not_take_a_line_of_another_api(first: bytes) -> None:
    for _ in range(COUNT):
        fed([chunk({"content": "x"}, type="completion")])
        read_all([b'data: "x"\n\nevent: x\ndata: {"choices": [], "type": "completion"}\n\n'])
    acc = read_all([first + b'data: {"type": "message_start"}\ndata: null\n\n'])
    assert acc.problem_counts == {"other_api": 1}
    assert not acc.snapshot().extra
