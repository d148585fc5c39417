"""Where results go: a file that appears whole, a link, a pipe, a device, standard output."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("duckdb", reason="the extra 'logs' is not installed")

from log_files import (
    ROWS,
    Row,
    assert_reduced,
    each_order,
    expected,
    lines_of,
    pq,
    read,
    reduce,
    write,
)

COMMAND = [sys.executable, "-m", "accumulator", "reduce"]


def piped(data: bytes, code: int = 0, out: str = "-") -> tuple[bytes, str]:
    """Reduce standard input to standard output; return what is written, and what is said."""
    done = subprocess.run([*COMMAND, "-", "-o", out], input=data, check=False, capture_output=True)
    assert done.returncode == code
    return done.stdout, done.stderr.decode()


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1"])
@each_order
def test_standard_input_comes_to_standard_output(rows: list[Row], name: str, out: Path) -> None:
    data, errors = piped(lines_of(rows), out=name)
    out.write_bytes(data)
    assert read(out) == expected(rows)
    assert "streams: 54 complete, 6 truncated\n" in errors


def test_a_bad_row_of_standard_input_is_told_and_an_sse_body_is_named() -> None:
    assert "standard input:1: bad row: " in piped(b"{x\n" + lines_of(ROWS[:9]), code=5)[1]
    data, _ = piped(b'data: {"choices":[]}\n\ndata: [DONE]\n\n')
    assert json.loads(data)["id"] == "stdin"
    assert piped(b"{x\n", code=1)[0] == b""


@each_order
def test_a_pipe_is_read_and_a_pipe_is_written(rows: list[Row], tmp_path: Path) -> None:
    came, went = tmp_path / "in", tmp_path / "out"
    os.mkfifo(came)
    os.mkfifo(went)
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: came.write_bytes(lines_of(rows))),
        threading.Thread(target=lambda: found.append(went.read_bytes())),
    ]
    for thread in threads:
        thread.start()
    assert reduce(came, went) == 0
    for thread in threads:
        thread.join()
    assert stat.S_ISFIFO(went.stat().st_mode)
    (tmp_path / "read").write_bytes(found[0])
    assert read(tmp_path / "read") == expected(rows)


def test_a_device_is_written_and_stays_one(log: Path, tmp_path: Path) -> None:
    write(log, ROWS[:9])
    link, device = tmp_path / "null", Path("/dev/null")
    link.symlink_to(device)
    for path in (device, link):
        assert reduce(log, path) == 0
    assert stat.S_ISCHR(device.stat().st_mode)
    assert link.is_symlink()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the device of Linux that is full")
@pytest.mark.parametrize("name", ["/dev/full", "-"])
def test_an_output_that_is_full_is_told(name: str, log: Path) -> None:
    command = [*COMMAND, str(write(log, ROWS[:9])), "-o", name]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == b"accumulator reduce: No space left on device"


def test_it_ends_quietly_when_nobody_reads_its_output(log: Path) -> None:
    write(log, [(f"{i}", seq, c) for i in range(9) for _, seq, c in ROWS])
    ours, theirs = os.pipe()
    os.close(ours)
    command = [*COMMAND, str(log), "-o", "-"]
    done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, check=False)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_is_followed(exists: bool, log: Path, out: Path, folder: Path) -> None:
    write(log, ROWS)
    real = folder / "real"
    if exists:
        real.write_bytes(b"old")
        real.chmod(0o600)
    out.symlink_to(real)
    assert reduce(log, out) == 0
    assert out.is_symlink()
    assert read(real) == expected(ROWS)
    assert not exists or real.stat().st_mode & 0o777 == 0o600
    assert list(folder.iterdir()) == [real]


@pytest.mark.parametrize("suffix", ["", ".json", ".ndjson", ".jsonl.gz", ".zst", ".zstd"])
def test_a_name_stands_for_lines_and_their_compression(suffix: str, tmp_path: Path) -> None:
    out = tmp_path / f"out{suffix}"
    assert_reduced(ROWS, tmp_path / "log.jsonl", out)
    umask = os.umask(0)
    os.umask(umask)
    assert out.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("count", [0, 1, 256, 700])
def test_parquet_has_any_number_of_rows(count: int, tmp_path: Path) -> None:
    rows = [(f"s{index:03}", 0, chunk) for index in range(count) for _, _, chunk in ROWS[:1]]
    assert_reduced(rows, tmp_path / "log.jsonl", tmp_path / "out.parquet")


def test_large_completions_are_written_to_parquet_a_few_at_a_time(tmp_path: Path) -> None:
    chunk: dict[str, object] = {"choices": [{"index": 0, "delta": {"content": "x" * 1_000_000}}]}
    log, out = tmp_path / "log.jsonl", tmp_path / "out.parquet"
    assert_reduced([(f"s{n:02}", 0, chunk) for n in range(12)], log, out)
    metadata = pq.ParquetFile(out).metadata
    groups = [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]
    assert groups == [5, 5, 2]
