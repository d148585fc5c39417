"""Measure everything on each interpreter in turn, and write the report.

`python3 benchmarks/run.py` makes an environment for each interpreter in `benchmarks/.cache`, prints
each row as soon as it is measured, and writes `benchmarks/report.json`, `docs/benchmarks.md` and
`docs/benchmarks.svg`. With `--only` nothing is written, because half a report is none.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from statistics import median_low
from typing import Any

HERE = Path(__file__).resolve().parent
PINS = HERE / "requirements.txt"
# The package of this tree, by a Python that keeps the bytecode which it compiled.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(HERE.parent), "PYTHONDONTWRITEBYTECODE": ""}


def main() -> None:
    """Measure what is asked for, and write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", metavar="REGEX", help="rows whose names match")
    parser.add_argument("--seconds", default="1", help="for each row; less is for trying it out")
    parser.add_argument("--turns", type=int, default=3, help="processes a row is measured in")
    parser.add_argument(
        "--python", nargs="+", default=[], metavar="PATH", help="interpreters to measure, too"
    )
    options = parser.parse_args()
    pythons = dict(map(environment, (sys.executable, *options.python)))
    load = os.getloadavg()[0]
    # By what a row is called and by the interpreter: the figure of each turn.
    taken: dict[str, dict[str, list[tuple[float, str]]]] = {}
    for _ in range(options.turns):
        for version, python in pythons.items():
            for row in measured(python, options.only, options.seconds):
                figure = row.pop("figure"), row.pop("beside")
                print(version, line(row, *figure), flush=True)
                taken.setdefault(json.dumps(row), {}).setdefault(version, []).append(figure)
    if options.only:
        return
    about = {
        "date": date.today().isoformat(),
        "turns": options.turns,
        "machine": f"{processor()}, {os.cpu_count()} cores, {platform.system()}, load {load:.1f}",
        "pins": re.findall(r"^\w.*", PINS.read_text(encoding="utf-8"), re.MULTILINE),
        "versions": list(pythons),
    }
    rows = [
        {**json.loads(row), **{version: median_low(each) for version, each in own.items()}}
        for row, own in taken.items()
    ]
    lines = ",\n".join(map(json.dumps, rows))  # a line for each row, so that a change is seen
    report = f'{json.dumps(about)[:-1]}, "rows": [\n{lines}\n]}}\n'
    (HERE / "report.json").write_text(report, encoding="utf-8")
    # These environments have what draws the chart.
    subprocess.run([next(iter(pythons.values())), str(HERE / "report.py")], check=True)


def environment(interpreter: str) -> tuple[str, str]:
    """Make an environment with what is measured beside the package; return its Python, too."""
    code = "import platform; print(platform.python_version())"
    version = subprocess.check_output([interpreter, "-c", code], text=True).strip()
    folder = HERE / ".cache" / f"python{version}"
    python = str(folder / "bin" / "python")
    subprocess.run([interpreter, "-m", "venv", str(folder)], check=True)
    subprocess.run([python, "-m", "pip", "install", "-qq", "-r", str(PINS)], check=True)
    return version, python


def measured(python: str, only: str, seconds: str) -> Iterator[dict[str, Any]]:
    """Yield the rows that a process measures."""
    command = [python, str(HERE / "rows.py"), only, seconds]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        yield from map(json.loads, process.stdout or ())
    if process.returncode:
        sys.exit(process.returncode)


def line(row: dict[str, Any], figure: float, beside: str) -> str:
    """Return a row as a line of text."""
    mark = "  missed" * (figure > row["reach"])
    against = f"{figure:8,.2f} of {row['reach']:,g} x {row['against']}"
    return f"{row['group'] + ': ' + row['name']:68}{against} ({beside}){mark}"


def processor() -> str:
    """Return the processor's name."""
    names = re.findall("model name\t: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
