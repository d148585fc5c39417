"""SPEC section 1: a chunk may be any object, and is read as the JSON that it would be."""

from __future__ import annotations

import copy
import enum
import json
from collections.abc import Iterable
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import parse
from regular import STREAMS as REGULAR_STREAMS
from regular import text_chunk
from strategies import ODD_STREAMS, STREAMS
from streamed import fed
from test_conformance import CASES, Case

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


def with_call(**fields: object) -> dict[str, object]:
    return with_delta({"tool_calls": [{"index": 0, **fields}]})


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
    "a number's subclass": (with_delta({"v": [Whole(3), Real(0.5)]}), with_delta({"v": [3, 0.5]})),
    "a known number's subclass": (
        with_delta({}, index=Whole(1), logprobs={"content": [{"logprob": Real(-0.5)}]}),
        with_delta({}, index=1, logprobs={"content": [{"logprob": -0.5}]}),
    ),
    "our own chunk, whose audio is decoded": (
        Chunk(id="a", choices=[Choice(0, Delta(audio=AudioFragment(data=b"\x00\x01")))]),
        with_delta({"audio": {"data": "AAE="}}),
    ),
}


FROZEN = MappingProxyType({"v": 1})
# Mappings that are no dicts, in a dict.
HELD: dict[str, tuple[object, object]] = {
    "a choice": ({"choices": [FROZEN]}, {"choices": [{"v": 1}]}),
    "a delta": (with_delta(FROZEN), with_delta({"v": 1})),
    "a usage": ({"choices": [], "usage": FROZEN}, {"choices": [], "usage": {"v": 1}}),
    "logprobs": (with_delta({}, logprobs=FROZEN), with_delta({}, logprobs={"v": 1})),
}


@pytest.mark.parametrize(("chunk", "value"), [*SAME.values(), *HELD.values()], ids=[*SAME, *HELD])
def test_an_object_is_read_as_the_json_that_it_would_be(chunk: object, value: object) -> None:
    by_object, by_text = fed([chunk]), fed([json.dumps(value)])
    assert by_object.problems == by_text.problems == ()
    assert by_object.snapshot().to_json() == by_text.snapshot().to_json()
    json.loads(by_object.snapshot().to_json())


def as_models(chunk: object) -> object:
    """Return the object that openai's client makes of a chunk, without validating it."""
    pytest.importorskip("openai", reason="an SDK that is installed for the tests only")
    from openai._models import construct_type  # noqa: PLC0415
    from openai.types.chat import ChatCompletionChunk  # noqa: PLC0415

    return construct_type(type_=ChatCompletionChunk, value=copy.deepcopy(chunk))


def assert_read_alike(chunks: Iterable[object]) -> Accumulator:
    """Feed objects; compare what comes of them when each is read field by field."""
    at_once, by_field = Accumulator(), Accumulator()
    by_field._reducer._decoder.is_off = True
    for chunk in chunks:
        before = repr(chunk)
        at_once.feed(chunk)
        by_field.feed(chunk)
        assert repr(chunk) == before
    for acc in at_once, by_field:
        acc.close()
    assert at_once.snapshot() == by_field.snapshot()
    assert as_problems(at_once) == as_problems(by_field)
    assert at_once._pipeline.tally.size == by_field._pipeline.tally.size
    return at_once


def assert_read_as_json(chunks: list[object]) -> None:
    by_object, by_text = assert_read_alike(chunks), fed(map(json.dumps, chunks))
    assert by_object.snapshot() == by_text.snapshot()
    assert (by_object.status, as_problems(by_object)) == (by_text.status, as_problems(by_text))
    assert_read_alike(map(as_models, chunks))  # openai's client changes what it validates


def as_problems(acc: Accumulator) -> list[object]:
    return [(problem.kind, problem.path, problem.event) for problem in acc.problems]


