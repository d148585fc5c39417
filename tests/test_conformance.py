"""The rules one by one: every file in `conformance/` is a small stream and its exact result."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import reference
from streamed import cut

from accumulator import (
    DEFAULT_RULES,
    Accumulator,
    AccumulatorError,
    ChatCompletion,
    DecodeError,
    IncompleteStreamError,
    Problem,
    ServerError,
)

FOLDER = Path(__file__).parent / "conformance"
DONE = "[DONE]"
LOSSY = {"malformed_json", "invalid_chunk"}
# Where a cut may matter: around line ends, in escapes, in characters of several bytes.
TELLING = re.compile(rb"[\r\n\\\x80-\xff]")
MOST_CUTS = 500


@dataclass(frozen=True)
class Case:
    """One stream, what it proves, and what comes out of it.

    A problem is its kind, or `{"kind": …, "count": …}` if it was met more than once. `rules` are
    the caller's, `error` is the server's. Of the first choice, `to_message` is its message as
    history, and `arguments_complete` what each of its calls says.
    """

    name: str
    rule: str
    server: str
    completion: dict[str, object]
    status: str
    problems: list[str | dict[str, Any]]
    chunks: list[object] = field(default_factory=list)
    body: str | None = None
    encoding: str = "utf-8"
    error: object = None
    rules: dict[str, str] = field(default_factory=dict)
    to_message: dict[str, object] | None = None
    arguments_complete: list[bool] | None = None

    @property
    def counts(self) -> Counter[str]:
        """How often each kind of problem was met."""
        counts: Counter[str] = Counter()
        for problem in self.problems:
            each: Any = problem if isinstance(problem, dict) else {"kind": problem, "count": 1}
            counts[each["kind"]] += each["count"]
        return counts

    def accumulator(self) -> Accumulator:
        """Return an accumulator with the rules of the case."""
        return Accumulator(rules=DEFAULT_RULES.replace(self.rules))  # type: ignore[arg-type]  # any text

    @property
    def data(self) -> bytes:
        """The stream as the body of a response."""
        if self.body is not None:
            return self.body.encode(self.encoding)
        return b"".join(b"data: %b\n\n" % encode(chunk) for chunk in self.chunks)


def encode(chunk: object) -> bytes:
    if chunk == DONE:
        return DONE.encode()
    try:
        return json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a surrogate pair is only written as an escape
        return json.dumps(chunk, separators=(",", ":")).encode()


# A file with a key that is none of a case's is a TypeError.
CASES = [
    Case(path.stem, **json.loads(path.read_text("utf-8"))) for path in sorted(FOLDER.glob("*.json"))
]


def each_case(wanted: Callable[[Case], bool] = lambda case: True) -> pytest.MarkDecorator:
    found = [case for case in CASES if wanted(case)]
    return pytest.mark.parametrize("case", found, ids=lambda case: case.name)


every_case = each_case()
cases_of_chunks = each_case(lambda case: case.body is None)


def same(expected: object, actual: object) -> bool:
    """Return whether two JSON values are alike; to Python, 1 would equal 1.0 and True."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        return expected.keys() == actual.keys() and all(
            same(value, actual[key]) for key, value in expected.items()
        )
    if isinstance(expected, list) and isinstance(actual, list):
        return len(expected) == len(actual) and all(map(same, expected, actual))
    if isinstance(expected, float) and type(actual) is int:
        return expected == actual
    return type(expected) is type(actual) and expected == actual


def shown(problems: Iterable[Problem]) -> list[object]:
    """Write problems as a case does."""
    return [
        {"kind": problem.kind, "count": problem.count} if problem.count > 1 else problem.kind
        for problem in problems
    ]


def check(acc: Accumulator, case: Case) -> None:
    acc.close()
    completion = acc.snapshot().to_dict()
    assert completion == case.completion
    assert same(case.completion, completion), (case.completion, completion)
    assert acc.status == case.status
    assert shown(acc.problems) == case.problems


@every_case
def test_fed_whole_and_byte_by_byte(case: Case) -> None:
    for size in max(1, len(case.data)), 1:
        acc = case.accumulator()
        for data in cut(case.data, size):
            acc.feed_sse(data)
        check(acc, case)


