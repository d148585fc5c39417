"""Every recorded stream, against the second reducer."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import reference
from streamed import cut, read_all

from accumulator import Accumulator


def by_line(body: bytes) -> Accumulator:
    acc = Accumulator()
    for line in body.splitlines(keepends=True):
        acc.feed_line(line)
    acc.close()
    return acc


def test_the_second_reducer_agrees(corpus_stream: Path) -> None:
    body = corpus_stream.read_bytes()
    judge = reference.reduce_body(body)
    for acc in read_all([body]), read_all(cut(body, 7)), by_line(body):
        assert acc.snapshot().to_dict() == judge.completion
        assert acc.status == judge.status
        assert dict(acc.problem_counts) == Counter(judge.problems)