# What may come between fragments of a text or of a call's arguments, and looks like one.
FRAGMENT: dict[str, object] = {"index": 0, "function": {"arguments": "1, "}}
NEARLY: dict[str, dict[str, object]] = {
    "a text": with_delta({"content": "é"}),
    "half a character": with_delta({"content": "\ud83d"}),
    "an empty text": with_delta({"content": ""}),
    "a thought": with_delta({"content": None, "reasoning_content": "é"}),
    "half a character of a thought": with_delta({"reasoning_content": "\ud83d"}),
    "a thought beside a text": with_delta({"content": "", "reasoning_content": "x"}),
    "a thought that is a number": with_delta({"reasoning_content": 1}),
    "a thought and a finish reason": with_delta({"reasoning_content": "x"}, finish_reason="stop"),
    "a text beside one null": with_delta({"content": "x"}, finish_reason=None),
    "a thought beside nulls": with_delta({"reasoning_content": "x"}, logprobs=None, v=None),
    "a text beside a message and an error that are null": with_delta(
        {"content": "x"}, message=None, error=None, finish_reason=None
    ),
    "arguments": with_call(**FRAGMENT),
    "arguments beside nulls": with_call(**FRAGMENT, id=None, type=None, custom=None, v=None),
    "arguments of no call": with_call(**{**FRAGMENT, "index": 7}),
    "a fragment that is no list": with_delta({"tool_calls": FRAGMENT}),
    "two fragments": with_delta({"tool_calls": [FRAGMENT, FRAGMENT]}),
    "a fragment with an id": with_call(**FRAGMENT, id="call_2"),
    "a fragment with a vendor's field": with_call(**FRAGMENT, v=1),
    "an index that is true": with_call(**{**FRAGMENT, "index": True}),
    "a function that is a text": with_call(**{**FRAGMENT, "function": "x"}),
    "another choice": {"id": "a", "choices": [{"index": 1, "delta": {"content": "x"}}]},
    "two choices": {"id": "a", "choices": [{"index": i, "delta": {}} for i in (0, 1)]},
    "a choice that is a text": {"id": "a", "choices": ["x"]},
    "a delta that is a text": with_delta("x"),
    "a text and a role": with_delta({"content": "x", "role": "user"}),
    "a vendor's text": with_delta({"v": "x"}),
    "a refusal": with_delta({"refusal": "x"}),
    "a number": with_delta({"content": 1}),
    "another id": {**with_delta({"content": "x"}), "id": "b"},
    "a time that is a float": {**with_delta({"content": "x"}), "created": 1.0},
    "a time that is true": {**with_delta({"content": "x"}), "created": True},
    "usage": {**with_delta({"content": "x"}), "usage": {"total_tokens": 1}},
    "a vendor's field": {**with_delta({"content": "x"}), "v": 1},
    "padding": {**with_delta({"content": "x"}), "obfuscation": "abc"},
    "a finish reason": with_delta({"content": "x"}, finish_reason="stop", logprobs=None),
    "a vendor's field of the choice": with_delta({"content": "x"}, v=1),
    "another model": {**with_delta({"content": "x"}), "model": "other"},
    "an index that is a float": with_delta({"content": "x"}, index=0.0),
    "half a character beside nulls": with_delta(
        {"content": "\ud83d"}, logprobs=None, finish_reason=None
    ),
    "half a character in a role": with_delta({"role": "\ud83d", "content": "a"}),
    "calls that are a text": with_delta({"tool_calls": ""}),
    "no choices": {"id": "a", "choices": []},
    "choices that are a text": {"id": "a", "choices": ""},
}


@pytest.mark.many
@pytest.mark.parametrize("name", REGULAR_STREAMS)
def test_a_stream_of_objects_is_read_as_its_json(name: str) -> None:
    chunks = [json.loads(chunk) for chunk in REGULAR_STREAMS[name]]
    usual = json.loads(text_chunk("a"))
    mixed = chunks[:20]
    for odd in [*NEARLY.values(), {"error": "overloaded"}]:
        mixed += [usual | odd, *chunks[20:23]]
    assert_read_as_json(mixed)


@pytest.mark.parametrize("padding", [{}, {"obfuscation": "x"}], ids=["bare", "padded"])
@pytest.mark.parametrize("nearly", NEARLY.values(), ids=NEARLY)
def test_what_is_nearly_a_fragment_is_read_as_its_json(
    nearly: dict[str, object], padding: dict[str, object]
) -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "["}}
    opening = with_delta({"role": "assistant", "content": "a", "tool_calls": [call]})
    thought = with_delta({"reasoning_content": "c"})
    usual = [with_delta({"content": "b"}), with_delta({"tool_calls": [FRAGMENT]}), thought]
    usual = [each | padding for each in usual]
    for first in ([], [nearly]):
        chunks = (opening, *first, *usual, *usual, nearly, *usual)
        assert_read_as_json([{"created": 1, **each} for each in chunks])