def cuts(data: bytes) -> list[int]:
    """Return where a body is cut in two: wherever it may matter, and here and there besides."""
    found = {match.start() + i for match in TELLING.finditer(data) for i in range(-2, 9)}
    places = sorted((found | set(range(1, len(data), 11))) & set(range(1, len(data))))
    return places[:: len(places) // MOST_CUTS + 1]


@pytest.mark.costs
@every_case
def test_cut_in_two(case: Case) -> None:
    data = case.data
    whole = case.accumulator()
    whole.feed_sse(data)
    check(whole, case)
    expected = whole.snapshot()
    for i in cuts(data):
        acc = case.accumulator()
        acc.feed_sse(data[:i])
        acc.feed_sse(data[i:])
        acc.close()
        assert acc.snapshot() == expected, i
        assert (acc.status, shown(acc.problems)) == (case.status, case.problems), i


@cases_of_chunks
def test_fed_by_chunk(case: Case) -> None:
    for form in "mapping", "bytes", "text":
        acc = case.accumulator()
        for chunk in case.chunks:
            if chunk == DONE:
                acc.feed_line(DONE)
            elif form == "mapping" and isinstance(chunk, dict):
                acc.feed(chunk)
            else:
                text = encode(chunk)
                acc.feed(text.decode() if form == "text" else text)
        check(acc, case)


@pytest.mark.many
@each_case(lambda case: b"\r" not in case.data)
def test_fed_by_line(case: Case) -> None:
    for end in b"\n", b"":
        acc = case.accumulator()
        for line in case.data.split(b"\n")[: -1 if case.data.endswith(b"\n") else None]:
            acc.feed_line(line + end)
        check(acc, case)


@every_case
def test_completion_raises_what_the_status_says(case: Case) -> None:
    acc = case.accumulator()
    acc.feed_sse(case.data)
    by_status = {"failed": ServerError, "truncated": IncompleteStreamError}
    error = by_status.get(case.status, DecodeError if LOSSY & case.counts.keys() else None)
    completion: ChatCompletion | None
    if error is None:
        completion, problems = acc.completion(), acc.problems
    else:
        with pytest.raises(AccumulatorError) as caught:
            acc.completion()
        assert type(caught.value) is error
        completion, problems = caught.value.partial, caught.value.problems
        assert same(case.error, getattr(caught.value, "error", None))
    assert same(case.error, acc.server_error)
    assert completion is not None
    assert same(case.completion, completion.to_dict())
    assert shown(problems) == case.problems


@each_case(lambda case: case.to_message is not None or case.arguments_complete is not None)
def test_a_message_says_what_of_it_is_whole(case: Case) -> None:
    acc = case.accumulator()
    acc.feed_sse(case.data)
    acc.close()
    if case.to_message is not None:
        assert acc.snapshot().choices[0].message.to_message() == case.to_message
    if case.arguments_complete is not None:
        functions = [call.function for call in acc.snapshot().choices[0].message.tool_calls or ()]
        found = [function and function.arguments_complete for function in functions]
        assert found == case.arguments_complete


@pytest.mark.many
@every_case
def test_the_second_judge_agrees(case: Case) -> None:
    outcome = reference.reduce_body(case.data, case.rules)
    assert outcome.completion == case.completion
    assert same(case.completion, outcome.completion), (case.completion, outcome.completion)
    assert outcome.status == case.status
    assert Counter(outcome.problems) == case.counts
    assert same(case.error, outcome.error)


@pytest.mark.parametrize(
    "nothing", [None, {}, "null", b"null", '""', "[]", b"{}", " ", ": keepalive", b": keepalive"]
)
def test_what_says_nothing_is_no_event_and_no_problem(nothing: Any) -> None:
    acc = Accumulator()
    acc.feed({"choices": [{"index": 0, "delta": {"content": "Hi"}}]})
    acc.feed(nothing)
    assert not list(acc.problems)
    acc.feed("5")
    [problem] = acc.problems
    assert (problem.kind, problem.event) == ("invalid_chunk", 2)


def test_the_suite_is_whole() -> None:
    assert len(CASES) >= 590


def test_no_two_cases_prove_the_same_rule() -> None:
    rules = [case.rule for case in CASES]
    assert [rule for rule in rules if rules.count(rule) > 1] == []


def test_every_file_agrees_with_itself() -> None:
    for case in CASES:
        assert case.rule.startswith("SPEC "), case.name
        assert case.rule.endswith("."), case.name
        assert case.server, case.name
        assert case.body is None or case.chunks == [], case.name
        assert case.encoding in {"utf-8", "latin-1" if case.body else "utf-8"}, case.name
        assert (case.status == "failed") == ("server_error" in case.counts), case.name
        assert all(isinstance(each, str) or each["count"] > 1 for each in case.problems), case.name
        assert (case.error is not None) == (case.status == "failed"), case.name
