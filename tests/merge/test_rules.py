"""The merge table can be read, replaced and extended; what it says is done."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest
from streamed import deltas, fed, read_all

from accumulator import DEFAULT_RULES, Accumulator, Rules
from accumulator.rules import POLICIES, TYPED, Policy


def merged(rows: dict[str, Policy], *chunks: object) -> dict[str, object]:
    return fed(chunks, rules=DEFAULT_RULES.replace(rows)).snapshot().to_dict()


CHUNK_CASES: list[tuple[Policy, list[object], object]] = [
    ("first", ["", "a", "b"], "a"),
    ("first", [0, ""], 0),
    ("last", ["a", None, "b", None], "b"),
    ("last", [{"a": 1}, {"b": 2}], {"b": 2}),
    ("concat", ["a", "", "b"], "ab"),
    ("concat", ["a", 1], 1),
    ("concat", [5, "a", "b"], "ab"),
    ("concat", [{"a": None}, {"b": 2}], {"a": None, "b": 2}),
    ("concat", [{"a": 1}, "b", {"c": 2}], {"c": 2}),
    ("extend", [[1], [2, 3]], [1, 2, 3]),
    ("extend", ["a", [1]], [1]),
    ("extend", [[1], 5, [2], [3]], [2, 3]),
    (
        "by_index",
        [[{"index": 1, "x": 1}], [{"index": 1, "y": 2}, 3]],
        [{"index": 1, "x": 1, "y": 2}, 3],
    ),
    ("merge", [{"a": {"b": 1}}, {"a": {"c": None}}, {"a": {"c": 2}}], {"a": {"b": 1, "c": 2}}),
    (
        "by_index",
        [[{"index": 1, "x": None}], [{"index": True}], [{"index": 1, "x": 2}]],
        [{"index": 1, "x": 2}, {"index": True}],
    ),
    ("larger", [3, 5, 4], 5),
    ("larger", [5, 5.0], 5),
    ("larger", [{"n": 5, "m": 1}, {"n": 5.0, "m": 1.5}], {"n": 5, "m": 1.5}),
    ("larger", [{"n": 5}, {"n": "x"}], {"n": "x"}),
    ("larger", [{"n": "x"}, {"n": 5}], {"n": 5}),
    ("larger", [{"n": 5}, {"n": {"a": 1}}], {"n": {"a": 1}}),
    ("larger", [{"n": {"a": 1}}, {"n": 5}], {"n": 5}),
    (
        "larger",
        [{"n": {"a": 1, "b": 5}}, {"n": {"a": 3, "b": 4, "c": None}}, {"n": {}}],
        {"n": {"a": 3, "b": 5, "c": None}},
    ),
    ("larger", [{"n": 3}, {"n": 1, "m": 1}], {"n": 3, "m": 1}),
    ("collect", ["a", None, {"b": 1}, [1]], ["a", {"b": 1}, [1]]),
    (
        "by_type",
        [
            [{"index": 0, "type": "a", "x": 1}, {"index": 0, "type": "b", "x": 2}],
            [{"index": 0, "type": "a", "x": 3}, {"index": 0, "x": 4}, 5],
        ],
        [{"index": 0, "type": "a", "x": 3}, {"index": 0, "type": "b", "x": 4}, 5],
    ),
    ("drop", ["a"], None),
]


# Halves of surrogate pairs, which JSON can only have as escapes (SPEC section 2).
HALVES: list[tuple[Policy, list[object], object]] = [
    ("first", ["\ud83d"], "\ufffd"),
    ("last", ["\ud83d"], "\ufffd"),
    ("last", [["\ud83d", {"\ud83d": "\ude00"}]], ["\ufffd", {"\ufffd": "\ufffd"}]),
    ("extend", [["a"], ["\ud83d", "\ude00"]], ["a", "\ufffd", "\ufffd"]),
    (
        "by_index",
        [["\ud83d"], [{"index": 0, "x": "\ud83d"}]],
        ["\ufffd", {"index": 0, "x": "\ufffd"}],
    ),
    ("collect", ["\ud83d", ["\ude00"]], ["\ufffd", ["\ufffd"]]),
    (
        "by_type",
        [["\ud83d"], [{"index": 0, "type": "\ud83d", "x": "\ude00"}]],
        ["\ufffd", {"index": 0, "type": "\ufffd", "x": "\ufffd"}],
    ),
    ("merge", [{"a": "\ud83d"}], {"a": "\ufffd"}),
    ("larger", [{"a": "\ud83d"}], {"a": "\ufffd"}),
    ("concat", ["\ud83d", "\ude00"], "\U0001f600"),
    ("concat", ["a\ud83d", "\ude00", "\ud83d", "\ude01b"], "a\U0001f600\U0001f601b"),
    ("concat", ["\ud800", "\udc00", "\udbff", "\udfff"], "\U00010000\U0010ffff"),
    ("concat", ["\ud83d", "\ud83d", "a", "\ude00"], "\ufffd\ufffda\ufffd"),
]


@pytest.mark.parametrize(("policy", "values", "expected"), CHUNK_CASES + HALVES)
def test_each_policy_merges_a_vendors_field(
    policy: Policy, values: list[object], expected: object
) -> None:
    chunks = [json.dumps({"x": value}) for value in values]
    acc = fed(chunks, rules=DEFAULT_RULES.replace({"chunk.x": policy}))
    found = json.dumps(acc.snapshot().to_dict().get("x"))
    assert found == json.dumps(expected)  # to Python, 5 is 5.0
    lone = found.count("\\ufffd")
    assert acc.problem_counts == ({"lone_surrogate": lone} if lone else {})
    for problem in acc.problems:
        assert problem.message == "half a surrogate pair, replaced by U+FFFD"


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
    by_chunk = fed([chunk] * 40, rules=rules)
    by_body = read_all([b"data: %s\n\n" % json.dumps(chunk).encode()] * 40, rules=rules)
    assert by_body.snapshot() == by_chunk.snapshot()


DETAILS = [{"index": 0, "type": 5, "text": "a"}, {"index": 0, "type": 6, "text": "b"}]
THOUGHTS = [[{"index": 0, "type": "reasoning.text", "text": text}] for text in ("a", "\ud83d", "b")]
# Rows, what comes in a field of each delta, and what the field is then.
FIELDS: dict[str, tuple[dict[str, Policy], str, list[object], object]] = {
    "a typed list": ({"delta.annotations": "last"}, "annotations", [[1], [2, 3]], [2, 3]),
    # A server that sends the whole text so far with every chunk.
    "a typed text": ({"delta.content": "last"}, "content", ["a", "ab"], "ab"),
    "a kind of value": ({"delta.<string>": "last"}, "mood", ["a", "b"], "b"),
    "a policy made for another kind, which is the last": (
        {"delta.<list>": "concat"}, "x", [[1], [2]], [2]
    ),
    "details whose type is no string, which go by their index": (
        {}, "reasoning_details", [DETAILS[:1], DETAILS[1:]], [{"index": 0, "type": 6, "text": "ab"}]
    ),
    **{
        f"a detail of the type {odd!r}, which goes to the newest at its index": (
            {}, "reasoning_details", [THOUGHTS[0], [{"index": 0, "type": odd, "text": "b"}]],
            [{**THOUGHTS[0][0], "text": "ab"}],
        )
        for odd in ("", 5)
    },
    "details that are appended": (
        {"delta.reasoning_details": "extend"}, "reasoning_details", [*THOUGHTS[::2]],
        [THOUGHTS[0][0], THOUGHTS[2][0]],
    ),
    "details whose text comes in full, after half a character": (
        {"delta.reasoning_details.text": "last"}, "reasoning_details", [*THOUGHTS], THOUGHTS[2]
    ),
    "a vendor's field of details": (
        {"delta.reasoning_details.v": "concat"}, "reasoning_details",
        [[{**THOUGHTS[0][0], "v": "x"}], [{**THOUGHTS[2][0], "v": "y"}]],
        [{**THOUGHTS[0][0], "text": "ab", "v": "xy"}],
    ),
    "what is dropped, where it is null, too": (
        {"delta.<object>.x": "drop"}, "o", [{"x": None, "y": None}, {"x": 1}], {"y": None}
    ),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "name", "values", "expected"), FIELDS.values(), ids=FIELDS)
def test_a_field_or_kind_of_value_may_have_another_policy(
    rows: dict[str, Policy], name: str, values: list[object], expected: object
) -> None:
    result: Any = merged(rows, *deltas(*({name: value} for value in values)))
    assert result["choices"][0]["message"][name] == expected


def test_a_field_of_the_chunk_may_have_another_policy() -> None:
    assert merged({"chunk.id": "last"}, {"id": "a"}, {"id": "b"})["id"] == "b"


@pytest.mark.parametrize(
    ("path", "policy", "named"),
    [
        ("delta.x", "sum", "concat"),
        ("delta.x", "bytes", "concat"),
        ("delta.x", None, "concat"),
        ("nonsense", None, "concat"),
        ("deltas.x", "last", "delta."),
        ("delta", "last", "delta."),
        ("chunk.usage", "last", "fixed"),
        ("delta.tool_calls.id", "last", "fixed"),
        ("choice.index", "last", "fixed"),
        ("choice.finish_reason", "first", "fixed"),  # by it a stream is known to be complete
        ("chunk.object", "last", "fixed"),
        ("chunk.obfuscation", "last", "fixed"),
        ("choice.obfuscation", "last", "fixed"),
        ("delta.", "last", "delta."),
        ("delta.a..b", "last", "delta."),
        ("delta.<strings>", "last", "<string>"),
        ("delta.<list>.x", "last", "<list>"),
        ("delta.<object>.<strng>", "last", "<string>"),
        ("delta.<object>.a.b", "last", "<object>"),
    ],
)
def test_an_unknown_path_or_policy_is_an_error_that_names_the_choices(
    path: str, policy: str | None, named: str
) -> None:
    rows: dict[str, Policy] = {path: policy}  # type: ignore[dict-item]  # what is wrong is the point
    with pytest.raises(ValueError, match=named):
        DEFAULT_RULES.replace(rows)
    with pytest.raises(ValueError, match=named):
        Rules(rows)


def test_rows_that_are_not_given_are_those_of_the_default_rules() -> None:
    assert Rules({"delta.channel": "concat"}) == DEFAULT_RULES.replace({"delta.channel": "concat"})
    assert Rules({}) == DEFAULT_RULES


def test_rows_that_are_no_rules_are_a_type_error_that_says_how_to_make_them() -> None:
    with pytest.raises(TypeError, match=r"DEFAULT_RULES\.replace"):
        Accumulator(rules={"delta.x": "last"})  # type: ignore[arg-type]  # what is wrong is the point


def test_rules_show_the_rows_that_are_not_the_default_ones() -> None:
    rules = DEFAULT_RULES.replace({"delta.x": "last", "delta.role": "first"})
    assert repr(rules) == "DEFAULT_RULES.replace({'delta.x': 'last'})"
    assert eval(repr(rules), {"DEFAULT_RULES": DEFAULT_RULES}) == rules
    assert repr(DEFAULT_RULES) == repr(Rules({})) == "DEFAULT_RULES"
    assert len(repr(inspect.signature(Accumulator))) < 500


@pytest.mark.parametrize("limits", [{}, None, {"total_bytes": 5}])
def test_limits_that_are_none_are_a_type_error_that_says_how_to_make_them(limits: object) -> None:
    with pytest.raises(TypeError, match=r"Limits\(total_bytes="):
        Accumulator(limits=limits)  # type: ignore[arg-type]  # what is wrong is the point


def test_a_row_for_a_field_of_an_object_leaves_its_other_fields_as_they_were() -> None:
    rules = DEFAULT_RULES.replace({"delta.x.hints": "concat", "delta.x.<object>.n": "drop"})
    first = {"text": "p", "hints": "a", "name": "n", "o": {"text": "s", "hints": "a", "n": 1}}
    second = {"text": "q", "hints": "b", "name": "m", "o": {"text": "t", "hints": "b", "n": 2}}
    deltas = ({"x": first, "y": {"o": {"n": 1}}}, {"x": second, "y": {"o": {"n": 2}}})
    acc = fed([json.dumps({"choices": [{"delta": delta}]}) for delta in deltas], rules=rules)
    assert acc.snapshot().choices[0].message.extra == {
        "x": {"text": "pq", "hints": "ab", "name": "m", "o": {"text": "st", "hints": "b"}},
        "y": {"o": {"n": 2}},
    }


def test_replace_leaves_the_default_rules_as_they_are() -> None:
    before = dict(DEFAULT_RULES.rows)
    DEFAULT_RULES.replace({"delta.channel": "concat"})
    assert dict(DEFAULT_RULES.rows) == before


SAMPLES: dict[str, object] = {"created": 7, "moderation": {"a": 1}, "annotations": [{"b": 2}]}


@pytest.mark.parametrize(("level", "name"), [(lv, n) for lv in TYPED for n in sorted(TYPED[lv])])
def test_a_typed_field_that_has_another_policy_is_read_back_to_its_place(
    level: str, name: str
) -> None:
    value = SAMPLES.get(name, "text")
    acc = Accumulator(rules=DEFAULT_RULES.replace({f"{level}.{name}": "larger"}))
    chunk: dict[str, object] = {"choices": [{"index": 0, "delta": {}}]}
    acc.feed(chunk | {name: value} if level == "chunk" else deltas({name: value})[0])
    completion = acc.snapshot()
    holder = completion if level == "chunk" else completion.choices[0].message
    found = getattr(holder, name)
    assert (list(found) if name == "annotations" else found) == value
    assert name not in holder.extra
