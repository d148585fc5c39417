"""Tool calls as the fragments that add up to them again (SPEC section 4)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import cast

import attrs

from ._result.convert import JsonObject, copy_json, names_of
from .completion import ToolCall
from .partial import is_complete

__all__ = ["Cut", "cut_arguments", "objects_of", "split_calls", "split_extra"]

Cut = Callable[[str], list[str]]
_BLANKS = " \t\r\n"


def split_extra(
    extra: Mapping[str, object], names: Collection[str]
) -> tuple[list[JsonObject], JsonObject]:
    """Divide extra fields into those that need an object of their own, one each, and the rest."""
    ours = {name: copy_json(value) for name, value in extra.items()}
    alone = [{name: value} for name, value in ours.items() if name in names]
    return alone, {name: value for name, value in ours.items() if name not in names}


def objects_of(value: attrs.AttrsInstance, names: Sequence[str] = ()) -> list[JsonObject]:
    """Return the objects that merge to an instance: what is well-typed with the extras, then what
    is not, one by one.
    """
    objects: JsonObject = {}
    alone: list[JsonObject] = []
    for name in names_of(type(value)):
        item = getattr(value, name)
        if attrs.has(type(item)):
            objects[name], *rest = objects_of(item)
            alone.extend({name: more} for more in rest)
        elif item is not None:
            objects[name] = item
    misfits, together = split_extra(value.extra, [*names_of(type(value)), *names])  # type: ignore[attr-defined]  # all have it
    return [{**objects, **together}, *misfits, *alone]


def cut_arguments(text: str, cut: Cut) -> list[str]:
    """Cut arguments into pieces; into one if more follows what is whole, which would else be a
    repetition, or take the place of what was a placeholder.
    """
    until = _shortest_whole(text)
    return [text] if until and text[until:].strip(_BLANKS) else cut(text)


def split_calls(calls: Sequence[ToolCall], cut: Cut) -> Iterator[list[JsonObject]]:
    """Yield the fragments of all calls in lists, each with the index at which its call stands."""
    order = _opening_order(calls)
    held_back: list[JsonObject] = []
    opened: list[JsonObject] = []
    waiting: list[JsonObject] = []
    for turn, place in enumerate(order):
        call = calls[place]
        opening, *alone = objects_of(call, ["index"])
        texts = []
        for kind, name in (("function", "arguments"), ("custom", "input")):
            named = getattr(call, kind)
            text = None if named is None else getattr(named, name)
            if text is not None:
                opening[kind] = {**cast("JsonObject", opening[kind]), name: ""}
                texts.append((kind, name, text))
        opened.append({"index": place, **opening})
        # A misread index names no call: such a fragment goes to the call of the last one.
        waiting += [{"index": place, **fields} for fields in alone]
        shared = any(calls[later].id == call.id for later in order[turn + 1 :]) and call.id
        for kind, name, text in texts:
            until = len(text)
            if shared:
                until = _shortest_whole(text) if kind == "function" else 1
            pieces = cut_arguments(text[:until], cut) if kind == "function" else cut(text[:until])
            waiting += [{"index": place, kind: {name: piece}} for piece in pieces]
            # By its id, because by its index it could be taken for more of the newest call.
            rest = [text[until:]] if kind == "function" and text[until:] else cut(text[until:])
            held_back += [{"index": place, "id": call.id, kind: {name: piece}} for piece in rest]
        if shared and not _may_be_whole(call):
            continue  # the next call with its id is told from it by standing in one list with it
        yield opened
        yield from ([fragment] for fragment in waiting)
        opened, waiting = [], []
    yield from ([fragment] for fragment in held_back)


def _opening_order(calls: Sequence[ToolCall]) -> list[int]:
    """Return the order in which calls can be opened.

    A second call with an id is told from more of the first by its name, and by the first one's
    arguments, which have to be whole.
    """
    order = list(range(len(calls)))
    places: dict[str, list[int]] = {}
    for place, call in enumerate(calls):
        if call.id:
            places.setdefault(call.id, []).append(place)
    for shared in places.values():
        if len(shared) > 1:
            best = sorted(shared, key=lambda place: _rank(calls[place]))
            for slot, place in zip(shared, best, strict=True):
                order[slot] = place
    alone = [place for place in order if len(places.get(calls[place].id or "", ())) < 2]
    return [*_unnamed_first(calls, alone), *(place for place in order if place not in alone)]


def _unnamed_first(calls: Sequence[ToolCall], order: list[int]) -> list[int]:
    """Put in front the calls with neither id nor name: each is told from more of the one opened
    before it by that one being whole.
    """
    unnamed = [p for p in order if not (calls[p].id or _name_of(calls[p]))]
    whole = [place for place in unnamed if _is_whole(calls[place])]
    open_ = [place for place in unnamed if place not in whole]
    between = [place for place in order if place not in unnamed and _is_whole(calls[place])]
    in_turn = [*whole, *open_]
    if len(open_) > 1:
        first, *others = open_
        apart = [place for pair in zip(others, between[1:], strict=False) for place in pair]
        in_turn = [first, *between[:1], *whole, *apart]
        in_turn += [place for place in others if place not in apart]
    return [*in_turn, *(place for place in order if place not in in_turn)]


def _rank(call: ToolCall) -> int:
    """Rank the calls of one id: one without a name has to be opened first, one that is not whole
    last.
    """
    if not _name_of(call):
        return 0
    return 1 if _may_be_whole(call) else 2


def _name_of(call: ToolCall) -> str | None:
    function, custom = call.function, call.custom
    name = None if function is None else function.name
    return name or (None if custom is None else custom.name)


def _is_whole(call: ToolCall) -> bool:
    arguments = None if call.function is None else call.function.arguments
    if not arguments:
        return _may_be_whole(call)
    until = _shortest_whole(arguments)
    return bool(until) and not arguments[until:].strip(_BLANKS)


def _may_be_whole(call: ToolCall) -> bool:
    """Return whether a call is whole as soon as a part of its text is there."""
    arguments = None if call.function is None else call.function.arguments
    if arguments:
        return bool(_shortest_whole(arguments))
    return call.custom is not None and bool(call.custom.input)


def _shortest_whole(text: str) -> int:
    """Return where the object, list or null ends with which a text begins; 0 for nowhere."""
    start = len(text) - len(text.lstrip(_BLANKS))
    if text[start : start + 1] not in ("{", "[", "n"):
        return 0
    import json  # noqa: PLC0415  # takes time to import

    try:
        _, end = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return 0
    return end if is_complete(text[:end]) else 0
