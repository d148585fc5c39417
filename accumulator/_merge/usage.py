"""The usage of a stream: which of two reports is the newer one (SPEC section 5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from .._decode import chunk as wire
from ..rules import DEFAULT_RULES
from .json_merge import FieldMerger

__all__ = ["UsageMerger", "total_of"]

Counts = wire.Usage | wire.PromptTokensDetails | wire.CompletionTokensDetails
_DETAILS = {
    "prompt_tokens_details": wire.PromptTokensDetails,
    "completion_tokens_details": wire.CompletionTokensDetails,
}
_COUNTS: Mapping[type, tuple[str, ...]] = {
    kind: tuple(n for n in kind.__struct_fields__ if n != "extra" and n not in _DETAILS)
    for kind in (wire.Usage, *_DETAILS.values())
}
_VENDORS = DEFAULT_RULES.levels["chunk"].below("usage")  # as in any object of a chunk


class UsageMerger(FieldMerger):
    """Merges reports of usage. What a report leaves out stays as it was."""

    __slots__ = ()

    def _merged_usage(self, into: wire.Usage | None, usage: wire.Usage) -> wire.Usage:
        """Merge a report into what is known, and return that."""
        into = wire.Usage() if into is None else into
        fell = any(map(_is_less, _known(usage), _known(into)))
        self._apply_counts(into, usage, fell=fell)
        for name, kind in _DETAILS.items():
            details = getattr(usage, name)
            if details is not None:
                if getattr(into, name) is None:
                    setattr(into, name, kind())
                self._apply_counts(getattr(into, name), details, fell=fell)
        total = _sum_of(into)
        if into.total_tokens is not None and total is not None and (fell or _is_half(usage)):
            into.total_tokens = max(into.total_tokens, total)  # that of a half is only its own
        return into

    def _apply_counts(self, into: Counts, usage: Counts, *, fell: bool) -> None:
        for name in _COUNTS[type(into)]:
            new = getattr(usage, name)
            if new is not None and not (fell and _is_less(new, getattr(into, name))):
                setattr(into, name, new)
        if usage.extra is None:
            return
        if into.extra is None:
            into.extra = wire.Extra()
        if fell:
            self._larger(into.extra, usage.extra)
        else:
            self._merge(_VENDORS, into.extra, usage.extra, nested=False)


def total_of(usage: wire.Usage) -> int | None:
    """Return the sum of all tokens: the server's own, if it sent one."""
    return _sum_of(usage) if usage.total_tokens is None else usage.total_tokens


def _sum_of(usage: wire.Usage) -> int | None:
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    return None if prompt is None or completion is None else prompt + completion


def _known(usage: wire.Usage) -> tuple[int | None, int | None, int | None]:
    return usage.prompt_tokens, usage.completion_tokens, usage.total_tokens


def _is_half(usage: wire.Usage) -> bool:
    """Return whether a report brings one of the two counts, but not all three."""
    known = _known(usage)
    return known[:2] != (None, None) and None in known


def _is_less(new: object, old: object) -> bool:
    return new is not None and old is not None and cast("float", new) < cast("float", old)
