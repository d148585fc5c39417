"""Find the tool call that a fragment belongs to, by its index, id and name (SPEC section 4)."""

from __future__ import annotations

from collections.abc import Container

from .._decode import chunk as wire
from .arguments import BLANKS, ArgumentsText
from .problem_log import brief
from .state import CallsState, CallState

Found = tuple[int | None, str | None]


def find_call(
    calls: CallsState, fragment: wire.ToolCallFragment, named: Container[int] = ()
) -> Found:
    """Return the place of the call that a fragment belongs to, None for a new one, and why that is
    a guess, if it is one. `named` are the calls that got their name from this list of `tool_calls`.
    """
    index, id_ = fragment.index, fragment.id
    name, text = _said_by(fragment)
    held = calls.by_index.get(index)  # type: ignore[arg-type]  # None is not a key
    is_free = index is not None and held is None
    known = calls.by_id.get(id_ or "")
    if known is not None:
        known = calls.by_both.get(f"{index} {id_}", known)
        starts = _starts_by_id(calls.items[known], name, named_here=known in named, is_free=is_free)
        return (None if starts else known), None
    if is_free:
        # SGLang before 0.4.7 and LibreChat's Bedrock send head and arguments under two indices.
        return (None if id_ or name else _newest_open(calls)), None
    place = calls.last if held is None else held
    if place < 0 or (held is None and id_):
        return None, None
    call = calls.items[place]
    if id_:
        return _find_by_new_id(call, place, fragment, name)
    if _starts_by_name(call, name, text, named_here=place in named):
        return None, None
    return _find_without_id(calls, place, index, name, text)


def _starts_by_id(call: CallState, name: str, *, named_here: bool, is_free: bool) -> bool:
    """Return whether a fragment with the id of a known call starts a new one. Some servers give
    every call of an answer the same id, and Gemini's fragments change their index on the way.

    `named_here` says that the call got its name from this list, `is_free` that no call holds the
    fragment's index.
    """
    is_other = named_here and not _is_called(call, name)
    return bool(name) and (is_other or ((named_here or is_free) and is_whole(call)))


def _find_by_new_id(
    call: CallState, place: int, fragment: wire.ToolCallFragment, name: str
) -> Found:
    """Find the call of a fragment with a new id and an index that this call holds."""
    if not call.id:
        return place, None
    if name and (is_whole(call) if call.named.text else not _is_called(call, name)):
        return None, None  # Gemini numbers every parallel call 0
    # vLLM made up a new id for every fragment of a call.
    why = f"a new id {brief(fragment.id)} at index {fragment.index}, but nothing starts a new call"
    return place, why


def _starts_by_name(call: CallState, name: str, text: str, *, named_here: bool) -> bool:
    """Return whether a name without an id starts a new call rather than repeats this one.

    Some servers number every call 0 and send no ids; mlx sends whole calls with null ids at once.
    """
    if not name or call.name is None or not (named_here or is_whole(call)):
        return False
    # vLLM and OpenCodex send the complete call again at the end.
    return named_here or not (_is_called(call, name) and (not text or _is_repeated(call, text)))


def _find_without_id(
    calls: CallsState, place: int, index: int | None, name: str, text: str
) -> Found:
    """Find the call of a fragment that does not start one: the one at `place`, except that SGLang
    sends the arguments of all calls at index 0.
    """
    call, newest = calls.items[place], _newest_open(calls)
    if index is None and len(calls.items) > 1:
        return place, "neither id nor index while several calls are open"
    if name:
        is_other = call.name is not None and not _is_called(call, name)
        why = f"another name {brief(name)}, but no id that starts a new call"
        return place, why if is_other and call.named.text else None
    is_other = newest is not None and bool(text.strip(BLANKS)) and is_whole(call)
    is_again = is_other and call.named is call.function and _is_repeated(call, text)
    return (newest if is_other and not is_again else place), None


def _newest_open(calls: CallsState) -> int | None:
    """Return the place of the call opened last, if it is not whole."""
    return len(calls.items) - 1 if calls.items and not is_whole(calls.items[-1]) else None


def _said_by(fragment: wire.ToolCallFragment) -> tuple[str, str]:
    """Return the name in a fragment, and its arguments or input."""
    function, custom = fragment.function, fragment.custom
    if custom is None:
        return ("", "") if function is None else (function.name or "", function.arguments or "")
    function = function or wire.FunctionFragment()
    return function.name or custom.name or "", function.arguments or custom.input or ""


def _is_called(call: CallState, name: str) -> bool:
    return call.name is not None and call.name.equals(name)


def _is_repeated(call: CallState, text: str) -> bool:
    """Return whether a text is the same JSON as the call's arguments or input."""
    known = call.named.text
    if not isinstance(known, ArgumentsText):
        known = ArgumentsText("" if known is None else str(known))
    return known.is_repeated_by(text)


def is_whole(call: CallState) -> bool:
    """Return whether the arguments so far are one JSON object or list, or null; a custom call is
    whole once it has input.
    """
    text = call.named.text
    return text.is_whole() if isinstance(text, ArgumentsText) else bool(text)
