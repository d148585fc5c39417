"""Which files a path, a folder or a glob means, and what they are, by their first bytes."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from accumulator._logs.inputs import detect_source, find_files

JSON = b'{"id":"a"}\n'
SSE = b"data: {}\n\n"
# What a file contains, and its form; a name says nothing.
FILES: dict[str, tuple[bytes, str]] = {
    "empty.sse": (b"", "rows"),
    "lines.txt": (JSON, "rows"),
    "array.json": (b" \r\n[" + JSON, "rows"),
    "bom.jsonl": (b"\xef\xbb\xbf" + JSON, "rows"),
    "rows.json": (JSON * 2, "rows"),
    "a row with an error.json": (b'{"id":"a","error":{}}', "rows"),
    "error.sse": (b'{"error":{"message":"x"}}\n', "page"),
    "error in a list.sse": (b'[{"error":{"message":"x"}}]', "page"),
    "rows in a list.json": (b'[{"id":"a"},{"id":"b"}]', "rows"),
    "rows in a list over lines.json": (b'[{"id":"a","chunk":{}},\n{"id":"b","chunk":{}}]', "rows"),
    "an indented row.json": (b'{\n  "id": "a",\n  "chunk": {}\n}\n', "rows"),
    "indented.sse": (b'{\n  "detail": "Not Found"\n}\n', "page"),
    "a long one.sse": (b'{\n  "detail": "' + b"x" * 9000 + b'"\n}\n', "page"),
    "one line.sse": (b'{"detail": "Not Found"}', "page"),
    "a bare chunk without an id.json": (b'{"choices":[]}', "rows"),
    "page.html": (b"<html></html>", "page"),
    "cut in a row.jsonl": (b'"a","chunk":{}}\n{"id":"a","chunk":{}}\n', "rows"),
    "cut in a bare chunk.jsonl": (b'"a"}\n{"id":"a","choices":[]}\n', "rows"),
    "cut in a long row.jsonl": (b"x" * 9000 + b'"}\n{"id":"a","chunk":{}}\n', "rows"),
    "half a pair.jsonl": (rb"# rows" + b"\n" + rb'{"id":"a","chunk":"\ud83d"}', "rows"),
    "half a pair in a page.json": (rb'{"detail":"\ud83d"}', "page"),
    "a heading.jsonl": (b'# rows\n{"id":"a"}\n{"id":"a","chunk":{}}', "rows"),
    "a page with an object.html": (b'<script>\n{"id":"a"}\n', "page"),
    "body.json": (SSE, "body"),
    "lines.json": (gzip.compress(JSON), "rows"),
    "body.gz": (gzip.compress(SSE), "body"),
    "cut.gz": (gzip.compress(SSE * 100)[:5], "rows"),
    "cut at its end.gz": (gzip.compress(SSE * 100)[:-9], "body"),
    "damaged.gz": (b"\x1f\x8bnothing of the sort", "rows"),
}


@pytest.mark.parametrize(("name", "file"), FILES.items(), ids=FILES)
def test_a_file_is_known_by_its_first_bytes(
    name: str, file: tuple[bytes, str], tmp_path: Path
) -> None:
    data, form = file
    path = tmp_path / name
    path.write_bytes(data)
    found = detect_source(str(path), "name", "folder", ["id", "chunk"])
    assert (found.path, found.name, found.label) == (str(path), "name", str(path))
    assert (found.size, found.form) == (len(data), form)


# Of a tree of files: the path asked for, and the names found in order; then, what is written too.
ASKED: dict[str, tuple[str, list[str], list[str]]] = {
    "a file": ("b/c.json", ["c.json"], []),
    "a hidden file": (".h.json", [".h.json"], []),
    "a folder": (".", ["a.json", "b/c.json", "b/d/e.json"], []),
    "a folder in it": ("b", ["c.json", "d/e.json"], []),
    "a glob": ("b/*.json", ["c.json"], []),
    "a glob that finds folders, too": ("*", ["a.json"], []),
    "a glob that finds folders only": ("[b-z]*", ["c.json", "d/e.json"], []),
    "a glob of all below": ("**/*.json", ["a.json", "c.json", "e.json"], []),
    # What is written is left out of folders and globs.
    "a file in a folder is written": (".", ["b/c.json", "b/d/e.json"], ["a.json"]),
    "a file by another way is": ("b", ["d/e.json"], ["b/../b/c.json"]),
    "what a glob finds is": ("**/*.json", ["e.json"], ["a.json", "b/c.json"]),
    "what starts alike is": (".", ["a.json", "b/c.json", "b/d/e.json"], ["a", "b/c"]),
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("a.json", "b/c.json", "b/d/e.json", ".h.json", "b/.git/f.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JSON)
    return tmp_path


def names_of(paths: list[Path], outputs: list[Path] | None = None) -> list[str]:
    found = find_files([str(path) for path in paths], [str(path) for path in outputs or ()])
    return [name for _, name in found]


@pytest.mark.parametrize(("asked", "names", "written"), ASKED.values(), ids=ASKED)
def test_a_path_means_files_in_order(
    asked: str, names: list[str], written: list[str], tree: Path
) -> None:
    assert names_of([tree / asked], [tree / path for path in written]) == names


def test_a_file_that_is_asked_for_twice_is_read_once(tree: Path) -> None:
    paths = ("b/c.json", "b", "b/*.json", "b/../b/c.json")
    assert names_of([tree / path for path in paths]) == ["c.json", "d/e.json"]
    assert find_files(["-", "-"]) == [("-", "stdin")]


def test_a_second_file_of_one_name_has_its_whole_path_for_a_name(tree: Path) -> None:
    (tree / "b" / "a.json").write_bytes(JSON)
    found = names_of([tree / "a.json", tree / "b" / "*.json"])
    assert found == ["a.json", str(tree / "b" / "a.json"), "c.json"]
