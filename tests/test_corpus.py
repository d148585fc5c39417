"""Every recorded stream, against the second reducer."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import reference
from streamed import read_whole

from accumulator import Accumulator


def test_the_second_reducer_agrees(corpus_stream: Path) -> None:
    body = corpus_stream.read_bytes()
    acc = read_whole(body)
    judge = reference.reduce_body(body)
    assert acc.snapshot().to_dict() == judge.completion
    assert acc.status == judge.status
    assert dict(acc.problem_counts) == Counter(judge.problems)


def test_small_reads_give_the_same(corpus_stream: Path) -> None:
    body = corpus_stream.read_bytes()
    whole, in_pieces, by_line = Accumulator(), Accumulator(), Accumulator()
    whole.feed_sse(body)
    for i in range(0, len(body), 7):
        in_pieces.feed_sse(body[i : i + 7])
    for line in body.splitlines(keepends=True):
        by_line.feed_line(line)
    for acc in (whole, in_pieces, by_line):
        acc.close()
    assert in_pieces.snapshot() == whole.snapshot()
    assert in_pieces.problems == whole.problems
    assert by_line.snapshot() == whole.snapshot()
    assert by_line.problem_counts == whole.problem_counts
