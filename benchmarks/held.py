"""What accumulators hold: rows of the report, and, by `held.py [MIB]`, the table of docs/limits.md.

A single accumulator is traced by tracemalloc. Every read is created while tracing, so that a buffer
which is kept counts. Ten thousand streams in flight at once are measured by the RSS of the process,
which includes the allocator's own losses. An attack is fed until a limit stops it; MIB replaces the
default of `total_bytes`, because tracing 256 MiB takes long.
"""

from __future__ import annotations

import gc
import os
import random
import sys
import tracemalloc
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import attrs
import shapes

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / part) for part in ("", "tests")]
from attacks import ATTACKS, Attack, choices, many  # noqa: E402  # they are with the tests

from accumulator import Accumulator, LimitExceededError, Limits  # noqa: E402
from accumulator.limits import DEFAULT_LIMITS  # noqa: E402

MIB = 1024 * 1024
STREAMS, CHUNKS = 10_000, 400
# What a stream in flight may hold whatever its length: objects, and fields that are not text.
SLACK = 2048
TEXTS: dict[str, Callable[[int], str]] = {
    "ASCII, 1 byte a fragment": lambda i: "abcdefghij"[i % 10],
    "ASCII, 4 bytes a fragment": lambda i: f"{i % 1000:4}",
    "ASCII, 40 bytes a fragment": lambda i: f"{i % 1000:40}",
    "an emoji now and then": lambda i: "👍" if i % 100 == 99 else f"{i % 1000:4}",
    "Japanese": lambda i: "日本語の文字"[i % 6],
    "Japanese, as \\u escapes": lambda i: "日本語の文字"[i % 6],
    "quotes and line ends": lambda i: '"\n\\"' if i % 2 else "\n\n\n\n",
    "arguments, 4 bytes a fragment": lambda i: f"{i % 1000:4}",
}


def in_flight() -> tuple[float, str]:
    """Return the bytes of RSS per stream, for many streams at once that are fed in turn."""
    # Only a new process shows all that is held.
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(grown) / STREAMS, "10,000 streams at once"


def grown() -> int:
    """Return the bytes by which this process grows."""
    bodies = []
    for number in range(50):
        pieces = shapes.made("text, padded", CHUNKS + 100, number).reads(None)
        bodies.append(shapes.cut(b"".join(pieces[:CHUNKS]), 4096))
    warm = Accumulator()
    for data in bodies[0]:
        warm.feed_sse(data)
    before = resident()
    accumulators = [Accumulator() for _ in range(STREAMS)]
    for turn in range(max(map(len, bodies))):
        for number, acc in enumerate(accumulators):
            for data in bodies[number % len(bodies)][turn : turn + 1]:
                # A copy, because each stream of a real process has buffers of its own.
                acc.feed_sse(bytes(memoryview(data)))
    return resident() - before


def resident() -> int:
    """Return the bytes of memory that this process has, garbage collected."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def idle() -> tuple[float, str]:
    """Return the bytes of an accumulator that has read nothing."""
    Accumulator().feed_sse(b"")
    start_tracing()
    ones = [Accumulator() for _ in range(1000)]
    held = traced() - sys.getsizeof(ones)
    tracemalloc.stop()
    return held / len(ones), ""


def start_tracing() -> None:
    gc.collect()
    tracemalloc.start()


def traced() -> int:
    """Return how many bytes are held of what was allocated since tracing started."""
    return tracemalloc.get_traced_memory()[0]


def text_held(kind: str) -> tuple[float, str]:
    """Return what a stream holds beyond the slack, as a factor of the UTF-8 length of its text:
    at 10,000 fragments, at the end, and after a snapshot.
    """
    texts = [TEXTS[kind](i) for i in range(1000)]
    size = sum(len(text.encode()) for text in texts)
    deltas: list[shapes.Json] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": text} for text in texts]
    if "arguments" in kind:
        calls: list[shapes.Json] = [{"id": "call_1", "function": {"name": "report"}}]
        calls += [{"function": {"arguments": text}} for text in texts]
        deltas = [{"tool_calls": [{"index": 0, **call}]} for call in calls]
    envelope = shapes.envelope_of(random.Random(0))
    stream = shapes.written(envelope, [*map(shapes.chunk_of, deltas)], "\\u" in kind)
    first, *rest, _ = stream.reads(None)
    reads = shapes.cut(b"".join(rest), 4096)
    warm = Accumulator()
    for data in (first, *reads):
        warm.feed_sse(data)
    warm.snapshot()
    start_tracing()
    acc = Accumulator(limits=Limits(total_bytes=None))
    acc.feed_sse(bytes(bytearray(first)))
    early = 0.0
    for number in range(1, 1001):
        for data in reads:
            acc.feed_sse(bytes(bytearray(data)))  # every read is a new bytes object
        if number == 10:
            early = (traced() - SLACK) / (size * number)
    end = (traced() - SLACK) / (size * 1000)
    acc.snapshot()
    after = (traced() - SLACK) / (size * 1000)
    tracemalloc.stop()
    beside = f"{early:.2f} at 10,000 fragments, {end:.2f} at the end, then {after:.2f}"
    return max(early, end), beside


# --- attacks ------------------------------------------------------------------------------


def main(mebibytes: str = "16") -> None:
    """Feed each attack until a limit stops it, and print a row of the table for each."""
    most_calls = b",".join(
        b'{"index":%d}' % index for index in range(DEFAULT_LIMITS.tool_calls or 0)
    )
    full = b'{"index":%d,"delta":{"tool_calls":[' + most_calls + b"]}}"
    # Attacks that approach several limits at once are too slow for a test.
    slow = {
        "choices, as many as one event holds": many(choices, b"{}", 16 * MIB - 100),
        "choices full of tool calls": many(choices, full, 1),
    }
    attacks = [Attack(what, "choices", pieces) for what, pieces in slow.items()] + ATTACKS
    bounded = attrs.evolve(DEFAULT_LIMITS, total_bytes=int(mebibytes) * MIB)
    print("| endless | stopped by | MiB read | MiB held | MiB at most | bytes held per byte read |")
    print("|---|---|---|---|---|---|")
    for attack in attacks:
        endless = attack.limit == "total_bytes"
        pieces = attack.pieces()
        piece = next(pieces)
        start_tracing()
        acc = Accumulator(limits=bounded if endless else DEFAULT_LIMITS)
        fed = 0
        try:
            while True:
                acc.feed_sse(bytes(bytearray(piece)))
                fed += len(piece)
                piece = next(pieces)
        except LimitExceededError as error:
            if error.limit != attack.limit:
                raise
        peak = tracemalloc.get_traced_memory()[1]
        del piece, pieces
        gc.collect()
        held = traced()
        tracemalloc.stop()
        factor = f"{held / fed:.1f}" if endless else ""
        sizes = " | ".join(f"{size / MIB:.1f}" for size in (fed, held, peak))
        print(f"| {attack.what} | `{attack.limit}` | {sizes} | {factor} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
