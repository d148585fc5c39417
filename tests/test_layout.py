"""Each room of the package knows only those before it."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import TopologicalSorter
from importlib.metadata import version
from pathlib import Path

import pytest
from streamed import run_by_itself

import accumulator

PACKAGE = Path(accumulator.__file__).parent

# The rooms of the package; each may import those of earlier rows. Rooms in one row may import each
# other, without a cycle.
ROOMS = [
    ["_extras", "_result", "partial"],
    ["completion", "errors", "limits", "rules"],
    ["_decode"],
    ["events"],
    ["_merge"],
    ["_fast_path", "_pipeline", "_checkpoint", "_accumulator"],
    ["_streaming", "replay", "streams", "telemetry"],
    ["_logs", "asgi", "batch", "spark", "cli", "__init__", "__main__"],
]
ROW = {room: row for row, rooms in enumerate(ROOMS) for room in rooms}


@cache
def modules() -> dict[str, Path]:
    """Return the files of all modules by their names, the package's own name left out."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
        for path in PACKAGE.rglob("*.py")
    }


@cache
def imports_of(name: str, path: Path) -> set[str]:
    """Return the names of the modules that a module imports, anywhere in it."""
    found: set[str] = set()
    package = name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            above = package[: len(package) - node.level + 1]
            target = ".".join([*above, *((node.module or "").split(".") if node.module else [])])
            below = {f"{target}.{alias.name}".lstrip(".") for alias in node.names}
            found |= (below & modules().keys()) or {target}
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not any(each.split(".")[0] == "accumulator" for each in names), name
    return found


def test_every_module_has_its_room() -> None:
    assert {name.split(".")[0] for name in modules()} == ROW.keys()


def test_a_room_knows_only_those_before_it() -> None:
    upward = [
        f"{name} imports {imported}"
        for name, path in modules().items()
        for imported in imports_of(name, path)
        if ROW[imported.split(".")[0]] > ROW[name.split(".")[0]]
    ]
    assert upward == []


def test_no_imports_go_in_a_circle() -> None:
    graph = {name: imports_of(name, path) for name, path in modules().items()}
    assert list(TopologicalSorter(graph).static_order())


def test_importing_the_package_imports_no_sdk_and_no_event_loop() -> None:
    code = "import sys, accumulator, accumulator.telemetry; print(' '.join(sys.modules))"
    unwanted = {"asyncio", "openai", "httpx", "requests", "aiohttp", "pydantic", "rich", "jiter"}
    unwanted |= {"duckdb", "pyarrow", "pyspark", "opentelemetry"}
    assert unwanted.isdisjoint(run_by_itself(code).stdout.split())


def test_every_public_name_has_a_docstring() -> None:
    undocumented = [
        name
        for name in accumulator.__all__
        if name != "DEFAULT_RULES" and not getattr(accumulator, name).__doc__
    ]
    assert undocumented == []


def test_the_version_is_that_of_the_distribution() -> None:
    assert accumulator.__version__ == version("chunk-accumulator")
    with pytest.raises(AttributeError, match="no attribute 'versions'"):
        accumulator.versions  # type: ignore[attr-defined]  # noqa: B018  # that is what is tried
