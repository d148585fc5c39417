"""The usage of a stream: which of two reports is the newer one (SPEC section 5)."""

from __future__ import annotations

from operator import attrgetter

from msgspec import Struct, convert

from .._decode import chunk as wire
from ..rules import DEFAULT_RULES
from .json_merge import FieldMerger

# What a report has besides its counts.
_INNER = {
    "prompt_tokens_details": wire.PromptTokensDetails,
    "completion_tokens_details": wire.CompletionTokensDetails,
    "extra": wire.Extra,
}
_counts_of = attrgetter("prompt_tokens", "completion_tokens", "total_tokens")
_VENDORS = DEFAULT_RULES.levels["chunk"].below("usage")  # as in any object of a chunk


class UsageMerger(FieldMerger):
    """Merges reports of usage. What a report leaves out stays as it was."""

    def _merged_usage(self, into: wire.Usage | None, usage: wire.Usage) -> wire.Usage:
        """Merge a report into what is known, and return the result."""
        if into is None and not self._checks_halves:  # the only report in most streams
            is_plain = type(usage) is wire.Usage
            return usage if is_plain else convert(usage, wire.Usage, from_attributes=True)
        into = wire.Usage() if into is None else into
        counts = _counts_of(usage)
        fell = any(map(_is_less, counts, _counts_of(into)))
        self._merge_report(into, usage, fell=fell)
        is_half = None in counts and counts[:2] != (None, None)  # one count of two, or no total
        total = sum_of(into) if fell or is_half else None
        if into.total_tokens is not None and total is not None:
            into.total_tokens = max(into.total_tokens, total)  # a half's total is only its own
        return into

    def _merge_report(self, into: Struct, report: Struct, *, fell: bool) -> None:
        # `into` has only the API's fields; what a vendor's Struct has besides is in `extra`.
        for name in into.__struct_fields__:
            new = getattr(report, name)
            if new is None:
                continue
            old = getattr(into, name)
            if type(new) is int:
                if not (fell and _is_less(new, old)):
                    setattr(into, name, new)
                continue
            if old is None:
                old = _INNER[name]()
                setattr(into, name, old)
            if name != "extra":
                if new != old or new.extra is not None:
                    self._merge_report(old, new, fell=fell)
            elif fell:
                self._larger(old, new)
            else:
                self._merge(_VENDORS, old, new, nested=False)


def sum_of(usage: wire.Usage) -> int | None:
    """Return the total that a usage without one has."""
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    return None if prompt is None or completion is None else prompt + completion


def _is_less(new: float | None, old: float | None) -> bool:
    return new is not None and old is not None and new < old
