"""The documentation keeps its word: every Python block of every page runs, in the page's order.

A page's blocks share their names, as they do for a reader who types them in; `await` may stand
outside of any function, as in `python -m asyncio`. An `output` block is what the Python block, or
the shell command, above it prints. A page is skipped if a package is missing that one of its
`<!-- needs: NAME -->` lines names; such a line right above a block is for that block alone.
`<!-- not run: WHY -->` right above a block is for what no test machine has, such as a cluster.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import importlib.util
import inspect
import io
import re
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from openai_played import playing
from serving import drop_connections, heavy

import accumulator
from accumulator import events

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
_BLOCK = re.compile(
    r"(?:^<!-- (?:needs: (?P<needs>[\w., ]+)|not run: (?P<why>[^\n]+)) -->\n)?"
    r"^(?P<fence>```+)(?P<kind>\w+)\n(?P<code>.*?)^(?P=fence)$"
    r"(?:\n+^(?P=fence)output\n(?P<output>.*?)^(?P=fence)$)?",
    re.M | re.S,
)
_NEEDS = re.compile(r"^<!-- needs: ([\w., ]+) -->\n\n", re.M)
# Clients that cause warnings, and leave connections open.
_HEAVY = {"litellm", "any_llm"}


@dataclass(frozen=True)
class Block:
    """A fenced block, and what it prints if the page says so."""

    kind: str
    code: str
    output: str | None
    needs: tuple[str, ...]
    runs: bool
    line: int


def blocks_of(page: str) -> Iterator[Block]:
    for found in _BLOCK.finditer(page):
        line = page.count("\n", 0, found.start("code")) + 1
        needs = names(found["needs"] or "")
        yield Block(
            found["kind"], found["code"], found["output"], needs, found["why"] is None, line
        )


def names(listed: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[\w.]+", listed))


def is_there(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # a package's own package
        return False


PAGES = {
    str(path.relative_to(DOCS)): path
    for path in sorted(DOCS.rglob("*.md"))
    if any(
        block.runs and (block.kind == "python" or block.output is not None)
        for block in blocks_of(path.read_text("utf-8"))
    )
}


@pytest.fixture
def openai_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the variables that the examples read name a server on the loopback interface."""
    with playing() as base_url:
        monkeypatch.setenv("OPENAI_BASE_URL", base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        yield


def test_there_are_pages_with_examples() -> None:
    pages = (
        "index raw-http openai-sdk gateway tracing typed-events typed-arguments caches checkpoints"
    )
    assert {f"{page}.md" for page in pages.split()} <= set(PAGES)


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
        printed = None
        if not block.runs or not all(map(is_there, block.needs)):
            continue
        if block.kind == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                run(block, path, known)
            printed = out.getvalue()
        elif block.kind == "sh" and block.output is not None:
            printed = printed_by(block.code)
        assert block.output in (None, printed), f"{path.name}, line {block.line}"


def run(block: Block, path: Path, known: dict[str, object]) -> None:
    # With blank lines before it, so that a traceback has the page's line numbers.
    source, flags = "\n" * (block.line - 1) + block.code, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(source, str(path), "exec", flags=flags)
    clients = _HEAVY.intersection(block.needs)

    async def ran(running: Coroutine[object, object, object]) -> None:
        await running
        if clients:
            await drop_connections()

    with contextlib.ExitStack() as stack:
        for package in clients:
            stack.enter_context(heavy(package))
        running = eval(code, known)
        if inspect.iscoroutine(running):
            asyncio.run(ran(running))


def printed_by(commands: str) -> str:
    """Run shell commands with the `accumulator` of the interpreter that runs the tests."""
    command = f'accumulator() {{ "{sys.executable}" -m accumulator "$@"; }}\n{commands}'
    run = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, encoding="utf-8", check=False
    )
    return run.stdout + run.stderr


def test_signatures_that_the_reference_spells_out_are_those_of_the_functions() -> None:
    page = DOCS.joinpath("reference.md").read_text("utf-8")
    spelt = dict(re.findall(r"autofunction:: (\w+)\((.*)\)$", page, re.M))
    assert set(spelt) == {"accumulate", "wrap", "iter_events", "iter_chunks"}
    for name, parameters in spelt.items():
        # Three of them spell the keywords of `Accumulator` as one name.
        functions: list[Callable[..., object]] = [accumulator.iter_chunks]
        if name != "iter_chunks":
            functions = [accumulator.wrap, accumulator.Accumulator]
        omitted = {"stream", "options", "shortcut"}
        if name == "iter_events":
            omitted |= {"on_event", "on_end"}
        found = [each for f in functions for each in inspect.signature(f).parameters.values()]
        keywords = {f"{each.name}={default_of(each)}" for each in found if each.name not in omitted}
        stream, star, *spelt_out = parameters.split(", ")
        assert (stream, star) == ("stream", "*")
        assert sorted(spelt_out) == sorted(keywords)


def default_of(parameter: inspect.Parameter) -> str:
    named = {"rules": "DEFAULT_RULES", "limits": "DEFAULT_LIMITS"}
    return named.get(parameter.name) or repr(parameter.default).replace("'", '"')


def test_the_table_of_events_has_each_of_them_with_its_fields() -> None:
    page = DOCS.joinpath("typed-events.md").read_text("utf-8")
    rows = re.findall(r"^\| `([\w.]+)` \| (.+?) \|", page, re.M)
    expected = {
        get_args(get_type_hints(kind)["type"])[0]: {
            name for name in dir(kind) if not name.startswith("_") and name != "type"
        }
        for kind in get_args(events.Event)
    }
    assert {type_: set(re.findall(r"`(\w+)`", fields)) for type_, fields in rows} == expected


@pytest.mark.parametrize("path", [ROOT / "README.md", *PAGES.values()], ids=["README", *PAGES])
def test_examples_that_feed_a_response_look_at_its_status(path: Path) -> None:
    for block in blocks_of(path.read_text("utf-8")):
        if block.kind == "python" and "acc.feed_sse" in block.code and ".stream(" in block.code:
            assert "response.raise_for_status()" in block.code, f"{path.name}, line {block.line}"


def test_every_client_has_its_section() -> None:
    page = DOCS.joinpath("use-it-with.md").read_text("utf-8")
    clients = "openai litellm any-llm httpx httpx2 requests aiohttp urllib3"
    assert set(clients.split()) <= set(re.findall(r"^## (.+)$", page, re.M))


def test_the_reference_has_every_public_name() -> None:
    page = DOCS.joinpath("reference.md").read_text("utf-8")
    documented = {
        name.rpartition(".")[2] for name in re.findall(r"^\.\. \w+(?::\w+)?:: ([\w.]+)", page, re.M)
    }
    assert set(accumulator.__all__) <= documented


def test_cases_that_the_pages_name_are_there() -> None:
    cases = {path.stem for path in (ROOT / "tests" / "conformance").glob("*.json")}
    areas = {case.partition("-")[0] for case in cases}
    for path in DOCS.rglob("*.md"):
        named = re.findall(r"`([a-z]+)(-[a-z0-9]+(?:-[a-z0-9]+)*)`", path.read_text("utf-8"))
        unknown = {area + rest for area, rest in named if area in areas} - cases
        assert not unknown, f"{path.name} names cases that are gone"
