"""What a row is, in JSON Lines and in Parquet, and what is told of a line that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from accumulator._inputs import Unit, find_inputs, units_of
from accumulator._rows import BadRow, Keys, RowReader

Row = tuple[str, "int | None", bytes]


def read(path: Path, unit_size: int | None = None) -> tuple[list[Row], list[tuple[int, str]]]:
    """Read a file in units of a size; give its rows, and the line and the fault of each bad one."""
    rows: list[Row] = []
    told: list[tuple[int, str]] = []
    [source] = find_inputs([str(path)])
    units = list(units_of([source]))
    if unit_size:
        size = source.size
        units = [
            Unit(source, start, min(start + unit_size, size), unit_size)
            for start in range(0, size, unit_size)
        ]
    lines = 0
    for unit in units:
        bad: list[BadRow] = []
        reader = RowReader(unit, Keys(), bad.append)
        for some in reader:
            rows += zip(some.ids, some.seqs or [None] * some.count, some.chunks, strict=True)  # type: ignore[union-attr]  # none are told as alike
        told += [(each.line + lines, each.why) for each in bad]
        lines += reader.lines
    return rows, told


def a_line(id: str, size: int = 1) -> bytes:
    return b'{"id":"%s","chunk":{"x":"%s"}}\n' % (id.encode(), b"x" * size)


A: Row = ("a", None, b'{"x":"x"}')
B: Row = ("b", None, b'{"x":"x"}')
DONE: Row = ("a", None, b"[DONE]")

FILES: dict[str, tuple[bytes, list[Row], list[tuple[int, str]]]] = {
    "no last line end": (a_line("a") + a_line("b")[:-1], [A, B], []),
    "one line without its end": (a_line("a")[:-1], [A], []),
    "a BOM": (b"\xef\xbb\xbf" + a_line("a"), [A], []),
    "a BOM alone": (b"\xef\xbb\xbf", [], []),
    "empty lines": (b"\n" + a_line("a") + b"\n \n" + a_line("b"), [A, B], []),
    "comments": (b": x\n" + a_line("a"), [A], []),
    "lines of SSE": (b"data: " + a_line("a") + b"\ndata: [DONE]\n\n", [A, DONE], []),
    "ends on lines of their own": (
        a_line("a") + b"[DONE]\n[DONE]\n" + a_line("b"),
        [A, DONE, DONE, B],
        [],
    ),
    "an end that belongs to nothing": (b"[DONE]\n", [], [(1, "no stream id under 'id'")]),
    "a number as id": (b'{"id":7,"chunk":{}}\n', [("7", None, b"{}")], []),
    "an array": (a_line("a") + b'["a"]\n', [A], [(2, "Expected `object`, got `array`")]),
    "a number of 64 bits": (
        b'{"id":"a","seq":9223372036854775806}\n',
        [("a", (1 << 63) - 2, b'{"id":"a","seq":9223372036854775806}')],
        [],
    ),
    "a number of more bits": (
        b'{"id":"a","seq":9223372036854775807}\n',
        [],
        [(1, "Expected `int` <= 9223372036854775806 - at `$.seq`")],
    ),
    "a long line": (
        a_line("b") + a_line("a", 200_000) + a_line("b"),
        [B, ("a", None, b'{"x":"%s"}' % (b"x" * 200_000)), B],
        [],
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_what_a_line_is(name: str, tmp_path: Path) -> None:
    data, rows, told = FILES[name]
    path = tmp_path / "log.jsonl"
    path.write_bytes(data)
    assert read(path) == (rows, told)


@pytest.mark.parametrize("size", [1, 7, 16, 40, 64])
def test_a_line_is_in_one_unit_wherever_the_file_is_cut(size: int, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    data = (
        a_line("a") + b"[DONE]\ndata: [DONE]\n" + a_line("b") * 3 + b"[DONE]\n" + a_line("a")[:-1]
    )
    path.write_bytes(data)
    rows = [A, DONE, DONE, B, B, B, ("b", None, b"[DONE]"), A]
    assert read(path, size) == (rows, [])


def test_a_line_too_long_to_be_held_is_a_bad_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accumulator._rows._LONGEST_LINE", 100_000)
    path = tmp_path / "log.jsonl"
    why = "longer than 100000 bytes"
    path.write_bytes(a_line("a") + a_line("b", 500_000) + a_line("a") + a_line("b", 500_000)[:-1])
    rows, told = read(path)
    assert (rows, told) == ([A, A], [(2, why), (4, why)])


def test_rows_of_parquet_have_ids_and_chunks_of_several_types(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="the extra 'logs' is not installed")
    pq = pytest.importorskip("pyarrow.parquet", reason="the extra 'logs' is not installed")
    chunk = '{"x":"x"}'
    types: list[tuple[object, object, object]] = [
        (pa.string(), "a", chunk),
        (pa.binary(), b"a", chunk.encode()),
        (pa.int64(), 7, chunk),
        (pa.string(), "a", {"x": "x"}),
    ]
    for place, (kind, id, each) in enumerate(types):
        path = tmp_path / f"{place}.parquet"
        pq.write_table(pa.table({"id": pa.array([id], kind), "chunk": [each]}), path)
        assert read(path) == ([(str(id) if id == 7 else "a", None, chunk.encode())], [])


MISFITS: list[tuple[dict[str, list[object]], str]] = [
    ({"id": [None], "chunk": ["{}"]}, "no stream id"),
    ({"id": [""], "chunk": ["{}"]}, "no stream id"),
    ({"id": [True], "chunk": ["{}"]}, "a stream id is text or an integer, not bool"),
    ({"id": ["a"], "seq": [0.5], "chunk": ["{}"]}, "a sequence number is an integer, not float"),
    (
        {"id": ["a"], "seq": [1 << 63], "chunk": ["{}"]},
        f"a sequence number of more than 64 bits: {1 << 63}",
    ),
    ({"id": ["a"], "chunk": [7]}, "a chunk is text, bytes or an object, not int"),
]


@pytest.mark.parametrize(("columns", "why"), MISFITS)
def test_what_is_no_row_of_parquet(
    columns: dict[str, list[object]], why: str, tmp_path: Path
) -> None:
    pa = pytest.importorskip("pyarrow", reason="the extra 'logs' is not installed")
    pq = pytest.importorskip("pyarrow.parquet", reason="the extra 'logs' is not installed")
    path = tmp_path / "log.parquet"
    arrays = {
        name: pa.array(values, pa.uint64() if values == [1 << 63] else None)
        for name, values in columns.items()
    }
    pq.write_table(pa.table(arrays), path)
    assert read(path) == ([], [(1, why)])


@pytest.mark.parametrize("missing", ["id", "chunk"])
def test_a_column_that_is_not_there_is_named(missing: str, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="the extra 'logs' is not installed")
    pq = pytest.importorskip("pyarrow.parquet", reason="the extra 'logs' is not installed")
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({name: ["a"] for name in {"id", "chunk"} - {missing}}), path)
    with pytest.raises(OSError, match=f"there is no column '{missing}'"):
        read(path)


def test_files_are_found_by_path_folder_and_glob(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b/c.jsonl", "b/.hidden", ".git/d"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(a_line("a"))

    def names(*paths: str) -> list[str]:
        return [each.name for each in find_inputs([str(tmp_path / path) for path in paths])]

    assert names(".") == ["a.jsonl", "b/c.jsonl"]
    assert names("*") == ["a.jsonl"]
    assert names("**/*.jsonl") == ["a.jsonl", "c.jsonl"]
    assert names("a.jsonl", "a.jsonl", "*.jsonl") == ["a.jsonl"]
    with pytest.raises(FileNotFoundError):
        names("*.csv")


def test_a_file_whose_first_bytes_cannot_be_read_is_told_of_when_it_is_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log.jsonl.gz"
    path.write_bytes(b"\x1f\x8bnot gzip at all")
    assert find_inputs([str(path)])[0].form == "json"
    with pytest.raises(OSError, match="Unknown compression method"):
        read(path)
