"""`accumulator inspect`: one stream to look at."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from accumulator import cli

pytest.importorskip("rich", reason="the extra 'cli' is not installed")


def a_chunk(delta: object, **fields: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": delta}], **fields}


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


def lines_of(rows: Iterable[object]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_what_a_server_wrote_is_shown_and_commands_no_terminal(show: Show, tmp_path: Path) -> None:
    svg = tmp_path / "out.svg"
    rows = [
        {"time": t, "chunk": a_chunk({"content": "[red]\x1b[2Jx\x07"})} for t in (1.0, 1.5, 3.0)
    ]
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
    lines = [json.dumps({"chunk": a_chunk({"content": "x"})}), *NO_ROWS, *end]
    shown, told = inspect("\n".join(lines).encode())
    wrong = shown.count("malformed_json") + shown.count("invalid_chunk") + told.count(": bad row: ")
    assert wrong == len(NO_ROWS)


def test_lines_of_sse_among_rows_are_no_problem(show: Show) -> None:
    lines = [json.dumps({"chunk": a_chunk({"content": "x"})}), "", ": comment"]
    lines.append("data: " + json.dumps({"choices": [{"index": 0, "finish_reason": "stop"}]}))
    shown = show("\n".join([*lines, "", "data: [DONE]"]).encode())
    assert "problems" not in shown
    assert "complete" in shown


LARGE = json.dumps(a_chunk({"content": "x" * 17_000_000})).encode()


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize(
    ("data", "limit"),
    [
        (b'{"chunk": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "depth"),
        (b"data: %b\n\n" % LARGE, "event_bytes"),
    ],
    ids=["depth", "event_bytes"],
)
def test_a_stream_past_a_limit_says_which(data: bytes, limit: str, show: Show) -> None:
    assert f"limit {limit}" in show(data)


def test_a_pipe_is_read(tmp_path: Path) -> None:
    data = json.dumps(a_chunk({"content": "piped"})).encode()
    command = [sys.executable, "-m", "accumulator", "inspect", "/dev/stdin"]
    done = subprocess.run(command, input=data, capture_output=True, check=True)
    assert b"piped" in done.stdout


def test_ctrl_c_ends_it_quietly(monkeypatch: pytest.MonkeyPatch, inspect: Inspect) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("accumulator._logs.inspect._show", interrupted)
    assert inspect(BODY, code=130) == ("", "")


def test_one_key_for_two_things_is_wrong_usage(inspect: Inspect) -> None:
    _, told = inspect(BODY, "--time", "chunk", code=2)
    assert "must each name a different key" in told


def test_a_compressed_file_is_read(show: Show) -> None:
    data = json.dumps(a_chunk({"content": "packed"})).encode()
    for text in (data, b"data: %b\n\n" % data):
        assert "packed" in show(gzip.compress(text))


# What a file contains that is not a stream, and what is said about it.
NO_STREAM: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "no chunk was read"),
    "prose": (b"This is no stream.\n", "no chunk was read"),
    "comments": (b": waiting\n\n", "no chunk was read"),
    "other JSON": (b'{"x": 1}\n{"x": 2}\n', "no chunk was read"),
    "broken JSON": (b'{"x": 1\n', "no chunk was read"),
    "another compression": (b"\x1f\x9d\x90" + bytes(20), "no chunk was read"),
    "damaged": (b"\x1f\x8bnothing of the sort", "Unknown compression method"),
}
NO_PROBLEM = ("nothing", "comments", "other JSON", "damaged")


@pytest.mark.parametrize("name", NO_STREAM)
def test_what_is_no_stream_is_said_to_be_none(name: str, inspect: Inspect) -> None:
    data, why = NO_STREAM[name]
    output, errors = inspect(data, code=5)
    assert f"log: {why}" in errors
    assert ("problems" in output) == (name not in NO_PROBLEM)


@pytest.mark.parametrize("indent", [None, 2])
def test_an_error_in_place_of_a_stream_is_shown(indent: int | None, show: Show) -> None:
    shown = show(json.dumps({"error": {"message": "overloaded"}}, indent=indent).encode())
    assert "failed" in shown
    assert "server_error" in shown


def some_rows() -> bytes:
    rows = [
        {"id": id, "seq": seq, "time": seq, "chunk": a_chunk({"content": f"{id}{seq} "})}
        for seq in (1, 0, 2)
        for id in "abc"
    ]
    return lines_of(rows)


@pytest.mark.parametrize(("asked", "id"), [([], "a"), (["--stream", "b"], "b")])
def test_one_stream_of_many_is_shown_and_the_others_are_named(
    asked: list[str], id: str, inspect: Inspect
) -> None:
    output, errors = inspect(some_rows(), *asked)
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
    data = lines_of(a_chunk({"content": f"{id}"}, id=id) for id in "xyx")
    assert "content: xyx" in show(data)  # as one server sent it
    assert "content: xx" in show(data, "--stream", "x")


@pytest.mark.usefixtures("wide")
def test_a_problem_is_shown_with_its_byte_and_path(show: Show) -> None:
    first = b"data: %b\n\n" % json.dumps(a_chunk({"content": "x"})).encode()
    second = b"data: %b\n\n" % json.dumps(a_chunk({"content": 7})).encode()
    [row] = [line for line in show(first + second).splitlines() if "invalid_field" in line]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[:4] == ["invalid_field", "2", str(len(first)), "$.choices[0].delta.content"]
    # The bytes of rows are not those of a body.
    data = json.dumps({"chunk": a_chunk({"content": 7})}).encode()
    [row] = [line for line in show(data).splitlines() if "invalid_field" in line]
    assert [cell.strip() for cell in row.strip("│").split("│")][1:3] == ["1", ""]


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
    data = "".join(f"data: {json.dumps(each)}\n\n" for each in chunks).encode()
    assert part in show(data, code=5 if "invalid" in part else 0)


@pytest.mark.parametrize(
    "times",
    [
        [0, 0.5, 2],
        ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5+00:00", "2026-01-01T00:00:02.000000001Z"],
    ],
)
def test_times_are_seconds_or_iso_8601(times: list[object], show: Show) -> None:
    rows = [{"at": time, "chunk": a_chunk({"content": "x"})} for time in times]
    shown = show(lines_of(rows), "--time", "at")
    assert "3 chunks in 2.000 s" in shown
    assert "longest pause 1.500 s" in shown


@pytest.mark.parametrize("times", [[], [1], [1, "never"], [1, None], [5, 5, 5]])
def test_without_two_times_there_is_no_picture(times: list[object], show: Show) -> None:
    rows = [{"time": time, "chunk": a_chunk({"content": "x"})} for time in [*times, None]]
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
