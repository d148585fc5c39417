"""Which tool call a fragment belongs to: servers number and name them (SPEC section 4)."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator

from .._decode import chunk as wire
from .arguments import BLANKS, ArgumentsText
from .problem_log import brief
from .state import CallsState, CallState

__all__ = ["find_call", "reachable"]

Found = tuple[int | None, str | None]


def find_call(
    calls: CallsState, fragment: wire.ToolCallFragment, named: Container[int] = ()
) -> Found:
    """Return the place of the call that a fragment belongs to, None for a new one, and why that is
    a guess, if it is. `named` are the calls that got their name from this list of `tool_calls`.
    """
    index, name = fragment.index, _name_of(fragment)
    held = None if index is None else calls.by_index.get(index)
    place = calls.by_id.get(fragment.id) if fragment.id else None
    if place is not None:
        if index is not None:  # of several with that id, the one that holds the index
            place = calls.by_both.get(f"{index} {fragment.id}", place)
        # Gemini's fragments change their index on the way. Other servers give every call of an
        # answer the same id.
        at_free_index = index is not None and held is None
        starts = name and _is_another_of_its_id(calls, place, name, named, at_free_index)
        return (None if starts else place), None
    if index is None:
        return _find_without_index(calls, fragment, name, named)
    if held is not None:
        return _find_at_index(calls, held, fragment, name, named)
    # SGLang before 0.4.7 and LibreChat's Bedrock send head and arguments under two indices.
    goes_on = not fragment.id and not name and calls.items and not is_whole(calls.items[-1])
    return (len(calls.items) - 1 if goes_on else None), None


def _is_another_of_its_id(
    calls: CallsState, place: int, name: str, named: Container[int], at_free_index: bool
) -> bool:
    """Return whether a known id with a name starts a new call all the same."""
    call = calls.items[place]
    if at_free_index and is_whole(call):
        return True
    return place in named and (not _is_called(call, name) or is_whole(call))


def _find_at_index(
    calls: CallsState,
    place: int,
    fragment: wire.ToolCallFragment,
    name: str,
    named: Container[int],
) -> Found:
    """Find the call of a fragment whose index a call holds, and whose id is not known."""
    call, id_ = calls.items[place], fragment.id
    if id_ and call.id:
        if name and (is_whole(call) if call.named.text else not _is_called(call, name)):
            return None, None  # Gemini numbers every parallel call 0
        # vLLM made up a new id for every fragment of a call.
        index = fragment.index
        return place, f"a new id {brief(id_)} at index {index}, but nothing starts a new call"
    if id_:
        return place, None
    if name:
        # Servers that number every call 0 and send no ids.
        starts = _starts_by_name(call, place, fragment, name, named)
        return (None, None) if starts else (place, _another_name(call, name))
    newest = len(calls.items) - 1
    if place < newest and is_whole(call) and not is_whole(calls.items[newest]):
        text = _text_of(fragment)
        again = call.named is call.function and _is_repeated(call, text)
        if text.strip(BLANKS) and not again:
            return newest, None  # SGLang, whose arguments are all at index 0
    return place, None


def _find_without_index(
    calls: CallsState, fragment: wire.ToolCallFragment, name: str, named: Container[int]
) -> Found:
    """Find the call of a fragment that has no index, and whose id is not known."""
    place = calls.last
    if fragment.id or place < 0:
        return None, None
    call = calls.items[place]
    if name and _starts_by_name(call, place, fragment, name, named):
        return None, None  # mlx sends whole calls in one delta, their ids null
    if len(calls.items) > 1:
        return place, "neither id nor index while several calls are open"
    return place, _another_name(call, name)


def _starts_by_name(
    call: CallState,
    place: int,
    fragment: wire.ToolCallFragment,
    name: str,
    named: Container[int],
) -> bool:
    """Return whether a name without an id starts a new call, and does not say this one again."""
    is_new = place in named
    if call.name is None or not (is_new or is_whole(call)):
        return False
    text = _text_of(fragment)
    # vLLM and OpenCodex send the whole call again at the end.
    is_same = _is_called(call, name) and (not text or _is_repeated(call, text))
    return is_new or not is_same


def reachable(calls: CallsState, fragments: Iterable[wire.ToolCallFragment]) -> Iterator[int]:
    """Yield the place of each call that fragments may go to."""
    if calls.items:
        yield from (calls.last, len(calls.items) - 1)
    for fragment in fragments:
        index, id_ = fragment.index, fragment.id
        held = None if index is None else calls.by_index.get(index)
        known = calls.by_id.get(id_) if id_ else None
        both = calls.by_both.get(f"{index} {id_}")
        yield from (place for place in (held, known, both) if place is not None)


def _name_of(fragment: wire.ToolCallFragment) -> str:
    function, custom = fragment.function, fragment.custom
    name = function.name if function is not None else None
    return name or (custom.name if custom is not None else None) or ""


def _text_of(fragment: wire.ToolCallFragment) -> str:
    function, custom = fragment.function, fragment.custom
    text = function.arguments if function is not None else None
    return text or (custom.input if custom is not None else None) or ""


def _is_called(call: CallState, name: str) -> bool:
    return call.name is not None and call.name.equals(name)


def _is_repeated(call: CallState, text: str) -> bool:
    """Return whether a text is the same JSON as the call's arguments or input."""
    known = call.named.text
    if not isinstance(known, ArgumentsText):
        known = ArgumentsText("" if known is None else str(known))
    return known.is_repeated_by(text)


def _another_name(call: CallState, name: str) -> str | None:
    """Return a warning if a name comes after arguments and is not the one so far: perhaps another
    call's.
    """
    if name and call.named.text and call.name is not None and not call.name.equals(name):
        return f"another name {brief(name)}, but no id that starts a new call"
    return None


def is_whole(call: CallState) -> bool:
    """Return whether the arguments so far are one JSON object or list, or null; a custom call is
    whole once it has input.
    """
    text = call.named.text
    return text.is_whole() if isinstance(text, ArgumentsText) else bool(text)
