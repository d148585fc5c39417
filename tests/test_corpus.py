"""Every recorded stream, against the second reducer."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import reference
from streamed import cut, read_all, read_lines


def test_the_second_reducer_agrees(corpus_stream: Path) -> None:
    body = corpus_stream.read_bytes()
    judge = reference.reduce_body(body)
    for acc in read_all([body]), read_all(cut(body, 7)), read_lines(body.splitlines(True)):
        assert acc.snapshot().to_dict() == judge.completion
        assert acc.status == judge.status
        assert dict(acc.problem_counts) == Counter(judge.problems)
