"""The documentation keeps its word: every Python block of every page runs, in the page's order.

A page's blocks share their names, as they do for a reader who types them in. An `output` block is
what the Python block, or the shell command, above it prints. A page is skipped where a package is
not installed that a line `<!-- needs: NAME -->` in it names; such a line right above a block is for
that block alone.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from openai_played import playing

import accumulator

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
_BLOCK = re.compile(
    r"(?:^<!-- needs: (?P<needs>[\w., ]+) -->\n)?"
    r"^(?P<fence>```+)(?P<kind>\w+)\n(?P<code>.*?)^(?P=fence)$"
    r"(?:\n+^(?P=fence)output\n(?P<output>.*?)^(?P=fence)$)?",
    re.M | re.S,
)
_NEEDS = re.compile(r"^<!-- needs: ([\w., ]+) -->\n\n", re.M)


@dataclass(frozen=True)
class Block:
    """A fenced block, and what it prints if the page says so."""

    kind: str
    code: str
    output: str | None
    needs: tuple[str, ...]
    line: int


def blocks_of(page: str) -> Iterator[Block]:
    for found in _BLOCK.finditer(page):
        line = page.count("\n", 0, found.start("code")) + 1
        yield Block(
            found["kind"], found["code"], found["output"], names(found["needs"] or ""), line
        )


def names(listed: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[\w.]+", listed))


def is_there(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


PAGES = {
    str(path.relative_to(DOCS)): path
    for path in sorted(DOCS.rglob("*.md"))
    if any(block.kind in ("python", "sh") for block in blocks_of(path.read_text("utf-8")))
    and path.name != "use-it-with.md"  # whose examples run in test_use_it_with.py, by sections
}


@pytest.fixture
def openai_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the variables that the examples read name a server on the loopback interface."""
    with playing() as base_url:
        monkeypatch.setenv("OPENAI_BASE_URL", base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        yield


def test_there_are_pages_with_examples() -> None:
    assert {"index.md", "raw-http.md", "openai-sdk.md"} <= set(PAGES)


@pytest.mark.usefixtures("openai_in_the_environment")
@pytest.mark.parametrize("path", PAGES.values(), ids=PAGES)
def test_examples_run_and_print_what_the_page_says(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = path.read_text("utf-8")
    for package in names(" ".join(_NEEDS.findall(page))):
        if not is_there(package):
            pytest.skip(f"the page needs {package}, which is not installed")
    # What an example writes, it writes there; what it reads are the recordings.
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath("tests").symlink_to(ROOT / "tests")
    known: dict[str, object] = {"__name__": "__main__"}
    for block in blocks_of(page):
        if not all(map(is_there, block.needs)):
            continue
        if block.kind == "python":
            # With lines before it, so that a traceback has those of the page.
            code = compile("\n" * (block.line - 1) + block.code, str(path), "exec")
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(code, known)
            if block.output is not None:
                assert out.getvalue() == block.output, f"{path.name}, line {block.line}"
        elif block.kind == "sh" and block.output is not None:
            assert printed_by(block.code) == block.output, f"{path.name}, line {block.line}"


def printed_by(commands: str) -> str:
    """Run shell commands whose `accumulator` is that of the interpreter of the tests."""
    command = f'accumulator() {{ "{sys.executable}" -m accumulator "$@"; }}\n{commands}'
    run = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, encoding="utf-8", check=False
    )
    return run.stdout + run.stderr


def test_signatures_that_the_reference_spells_out_are_those_of_the_functions() -> None:
    page = DOCS.joinpath("reference.md").read_text("utf-8")
    spelt = dict(re.findall(r"autofunction:: (\w+)\((.*)\)$", page, re.M))
    assert set(spelt) == {"accumulate", "wrap"}
    for name, parameters in spelt.items():
        found = list(inspect.signature(getattr(accumulator, name)).parameters)
        if found[-1] == "options":  # the keywords of `wrap`
            found[1:] = list(inspect.signature(accumulator.wrap).parameters)[1:]
        assert re.findall(r"(?:^|, )(\w+)", parameters) == found


def test_cases_that_the_pages_name_are_there() -> None:
    cases = {path.stem for path in (ROOT / "tests" / "conformance").glob("*.json")}
    areas = {case.partition("-")[0] for case in cases}
    for path in DOCS.rglob("*.md"):
        named = re.findall(r"`([a-z]+)(-[a-z0-9]+(?:-[a-z0-9]+)*)`", path.read_text("utf-8"))
        unknown = {area + rest for area, rest in named if area in areas} - cases
        assert not unknown, f"{path.name} names cases that are gone"
