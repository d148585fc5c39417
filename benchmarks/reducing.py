"""What `accumulator reduce` costs compared with decoding the same lines: rows of the report.

The log has text streams of 400 chunks, in a temporary folder: bare chunks, rows in order, and the
same rows shuffled.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import bare
import msgspec
import shapes
from msgspec import Struct

MEGABYTES = 400
ROWS = (
    ("chunks", "decoding", 1.67),
    ("rows", "decoding", 1.67),
    ("shuffled", "rows in order", 2.0),
)


class Row(Struct):
    """A line that contains a chunk, which is decoded as `bare` decodes it."""

    id: str
    seq: int
    chunk: bare.Chunk


def reduced(kind: str) -> tuple[float, str]:
    """Compare the command with decoding; for shuffled rows, with the command on sorted rows."""
    ours, theirs = times()[kind]
    if kind == "shuffled":
        theirs = times()["rows"][0]
    return ours / theirs, f"{ours:.2f} / {theirs:.2f} s CPU for {MEGABYTES} MB"


@cache
def times() -> dict[str, tuple[float, float]]:
    """Return the CPU seconds of the command and of decoding, for each kind of log."""
    spent = {}
    rng = random.Random(0)
    events = shapes.made("text", 400).events
    own = json.loads(events[0])["id"].encode()
    count = MEGABYTES * 1_000_000 // sum(map(len, events)) + 1
    ids = [b"chatcmpl-%032x" % rng.getrandbits(128) for _ in range(count)]
    places = [(id, seq) for id in ids for seq in range(len(events))]
    row = b'{"id":"%s","seq":%d,"chunk":%s}\n'
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        for kind, _, _ in ROWS:
            if kind == "shuffled":
                rng.shuffle(places)
            with path.open("wb") as file:
                for id, seq in places:
                    chunk = events[seq].replace(own, id, 1)
                    file.write(chunk + b"\n" if kind == "chunks" else row % (id, seq, chunk))
            spent[kind] = reduce(path), decode(path, bare.Chunk if kind == "chunks" else Row)
    return spent


def decode(path: Path, kind: type[Struct]) -> float:
    """Decode the lines of a file; return the seconds of CPU time, not counting the reading."""
    lines = path.read_bytes().splitlines()
    start = time.process_time()
    bare.decode_all(lines, msgspec.json.Decoder(kind).decode)
    return time.process_time() - start


def reduce(path: Path) -> float:
    """Run the command on a file; return its seconds of CPU time."""
    before = os.times()
    out = path.with_name("out.jsonl")
    command = [sys.executable, "-m", "accumulator", "reduce", path, "-o", out]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])
