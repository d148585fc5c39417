"""What is known of a JSON text that is still arriving is found in linear time."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import JSON, TEXTS
from streamed import fed, run_by_itself

from accumulator import Custom, Function, Message, ToolCall
from accumulator import partial as module
from accumulator.partial import PartialJson, parse_partial

jiter = pytest.importorskip("jiter", reason="the extra `partial` is not installed")


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("", None),
        (" ", None),
        ("{", {}),
        ('{"ci', {}),
        ('{"city": ', {}),
        ('{"city": "Par', {"city": "Par"}),
        ('{"city": "Paris", "days": [1, 2', {"city": "Paris", "days": [1, 2]}),
        ('{"a": "\\', {"a": ""}),
        ('{"a": "\\u00e', {"a": ""}),
        ('{"a": "\\ud83d', {"a": ""}),
        ('{"a": "\\ud83d\\ude00', {"a": "😀"}),
        ('{"a": "\\ud83d\\ude', {"a": ""}),
        ('{"a": "\\ud83d"', {"a": "\ufffd"}),
        ('{"a": "x\\ude00', {"a": "x\ufffd"}),
        ('{"a": "\\ude00\\\\ud83d', {"a": "\ufffd\\ud83d"}),
        ("nul", None),
        ("[tr", []),
        ("[true", [True]),
        ("[NaN", None),
        ("plain text", None),
        ('{"a": 1}', {"a": 1}),
    ],
)
def test_what_is_known_of_a_text(text: str, known: object) -> None:
    assert parse_partial(text) == known
    assert Function(arguments=text).partial_arguments() == known
    assert ToolCall(function=Function(arguments=text)).partial_arguments() == known
    assert Message(content=text).partial_content() == known
    assert Message(content=({"type": "text", "text": text},)).partial_content() == known
    growing = PartialJson()
    growing.push(text)
    assert growing.value == known


def test_nothing_is_known_where_nothing_arrived() -> None:
    assert Function().partial_arguments() is None
    assert ToolCall(custom=Custom(input="{}")).partial_arguments() is None
    assert Message().partial_content() is None
    assert PartialJson().value is None


def test_the_arguments_of_a_snapshot() -> None:
    function = {"name": "f", "arguments": '{"city": "Pa'}
    acc = fed([{"choices": [{"index": 0, "delta": {"tool_calls": [{"function": function}]}}]}])
    [call] = acc.snapshot().choices[0].message.tool_calls or [None]
    assert call is not None
    assert call.partial_arguments() == {"city": "Pa"}


def is_prefix(known: object, whole: object) -> bool:
    if isinstance(known, dict) and isinstance(whole, dict):
        return all(is_prefix(value, whole[name]) for name, value in known.items())
    if isinstance(known, list) and isinstance(whole, list):
        return len(known) <= len(whole) and all(map(is_prefix, known, whole))
    if isinstance(known, str) and isinstance(whole, str):
        return whole.startswith(known)
    return type(known) in (int, float) or known == whole  # digits may be to come


@given(JSON, st.booleans(), st.integers(0, 200))
def test_every_prefix_of_a_json_text_is_known_in_part(
    value: object, ascii_only: bool, end: int
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    known = parse_partial(text[:end])
    assert known is None or is_prefix(known, value)
    if isinstance(value, (dict, list)) and end:
        assert known is not None


@given(JSON, st.lists(st.integers(0, 200)), TEXTS)
def test_a_growing_text_is_known_in_the_end_whatever_its_cuts(
    value: object, places: list[int], looked_at: str
) -> None:
    text = json.dumps([value])
    growing = PartialJson()
    ends = sorted({min(place, len(text)) for place in places})
    for start, end in zip([0, *ends], [*ends, len(text)], strict=True):
        growing.push(text[start:end])
        if looked_at:
            assert is_prefix(growing.value or [], [value])
    assert growing.value == [value]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the lengths of the texts that are parsed, as they come."""
    lengths: list[int] = []
    parse = module.parse_partial

    def counted(text: str | bytes | bytearray) -> object:
        lengths.append(len(text))
        return parse(text)

    monkeypatch.setattr(module, "parse_partial", counted)
    return lengths


@pytest.mark.parametrize("length", [1_000, 10_000, 100_000])
def test_following_a_stream_is_linear(parsed: list[int], length: int) -> None:
    growing = PartialJson('{"text": "')
    for _ in range(length):
        growing.push("x")
        assert growing.value is not None
    growing.push('"}')
    assert growing.value == {"text": "x" * length}
    # Each parse reads 17/16 of the one before: all together 17 times the last.
    assert sum(parsed) <= 18 * (length + 20)
    assert len(parsed) <= 200


def test_the_value_lags_by_no_more_than_a_sixteenth() -> None:
    growing = PartialJson('{"text": "')
    for length in range(1, 2000):
        growing.push("x")
        value = growing.value
        assert isinstance(value, dict)
        assert length - len(value["text"]) <= (length + 10) / 16


def test_nobody_looks_and_nothing_is_parsed(parsed: list[int]) -> None:
    growing = PartialJson()
    for _ in range(100):
        growing.push("[")
    assert parsed == []


@pytest.mark.parametrize("text", ['{"a": 1}', '{"a": 1'])
def test_what_follows_a_whole_value_or_breaks_it_leaves_what_was_known(text: str) -> None:
    growing = PartialJson(text)
    assert growing.value == {"a": 1}
    growing.push(" oh! no" * 10)
    assert growing.value == {"a": 1}


def test_without_jiter_the_error_names_the_extra() -> None:
    code = """
import sys
sys.modules["jiter"] = None
from accumulator import Function
try:
    Function(arguments="{").partial_arguments()
except ImportError as error:
    print(error)
"""
    assert "pip install 'chunk-accumulator[partial]'" in run_by_itself(code).stdout
