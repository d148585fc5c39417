"""What `accumulator reduce` costs against decoding alone, by CPU time and by the clock.

    python benchmarks/logs.py [MEGABYTES] [ROUNDS] [--json]

The log is of W1 streams of 400 chunks, made in a temporary folder. The runs take turns, so that a
machine that is busy with something else is so for all of them; of each the best is told.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import bare
import msgspec
import workloads
from msgspec import Struct

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


class Row(Struct):
    """A line that is not itself a chunk, decoded as `bare` decodes a chunk."""

    id: str
    seq: int
    chunk: bare.Chunk


def decode(path: Path, kind: type[Struct]) -> float:
    """Decode the lines of a file; return the seconds of CPU time, reading aside."""
    lines = path.read_bytes().splitlines()
    decode_line = msgspec.json.Decoder(kind).decode
    start = time.process_time()
    for line in lines:
        decode_line(line)
    return time.process_time() - start


def reduce(path: Path, *options: str) -> dict[str, float]:
    """Run the command; return its seconds of CPU time and by the clock."""
    # A user's Python keeps the bytecode that it compiled.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    before, start = os.times(), time.perf_counter()
    command = [sys.executable, "-m", "accumulator", "reduce", str(path)]
    out = str(path.parent / "out.jsonl")
    subprocess.run(
        [*command, "-o", out, *options], check=True, stderr=subprocess.DEVNULL, env=environment
    )
    after = os.times()
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    return {"cpu": cpu, "clock": time.perf_counter() - start}


def measured(megabytes: int, rounds: int) -> dict[str, Any]:
    """Give the least seconds of each run, and of decoding alone."""
    decoding: dict[str, list[float]] = {"bare": [], "rows": []}
    runs: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_logs(folder, megabytes * 1_000_000)
        reduce(folder / "bare.jsonl")  # compiles
        for _ in range(rounds):
            decoding["bare"].append(decode(folder / "bare.jsonl", bare.Chunk))
            decoding["rows"].append(decode(folder / "rows.jsonl", Row))
            for kind in ("bare", "rows", "shuffled"):
                for workers in ("1", "2"):
                    options = ["--workers", workers, "--memory", "640M"]
                    run = reduce(folder / f"{kind}.jsonl", *options)
                    runs.setdefault(f"{kind}, {workers}", []).append(run)
        with (folder / "rows.jsonl").open("rb") as file:
            count = sum(1 for _ in file)
    return {
        "megabytes": megabytes,
        "rounds": rounds,
        "chunks": count,
        "load": os.getloadavg()[0],
        "decode": {kind: min(times) for kind, times in decoding.items()},
        "runs": {
            label: {name: min(run[name] for run in own) for name in ("cpu", "clock")}
            for label, own in runs.items()
        },
    }


def main() -> None:
    """Print the figures: tables, or with --json what the report is made of."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("megabytes", nargs="?", type=int, default=200)
    parser.add_argument("rounds", nargs="?", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = measured(options.megabytes, options.rounds)
    if options.json:
        print(json.dumps(figures))
        return
    print(f"{figures['chunks']:,} chunks; load {figures['load']:.1f}")
    for kind, seconds in figures["decode"].items():
        print(f"{f'decode, {kind}':16} {seconds:6.2f} s CPU")
    for label, run in figures["runs"].items():
        alone = figures["decode"]["bare" if label.startswith("bare") else "rows"]
        print(
            f"{label:16} {run['cpu']:6.2f} s CPU {run['clock']:6.2f} s,"
            f" decode is {alone / run['cpu']:4.2f} of it"
        )


if __name__ == "__main__":
    main()
