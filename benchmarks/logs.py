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
import report
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
    decoding: dict[str, float] = dict.fromkeys(KINDS, float("inf"))
    reducing = dict(decoding)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_logs(folder, megabytes * 1_000_000)
        reduce(folder / "chunks.jsonl")  # compiles
        for _ in range(rounds):
            for kind, line in KINDS.items():
                path = folder / f"{kind}.jsonl"
                decoding[kind] = min(decoding[kind], decode(path, line))
                reducing[kind] = min(reducing[kind], reduce(path))
    decoding["shuffled"] = reducing["rows"]  # what it stands beside
    rows = []
    for kind, seconds in reducing.items():
        against, reach = ("rows in order", 2.0) if kind == "shuffled" else ("decoding", 1.67)
        name = f"`accumulator reduce`, {megabytes} MB, {kind}"
        beside = f"{seconds:.2f} / {decoding[kind]:.2f} s CPU"
        rows.append(report.row("logs", name, against, reach, seconds / decoding[kind], beside))
    json.dump(rows, sys.stdout)


def write_logs(folder: Path, size: int) -> None:
    """Write the same rows three times."""
    rng = random.Random(0)
    events = shapes.made("text", 400).events
    own = json.loads(events[0])["id"].encode()
    count = size // sum(map(len, events)) + 1
    ids = [b"chatcmpl-%032x" % rng.getrandbits(128) for _ in range(count)]
    places = [(id, seq) for id in ids for seq in range(len(events))]
    row = b'{"id":"%s","seq":%d,"chunk":%s}\n'
    for kind in KINDS:
        if kind == "shuffled":
            rng.shuffle(places)
        with (folder / f"{kind}.jsonl").open("wb") as file:
            for id, seq in places:
                chunk = events[seq].replace(own, id, 1)
                file.write(chunk + b"\n" if kind == "chunks" else row % (id, seq, chunk))


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
