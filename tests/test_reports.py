"""Streams that people reported, each reduced to what the report says is right, in every form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import reference
from streamed import cut, read_all, read_whole

from accumulator import DEFAULT_RULES, Accumulator

Report = dict[str, Any]


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
    return {
        key: item for key, item in kept.items() if item is not None and item not in ("", [], {})
    }


def check(report: Report, completion: object, error: object) -> None:
    assert without_empty(completion) == without_empty(report["completion"])
    assert error == report["server_error"]


def check_package(report: Report, acc: Accumulator) -> None:
    acc.close()
    check(report, acc.snapshot().to_dict(), acc.server_error)


def test_the_second_reducer_gives_what_the_report_says(report: Report) -> None:
    outcome = reference.reduce_body(body_of(report))
    check(report, outcome.completion, outcome.error)


@pytest.mark.parametrize("size", [10**9, 1], ids=["whole", "byte by byte"])
def test_bytes_give_what_the_report_says(report: Report, size: int) -> None:
    check_package(report, read_all(cut(body_of(report), size)))


def test_lines_give_what_the_report_says(report: Report) -> None:
    acc = Accumulator()
    for line in body_of(report).splitlines(keepends=True):
        acc.feed_line(line)
    check_package(report, acc)


@pytest.mark.parametrize("form", ["json", "mappings"])
def test_chunks_give_what_the_report_says(report: Report, form: str) -> None:
    acc = Accumulator()
    for chunk in report.get("chunks", ()):
        acc.feed(json.dumps(chunk) if form == "json" else chunk)
    if "chunks" in report:
        check_package(report, acc)


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
