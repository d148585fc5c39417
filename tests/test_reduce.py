"""`accumulator reduce`: every way through it comes to what `reduce_sorted` makes of sorted rows."""

import gzip
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest

from accumulator import _sorting, cli
from accumulator._records import Stats
from accumulator._run import LogRun
from accumulator._spreading import Buckets, KeyColumns
from accumulator.batch import reduce_sorted

pa = pytest.importorskip("pyarrow", reason="the extra 'logs' is not installed")
duckdb = pytest.importorskip("duckdb", reason="the extra 'logs' is not installed")

HERE = Path(__file__).parent
COMMAND = [sys.executable, "-m", "accumulator", "reduce"]
Row = tuple[str, int, dict[str, object]]
Json = dict[str, object]


def a_stream(id: str, count: int) -> list[Row]:
    def chunk(delta: Json, finish: str | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return {"id": id, "model": "m", "choices": [choice]}

    texts = [chunk({"content": f"{id}é{i} "}) for i in range(count)]
    usage: Json = {"id": id, "choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 3}}
    ends = [] if id.endswith("7") else [chunk({}, "stop"), usage]
    return [(id, seq, each) for seq, each in enumerate([*texts, *ends])]


ROWS = [row for i in range(60) for row in a_stream(f"s{i}", 3 + i * 3 % 91)]


def shuffled(rows: list[Row]) -> list[Row]:
    """Shuffle, with repeats."""
    rng = random.Random(5)
    rows = [*rows, *rng.sample(rows, 50)]
    rng.shuffle(rows)
    return rows


def lines_of(rows: list[Row]) -> bytes:
    return b"".join(
        json.dumps({"id": id, "seq": seq, "chunk": chunk}).encode() + b"\n"
        for id, seq, chunk in rows
    )


def write(path: Path, rows: list[Row]) -> Path:
    """Write rows in the form that a suffix asks for."""
    data = lines_of(rows)
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":
        data = pa.compress(data, codec="zstd", asbytes=True)
    elif path.suffix == ".parquet":
        ids, seqs, chunks = zip(*rows, strict=True)
        texts = [json.dumps(chunk) for chunk in chunks]
        table = pa.table({"id": ids, "seq": seqs, "chunk": texts})
        __import__("pyarrow.parquet").parquet.write_table(table, path, row_group_size=500)
        return path
    path.write_bytes(data)
    return path


def expected(rows: list[Row]) -> dict[object, object]:
    results = reduce_sorted(sorted(rows, key=lambda row: row[:2]))
    return {
        id: (result.status, result.completion.to_dict(), result.repeats) for id, result in results
    }


def read(path: Path) -> dict[object, object]:
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    elif path.suffix == ".zst":
        data = pa.CompressedInputStream(pa.BufferReader(data), "zstd").read()
    if path.suffix == ".parquet":
        table = __import__("pyarrow.parquet").parquet.read_table(path)
        found = [row | {"completion": json.loads(row["completion"])} for row in table.to_pylist()]
    else:
        found = [json.loads(line) for line in data.splitlines()]
    results: dict[object, object] = {
        row["id"]: (row["status"], row["completion"], row["repeats"]) for row in found
    }
    assert len(results) == len(found), "a stream stands twice in the output"
    return results


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("order", [list, shuffled])
def test_every_order_comes_to_the_same(
    workers: str, order: Callable[[list[Row]], list[Row]], tmp_path: Path
) -> None:
    rows = order(ROWS)
    folder = tmp_path / "log"
    folder.mkdir()
    for part in range(3):  # a stream goes on in the next file
        write(folder / f"{part}.jsonl", rows[part * 1000 : (part + 1) * 1000 if part < 2 else None])
    out = tmp_path / "out.jsonl"
    assert cli.main(["reduce", str(folder), "-o", str(out), "--workers", workers]) == 0
    assert read(out) == expected(rows)
    assert [path.name for path in tmp_path.iterdir() if path != folder] == ["out.jsonl"]


@pytest.mark.parametrize("order", [list, shuffled])
@pytest.mark.parametrize("suffix", [".jsonl", ".gz", ".zst", ".parquet"])
def test_every_form_is_read_and_written(
    suffix: str, order: Callable[[list[Row]], list[Row]], tmp_path: Path
) -> None:
    rows = order(ROWS)
    log, out = write(tmp_path / f"log{suffix}", rows), tmp_path / f"out{suffix}"
    assert cli.main(["reduce", str(log), "-o", str(out)]) == 0
    assert read(out) == expected(rows)


def test_units_of_a_file_join_where_they_were_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, out = write(tmp_path / "log.jsonl", ROWS[:700]), tmp_path / "out.jsonl"
    for size in (100, 1000, 7001):
        monkeypatch.setattr("accumulator._inputs._UNIT", size)
        assert cli.main(["reduce", str(log), "-o", str(out)]) == 0
        assert read(out) == expected(ROWS[:700])


def test_bare_chunks_go_by_their_own_id(tmp_path: Path) -> None:
    log, out = tmp_path / "log.jsonl", tmp_path / "out.jsonl"
    texts = [json.dumps(chunk) for _, _, chunk in ROWS]
    log.write_text("".join(f"{text}\n" for text in texts) + "data: [DONE]\n\n")
    assert cli.main(["reduce", str(log), "-o", str(out)]) == 0
    assert read(out) == expected(ROWS)


def test_keys_have_the_names_that_options_give(tmp_path: Path) -> None:
    log, out = tmp_path / "log.jsonl", tmp_path / "out.jsonl"
    rows = [{"trace": id, "n": seq, "body": json.dumps(chunk)} for id, seq, chunk in ROWS[:300]]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--id", "trace", "--seq", "n", "--chunk", "body"]
    assert cli.main(["reduce", str(log), "-o", str(out), *options]) == 0
    assert read(out) == expected(ROWS[:300])


def test_an_sse_dump_is_one_stream_under_its_name(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert cli.main(["reduce", str(HERE / "recordings"), "-o", str(out)]) == 0
    names = {path.name for path in (HERE / "recordings").glob("*.sse")}
    assert names <= read(out).keys()


BAD = {
    b"not JSON": "JSON is malformed",
    b'{"id": "a", "chunk"': "truncated",
    b'{"seq": 1, "chunk": {}}': "no stream id",
    b'{"id": "", "chunk": {}}': "no stream id",
    b'{"id": [1], "chunk": {}}': "Expected",
    b'{"id": "a", "seq": "x", "chunk": {}}': "Expected",
    b"[1]": "Expected",
}


@pytest.mark.parametrize("order", [list, shuffled])
def test_bad_rows_are_told_with_their_line_and_kept_out(
    order: Callable[[list[Row]], list[Row]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("accumulator._inputs._UNIT", 10_000)
    rows = order(ROWS)
    lines = lines_of(rows).splitlines(keepends=True)
    for place, text in enumerate(BAD):
        lines.insert(100 + place * 200, text + b"\n")
    log, out, bad = tmp_path / "log.jsonl", tmp_path / "out.jsonl", tmp_path / "bad.jsonl"
    log.write_bytes(b"".join(lines))
    assert cli.main(["reduce", str(log), "-o", str(out), "--bad-rows", str(bad)]) == 5
    assert read(out) == expected(rows)
    told = [json.loads(line) for line in bad.read_text().splitlines()]
    assert [each["line"] for each in told] == [101 + place * 200 for place in range(len(BAD))]
    said = capfd.readouterr().err
    for each, why in zip(told, BAD.values(), strict=True):
        assert why in each["why"]
        assert f"{log}:{each['line']}: bad row: {each['why']}\n" in said


def test_a_file_that_ends_too_early_is_told_and_the_others_are_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log, out = tmp_path / "a.gz", tmp_path / "out.jsonl"
    log.write_bytes(gzip.compress(lines_of(ROWS[:500]))[:-20])
    other = write(tmp_path / "b.jsonl", ROWS[-50:])
    assert cli.main(["reduce", str(log), str(other), "-o", str(out)]) == 5
    assert "a.gz: cannot be read to its end: " in capfd.readouterr().err
    assert ROWS[-1][0] in read(out)


SSE = b'data: {"choices":[]}\n\n' * 1000


@pytest.mark.parametrize("data", [lines_of(ROWS), SSE, b""], ids=["rows", "SSE", "nothing"])
def test_a_damaged_file_is_told_and_the_others_are_read(
    data: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log, out = tmp_path / "a.gz", tmp_path / "out.jsonl"
    packed = zlib.compressobj(wbits=31)
    whole = packed.compress(data) + packed.flush(zlib.Z_FULL_FLUSH)
    log.write_bytes(whole + b"\xff" * 50)
    other = write(tmp_path / "b.jsonl", ROWS[-50:])
    assert cli.main(["reduce", str(log), str(other), "-o", str(out)]) == 5
    assert "a.gz: cannot be read to its end: Error -3" in capfd.readouterr().err
    assert ROWS[-1][0] in read(out)


def test_what_starts_as_parquet_and_is_none_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log, out = tmp_path / "a.parquet", tmp_path / "out.jsonl"
    log.write_bytes(b"PAR1 and no more")
    other = write(tmp_path / "b.jsonl", ROWS[-50:])
    assert cli.main(["reduce", str(log), str(other), "-o", str(out)]) == 5
    assert "a.parquet: cannot be read to its end: Parquet magic bytes" in capfd.readouterr().err
    assert ROWS[-1][0] in read(out)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a file's name is text")
def test_a_file_name_is_of_any_bytes(tmp_path: Path) -> None:
    folder, out, bad = tmp_path / "log", tmp_path / "out.jsonl", tmp_path / "bad.jsonl"
    folder.mkdir()
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.sse")).write_bytes(SSE)
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.jsonl")).write_bytes(b"{x\n")
    assert cli.main(["reduce", str(folder), "-o", str(out), "--bad-rows", str(bad)]) == 5
    assert read(out).keys() == {"\ufffd.sse"}
    assert json.loads(bad.read_bytes())["file"] == f"{folder}/\ufffd.jsonl"


def test_sse_dumps_of_one_name_are_two_streams(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    paths = [tmp_path / folder / "a.sse" for folder in ("s1", "s2")]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(SSE)
    assert cli.main(["reduce", *map(str, paths), "-o", str(out)]) == 0
    assert read(out).keys() == {"a.sse", str(paths[1])}


@pytest.mark.parametrize(
    ("order", "kind", "number"),
    [(list, "reduce", 0), (list, "reduce", 4), (shuffled, "spread", 1), (shuffled, "sort", 0)],
)
def test_a_killed_run_leaves_no_output_and_is_resumed(
    order: Callable[[list[Row]], list[Row]], kind: str, number: int, tmp_path: Path
) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    rows = order([row for i in range(900) for row in a_stream(f"s{i:05}", 40)])
    for part in range(8):
        write(folder / f"{part:02}.jsonl", rows[part * 5000 : (part + 1) * 5000])
    rows = rows[: 8 * 5000]
    out = tmp_path / "out.jsonl"
    command = [*COMMAND, str(folder), "-o", str(out), "--workers", "2", "--memory", "600M"]
    done = tmp_path / "out.jsonl.parts" / f"{kind}-{number:06}.done"
    for _ in range(5):  # a run may be over before it is killed
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while not done.exists() and process.poll() is None:
            time.sleep(0.001)
        process.kill()
        process.wait()
        if not out.exists():
            break
        out.unlink()
    else:
        pytest.fail("no run was killed before it was over")
    assert done.exists()
    resumed = subprocess.run([*command, "--resume"], check=False, capture_output=True)
    assert resumed.returncode == 0, resumed.stderr
    assert read(out) == expected(rows)


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    # In order, so that it is our code that is interrupted, not DuckDB's import.
    rows = [(f"{id}-{copy}", seq, chunk) for copy in range(90) for id, seq, chunk in ROWS]
    log, out = write(tmp_path / "log.jsonl", rows), tmp_path / "out.jsonl"
    command = [*COMMAND, str(log), "-o", str(out)]
    # What a shell runs in the background ignores it, and so would what that starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "out.jsonl.parts" / "plan.json").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate()
    assert (process.returncode, told.splitlines()[-1]) == (
        130,
        "interrupted; go on with --resume",
    )
    assert not out.exists()
    assert subprocess.run([*command, "--resume"], check=False, capture_output=True).returncode == 0


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    # What a shell runs in the background ignores it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupt_that_duckdb_makes_an_error_of_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Table:
        def __arrow_c_stream__(self, schema: object = None) -> object:
            if interrupting:
                signal.raise_signal(signal.SIGINT)
            raise ValueError

    interrupting = True
    monkeypatch.setattr(_sorting, "_table", lambda keys: Table())
    log = write(tmp_path / "log.jsonl", shuffled(ROWS))
    command = ["reduce", str(log), "-o", str(tmp_path / "out.jsonl")]
    assert cli.main(command) == 130
    assert capfd.readouterr().err.splitlines()[-1] == "interrupted; go on with --resume"
    interrupting = False
    with pytest.raises(duckdb.Error, match="ValueError"):
        cli.main(command)


@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupt_that_a_library_swallows_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def swallowing(keys: KeyColumns) -> object:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return table(keys)

    table = _sorting._table
    monkeypatch.setattr(_sorting, "_table", swallowing)
    rows = shuffled(ROWS)
    log, out = write(tmp_path / "log.jsonl", rows), tmp_path / "out.jsonl"
    command = ["reduce", str(log), "-o", str(out)]
    assert cli.main(command) == 130
    assert capfd.readouterr().err.splitlines()[-1] == "interrupted; go on with --resume"
    monkeypatch.setattr(_sorting, "_table", table)
    assert cli.main([*command, "--resume"]) == 0
    assert read(out) == expected(rows)


@pytest.mark.usefixtures("ctrl_c")
def test_a_program_that_calls_the_command_keeps_its_own_handler(tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl", ROWS)
    command = ["reduce", str(log), "-o", str(tmp_path / "out.jsonl")]
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(cli.main(command)))  # may set none
    thread.start()
    thread.join()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    codes.append(cli.main(command))
    assert codes == [0, 0]
    assert signal.signal(signal.SIGINT, signal.default_int_handler) is signal.SIG_IGN


def test_an_interrupted_run_is_no_error_of_the_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(run: LogRun) -> Stats:
        raise KeyboardInterrupt

    monkeypatch.setattr(LogRun, "run", interrupted)
    log = write(tmp_path / "log.jsonl", ROWS)
    assert cli.main(["reduce", str(log), "-o", str(tmp_path / "out.jsonl")]) == 130
    assert capfd.readouterr().err.splitlines()[-1] == "interrupted; go on with --resume"


# What is asked for, `log.jsonl` and `out.parts/log.jsonl` being there, and why it is refused.
REFUSED: dict[str, tuple[list[str], str]] = {
    "the output is the input": (["log.jsonl", "-o", "log.jsonl"], "log.jsonl is written by this"),
    "the input is in the folder of parts": (["out.parts", "-o", "out"], "out.parts is written by"),
    "as a file": (["out.parts/log.jsonl", "-o", "out"], "out.parts/log.jsonl is written by this"),
    "the folder of parts is another's": (["log.jsonl", "-o", "out"], "out.parts is no folder of a"),
    "bad rows go to the input": (
        ["log.jsonl", "-o", "o", "--bad-rows", "log.jsonl"],
        "log.jsonl is written by this run",
    ),
    "bad rows go to the output": (
        ["log.jsonl", "-o", "o", "--bad-rows", "./o"],
        "o is to be two files",
    ),
    "one key for two things": (["log.jsonl", "-o", "o", "--seq", "id"], "have a key each"),
}


@pytest.mark.parametrize(("arguments", "why"), REFUSED.values(), ids=REFUSED)
def test_what_would_destroy_files_or_makes_no_sense_is_refused(
    arguments: list[str],
    why: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    parts = tmp_path / "out.parts"
    parts.mkdir()
    files = [write(tmp_path / "log.jsonl", ROWS[:9]), write(parts / "log.jsonl", ROWS[:9])]
    assert cli.main(["reduce", *arguments]) == 2
    assert why in capfd.readouterr().err
    assert [path.read_bytes() for path in files] == [lines_of(ROWS[:9])] * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl", "out.parts"]


def test_a_pipe_is_refused_before_an_output_is_made(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    command = [*COMMAND, "/dev/stdin", "-o", str(out)]
    done = subprocess.run(command, input=lines_of(ROWS[:9]), check=False, capture_output=True)
    assert done.returncode == 2
    assert b"/dev/stdin is no regular file" in done.stderr
    assert not out.exists()


@pytest.mark.parametrize("asked", [".", "*"])
def test_what_a_run_writes_into_its_input_folder_is_no_input(
    asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, out = write(tmp_path / "log.jsonl", shuffled(ROWS)), tmp_path / "out.jsonl"
    command = ["reduce", str(tmp_path / asked), "-o", str(out)]
    command += ["--bad-rows", str(tmp_path / "bad.jsonl")]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "duckdb", None)
        assert cli.main(command) == 1
    assert cli.main([*command, "--resume"]) == 0
    assert cli.main(command) == 0
    assert read(out) == expected(shuffled(ROWS))
    assert log.exists()


def test_another_run_is_not_resumed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log, out = write(tmp_path / "log.jsonl", ROWS[:10]), tmp_path / "out.jsonl"
    assert cli.main(["reduce", str(log), "-o", str(out), "--resume"]) == 2
    assert "no interrupted run" in capfd.readouterr().err
    assert cli.main(["reduce", str(tmp_path / "none*"), "-o", str(out)]) == 2


def resident(pid: int) -> int:
    """Give the bytes that a process and its children hold, pages they share counted for each."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:  # it has just ended
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(resident(int(child)) for child in children)


def peak_of(command: list[str]) -> int:
    """Run a command; give the bytes that its processes held at their most."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, resident(process.pid))
        time.sleep(0.005)
    assert process.returncode == 0
    return peak


@pytest.mark.costs
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells it so")
@pytest.mark.parametrize(
    ("workers", "memory", "skewed"),
    [("1", 245, False), ("1", 300, False), ("1", 245, True), ("2", 580, False)],
)
def test_a_shuffled_log_is_sorted_within_the_memory(
    workers: str, memory: int, skewed: bool, tmp_path: Path
) -> None:
    rows = lines_of([(id, seq, chunk) for id, seq, chunk in shuffled(ROWS)])
    log, out = tmp_path / "log.jsonl", tmp_path / "out.jsonl"
    with log.open("wb") as file:
        for copy in range(200):
            # Skewed, each stream has the rows of 200, nearly all repeats.
            name = b"" if skewed else b"%d" % copy
            file.write(rows.replace(b'"id": "s', b'"id": "%bs' % name))
    assert log.stat().st_size > 60_000_000
    command = [*COMMAND, str(log), "-o", str(out), "--memory", f"{memory}M", "--workers", workers]
    assert 50 * 1024 * 1024 < peak_of(command) < memory * 1024 * 1024
    with out.open("rb") as results:
        assert sum(1 for _ in results) == (60 if skewed else 200 * 60)


@pytest.mark.parametrize("files", [1, 2])
def test_a_stream_too_long_to_be_held_is_sorted_as_well(
    files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sorted_by: list[str] = []
    monkeypatch.setattr("accumulator._run.duckdb", lambda: sorted_by.append("duckdb"))
    folder, out = tmp_path / "log", tmp_path / "out.jsonl"
    folder.mkdir()
    rows = a_stream("long", 40000)
    for _, _, chunk in rows[:40000]:
        chunk["choices"] = [{"index": 0, "delta": {"content": "x" * 800}}]
    cut = 20000 if files == 2 else len(rows)
    write(folder / "0.jsonl.gz", [*ROWS[:50], *rows[:cut]])
    write(folder / "1.jsonl.gz", rows[cut:])
    command = ["reduce", str(folder), "-o", str(out), "--memory", "245M"]
    assert cli.main(command) == 0
    assert read(out) == expected([*ROWS[:50], *rows])
    assert sorted_by == ["duckdb"]


@pytest.mark.costs
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells it so")
def test_rows_of_any_size_are_sorted_in_the_smallest_memory(tmp_path: Path) -> None:
    large = [a_stream(f"large{place}", 1) for place in range(20)]
    for (_, _, chunk), *_ in large:
        chunk["choices"] = [{"index": 0, "delta": {"content": "x" * 6_000_000}}]
    rows = [*ROWS, *(row for stream in large for row in stream)]
    log, out = write(tmp_path / "log.jsonl.gz", rows[::-1]), tmp_path / "out.jsonl"
    command = [*COMMAND, str(log), "-o", str(out), "--memory", "245M"]
    assert 50 * 1024 * 1024 < peak_of(command) < 245 * 1024 * 1024
    assert read(out) == expected(rows)


@pytest.mark.parametrize(("workers", "least"), [("1", 245), ("2", 580)])
def test_a_memory_too_small_is_refused_with_the_smallest(
    workers: str, least: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log, out = write(tmp_path / "log.jsonl", ROWS[:10]), tmp_path / "out.jsonl"
    options = ["reduce", str(log), "-o", str(out), "--workers", workers, "--memory"]
    assert cli.main([*options, f"{least - 1}M"]) == 2
    assert f"need a memory of {least}M at least\n" in capfd.readouterr().err
    assert cli.main([*options, f"{least}M"]) == 0


def test_on_a_terminal_there_is_a_bar_and_on_a_pipe_are_lines(tmp_path: Path) -> None:
    pytest.importorskip("rich", reason="the extra 'cli' is not installed")
    log, out = write(tmp_path / "log.jsonl", ROWS), tmp_path / "out.jsonl"
    command = [*COMMAND, str(log), "-o", str(out)]
    piped = subprocess.run(command, check=True, capture_output=True)
    assert b"\x1b" not in piped.stderr
    assert b"streams: 54 complete, 6 truncated\n" in piped.stderr
    ours, theirs = os.openpty()
    env = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(command, stderr=theirs, env=env)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:
        pass  # what Linux says at the end
    assert process.wait() == 0
    assert b"\x1b[" in shown
    # The first and the last stream of a unit are no part of its count.
    assert b"reading" in shown
    assert b"58 streams" in shown


# --- what stands in the way -----------------------------------------------------------------


def reduced(path: Path, out: Path, *options: str) -> list[Json]:
    """Reduce in order or not; give the output's rows."""
    assert cli.main(["reduce", str(path), "-o", str(out), *options]) in (0, 5)
    return [json.loads(line) for line in out.read_bytes().splitlines()]


def test_a_row_of_the_output_has_problems_repeats_and_limit(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.jsonl"
    large = json.dumps({"id": "large", "chunk": {"choices": [], "x": "x" * 17_000_000}})
    log.write_text(
        large + '\n{"id":"odd","chunk":{"choices":7}}\n{"id":"odd","chunk":"{\\"choices\\":[]}"}\n'
    )
    rows = {row["id"]: row for row in reduced(log, tmp_path / "out.jsonl")}
    assert (rows["large"]["limit"], rows["odd"]["limit"]) == ("event_bytes", None)
    (problem,) = cast("list[Json]", rows["odd"]["problems"])
    assert (problem["kind"], problem["event"]) == ("invalid_chunk", 1)
    assert None not in problem.values()
    said = capfd.readouterr().err
    assert "problems: 1 invalid_chunk\n" in said
    assert "limits passed: 1 event_bytes\n" in said


@pytest.mark.parametrize("order", [list, reversed])
def test_rows_without_a_number_are_behind_those_with_one(
    order: Callable[[list[bytes]], list[bytes]], tmp_path: Path
) -> None:
    def line(seq: object, text: str) -> bytes:
        chunk = {"choices": [{"index": 0, "delta": {"content": text}}]}
        return json.dumps({"id": "a", "seq": seq, "chunk": chunk}).encode() + b"\n"

    numbered = [line(seq, str(seq)) for seq in range(3)]
    others = [line(None, text) for text in "xy"]
    log = tmp_path / "log.jsonl"
    # The second is that of a stream that comes again: all is sorted.
    again = json.dumps({"id": "b", "chunk": {}}).encode() + b"\n"
    log.write_bytes(b"".join([again, *order(numbered), *others, again, line(None, "z")]))
    (row,) = [each for each in reduced(log, tmp_path / "out.jsonl") if each["id"] == "a"]
    assert '"content":"012xyz"' in json.dumps(row["completion"], separators=(",", ":"))


OUT_OF_ORDER = {
    "numbers fall": a_stream("a", 3)[::-1],
    "the last stream comes again": [
        *a_stream("a", 3)[1:],
        *a_stream("b", 3),
        *a_stream("a", 1)[:1],
    ],
    "another one comes again": [
        *a_stream("a", 3)[1:],
        *a_stream("b", 3),
        *a_stream("a", 1)[:1],
        *a_stream("c", 1),
    ],
}


@pytest.mark.parametrize("case", OUT_OF_ORDER)
def test_a_few_rows_out_of_order_are_sorted(case: str, tmp_path: Path) -> None:
    rows = OUT_OF_ORDER[case]
    log, out = write(tmp_path / "log.jsonl", rows), tmp_path / "out.jsonl"
    assert cli.main(["reduce", str(log), "-o", str(out)]) == 0
    assert read(out) == expected(rows)


@pytest.mark.parametrize("numbers", ["repeat", "fall"])
def test_lines_that_are_alike_may_start_with_a_repeat_or_fall(numbers: str, tmp_path: Path) -> None:
    rows = a_stream("a", 60)
    cut = rows[30:] if numbers == "fall" else rows[39:]
    rows = [*rows[:40], *cut]
    log = write(tmp_path / "log.jsonl", rows)
    out = tmp_path / "out.jsonl"
    assert cli.main(["reduce", str(log), "-o", str(out)]) == 0
    assert read(out) == expected(rows)


@pytest.mark.parametrize("size", [200, 600_000_000])  # of an id: only one is remembered then
@pytest.mark.parametrize(
    "moved", [("s00", "s45"), ("s00", "s05"), ("s05", "s10"), ("s13", "s45"), ("s55", "s02")]
)
def test_a_stream_that_comes_again_anywhere_is_found(
    moved: tuple[str, str], size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row for i in range(60) for row in a_stream(f"s{i:02}", 20)]
    row = next(row for row in rows if row[:2] == (moved[0], 4))
    rows.remove(row)
    rows.insert([id for id, _, _ in rows].index(moved[1]), row)
    monkeypatch.setattr("accumulator._inputs._UNIT", 40_000)
    monkeypatch.setattr("accumulator._run._ID", size)
    log, out = write(tmp_path / "log.jsonl", rows), tmp_path / "out.jsonl"
    assert cli.main(["reduce", str(log), "-o", str(out)]) == 0
    assert read(out) == expected(rows)


def test_one_stream_may_have_numbers_and_the_next_none(tmp_path: Path) -> None:
    log, out = tmp_path / "log.jsonl", tmp_path / "out.jsonl"
    rows = [*a_stream("a", 3), *a_stream("b", 3)]
    lines = lines_of(rows).splitlines(keepends=True)
    lines[5:] = [line.replace(b'"seq"', b'"none"') for line in lines[5:]]
    log.write_bytes(b"".join(lines))
    assert cli.main(["reduce", str(log), "-o", str(out)]) == 0
    assert read(out) == expected(rows)


def test_the_bucket_of_an_id_is_the_same_when_it_was_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("accumulator._spreading._REMEMBERED", 3)
    buckets = Buckets(7)
    found = [buckets[id] for id in "abcdefghij"]
    assert [buckets[id] for id in "abcdefghij"] == found
    assert len(buckets) <= 4


def test_an_sse_dump_beside_shuffled_rows_is_its_own_stream(tmp_path: Path) -> None:
    folder, out = tmp_path / "log", tmp_path / "out.jsonl"
    folder.mkdir()
    write(folder / "log.jsonl", shuffled(ROWS))
    body = b'data: {"choices":[]}\n\ndata: [DONE]\n\n'
    (folder / "a.sse").write_bytes(body)
    (folder / "b.sse.gz").write_bytes(gzip.compress(body * 1000)[:-9])
    assert cli.main(["reduce", str(folder), "-o", str(out)]) == 5
    found = read(out)
    assert found.keys() == expected(ROWS).keys() | {"a.sse", "b.sse.gz"}


def test_bad_rows_beyond_twenty_are_counted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("{x\n" * 25)
    assert reduced(log, tmp_path / "out.jsonl") == []
    said = capfd.readouterr().err
    assert said.count("bad row: ") == 20
    assert "\n5 more bad rows\n" in said


WRONG = [
    ("--workers", "0", "at least 1"),
    ("--workers", "x", "invalid"),
    ("--memory", "1Q", "a size is a number with K, M, G or T"),
]


@pytest.mark.parametrize(("option", "value", "why"), WRONG)
def test_a_wrong_option_is_said_to_be_wrong(
    option: str, value: str, why: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(["reduce", str(tmp_path), "-o", "out", option, value])
    assert raised.value.code == 2
    assert why in capfd.readouterr().err


def test_what_was_begun_with_other_options_is_not_resumed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log, out = write(tmp_path / "log.jsonl", ROWS[:10]), tmp_path / "out.jsonl"
    parts = tmp_path / "out.jsonl.parts"
    parts.mkdir()
    (parts / "plan.json").write_bytes(b"{}")
    assert cli.main(["reduce", str(log), "-o", str(out), "--resume"]) == 2
    assert "is of a run with other files or options" in capfd.readouterr().err


def test_an_output_that_cannot_be_written_is_said_to_be_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log, out = write(tmp_path / "log.jsonl", ROWS[:10]), tmp_path / "out.jsonl"
    out.mkdir()
    assert cli.main(["reduce", str(log), "-o", str(out)]) == 1
    assert "accumulator reduce: [Errno 21] Is a directory" in capfd.readouterr().err


@pytest.mark.parametrize("option", ["--output", "--bad-rows"])
def test_a_file_that_cannot_be_made_is_said_to_be_so(
    option: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log, out = write(tmp_path / "log.jsonl", ROWS[:10]), tmp_path / "out.jsonl"
    (tmp_path / "none").symlink_to(tmp_path / "nothing")
    none = tmp_path / "none" / "x"
    assert cli.main(["reduce", str(log), "-o", str(out), option, str(none)]) == 1
    assert "accumulator reduce: [Errno 2] No such file or directory: " in capfd.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("suffix", "library"), [("parquet", "pyarrow.parquet"), ("zst", "pyarrow")]
)
def test_an_output_that_needs_an_extra_is_refused_before_anything_is_read(
    suffix: str,
    library: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, out = write(tmp_path / "log.jsonl", ROWS[:10]), tmp_path / f"out.{suffix}"
    monkeypatch.setitem(sys.modules, library, None)
    assert cli.main(["reduce", str(log), "-o", str(out)]) == 1
    assert "this needs pyarrow: pip install 'chunk-accumulator[logs]'" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == [log]


def test_sorting_without_duckdb_names_the_extra_and_keeps_what_was_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, out = write(tmp_path / "log.jsonl", shuffled(ROWS)), tmp_path / "out.jsonl"
    monkeypatch.setitem(sys.modules, "duckdb", None)
    assert cli.main(["reduce", str(log), "-o", str(out)]) == 1
    assert "this needs duckdb: pip install 'chunk-accumulator[logs]'" in capfd.readouterr().err
    monkeypatch.undo()
    assert cli.main(["reduce", str(log), "-o", str(out), "--resume"]) == 0
    assert read(out) == expected(shuffled(ROWS))


def test_so_many_rows_that_their_keys_do_not_fit_are_said_to_be_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, out = write(tmp_path / "log.jsonl", shuffled(ROWS)), tmp_path / "out.jsonl"
    monkeypatch.setattr("accumulator._run._OVER", 5000.0)
    assert cli.main(["reduce", str(log), "-o", str(out)]) == 1
    assert "so many rows need a larger --memory" in capfd.readouterr().err


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells it so")
def test_a_run_whose_worker_is_killed_ends_and_is_resumed(tmp_path: Path) -> None:
    folder, out = tmp_path / "log", tmp_path / "out.jsonl"
    folder.mkdir()
    for part in range(8):
        write(folder / f"{part}.jsonl", ROWS * 10)
    command = [*COMMAND, str(folder), "-o", str(out), "--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    killed = False
    while process.poll() is None and not killed:
        for child in children.read_text().split():
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(int(child), signal.SIGKILL)
                killed = True
                break
    _, told = process.communicate()
    assert (process.returncode, killed) == (1, True)
    assert told.splitlines()[-1] == ("accumulator reduce: a worker process ended before its work")
    assert not out.exists()
    assert subprocess.run([*command, "--resume"], check=False, capture_output=True).returncode == 0
    assert read(out) == expected(ROWS * 80)


@pytest.mark.parametrize("order", [list, shuffled])
def test_lines_of_progress_tell_rate_streams_and_time_left(
    order: Callable[[list[Row]], list[Row]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("accumulator._command_reduce._EVERY", 1e-6)
    log, out = write(tmp_path / "log.jsonl", order(ROWS)), tmp_path / "out.jsonl"
    assert cli.main(["reduce", str(log), "-o", str(out)]) == 0
    lines = re.findall(
        r"^(reading|sorting): 0 of 0 MB, [\d,.]+ MB/s, (\d+) streams, [\d,]+ s left$",
        capfd.readouterr().err,
        re.MULTILINE,
    )
    phase, streams = lines[-1]
    assert (phase, int(streams)) == (("reading", 58) if order is list else ("sorting", 60))
