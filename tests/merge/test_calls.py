"""SPEC section 4, fragment by fragment: which tool call each belongs to, how many they are."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged import assert_as_judged

from accumulator import Accumulator, LimitExceededError, Limits

Fragment = dict[str, object]


def part(
    index: int | None,
    id_: str | None = None,
    name: str | None = None,
    arguments: str | None = None,
    **more: object,
) -> Fragment:
    """Return a fragment of a function's call."""
    function = {"name": name, "arguments": arguments}
    return {"index": index, "id": id_, "function": function, **more}


def custom(index: int, id_: str | None, name: str | None, text: str | None) -> Fragment:
    return {"index": index, "id": id_, "custom": {"name": name, "input": text}}


# The rule, the fragments, and of each call its id, its name and its arguments or input.
CASES: dict[str, tuple[list[Fragment], list[tuple[str | None, str | None, str | None]]]] = {
    "a known id without an index is its call, whole or not": (
        [part(None, "a", "f", "{}"), part(None, "a", None, " ")],
        [("a", "f", "{} ")],
    ),
    "a known id at another call's index is its call": (
        [part(0, "a", "f", "{}"), part(1, "b", "g", "{"), part(1, "a", None, " ")],
        [("a", "f", "{} "), ("b", "g", "{")],
    ),
    "a known id at a free index without a name is its call": (
        [part(0, "a", "f", "{}"), part(1, "a", None, " ")],
        [("a", "f", "{} ")],
    ),
    "a known id at a free index is its call until its arguments are whole": (
        [part(0, "a", "f"), part(1, "a", "f", "{}"), part(2, "a", "g", "{}")],
        [("a", "f", "{}"), ("a", "g", "{}")],
    ),
    "a name without an id at the index of a whole call": (
        [part(0, "a", "f", "{}"), part(0, None, "g")],
        [("a", "f", "{}"), (None, "g", None)],
    ),
    "neither id nor name at a free index, while the call opened last is not whole": (
        [part(2, "a", "f"), part(1, None, None, "{"), part(1, None, None, "}")],
        [("a", "f", "{}")],
    ),
    "neither id nor name at the index of a whole call, while the call opened last is not": (
        [part(0, "a", "f", "{}"), part(1, "b", "g"), part(0, None, None, "[1]")],
        [("a", "f", "{}"), ("b", "g", "[1]")],
    ),
    "whole calls with neither index nor id": (
        [part(None, None, "f", "{}"), part(None, None, "f", "[1]")],
        [(None, "f", "{}"), (None, "f", "[1]")],
    ),
    "a known id at a free index with a name, where its call is whole": (
        [part(0, "a", "f", "{}"), part(1, "a", "f", "[1]")],
        [("a", "f", "{}"), ("a", "f", "[1]")],
    ),
    "a new id and a name at the index of a call that has neither name nor arguments": (
        [part(0, "a"), part(0, "b", "f", "{}")],
        [("a", None, None), ("b", "f", "{}")],
    ),
    "a new id and another name at the index of a call that has no arguments": (
        [part(0, "a", "f"), part(0, "b", "g", "{}")],
        [("a", "f", None), ("b", "g", "{}")],
    ),
    "a new id and a name at the index of a custom tool's whole input": (
        [custom(0, "a", "f", "{}"), custom(0, "b", "f", "x")],
        [("a", "f", "{}"), ("b", "f", "x")],
    ),
    "of a call that is both, the custom tool counts if it alone has arguments": (
        [part(0, "a", "f", custom={"name": "f", "input": "{}"}), part(0, "b", "f", "{}")],
        [("a", "f", "{}"), ("b", "f", "{}")],
    ),
    "an id that is empty is none": (
        [part(0, "", "f", "{"), part(0, "", "", "}"), part(1, "", "g", "{}")],
        [(None, "f", "{}"), (None, "g", "{}")],
    ),
    "an id that is empty goes on with the last, as none does": (
        [part(None, None, "f", "{"), part(None, "", None, "}")],
        [(None, "f", "{}")],
    ),
    "ids alone tell calls": (
        [part(None, "a", None, "{}"), part(None, "b", None, "{}")],
        [("a", None, "{}"), ("b", None, "{}")],
    ),
    "a new id and a name as soon as the arguments have become whole": (
        [part(0, "a", "f", "{"), part(0, None, None, "}"), part(0, "b", "g", "{}")],
        [("a", "f", "{}"), ("b", "g", "{}")],
    ),
    "a name that the call before the last at its index has": (
        [part(0, "a", "f"), part(0, "b", "g", "{}"), part(1, "c", "h"), part(0, "d", "f", "{}")],
        [("a", "f", None), ("b", "g", "{}"), ("d", "f", "{}"), ("c", "h", None)],
    ),
    "an index that is null and no id goes on with the last": (
        [part(None, "a", "f", "{"), part(None, None, None, "}")],
        [("a", "f", "{}")],
    ),
    "calls without an index are told by their ids": (
        [part(None, "a", "f", "{"), part(None, "b", "g", "{}"), part(None, "a", None, "}")],
        [("a", "f", "{}"), ("b", "g", "{}")],
    ),
    "calls at indices of their own": (
        [part(i, f"c{i}", "f", "{}") for i in range(3)],
        [(f"c{i}", "f", "{}") for i in range(3)],
    ),
    "calls that are all number 0": (
        [part(0, f"c{i}", "f", "{}") for i in range(3)],
        [(f"c{i}", "f", "{}") for i in range(3)],
    ),
}
# What may be another call's is on record.
GUESSED: dict[str, tuple[list[Fragment], list[tuple[str | None, str | None, str | None]], str]] = {
    "neither id nor index while several calls are open": (
        [part(0, "a", "f", "{}"), part(1, "b", "g", "{"), part(None, None, None, "}")],
        [("a", "f", "{}"), ("b", "g", "{}")],
        "neither id nor index while several calls are open",
    ),
    "a new id and no name": (
        [part(0, "a", "f", "{}"), part(0, "b", None, " ")],
        [("a", "f", "{} ")],
        "a new id 'b' at index 0, but nothing starts a new call",
    ),
    "a new id and a name, but arguments that are not whole": (
        [part(0, "a", "f", "{"), part(0, "b", "f", "}")],
        [("a", "f", "{}")],
        "a new id 'b' at index 0, but nothing starts a new call",
    ),
    "of a call that is both, the function counts if both have arguments": (
        [part(0, "a", "f", "{", custom={"name": "f", "input": "{}"}), part(0, "b", "f", "}")],
        [("a", "f", "{}")],
        "a new id 'b' at index 0, but nothing starts a new call",
    ),
    "of a call that is both, the function counts if none has arguments": (
        [part(0, "a", "f", custom={"name": "g"}), part(0, "b", "f", "{}")],
        [("a", "f", "{}")],
        "a new id 'b' at index 0, but nothing starts a new call",
    ),
}
EVERY = CASES | {name: (fragments, calls) for name, (fragments, calls, _) in GUESSED.items()}


