"""`accumulator inspect`: one stream to look at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from accumulator import cli

pytest.importorskip("rich", reason="the extra 'cli' is not installed")


def a_chunk(delta: object = None, **fields: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": delta or {}}], **fields}


def text_chunk(text: str, **fields: object) -> dict[str, object]:
    return a_chunk({"content": text}, **fields)


BODY = b'data: {"choices": [{"index": 0}]}\n\n'
Inspect = Callable[..., tuple[str, str]]
Show = Callable[..., str]


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Print as on a wide terminal."""
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def inspect(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Inspect:
    """Return a function that looks at a file, and returns what is printed and reported."""

    def inspect(data: bytes, *options: str, code: int = 0) -> tuple[str, str]:
        (tmp_path / "log").write_bytes(data)
        assert cli.main(["inspect", str(tmp_path / "log"), *options]) == code
        return capfd.readouterr()

    return inspect


@pytest.fixture
def show(inspect: Inspect) -> Show:
    """Return a function that looks at a file, and returns what is printed."""
    return lambda *given, **code: inspect(*given, **code)[0]


def sse(*chunks: object) -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks)


def lines_of(rows: Iterable[object]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_what_a_server_wrote_is_shown_and_commands_no_terminal(show: Show, tmp_path: Path) -> None:
    svg = tmp_path / "out.svg"
    rows = [{"time": t, "chunk": text_chunk("[red]\x1b[2Jx\x07")} for t in (1.0, 1.5, 3.0)]
    shown = show(lines_of(rows), "--svg", str(svg))
    assert "[red]" in shown
    assert "truncated" in shown
    assert "the stream stopped before its end, after 3 chunks: choice 0 has no finish" in shown
    assert "3 chunks in 2.000 s" in shown
    assert not {"\x1b", "\x07"} & set(shown)
    assert "<svg" in svg.read_text(encoding="utf-8")
    assert "@font-face" not in svg.read_text(encoding="utf-8")


CALL = {"index": 0, "id": "call_1", "function": {"name": "f", "arguments": '{"x": 1}'}}
CUSTOM = {"index": 0, "id": "call_2", "type": "custom", "custom": {"name": "g", "input": "in"}}
SHOWN: dict[str, tuple[dict[str, object], list[str]]] = {
    "an id, a model": (a_chunk({}, id="c-1", model="m-1", created=7), ["c-1", "m-1", "7"]),
    "reasoning": (a_chunk({"reasoning": "think"}), ["reasoning: think"]),
    "content in parts": (a_chunk({"content": [{"type": "text", "text": "x"}]}), ["content: ("]),
    "a call": (a_chunk({"tool_calls": [CALL]}), ["tool calls", "call_1", '{"x": 1}']),
    "a custom call": (a_chunk({"tool_calls": [CUSTOM]}), ["tool calls", "call_2", "in"]),
    "usage": (a_chunk({}, usage={"prompt_tokens": 3}), ["usage", "prompt_tokens"]),
    "a problem": (a_chunk({"content": 7}), ["problems", "invalid_field"]),
    "a long text": (a_chunk({"content": "x" * 2000}), ["(2,000 characters)"]),
}


@pytest.mark.parametrize("form", ["SSE", "rows", "strings", "bare"])
@pytest.mark.parametrize("name", SHOWN)
def test_what_a_stream_has_is_shown_whatever_its_form(name: str, form: str, show: Show) -> None:
    chunk, parts = SHOWN[name]
    text = json.dumps(chunk)
    data = {
        "SSE": f"data: {text}\n\n",
        "rows": json.dumps({"id": "a", "chunk": chunk}) + "\n",
        "strings": json.dumps({"id": "a", "chunk": text}) + "\n",
        "bare": f"{text}\n",
    }[form]
    shown = show(data.encode())
    assert [part for part in parts if part not in shown] == []


NO_ROWS = ['{"chunk": "{no JSON"}', "{no JSON", '{"chunk": "text"}', '{"chunk": [1]}', "text"]


@pytest.mark.parametrize("end", [[], ["data: [DONE]"]])
def test_lines_that_are_no_rows_are_a_problem_of_the_stream(
    end: list[str], inspect: Inspect
) -> None:
    lines = [json.dumps({"chunk": text_chunk("x")}), *NO_ROWS, *end]
    shown, told = inspect("\n".join(lines).encode())
    wrong = shown.count("malformed_json") + shown.count("invalid_chunk") + told.count(": bad row: ")
    assert wrong == len(NO_ROWS)


def test_lines_of_sse_among_rows_are_no_problem(show: Show) -> None:
    row = lines_of([{"chunk": text_chunk("x")}])
    end = sse({"choices": [{"finish_reason": "stop"}]}) + b"data: [DONE]"
    shown = show(row + b"\n: comment\n" + end)
    assert "problems" not in shown
    assert "complete" in shown


PAST: dict[str, bytes] = {
    "depth": b'{"chunk": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
    "event_bytes": sse(text_chunk("x" * 17_000_000)),
}


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("limit", PAST)
def test_a_stream_past_a_limit_says_which(limit: str, show: Show) -> None:
    assert f"limit {limit}" in show(PAST[limit])


def test_a_pipe_is_read() -> None:
    command = [sys.executable, "-m", "accumulator", "inspect", "/dev/stdin"]
    assert b"piped" in subprocess.check_output(command, input=sse(text_chunk("piped")))


def test_what_an_encoding_lacks_is_replaced() -> None:
    command = [sys.executable, "-m", "accumulator", "inspect", "-"]
    rows = lines_of({"time": t, "chunk": text_chunk("größer 世界")} for t in (1.0, 2.0))
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    shown = subprocess.run(command, input=rows, env=environment, check=True, capture_output=True)
    assert "content: größer ??" in shown.stdout.decode("cp1252")


def test_the_picture_does_not_replace_the_recording(inspect: Inspect, tmp_path: Path) -> None:
    path = str(tmp_path / "." / "log")
    told = f"accumulator inspect: {path} is both the input and the output\n"
    assert inspect(BODY, "--svg", path, code=2) == ("", told)
    assert (tmp_path / "log").read_bytes() == BODY


def test_ctrl_c_ends_it_quietly(monkeypatch: pytest.MonkeyPatch, inspect: Inspect) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("accumulator._logs.inspect._show", interrupted)
    assert inspect(BODY, code=130) == ("", "")


def test_one_key_for_two_things_is_wrong_usage(inspect: Inspect) -> None:
    _, told = inspect(BODY, "--time", "chunk", code=2)
    assert "must each name a different key" in told


# What a file contains that is not a stream, what is said about it, and whether it has problems.
NO_STREAM: dict[str, tuple[bytes, str, bool]] = {
    "nothing": (b"", "no chunk was read", False),
    "prose": (b"This is no stream.\n", "no chunk was read", True),
    "comments": (b": waiting\n\n", "no chunk was read", False),
    "other JSON": (b'{"x": 1}\n{"x": 2}\n', "no chunk was read", False),
    "broken JSON": (b'{"x": 1\n', "no chunk was read", True),
    "another compression": (b"\x1f\x9d\x90" + bytes(20), "no chunk was read", True),
    "damaged": (b"\x1f\x8bnothing of the sort", "Unknown compression method", False),
}


@pytest.mark.parametrize(("data", "why", "has_problems"), NO_STREAM.values(), ids=NO_STREAM)
def test_what_is_no_stream_is_said_to_be_none(
    data: bytes, why: str, has_problems: bool, inspect: Inspect
) -> None:
    output, errors = inspect(data, code=5)
    assert f"log: {why}" in errors
    assert ("problems" in output) == has_problems


@pytest.mark.parametrize("indent", [None, 2])
def test_an_error_in_place_of_a_stream_is_shown(indent: int | None, show: Show) -> None:
    shown = show(json.dumps({"error": {"message": "overloaded"}}, indent=indent).encode())
    assert "failed" in shown
    assert "server_error" in shown


@pytest.mark.parametrize(("asked", "id"), [([], "a"), (["--stream", "b"], "b")])
def test_one_stream_of_many_is_shown_and_the_others_are_named(
    asked: list[str], id: str, inspect: Inspect
) -> None:
    rows = [
        {"id": id, "seq": seq, "time": seq, "chunk": text_chunk(f"{id}{seq} ")}
        for seq in (1, 0, 2)
        for id in "abc"
    ]
    output, errors = inspect(lines_of(rows), *asked)
    assert f"content: {id}0 {id}1 {id}2" in output
    assert "3 chunks in 2.000 s, 1.5 a second, longest pause 1.000 s" in output
    others = ", ".join(sorted({*"abc"} - {id}))
    assert errors == (
        f"accumulator inspect: this is stream {id!r}; --stream ID shows another:\n{others}\n"
    )


def test_many_others_are_counted(inspect: Inspect) -> None:
    rows = lines_of({"id": number, "chunk": a_chunk({})} for number in range(30))
    assert inspect(rows)[1].endswith(", 20 and 9 more\n")
    assert inspect(rows, "--stream", "x", code=5)[1].endswith("log: there is no stream 'x'\n")


def test_bare_chunks_of_one_stream_are_shown(show: Show) -> None:
    data = lines_of(text_chunk(id, id=id) for id in "xyx")
    assert "content: xyx" in show(data)  # as one server sent it
    assert "content: xx" in show(data, "--stream", "x")


@pytest.mark.usefixtures("wide")
def test_a_problem_is_shown_with_its_byte_and_path(show: Show) -> None:
    def row(data: bytes) -> list[str]:
        [line] = [line for line in show(data).splitlines() if "invalid_field" in line]
        return [cell.strip() for cell in line.strip("│").split("│")][:4]

    first, second = sse(text_chunk("x")), sse(a_chunk({"content": 7}))
    path = "$.choices[0].delta.content"
    assert row(first + second) == ["invalid_field", "2", str(len(first)), path]
    # The bytes of rows are not those of a body.
    assert row(lines_of([{"chunk": a_chunk({"content": 7})}])) == ["invalid_field", "1", "", path]


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize(
    ("created", "date"),
    [(1_770_000_000, "1770000000 (2026-02-02 02:40:00 UTC)"), (10**15, "1000000000000000 ")],
)
def test_when_it_was_made_is_shown_as_a_date(created: int, date: str, show: Show) -> None:
    assert date in show(json.dumps(a_chunk({}, created=created)).encode())


COLOURED: list[tuple[list[dict[str, object]], str]] = [
    ([{"choices": [{"finish_reason": "stop"}]}], "\x1b[32mcomplete"),
    ([a_chunk({})], "\x1b[33mtruncated"),
    ([{"error": {"code": 1}}], "\x1b[31mfailed"),
    ([{"choices": 7}], "\x1b[31minvalid_chunk"),
]


@pytest.mark.parametrize(("chunks", "part"), COLOURED)
def test_on_a_terminal_how_it_ended_has_a_colour(
    chunks: list[dict[str, object]], part: str, show: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert part in show(sse(*chunks), code=5 if "invalid" in part else 0)


@pytest.mark.parametrize(
    "times",
    [
        [0, 0.5, 2],
        ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5+00:00", "2026-01-01T00:00:02.000000001Z"],
    ],
)
def test_times_are_seconds_or_iso_8601(times: list[object], show: Show) -> None:
    rows = [{"at": time, "chunk": text_chunk("x")} for time in times]
    shown = show(lines_of(rows), "--time", "at")
    assert "3 chunks in 2.000 s" in shown
    assert "longest pause 1.500 s" in shown


@pytest.mark.parametrize(
    "times", [[], [1], [1, "never"], [1, None], [1, "0001-01-01T00:00:00"], [5, 5, 5]]
)
def test_without_two_times_there_is_no_picture(times: list[object], show: Show) -> None:
    rows = [{"time": time, "chunk": text_chunk("x")} for time in [*times, None]]
    assert "chunks over time" not in show(lines_of(rows))


def test_a_compression_that_needs_an_extra_names_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log").write_bytes(b"\x28\xb5\x2f\xfd")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for command in ["inspect"], []:
        assert cli.main([*command, str(tmp_path / "log")]) == 5
        assert "this needs pyarrow: pip install" in capfd.readouterr().err


def test_what_cannot_be_read_or_written_is_said_to_be_so(
    inspect: Inspect, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["inspect", str(tmp_path / "none")]) == 5
    assert capfd.readouterr().err.endswith("none: No such file or directory\n")
    assert cli.main(["inspect", str(tmp_path / "no\n\x1b[2Jne")]) == 5
    assert capfd.readouterr().err.endswith("no  [2Jne: No such file or directory\n")
    told = inspect(BODY, "--svg", str(tmp_path), code=1)[1]
    assert told.endswith(f"{tmp_path}: Is a directory\n")


def test_without_rich_the_extra_is_named(inspect: Inspect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.table", None)
    told = inspect(BODY, code=1)[1]
    assert "this needs rich: pip install 'chunk-accumulator[cli]'" in told
