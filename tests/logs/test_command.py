"""`accumulator reduce`: every way through it comes to what `reduce_sorted` makes of sorted rows."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from streamed import read_terminal

from accumulator import _extras, cli

duckdb = pytest.importorskip("duckdb", reason="the extra 'logs' is not installed")

from log_files import (  # noqa: E402  # it needs pyarrow, of the same extra
    ROWS,
    Row,
    a_stream,
    assert_reduced,
    each_order,
    expected,
    lines_of,
    read,
    reduce,
    shuffled,
    write,
)

TESTS = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "accumulator", "reduce"]
Said = Callable[[], str]


@pytest.fixture
def no_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the libraries of the extra `logs`."""
    for name in ("duckdb", "pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)


@each_order
def test_every_order_comes_to_the_same(rows: list[Row], folder: Path, out: Path) -> None:
    for part in range(3):  # a stream goes on in the next file
        write(folder / f"{part}.jsonl", rows[part * 1000 : (part + 1) * 1000 if part < 2 else None])
    assert reduce(folder, out) == 0
    assert read(out) == expected(rows)
    assert sorted(out.parent.iterdir()) == [folder, out]


@pytest.mark.usefixtures("no_extras")
@pytest.mark.parametrize("suffix", [".jsonl", ".gz"])
def test_rows_in_order_need_no_extra(suffix: str, folder: Path) -> None:
    out = folder.with_name(f"out{suffix}")
    write(folder / f"log{suffix}", ROWS)
    (folder / "body.sse").write_bytes(SSE)
    assert reduce(folder, out) == 0
    found = read(out)
    assert found.pop("body.sse")
    assert found == expected(ROWS)


@each_order
@pytest.mark.parametrize("suffix", [".jsonl", ".gz", ".zst", ".parquet"])
def test_every_form_is_read_and_written(suffix: str, rows: list[Row], tmp_path: Path) -> None:
    assert_reduced(rows, tmp_path / f"log{suffix}", tmp_path / f"out{suffix}")


def test_zstd_that_begins_with_a_frame_to_skip_is_read(tmp_path: Path, out: Path) -> None:
    log = write(tmp_path / "log.zst", ROWS)
    log.write_bytes(b"\x5f*M\x18" + (4).to_bytes(4, "little") + b"size" + log.read_bytes())
    assert reduce(log, out) == 0
    assert read(out) == expected(ROWS)


def test_bare_chunks_go_by_their_own_id(log: Path, out: Path) -> None:
    log.write_text("".join(f"{json.dumps(chunk)}\n" for _, _, chunk in ROWS) + "data: [DONE]\n\n")
    assert reduce(log, out) == 0
    assert read(out) == expected(ROWS)


def test_a_bare_chunk_without_an_id_goes_by_the_order_of_lines_also_if_they_are_sorted(
    log: Path, out: Path
) -> None:
    first, last = {"choices": [], "id": "", "filter": 1}, {"error": {"message": "overloaded"}}
    (_, _, a), (_, _, a_end), _ = a_stream("a", 1)
    (_, _, b), *_ = a_stream("b", 1)
    log.write_text("".join(json.dumps(each) + "\n" for each in (first, a, b, last, a_end)))
    assert reduce(log, out) == 0
    found = {row["id"]: row for row in map(json.loads, out.read_bytes().splitlines())}
    assert {id: row["status"] for id, row in found.items()} == {"a": "complete", "b": "failed"}
    assert found["a"]["completion"]["filter"] == 1


def test_keys_have_the_names_that_options_give(log: Path, out: Path) -> None:
    rows = [{"trace": id, "n": seq, "body": json.dumps(chunk)} for id, seq, chunk in ROWS[:300]]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert reduce(log, out, "--id", "trace", "--seq", "n", "--chunk", "body") == 0
    assert read(out) == expected(ROWS[:300])


def test_an_sse_dump_is_one_stream_under_its_name(out: Path) -> None:
    assert reduce(TESTS / "recordings", out) == 0
    assert {path.name for path in TESTS.glob("recordings/*.sse")} <= read(out).keys()


BAD = {
    b"not JSON": "JSON is malformed",
    b'{"id": "a", "chunk"': "truncated",
    b'{"seq": 1, "chunk": {}}': "no stream id",
    b'{"id": "", "chunk": {}}': "no stream id",
    b'{"id": [1], "chunk": {}}': "Expected",
    b'{"id": "a", "seq": "x", "chunk": {}}': "Expected",
    b"[1]": "Expected",
    b"a long one " * 100: "JSON is malformed",
}


# The last is out of order only at its last row, when all bad rows are told.
@pytest.mark.parametrize("rows", [ROWS, shuffled(ROWS), [*ROWS[1:], ROWS[0]]])
def test_bad_rows_are_told_with_their_line_and_kept_out(
    rows: list[Row], log: Path, out: Path, said: Said
) -> None:
    lines = lines_of(rows).splitlines(keepends=True)
    for place, text in enumerate(BAD):
        lines.insert(100 + place * 200, text + b"\n")
    bad = log.with_name("bad.jsonl")
    log.write_bytes(b"".join(lines))
    assert reduce(log, out, "--bad-rows", str(bad)) == 5
    assert read(out) == expected(rows)
    told = [json.loads(line) for line in bad.read_text().splitlines()]
    assert [each["line"] for each in told] == [101 + place * 200 for place in range(len(BAD))]
    assert [each["text"] for each in told] == [f"{text.decode()}\n" for text in BAD]
    errors = said()
    for each, why in zip(told, BAD.values(), strict=True):
        assert why in each["why"]
        # Once, also where all rows were read again to be sorted.
        assert errors.count(f"{log}:{each['line']}: bad row: {each['why']}\n") == 1


SSE = b'data: {"choices":[]}\n\n' * 1000


def damaged(data: bytes) -> bytes:
    packed = zlib.compressobj(wbits=31)
    return packed.compress(data) + packed.flush(zlib.Z_FULL_FLUSH) + b"\xff" * 50


BROKEN: dict[str, tuple[str, bytes, str]] = {
    "cut": ("a.gz", gzip.compress(lines_of(ROWS[:500]))[:-20], "Compressed file ended before"),
    "damaged rows": ("a.gz", damaged(lines_of(ROWS)), "Error -3"),
    "damaged SSE": ("a.gz", damaged(SSE), "Error -3"),
    "damaged nothing": ("a.gz", damaged(b""), "Error -3"),
    "no Parquet": ("a.parquet", b"PAR1 and no more", "Parquet magic bytes"),
}


@each_order
@pytest.mark.parametrize(("name", "data", "why"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_cannot_be_read_to_its_end_is_told_once_and_the_others_are_read(
    name: str, data: bytes, why: str, rows: list[Row], tmp_path: Path, out: Path, said: Said
) -> None:
    log, other = tmp_path / name, write(tmp_path / "b.jsonl", rows[-50:])
    log.write_bytes(data)
    assert reduce([log, other], out) == 5
    assert said().count(f"{name}: cannot be read to its end: {why}") == 1
    assert rows[-1][0] in read(out)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a file's name is text")
def test_a_file_name_is_of_any_bytes(folder: Path, out: Path) -> None:
    bad = out.with_name("bad.jsonl")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.sse")).write_bytes(SSE)
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.jsonl")).write_bytes(b"{x\n")
    assert reduce(folder, out, "--bad-rows", str(bad)) == 5
    assert read(out).keys() == {"\ufffd.sse"}
    assert json.loads(bad.read_bytes())["file"] == f"{folder}/\ufffd.jsonl"


# What a file contains; the status of its stream, and the kind of its problem.
PAGES: dict[str, tuple[bytes, str, str]] = {
    "a.json": (b'{\n  "error": {\n    "message": "overloaded"\n  }\n}', "failed", "server_error"),
    "b.json": (b'{"error": {"message": "overloaded"}}', "failed", "server_error"),
    "c.json": (b'[{\n  "error": {"message": "overloaded"}\n}]\n', "failed", "server_error"),
    "d.html": (b"\n<html><body>502 Bad Gateway</body></html>", "failed", "malformed_json"),
    "e.txt": (b"upstream: timed out", "failed", "malformed_json"),
    "f.sse": (b": waiting\n\n", "truncated", ""),
    "g.sse": (SSE, "truncated", ""),
    "h.json": (b'{"detail": "Not Found"}', "failed", ""),
}


def test_a_page_in_place_of_a_stream_is_a_failed_stream(folder: Path, out: Path) -> None:
    for name, (data, _, _) in PAGES.items():
        (folder / name).write_bytes(data)
    assert reduce(folder, out) == 0
    found = {row["id"]: row for row in map(json.loads, out.read_bytes().splitlines())}
    assert found.keys() == PAGES.keys()
    for name, (_, status, kind) in PAGES.items():
        kinds = [problem["kind"] for problem in found[name]["problems"]]
        assert (found[name]["status"], kinds) == (status, [kind][: bool(kind)]), name


# --- what stands in the way -----------------------------------------------------------------


def test_a_row_of_the_output_has_problems_repeats_and_limit(
    log: Path, out: Path, said: Said
) -> None:
    large = json.dumps({"id": "large", "chunk": {"choices": [], "x": "x" * 17_000_000}})
    log.write_text(
        large + '\n{"id":"odd","chunk":{"choices":7}}\n{"id":"odd","chunk":"{\\"choices\\":[]}"}\n'
    )
    assert reduce(log, out) == 0
    rows = {row["id"]: row for row in map(json.loads, out.read_bytes().splitlines())}
    assert (rows["large"]["limit"], rows["odd"]["limit"]) == ("event_bytes", None)
    (problem,) = rows["odd"]["problems"]
    assert (problem["kind"], problem["event"]) == ("invalid_chunk", 1)
    assert None not in problem.values()
    errors = said()
    assert "problems: 1 invalid_chunk\n" in errors
    assert "limits passed: 1 event_bytes\n" in errors


def test_one_stream_may_have_numbers_and_the_next_none(log: Path, out: Path) -> None:
    rows = [*a_stream("a", 3), *a_stream("b", 3)]
    numbered, others = lines_of(rows[:5]), lines_of(rows[5:])
    log.write_bytes(numbered + others.replace(b'"seq"', b'"none"'))
    assert reduce(log, out) == 0
    assert read(out) == expected(rows)


@pytest.mark.parametrize("cut", [30, 39])
def test_a_number_falls_back_to_a_repeat_or_not(cut: int, log: Path) -> None:
    rows = a_stream("a", 60)
    assert_reduced([*rows[:40], *rows[cut:]], log)


def test_an_sse_dump_beside_shuffled_rows_is_its_own_stream(folder: Path, out: Path) -> None:
    write(folder / "log.jsonl", shuffled(ROWS))
    (folder / "a.sse").write_bytes(SSE)
    (folder / "b.sse.gz").write_bytes(gzip.compress(SSE)[:-9])
    assert reduce(folder, out) == 5
    assert read(out).keys() == expected(ROWS).keys() | {"a.sse", "b.sse.gz"}


def test_bad_rows_beyond_twenty_are_counted(log: Path, out: Path, said: Said) -> None:
    log.write_bytes(b"{x\n" * 25 + lines_of(ROWS[:1]))
    assert reduce(log, out) == 5
    errors = said()
    assert errors.count("bad row: ") == 20
    assert "\n5 more bad rows\n" in errors


def test_on_a_terminal_there_is_a_bar_and_on_a_pipe_is_none(tmp_path: Path) -> None:
    pytest.importorskip("rich", reason="the extra 'cli' is not installed")
    log, out = write(tmp_path / "log.jsonl", shuffled(ROWS)), tmp_path / "out.jsonl"
    command = [*COMMAND, str(log), "-o", str(out)]
    piped = subprocess.run(command, check=True, capture_output=True)
    assert b"\x1b" not in piped.stderr
    assert b"streams: 54 complete, 6 truncated\n" in piped.stderr
    ours, theirs = os.openpty()
    env = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(command, stderr=theirs, env=env)
    os.close(theirs)
    shown = read_terminal(ours)
    assert process.wait() == 0
    for part in (b"\x1b[", b"reading", b"sorting", b"reducing", b"60 streams"):
        assert part in shown


# --- what is refused ------------------------------------------------------------------------

# What is asked for, where there are `log.jsonl` and `old.jsonl`; the exit code, and what is said.
REFUSED: dict[str, tuple[str, int, str]] = {
    "the output is the input": ("log.jsonl -o log.jsonl", 2, "log.jsonl is both an input"),
    "by another way": ("log.jsonl -o ./sub/../log.jsonl", 2, "log.jsonl is both an"),
    "bad rows go to the input": ("log.jsonl -o o --bad-rows log.jsonl", 2, "log.jsonl is both an"),
    "bad rows go to the output": (
        "log.jsonl -o o --bad-rows ./o", 2, "./o cannot take both the results and the bad rows"
    ),
    "one key for two things": (
        "log.jsonl -o o --seq id", 2, "--id, --seq, --chunk and --time must each name a diff"
    ),
    "a table of text": ("log.jsonl -o o.csv", 2, "o.csv: the output is JSON Lines ("),
    "compressed": ("log.jsonl -o o.csv.gz", 2, "o.csv.gz: the output is JSON Lines ("),
    "an unknown compression": ("log.jsonl -o o.jsonl.bz2", 2, "o.jsonl.bz2: the output"),
    "no input": ("none.jsonl -o o", 2, "none.jsonl: no such file"),
    "a glob of nothing": ("*.csv -o o", 2, "*.csv: no such file"),
    "the output is a folder": ("log.jsonl -o sub", 1, "sub: Is a directory\n"),
    "no folder for the output": ("log.jsonl -o x/o", 1, "x/o: there is no such folder\n"),
    "no folder for bad rows": (
        "log.jsonl -o o --bad-rows x/o", 1, "x/o: No such file or directory\n"
    ),
    "other keys": (
        "log.jsonl -o old.jsonl --id trace", 1,
        "nothing was written: no row was found with the keys 'trace', 'seq' (optional) and 'chunk'",
    ),
    "an empty input": ("sub -o old.jsonl", 1, "nothing was written: no row was found with the"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "why"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_leaves_all_files_as_they_were(
    arguments: str, code: int, why: str, tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    files = [write(tmp_path / "log.jsonl", ROWS[:9]), write(tmp_path / "old.jsonl", ROWS[:9])]
    assert cli.main(["reduce", *arguments.split()]) == code
    assert f"accumulator reduce: {why}" in said()
    assert [path.read_bytes() for path in files] == [lines_of(ROWS[:9])] * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl", "old.jsonl", "sub"]


@pytest.mark.parametrize("value", ["256M", "1g", "300000K", "1GiB", "268435456", "1024T"])
def test_a_memory_is_a_number_with_a_unit(value: str, log: Path, out: Path) -> None:
    assert reduce(write(log, ROWS[:9]), out, "--memory", value) == 0


@pytest.mark.parametrize("value", ["", "1Q", "99999999999999999999999999G", "2000T", "255M"])
def test_a_memory_that_makes_no_sense_is_wrong_usage(value: str, out: Path, said: Said) -> None:
    with pytest.raises(SystemExit) as raised:
        reduce(out, out, "--memory", value)
    assert raised.value.code == 2
    assert "a size is a number with K, M, G or T, such as 512M" in said()


PARQUET = ["pyarrow", "pyarrow.parquet"]


@pytest.mark.parametrize(
    ("rows", "given", "made", "missing"),
    [
        (ROWS, ".jsonl", ".parquet", PARQUET[1:]),
        (ROWS, ".jsonl", ".zst", PARQUET[:1]),
        (ROWS, ".zst", ".jsonl", PARQUET),
        (ROWS, ".parquet", ".jsonl", PARQUET),
        (shuffled(ROWS), ".jsonl", ".jsonl", ["duckdb"]),
    ],
)
def test_what_needs_an_extra_is_refused_and_names_it(
    rows: list[Row],
    given: str,
    made: str,
    missing: list[str],
    tmp_path: Path,
    said: Said,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = write(tmp_path / f"log{given}", rows)
    for library in missing:
        monkeypatch.setitem(sys.modules, library, None)
    assert reduce(log, tmp_path / f"out{made}") == 1
    name = missing[0].partition(".")[0]
    assert f"this needs {name}: pip install 'chunk-accumulator[logs]'" in said()
    assert list(tmp_path.iterdir()) == [log]


@pytest.mark.parametrize("asked", [".", "*"])
def test_what_a_run_writes_into_its_input_folder_is_no_input(
    asked: str, tmp_path: Path, log: Path, out: Path
) -> None:
    write(log, shuffled(ROWS))
    for _ in range(2):
        assert reduce(tmp_path / asked, out, "--bad-rows", str(tmp_path / "bad.jsonl")) == 0
        assert read(out) == expected(shuffled(ROWS))


# --- interrupted ----------------------------------------------------------------------------


@pytest.mark.costs
@pytest.mark.usefixtures("ctrl_c")
@each_order
def test_ctrl_c_leaves_the_old_output_and_nothing_else(rows: list[Row], tmp_path: Path) -> None:
    begun = "results" if rows is ROWS else "large-chunks"
    rows = [(f"{id}-{copy}", seq, chunk) for copy in range(60) for id, seq, chunk in rows]
    log, out = write(tmp_path / "log.jsonl", rows), tmp_path / "out.jsonl"
    out.write_bytes(b"old")
    process = subprocess.Popen(
        [*COMMAND, str(log), "-o", str(out)], stderr=subprocess.PIPE, text=True
    )
    while not list(tmp_path.glob(f".reduce-*/{begun}")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate()
    assert told.splitlines()[-1] == "interrupted; nothing was written"
    assert process.returncode == 130
    assert out.read_bytes() == b"old"
    assert sorted(tmp_path.iterdir()) == [log, out]


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("swallowed", [True, False])
def test_an_interrupt_that_a_library_swallows_or_makes_an_error_of_is_one(
    swallowed: bool, log: Path, out: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(module: str) -> object:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        if not swallowed:
            raise ValueError
        return _extras.load(module)

    write(log, shuffled(ROWS))
    with monkeypatch.context() as patch:
        patch.setattr("accumulator._logs.sort.load", load)
        assert reduce(log, out) == 130
        assert said().splitlines()[-1] == "interrupted; nothing was written"
    assert reduce(log, out) == 0


@pytest.mark.usefixtures("ctrl_c")
def test_a_program_that_calls_the_command_keeps_its_own_handler(log: Path, out: Path) -> None:
    write(log, ROWS)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(reduce(log, out)))  # may set none
    thread.start()
    thread.join()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    codes.append(reduce(log, out))
    assert codes == [0, 0]
    assert signal.signal(signal.SIGINT, signal.default_int_handler) is signal.SIG_IGN
