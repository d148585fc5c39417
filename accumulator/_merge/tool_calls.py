"""Which tool call a fragment belongs to: servers number and name them (SPEC section 4)."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct, field

from .._decode import chunk as wire
from .._decode.chunk import JsonObject
from .._decode.text import Text
from ..partial import JsonScan

__all__ = [
    "CallState",
    "CallsState",
    "FunctionState",
    "brief",
    "count_new",
    "find_call",
    "is_whole",
]

# `_checkpoint` writes these classes as they stand; what is as it was at first is left out.


class FunctionState(Struct, omit_defaults=True):
    """A function or custom tool as named so far; `text` is its arguments or its input."""

    name: Text | None = None
    text: Text | None = None
    extra: JsonObject | None = None
    scan: JsonScan | None = None  # of the text, once somebody asked whether it is whole


class CallState(Struct, omit_defaults=True):
    """A tool call. `order` is where it stands among the calls: its first index, if it has one."""

    order: int
    id: str | None = None
    type: str | None = None
    function: FunctionState | None = None
    custom: FunctionState | None = None
    extra: JsonObject | None = None

    @property
    def named(self) -> FunctionState:
        # Of a call that is both, what has arguments tells more.
        function, custom = self.function, self.custom
        if custom is not None and (function is None or (custom.text and not function.text)):
            return custom
        return function or FunctionState()


class CallsState(Struct, omit_defaults=True):
    """The calls of a choice in order of arrival, and at which place the one with an id or an
    index stands.
    """

    items: list[CallState] = field(default_factory=list)
    by_id: dict[str, int] = field(default_factory=dict)
    by_index: dict[int, int] = field(default_factory=dict)
    last: int = -1


def find_call(calls: CallsState, fragment: wire.ToolCallFragment) -> tuple[int | None, str | None]:
    """Find the call that a fragment belongs to, None for a new one, and say why that is a
    guess, if it is.
    """
    id_, index = fragment.id, fragment.index
    name = _name_of(fragment)
    held = None if index is None else calls.by_index.get(index)
    known = calls.by_id.get(id_) if id_ else None
    if known is not None:
        if held is not None and calls.items[held].id == id_:
            return held, None
        # Some servers give every call of an answer the same id.
        restart = index is not None and held is None and name and is_whole(calls.items[known])
        return (None if restart else known), None
    if index is not None:
        if held is None:
            return None, None
        call = calls.items[held]
        if not id_:
            return held, _another_name(call, name)
        if not call.id:
            return held, None
        if name and _may_be_followed(call, name):
            return None, None  # Gemini numbers every parallel call 0
        # vLLM made up a new id for every fragment of a call.
        return held, f"a new id {brief(id_)} at index {index}, but nothing starts a new call"
    if id_ or calls.last < 0:
        return None, None
    call = calls.items[calls.last]
    if len(calls.items) > 1:
        return calls.last, "neither id nor index while several calls are open"
    return calls.last, _another_name(call, name)


def count_new(calls: CallsState, fragments: Iterable[wire.ToolCallFragment]) -> int:
    """Count the calls that the fragments of one delta may open: never too few, and too many
    only where several of them bring an id.
    """
    count = 0
    opened: set[int | str | None] = set()
    changed: set[int] = set()  # calls whose arguments may be whole after earlier fragments
    for fragment in fragments:
        id_, index = fragment.id or None, fragment.index
        starts = bool(id_ and _name_of(fragment))
        place, _ = find_call(calls, fragment)
        if place is not None:
            is_its_own = id_ in calls.by_id and index in calls.by_index
            count += starts and not is_its_own and (place in changed or index in opened)
            changed.add(place)
        elif starts or (id_ if index is None else index) not in opened:
            count += 1
            opened |= {id_, index, None}  # what has neither goes to the last
    return count


def _name_of(fragment: wire.ToolCallFragment) -> str:
    source = fragment.function or fragment.custom
    return (source.name if source is not None else None) or ""


def _another_name(call: CallState, name: str) -> str | None:
    """Say so if a name comes after arguments and is not the one so far: perhaps another call's."""
    if not name:
        return None
    named = call.named
    if named.text and named.name and not named.name.equals(name):
        return f"another name {brief(name)}, but no id that starts a new call"
    return None


def is_whole(call: CallState) -> bool:
    """Tell whether the arguments so far are complete JSON."""
    named = call.named
    text = named.text
    if text is None:
        return False
    if named.scan is None:
        named.scan = JsonScan(str(text))
    return named.scan.complete(lambda: str(text))


def _may_be_followed(call: CallState, name: str) -> bool:
    """Tell whether a fragment with another id and this name starts a new call."""
    if call.named.text:
        return is_whole(call)
    return not (call.named.name and call.named.name.equals(name))


def brief(value: object) -> str:
    """Show a value in a message, not more than a hundred characters of it."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes out
        text = f"too long to be shown ({type(value).__name__})"
    return text if len(text) <= 100 else text[:97] + "..."
