"""Rows in any order: disorder is noticed wherever it shows, and sorting stays in its memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("duckdb", reason="the extra 'logs' is not installed")

from log_files import (
    ROWS,
    a_stream,
    assert_reduced,
    expected,
    lines_of,
    read,
    reduce,  # it needs pyarrow, of the same extra
    shuffled,
    write,
)

COMMAND = [sys.executable, "-m", "accumulator", "reduce"]


@pytest.mark.parametrize(
    "moved",
    [
        ("s00", "s00"),
        ("s00", "s45"),
        ("s00", "s05"),
        ("s05", "s10"),
        ("s13", "s45"),
        ("s55", "s02"),
    ],
)
def test_a_row_out_of_order_is_found_anywhere(moved: tuple[str, str], tmp_path: Path) -> None:
    rows = [row for i in range(60) for row in a_stream(f"s{i:02}", 20)]
    row = next(row for row in rows if row[:2] == (moved[0], 4))
    rows.remove(row)
    rows.insert([id for id, _, _ in rows].index(moved[1]), row)
    assert_reduced(rows, tmp_path / "log.jsonl")


def test_more_streams_than_can_be_remembered_are_sorted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, out = write(tmp_path / "log.jsonl", ROWS), tmp_path / "out.jsonl"
    phases: list[str] = []
    begin = "accumulator._logs.terminal.Display.begin"
    monkeypatch.setattr(begin, lambda _, phase, size: phases.append(phase))
    for size, phase in ((4 << 20, "reading"), (30 << 20, "reducing")):
        monkeypatch.setattr("accumulator._logs.sort._BYTES_OF_ID", size)
        assert reduce(log, out) == 0
        assert read(out) == expected(ROWS)
        assert phases[-1] == phase


@pytest.mark.parametrize("order", [list, reversed])
@pytest.mark.parametrize("again", [True, False])
def test_rows_without_a_number_are_behind_those_with_one(
    again: bool, order: Callable[[list[bytes]], list[bytes]], tmp_path: Path
) -> None:
    def line(seq: object, text: str, id: str = "a") -> bytes:
        chunk = {"choices": [{"index": 0, "delta": {"content": text}}]}
        return json.dumps({"id": id, "seq": seq, "chunk": chunk}).encode() + b"\n"

    numbered = [line(seq, str(seq)) for seq in range(3)]
    others = [line(None, text) for text in "xyz"]
    log, out = tmp_path / "log.jsonl", tmp_path / "out.jsonl"
    first, *behind = order([*numbered, *others[:2]])
    log.write_bytes(
        b"".join([line(1, "", "b"), first, *behind, line(1, "", "b") * again, others[2]])
    )
    assert reduce(log, out) == 0
    found = [json.loads(row) for row in out.read_bytes().splitlines()]
    (row,) = [row for row in found if row["id"] == "a"]
    content = row["completion"]["choices"][0]["message"]["content"]
    assert content == ("012xyz" if order is list else "012yxz")


def test_what_a_stream_without_numbers_leaves_is_nothing_for_the_next_one(tmp_path: Path) -> None:
    def line(id: str, seq: int | None) -> bytes:
        return json.dumps({"id": id, "seq": seq, "chunk": {"choices": []}}).encode() + b"\n"

    log, out = tmp_path / "log.jsonl", tmp_path / "out.jsonl"
    log.write_bytes(line("a", None) * 2000 + line("b", 1) * 2000 + line("c", None))
    assert reduce(log, out) == 0
    found = [json.loads(row) for row in out.read_bytes().splitlines()]
    assert [(row["id"], row["repeats"]) for row in found] == [("a", 0), ("b", 1999), ("c", 0)]


def test_a_memory_that_does_not_suffice_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, out = write(tmp_path / "log.jsonl", shuffled(ROWS)), tmp_path / "out.jsonl"
    monkeypatch.setattr("accumulator._logs.sort._OVER", 5000.0)
    assert reduce(log, out) == 1
    assert "these rows need a larger --memory to be sorted" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == [log]


def test_a_disk_that_cannot_be_written_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, out = tmp_path / "log.jsonl", tmp_path / "out.jsonl"
    log.write_bytes(lines_of(shuffled(ROWS)) * 80)
    (tmp_path / "file").touch()
    monkeypatch.setattr("accumulator._logs.sort._SPILLED", str(tmp_path / "file" / "folder"))
    monkeypatch.setattr("accumulator._logs.sort._OVER", 40.0)
    assert reduce(log, out) == 1
    said = capfd.readouterr().err
    assert re.search(r"^accumulator reduce: .*file/folder", said, re.MULTILINE)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file", log]


def test_long_chunks_are_sorted_among_short_ones(tmp_path: Path) -> None:
    rows = [row for index in range(9) for row in a_stream(f"s{index}", 20)]
    for _, seq, chunk in rows:
        if seq % 3 == 0:
            chunk["choices"] = [{"index": 0, "delta": {"content": f"{seq}" * 2000}}]
    assert_reduced(shuffled(rows), tmp_path / "log.jsonl")


def test_ids_of_any_characters_are_sorted(tmp_path: Path) -> None:
    ids = ["", "a", "a\0", "a\0b", "é", "\uffff", "😀", "z"]
    rows = [(f"i{id}", seq, chunk) for seq in (0, 1) for id in ids for _, _, chunk in ROWS[:1]]
    assert_reduced(rows, tmp_path / "log.jsonl")


# --- memory ---------------------------------------------------------------------------------


def resident(pid: int) -> int:
    """Return the bytes that a process holds."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # it has just ended
        return 0


