"""The laws of SPEC section 10 as properties."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import reference
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import CHOICES, JSON, ODD_STREAMS, STREAMS, bodies, cut, rendered
from streamed import cut as cut_to
from streamed import fed, read_all, read_lines, read_whole, spoil

from accumulator import (
    Accumulator,
    AccumulatorError,
    ChatCompletion,
    LimitExceededError,
    Limits,
    ServerError,
)
from accumulator.errors import LOSSY_KINDS


def outcome(acc: Accumulator) -> tuple[object, ...]:
    """Everything that may not depend on how the bytes were cut."""
    acc.close()
    problems = [(p.kind, p.message, p.event, p.offset, p.path, p.count) for p in acc.problems]
    return acc.snapshot().to_dict(), acc.status, problems


def kinds(acc: Accumulator) -> dict[str, int]:
    return {**acc.problem_counts}


@given(st.data(), bodies(ODD_STREAMS))
def test_law_1_any_cut_of_the_bytes_gives_the_same_result(data: st.DataObject, body: bytes) -> None:
    expected = outcome(read_whole(body))
    assert outcome(read_all(data.draw(cut(body)))) == expected
    assert outcome(read_all(cut_to(body, 1))) == expected


def assert_alike(acc: Accumulator, expected: Accumulator) -> None:
    """Compare what may not depend on the form of a stream, as an event's offset does."""
    assert outcome(acc)[:2] == outcome(expected)[:2]
    assert kinds(acc) == kinds(expected)


@given(ODD_STREAMS)
def test_law_2_chunks_lines_and_body_give_the_same_result(chunks: list[object]) -> None:
    body = rendered(chunks)
    texts = [*map(json.dumps, chunks)]
    by_json_line = read_lines(f"data: {text}\n" for text in texts)
    for acc in (read_lines(body.splitlines()), fed(texts), by_json_line):
        assert_alike(acc, read_whole(body))


@given(bodies(ODD_STREAMS))
def test_law_2_the_lines_of_any_body_give_the_same_result(body: bytes) -> None:
    assert_alike(read_lines(reference.split_lines(body)), read_whole(body))


@given(ODD_STREAMS)
def test_law_2_a_mapping_is_read_as_its_json_is(chunks: list[object]) -> None:
    objects = [chunk for chunk in chunks if isinstance(chunk, dict)]
    assert_alike(fed(objects), fed(map(json.dumps, objects)))


def texts_of(completion: dict[str, Any]) -> Iterator[tuple[object, str, object]]:
    """Yield the texts of a completion, each with its choice and its name."""
    for choice in completion["choices"]:
        message = choice.get("message", {})
        if "message" not in choice:  # else it may repeat what deltas bring
            yield choice["index"], "text", choice.get("text")
        for name in ("content", "refusal", "reasoning", "reasoning_content"):
            yield choice["index"], name, message.get(name)
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            function = call.get("function")
            arguments = function.get("arguments") if isinstance(function, dict) else None
            yield choice["index"], "arguments", arguments


def check_law_3(whole: dict[str, Any], cut_off: dict[str, Any]) -> None:
    answers: dict[tuple[object, str], list[str]] = {}
    for index, name, text in texts_of(whole):
        answers.setdefault((index, name), []).extend([text] if isinstance(text, str) else [])
    for index, name, text in texts_of(cut_off):
        # Later calls may be sorted in between, so each is looked for. What is not a text now is a
        # list of parts, or among the extras.
        found = answers.get((index, name), [])
        is_placeholder = name == "arguments" and text == "{}"
        if isinstance(text, str) and text and not is_placeholder and (found or name == "arguments"):
            assert any(answer.startswith(text) for answer in found)


@given(st.data(), bodies())
def test_law_3_a_body_cut_after_any_byte_gives_a_prefix(data: st.DataObject, body: bytes) -> None:
    part = body[: data.draw(st.integers(0, len(body)))]
    whole, cut_off = read_whole(body).snapshot(), read_whole(part).snapshot()
    check_law_3(whole.to_dict(), cut_off.to_dict())


@given(st.lists(CHOICES, min_size=1, max_size=6))
def test_law_7_interleaving_choices_in_another_order_changes_nothing(
    choices: list[dict[str, object]],
) -> None:
    orders = in_other_orders(choices)
    accs = [*map(fed, orders)]
    for acc in accs:
        assert acc.snapshot() == accs[0].snapshot()
        assert acc.server_error == accs[0].server_error
        assert kinds(acc) == kinds(accs[0])


def in_other_orders(choices: list[dict[str, object]]) -> list[list[object]]:
    """Put choices into chunks of their own, in the order given and by index, and into one."""
    indexed = [{**choice, "index": choice.get("index", 0), "usage": None} for choice in choices]
    # A stable sort keeps the order within each choice.
    by_index = sorted(indexed, key=lambda choice: str(choice["index"]))
    one_each: list[list[object]] = [
        [{"choices": [choice]} for choice in order] for order in (indexed, by_index)
    ]
    return [*one_each, [{"choices": indexed}]]


