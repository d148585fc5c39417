"""The fast path and the plain path come to the same state after any read, and neither raises.

A script of its own, without atheris. It makes bodies of many similar events from recorded and
generated streams, mutates some events, and feeds each body both ways in reads cut at random.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import suppress
from pathlib import Path
from random import Random

from mutate import mutate

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT.parent / "shared" / "corpus"
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import regular  # noqa: E402

from accumulator import Accumulator, LimitExceededError, _fast_path  # noqa: E402
from accumulator._pipeline import apply as _apply  # noqa: E402

_MOST_EVENTS = 120
_BITS = [b"\n", b"\r", b"\n\n", b"\r\n\r\n", b'"', b"\\", b"\x7f", b"\xc3", b'","', b"{} ", b"0"]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bodies", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    # So that it is taken as early and as often as possible.
    _fast_path.LEARN_AFTER = _apply.LEARN_AFTER = 2
    _fast_path._PAUSE = _fast_path._PROOF = 2
    counted = _Counted(_fast_path.FastPath)
    streams = _streams()
    events = 0
    for number in range(options.bodies):
        random = Random(f"{options.seed} {number}")
        body = _body(random, streams)
        try:
            events += _compare(random, body)
        except BaseException:
            path = Path(f"crash-{options.seed}-{number}")
            path.write_bytes(body)
            print(f"body {number} of seed {options.seed} is in {path}", flush=True)
            raise
        if number % 1000 == 999:
            share = f"{counted.taken / events:.0%} of {events:,} events took the fast path"
            print(f"{number + 1:,} bodies are equal; {share}", flush=True)
    return 0


class _Counted:
    """Counts the events that take the fast path."""

    def __init__(self, kind: type[_fast_path.FastPath]) -> None:
        self.taken = 0
        many, one = kind.apply_matching, kind.apply_event

        def apply_matching(fast: _fast_path.FastPath, data: bytes) -> tuple[int, int]:
            before = self.taken
            count, size = many(fast, data)
            self.taken = before + count  # some of them were counted one by one
            return count, size

        def apply_event(fast: _fast_path.FastPath, data: bytes) -> bool:
            taken = one(fast, data)
            self.taken += taken
            return taken

        kind.apply_matching, kind.apply_event = apply_matching, apply_event  # type: ignore[method-assign]  # to count


def _streams() -> list[list[bytes]]:
    """Return the events of recorded and generated streams, each with its blank line."""
    streams = [[*map(regular.event, chunks)] for chunks in regular.STREAMS.values()]
    for path in sorted(CORPUS.glob("*.sse")):
        blocks = path.read_bytes().replace(b"\r\n", b"\n").split(b"\n\n")
        streams.append([block + b"\n\n" for block in blocks if block][:_MOST_EVENTS])
    return [stream for stream in streams if stream]


def _body(random: Random, streams: list[list[bytes]]) -> bytes:
    """Return a body: events of a stream or two, some repeated, some mutated or damaged."""
    events = list(random.choice(streams))
    if random.random() < 0.5:  # repeat a short stream until a template is worth it
        start = random.randrange(len(events))
        events[start:start] = events[start : start + 5] * random.randint(1, 8)
    if random.random() < 0.2:  # a stream that becomes another
        events += random.choice(streams)[:_MOST_EVENTS]
    for _ in range(random.choice((0, 1, 1, 2, 5))):
        place = random.randrange(len(events))
        event = events[place]
        match random.randrange(5):
            case 0:
                events[place] = random.choice(regular.ODD)
            case 1:
                start = random.randint(0, len(event))
                rest = event[start + random.randint(0, 3) :]
                events[place] = event[:start] + random.choice(_BITS) + rest
            case 2:
                other = random.choice(events)
                a, b = random.randint(0, len(event)), random.randint(0, len(other))
                events[place] = event[:a] + other[b:]
            case _:
                events[place] = mutate(event.removesuffix(b"\n\n"), random) + b"\n\n"
    body = b"".join(events)
    match random.randrange(4):
        case 0:
            body = body.replace(b"\n", b"\r\n")
        case 1:
            body = body.replace(b"data: ", b"data:")
    return body


def _reads(random: Random, body: bytes) -> list[bytes]:
    """Cut a body by size, after events as servers do, or anywhere."""
    match random.randrange(4):
        case 0:
            size = random.choice((300, 1000, 4096, len(body) + 1))
            return [body[i : i + size] for i in range(0, len(body), size)]
        case 1:
            return [event + b"\n\n" for event in body.split(b"\n\n")]
        case 2:
            reads: list[bytes] = [b""]
            for event in body.split(b"\n\n"):
                if random.random() < 0.3:
                    reads.append(b"")
                reads[-1] += event + b"\n\n"
            return reads
        case _:
            cuts = sorted(random.randrange(len(body) + 1) for _ in range(random.randrange(1, 40)))
            ends = zip([0, *cuts], [*cuts, len(body)], strict=True)
            return [body[a:b] for a, b in ends]


def _compare(random: Random, body: bytes) -> int:
    """Feed a body both ways; return how many events it had."""
    quick, plain = Accumulator(), Accumulator(shortcut=False)
    looks = random.choice((0.05, 0.5, 1))
    for read in _reads(random, body):
        for acc in (quick, plain):
            try:
                acc.feed_sse(read)
            except LimitExceededError:
                assert acc is plain or quick._pipeline.tally.passed
        if random.random() < looks:
            assert _state(quick) == _state(plain), "the fast path changed the result"
    for acc in (quick, plain):
        with suppress(LimitExceededError):  # the last event may pass a limit
            acc.close()
    assert quick._pipeline.tally.passed == plain._pipeline.tally.passed
    assert _state(quick) == _state(plain), "the fast path changed the result"
    return quick._pipeline.log.event


def _state(acc: Accumulator) -> tuple[object, ...]:
    intake = acc._pipeline
    problems = [(p.kind, p.message, p.event, p.offset, p.path) for p in acc.problems]
    # As text, because 1 == 1.0. Sorted, because a vendor's fields move once their names are known.
    state = json.dumps(acc.snapshot().to_dict(), sort_keys=True)
    return state, acc.status, problems, acc.problem_counts, intake.log.event, intake.tally.size


if __name__ == "__main__":
    sys.exit(main())
