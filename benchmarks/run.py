"""Measure everything, and write the report.

`python3 benchmarks/run.py` makes what environments it needs, and writes `benchmarks/report.json`,
`docs/benchmarks.md` and `docs/benchmarks.svg`. A run with `--quick` or `--only` writes the same
files into `benchmarks/.cache/report/`, because half a report is none. pyperf's own files, one for
each Python, are left in `benchmarks/.cache/`. How times are taken is told in timing.py.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import environments
import report
from environments import CACHE, HERE, ROOT

SECTIONS = (
    *(f"W{number}" for number in range(1, 10)),
    "growth",
    "wrap",
    "memory",
    "import",
    "logs",
    "peers",
)
GROWTH = tuple(
    f"growth {name}{snapshots}" for name in ("W1", "W4", "W5") for snapshots in ("", " snapshots")
)
MEASURED = ("msgspec", "attrs", "cattrs", "openai", "pydantic", "pyperf")
RIVALS = "msgspec, attrs, cattrs"

Figures = dict[str, Any]


def main() -> int:
    """Do what the command line asks for."""
    options = arguments()
    if Path(sys.prefix).parent != CACHE:
        own = environments.ready(sys.executable)
        return subprocess.run([str(own), __file__, *sys.argv[1:]], check=False).returncode
    pythons = [sys.executable, *(str(environments.ready(each)) for each in options.python)]
    figures = measured(pythons, options)
    report.write(figures, *places(options))
    return 0


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], epilog=f"sections: {', '.join(SECTIONS)}"
    )
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="SECTION")
    parser.add_argument("--quick", action="store_true", help="few rounds, to try it out")
    parser.add_argument(
        "--full", action="store_true", help="a hundred thousand streams at once, not a twentieth"
    )
    parser.add_argument(
        "--python", nargs="+", default=[], metavar="PATH", help="interpreters to measure, too"
    )
    return parser.parse_args()


def places(options: argparse.Namespace) -> tuple[Path, Path]:
    """Say into which folders the data and the documents go."""
    if options.quick or tuple(options.only) != SECTIONS:
        return CACHE / "report", CACHE / "report"
    return HERE, ROOT / "docs"


# --- all of it ----------------------------------------------------------------------------


def measured(pythons: Sequence[str], options: argparse.Namespace) -> Figures:
    """Measure what is asked for, on every interpreter."""
    load = os.getloadavg()[0]
    by_version: dict[str, Figures] = {}
    for python, timings in zip(pythons, timed(pythons, options), strict=True):
        versions = versions_of(python)
        figures: Figures = {"versions": versions, "tasks": timings}
        if "import" in options.only:
            say("import", python)
            figures["import"] = imported(python, rounds=5 if options.quick else 40)
        if "memory" in options.only:
            say("memory", python)
            figures["memory"] = remembered(python, options)
        by_version[".".join(versions["python"].split(".")[:2])] = figures
    result: Figures = {
        "date": date.today().isoformat(),
        "quick": options.quick,
        "machine": {
            "cpu": cpu(),
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
            "load when it started": round(load, 2),
        },
        "pythons": by_version,
    }
    if "logs" in options.only:
        say("logs", pythons[0])
        size = ("20", "1") if options.quick else ("400", "3")
        result["logs"] = ask(pythons[0], "logs.py", *size, "--json")
    if "peers" in options.only:
        say("peers", pythons[0])
        rounds = "3" if options.quick else "10"
        result["peers"] = ask(pythons[0], "speed_peers.py", "--rounds", rounds)
    return result


def say(what: str, python: str) -> None:
    """Tell how far it is."""
    print(f"{Path(python).parents[1].name}: {what}", file=sys.stderr)


def ask(python: str, script: str, *arguments: str) -> Any:
    """Run a script that prints JSON."""
    return json.loads(environments.run([python, str(HERE / script), *arguments]))


def versions_of(python: str) -> dict[str, str]:
    """Give the versions that are measured."""
    code = (
        "import json, platform; from importlib.metadata import version;"
        f"print(json.dumps({{'python': platform.python_version(),"
        f" **{{name: version(name) for name in {MEASURED!r}}}}}))"
    )
    versions: dict[str, str] = json.loads(environments.run([python, "-c", code]))
    return versions


def cpu() -> str:
    """Name the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


