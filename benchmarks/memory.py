"""Measure the memory that hostile streams make an accumulator hold: the table of docs/limits.md.

    python benchmarks/memory.py [MIB]

MIB takes the place of the default of `total_bytes` for the streams that only it ends; it is 16
without it. What they make an accumulator hold grows in proportion, and to trace 256 MiB takes long.
Every other limit is the default. Needs nothing but the package.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import attrs

from accumulator import Accumulator, LimitExceededError
from accumulator.limits import DEFAULT_LIMITS

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from attacks import ATTACKS, Attack, event, many  # they stand with the tests

MIB = 1024 * 1024


def full_choices() -> Iterator[bytes]:
    """Give events of one choice each, with as many calls as it may have."""
    fragments = b",".join(
        b'{"index":%d}' % index for index in range(DEFAULT_LIMITS.tool_calls or 0)
    )
    for index in count():
        delta = b'{"tool_calls":[' + fragments + b"]}"
        yield event(b'{"choices":[{"index":%d,"delta":%b}]}' % (index, delta))


# What comes near several limits at once takes too long for a test.
SLOW = [
    Attack(
        "choices, as many as one event holds",
        "choices",
        many(lambda items: b'{"choices":[%b]}' % items, b"{}", 16 * MIB - 100),
    ),
    Attack("choices full of tool calls", "choices", full_choices),
]


def measure(attack: Attack, total_bytes: int) -> str:
    """Feed an attack until a limit ends it; give a row of the table."""
    limits = DEFAULT_LIMITS
    if attack.limit == "total_bytes":
        limits = attrs.evolve(limits, total_bytes=total_bytes)
    pieces = attack.pieces()
    piece = next(pieces)
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    acc = Accumulator(limits=limits)
    fed = 0
    limit = ""
    while not limit:
        try:
            acc.feed_sse(bytes(bytearray(piece)))  # a read is bytes of its own, also the same ones
        except LimitExceededError as error:
            limit = error.limit
        else:
            fed += len(piece)
            piece = next(pieces)
    peak = tracemalloc.get_traced_memory()[1] - before
    del piece, pieces
    gc.collect()
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert limit == attack.limit, (attack.what, limit)
    factor = f"{held / fed:.1f}" if limit == "total_bytes" else ""
    cells = [attack.what, f"`{limit}`", mib(fed), mib(held), mib(peak), factor]
    return f"| {' | '.join(cells)} |"


def mib(size: int) -> str:
    return f"{size / MIB:.1f}"


def main() -> None:
    total_bytes = int(sys.argv[1] if len(sys.argv) > 1 else 16) * MIB
    print("| endless | stopped by | MiB read | MiB held | MiB at most | bytes held a byte |")
    print("|---|---|---|---|---|---|")
    for attack in [*SLOW, *ATTACKS]:
        print(measure(attack, total_bytes), flush=True)


if __name__ == "__main__":
    main()
