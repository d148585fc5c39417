"""Which files a path, a folder or a glob means, and what they hold by their first bytes."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from accumulator._inputs import UsageError, find_inputs

JSON = b'{"id":"a"}\n'
SSE = b"data: {}\n\n"
# What a file holds, its form and compression; a name says nothing.
FILES: dict[str, tuple[bytes, str, str]] = {
    "empty.sse": (b"", "json", ""),
    "lines.txt": (JSON, "json", ""),
    "array.json": (b" \r\n[" + JSON, "json", ""),
    "bom.jsonl": (b"\xef\xbb\xbf" + JSON, "json", ""),
    "body.json": (SSE, "sse", ""),
    "lines.json": (gzip.compress(JSON), "json", "gzip"),
    "body.gz": (gzip.compress(SSE), "sse", "gzip"),
    "cut.gz": (gzip.compress(SSE * 100)[:5], "json", "gzip"),
    "damaged.gz": (b"\x1f\x8bnothing of the sort", "json", "gzip"),
}


@pytest.mark.parametrize(("name", "file"), FILES.items(), ids=FILES)
def test_a_file_is_known_by_its_first_bytes(
    name: str, file: tuple[bytes, str, str], tmp_path: Path
) -> None:
    data, form, compression = file
    path = tmp_path / name
    path.write_bytes(data)
    [found] = find_inputs([str(path)])
    assert (found.path, found.name, found.size) == (str(path), name, len(data))
    assert (found.form, found.compression) == (form, compression)
    assert found.modified == path.stat().st_mtime_ns


# Of a tree of files: the path asked for, and the names found in order.
ASKED: dict[str, tuple[str, list[str]]] = {
    "a file": ("b/c.json", ["c.json"]),
    "a hidden file": (".h.json", [".h.json"]),
    "a folder": (".", ["a.json", "b/c.json", "b/d/e.json"]),
    "a folder in it": ("b", ["c.json", "d/e.json"]),
    "a glob": ("b/*.json", ["c.json"]),
    "a glob that finds folders, too": ("*", ["a.json"]),
    "a glob of all below": ("**/*.json", ["a.json", "c.json", "e.json"]),
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("a.json", "b/c.json", "b/d/e.json", ".h.json", "b/.git/f.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JSON)
    return tmp_path


@pytest.mark.parametrize(("asked", "names"), ASKED.values(), ids=ASKED)
def test_a_path_means_files_in_order(asked: str, names: list[str], tree: Path) -> None:
    assert [each.name for each in find_inputs([str(tree / asked)])] == names


def test_a_file_that_is_asked_for_twice_is_read_once(tree: Path) -> None:
    paths = ("b/c.json", "b", "b/*.json", "b/../b/c.json")
    found = find_inputs([str(tree / path) for path in paths])
    assert [each.name for each in found] == ["c.json", "d/e.json"]


def test_a_second_file_of_one_name_has_its_whole_path_for_a_name(tree: Path) -> None:
    (tree / "b" / "a.json").write_bytes(JSON)
    found = find_inputs([str(tree / "a.json"), str(tree / "b" / "*.json")])
    assert [each.name for each in found] == ["a.json", str(tree / "b" / "a.json"), "c.json"]


# Of that tree: what is written, the path asked for, and the names found.
WRITTEN: dict[str, tuple[list[str], str, list[str]]] = {
    "a file in a folder": (["a.json"], ".", ["b/c.json", "b/d/e.json"]),
    "a folder in a folder": (["b/d"], ".", ["a.json", "b/c.json"]),
    "a folder by another way": (["b/../b/d"], ".", ["a.json", "b/c.json"]),
    "what a glob finds": (["a.json", "b/d"], "**/*.json", ["c.json"]),
    "what starts alike": (["a", "b/c"], ".", ["a.json", "b/c.json", "b/d/e.json"]),
}


@pytest.mark.parametrize(("written", "asked", "names"), WRITTEN.values(), ids=WRITTEN)
def test_what_is_written_is_left_out_of_folders_and_globs(
    written: list[str], asked: str, names: list[str], tree: Path
) -> None:
    found = find_inputs([str(tree / asked)], [str(tree / path) for path in written])
    assert [each.name for each in found] == names


@pytest.mark.parametrize("asked", ["b", "b/c.json", "b/d", "b/../b/d/e.json"])
def test_what_is_written_is_refused_where_it_is_named(asked: str, tree: Path) -> None:
    with pytest.raises(UsageError, match="is written by this run"):
        find_inputs([str(tree / asked)], [str(tree / "b")])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="pipe is no regular file"):
        find_inputs([str(tmp_path / "pipe")])


@pytest.mark.parametrize("asked", ["none.json", "none/*.json"])
def test_what_is_nothing_is_not_found(asked: str, tree: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none"):
        find_inputs([str(tree / asked)])
