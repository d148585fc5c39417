"""The usage as events tell it: whole, each time that a report changed it."""

from __future__ import annotations

from .._decode import chunk as wire
from ..completion import Usage
from .snapshot import freeze_usage

_SHARE = 32  # vendors' values of a usage that are copied for each report and value in it


class UsageHistory:
    """Follows the usage of a stream.

    A server may send new fields with every report, and a copy costs as much as is known by then.
    So a usage with many more fields than its reports is not told with each of them.
    """

    __slots__ = ("_brought", "_size", "_told")

    def __init__(self) -> None:
        self._told: Usage | None = None
        self._size = 0  # vendors' values in it
        self._brought = 0  # reports since, and vendors' values in them

    def add(self, report: wire.Usage, usage: wire.Usage) -> Usage | None:
        """Return the usage after a report, if it is to be told."""
        self._brought += 1
        if self._size:
            self._brought += _size_of(report)
        if self._size > _SHARE * self._brought:
            return None
        self._size, self._brought = _size_of(usage), 0
        before, self._told = self._told, freeze_usage(usage)
        return None if self._told == before else self._told

    def end(self, usage: Usage | None) -> Usage | None:
        """Return the usage of a stream that ends, if it was not told."""
        is_told = self._told is not None and not self._brought
        return None if is_told or usage == self._told else usage


def _size_of(usage: wire.Usage) -> int:
    """Return how many values of vendors there are in a usage."""
    output, input_ = usage.completion_tokens_details, usage.prompt_tokens_details
    extras = [usage.extra, output and output.extra, input_ and input_.extra]
    return sum([_count(extra) for extra in extras if extra])


def _count(value: object) -> int:
    if isinstance(value, dict):
        value = [*value.values()]
    return 1 + sum(map(_count, value)) if isinstance(value, list) else 1
