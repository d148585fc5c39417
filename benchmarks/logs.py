"""Measure `accumulator reduce` beside decoding the same lines: `logs.py [MEGABYTES] [ROUNDS]`.

Prints the report's rows as JSON. The log is of text streams of 400 chunks, in a temporary folder:
bare chunks, rows in order, and the same rows shuffled. The runs take turns; of each the least CPU
time counts.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bare
import msgspec
import shapes
from msgspec import Struct


class Row(Struct):
    """A line that is not itself a chunk, decoded as `bare` decodes a chunk."""

    id: str
    seq: int
    chunk: bare.Chunk


KINDS: dict[str, type[Struct]] = {"chunks": bare.Chunk, "rows": Row, "shuffled": Row}


def main() -> None:
    """Measure, and print the rows."""
    megabytes, rounds = (int(word) for word in (*sys.argv[1:], "200", "3")[:2])
    decoding: dict[str, list[float]] = {kind: [] for kind in KINDS}
    reducing: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_logs(folder, megabytes * 1_000_000)
        reduce(folder / "chunks.jsonl")  # compiles
        for _ in range(rounds):
            for kind, line in KINDS.items():
                decoding[kind].append(decode(folder / f"{kind}.jsonl", line))
                reducing[kind].append(reduce(folder / f"{kind}.jsonl"))
    seconds = {kind: min(times) for kind, times in reducing.items()}
    reaches = {
        "chunks": ("decoding", 1.67, min(decoding["chunks"])),
        "rows": ("decoding", 1.67, min(decoding["rows"])),
        "shuffled": ("rows in order", 2.0, seconds["rows"]),
    }
    rows = [
        {
            "group": "logs",
            "name": f"`accumulator reduce`, {megabytes} MB, {kind}",
            "against": against,
            "reach": reach,
            "figure": seconds[kind] / other,
            "beside": f"{seconds[kind]:.2f} / {other:.2f} s CPU",
        }
        for kind, (against, reach, other) in reaches.items()
    ]
    json.dump(rows, sys.stdout)


def write_logs(folder: Path, size: int) -> None:
    """Write the same rows three times."""
    rng = random.Random(0)
    events = shapes.made("text", 400).events
    own = json.loads(events[0])["id"].encode()
    ids = [
        b"chatcmpl-%032x" % rng.getrandbits(128) for _ in range(size // sum(map(len, events)) + 1)
    ]
    places = [(id, seq) for id in ids for seq in range(len(events))]

    def chunk(id: bytes, seq: int) -> bytes:
        return events[seq].replace(own, id, 1)

    def row(id: bytes, seq: int) -> bytes:
        return b'{"id":"%s","seq":%d,"chunk":%s}\n' % (id, seq, chunk(id, seq))

    with (folder / "chunks.jsonl").open("wb") as file:
        file.writelines(chunk(*place) + b"\n" for place in places)
    for kind in ("rows", "shuffled"):
        with (folder / f"{kind}.jsonl").open("wb") as file:
            file.writelines(row(*place) for place in places)
        rng.shuffle(places)


def decode(path: Path, kind: type[Struct]) -> float:
    """Decode the lines of a file; return the seconds of CPU time, reading aside."""
    lines = path.read_bytes().splitlines()
    decode_line = msgspec.json.Decoder(kind).decode
    start = time.process_time()
    for line in lines:
        decode_line(line)
    return time.process_time() - start


def reduce(path: Path) -> float:
    """Run the command on a file; return its seconds of CPU time."""
    out = str(path.with_suffix(".out.jsonl"))
    before = os.times()
    command = [sys.executable, "-m", "accumulator", "reduce", str(path), "-o", out]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    after = os.times()
    spent = after.children_user + after.children_system
    return spent - before.children_user - before.children_system


if __name__ == "__main__":
    main()
