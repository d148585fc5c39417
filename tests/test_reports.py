"""Streams that people reported, each reduced to what the report says is right, in every form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import reference

from accumulator import DEFAULT_RULES, Accumulator


def body_of(report: dict[str, Any]) -> bytes:
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


def check(report: dict[str, Any], completion: object, error: object) -> None:
    assert without_empty(completion) == without_empty(report["completion"])
    assert error == report["server_error"]


def check_package(report: dict[str, Any], acc: Accumulator) -> None:
    acc.close()
    check(report, acc.snapshot().to_dict(), acc.server_error)


def test_the_second_reducer_gives_what_the_report_says(report_file: Path) -> None:
    report = json.loads(report_file.read_text("utf-8"))
    outcome = reference.reduce_body(body_of(report))
    check(report, outcome.completion, outcome.error)


@pytest.mark.parametrize("size", [10**9, 1], ids=["whole", "byte by byte"])
def test_bytes_give_what_the_report_says(report_file: Path, size: int) -> None:
    report = json.loads(report_file.read_text("utf-8"))
    body, acc = body_of(report), Accumulator()
    for start in range(0, len(body), size):
        acc.feed_sse(body[start : start + size])
    check_package(report, acc)


def test_lines_give_what_the_report_says(report_file: Path) -> None:
    report = json.loads(report_file.read_text("utf-8"))
    acc = Accumulator()
    for line in body_of(report).splitlines(keepends=True):
        acc.feed_line(line)
    check_package(report, acc)


@pytest.mark.parametrize("form", ["json", "mappings"])
def test_chunks_give_what_the_report_says(report_file: Path, form: str) -> None:
    report = json.loads(report_file.read_text("utf-8"))
    acc = Accumulator()
    for chunk in report.get("chunks", ()):
        acc.feed(json.dumps(chunk) if form == "json" else chunk)
    if "chunks" in report:
        check_package(report, acc)


def both(report: dict[str, Any], rules: dict[str, Any]) -> list[dict[str, Any]]:
    """Reduce a report by rules of the caller's, with the second reducer and with the package."""
    acc = Accumulator(rules=DEFAULT_RULES.replace(rules))
    acc.feed_sse(body_of(report))
    acc.close()
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
