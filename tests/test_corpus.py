"""Recorded and reported streams: both reducers agree, and give what a report says is right."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import reference
from streamed import cut, fed, read_all, read_lines, read_whole

from accumulator import DEFAULT_RULES, Accumulator

Report = dict[str, Any]


def in_every_form(body: bytes, size: int) -> list[Accumulator]:
    return [read_whole(body), read_all(cut(body, size)), read_lines(body.splitlines(True))]


def test_the_second_reducer_agrees_on_a_recording(corpus_stream: Path) -> None:
    body = corpus_stream.read_bytes()
    judge = reference.reduce_body(body)
    for acc in in_every_form(body, 7):
        assert acc.snapshot().to_dict() == judge.completion
        assert acc.status == judge.status
        assert dict(acc.problem_counts) == Counter(judge.problems)


def body_of(report: Report) -> bytes:
    if "body" in report:
        body: str = report["body"]
        return body.encode()
    return b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in report["chunks"])


def without_empty(value: object) -> object:
    """Leave out what the reports leave out: null, empty strings, lists and objects."""
    if isinstance(value, list):
        return [without_empty(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: without_empty(item) for key, item in value.items()}
    return {key: item for key, item in kept.items() if item not in (None, "", [], {})}


def test_both_reducers_give_what_a_report_says_in_every_form(report: Report) -> None:
    body, chunks = body_of(report), report.get("chunks")
    outcome = reference.reduce_body(body)
    found = [(outcome.completion, outcome.error)]
    accs = in_every_form(body, 1)
    if chunks is not None:
        accs += [fed(chunks), fed(map(json.dumps, chunks))]
    found += [(acc.snapshot().to_dict(), acc.server_error) for acc in accs]
    for completion, error in found:
        assert without_empty(completion) == without_empty(report["completion"])
        assert error == report["server_error"]


def both(report: Report, rules: dict[str, Any]) -> list[dict[str, Any]]:
    """Reduce a report by rules of the caller's, with the second reducer and with the package."""
    acc = read_whole(body_of(report), rules=DEFAULT_RULES.replace(rules))
    return [reference.reduce_body(body_of(report), rules).completion, acc.snapshot().to_dict()]


def test_cumulative_arguments_are_read_by_a_rule_of_the_callers(reports: Path) -> None:
    report = json.loads((reports / "01-cumulative-arguments.json").read_text("utf-8"))
    for completion in both(report, {"delta.tool_calls.function.arguments": "last"}):
        [call] = completion["choices"][0]["message"]["tool_calls"]
        assert json.loads(call["function"]["arguments"]) == {"pattern": "*.py", "path": "src"}


def test_events_of_one_object_a_chunk_are_kept_whole_by_collect(reports: Path) -> None:
    report = json.loads((reports / "12-vendor-events-one-object-a-chunk.json").read_text("utf-8"))
    sent = [chunk["server_tool_event"] for chunk in report["chunks"] if "choices" not in chunk]
    for completion in both(report, {"chunk.server_tool_event": "collect"}):
        assert completion["server_tool_event"] == sent
