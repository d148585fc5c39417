"""Compare what the package makes of a body with what the second reducer makes of it."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

import reference

from accumulator import Accumulator

HALVES = "lone_surrogate"
# A test feeds a body in several ways, and one verdict serves for all of them.
judged = lru_cache(maxsize=4)(reference.reduce_body)


def assert_as_judged(acc: Accumulator, body: bytes, *, think_tags: bool = False) -> None:
    """Compare a closed accumulator's result with the second reducer's, for any bytes at all."""
    completion, problems = acc.snapshot().to_dict(), acc.problem_counts
    judge = judged(body, think_tags=think_tags)
    judges = Counter(judge.problems)
    assert completion == judge.completion, "the completion differs"
    assert (acc.status, acc.server_error) == (judge.status, judge.error)
    # The judge looks for halves of surrogate pairs at the end. So it never sees one in a text that
    # a later value replaced, it does see them in the names of null fields, and it compares an id
    # that contains one as it came.
    ignored = {HALVES, "id_changed"} if HALVES in problems.keys() | judges.keys() else set[str]()
    ours = {kind: count for kind, count in problems.items() if kind not in ignored}
    assert ours == {kind: n for kind, n in judges.items() if kind not in ignored}, (
        "the problems differ"
    )
    if judges[HALVES] and not {HALVES, "invalid_utf8"} & problems.keys():
        assert "\ufffd" not in str(completion), "half a pair is not on record"