def test_the_characters_of_fragments_count() -> None:
    acc = Accumulator(limits=Limits(total_bytes=12))
    chunk = {"created": 1, **with_delta({"content": "x"})}  # two characters with its id
    for _ in range(6):
        acc.feed(chunk)
    with pytest.raises(LimitExceededError, match="total_bytes"):
        acc.feed(chunk)
    assert acc.snapshot().choices[0].message.content == "xxxxxx"


BYTES = "$.choices[0].logprobs.content[0].bytes"
# The chunk, what is wrong about it and where; what is nevertheless in the result.
ODD: dict[str, tuple[object, str, str | None, dict[str, object]]] = {
    "a name that is no string": (with_delta({1: "x"}), "invalid_chunk", None, {}),
    "bytes": (with_delta({"v": b"x"}), "invalid_chunk", None, {}),
    "a set": (with_delta({"v": {1}}), "invalid_chunk", None, {}),
    "a function": (with_delta({"v": len}), "invalid_chunk", None, {}),
    "bytes of a token that are no integers": (
        with_token(bytes=["x"]), "invalid_field", BYTES, {"bytes": ["x"]}
    ),
    "bytes of a token that are integers as floats": (
        with_token(bytes=[116.0]), "invalid_field", BYTES, {"bytes": [116]}
    ),
    "half a character in a token's vendor's field": (
        with_token(v="\ud83d"), "lone_surrogate", None, {"bytes": None, "v": "\ufffd"}
    ),
}  # fmt: skip


@pytest.mark.parametrize(("chunk", "kind", "path", "token"), ODD.values(), ids=ODD)
def test_what_json_has_not_is_a_problem(
    chunk: object, kind: str, path: str | None, token: dict[str, object]
) -> None:
    acc = fed([chunk])
    assert as_problems(acc) == [(kind, path, 1)]
    found: Any = acc.snapshot().to_dict()["choices"]
    tokens = [token for choice in found for token in choice["logprobs"]["content"]]
    assert tokens == ([{"token": "t", "logprob": -1.0, **token}] if token else [])


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
    with pytest.raises(LimitExceededError, match="depth"):
        fed([chunk])
    acc = fed([chunk], limits=Limits(depth=None))
    assert [problem.kind for problem in acc.problems] == ["invalid_chunk"]


# --- at once, or field by field -----------------------------------------------------------


def assert_each_alike(chunks: Iterable[object]) -> None:
    for chunk in chunks:
        if isinstance(chunk, dict) and 1 not in chunk:
            assert_read_alike([chunk])
            assert_read_alike([as_models(chunk)])
            if "choices" in chunk:
                assert_read_alike([SimpleNamespace(**chunk)])
        elif hasattr(chunk, "choices"):
            assert_read_alike([chunk])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_chunks_of_the_cases_are_read_as_field_by_field(case: Case) -> None:
    assert_each_alike(case.chunks)


@pytest.mark.many
def test_recorded_chunks_are_read_as_field_by_field(corpus_stream: Path) -> None:
    lines = corpus_stream.read_text("utf-8", "replace").splitlines()
    assert_each_alike(parse(line.removeprefix("data:")) for line in lines)


@given(st.one_of(STREAMS, ODD_STREAMS))
def test_any_chunks_are_read_as_field_by_field(chunks: list[object]) -> None:
    assert_each_alike(chunks)


def with_top(tokens: object) -> dict[str, object]:
    return {**TOKEN, "top_logprobs": tokens}


