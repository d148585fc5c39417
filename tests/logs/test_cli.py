"""The command, in this process where its words count and as a process where its behaviour does."""

import gzip
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen, check_output

import pytest
from streamed import content_of, read_terminal

from accumulator import Accumulator, ChatCompletion, cli

Json = dict[str, object]


def a_chunk(text: str, index: int = 0, finish: str | None = None) -> Json:
    return {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish}]}


def sse(*chunks: Json | str) -> bytes:
    texts = [each if isinstance(each, str) else json.dumps(each) for each in chunks]
    return "".join(f"data: {text}\n\n" for text in texts).encode()


def json_lines(*chunks: Json) -> bytes:
    return "".join(f"{json.dumps(chunk, ensure_ascii=False)}\n" for chunk in chunks).encode()


def rows(*given: tuple[str, int | None, Json | str]) -> bytes:
    lines = [json.dumps({"id": id, "seq": seq, "chunk": chunk}) for id, seq, chunk in given]
    return "".join(f"{line}\n" for line in lines).encode()


def documents(output: str) -> list[ChatCompletion]:
    """Read JSON documents that follow one another."""
    found = []
    while output:
        value, end = json.JSONDecoder().raw_decode(output)
        found.append(ChatCompletion.from_dict(value))
        output = output[end:].lstrip()
    return found


def contents(output: str) -> list[object]:
    return [each.choices[0].message.content for each in documents(output) if each.choices]


GRUSS = [a_chunk("Grüße"), a_chunk(" 🌍", finish="stop")]
ERROR: Json = {"error": {"message": "overloaded", "code": 503}}
OFFSET = len(sse(a_chunk("Grüße")))

