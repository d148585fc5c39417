"""Logs made for tests: rows of some streams, in files of each form, and what they come to."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest

from accumulator import cli
from accumulator.batch import reduce_sorted

pa = pytest.importorskip("pyarrow", reason="the extra 'logs' is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="the extra 'logs' is not installed")

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


each_order = pytest.mark.parametrize("rows", [ROWS, shuffled(ROWS)], ids=["in order", "shuffled"])


def reduce(paths: Path | list[Path], out: Path, *options: str) -> int:
    """Run the command in this process; return its exit code."""
    each = paths if isinstance(paths, list) else [paths]
    return cli.main(["reduce", *map(str, each), "-o", str(out), *options])


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
        pq.write_table(table, path, row_group_size=500)
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
    elif path.suffix in (".zst", ".zstd"):
        data = pa.CompressedInputStream(pa.BufferReader(data), "zstd").read()
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        found = [row | {"completion": json.loads(row["completion"])} for row in table.to_pylist()]
    else:
        found = [json.loads(line) for line in data.splitlines()]
    results: dict[object, object] = {
        row["id"]: (row["status"], row["completion"], row["repeats"]) for row in found
    }
    assert len(results) == len(found), "a stream stands twice in the output"
    return results


def assert_reduced(rows: list[Row], log: Path, out: Path | None = None) -> None:
    """Write rows to a log, reduce it, and compare what each stream comes to."""
    out = out or log.with_name("out.jsonl")
    assert reduce(write(log, rows), out) == 0
    assert read(out) == expected(rows)
