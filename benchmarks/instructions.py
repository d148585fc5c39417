"""Count instructions and compare them with the recorded ones.

    python benchmarks/instructions.py --check     exit with 1 if a count grew by more than 5 %
    python benchmarks/instructions.py --update    write benchmarks/instructions.json

Times on a shared machine vary by more than a regression costs; the instructions that valgrind's
callgrind counts do not. Each workload is a fork, which runs it twice, so that CPython has
specialised its bytecode and the package knows the vendors' fields, and then once more inside a C
function of Python's that nothing else calls: callgrind counts only in there.

Counts are specific to one build of Python and of msgspec. They are recorded by Python's minor
version, beside the count of the loop by hand, which has none of our code: if that count is not as
recorded, the others cannot be compared, and `--check` says so and passes. It also passes without
valgrind.
"""

from __future__ import annotations

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
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import rows  # noqa: E402
from rows import EACH, FOUR, MAPPINGS, SMALL, WHOLE, Case, Function, bodies  # noqa: E402
from shapes import recordings  # noqa: E402

RECORD = HERE / "instructions.json"
ALLOWED = 1.05
# Two runs in the same environment may differ by this much; they differ by a tenth of it.
REPEATABLE = 0.01
COUNTED = "PyRun_SimpleStringFlags"
YARDSTICK = "the loop by hand, 40 chunks of padded text, one event a read"
FIRST = "recordings, 4 KiB reads, first in a process"
MINOR = ".".join(platform.python_version_tuple()[:2])


def main(what: str = "", folder: str = "") -> None:
    """Count, and check or record."""
    record = json.loads(RECORD.read_text("utf-8"))
    if what == "--run-in":
        run_all(Path(folder))
    elif shutil.which("valgrind") is None:
        print("instructions: SKIPPED, valgrind is not installed")
    elif what == "--update":
        versions = {name: version(name) for name in ("msgspec", "attrs", "cattrs")}
        versions["python"] = platform.python_version()
        record[MINOR] = {"versions": versions, "instructions a chunk": counted()}
        RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    elif what == "--check":
        compare(counted(), record.get(MINOR, {}))
    else:
        sys.exit(__doc__)


def compare(counts: dict[str, int], record: dict[str, dict[str, int]]) -> None:
    """Print how the counts compare with the recorded ones; exit with 1 if one grew."""
    recorded = record.get("instructions a chunk", {})
    drift = counts[YARDSTICK] / recorded.get(YARDSTICK, 1)
    if abs(drift - 1) > REPEATABLE:
        print(f"instructions: SKIPPED, {YARDSTICK} takes {drift:.3f} times what it took on")
        print(f"Python {MINOR} with {record.get('versions', 'no recorded versions')}")
        return
    grown = False
    for name in recorded | counts:
        before, now = recorded.get(name, 0), counts.get(name, 0)
        # If one is missing: a new workload needs --update; not every checkout has the recordings.
        change = now / before if before and now else 1
        verdict = "  GREW" if change > ALLOWED else "  shrank: run --update" * (change < 0.95)
        grown |= change > ALLOWED
        print(f"{before:>9,}  {now:>9,}  {change:6.3f}  {name}{verdict}")
    sys.exit(grown)


def counted() -> dict[str, int]:
    """Run all workloads under callgrind, and return the instructions per chunk."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        valgrind = ["valgrind", "--quiet", "--tool=callgrind", f"--toggle-collect={COUNTED}"]
        valgrind += [f"--callgrind-out-file={folder}/%p", sys.executable, __file__]
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        subprocess.run([*valgrind, "--run-in", name], env=environment, check=True)
        counts = {}
        for workload, (pid, chunks) in json.loads((folder / "ran.json").read_text()).items():
            report = (folder / str(pid)).read_text(encoding="utf-8", errors="replace")
            (total,) = re.findall(r"^totals: (\d+)", report, re.MULTILINE)
            counts[workload] = round(int(total) / chunks)
        return counts


# --- under valgrind -----------------------------------------------------------------------


def run_all(folder: Path) -> None:
    """Run each workload in a process of its own, and write down which process that was."""
    ran = {}
    for name, call, inputs, chunks in workloads():
        pid = os.fork()
        if not pid:
            run(call, inputs, 0 if name == FIRST else 2)
        _, status = os.waitpid(pid, 0)
        if status:
            raise RuntimeError(f"{name} ended with {status}")
        ran[name] = pid, chunks
    (folder / "ran.json").write_text(json.dumps(ran), encoding="utf-8")


def run(call: Function, inputs: list[Any], before: int) -> None:
    """Run a workload after `before` uncounted runs, and end the process."""

    def all_of_it() -> None:
        for given in inputs:
            call(given)

    for _ in range(before):
        all_of_it()
    gc.collect()
    gc.freeze()
    globals()["workload"] = all_of_it
    failed = ctypes.pythonapi.PyRun_SimpleString(b"import __main__; __main__.workload()")
    os._exit(1 if failed else 0)


def workloads() -> Iterator[tuple[str, Function, list[Any], int]]:
    """Yield the workloads: name, function, what it is called with, and the number of chunks."""
    # Before anything else has read a recording in this process.
    try:
        streams = recordings()
    except FileNotFoundError as error:
        print(f"instructions: recordings are left out, {error}")
    else:
        for name in (FIRST, "recordings, 4 KiB reads"):
            reads = [stream.reads(4096) for stream in streams]
            yield name, rows.ended, reads, sum(len(stream.events) for stream in streams)
    cases: dict[str, Case] = {
        "40 chunks of padded text, one event a read": bodies("text, padded", 40, 10, EACH),
        "40 chunks of padded text, 4 KiB reads": bodies("text, padded", 40, 10, SMALL),
        **{f"whole body, {shape}": bodies(shape, 50, 5, WHOLE) for shape in FOUR},
        **{f"long, 4 KiB reads, {shape}": bodies(shape, 600, 1, SMALL) for shape in FOUR},
        "events, one event a read": rows.events("text", rows.called_back, rows.generated, EACH, 10),
        "mappings, text, padded": rows.objects("text, padded", MAPPINGS, 10),
        "logprobs as JSON": rows.dumped("to_json", 100),
    }
    for name, case in cases.items():
        ours, theirs = zip(*case.inputs(), strict=True)
        yield name, case.ours, list(map(case.ready, ours)), case.chunks()
        if name in YARDSTICK:
            yield YARDSTICK, case.theirs, list(theirs), case.chunks()


if __name__ == "__main__":
    main(*sys.argv[1:])
