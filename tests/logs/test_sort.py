"""Rows in any order: disorder is noticed wherever it shows, and sorting stays in its memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("duckdb", reason="the extra 'logs' is not installed")

from log_files import (
    ROWS,
    Json,
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
MIB = 1 << 20


@pytest.mark.parametrize("place", ["s00", "s45", "s05", "s10", "s02"])
@pytest.mark.parametrize("moved", ["s00", "s05", "s13", "s55"])
def test_a_row_out_of_order_is_found_anywhere(moved: str, place: str, log: Path) -> None:
    rows = [row for i in range(60) for row in a_stream(f"s{i:02}", 20)]
    row = next(row for row in rows if row[:2] == (moved, 4))
    rows.remove(row)
    rows.insert([id for id, _, _ in rows].index(place), row)
    assert_reduced(rows, log)


def test_more_streams_than_can_be_remembered_are_sorted(
    log: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(log, ROWS)
    phases: list[str] = []
    begin = "accumulator._logs.terminal.Display.begin"
    monkeypatch.setattr(begin, lambda _, phase, size: phases.append(phase))
    for size, phase in ((4 << 20, "reading"), (30 << 20, "reducing")):
        monkeypatch.setattr("accumulator._logs.sort._BYTES_OF_ID", size)
        assert reduce(log, out) == 0
        assert read(out) == expected(ROWS)
        assert phases[-1] == phase


def a_chunk(text: str) -> Json:
    return {"choices": [{"index": 0, "delta": {"content": text}}]}


def a_line(id: str, seq: int | None, text: str = "") -> bytes:
    return lines_of([(id, seq, a_chunk(text))])  # type: ignore[list-item]  # null is no number


@pytest.mark.parametrize("order", [list, reversed])
@pytest.mark.parametrize("again", [True, False])
def test_rows_without_a_number_are_behind_those_with_one(
    again: bool, order: Callable[[list[bytes]], list[bytes]], log: Path, out: Path
) -> None:
    numbered = [a_line("a", seq, str(seq)) for seq in range(3)]
    others = [a_line("a", None, text) for text in "xyz"]
    first, *behind = order([*numbered, *others[:2]])
    other = a_line("b", 1)
    log.write_bytes(b"".join([other, first, *behind, other * again, others[2]]))
    assert reduce(log, out) == 0
    [row] = [row for row in map(json.loads, out.read_bytes().splitlines()) if row["id"] == "a"]
    content = row["completion"]["choices"][0]["message"]["content"]
    assert content == ("012xyz" if order is list else "012yxz")


def test_what_a_stream_without_numbers_leaves_is_nothing_for_the_next_one(
    log: Path, out: Path
) -> None:
    log.write_bytes(a_line("a", None) * 2000 + a_line("b", 1) * 2000 + a_line("c", None))
    assert reduce(log, out) == 0
    found = [json.loads(row) for row in out.read_bytes().splitlines()]
    assert [(row["id"], row["repeats"]) for row in found] == [("a", 0), ("b", 1999), ("c", 0)]


def test_a_memory_that_does_not_suffice_is_told(
    log: Path, out: Path, said: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(log, shuffled(ROWS))
    monkeypatch.setattr("accumulator._logs.sort._OVER", 5000.0)
    assert reduce(log, out) == 1
    assert "these rows need a larger --memory to be sorted" in said()
    assert list(log.parent.iterdir()) == [log]


def test_a_disk_that_cannot_be_written_is_told(
    log: Path, out: Path, said: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log.write_bytes(lines_of(shuffled(ROWS)) * 80)
    file = log.with_name("file")
    file.touch()
    monkeypatch.setattr("accumulator._logs.sort._SPILLED", str(file / "folder"))
    monkeypatch.setattr("accumulator._logs.sort._OVER", 40.0)
    assert reduce(log, out) == 1
    assert re.search(r"^accumulator reduce: .*file/folder", said(), re.MULTILINE)
    assert sorted(log.parent.iterdir()) == [file, log]


def test_long_chunks_are_sorted_among_short_ones(log: Path) -> None:
    rows = [row for index in range(9) for row in a_stream(f"s{index}", 20)]
    for _, seq, chunk in rows:
        if seq % 3 == 0:
            chunk.update(a_chunk(f"{seq}" * 2000))
    assert_reduced(shuffled(rows), log)


def test_ids_of_any_characters_are_sorted(log: Path) -> None:
    ids = ["", "a", "a\0", "a\0b", "é", "\uffff", "😀", "z"]
    assert_reduced([(f"i{id}", seq, a_chunk("x")) for seq in (0, 1) for id in ids], log)


# --- memory ---------------------------------------------------------------------------------


looks_at_memory = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="only Linux tells it so"
)


def peak_of(log: Path, out: Path, *options: str) -> int:
    """Reduce a log in another process; return how many pages it held at most, in MiB."""
    process = subprocess.Popen([*COMMAND, log, "-o", out, *options], stderr=subprocess.DEVNULL)
    pages = [0]
    while process.poll() is None:
        with suppress(OSError):  # it has just ended
            pages.append(int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]))
        time.sleep(0.005)
    assert process.returncode == 0
    return max(pages) * os.sysconf("SC_PAGE_SIZE") // MIB


@pytest.mark.costs
@looks_at_memory
@pytest.mark.parametrize(("memory", "skewed"), [(300, False), (256, True)])
def test_a_shuffled_log_is_sorted_within_the_memory(
    memory: int, skewed: bool, log: Path, out: Path
) -> None:
    rows = lines_of(shuffled(ROWS))
    with log.open("wb") as file:
        for copy in range(600):
            # If skewed, each stream has the rows of 600, nearly all of them repeats.
            name = b"" if skewed else b"%d" % copy
            file.write(rows.replace(b'"id": "s', b'"id": "%bs' % name))
    assert log.stat().st_size > 200_000_000
    assert 50 < peak_of(log, out, "--memory", f"{memory}M") < memory
    with out.open("rb") as results:
        assert sum(1 for _ in results) == (60 if skewed else 600 * 60)


@pytest.mark.costs
@looks_at_memory
@pytest.mark.parametrize(("count", "size"), [(20, 6_000_000), (20_000, 15_000), (6_000, 40_000)])
def test_rows_of_any_size_are_sorted_in_the_smallest_memory(
    count: int, size: int, tmp_path: Path, out: Path
) -> None:
    large = [a_stream(f"large{index}", 1) for index in range(count)]
    for (_, _, chunk), *_ in large:
        chunk.update(a_chunk("x" * size))
    rows = [*ROWS, *(row for stream in large for row in stream)]
    log = write(tmp_path / "log.jsonl.gz", rows[::-1])
    # A row of megabytes is in memory a few times, besides what is sorted.
    assert 50 < peak_of(log, out, "--memory", "256M") < 256 + 5 * size / MIB
    assert read(out) == expected(rows)


@pytest.mark.costs
@looks_at_memory
def test_a_long_stream_in_order_is_held_as_its_text_alone(tmp_path: Path, out: Path) -> None:
    rows = a_stream("long", 40000)
    for _, _, chunk in rows[:40000]:
        chunk.update(a_chunk("x" * 800))
    assert peak_of(write(tmp_path / "log.jsonl.gz", [*ROWS[:50], *rows]), out) < 200
    assert read(out) == expected([*ROWS[:50], *rows])
