"""What a row is, in JSON Lines and in Parquet, and what is reported of a line that is not one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from streamed import delta

from accumulator._logs.inputs import detect_source
from accumulator._logs.recording import read_recording
from accumulator._logs.rows import Keys, Row, read_rows
from accumulator._logs.terminal import Display
from accumulator.batch import reduce_sorted


class Notes(Display):
    """Notes down what is reported."""

    def __init__(self) -> None:
        self.told: list[tuple[int, str]] = []
        self.unread_files: list[str] = []
        self.size = self.rows = 0

    def read(self, size: int, rows: int = 0) -> None:
        self.size += size
        self.rows += rows

    def bad_row(self, label: str, line: int, why: str, text: bytes) -> None:
        self.told.append((line, why))

    def unread(self, label: str, why: str) -> None:
        self.unread_files.append(f"{label}: {why}")


def read(path: Path, notes: Notes | None = None) -> tuple[list[Row], list[tuple[int, str]]]:
    """Read a file; return its rows, and the line and the fault of each bad one."""
    whole = notes is None
    notes = notes or Notes()
    rows: list[Row] = []
    for some in read_rows(
        [detect_source(str(path), "name", "folder", ["id", "chunk"])], Keys(), notes
    ):
        rows += some
    if whole:
        assert notes.unread_files == []
        assert notes.rows == len(rows)
        assert notes.size == path.stat().st_size
    return rows, notes.told


def a_line(id: str, size: int = 1) -> bytes:
    return b'{"id":"%s","chunk":{"x":"%s"}}\n' % (id.encode(), b"x" * size)


A: Row = ("a", None, b'{"x":"x"}')
B: Row = ("b", None, b'{"x":"x"}')
DONE: Row = ("a", None, b"[DONE]")
BARE, BARE_A = b'{"id":"","choices":[]}\n', b'{"id":"a","choices":[]}\n'
ERROR = b'{"error":{"message":"no"}}\n'
OF_A: Row = ("a", None, BARE.strip())
NAMED: Row = ("name", None, BARE.strip())
NAMED_DONE: Row = ("name", None, b"[DONE]")
NO_ID = "no stream id under 'id'"
NO_UTF8 = r"'utf-8' codec can't encode character '\ud83d' in position 0: surrogates not allowed"

FILES: dict[str, tuple[bytes, list[Row], list[tuple[int, str]]]] = {
    "no last line end": (a_line("a") + a_line("b")[:-1], [A, B], []),
    "one line without its end": (a_line("a")[:-1], [A], []),
    "a BOM": (b"\xef\xbb\xbf" + a_line("a"), [A], []),
    "a BOM alone": (b"\xef\xbb\xbf", [], []),
    "empty lines": (b"\n" + a_line("a") + b"\n \n" + a_line("b"), [A, B], []),
    "comments": (b": x\n" + a_line("a"), [A], []),
    "lines of SSE": (b"data: " + a_line("a") + b"\ndata: [DONE]\n\n", [A, DONE], []),
    "ends on lines of their own": (
        a_line("a") + b"[DONE]\n[DONE]\n" + a_line("b"), [A, DONE, DONE, B], []
    ),
    "an end that belongs to nothing": (b"[DONE]\n", [], [(1, NO_ID)]),
    "a bare chunk without an id": (BARE, [NAMED], []),
    "bare chunks before and after an id": (
        BARE + BARE_A + BARE + ERROR + b"[DONE]\n" + a_line("b"),
        [OF_A, ("a", None, BARE_A.strip()), OF_A, ("a", None, ERROR.strip()), DONE, B], [],
    ),
    "bare chunks of which none has an id": (
        BARE * 70_000 + b"[DONE]\n" + a_line("a"), [*[NAMED] * 70_000, NAMED_DONE, A], []
    ),
    "a bare chunk after the end": (BARE + b"[DONE]\n" + BARE, [NAMED, NAMED_DONE], [(3, NO_ID)]),
    "an error at the beginning": (ERROR + a_line("a"), [A], [(1, NO_ID)]),
    "a row without an id": (a_line("a") + b'{"chunk":{"choices":[]}}', [A], [(2, NO_ID)]),
    "what is no chunk": (a_line("a") + b'{"b":1}', [A], [(2, NO_ID)]),
    "a number as id": (b'{"id":7,"chunk":{}}\n', [("7", None, b"{}")], []),
    "zero as id": (b'{"id":0,"chunk":{}}\n', [("0", None, b"{}")], []),
    "an array": (a_line("a") + b'["a"]\n', [A], [(2, "Expected `object`, got `array`")]),
    "a number of 64 bits": (
        b'{"id":"a","seq":9223372036854775807}\n',
        [("a", (1 << 63) - 1, b'{"id":"a","seq":9223372036854775807}')], [],
    ),
    "a number of more bits": (
        b'{"id":"a","seq":9223372036854775808}\n', [],
        [(1, "Expected `int` <= 9223372036854775807 - at `$.seq`")],
    ),
    "chunks as strings of JSON": (
        b'{"id":"a","chunk":"{\\"x\\":\\"x\\"}"}\n' + a_line("b"), [A, B], []
    ),
    "a string that is none": (b'{"id":"a","chunk":"\xff"}\n', [("a", None, b'"\xff"')], []),
    "half a surrogate pair": (
        rb'{"id":"a","seq":1,"chunk":{"x":"\ud83d"}}', [("a", 1, rb'{"x": "\ud83d"}')], []
    ),
    "half a pair in a bare chunk": (
        rb'{"id":"a","x":"\ud83d"}', [("a", None, rb'{"id":"a","x":"\ud83d"}')], []
    ),
    "half a pair in a string": (
        rb'{"id":"a","t":"\ud83d","chunk":"\ud83d"}', [("a", None, rb'"\ud83d"')], []
    ),
    "half a pair in an id": (
        rb'{"id":"\ud83d","chunk":{}}', [],
        [(1, NO_UTF8)],
    ),
    "half a pair in a number": (rb'{"id":"a","seq":"\ud83d"}', [], [(1, NO_UTF8)]),
    "half a pair in what is no object": (rb'"\ud83d"', [], [(1, NO_UTF8)]),
    "two values on a line, and a blank one": (
        b'{"id":"a"} {"id":"b"}\n\n', [], [(1, "JSON is malformed: trailing characters (byte 12)")]
    ),
    "half a string": (b'{"id":"a","chunk":"x', [], [(1, "Input data was truncated")]),
    "a long line": (
        a_line("b") + a_line("a", 200_000) + a_line("b"),
        [B, ("a", None, b'{"x":"%s"}' % (b"x" * 200_000)), B], [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_what_a_line_is(name: str, tmp_path: Path) -> None:
    data, rows, told = FILES[name]
    path = tmp_path / "log.jsonl"
    path.write_bytes(data)
    assert read(path) == (rows, told)


def test_a_line_too_long_to_be_held_is_a_bad_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accumulator._logs.rows.LONGEST_LINE", 100_000)
    path = tmp_path / "log.jsonl"
    why = "the line is longer than 100,000 bytes"
    path.write_bytes(a_line("a") + a_line("b", 500_000) + a_line("a") + a_line("b", 500_000)[:-1])
    rows, told = read(path)
    assert (rows, told) == ([A, A], [(2, why), (4, why)])


@pytest.fixture
def parquet(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a row to a file, as pairs of a name and a value."""
    pa = pytest.importorskip("pyarrow", reason="the extra 'logs' is not installed")
    pq = pytest.importorskip("pyarrow.parquet", reason="the extra 'logs' is not installed")

    def parquet(*columns: tuple[str, object], **types: str) -> Path:
        path = tmp_path / "log.parquet"
        arrays = [pa.array([value], types.get(name)) for name, value in columns]
        pq.write_table(pa.table(arrays, names=[name for name, _ in columns]), path)
        return path

    return parquet


