"""What `accumulator reduce` costs against decoding alone, by CPU time and by the clock.

    python benchmarks/logs.py [MEGABYTES] [ROUNDS]

The log is of W1 streams of 400 chunks, made in a temporary folder. The runs take turns, so that a
machine that is busy with something else is so for all of them; of each the best is told.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bare
import workloads

_ID = b"chatcmpl-CdKU5xm8z6nhRMJs7Slt7m0OhOdgz"


def write_logs(folder: Path, size: int) -> None:
    """Write the same rows three times: bare chunks, rows in order, rows shuffled."""
    rng = random.Random(workloads.SEED)
    events = workloads.stream("W1", 400).events
    count = size // sum(map(len, events)) + 1
    ids = [b"chatcmpl-%032x" % rng.getrandbits(128) for _ in range(count)]
    pieces = [event.split(_ID) for event in events]

    def row(place: int) -> bytes:
        id, seq = ids[place // len(events)], place % len(events)
        return b'{"id":"%s","seq":%d,"chunk":%s}\n' % (id, seq, id.join(pieces[seq]))

    with (folder / "bare.jsonl").open("wb") as file:
        for id in ids:
            file.writelines(id.join(piece) + b"\n" for piece in pieces)
    places = list(range(count * len(events)))
    with (folder / "rows.jsonl").open("wb") as file:
        file.writelines(map(row, places))
    rng.shuffle(places)
    with (folder / "shuffled.jsonl").open("wb") as file:
        file.writelines(map(row, places))


def decode(path: Path) -> float:
    """Decode the lines of a file; return the seconds of CPU time, reading aside."""
    lines = path.read_bytes().splitlines()
    start = time.process_time()
    bare.decode_all(lines)
    return time.process_time() - start


def reduce(path: Path, *options: str) -> tuple[float, float]:
    """Run the command; return its seconds of CPU time and by the clock."""
    before, start = os.times(), time.perf_counter()
    command = [sys.executable, "-m", "accumulator", "reduce", str(path)]
    out = str(path.parent / "out.jsonl")
    subprocess.run([*command, "-o", out, *options], check=True, stderr=subprocess.DEVNULL)
    after = os.times()
    cpu = after.children_user + after.children_system
    return cpu - before.children_user - before.children_system, time.perf_counter() - start


def main() -> None:
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    figures: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_logs(folder, size * 1_000_000)
        for _ in range(rounds):
            seconds = decode(folder / "bare.jsonl")
            figures.setdefault("bare decode", []).append((seconds, seconds))
            for kind in ("bare", "rows", "shuffled"):
                for workers in ("1", "2"):
                    options = ["--workers", workers, "--memory", "640M"]
                    run = reduce(folder / f"{kind}.jsonl", *options)
                    figures.setdefault(f"{kind}, {workers} worker(s)", []).append(run)
    decoding = min(figures["bare decode"])[0]
    for label, runs in figures.items():
        cpu, clock = min(run[0] for run in runs), min(run[1] for run in runs)
        print(f"{label:24} {cpu:6.2f} s CPU {clock:6.2f} s, decode is {decoding / cpu:4.2f} of it")


if __name__ == "__main__":
    main()
