"""Count instructions and compare them with those on record.

    python benchmarks/instructions.py --check     exits with 1 if a count grew by more than 5 %
    python benchmarks/instructions.py --update    writes benchmarks/instructions.json

Times on a shared machine wander by more than a regression costs; the instructions that valgrind's
callgrind counts do not. One process imports the package of this tree and forks for each workload.
The child runs it twice, so that CPython has specialised its bytecode and the package knows the
vendors' fields, and once more inside a C function of Python's own that nothing else calls:
callgrind counts in there and nowhere else.

Counts belong to one build of Python and of msgspec. The record has them by Python's minor version,
with the count of the loop by hand, in which nothing is ours: where that one is not as recorded,
neither are the others comparable, and `--check` says so and passes. It does as well where there is
no valgrind.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import rows  # noqa: E402
import shapes  # noqa: E402

RECORD = HERE / "instructions.json"
ALLOWED = 1.05
# So much two runs in the same environment may differ; ten times as much as they do.
REPEATABLE = 0.01
COUNTED = "PyRun_SimpleStringFlags"
YARDSTICK = "the loop by hand, 40 chunks of padded text, one event a read"
FIRST = "recordings, 4 KiB reads, first in a process"
MINOR = ".".join(platform.python_version_tuple()[:2])

Counts = dict[str, int]


def main() -> int:
    """Count, and check or record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true", help="compare with the record")
    what.add_argument("--update", action="store_true", help="record anew for this Python")
    what.add_argument("--run-in", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run_in:
        run_all(options.run_in)
        return 0
    if shutil.which("valgrind") is None:
        return skipped("there is no valgrind here")
    counts = counted()
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    if options.check:
        return compared(counts, record)
    record[MINOR] = {"versions": versions(), "instructions a chunk": counts}
    RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print("\n".join(f"{count:>9,}  {name}" for name, count in counts.items()))
    return 0


def skipped(why: str) -> int:
    """Print why nothing is compared; return the exit code."""
    print(f"instructions: SKIPPED, {why}", file=sys.stderr)
    return 0


def compared(counts: Counts, record: Mapping[str, Mapping[str, Counts]]) -> int:
    """Print how the counts compare with those on record; return the exit code."""
    if MINOR not in record:
        return skipped(f"none are on record for Python {MINOR}")
    recorded = record[MINOR]["instructions a chunk"]
    drift = counts[YARDSTICK] / recorded[YARDSTICK]
    if abs(drift - 1) > REPEATABLE:
        found = f"those on record are of {record[MINOR]['versions']}; here are {versions()}"
        return skipped(f"{found}, and {YARDSTICK} takes {drift:.3f} times as many")
    grown = 0
    for name in recorded | counts:
        before, now = recorded.get(name, 0), counts.get(name, 0)
        # Only one of them: a new workload wants --update; recordings are not in every checkout.
        change = now / before if before and now else 1
        verdict = "  GREW" if change > ALLOWED else "  shrank: run --update" * (change < 0.95)
        grown += change > ALLOWED
        print(f"{before:>9,}  {now:>9,}  {change:6.3f}  {name}{verdict}")
    return 1 if grown else 0


def versions() -> dict[str, str]:
    """Return what the counts depend on beside the package."""
    names = ("msgspec", "attrs", "cattrs")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def counted() -> Counts:
    """Run all under callgrind, and return the instructions a chunk."""
    with tempfile.TemporaryDirectory() as folder:
        valgrind = ["valgrind", "--quiet", "--tool=callgrind", f"--toggle-collect={COUNTED}"]
        output = f"--callgrind-out-file={folder}/%p"
        subprocess.run(
            [*valgrind, output, sys.executable, __file__, "--run-in", folder],
            env={**os.environ, "PYTHONHASHSEED": "0"},
            check=True,
        )
        ran = json.loads((Path(folder) / "ran.json").read_text(encoding="utf-8"))
        counts = {}
        for name, (pid, chunks) in ran.items():
            report = (Path(folder) / str(pid)).read_text(encoding="utf-8", errors="replace")
            (total,) = re.findall(r"^totals: (\d+)", report, re.MULTILINE)
            counts[name] = round(int(total) / chunks)
        return counts


# --- under valgrind -----------------------------------------------------------------------


def run_all(folder: Path) -> None:
    """Run each workload in a process of its own, and write down which was which."""
    ran = {}
    for name, call, inputs, chunks in workloads():
        pid = os.fork()
        if not pid:
            run(partial(each, call, inputs), 0 if name == FIRST else 2)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        if status:
            raise RuntimeError(f"{name} ended with {status}")
        ran[name] = pid, chunks
    (folder / "ran.json").write_text(json.dumps(ran), encoding="utf-8")


def each(call: Callable[[Any], object], inputs: list[Any]) -> None:
    """Call a function with each input."""
    for given in inputs:
        call(given)


def run(call: Callable[[], object], before: int) -> None:
    """Run a workload, after so many runs that are not counted."""
    for _ in range(before):
        call()
    gc.collect()
    gc.freeze()
    globals()["call"] = call
    if ctypes.pythonapi.PyRun_SimpleString(b"import __main__; __main__.call()"):
        os._exit(1)


def workloads() -> Iterator[tuple[str, Callable[[Any], object], list[Any], int]]:
    """Yield what is counted: its name, a function, what it is called with, and the chunks of it."""
    # Before anything else has read a recording in this process.
    try:
        streams = shapes.recordings()
    except FileNotFoundError as error:
        print(f"instructions: recordings are left out, {error}", file=sys.stderr)
    else:
        for name in (FIRST, "recordings, 4 KiB reads"):
            reads = [stream.reads(4096) for stream in streams]
            yield name, rows.ended, reads, rows.chunks_of(streams)
    short, events = partial(rows.bodies, "text, padded", 40, 10), partial(rows.events, "text")
    cases = {
        "40 chunks of padded text, one event a read": partial(short, rows.EACH),
        "40 chunks of padded text, 4 KiB reads": partial(short, rows.SMALL),
        **{f"whole body, {shape}": partial(rows.bodies, shape, 50, 5, rows.WHOLE)
           for shape in rows.FOUR},
        **{f"long, 4 KiB reads, {shape}": partial(rows.bodies, shape, 600, 1, rows.SMALL)
           for shape in rows.FOUR},
        "events, one event a read": partial(events, "on_event", "the generator", rows.EACH, 10),
        "mappings, text, padded": partial(rows.objects, "text, padded", "mappings", 10),
        "logprobs as JSON": partial(rows.dumped, "to_json", 100),
    }  # fmt: skip
    for name, make in cases.items():
        case = make()
        inputs = [case.ready(given) if case.ready else given for given in case.inputs]
        yield name, case.ours, inputs, case.chunks
        if name in YARDSTICK:
            yield YARDSTICK, case.theirs, inputs, case.chunks


if __name__ == "__main__":
    sys.exit(main())
