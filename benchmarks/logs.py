"""What `accumulator reduce` costs compared with decoding the same lines: rows of the report.

The log has text streams of 400 chunks, in a temporary folder: bare chunks, rows in order, and the
same rows shuffled.
"""

from __future__ import annotations

import json
import random
import resource
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


class Row(Struct):
    """A line that contains a chunk, which is decoded as `bare` decodes it."""

    id: str
    seq: int
    chunk: bare.Chunk


KINDS: dict[str, type[Struct]] = {"chunks": bare.Chunk, "rows": Row, "shuffled": Row}


def reduced(kind: str, seconds: float) -> tuple[float, str]:
    """Compare the command with decoding; for shuffled rows, with the command on sorted rows."""
    megabytes = int(400 * seconds)
    spent = times(megabytes)
    ours, theirs = spent[kind]
    if kind == "shuffled":
        theirs = spent["rows"][0]
    return ours / theirs, f"{ours:.2f} / {theirs:.2f} s CPU for {megabytes} MB"


@cache
def times(megabytes: int) -> dict[str, tuple[float, float]]:
    """Return the CPU seconds of the command and of decoding, for each kind of log."""
    spent = {}
    rng = random.Random(0)
    events = shapes.made("text", 400).events
    own = json.loads(events[0])["id"].encode()
    count = megabytes * 1_000_000 // sum(map(len, events)) + 1
    ids = [b"chatcmpl-%032x" % rng.getrandbits(128) for _ in range(count)]
    places = [(id, seq) for id in ids for seq in range(len(events))]
    row = b'{"id":"%s","seq":%d,"chunk":%s}\n'
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        for kind, line in KINDS.items():
            if kind == "shuffled":
                rng.shuffle(places)
            with path.open("wb") as file:
                for id, seq in places:
                    chunk = events[seq].replace(own, id, 1)
                    file.write(chunk + b"\n" if kind == "chunks" else row % (id, seq, chunk))
            spent[kind] = reduce(path), decode(path, line)
    return spent


def decode(path: Path, kind: type[Struct]) -> float:
    """Decode the lines of a file; return the seconds of CPU time, not counting the reading."""
    lines = path.read_bytes().splitlines()
    decode_line = msgspec.json.Decoder(kind).decode
    start = time.process_time()
    for line in lines:
        decode_line(line)
    return time.process_time() - start


def reduce(path: Path) -> float:
    """Run the command on a file; return its seconds of CPU time."""
    out = str(path.with_name("out.jsonl"))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "accumulator", "reduce", str(path), "-o", out]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
