"""SPEC section 1: a chunk may be any object, and is read as the JSON that it would be."""

from __future__ import annotations

import enum
import json
from types import MappingProxyType, SimpleNamespace

import attrs
import msgspec
import pytest

from accumulator import Accumulator, LimitExceededError, Limits
from accumulator._decode.chunk import AudioFragment, Choice, Chunk, Delta


class Role(enum.Enum):
    ASSISTANT = "assistant"


class Reason(str, enum.Enum):
    STOP = "stop"


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Real(float):
    pass


class StructDelta(msgspec.Struct):
    content: str
    vendor: list[int]


@attrs.define
class SlottedBase:
    index: int


@attrs.define
class SlottedChoice(SlottedBase):
    delta: object
    finish_reason: object = None


def with_delta(delta: object, **choice: object) -> dict[str, object]:
    return {"id": "a", "choices": [{"index": 0, "delta": delta, **choice}]}


def with_token(**fields: object) -> dict[str, object]:
    token = {"token": "t", "logprob": -1.0, **fields}
    return with_delta({"content": "t"}, logprobs={"content": [token]})


# The chunk, and the JSON that it is read as.
SAME: dict[str, tuple[object, object]] = {
    "a mapping that is no dict": (
        MappingProxyType(with_delta(MappingProxyType({"content": "x"}))),
        with_delta({"content": "x"}),
    ),
    "a Struct": (
        with_delta(StructDelta("x", [1, 2])),
        with_delta({"content": "x", "vendor": [1, 2]}),
    ),
    "slots, those of the base included": (
        SimpleNamespace(id="a", choices=[SlottedChoice(3, {"content": "x"}, "stop")]),
        {"id": "a", "choices": [{"index": 3, "delta": {"content": "x"}, "finish_reason": "stop"}]},
    ),
    "private attributes are no fields": (
        SimpleNamespace(id="a", choices=[], _raw={"id": "b"}),
        {"id": "a", "choices": []},
    ),
    "a tuple": (
        {"id": "a", "choices": ({"index": 0, "delta": {"content": ("x", {"type": "image"})}},)},
        with_delta({"content": ["x", {"type": "image"}]}),
    ),
    "an enum of a known field": (
        with_delta({"role": Role.ASSISTANT}, finish_reason=Reason.STOP),
        with_delta({"role": "assistant"}, finish_reason="stop"),
    ),
    "an enum of a vendor's field": (
        with_delta({"v": Role.ASSISTANT}),
        with_delta({"v": "assistant"}),
    ),
    "a string's subclass": (with_delta({"content": Text("x")}), with_delta({"content": "x"})),
    "a number's subclass": (
        with_delta({"v": [Whole(3), Real(0.5)]}),
        with_delta({"v": [3, 0.5]}),
    ),
    "our own chunk, whose audio is decoded": (
        Chunk(id="a", choices=[Choice(0, Delta(audio=AudioFragment(data=b"\x00\x01")))]),
        with_delta({"audio": {"data": "AAE="}}),
    ),
}


@pytest.mark.parametrize(("chunk", "value"), SAME.values(), ids=SAME)
def test_an_object_is_read_as_the_json_that_it_would_be(chunk: object, value: object) -> None:
    by_object, by_text = Accumulator(), Accumulator()
    by_object.feed(chunk)
    by_text.feed(json.dumps(value))
    assert by_object.problems == by_text.problems == ()
    assert by_object.snapshot().to_json() == by_text.snapshot().to_json()
    json.loads(by_object.snapshot().to_json())


# The chunk, what is wrong about it and where; what is in the result in spite of it.
ODD: dict[str, tuple[object, str, str | None, object]] = {
    "a name that is no string": (
        with_delta({1: "x"}),
        "invalid_chunk",
        None,
        [],
    ),
    "bytes": (with_delta({"v": b"x"}), "invalid_chunk", None, []),
    "a set": (with_delta({"v": {1}}), "invalid_chunk", None, []),
    "a function": (with_delta({"v": len}), "invalid_chunk", None, []),
    "bytes of a token that are no integers": (
        with_token(bytes=["x"]),
        "invalid_field",
        "$.choices[0].logprobs.content[0].bytes",
        {"token": "t", "logprob": -1.0, "bytes": ["x"]},
    ),
    "bytes of a token that are integers as floats": (
        with_token(bytes=[116.0]),
        "invalid_field",
        "$.choices[0].logprobs.content[0].bytes",
        {"token": "t", "logprob": -1.0, "bytes": [116]},
    ),
    "half a character in a token's vendor's field": (
        with_token(v="\ud83d"),
        "lone_surrogate",
        None,
        {"token": "t", "logprob": -1.0, "v": "\ufffd"},
    ),
}


@pytest.mark.parametrize(("chunk", "kind", "path", "token"), ODD.values(), ids=ODD)
def test_what_json_has_not_is_a_problem(
    chunk: object, kind: str, path: str | None, token: object
) -> None:
    acc = Accumulator()
    acc.feed(chunk)
    assert [(problem.kind, problem.path) for problem in acc.problems] == [(kind, path)]
    found = acc.snapshot().to_dict()["choices"]
    assert isinstance(found, list)
    tokens = [token for choice in found for token in choice["logprobs"]["content"]]
    assert tokens == ([token] if token else [])


def nested(levels: int) -> SimpleNamespace:
    value = SimpleNamespace(choices=[])
    for _ in range(levels):
        value = SimpleNamespace(choices=[], x=value)
    return value


def circular() -> SimpleNamespace:
    value = SimpleNamespace(choices=[])
    value.x = value
    return value


@pytest.mark.parametrize("chunk", [nested(100_000), circular()], ids=["nested", "circular"])
def test_objects_without_end_are_a_limit_or_a_problem(chunk: object) -> None:
    acc = Accumulator()
    with pytest.raises(LimitExceededError, match="depth"):
        acc.feed(chunk)
    acc = Accumulator(limits=Limits(depth=None))
    acc.feed(chunk)
    assert [problem.kind for problem in acc.problems] == ["invalid_chunk"]
