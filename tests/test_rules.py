"""The merge table can be read, replaced and extended; what it says is done."""

from __future__ import annotations

import json

import pytest

from accumulator import DEFAULT_RULES, Accumulator
from accumulator.rules import POLICIES, Policy


def merged(rows: dict[str, Policy], *chunks: object) -> dict[str, object]:
    acc = Accumulator(rules=DEFAULT_RULES.replace(rows))
    for chunk in chunks:
        acc.feed(chunk)
    return acc.snapshot().to_dict()


def deltas(*deltas: object) -> list[object]:
    return [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]


CHUNK_CASES: list[tuple[Policy, list[object], object]] = [
    ("first", ["", "a", "b"], "a"),
    ("first", [0, ""], 0),
    ("last", ["a", None, "b", None], "b"),
    ("last", [{"a": 1}, {"b": 2}], {"b": 2}),
    ("concat", ["a", "", "b"], "ab"),
    ("concat", ["a", 1], 1),
    ("extend", [[1], [2, 3]], [1, 2, 3]),
    ("extend", ["a", [1]], [1]),
    (
        "by_index",
        [[{"index": 1, "x": 1}], [{"index": 1, "y": 2}, 3]],
        [{"index": 1, "x": 1, "y": 2}, 3],
    ),
    ("merge", [{"a": {"b": 1}}, {"a": {"c": None}}, {"a": {"c": 2}}], {"a": {"b": 1, "c": 2}}),
    ("larger", [3, 5, 4], 5),
    ("larger", [{"n": 3}, {"n": 1, "m": 1}], {"n": 3, "m": 1}),
    ("drop", ["a"], None),
]


@pytest.mark.parametrize(("policy", "values", "expected"), CHUNK_CASES)
def test_each_policy_merges_a_vendors_field(
    policy: Policy, values: list[object], expected: object
) -> None:
    result = merged({"chunk.x": policy}, *({"x": value} for value in values))
    assert result.get("x") == expected


def test_every_policy_has_a_case() -> None:
    assert {policy for policy, _, _ in CHUNK_CASES} == set(POLICIES)


AGAIN: list[object] = [
    {"a": 1},
    {"a": {"b": None}},
    {"a": [1]},
    5,
    "a",
    [1],
    [{"index": 0, "a": "b"}],
]


@pytest.mark.parametrize("value", AGAIN, ids=str)
@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_a_value_that_comes_in_every_event_is_merged_as_by_itself(
    policy: Policy, value: object
) -> None:
    """A shape that comes often is read by a decoder of its own."""
    rules = DEFAULT_RULES.replace({"chunk.x": policy, "choice.x": policy, "delta.x": policy})
    choice = {"index": 0, "delta": {"content": "a", "x": value}, "x": value}
    chunk = {"id": "a", "choices": [choice], "x": value}
    by_chunk, by_body = Accumulator(rules=rules), Accumulator(rules=rules)
    for _ in range(40):
        by_chunk.feed(chunk)
        by_body.feed_sse(b"data: %s\n\n" % json.dumps(chunk).encode())
    assert by_body.snapshot() == by_chunk.snapshot()


def test_a_typed_field_may_have_another_policy() -> None:
    # A server that sends the whole text so far with every chunk.
    result = merged({"delta.content": "last"}, *deltas({"content": "a"}, {"content": "ab"}))
    assert result["choices"][0]["message"]["content"] == "ab"  # type: ignore[index]  # a list of dicts
    assert merged({"chunk.id": "last"}, {"id": "a"}, {"id": "b"})["id"] == "b"


def test_a_kind_of_value_may_have_another_policy() -> None:
    result = merged({"delta.<string>": "last"}, *deltas({"mood": "a"}, {"mood": "b"}))
    assert result["choices"][0]["message"]["mood"] == "b"  # type: ignore[index]  # a list of dicts


@pytest.mark.parametrize(
    ("path", "policy", "named"),
    [
        ("delta.x", "sum", "concat"),
        ("delta.x", "bytes", "concat"),
        ("deltas.x", "last", "delta."),
        ("delta", "last", "delta."),
        ("chunk.usage", "last", "fixed"),
        ("delta.tool_calls.id", "last", "fixed"),
        ("choice.index", "last", "fixed"),
    ],
)
def test_an_unknown_path_or_policy_is_an_error_that_names_the_choices(
    path: str, policy: str, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        DEFAULT_RULES.replace({path: policy})  # type: ignore[dict-item]  # what is wrong is the point


def test_replace_leaves_the_default_rules_as_they_are() -> None:
    before = dict(DEFAULT_RULES.rows)
    DEFAULT_RULES.replace({"delta.channel": "concat"})
    assert dict(DEFAULT_RULES.rows) == before