# A file's bytes; then the exit code, the content printed if there is a completion, and how the last
# line on standard error starts.
TOLD = "FILE: the stream stopped before its end, after 1 chunk: "
FAILED = "the server sent an error: "
MANY: Json = {"choices": [{"index": index} for index in range(2000)]}
CASES: dict[str, tuple[bytes, int, str | None, str]] = {
    "whole SSE": (sse(*GRUSS, "[DONE]"), 0, "Grüße 🌍", ""),
    "whole SSE behind BOM": (b"\xef\xbb\xbf\n" + sse(*GRUSS), 0, "Grüße 🌍", ""),
    "whole JSON Lines": (json_lines(*GRUSS), 0, "Grüße 🌍", ""),
    "whole JSON Lines behind BOM": (b"\xef\xbb\xbf\n" + json_lines(*GRUSS), 0, "Grüße 🌍", ""),
    "truncated": (sse(GRUSS[0]), 3, "Grüße", TOLD),
    "blank": (b"\n\n", 5, None, "FILE: no chunk was read: only comments, blank lines"),
    "empty": (b"", 5, None, "FILE: no chunk was read: nothing came "),
    "Parquet": (b"PAR1\x15\x04{}\nPAR1", 5, None, "FILE: cannot be read: it is Parquet, which "),
    "failed": (
        sse(GRUSS[0], ERROR), 4, "Grüße", f"FILE: server_error: event 2, byte {OFFSET}: {FAILED}"
    ),
    "failed before it began": (
        json.dumps(ERROR, indent=4).encode(), 4, None,
        f"FILE: server_error: event 1, byte 0: {FAILED}",
    ),
    "undecodable": (
        sse(GRUSS[0], "[1]", GRUSS[1]), 5, "Grüße 🌍",
        f"FILE: invalid_chunk: event 2, byte {OFFSET}: ",
    ),
    "compressed": (gzip.compress(sse(*GRUSS, "[DONE]")), 0, "Grüße 🌍", ""),
    "empty and compressed": (gzip.compress(b""), 5, None, "FILE: no chunk was read: nothing came "),
    "compressed JSON Lines": (gzip.compress(json_lines(*GRUSS)), 0, "Grüße 🌍", ""),
    "compressed and cut": (
        gzip.compress(sse(*GRUSS))[:-4], 5, "Grüße 🌍",
        "FILE: cannot be read: Compressed file ended before the end-of-stream marker",
    ),
    "compressed and cut before a chunk": (
        gzip.compress(b": waiting\n\n")[:-4], 5, None, "FILE: cannot be read: Compressed file ended"
    ),
    "compressed and cut behind many comments": (
        gzip.compress(b": waiting\n\n" * 10_000)[:-4],
        5, None, "FILE: cannot be read: Compressed file ended",
    ),
    "compressed, and damaged at once": (
        b"\x1f\x8bnothing of the sort", 5, None, "FILE: cannot be read: Unknown compression method"
    ),
    "compressed by another program": (
        b"\x1f\x9d\x90" + bytes(20), 5, None,
        "FILE: no chunk was read: the body is compressed (or is not text)",
    ),
    "rows of one stream": (
        rows(("a", 1, GRUSS[1]), ("a", 0, GRUSS[0]), ("a", 1, GRUSS[1])), 0, "Grüße 🌍", ""
    ),
    "rows without numbers": (
        rows(("a", None, GRUSS[0]), ("a", None, GRUSS[1])), 0, "Grüße 🌍", ""
    ),
    "rows that begin with a long one": (
        rows(("a", 0, "x" * 90_000), ("a", 1, GRUSS[1])), 5, " 🌍",
        "FILE, a: malformed_json: event 1: ",
    ),
    "rows, compressed": (gzip.compress(rows(("a", 0, GRUSS[1]))), 0, " 🌍", ""),
    "rows, compressed and cut": (
        gzip.compress(rows(("a", 0, GRUSS[1])))[:-4], 5, " 🌍",
        "FILE: cannot be read: Compressed file ended",
    ),
    "a bad row at the beginning": (
        b'"a","chunk":{}}\n' + rows(("a", 0, GRUSS[1])), 5, " 🌍", "FILE:1: bad row: "
    ),
    "a bad row": (
        rows(("a", 0, GRUSS[1])) + b"{x\n", 5, " 🌍", "FILE:2: bad row: JSON is malformed"
    ),
    "rows of a stream that was cut off": (
        rows(("a", 0, GRUSS[0])), 3, "Grüße", TOLD.replace("FILE", "FILE, a")
    ),
    "rows of a stream that failed": (
        rows(("a", 0, GRUSS[0]), ("a", 1, ERROR)), 4, "Grüße",
        f"FILE, a: server_error: event 2: {FAILED}",
    ),
    "rows of a stream past a limit": (
        rows(("a", 0, GRUSS[0]), ("a", 1, MANY)), 5, "Grüße",
        "FILE, a: the stream passed the limit choices",
    ),
    "a row with an odd chunk": (
        rows(("a", 0, "x"), ("a", 1, GRUSS[1])), 5, " 🌍", "FILE, a: malformed_json: event 1: "
    ),
    "past a limit": (
        sse(GRUSS[0], MANY, GRUSS[1]), 5, "Grüße", "FILE: the stream passed the limit choices=1024"
    ),
    "odd but whole": (
        sse({"id": "a"}, {"id": "b"}, *GRUSS), 0, "Grüße 🌍",
        "FILE: id_changed: event 2, byte 19, $.id: ",
    ),
    "odd in more ways than are kept": (
        sse(*[a_chunk("") | {"id": str(number)} for number in range(151)], *GRUSS), 0, "Grüße 🌍",
        "FILE: 149 more problems",
    ),
}  # fmt: skip


