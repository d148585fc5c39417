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

from accumulator import cli

pytest.importorskip("duckdb", reason="the extra 'logs' is not installed")

from log_files import ROWS, Row, assert_reduced, each_order, expected, lines_of, read, reduce, write

COMMAND = [sys.executable, "-m", "accumulator", "reduce"]


@each_order
def test_standard_input_comes_to_standard_output(rows: list[Row], tmp_path: Path) -> None:
    command = [*COMMAND, "-", "-o", "-"]
    done = subprocess.run(command, input=lines_of(rows), check=True, capture_output=True)
    (tmp_path / "out").write_bytes(done.stdout)
    assert read(tmp_path / "out") == expected(rows)
    assert b"streams: 54 complete, 6 truncated\n" in done.stderr


def test_a_bad_row_of_standard_input_is_told_and_an_sse_body_is_named() -> None:
    command = [*COMMAND, "-", "-o", "-"]
    data = b"{x\n" + lines_of(ROWS[:9])
    done = subprocess.run(command, input=data, check=False, capture_output=True)
    assert done.returncode == 5
    assert b"standard input:1: bad row: " in done.stderr
    body = b'data: {"choices":[]}\n\ndata: [DONE]\n\n'
    done = subprocess.run(command, input=body, check=True, capture_output=True)
    assert json.loads(done.stdout)["id"] == "stdin"


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


def test_standard_output_has_nothing_of_rows_that_all_failed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"{x\n")
    assert cli.main(["reduce", str(log), "-o", "-"]) == 1
    assert capfd.readouterr().out == ""


def test_a_device_is_written_and_stays_one(tmp_path: Path) -> None:
    log, link = write(tmp_path / "log.jsonl", ROWS[:9]), tmp_path / "null"
    link.symlink_to("/dev/null")
    for name in ("/dev/null", str(link)):
        assert cli.main(["reduce", str(log), "-o", name]) == 0
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert link.is_symlink()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the device of Linux that is full")
@pytest.mark.parametrize("name", ["/dev/full", "-"])
def test_an_output_that_is_full_is_told(name: str, tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl", ROWS[:9])
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, str(log), "-o", name],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (b"accumulator reduce: No space left on device")


def test_it_ends_quietly_when_nobody_reads_its_output(tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl", [(f"{i}", seq, c) for i in range(9) for _, seq, c in ROWS])
    command = [*COMMAND, str(log), "-o", "-"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait() == 141
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_is_followed(exists: bool, tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl", ROWS)
    real, link = tmp_path / "folder" / "real", tmp_path / "out.jsonl"
    real.parent.mkdir()
    if exists:
        real.write_bytes(b"old")
        real.chmod(0o600)
    link.symlink_to(real)
    assert reduce(log, link) == 0
    assert link.is_symlink()
    assert read(real) == expected(ROWS)
    if exists:
        assert real.stat().st_mode & 0o777 == 0o600
    assert list(real.parent.iterdir()) == [real]


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