# --- times --------------------------------------------------------------------------------


def timed(pythons: Sequence[str], options: argparse.Namespace) -> list[Figures]:
    """Time all tasks, a process of each in turn and then all over again; give the figures of each
    interpreter.
    """
    import pyperf  # type: ignore[import-untyped]  # noqa: PLC0415

    suites: dict[tuple[str, str], Any] = {}
    for turn in range(1 if options.quick else 6):
        for python in pythons:
            for task, rounds in tasks(options):
                # What takes seconds a round gets a third of the processes.
                if task.startswith("growth") and turn % 3:
                    continue
                say(f"{task}, turn {turn + 1}", python)
                command = [python, str(HERE / "timing.py"), task, "--rounds", str(rounds)]
                text = environments.run(command)
                suite = pyperf.BenchmarkSuite.loads(text)
                if (python, task) in suites:
                    suites[python, task].add_runs(suite)
                else:
                    suites[python, task] = suite
    figures = []
    for python in pythons:
        own = {task: suite for (where, task), suite in suites.items() if where == python}
        kept = [benchmark for suite in own.values() for benchmark in suite.get_benchmarks()]
        if kept:
            name = f"timings-{Path(python).parents[1].name}.json"
            pyperf.BenchmarkSuite(kept).dump(str(CACHE / name), replace=True)
        figures.append({task: compared(suite.get_benchmarks()) for task, suite in own.items()})
    return figures


def tasks(options: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Give the tasks of timing.py that are asked for, and their rounds."""
    for section in options.only:
        if section.startswith("W"):
            yield section, 3 if options.quick else 10
            if section == "W6":
                yield "W6 first", 3 if options.quick else 10
        elif section == "growth":
            for task in (*GROWTH, "growth W4 million"):
                yield task, 2 if options.quick else 4
        elif section == "wrap":
            yield section, 5 if options.quick else 20


def compared(benchmarks: Sequence[Any]) -> Figures:
    """Give each function's seconds a chunk, and its ratio to the first of them, round by round."""
    reference = benchmarks[0].get_values()
    figures: Figures = {}
    for benchmark in benchmarks:
        values = benchmark.get_values()
        ratios = [own / other for own, other in zip(values, reference, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        figures[benchmark.get_name().partition(": ")[2]] = {
            "seconds_per_chunk": statistics.median(values),
            "ratio": middle,
            "ratio_quartiles": [low, high],
            "values": len(values),
        }
    return figures


# --- import and memory --------------------------------------------------------------------


def imported(python: str, rounds: int) -> Figures:
    """Time `import accumulator` beside the import of what it needs, each in new processes, in
    turn; and tell what it brought.
    """
    seconds: dict[str, list[float]] = {RIVALS: [], "accumulator": []}
    for number in range(rounds + 1):
        for names, values in seconds.items():
            code = f"import time; t = time.perf_counter(); import {names}; "
            took = float(
                environments.run([python, "-I", "-c", code + "print(time.perf_counter() - t)"])
            )
            if number:  # the first time, the files may come from the disk
                values.append(took)
    code = (
        "import sys; before = set(sys.modules); import accumulator;"
        "brought = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "known = sys.stdlib_module_names; print('asyncio' in brought, *sorted(brought - known))"
    )
    asyncio, *brought = environments.run([python, "-I", "-c", code]).split()
    ratios = [b / a for a, b in zip(*seconds.values(), strict=True)]
    return {
        "seconds": statistics.median(seconds["accumulator"]),
        "rivals_seconds": statistics.median(seconds[RIVALS]),
        "ratio": statistics.median(ratios),
        "asyncio": asyncio == "True",
        "outside the standard library": brought,
    }


def remembered(python: str, options: argparse.Namespace) -> Figures:
    """Measure what accumulators hold."""
    tokens = 50_000 if options.quick else 1_000_000
    count = 500 if options.quick else 100_000 if options.full else 5_000
    return {
        "tokens": tokens,
        **ask(python, "held.py", "one", "--tokens", str(tokens)),
        "streams": ask(python, "held.py", "many", "--count", str(count)),
    }


if __name__ == "__main__":
    sys.exit(main())
