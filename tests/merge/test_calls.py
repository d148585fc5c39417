"""Tool calls: what is guessed is on record, and no delta opens more than the limit.

Which call a fragment belongs to is in `conformance/tools-*.json`.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged import assert_as_judged
from strategies import rendered
from streamed import delta, read_whole
from test_conformance import CASES, Case

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


# A fragment that may be another call's is on record.
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


def body_of(deltas: list[list[Fragment]]) -> bytes:
    return rendered([delta({"tool_calls": fragments}) for fragments in deltas])


def fed(deltas: list[list[Fragment]], limit: int | None = None) -> Accumulator:
    return read_whole(body_of(deltas), limits=Limits(tool_calls=limit))


def calls_of(acc: Accumulator) -> list[tuple[str | None, str | None, str | None]]:
    found = []
    choices = acc.snapshot().choices
    for call in (choices[0].message.tool_calls if choices else None) or ():
        function, tool = call.function, call.custom
        name = (function.name if function else None) or (tool.name if tool else None)
        text = (function.arguments if function else None) or (tool.input if tool else None)
        found.append((call.id or None, name or None, text or None))
    return found


@pytest.mark.parametrize("name", GUESSED)
@pytest.mark.parametrize("together", [False, True], ids=["a delta each", "one delta"])
def test_what_may_be_another_calls_is_on_record(name: str, together: bool) -> None:
    fragments, calls, message = GUESSED[name]
    deltas = [fragments] if together else [[fragment] for fragment in fragments]
    acc = fed(deltas)
    assert calls_of(acc) == calls
    assert [problem.message for problem in acc.problems] == [message]
    assert_as_judged(acc, body_of(deltas))


def test_another_name_after_arguments_is_on_record() -> None:
    acc = fed([[part(0, "a", "f", "{")], [part(0, None, "g")]])
    assert calls_of(acc) == [("a", "fg", "{")]
    [problem] = acc.problems
    assert problem.message == "another name 'g', but no id that starts a new call"


def fragments_of(case: Case) -> list[Fragment]:
    choices = [
        each for chunk in case.chunks if isinstance(chunk, dict) for each in chunk["choices"]
    ]
    lists = [(choice.get("delta") or {}).get("tool_calls") for choice in choices]
    return [each for some in lists for each in some or () if isinstance(each, dict)]


FRAGMENTS = {
    case.name: fragments
    for case in CASES
    if case.name.startswith("tools-") and (fragments := fragments_of(case))
}


@pytest.mark.parametrize("known", [0, 1, None])
@pytest.mark.parametrize("name", FRAGMENTS)
def test_as_many_calls_as_the_limit_are_allowed_and_not_one_more(
    name: str, known: int | None
) -> None:
    """Whether a fragment starts a call depends on those before it in the delta, which are not
    applied yet when calls are counted: each with an id may count as a call.
    """
    fragments = FRAGMENTS[name]
    alone = len(fragments) if known is None else known
    deltas = [*([fragment] for fragment in fragments[:alone]), fragments[alone:]]
    count = most = len(calls_of(fed(deltas)))
    if known is not None:
        most = max(count, known + sum(bool(each.get("id")) for each in fragments[known:]))
    assert len(calls_of(fed(deltas, most))) == count
    if count > 1:
        with pytest.raises(LimitExceededError, match="tool_calls"):
            fed(deltas, count - 1)


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
    for fragments in deltas:
        free.feed_sse(body_of([fragments]))
        try:
            acc.feed_sse(body_of([fragments]))
        except LimitExceededError:
            break
    else:
        assert acc.snapshot() == free.snapshot()
    assert len(calls_of(acc)) <= limit
