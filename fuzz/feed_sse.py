"""However a body is cut, the result is that of the uncut body and of the second reducer.

Only `LimitExceededError` may be raised. The result is the completion, the status and every problem
with its place. Also, a snapshot never changes, its texts are prefixes of the final ones, and its
JSON is valid.
"""

from __future__ import annotations

import json
import re
import zlib
from itertools import pairwise
from random import Random

import atheris
import harness

with atheris.instrument_imports(include=["accumulator"]):
    from accumulator import Accumulator, ChatCompletion, LimitExceededError
from judged import assert_as_judged  # it imports the package, too

_BYTE_BY_BYTE = 600  # bytes; a longer body would be slow


def check(body: bytes) -> None:
    # The cuts are drawn from the body itself, so that the body alone reproduces a finding.
    random = Random(zlib.crc32(body))
    whole, exceeded = _fed([body], random)
    cuts = sorted(random.randrange(len(body) + 1) for _ in range(random.randrange(1, 9)))
    ways = [
        [body[a:b] for a, b in pairwise([0, *cuts, len(body)])],
        _reads(body, random),
        _reads(body, random),
    ]
    if len(body) <= _BYTE_BY_BYTE:
        ways.append([body[i : i + 1] for i in range(len(body))])
    for pieces in ways:
        again, exceeded_again = _fed(pieces, random)
        assert _outcome(again) == _outcome(whole), "the cuts changed the result"
        assert exceeded_again == exceeded
    plain, _ = _fed([body], random, shortcut=False)
    assert _outcome(plain) == _outcome(whole), "the shortcut changed the result"
    if not exceeded:
        assert_as_judged(whole, body)


def _reads(body: bytes, random: Random) -> list[bytes]:
    """Cut as servers do, after events: one per read, or a few."""
    events = re.split(rb"(?<=\n\n)", body)
    most = random.choice((1, 2, 5))
    reads: list[bytes] = []
    while events:
        count = random.randint(1, most)
        reads.append(b"".join(events[:count]))
        del events[:count]
    return reads


def _fed(pieces: list[bytes], random: Random, *, shortcut: bool = True) -> tuple[Accumulator, int]:
    """Feed pieces, leave out what exceeds a limit, and take snapshots now and then."""
    acc = Accumulator(shortcut=shortcut)
    exceeded = 0
    seen: list[tuple[ChatCompletion, str]] = []
    for piece in pieces:
        data = piece
        while True:
            try:
                acc.feed_sse(data)
                break
            except LimitExceededError:
                exceeded += 1
                data = b""
        if random.random() < 0.3:
            snapshot = acc.snapshot()
            seen.append((snapshot, json.dumps(snapshot.to_dict())))
    try:
        acc.close()
    except LimitExceededError:
        exceeded += 1
    final = acc.snapshot()
    assert json.loads(final.to_json()) == final.to_dict()
    for snapshot, then in seen:
        assert json.dumps(snapshot.to_dict()) == then, "a snapshot changed"
        _check_prefix(snapshot, final)
    return acc, exceeded


def _check_prefix(part: ChatCompletion, whole: ChatCompletion) -> None:
    answers = {choice.index: choice.message for choice in whole.choices}
    for choice in part.choices:
        for name in ("content", "refusal", "reasoning", "reasoning_content"):
            text, all_of_it = getattr(choice.message, name), getattr(answers[choice.index], name)
            if isinstance(text, str) and isinstance(all_of_it, str):
                assert all_of_it.startswith(text), f"{name} was taken back"


def _outcome(acc: Accumulator) -> tuple[object, ...]:
    problems = [(p.kind, p.message, p.event, p.offset, p.path) for p in acc.problems]
    return (
        json.dumps(acc.snapshot().to_dict(), sort_keys=True),
        acc.status,
        problems,
        acc.problem_counts,
    )


if __name__ == "__main__":
    harness.run(check, "feed_sse", seeds=bytes)