def body_of(deltas: list[list[Fragment]]) -> bytes:
    return b"".join(
        b"data: "
        + json.dumps({"choices": [{"index": 0, "delta": {"tool_calls": delta}}]}).encode()
        + b"\n\n"
        for delta in deltas
    )


def fed(deltas: list[list[Fragment]], limit: int | None = None) -> Accumulator:
    acc = Accumulator(limits=Limits(tool_calls=limit))
    acc.feed_sse(body_of(deltas))
    acc.close()
    return acc


def calls_of(acc: Accumulator) -> list[tuple[str | None, str | None, str | None]]:
    found = []
    choices = acc.snapshot().choices
    for call in (choices[0].message.tool_calls if choices else None) or ():
        function, tool = call.function, call.custom
        name = (function.name if function else None) or (tool.name if tool else None)
        text = (function.arguments if function else None) or (tool.input if tool else None)
        found.append((call.id, name, text))
    return found


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("together", [False, True], ids=["a delta each", "one delta"])
def test_a_fragment_goes_to_its_call(name: str, together: bool) -> None:
    fragments, calls = EVERY[name]
    deltas = [fragments] if together else [[fragment] for fragment in fragments]
    acc = fed(deltas)
    found = calls_of(acc)
    assert [(id_ or None, name or None, text or None) for id_, name, text in found] == calls
    assert [problem.message for problem in acc.problems] == (
        [GUESSED[name][2]] if name in GUESSED else []
    )
    assert_as_judged(acc, body_of(deltas))


