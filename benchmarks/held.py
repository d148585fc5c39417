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
from collections.abc import Callable, Iterator
from itertools import count
from multiprocessing import get_context
from pathlib import Path

import attrs
import shapes

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / part) for part in ("", "tests")]
from attacks import ATTACKS, Attack, event, many  # noqa: E402  # they are with the tests

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


def in_flight(seconds: float) -> tuple[float, str]:
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
    gc.collect()
    before = resident()
    accumulators = [Accumulator() for _ in range(STREAMS)]
    for turn in range(max(map(len, bodies))):
        for number, acc in enumerate(accumulators):
            for data in bodies[number % len(bodies)][turn : turn + 1]:
                # A copy, because each stream of a real process has buffers of its own.
                acc.feed_sse(bytes(memoryview(data)))
    gc.collect()
    return resident() - before


def resident() -> int:
    """Return the bytes of memory that this process has."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def idle(seconds: float) -> tuple[float, str]:
    """Return the bytes of an accumulator that has read nothing."""
    Accumulator().feed_sse(b"")
    traced = tracing()
    ones = [Accumulator() for _ in range(1000)]
    held = traced() - sys.getsizeof(ones)
    tracemalloc.stop()
    return held / len(ones), ""


def tracing() -> Callable[[], int]:
    """Start tracing memory; return a function that returns what has been allocated since."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    return lambda: tracemalloc.get_traced_memory()[0] - before


def text_held(kind: str, seconds: float) -> tuple[float, str]:
    """Return what a stream holds beyond the slack, as a factor of the UTF-8 length of its text:
    at 10,000 fragments, at the end, and after a snapshot.
    """
    texts = [TEXTS[kind](i) for i in range(1000)]
    size = sum(len(text.encode()) for text in texts)
    opening: shapes.Json = {"role": "assistant", "content": ""}
    deltas: list[shapes.Json] = [{"content": text} for text in texts]
    if "arguments" in kind:
        opening = {"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "report"}}]}
        pieces = [{"index": 0, "function": {"arguments": text}} for text in texts]
        deltas = [{"tool_calls": [piece]} for piece in pieces]
    envelope = shapes.envelope_of(random.Random(0))
    chunks = ({**envelope, **shapes.chunk_of(delta)} for delta in (opening, *deltas))
    first, *rest = (event(shapes.written(chunk, "\\u" in kind)) for chunk in chunks)
    reads = shapes.cut(b"".join(rest), 4096)
    warm = Accumulator()
    for data in (first, *reads):
        warm.feed_sse(data)
    warm.snapshot()
    taken = []
    traced = tracing()
    acc = Accumulator(limits=Limits(total_bytes=None))
    acc.feed_sse(bytes(bytearray(first)))
    thousands = max(10, int(1000 * seconds))
    for number in range(1, thousands + 1):
        for data in reads:
            acc.feed_sse(bytes(bytearray(data)))  # every read is a new bytes object
        if number in (10, thousands):
            taken.append((traced() - SLACK) / (size * number))
    acc.snapshot()
    after = (traced() - SLACK) / (size * thousands)
    tracemalloc.stop()
    beside = f"{taken[0]:.2f} at 10,000 fragments, {taken[-1]:.2f} at the end, then {after:.2f}"
    return max(taken), beside


# --- attacks ------------------------------------------------------------------------------


def full_choices() -> Iterator[bytes]:
    """Yield events of one choice each, with as many calls as are allowed."""
    calls = (b'{"index":%d}' % index for index in range(DEFAULT_LIMITS.tool_calls or 0))
    delta = b'{"tool_calls":[' + b",".join(calls) + b"]}"
    for index in count():
        yield event(b'{"choices":[{"index":%d,"delta":%b}]}' % (index, delta))


def main(mebibytes: str = "16") -> None:
    """Feed each attack until a limit stops it, and print a row of the table for each."""
    choices = many(lambda items: b'{"choices":[%b]}' % items, b"{}", 16 * MIB - 100)
    # Attacks that approach several limits at once are too slow for a test.
    slow = [
        Attack("choices, as many as one event holds", "choices", choices),
        Attack("choices full of tool calls", "choices", full_choices),
    ]
    bounded = attrs.evolve(DEFAULT_LIMITS, total_bytes=int(mebibytes) * MIB)
    print("| endless | stopped by | MiB read | MiB held | MiB at most | bytes held per byte read |")
    print("|---|---|---|---|---|---|")
    for attack in [*slow, *ATTACKS]:
        endless = attack.limit == "total_bytes"
        pieces = attack.pieces()
        piece = next(pieces)
        traced = tracing()
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
        now, most = tracemalloc.get_traced_memory()
        peak = traced() + most - now
        del piece, pieces
        gc.collect()
        held = traced()
        tracemalloc.stop()
        factor = f"{held / fed:.1f}" if endless else ""
        sizes = " | ".join(f"{size / MIB:.1f}" for size in (fed, held, peak))
        print(f"| {attack.what} | `{attack.limit}` | {sizes} | {factor} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