@given(st.binary(max_size=200))
@example(b"data: " + b"[" * 100_000 + b"\n\n")
@example(b'data: {"choices":[{"index":' + b"9" * 5000 + b"}]}\n\n")
def test_law_8_no_bytes_make_feed_raise(data: bytes) -> None:
    for feed in ("feed", "feed_sse", "feed_line"):
        acc = Accumulator()
        with suppress(LimitExceededError):
            getattr(acc, feed)(data)
        with suppress(LimitExceededError):
            acc.close()
        acc.snapshot().to_json()


@given(JSON)
def test_law_8_no_json_makes_feed_raise(value: object) -> None:
    acc = Accumulator()
    acc.feed(json.dumps(value))
    acc.feed(json.dumps({"choices": [{"delta": value}]}))
    acc.feed(json.dumps({"choices": [{"delta": {"tool_calls": [{"function": value}, value]}}]}))
    acc.feed(json.dumps({"choices": [value, {"text": value, "message": value, "error": value}]}))
    for name in ("thinking_blocks", "reasoning_details", "provider_specific_fields", "tool_calls"):
        acc.feed(json.dumps({"choices": [{"delta": {name: value}}]}))
    acc.feed(json.dumps({"usage": value, "x_groq": value}))
    acc.snapshot().to_json()


@given(bodies(ODD_STREAMS))
def test_law_8_strict_raises_nothing_but_accumulator_errors(body: bytes) -> None:
    acc = Accumulator(strict=True)
    raised = None
    for _ in range(20):  # the next call reads what follows an event that raised
        try:
            acc.feed_sse(b"" if raised else body)
            acc.close()
        except AccumulatorError as error:
            raised = error
        except ValueError:
            break  # closed by a close that raised
    assert (raised is not None) == bool(read_whole(body).problems)


@given(bodies(ODD_STREAMS))
def test_the_second_reducer_agrees(body: bytes) -> None:
    acc = read_whole(body)
    judge = reference.reduce_body(body)
    assert acc.snapshot().to_dict() == judge.completion
    assert acc.status == judge.status
    assert kinds(acc) == Counter(judge.problems)


@given(STREAMS)
def test_a_completion_is_given_back_by_from_dict(chunks: list[object]) -> None:
    acc = fed(chunks)
    completion = acc.snapshot()
    try:
        again = ChatCompletion.from_dict(completion.to_dict())
    except ValueError:
        assert "invalid_field" in kinds(acc)  # a value of a wrong type is in the dict
    else:
        assert again.to_dict() == completion.to_dict()
    assert json.loads(completion.to_json()) == json.loads(json.dumps(completion.to_dict()))


@given(STREAMS, st.integers(0, 6))
def test_a_snapshot_never_changes(chunks: list[object], at: int) -> None:
    acc = Accumulator()
    for chunk in chunks[:at]:
        acc.feed(chunk)
    snapshot = acc.snapshot()
    before = json.dumps(snapshot.to_dict())
    for chunk in chunks[at:]:
        acc.feed(chunk)
        acc.checkpoint()
    assert json.dumps(snapshot.to_dict()) == before


@given(ODD_STREAMS)
def test_the_callers_chunk_is_never_changed_or_kept(chunks: list[object]) -> None:
    objects = [chunk for chunk in chunks if isinstance(chunk, dict)]
    acc = Accumulator()
    for chunk in objects:
        before = json.dumps(chunk)
        acc.feed(chunk)
        assert json.dumps(chunk) == before
    expected = json.dumps(acc.snapshot().to_dict())
    for chunk in objects:
        spoil(chunk)
    assert json.dumps(acc.snapshot().to_dict()) == expected


@given(STREAMS)
def test_a_limit_passed_leaves_the_state_as_it_was(chunks: list[object]) -> None:
    acc = Accumulator(limits=Limits(choices=2, tool_calls=2, total_bytes=600))
    for chunk in chunks:
        before = outcome_now(acc)
        try:
            acc.feed(json.dumps(chunk))
        except LimitExceededError as error:
            assert outcome_now(acc) == before
            assert error.partial is not None
            assert error.partial.to_dict() == before[0]
    for choice in acc.snapshot().choices:
        assert len(choice.message.tool_calls or ()) <= 2
    assert len(acc.snapshot().choices) <= 2


def outcome_now(acc: Accumulator) -> tuple[dict[str, object], str, dict[str, int]]:
    return acc.snapshot().to_dict(), acc.status, kinds(acc)


@given(bodies(ODD_STREAMS))
def test_completion_returns_only_what_is_whole(body: bytes) -> None:
    acc = read_whole(body)
    try:
        completion = acc.completion()
    except AccumulatorError as error:
        assert error.partial == acc.snapshot()
        assert error.problems == acc.problems
        assert acc.status != "complete" or LOSSY_KINDS & acc.problem_counts.keys()
        assert isinstance(error, ServerError) is (acc.status == "failed")
    else:
        assert completion == acc.snapshot()
        assert acc.status == "complete"
        assert not LOSSY_KINDS & acc.problem_counts.keys()