DETAIL = {"type": "t", "text": "x", "index": 0}
TOKEN = {"token": "t", "logprob": -1.0, "bytes": [116]}
CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}
# Nothing is odd about them, as a mapping or as openai's object.
USUAL: dict[str, dict[str, object]] = {
    "a role and a kind": {**with_delta({"role": "assistant", "content": "x"}), "object": "c"},
    "no delta": {"id": "a", "choices": [{"index": 0, "finish_reason": "stop"}]},
    "usage": {"choices": [], "usage": {"prompt_tokens": 1, "prompt_tokens_details": {}}},
    "a vendor's usage": {"usage": {"cost": 0.1, "completion_tokens_details": {"image_tokens": 1}}},
    "a call": with_call(**CALL),
    "a call without most": with_call(function={"arguments": ""}),
    "a custom call": with_call(custom={"input": "x"}),
    "a vendor's field of a call": with_call(**CALL, extra_content={"a": 1}),
    "a vendor's field of a function": with_call(function={"name": "f", "strict": True}),
    "logprobs": with_delta({}, logprobs={"content": [with_top([TOKEN, TOKEN])], "refusal": None}),
    "logprobs without the likeliest": with_delta({}, logprobs={"refusal": [TOKEN]}),
    "logprobs whose likeliest are null": with_delta({}, logprobs={"content": [with_top(None)]}),
    "a vendor's field of a token": with_token(v=1),
    "a vendor's fields of logprobs": with_token(v=1, top_logprobs=[{**TOKEN, "w": [2]}]),
    "an integer of more than 64 bits beside logprobs": with_delta(
        {"span_id": 2**64, "content": "x"}, logprobs={"content": [TOKEN]}
    ),
    "reasoning": with_delta({"reasoning": "x", "reasoning_content": "y"}),
    "details of reasoning": with_delta({"reasoning_details": [{**DETAIL, "id": None}]}),
    "a vendor's field beside details of reasoning": with_delta(
        {"reasoning_details": [DETAIL], "v": {"w": "x"}}
    ),
    "a vendor's list": with_delta({"reasoning_details": [{"text": "x", "index": 0, "b": [None]}]}),
    "a vendor's fields everywhere": {"v": 1, **with_delta({"v": True, "a": None}, v={"w": "x"})},
    "a vendor's fields called as ours": with_delta({"extra": 1, "parts": [2]}, extra={"a": 1}),
    "beyond ASCII": with_delta({"content": "\U0001f600", "é": "東"}),
    "audio": with_delta({"audio": {"data": "AAE="}}),
    "parts": with_delta({"content": ["x"]}),
    "annotations": with_delta({"annotations": [{"type": "x"}]}),
    "annotations beside a vendor's field": with_delta({"annotations": [{"type": "x"}], "v": 1}),
    "a function call": with_delta({"function_call": {"name": "f"}}),
}


def clear(value: object) -> None:
    """Empty all objects and lists in a value."""
    inner = value if isinstance(value, (dict, list)) else ()
    if hasattr(value, "__dict__") and not isinstance(value, enum.Enum):
        inner = {**vars(value), **(getattr(value, "__pydantic_extra__", None) or {})}
        (getattr(value, "__pydantic_extra__", None) or {}).clear()
        vars(value).clear()
    for each in inner.values() if isinstance(inner, dict) else inner:
        clear(each)
    if isinstance(value, (dict, list)):
        value.clear()


@pytest.mark.parametrize("chunk", [*USUAL.values(), *NEARLY.values()])
def test_nothing_of_the_callers_object_is_kept(chunk: dict[str, object]) -> None:
    for value in copy.deepcopy(chunk), as_models(chunk):
        acc = Accumulator()
        acc.feed(value)
        before = acc.snapshot().to_json()
        clear(value)
        assert acc.snapshot().to_json() == before


class Filling(dict[str, object]):
    """Like a defaultdict: looking up a name changes it."""

    def __missing__(self, name: str) -> object:
        self[name] = None
        return None


# Most of these are not read at once.
LEFT: dict[str, object] = {
    "half a character in a name": with_delta({"\ud83d": 1}),
    "a number as a name": dict([(1, 2), *with_delta({}).items()]),
    "true as an index": with_delta({}, index=True),
    "no list of choices": {"choices": {}},
    "an error": {"error": {"message": "x"}, "choices": []},
    "a message": {"choices": [{"index": 0, "message": {"content": "x"}}]},
    "nested deep": nested(12),
    "bytes": with_delta({"v": b"x"}),
    "no object": 5,
    **{name: chunk for name, (chunk, _) in SAME.items()},
}


@pytest.mark.parametrize("chunk", [*USUAL.values(), *NEARLY.values(), *LEFT.values()])
def test_usual_and_odd_chunks_are_read_as_field_by_field(chunk: object) -> None:
    assert_each_alike([chunk])


def test_to_look_at_a_mapping_does_not_change_it() -> None:
    choice = Filling(index=0)
    fed([{"id": "a", "choices": [choice]}])
    assert choice == {"index": 0}
