"""Measure everything, and write the report.

`python3 benchmarks/run.py` makes an environment for each interpreter in `benchmarks/.cache`, runs
every section on each of them in turn, and writes `benchmarks/report.json`, `docs/benchmarks.md` and
`docs/benchmarks.svg`. With `--quick` or `--only` these go to `benchmarks/.cache/report`, because
half a report is none.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import report

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
CACHE = HERE / ".cache"
# All sections but the last run on every interpreter. Each script prints rows as JSON.
SECTIONS = ("speed", "memory", "import", "logs", "peers")
VERSIONS = ("msgspec", "attrs", "cattrs", "openai", "pydantic", "llmstream", "lm15")

Row = dict[str, Any]


def main() -> None:
    """Measure what is asked for, and write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--quick", action="store_true", help="one short turn, to try it out")
    parser.add_argument(
        "--python", nargs="+", default=[], metavar="PATH", help="interpreters to measure, too"
    )
    parser.add_argument("--turns", type=int, default=3, help="processes a row is measured in")
    options = parser.parse_args()
    pythons = [environment(each) for each in (sys.executable, *options.python)]
    load = os.getloadavg()[0]
    taken: dict[str, list[list[Row]]] = {python: [] for python in pythons}
    for turn in range(1 if options.quick else options.turns):
        for python in pythons:
            rows: list[Row] = []
            for section in options.only:
                # What memory and logs take does not wander as times do.
                if section == "speed" or (section != "peers" and not turn):
                    print(f"{python}: {section}, turn {turn + 1}", file=sys.stderr)
                    rows += MEASURES[section](python, options.quick)
            taken[python].append(rows)
    figures: dict[str, Any] = {
        "date": date.today().isoformat(),
        "quick": options.quick,
        "turns": 1 if options.quick else options.turns,
        "machine": f"{processor()}, {os.cpu_count()} cores, {platform.system()}, load {load:.1f}",
        "versions": {versions(python)["python"]: versions(python) for python in pythons},
        "rows": merged({versions(python)["python"]: taken[python] for python in pythons}),
    }
    if "peers" in options.only:
        figures["peers"] = ask(pythons[0], "speed_peers.py", "3" if options.quick else "10")
    whole = not options.quick and tuple(options.only) == SECTIONS
    data, documents = (HERE, ROOT / "docs") if whole else (CACHE / "report", CACHE / "report")
    report.write(figures, data, documents)


def merged(taken: dict[str, list[list[Row]]]) -> list[Row]:
    """Join the turns of all interpreters to one row each, with the median of each interpreter."""
    rows: dict[tuple[str, str, str], Row] = {}
    for version, turns in taken.items():
        found: dict[tuple[str, str, str], list[Row]] = {}
        for row in (row for turn in turns for row in turn):
            found.setdefault((row["group"], row["name"], row["against"]), []).append(row)
        for key, own in found.items():
            known = [each for each in own if each["figure"] is not None]
            figure = statistics.median_low(each["figure"] for each in known) if known else None
            (beside, *_) = (each["beside"] for each in own if each["figure"] == figure)
            row = rows.setdefault(
                key, {k: own[0][k] for k in ("group", "name", "against", "reach")}
            )
            row[version] = {"figure": figure, "beside": beside}
    return list(rows.values())


# --- sections -----------------------------------------------------------------------------


def speed(python: str, quick: bool) -> list[Row]:
    """Measure the rows of rows.py."""
    rows: list[Row] = ask(
        python, "quick.py", "--all", "--json", "--seconds", "0.1" if quick else "1"
    )
    return rows


def memory(python: str, quick: bool) -> list[Row]:
    """Measure what accumulators hold."""
    rows: list[Row] = ask(python, "held.py", "rows", "20000" if quick else "1000000")
    return rows


def imported(python: str, quick: bool) -> list[Row]:
    """Time the import beside that of what it needs, each in new processes, in turn."""
    against = "msgspec, attrs, cattrs"
    seconds: dict[str, list[float]] = {"accumulator": [], against: []}
    for _ in range(5 if quick else 40):
        for names, values in seconds.items():
            code = f"import time; t = time.process_time(); import {names}"
            values.append(float(run(python, "-c", f"{code}; print(time.process_time() - t)")))
    ours, theirs = (statistics.median(values) for values in seconds.values())
    row = {"group": "import", "name": "`import accumulator`", "against": f"`import {against}`"}
    return [
        {
            **row,
            "reach": 1.4,
            "figure": ours / theirs,
            "beside": f"{1e3 * ours:.0f} / {1e3 * theirs:.0f} ms CPU",
        }
    ]


def logs(python: str, quick: bool) -> list[Row]:
    """Measure `accumulator reduce`."""
    rows: list[Row] = ask(python, "logs.py", *(("20", "1") if quick else ("400", "3")))
    return rows


MEASURES: dict[str, Callable[[str, bool], list[Row]]] = {
    "speed": speed,
    "memory": memory,
    "import": imported,
    "logs": logs,
}


# --- environments -------------------------------------------------------------------------


def environment(interpreter: str) -> str:
    """Create an environment with what is measured beside the package; return its interpreter."""
    version = run(interpreter, "-c", "import platform; print(platform.python_version())").strip()
    folder = CACHE / f"python{version}"
    python = str(folder / "bin" / "python")
    pins = HERE / "requirements.txt"
    wanted = pins.read_text(encoding="utf-8")
    stamp = folder / "installed.txt"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        print(f"installing what is measured on Python {version}", file=sys.stderr)
        run(interpreter, "-m", "venv", "--clear", str(folder))
        run(python, "-m", "pip", "install", "-qq", "-r", str(pins))
        stamp.write_text(wanted, encoding="utf-8")
    return python


def run(*command: str) -> str:
    """Run a command with the package of this tree; return what it prints."""
    # A user's Python keeps the bytecode that it compiled.
    known = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(command, env=known, stdout=subprocess.PIPE, encoding="utf-8", check=True)
    return done.stdout


def ask(python: str, script: str, *arguments: str) -> Any:
    """Run a script that prints JSON."""
    return json.loads(run(python, str(HERE / script), *arguments))


def versions(python: str) -> dict[str, str]:
    """Return the versions that are measured."""
    code = (
        "import json, platform; from importlib.metadata import version;"
        f"print(json.dumps({{'python': platform.python_version(),"
        f" **{{name: version(name) for name in {VERSIONS!r}}}}}))"
    )
    found: dict[str, str] = json.loads(run(python, "-c", code))
    return found


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "")


if __name__ == "__main__":
    main()
