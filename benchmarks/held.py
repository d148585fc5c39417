"""Measure what accumulators hold, and print it as JSON: `held.py one`, `held.py many`.

`one` traces one accumulator (tracemalloc): idle, and with a stream in flight, looked at after every
thousand chunks. Every read is made while it is traced, so that a buffer which is held on to counts.
`many` has many streams in flight at once and asks the system how much the process takes (RSS),
which counts what tracemalloc cannot see: the allocator's own losses.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
import tracemalloc
from array import array
from collections.abc import Callable, Mapping

import bare
import psutil  # type: ignore[import-untyped]
import workloads

from accumulator import Accumulator, Limits

_UNLIMITED = Limits(total_bytes=None)
_THOUSAND = 1000
# What a stream in flight may hold whatever its length: the fields that are no text, the objects.
_SLACK = 2048

# One fragment of each kind of text.
TEXTS: Mapping[str, Callable[[int], str]] = {
    "ASCII, 1 byte a fragment": lambda i: "abcdefghij"[i % 10],
    "ASCII, 4 bytes a fragment": lambda i: f"{i % 1000:4}",
    "ASCII, 40 bytes a fragment": lambda i: f"{i % 1000:40}",
    "ASCII with an emoji now and then": lambda i: "👍" if i % 100 == 99 else f"{i % 1000:4}",
    "Japanese, a character a fragment": lambda i: "日本語の文字"[i % 6],
    "quotes and line ends, 4 bytes a fragment": lambda i: '"\n\\"' if i % 2 else "\n\n\n\n",
}


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("one", "many"))
    parser.add_argument("--tokens", type=int, default=1_000_000, help="of the longest stream")
    parser.add_argument("--count", type=int, default=5_000, help="streams in flight at once")
    options = parser.parse_args()
    if options.what == "one":
        json.dump({"idle": idle(), "in_flight": in_flight(options.tokens)}, sys.stdout)
    else:
        json.dump(in_flight_at_once(options.count, tokens=500), sys.stdout)


def idle() -> float:
    """Give the bytes of an accumulator that has read nothing."""
    Accumulator().feed_sse(b"")
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    idle_ones = [Accumulator() for _ in range(_THOUSAND)]
    held = tracemalloc.get_traced_memory()[0] - before - sys.getsizeof(idle_ones)
    tracemalloc.stop()
    return held / len(idle_ones)


# --- one stream in flight -----------------------------------------------------------------


def in_flight(tokens: int) -> dict[str, dict[str, float]]:
    """Give for each kind of text what a stream holds beyond the slack, as a factor of the text's
    UTF-8 length.
    """
    figures: dict[str, dict[str, float]] = {}
    opening, _ = workloads.parts("W1", 0).sections[0]
    for name, text in TEXTS.items():
        chunks = [workloads.text_chunk(text(i)) for i in range(_THOUSAND)]
        bodies = {name: workloads.unended(chunks, escaped=False)}
        if not all(text(i).isascii() for i in range(_THOUSAND)):
            bodies[f"{name}, as \\u escapes"] = workloads.unended(chunks, escaped=True)
        for label, body in bodies.items():
            figures[label] = factors(workloads.unended(opening), body, size_of(text), tokens)
    opening, _ = workloads.parts("W4", 60).sections[0]
    text = TEXTS["ASCII, 4 bytes a fragment"]
    body = workloads.unended(workloads.fragment_chunk(text(i)) for i in range(_THOUSAND))
    figures["tool call arguments, 4 bytes a fragment"] = factors(
        workloads.unended(opening), body, size_of(text), tokens
    )
    return figures


def size_of(text: Callable[[int], str]) -> int:
    """Give the UTF-8 length of a thousand fragments."""
    return sum(len(text(i).encode()) for i in range(_THOUSAND))


def factors(opening: bytes, body: bytes, size: int, tokens: int) -> dict[str, float]:
    """Read a body of a thousand chunks over and over; give the factor at 10,000 chunks and at the
    end, the highest on the way, and the one when a snapshot has been taken at the end.
    """
    warm = Accumulator()
    warm.feed_sse(opening + body)
    warm.snapshot()
    thousands = tokens // _THOUSAND
    held = array("d", bytes(8 * thousands))  # made before, so that it does not count
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    acc = Accumulator(limits=_UNLIMITED)
    acc.feed_sse(bytes(bytearray(opening)))
    for i in range(thousands):
        for data in workloads.cut(body, 4096):
            acc.feed_sse(data)
        del data
        held[i] = tracemalloc.get_traced_memory()[0] - before
    acc.snapshot()
    after_snapshot = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    factors = [(each - _SLACK) / (size * (i + 1)) for i, each in enumerate(held)]
    return {
        "at 10,000": factors[9],
        "at the end": factors[-1],
        "highest": max(factors),
        "after a snapshot": (after_snapshot - _SLACK) / (size * thousands),
    }


# --- many streams -------------------------------------------------------------------------


def in_flight_at_once(count: int, tokens: int) -> dict[str, float]:
    """Feed so many streams in turn, a read of each, and give what a stream takes and how long a
    chunk.
    """
    parts = workloads.parts("W1", tokens)
    wanted = workloads.reduced(parts)
    stream = workloads.encoded(parts)
    *reads, last = stream.reads(4096)
    process = psutil.Process()
    gc.collect()
    gc.freeze()
    before = process.memory_info().rss
    took = 0.0
    yardstick: list[float] = []
    accumulators = [Accumulator() for _ in range(count)]
    for data in reads:
        yardstick += [bare_seconds(stream.events) for _ in range(10)]
        start = time.perf_counter()
        for acc in accumulators:
            # A copy, as each stream of a real process has buffers of its own.
            acc.feed_sse(bytes(memoryview(data)))
        took += time.perf_counter() - start
    held = process.memory_info().rss - before
    if any(acc.status != "open" for acc in accumulators):
        raise AssertionError("a stream ended before its end")
    start = time.perf_counter()
    for acc in accumulators:
        acc.feed_sse(bytes(memoryview(last)))
        completion = acc.completion()
    took += time.perf_counter() - start
    if workloads.digest(completion.to_dict()) != wanted:
        raise AssertionError("not what the chunks add up to")
    content = completion.choices[0].message.content
    assert isinstance(content, str)
    return {
        "streams": count,
        "tokens": tokens,
        "text_bytes": len(content.encode()),
        "bytes": held / count,
        "seconds_per_chunk": took / count / len(stream.events),
        "ratio": took / count / statistics.mean(yardstick),
    }


def bare_seconds(events: tuple[bytes, ...]) -> float:
    """Time `bare`."""
    start = time.perf_counter()
    bare.decode_all(events)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
