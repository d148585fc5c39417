"""The usage of a stream: which of two reports is the newer one (SPEC section 5)."""

from __future__ import annotations

from typing import cast

from .._decode import chunk as wire
from ..rules import DEFAULT_RULES
from .json_merge import FieldMerger

__all__ = ["UsageMerger", "total_of"]

Counts = wire.Usage | wire.PromptTokensDetails | wire.CompletionTokensDetails
_PROMPT_FIELDS = wire.PromptTokensDetails.__struct_fields__
_OUTPUT_FIELDS = wire.CompletionTokensDetails.__struct_fields__
_COUNTS = wire.Usage.__struct_fields__[:3]
_PROMPT_COUNTS = _PROMPT_FIELDS[:-1]
_OUTPUT_COUNTS = _OUTPUT_FIELDS[:-1]
_VENDORS = DEFAULT_RULES.levels["chunk"].below("usage")  # as in any object of a chunk


class UsageMerger(FieldMerger):
    """Merges reports of usage. What a report leaves out stays as it was."""

    __slots__ = ()

    def _merged_usage(self, into: wire.Usage | None, usage: wire.Usage) -> wire.Usage:
        """Merge a report into what is known, and return that."""
        if into is None:
            if not self._careful:
                return _own_usage(usage)
            into = wire.Usage()
        fell = any(map(_is_less, _known(usage), _known(into)))
        self._apply_counts(_COUNTS, into, usage, fell=fell)
        prompt = usage.prompt_tokens_details
        if prompt is not None:
            if into.prompt_tokens_details is None:
                into.prompt_tokens_details = wire.PromptTokensDetails()
            self._apply_counts(_PROMPT_COUNTS, into.prompt_tokens_details, prompt, fell=fell)
        output = usage.completion_tokens_details
        if output is not None:
            if into.completion_tokens_details is None:
                into.completion_tokens_details = wire.CompletionTokensDetails()
            self._apply_counts(_OUTPUT_COUNTS, into.completion_tokens_details, output, fell=fell)
        if into.total_tokens is not None and (fell or _is_half(usage)):
            # The total of a half is only its own.
            into.total_tokens = max(into.total_tokens, _sum_of(into) or 0)
        return into

    def _apply_counts(
        self, names: tuple[str, ...], into: Counts, usage: Counts, *, fell: bool
    ) -> None:
        for name in names:
            new = getattr(usage, name)
            if new is not None and not (fell and _is_less(new, getattr(into, name))):
                setattr(into, name, new)
        extra = usage.extra
        if extra is None:
            return
        if into.extra is None:
            into.extra = wire.Extra()
        if fell:
            self._larger_json(into.extra, extra)
        else:
            self._merge(_VENDORS, into.extra, extra, nested=False)


def total_of(usage: wire.Usage) -> int | None:
    """Return the sum of all tokens: the server's own, if it sent one."""
    return _sum_of(usage) if usage.total_tokens is None else usage.total_tokens


def _sum_of(usage: wire.Usage) -> int | None:
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    return None if prompt is None or completion is None else prompt + completion


def _known(usage: wire.Usage) -> tuple[int | None, ...]:
    return usage.prompt_tokens, usage.completion_tokens, usage.total_tokens


def _is_half(usage: wire.Usage) -> bool:
    """Return whether a report brings one of the two counts, but not all three."""
    prompt, completion, total = _known(usage)
    return (prompt is not None or completion is not None) and (
        prompt is None or completion is None or total is None
    )


def _is_less(new: object, old: object) -> bool:
    return new is not None and old is not None and cast("float", new) < cast("float", old)


def _own_usage(usage: wire.Usage) -> wire.Usage:
    """Take over the first usage of a stream, without what a vendor's Struct has beside."""
    output, prompt = usage.completion_tokens_details, usage.prompt_tokens_details
    if output is not None and type(output) is not wire.CompletionTokensDetails:
        output = wire.CompletionTokensDetails(*map(output.__getattribute__, _OUTPUT_FIELDS))
    if prompt is not None and type(prompt) is not wire.PromptTokensDetails:
        prompt = wire.PromptTokensDetails(*map(prompt.__getattribute__, _PROMPT_FIELDS))
    return wire.Usage(
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.total_tokens,
        output,
        prompt,
        usage.extra,
    )
