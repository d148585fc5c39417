"""Find what a chunk would append to and replace, on a copy of the state or without one."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from operator import attrgetter
from typing import Any, cast

from msgspec import Struct

from .._decode import chunk as wire
from .._decode.chunk import JsonObject
from .._decode.objects import head_of
from .._decode.text import Text
from ..errors import ProblemKind
from .json_merge import IndexedList
from .problem_log import ProblemLog
from .state import CallsState, ChoiceState, State

_MOST_VALUES = 50  # a bound on what a copy costs
_SCALARS = frozenset({str, int, float, bool, type(None)})


class Slot:
    """A field of merged JSON whose number or string each chunk replaces."""

    __slots__ = ("_name", "_of")

    def __init__(self, of: JsonObject, name: str) -> None:
        self._of = of
        self._name = name

    def append(self, value: object) -> None:
        """Replace the value."""
        self._of[self._name] = value

    def extend(self, values: list[Any]) -> None:
        """Replace the value by the last of several."""
        self.append(values[-1])


Target = Text | list[Any] | Slot


class Rehearsal:
    """A copied state, to which a chunk is applied twice.

    Raises TypeError for a value that cannot be copied, ValueError for too many values.
    """

    __slots__ = ("_before", "_copies", "_count", "state")

    def __init__(self, state: State) -> None:
        # What may change, its copy, and how many entries the copy has.
        self._copies: list[tuple[Any, Any, int]] = []
        self._count = 0
        self.state = cast("State", self._copy(state))
        self._before = repr(self.state)  # for a text it shows which one it is, not what it says

    def changes(self) -> list[tuple[Target, str | int]]:
        """Return each target that the chunk changed, and the string or integer that it brought.

        Raises ValueError or LookupError if the chunk did anything else, or not the same each time.
        """
        found: list[tuple[Target, str | int]] = []
        for kept, copied, size in self._copies:
            if isinstance(copied, dict):
                for name, value in copied.items():
                    if type(value) in (int, str) and value != kept[name]:
                        found.append((Slot(kept, name), value))
                        copied[name] = kept[name]
                continue
            if isinstance(copied, list):
                brought, copied[size:] = copied[size:], []
            else:
                twice = str(copied)
                half = len(twice) // 2
                brought = [twice[:half], twice[half:]] if twice else []
            if brought:
                once, again = brought
                if once != again or type(once) not in (int, str):
                    raise ValueError("the chunk does not append the same each time")
                found.append((kept, once))
        if repr(self.state) != self._before:
            raise ValueError("the chunk does more than append and replace")
        return found

    def _copy(self, value: Any) -> Any:
        if type(value) in _SCALARS:
            return value
        if isinstance(value, Struct):
            self._count_values(1)
            copied: Any = copy(value)
            for name in copied.__struct_fields__:
                field = getattr(copied, name)
                if type(field) not in _SCALARS:  # most are, and need no call
                    setattr(copied, name, self._copy(field))
            return copied
        if isinstance(value, IndexedList):
            self._count_values(len(value.entries))
            return IndexedList([*map(self._copy, value.entries)], value.places.copy())
        if isinstance(value, Text):
            copied = type(value)()
        elif isinstance(value, dict):
            self._count_values(len(value))
            copied = type(value)({name: self._copy(item) for name, item in value.items()})
        elif isinstance(value, list):
            # After a number no earlier entry matters, and there may be many token ids.
            tail = value[-1:] if value and type(value[-1]) in (int, float) else value
            self._count_values(len(tail))
            copied = type(value)(map(self._copy, tail))
        else:
            raise TypeError(f"{type(value).__name__} cannot be copied")
        self._copies.append((value, copied, 0 if isinstance(value, Text) else len(copied)))
        return copied

    def _count_values(self, count: int) -> None:
        self._count += count
        if self._count > _MOST_VALUES:
            raise ValueError("too much to copy")


class RefusingLog(ProblemLog):
    """Raises ValueError for a problem instead of recording it."""

    def report(
        self, kind: ProblemKind, message: str, path: str | None = None, detail: object = None
    ) -> None:
        """Raise ValueError."""
        raise ValueError(message)


# --- without a copy, for what the API names -------------------------------------------------------
# The reducer is not involved: every reason why a chunk would do more than append is checked here.

rest_of = attrgetter("usage", "extra", "moderation", "misfits")
_more_of_choice = attrgetter("logprobs", "finish_reason", "usage", "text", "extra")
_more_of_delta = attrgetter(
    "extra", "parts", "audio", "annotations", "function_call", "reasoning_details"
)


def texts_of(state: State, chunk: wire.Chunk, head: object) -> list[tuple[Text, str]]:
    """Return each text that a chunk with this head would append to, and what it would append.

    Raises ValueError if it brings anything but fragments of texts of the API.
    """
    if head_of(chunk) != head or any(part is not None for part in rest_of(chunk)):
        raise ValueError("the chunk brings more than choices")
    found: list[tuple[Text | None, str]] = []
    for choice in chunk.choices or ():
        into, delta = state.choices.get(choice.index), choice.delta  # type: ignore[arg-type]  # None is not a key
        if into is None or into.finish_reason or delta is None:
            raise ValueError("the choice is not going on")
        more = (*_more_of_choice(choice), *_more_of_delta(delta))
        if more.count(None) != len(more) or (delta.role and not into.role):
            raise ValueError("the choice brings more than texts")
        found += _texts_of_delta(into, delta)
    texts = [(text, fragment) for text, fragment in found if text is not None]
    if len({id(text) for text, _ in texts}) < len(found):
        raise ValueError("a text that has not begun, or one that comes twice")
    return texts


def _texts_of_delta(into: ChoiceState, delta: wire.Delta) -> Iterator[tuple[Text | None, str]]:
    for text, fragment in (
        (into.content, delta.content),
        (into.refusal, delta.refusal),
        (into.reasoning, delta.reasoning),
        (into.reasoning_content, delta.reasoning_content),
    ):
        if fragment is not None:
            yield text, fragment
    for call in delta.tool_calls or ():
        arguments = "" if call.function is None else call.function.arguments or ""
        # The call as it would be with no other fields.
        bare = type(call)(call.index, function=wire.FunctionFragment(None, arguments))
        yield _open_arguments(into.calls, call.index) if call == bare else None, arguments


def _open_arguments(calls: CallsState | None, index: int | None) -> Text | None:
    """Return the arguments of the call that the last fragment went to, if it holds this index and
    they are not whole.
    """
    if calls is None or index is None or calls.by_index.get(index) != calls.last:
        return None
    function = calls.items[calls.last].function
    text = None if function is None else function.text
    return text if text is not None and text.accepts("x") else None
