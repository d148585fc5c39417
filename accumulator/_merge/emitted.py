"""What events have told of a stream, and where the texts of its state belong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, cast

from msgspec import Struct, field

from .._decode.text import Text
from .._decode.text_history import TextHistory
from .json_merge import PART_TYPES
from .state import CallsState, CallState, ChoiceState, Tool

__all__ = [
    "ChoiceProgress",
    "EmittedCall",
    "EmittedText",
    "Kind",
    "call_at",
    "texts_of",
    "texts_of_call",
    "widest",
]

Kind = Literal["content", "refusal", "reasoning", "reasoning_content", "thinking"]
_KINDS: tuple[Kind, ...] = ("content", "refusal", "reasoning", "reasoning_content")


class EmittedText(Struct):
    """Where a text of the state belongs; `kind` is None if it has no events."""

    choice_index: int
    kind: Kind | None
    history: TextHistory


class EmittedCall(Struct):
    """A call of a function or custom tool, as far as events have told of it."""

    choice_index: int
    place: int
    tool: Tool
    state: CallState
    name: TextHistory | None = None
    text: TextHistory = field(default_factory=TextHistory)
    source: Text | None = None  # of the arguments: another one may replace it
    held: str = ""  # the end of arguments that are `{}`, to some servers a placeholder
    is_done: bool = False


class ChoiceProgress(Struct):
    """A choice, as far as events have told of it. `done` holds what had its `.done`, but calls."""

    index: int
    state: ChoiceState
    texts: dict[Kind, TextHistory] = field(default_factory=dict)
    calls: dict[tuple[int, Tool], EmittedCall] = field(default_factory=dict)
    last_call: int = -1
    transcript: TextHistory = field(default_factory=TextHistory)
    heard: str = ""  # of the transcript, not in an event yet
    done: set[str] = field(default_factory=set)
    finish_reason: str | None = None  # for which its `.done` wait


def texts_of(state: ChoiceState, width: int) -> Iterator[tuple[Text, Kind]]:
    """Return the texts of a choice that have events; of lists of parts those in the last `width`
    parts.
    """
    for kind in _KINDS:
        text = getattr(state, kind)
        if text is not None:
            yield text, kind
    if state.parts is not None:
        yield from texts_of_parts(state.parts, width, "content")


def texts_of_parts(parts: list[object], width: int, kind: Kind) -> Iterator[tuple[Text, Kind]]:
    for part in parts[-width:]:
        if not isinstance(part, dict) or part.get("type") not in PART_TYPES:
            continue
        thinks = part["type"] == "thinking"
        kind_of_part: Kind = "thinking" if thinks else kind
        text, inner = part.get("text"), part.get("thinking") if thinks else None
        if isinstance(text, Text):
            yield text, kind_of_part
        if isinstance(inner, Text):
            yield inner, kind_of_part
        elif isinstance(inner, list):
            yield from texts_of_parts(inner, width, kind_of_part)


def widest(parts: Sequence[object]) -> int:
    """Return how many parts the longest of the lists of parts has."""
    inner = [part.get("thinking") for part in parts if isinstance(part, dict)]
    return max([1, len(parts), *(widest(each) for each in inner if isinstance(each, list))])


def texts_of_call(call: CallState) -> Iterator[Text]:
    for _, named in call.tools():
        if named.name is not None:
            yield named.name
        if named.text is not None:
            yield named.text


def call_at(progress: ChoiceProgress, place: int) -> CallState:
    return cast("CallsState", progress.state.calls).items[place]