def test_large_rows_of_parquet_are_read_a_few_at_a_time(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    path = tmp_path / "log.parquet"
    chunks = [f'"{n}{"x" * 1_000_000}"' for n in range(20)]
    table = pa.table({"id": ["a"] * 20, "chunk": chunks})
    pytest.importorskip("pyarrow.parquet").write_table(table, path)
    source = detect_source(str(path), "name", "folder", ["id", "chunk"])
    found = [len(rows) for rows in read_rows([source], Keys(), Notes())]
    assert (sum(found), max(found)) == (20, 5)


@pytest.mark.parametrize("kind", ["null", "string", "binary"])
def test_a_null_for_a_chunk_is_a_chunk_that_was_lost_as_in_spark(
    kind: str, parquet: Callable[..., Path]
) -> None:
    rows, told = read(parquet(("id", "a"), ("chunk", None), chunk=kind))
    [(id, result)] = reduce_sorted(rows)
    assert (id, result.problem_counts, told) == ("a", {"invalid_chunk": 1}, [])


@pytest.mark.parametrize(
    ("id", "kind", "chunk"),
    [
        ("a", "string", '{"x":"x"}'),
        ("a", "large_string", b'{"x":"x"}'),
        (7, "int64", '{"x":"x"}'),
        ("a", "string", {"x": "x"}),
    ],
)
def test_rows_of_parquet_have_ids_and_chunks_of_several_types(
    id: object, kind: str, chunk: object, parquet: Callable[..., Path]
) -> None:
    rows = [(str(id), None, b'{"x":"x"}')]
    assert read(parquet(("id", id), ("chunk", chunk), id=kind)) == (rows, [])


@pytest.mark.parametrize("kind", ["string", "large_string"])
def test_columns_of_parquet_may_be_dictionaries(kind: str, parquet: Callable[..., Path]) -> None:
    pa = pytest.importorskip("pyarrow")
    types = dict.fromkeys(("id", "chunk"), pa.dictionary("int32", kind))
    assert read(parquet(("id", "a"), ("chunk", "{}"), **types)) == ([("a", None, b"{}")], [])


MISFITS: list[tuple[dict[str, object], str]] = [
    ({"id": None, "chunk": "{}"}, "no stream id"),
    ({"id": "", "chunk": "{}"}, "no stream id"),
    (
        {"id": "a", "seq": 1 << 63, "chunk": "{}"},
        f"a sequence number of more than 64 bits: {1 << 63}",
    ),
]


@pytest.mark.parametrize(("columns", "why"), MISFITS)
def test_what_is_no_row_of_parquet(
    columns: dict[str, object], why: str, parquet: Callable[..., Path]
) -> None:
    assert read(parquet(*columns.items(), seq="uint64")) == ([], [(1, why)])


UNREADABLE: dict[str, tuple[list[tuple[str, object]], str]] = {
    "no id": ([("chunk", "{}")], "'id' of text or integers; there is none"),
    "no chunk": ([("id", "a")], "'chunk' of text, bytes or objects; there is none"),
    "an id twice": (
        [("id", "a"), ("chunk", "{}"), ("id", "b")],
        "'id' of text or integers; there is string and string",
    ),
    "a number twice": (
        [("id", "a"), ("seq", 1), ("seq", 1), ("chunk", "{}")],
        "'seq' of integers; there is int64 and int64",
    ),
    "an id of bytes": (
        [("id", b"a"), ("chunk", "{}")], "'id' of text or integers; there is binary"
    ),
    "an id that is true": (
        [("id", True), ("chunk", "{}")], "'id' of text or integers; there is bool"
    ),
    "a number with a fraction": (
        [("id", "a"), ("seq", 0.5), ("chunk", "{}")], "'seq' of integers; there is double"
    ),
    "a chunk that is a number": (
        [("id", "a"), ("chunk", 7)], "'chunk' of text, bytes or objects; there is int64"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("columns", "why"), UNREADABLE.values(), ids=UNREADABLE)
def test_columns_that_hold_no_rows_are_told(
    columns: list[tuple[str, object]], why: str, parquet: Callable[..., Path]
) -> None:
    path, notes = parquet(*columns), Notes()
    assert read(path, notes) == ([], [])
    assert notes.unread_files == [f"{path}: there must be one column {why}"]


def test_the_rows_of_each_stream_are_in_order_and_one_without_an_id_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def row(text: str, **fields: object) -> str:
        return json.dumps({"chunk": delta({"content": text}), **fields})

    numbered, again = row("1", id="b"), row("0", id="b", seq=2)
    lines = [row("x", seq=1), numbered, row("2", t=5), again, "{x"]
    (tmp_path / "log").write_text("\n".join(lines))
    found = read_recording(str(tmp_path / "log"), Keys(time="t"))
    assert (found.has_bad_rows, found.why) == (True, None)
    assert capfd.readouterr().err.startswith(f"{tmp_path}/log:5: bad row: ")
    texts = {
        id: (result.completion.choices[0].message.content, times)
        for id, (result, times) in found.streams.items()
    }
    assert texts == {"": ("x", [None]), "b": ("012", [None, None, 5])}