def peak_of(command: list[str]) -> int:
    """Run a command; return the bytes that it held at most."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, resident(process.pid))
        time.sleep(0.005)
    assert process.returncode == 0
    return peak


@pytest.mark.costs
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells it so")
@pytest.mark.parametrize(("memory", "skewed"), [(300, False), (256, True)])
def test_a_shuffled_log_is_sorted_within_the_memory(
    memory: int, skewed: bool, tmp_path: Path
) -> None:
    rows = lines_of([(id, seq, chunk) for id, seq, chunk in shuffled(ROWS)])
    log, out = tmp_path / "log.jsonl", tmp_path / "out.jsonl"
    with log.open("wb") as file:
        for copy in range(600):
            # If skewed, each stream has the rows of 600, nearly all of them repeats.
            name = b"" if skewed else b"%d" % copy
            file.write(rows.replace(b'"id": "s', b'"id": "%bs' % name))
    assert log.stat().st_size > 200_000_000
    command = [*COMMAND, str(log), "-o", str(out), "--memory", f"{memory}M"]
    assert 50 * 1024 * 1024 < peak_of(command) < memory * 1024 * 1024
    with out.open("rb") as results:
        assert sum(1 for _ in results) == (60 if skewed else 600 * 60)


@pytest.mark.costs
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells it so")
@pytest.mark.parametrize(("count", "size"), [(20, 6_000_000), (20_000, 15_000), (6_000, 40_000)])
def test_rows_of_any_size_are_sorted_in_the_smallest_memory(
    count: int, size: int, tmp_path: Path
) -> None:
    large = [a_stream(f"large{index}", 1) for index in range(count)]
    for (_, _, chunk), *_ in large:
        chunk["choices"] = [{"index": 0, "delta": {"content": "x" * size}}]
    rows = [*ROWS, *(row for stream in large for row in stream)]
    log, out = write(tmp_path / "log.jsonl.gz", rows[::-1]), tmp_path / "out.jsonl"
    command = [*COMMAND, str(log), "-o", str(out), "--memory", "256M"]
    # A row of megabytes is in memory a few times, besides what is sorted.
    assert 50 * 1024 * 1024 < peak_of(command) < 256 * 1024 * 1024 + 5 * size
    assert read(out) == expected(rows)


@pytest.mark.costs
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells it so")
def test_a_long_stream_in_order_is_held_as_its_text_alone(tmp_path: Path) -> None:
    rows = a_stream("long", 40000)
    for _, _, chunk in rows[:40000]:
        chunk["choices"] = [{"index": 0, "delta": {"content": "x" * 800}}]
    log, out = write(tmp_path / "log.jsonl.gz", [*ROWS[:50], *rows]), tmp_path / "out.jsonl"
    assert peak_of([*COMMAND, str(log), "-o", str(out)]) < 200 * 1024 * 1024
    assert read(out) == expected([*ROWS[:50], *rows])