# Fragments in lists of their own and in one list: a name of the same list never joins another.
BY_LIST: dict[str, tuple[list[Fragment], int, int]] = {
    "a name repeated while the arguments are not whole": (
        [part(0, "a", "f", "{"), part(0, None, "f", "}")],
        1,
        2,
    ),
    "another name while the arguments are not whole": (
        [part(0, "a", "f", "{"), part(0, None, "g", "}")],
        1,
        2,
    ),
    "the whole call again": ([part(0, None, "f", "{}"), part(0, None, "f", "{}")], 1, 2),
    "a known id, its name and whole arguments again": (
        [part(None, "a", "f", "{}"), part(None, "a", "f", "{}")],
        1,
        2,
    ),
    "a known id and another name": ([part(0, "a", "f"), part(0, "a", "g")], 1, 2),
    "a known id and its name while the arguments are not whole": (
        [part(0, "a", "f", "{"), part(0, "a", "f", "}")],
        1,
        1,
    ),
}


@pytest.mark.parametrize("name", BY_LIST)
def test_names_of_one_list_are_of_as_many_calls(name: str) -> None:
    fragments, apart, together = BY_LIST[name]
    for deltas, count in (([[each] for each in fragments], apart), ([fragments], together)):
        acc = fed(deltas)
        assert len(calls_of(acc)) == count
        assert_as_judged(acc, body_of(deltas))


def test_another_name_after_arguments_is_on_record() -> None:
    acc = fed([[part(0, "a", "f", "{")], [part(0, None, "g")]])
    assert calls_of(acc) == [("a", "fg", "{")]
    [problem] = acc.problems
    assert problem.message == "another name 'g', but no id that starts a new call"


@pytest.mark.parametrize("name", EVERY)
def test_as_many_calls_as_the_limit_are_allowed_and_not_one_more(name: str) -> None:
    fragments, calls = EVERY[name]
    deltas = [[fragment] for fragment in fragments]
    assert len(calls_of(fed(deltas, len(calls)))) == len(calls)
    if len(calls) > 1:
        with pytest.raises(LimitExceededError, match="tool_calls"):
            fed(deltas, len(calls) - 1)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("known", [0, 1])
def test_one_delta_opens_no_more_calls_than_the_limit(name: str, known: int) -> None:
    """What a fragment starts depends on those before it in the delta, which were not applied yet
    when they are counted: those that bring an id may count as a call each.
    """
    fragments, calls = EVERY[name]
    deltas = [[fragment] for fragment in fragments[:known]] + [fragments[known:]]
    most = max(len(calls), known + sum(bool(fragment["id"]) for fragment in fragments[known:]))
    assert len(calls_of(fed(deltas, most))) == len(calls)
    if len(calls) > 1:
        with pytest.raises(LimitExceededError, match="tool_calls"):
            fed(deltas, len(calls) - 1)


@pytest.mark.parametrize(("length", "shown"), [(98, "x" * 98 + "'"), (99, "x" * 96 + "...")])
def test_a_message_shows_a_hundred_characters_of_a_value(length: int, shown: str) -> None:
    acc = fed([[part(0, "a", "f", "{}")], [part(0, "x" * length)]])
    assert f" 'x{shown[1:]} at index 0" in acc.problems[0].message


PARTS = st.builds(
    part,
    st.sampled_from([None, 0, 1, 2]),
    st.sampled_from([None, "", "a", "b", "c"]),
    st.sampled_from([None, "f", "g"]),
    st.sampled_from([None, "{", "}", "{}", "[1]", " "]),
)


@given(st.lists(st.lists(PARTS, max_size=5), max_size=5), st.integers(1, 4))
def test_no_delta_opens_more_calls_than_the_limit(deltas: list[list[Fragment]], limit: int) -> None:
    acc = Accumulator(limits=Limits(tool_calls=limit))
    free = Accumulator()
    for delta in deltas:
        free.feed_sse(body_of([delta]))
        try:
            acc.feed_sse(body_of([delta]))
        except LimitExceededError:
            break
    else:
        assert acc.snapshot() == free.snapshot()
    assert len(calls_of(acc)) <= limit
