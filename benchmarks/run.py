"""Measure everything on each interpreter in turn, and write the report.

`python3 benchmarks/run.py` makes an environment for each interpreter in `benchmarks/.cache`, prints
each row as soon as it is measured, and writes `benchmarks/report.json`, and the tables and the
chart of `docs/benchmarks.md`. With `--only` nothing is written, because half a report is no use.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from statistics import median_low
from typing import Any

HERE = Path(__file__).resolve().parent
PINS = HERE / "requirements.txt"
# The package of this tree, in a Python that stores its bytecode.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(HERE.parent), "PYTHONDONTWRITEBYTECODE": ""}


def main() -> None:
    """Measure the rows that are asked for, and write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", metavar="REGEX", help="rows whose names match")
    parser.add_argument("--turns", type=int, default=3, help="processes that measure each row")
    parser.add_argument(
        "--python", nargs="+", default=[], metavar="PATH", help="more interpreters to measure"
    )
    options = parser.parse_args()
    pythons = dict(map(environment, (sys.executable, *options.python)))
    load = os.getloadavg()[0]
    # By row and by interpreter: the figure of each turn.
    taken: Any = defaultdict(lambda: defaultdict(list))
    for _ in range(options.turns):
        for version, python in pythons.items():
            for *row, figure, beside in measured(python, options.only):
                taken[tuple(row)][version].append((figure, beside))
                group, name, against, reach = row
                mark = "  missed" * (figure > reach)
                compared = f"{figure:8,.2f} of {reach:,g} x {against} ({beside}){mark}"
                print(version, f"{group + ': ' + name:68}{compared}", flush=True)
    if options.only:
        return
    processors = re.findall("model name\t: (.*)", Path("/proc/cpuinfo").read_text("utf-8"))
    about = {
        "date": date.today().isoformat(),
        "turns": options.turns,
        "machine": f"{processors[0]}, {os.cpu_count()} cores, {platform.system()}, load {load:.1f}",
        "pins": re.findall(r"^\w.*", PINS.read_text("utf-8"), re.MULTILINE),
        "versions": list(pythons),
    }
    rows = []
    for (group, name, against, reach), own in taken.items():
        row = {"group": group, "name": name, "against": against, "reach": reach}
        rows.append(row | {version: median_low(each) for version, each in own.items()})
    lines = ",\n".join(map(json.dumps, rows))  # one line per row, so that a diff shows what changed
    report = f'{json.dumps(about)[:-1]}, "rows": [\n{lines}\n]}}\n'
    (HERE / "report.json").write_text(report, encoding="utf-8")
    # These environments have pygal, which draws the chart.
    subprocess.run([next(iter(pythons.values())), str(HERE / "report.py")], check=True)


def environment(interpreter: str) -> tuple[str, str]:
    """Make an environment with what the rows need; return its version and its Python."""
    code = "import platform; print(platform.python_version())"
    version = subprocess.check_output([interpreter, "-c", code], text=True).strip()
    folder = HERE / ".cache" / f"python{version}"
    python = str(folder / "bin" / "python")
    subprocess.run([interpreter, "-m", "venv", str(folder)], check=True)
    subprocess.run([python, "-m", "pip", "install", "-qq", "-r", str(PINS)], check=True)
    return version, python


def measured(python: str, only: str) -> Iterator[list[Any]]:
    """Yield the rows that a process measures."""
    command = [python, str(HERE / "rows.py"), only]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        yield from map(json.loads, process.stdout or ())
    if process.returncode:
        sys.exit(process.returncode)


if __name__ == "__main__":
    main()
