"""What a run is to do, and what each part of it came to: all that its processes hand each other."""

from __future__ import annotations

from hashlib import blake2b
from typing import cast

from msgspec import Struct

from ._alike import AlikeRows
from ._bulk import StreamResult
from ._inputs import Unit
from ._rows import Keys

__all__ = ["Done", "Part", "Plan", "Run", "Stats", "TornError", "hash_of"]


class TornError(Exception):
    """The rows of a stream do not stand together, or not in order: they must be sorted."""


class Stats(Struct):
    """What a run came to, in numbers."""

    streams: dict[str, int] = {}
    problems: dict[str, int] = {}
    limits: dict[str, int] = {}
    tokens: dict[str, int] = {}
    repeats: int = 0
    rows: int = 0
    bad_rows: int = 0

    def count(self, result: StreamResult) -> None:
        _add(self.streams, {result.status: 1})
        _add(self.problems, result.problem_counts)
        if result.limit is not None:
            _add(self.limits, {result.limit: 1})
        usage = result.completion.usage
        if usage is not None:
            for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
                _add(self.tokens, {name: getattr(usage, name) or 0})
        self.repeats += result.repeats

    def add(self, other: Stats) -> None:
        for name in ("streams", "problems", "limits", "tokens"):
            _add(getattr(self, name), getattr(other, name))
        self.repeats += other.repeats
        self.rows += other.rows
        self.bad_rows += other.bad_rows


def _add(totals: dict[str, int], more: object) -> None:
    for name, count in cast("dict[str, int]", more).items():
        totals[name] = totals.get(name, 0) + count


class Run(Struct):
    """Rows of one stream that stand together: their numbers and chunks, or such as are alike."""

    id: str
    seqs: list[int | None] | None = None
    chunks: list[bytes] = []
    alike: AlikeRows | None = None

    @property
    def size(self) -> int:
        alike = self.alike
        return sum(map(len, self.chunks)) if alike is None else len(alike.joined) + len(alike.text)


class Part(Struct, array_like=True):
    """Where rows of a bucket stand in the file of a unit, in bytes."""

    bucket: int
    start: int
    head: int  # their ids, numbers and sizes
    size: int  # of their chunks, behind


class Done(Struct):
    """What a unit came to. Its first and its last stream may go on in its neighbours."""

    stats: Stats
    lines: int = 0
    first: list[Run] = []
    last: list[Run] = []
    unread: str | None = None  # why the file could not be read to the end
    ids: list[int] = []  # digests of the streams that are wholly within the unit
    parts: list[Part] = []  # if its rows were spread


class Plan(Struct, frozen=True):
    """What is to be done; an interrupted run goes on only if this is still the same."""

    units: list[Unit]
    keys: Keys
    buckets: int
    longest: int = 64 * 1024 * 1024  # bytes of one stream that are held at a time
    version: int = 3


def hash_of(id: str) -> int:
    """Give 64 bits that tell ids apart, in any process. Two that share them cost only a sort."""
    data = id.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")
