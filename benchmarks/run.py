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
from datetime import date
from pathlib import Path
from typing import Any

import report

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
CACHE = HERE / ".cache"
# The script of each section and what it is given, then for a quick try; each prints JSON.
SECTIONS = {
    "speed": ("quick.py --all --json --seconds 1", "quick.py --all --json --seconds 0.1"),
    "memory": ("held.py rows 1000000", "held.py rows 20000"),
    "import": ("run.py --import 40", "run.py --import 5"),
    "logs": ("logs.py 400 3", "logs.py 20 1"),
}
VERSIONS = ("msgspec", "attrs", "cattrs", "openai", "pydantic", "llmstream", "lm15")

Row = dict[str, Any]


def main() -> None:
    """Measure what is asked for, and write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=tuple(SECTIONS))
    parser.add_argument("--quick", action="store_true", help="one short turn, to try it out")
    parser.add_argument(
        "--python", nargs="+", default=[], metavar="PATH", help="interpreters to measure, too"
    )
    parser.add_argument("--turns", type=int, default=3, help="processes a row is measured in")
    parser.add_argument("--import", type=int, dest="imports", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.imports:
        json.dump(imported(options.imports), sys.stdout)
        return
    pythons = {
        python: versions(python) for python in map(environment, (sys.executable, *options.python))
    }
    turns = 1 if options.quick else options.turns
    load = os.getloadavg()[0]
    taken: dict[str, list[Row]] = {own["python"]: [] for own in pythons.values()}
    for turn in range(turns):
        for python, own in pythons.items():
            for section in options.only:
                # What memory and logs take does not wander as times do.
                if section == "speed" or not turn:
                    print(f"{python}: {section}, turn {turn + 1}", file=sys.stderr)
                    taken[own["python"]] += ask(python, section, options.quick)
    figures: dict[str, Any] = {
        "date": date.today().isoformat(),
        "quick": options.quick,
        "turns": turns,
        "machine": f"{processor()}, {os.cpu_count()} cores, {platform.system()}, load {load:.1f}",
        "versions": {own["python"]: own for own in pythons.values()},
        "rows": merged(taken),
    }
    whole = not options.quick and tuple(options.only) == tuple(SECTIONS)
    data, documents = (HERE, ROOT / "docs") if whole else (CACHE / "report", CACHE / "report")
    report.write(figures, data, documents)


def merged(taken: dict[str, list[Row]]) -> list[Row]:
    """Join the turns of all interpreters to one row each, with the median of each interpreter."""
    rows: dict[str, Row] = {}
    for version, all_turns in taken.items():
        found: dict[str, list[Row]] = {}
        for row in all_turns:
            about = {name: row[name] for name in ("group", "name", "against", "reach")}
            rows.setdefault(repr(about), about)
            found.setdefault(repr(about), []).append(row)
        for key, own in found.items():
            own.sort(key=lambda row: (row["figure"] is None, row["figure"] or 0))
            known = sum(row["figure"] is not None for row in own)
            middle = own[max(known - 1, 0) // 2]
            rows[key][version] = {name: middle[name] for name in ("figure", "beside")}
    return list(rows.values())


def imported(times: int) -> list[Row]:
    """Time the import beside that of what it needs, each in new processes, in turn."""
    against = "msgspec, attrs, cattrs"
    seconds: dict[str, list[float]] = {"accumulator": [], against: []}
    for _ in range(times):
        for names, values in seconds.items():
            code = f"import time; t = time.process_time(); import {names}"
            values.append(
                float(run(sys.executable, "-c", f"{code}; print(time.process_time() - t)"))
            )
    ours, theirs = (statistics.median(values) for values in seconds.values())
    name, beside = "`import accumulator`", f"{1e3 * ours:.0f} / {1e3 * theirs:.0f} ms CPU"
    return [report.row("import", name, f"`import {against}`", 1.4, ours / theirs, beside)]


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


def ask(python: str, section: str, quick: bool) -> Any:
    """Return what the script of a section prints."""
    script, *arguments = SECTIONS[section][quick].split()
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
