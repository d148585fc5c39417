"""Whether a checkpoint can be what it says: each count and place against what is there.

Its checksum shows damage, but not bytes that somebody made up. Nothing may raise later because of
those, nor take memory that the bytes do not. All here raises ValueError.
"""

from __future__ import annotations

from ._decode.chunk import STACK_DEPTH
from ._decode.text import Text
from ._merge.arguments import ArgumentsText
from ._merge.json_merge import IndexedList
from ._merge.state import State

__all__ = ["check_counts", "check_state", "check_values"]

_MOST_LEVELS = STACK_DEPTH + 32  # of a chunk's value, and of the state around it
_PLAIN = frozenset({type(None), bool, int, float, str, bytes, Text, ArgumentsText})


def check_values(value: object) -> None:
    """Check that a value holds nothing but what JSON and the state have, and not too deep."""
    level = [value]
    for _ in range(_MOST_LEVELS):
        below: list[object] = []
        for item in level:
            if type(item) is dict:
                if not all(type(name) in (str, int) for name in item):
                    raise ValueError("a name that is no string")
                below += item.values()
            elif type(item) is list:
                below += item
            elif isinstance(item, IndexedList):
                below += item.entries
            elif type(item) not in _PLAIN:
                raise ValueError(f"a value of the type {type(item).__name__}")
        if not below:
            return
        level = below
    raise ValueError("values nested too deep")


def check_counts(*counts: int | None) -> None:
    """Check that no count or offset is below zero."""
    if any(count is not None and count < 0 for count in counts):
        raise ValueError("a count below zero")


def check_state(state: State) -> None:
    """Check the places of tool calls and the counts of tokens."""
    for choice in state.choices.values():
        if choice.calls is not None:
            calls = choice.calls
            count, last = len(calls.items), calls.last
            places = {*calls.by_id.values(), *calls.by_index.values(), *calls.by_both.values()}
            if not -1 <= last < count or not all(0 <= place < count for place in places):
                raise ValueError("a place where no tool call is")
        if choice.logprobs is not None:
            for tokens in (choice.logprobs.content, choice.logprobs.refusal):
                if tokens is not None and tokens.count != sum(map(len, tokens.runs)):
                    raise ValueError("a wrong number of tokens")
