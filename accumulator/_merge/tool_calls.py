"""Which tool call a fragment belongs to: servers number and name them (SPEC section 4)."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from typing import Literal

from msgspec import Struct, field

from .._decode import chunk as wire
from .._decode.chunk import JsonObject
from .._decode.text import Text
from .arguments import BLANKS, ArgumentsText

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

Tool = Literal["function", "custom"]


class FunctionState(Struct, omit_defaults=True, repr_omit_defaults=True):
    """A function or custom tool as named so far; `text` is its arguments or its input."""

    name: Text | None = None
    text: Text | None = None  # an `ArgumentsText` of a function
    extra: JsonObject | None = None

    @property
    def came(self) -> bool:
        """Whether anything of it arrived, be it empty."""
        return self.name is not None or self.text is not None or bool(self.extra)


class CallState(Struct, omit_defaults=True, repr_omit_defaults=True):
    """A tool call. `order` is where it stands among the calls: its first index, if it has one.

    It holds each index by which a fragment reached it: `index` is the first, `more` are the others.
    `judged` says that arguments that are no JSON were reported, if they are none.
    """

    order: int
    id: str | None = None
    type: str | None = None
    function: FunctionState | None = None
    custom: FunctionState | None = None
    extra: JsonObject | None = None
    index: int | None = None
    more: dict[int, bool] | None = None
    judged: bool = False

    def indices(self) -> Iterator[int]:
        """Yield each index that it holds."""
        if self.index is not None:
            yield self.index
        yield from self.more or ()

    @property
    def named(self) -> FunctionState:
        # Of a call that is both, what has arguments tells more.
        function, custom = self.function, self.custom
        if custom is not None and (function is None or (custom.text and not function.text)):
            return custom
        return function or FunctionState()

    @property
    def name(self) -> Text | None:
        """The name of the function, else of the custom tool; None if there is none yet."""
        for tool in (self.function, self.custom):
            if tool is not None and tool.name:
                return tool.name
        return None

    def tools(self) -> Iterator[tuple[Tool, FunctionState]]:
        """Yield the tools that it names: an empty one beside the other is nothing."""
        function, custom = self.function, self.custom
        if function is not None and (function.came or custom is None or not custom.came):
            yield "function", function
        if custom is not None and (custom.came or function is None or not function.came):
            yield "custom", custom


class CallsState(Struct, omit_defaults=True, repr_omit_defaults=True):
    """The calls of a choice in order of arrival, and the place of the newest that has an id or
    holds an index. `last` is the place of the one that a fragment went to last. Of an id that
    several calls have, `shared` has the place of the newest that holds an index.
    """

    items: list[CallState] = field(default_factory=list)
    by_id: dict[str, int] = field(default_factory=dict)
    by_index: dict[int, int] = field(default_factory=dict)
    last: int = -1
    shared: dict[str, dict[int, int]] | None = None

    def hold(self, place: int, index: int) -> None:
        """Note that a fragment reached a call by an index."""
        call = self.items[place]
        if call.index is None:
            call.index = index
        elif call.index == index:
            return
        elif call.more is None:
            call.more = {index: True}
        else:
            call.more[index] = True
        _raise(self.by_index, index, place)
        if self.shared is not None and call.id in self.shared:
            _raise(self.shared[call.id], index, place)

    def identify(self, place: int, id_: str) -> None:
        """Note the id of a call."""
        call = self.items[place]
        call.id = id_
        if not id_:
            return
        known = self.by_id.get(id_, place)
        self.by_id[id_] = max(known, place)
        if known == place:
            return
        if self.shared is None:
            self.shared = {}
        places = self.shared.get(id_)
        if places is None:
            places = self.shared[id_] = dict.fromkeys(self.items[known].indices(), known)
        for index in call.indices():
            _raise(places, index, place)


def _raise(places: dict[int, int], index: int, place: int) -> None:
    places[index] = max(places.get(index, place), place)


def find_call(
    calls: CallsState, fragment: wire.ToolCallFragment, named: Container[int] = ()
) -> tuple[int | None, str | None]:
    """Find the call that a fragment belongs to, None for a new one, and say why that is a
    guess, if it is. `named` are the calls that got their name from this list of `tool_calls`.
    """
    id_, index = fragment.id, fragment.index
    name = _name_of(fragment)
    held = None if index is None else calls.by_index.get(index)
    known = calls.by_id.get(id_) if id_ else None
    if known is not None:
        at_free_index = index is not None and held is None
        place = known
        if index is not None and calls.shared is not None:
            place = calls.shared.get(fragment.id or "", {}).get(index, known)
        # Gemini's fragments change their index on the way. Other servers give every call of an
        # answer the same id.
        starts = name and _is_another_of_its_id(calls, place, name, named, at_free_index)
        return (None if starts else place), None
    if index is None:
        return _find_without_index(calls, fragment, name, named)
    if held is not None:
        return _find_at_index(calls, held, fragment, name, named)
    # SGLang before 0.4.7 and LibreChat's Bedrock send head and arguments under two indices.
    goes_on = not id_ and not name and calls.items and not is_whole(calls.items[-1])
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
) -> tuple[int | None, str | None]:
    """Find the call of a fragment whose index a call holds, and whose id is not known."""
    call, id_ = calls.items[place], fragment.id
    if id_ and call.id:
        if name and _may_be_followed(call, name):
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
) -> tuple[int | None, str | None]:
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


def count_new(calls: CallsState, fragments: Iterable[wire.ToolCallFragment]) -> int:
    """Count the calls that the fragments of one delta may open: never too few, and too many
    only where several of them bring a name, or arguments become whole on the way.
    """
    count = 0
    opened: set[int | str | None] = set()
    changed: set[int] = set()  # calls that earlier fragments have named or made whole, perhaps
    closes = False  # whether these may have made any call whole
    for fragment in fragments:
        id_, index, name = fragment.id or None, fragment.index, _name_of(fragment)
        keys = {id_, index} - {None} or {None}
        place, _ = find_call(calls, fragment)
        # Where nobody holds the index it goes on with the newest call, unless that is whole.
        goes_on = not id_ and not name and index is not None and index not in calls.by_index
        is_known = not keys.isdisjoint(opened)
        if place is not None:
            count += (place in changed or is_known) if name else goes_on and closes
            changed.add(place)
        elif name or not is_known:
            count += not (goes_on and opened) or closes
            opened.add(None)
        if place is None or goes_on:
            opened |= keys
        closes = closes or any(closer in _text_of(fragment) for closer in "}]l")
        closes = closes or fragment.custom is not None
    return count


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
    """Say so if a name comes after arguments and is not the one so far: perhaps another call's."""
    if name and call.named.text and call.name is not None and not call.name.equals(name):
        return f"another name {brief(name)}, but no id that starts a new call"
    return None


def is_whole(call: CallState) -> bool:
    """Return whether the arguments so far are one JSON object or list, or null; a custom call is
    whole once it has input.
    """
    text = call.named.text
    return text.is_whole() if isinstance(text, ArgumentsText) else bool(text)


def _may_be_followed(call: CallState, name: str) -> bool:
    """Return whether a fragment with another id and this name starts a new call."""
    return is_whole(call) if call.named.text else not _is_called(call, name)


def brief(value: object, most: int = 100) -> str:
    """Show a value in a message, not more than so many characters of it."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes out
        text = f"too long to be shown ({type(value).__name__})"
    return text if len(text) <= most else text[: most - 3] + "..."