Run = Callable[..., tuple[str, str]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a test keeps its stream."""
    return tmp_path / "stream"


@pytest.fixture
def run(path: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Return a function that reads a body by the command; what is printed, and what is told."""

    def run(body: bytes, *options: str, code: int = 0) -> tuple[str, str]:
        path.write_bytes(body)
        assert cli.main([*options, str(path)]) == code
        output, errors = capfd.readouterr()
        return output, errors.replace(str(path), "FILE")

    return run


@pytest.mark.parametrize(("body", "code", "content", "told"), CASES.values(), ids=CASES)
def test_exit_code_output_and_problems(
    body: bytes, code: int, content: str | None, told: str, run: Run
) -> None:
    output, errors = run(body, code=code)
    assert contents(output) == ([] if content is None else [content])
    assert output.endswith("\n}\n") or not output
    assert bool(errors) == bool(told)
    assert not errors or errors.splitlines()[-1].startswith(told)
    assert run(body, "--text", code=code) == ("" if content is None else f"{content}\n", errors)


def test_json_is_indented_and_keeps_its_characters(run: Run) -> None:
    output, _ = run(sse(*GRUSS))
    assert output.startswith('{\n  "object": "chat.completion",\n  "choices": [\n    {\n')
    assert '\n        "content": "Grüße 🌍",\n' in output


def test_each_file_gives_one_document_and_the_worst_gives_the_exit_code(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bodies = {"whole": sse(*GRUSS), "truncated": sse(a_chunk("…")), "failed": sse(ERROR)}
    for name, body in bodies.items():
        (tmp_path / name).write_bytes(body)
    names = [str(tmp_path / name) for name in (*bodies, "missing")]
    for chosen, code in (([0, 0], 0), ([1, 0], 3), ([0, 2, 1], 4), ([0, 1, 2, 3], 5)):
        capfd.readouterr()
        assert cli.main([names[place] for place in chosen]) == code
    output, errors = capfd.readouterr()
    assert contents(output) == ["Grüße 🌍", "…"]
    assert [line.partition(":")[0] for line in errors.splitlines()] == names[1:]


@pytest.mark.parametrize(("name", "reason"), [("", "Is a directory"), ("no\nsuch", "No such file")])
def test_what_cannot_be_opened_is_unreadable(
    name: str, reason: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([str(tmp_path / name)]) == 5
    output, errors = capfd.readouterr()
    assert (output, errors.count("\n")) == ("", 1)
    line = str(tmp_path / name).replace("\n", " ")
    assert errors.startswith(f"{line}: cannot be read: {reason}")


@pytest.mark.parametrize("arguments", [["--no-such-option"], ["--text=yes"]])
def test_wrong_usage_is_2(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    output, errors = capfd.readouterr()
    assert output == ""
    assert "usage: accumulator" in errors


def test_several_streams_of_rows_are_a_line_each(run: Run) -> None:
    body = rows(*((id, seq, GRUSS[seq]) for seq in (0, 1) for id in "ba"))
    found = [json.loads(line) for line in run(body)[0].splitlines()]
    assert [each["choices"][0]["message"]["content"] for each in found] == ["Grüße 🌍"] * 2
    assert run(body, "--text")[0] == "Grüße 🌍\nGrüße 🌍\n"


def test_started_on_a_terminal_without_a_file_it_explains_itself() -> None:
    terminal, ours = os.openpty()
    with start(stdin=terminal) as process:
        output, errors = process.communicate()
    os.close(terminal)
    os.close(ours)
    told = b"accumulator: name a file, or give a stream on standard input; see accumulator --help\n"
    assert (process.returncode, output, errors) == (2, b"", told)


def test_help_names_the_exit_codes(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    shown = capfd.readouterr().out
    assert "  4  a server reported an error\n" in shown
    assert shown.endswith("\n\n" + cli._EPILOG)


def test_version(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    name, version = capfd.readouterr().out.split()
    assert name == "accumulator"
    assert version[0].isdigit()


def test_a_servers_words_cannot_command_the_terminal(run: Run) -> None:
    body = sse({"error": {"message": "\x1b[2J\r\nwhole: really\u2028\x9b"}})
    [line] = run(body, code=4)[1].split("\n")[:-1]
    assert line.isprintable()


# --- --text ---


def answer(finish: str | None = "stop", **delta: object) -> Json:
    return {"choices": [{"delta": delta, "finish_reason": finish}]}


CALLING = answer(
    tool_calls=[
        {"index": 0, "id": "c1", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}},
        {"index": 1, "id": "c2", "type": "custom", "custom": {"name": "run", "input": "ls"}},
        {"index": 2, "id": "c3"},
    ]
)
CALLED = 'weather({"city": "Rome"})\nrun(ls)\nc3()\n'
TEXTS: dict[str, tuple[bytes, str]] = {
    "an end of line is not doubled": (sse(a_chunk("a\n", finish="stop")), "a\n"),
    "no text, no line": (sse(a_chunk("", finish="stop")), ""),
    "the first choice only": (
        sse(a_chunk("b", 1), a_chunk("a"), a_chunk("b", 1, "stop"), a_chunk("a", 0, "stop")), "aa\n"
    ),
    "the first choice there is": (sse(a_chunk("b", 1), a_chunk("b", 1, "stop")), "bb\n"),
    "the text among parts": (
        sse(
            answer(None, content=[{"type": "text", "text": "a"}]),
            answer(None, content=[{"type": "thinking", "thinking": []}]),
            answer(content="b"),
        ),
        "ab\n",
    ),
    "of a text completion": (
        sse({"choices": [{"text": "a"}]}, {"choices": [{"text": "b", "finish_reason": "stop"}]}),
        "ab\n",
    ),
    "a surrogate pair cut in two": (
        sse(answer(None, content="\ud83d"), answer(content="\ude00")), "😀\n"
    ),
    "calls": (sse(CALLING), CALLED),
    "a text and calls": (sse(a_chunk("I look."), CALLING), "I look.\n" + CALLED),
}  # fmt: skip


@pytest.mark.parametrize("size", [65536, 7, 1])
@pytest.mark.parametrize(("body", "text"), TEXTS.values(), ids=TEXTS)
def test_text_is_that_of_the_first_choice(
    body: bytes, text: str, size: int, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accumulator._logs.recording.BLOCK", size)
    assert run(body, "--text")[0] == text


def test_a_refusal_alone_is_told(run: Run) -> None:
    chunk = answer(refusal="I can't.")
    for body, name in ((sse(chunk), "FILE"), (rows(("a", 0, chunk)), "FILE, a")):
        assert run(body, "--text") == ("", f"{name}: refusal: I can't.\n")


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_on_a_terminal_the_reasoning_is_shown_dimmed(field: str, path: Path) -> None:
    thoughts = [answer(None, **{field: text}) for text in ("Let me", " see.")]
    path.write_bytes(sse(*thoughts, *GRUSS))
    ours, theirs = os.openpty()
    with start("--text", str(path), stdout=theirs) as process:
        os.close(theirs)
        shown = read_terminal(ours)
    assert process.returncode == 0
    assert shown.decode() == "\x1b[2mLet me see.\x1b[22m\r\n\r\nGrüße 🌍\r\n"
    with start("--text", str(path)) as process:
        assert process.communicate()[0].decode() == "Grüße 🌍\n"


def test_the_cost_of_text_is_linear(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []
    look = Accumulator.snapshot

    def counted(accumulator: Accumulator) -> ChatCompletion:
        completion = look(accumulator)
        looked_at.append(len(str(content_of(completion))))
        return completion

    monkeypatch.setattr(Accumulator, "snapshot", counted)
    length = 4_000_000
    body = sse(*[a_chunk("x" * 1000)] * (length // 1000))
    assert run(body, "--text", code=3)[0] == "x" * length + "\n"
    assert sum(looked_at) < 20 * length


# --- as a process ---


def start(*arguments: str, stdin: int = PIPE, stdout: int = PIPE) -> Popen[bytes]:
    command = [sys.executable, "-m", "accumulator", *arguments]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    return Popen(command, stdin=stdin, stdout=stdout, stderr=PIPE, env=environment)


def feed(process: Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(data)
    process.stdin.flush()


def printed(process: Popen[bytes], size: int) -> bytes:
    assert process.stdout is not None
    return process.stdout.read(size)


@contextmanager
def running(*arguments: str) -> Iterator[Popen[bytes]]:
    with start(*arguments) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_standard_input_is_read_where_no_file_is_named(arguments: list[str]) -> None:
    with start(*arguments) as process:
        output, errors = process.communicate(sse(GRUSS[0]))
    assert process.returncode == 3
    assert contents(output.decode()) == ["Grüße"]
    assert errors == (
        b"standard input: the stream stopped before its end, after 1 chunk: "
        b"choice 0 has no finish reason\n"
    )


@pytest.mark.parametrize("render", [sse, json_lines])
def test_text_is_printed_as_it_arrives(
    render: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    with running("--text") as process:
        for text in "Gr", "üß", "e 🌍":
            body = render(a_chunk(text))
            feed(process, body[:-9])
            feed(process, body[-9:])
            # The command waits for input now. Had it not printed this, the read would not return.
            assert printed(process, len(text.encode())).decode() == text
            assert process.poll() is None
        output, errors = process.communicate(render(a_chunk("!", finish="stop")))
    assert (output, errors, process.returncode) == (b"!\n", b"", 0)


@pytest.mark.parametrize("arguments", [[], ["inspect", "-"]])
def test_a_pipe_is_read_as_rows_wherever_they_are_cut(arguments: list[str]) -> None:
    if arguments:
        pytest.importorskip("rich", reason="the extra 'cli' is not installed")
    body = rows(("a", 0, GRUSS[0]), ("a", 1, GRUSS[1]))
    with running(*arguments) as process:
        for part in (body[:40], body[40:]):
            feed(process, part)
            time.sleep(0.3)  # so that it is read by itself
        output, errors = process.communicate()
    assert (errors, process.returncode) == (b"", 0)
    assert "complete" in output.decode() if arguments else contents(output.decode())


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_it_quietly() -> None:
    with running("--text") as process:
        feed(process, sse(GRUSS[0]))
        assert printed(process, 1) == b"G"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert (errors, process.returncode) == (b"", 130)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["--text"], []])
def test_it_ends_quietly_when_nobody_reads_on(
    arguments: list[str], unbuffered: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    path.write_bytes(sse(*[a_chunk("x" * 10_000)] * 200))
    with running(*arguments, str(path)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1)
        process.stdout.close()
        assert process.wait() == 141
        assert process.stderr.read() == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the device of Linux that is full")
def test_output_that_cannot_be_written_is_told(path: Path) -> None:
    path.write_bytes(sse(*GRUSS))
    with open("/dev/full", "wb") as full, start(str(path), stdout=full.fileno()) as process:
        _, errors = process.communicate()
    assert process.returncode == 1
    assert errors == b"standard output: cannot be written: No space left on device\n"


# Python has None for a stream that was closed before it began.
def test_a_standard_output_that_was_closed_is_told(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    told = "standard output: cannot be written: Bad file descriptor\n"
    assert run(sse(*GRUSS), code=1) == ("", told)


def test_nothing_is_told_where_standard_error_was_closed(
    path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert contents(run(sse(GRUSS[0]), code=3)[0]) == ["Grüße"]
    assert run(sse(GRUSS[0]), "reduce", "-o", str(path.with_name("out"))) == ("", "")


@pytest.mark.skipif(sys.platform != "linux", reason="a hung-up terminal is no read error elsewhere")
def test_what_was_read_before_a_read_error_is_printed() -> None:
    terminal, ours = os.openpty()
    os.write(ours, sse(a_chunk("a")))
    with start("--text", "-", stdin=terminal) as process:
        assert printed(process, 1) == b"a"
        os.close(ours)
        output, errors = process.communicate()
    os.close(terminal)
    assert process.returncode == 5
    assert output == b"\n"
    assert errors.splitlines() == [
        b"standard input: cannot be read: Input/output error",
        b"standard input: the stream stopped before its end, after 1 chunk: "
        b"choice 0 has no finish reason",
    ]


def test_the_command_is_installed(path: Path) -> None:
    path.write_bytes(sse(*GRUSS))
    command = Path(sys.executable).with_name("accumulator")
    assert check_output([command, "--text", path]).decode() == "Grüße 🌍\n"


def test_every_recorded_stream_is_printed(
    corpus_stream: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([str(corpus_stream)]) in {0, 3, 4, 5}
    assert len(documents(capfd.readouterr().out)) == 1
