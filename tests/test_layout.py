"""The package is a ladder: a module imports only from rungs below it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import accumulator

PACKAGE = Path(accumulator.__file__).parent

LADDER = [
    ["_convert", "_outward", "_typed", "partial", "_terminal"],
    ["completion"],
    ["errors"],
    ["rules", "limits"],
    ["_sse", "_text"],
    ["_growing"],
    ["events"],
    ["_wire"],
    ["_values", "_schema", "_cuts"],
    ["_reader"],
    ["_template", "_fields", "_decoder"],
    ["_strings"],
    ["_calls", "_learning"],
    ["_state"],
    ["_reduce"],
    ["_objects"],
    ["_freeze", "_shortcut", "_problems", "_told"],
    ["_emit", "_intake", "_timing"],
    ["_body"],
    ["_checkpoint"],
    ["_accumulator"],
    ["_feeder", "_responses"],
    ["replay", "telemetry", "_observer"],
    ["_wrapped"],
    ["streams", "_alike", "_extras"],
    ["_bulk"],
    ["asgi", "batch", "_inputs"],
    ["_rows", "spark"],
    ["_records"],
    ["_reading", "_runs"],
    ["_spreading"],
    ["_sorting"],
    ["_units"],
    ["_pool"],
    ["_run"],
    ["_command_reduce", "_command_inspect"],
    ["cli"],
    ["__init__"],
    ["__main__"],
]
RUNG = {module: rung for rung, modules in enumerate(LADDER) for module in modules}


def imports_of(path: Path) -> set[str]:
    """Find the modules of the package that a module imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            found |= {node.module} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("accumulator"):
            found.add((node.module or "").partition(".")[2] or "__init__")
        elif isinstance(node, ast.Import):
            found |= {
                alias.name.partition(".")[2] or "__init__"
                for alias in node.names
                if alias.name.split(".")[0] == "accumulator"
            }
    return found


def test_every_module_has_its_rung() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == set(RUNG)


def test_a_module_imports_only_from_rungs_below_it() -> None:
    upward = [
        f"{path.stem} imports {name}"
        for path in PACKAGE.glob("*.py")
        for name in imports_of(path)
        if RUNG[name] >= RUNG[path.stem]
    ]
    assert upward == []


def test_importing_the_package_imports_no_sdk_and_no_event_loop() -> None:
    code = "import sys, accumulator; print(' '.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    unwanted = {"asyncio", "openai", "httpx", "requests", "aiohttp", "pydantic", "rich", "jiter"}
    unwanted |= {"duckdb", "pyarrow", "pyspark"}
    assert unwanted.isdisjoint(run.stdout.split())


def test_every_public_name_has_a_docstring() -> None:
    undocumented = [
        name
        for name in accumulator.__all__
        if name != "DEFAULT_RULES" and not getattr(accumulator, name).__doc__
    ]
    assert undocumented == []
