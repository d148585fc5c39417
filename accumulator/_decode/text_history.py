"""A growing text as it was at an earlier time, and the events that look back at one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from msgspec import Struct

from ..partial import PartialJson
from .text import Text


class TextHistory:
    """A text that can be read as it was at any earlier length.

    It reads the text of the state, so nothing is copied. Content that comes in parts has several
    texts there; from the second on this keeps a copy of its own.
    """

    __slots__ = ("_partial", "_read", "_taken", "length", "text")

    def __init__(self) -> None:
        self.length = 0
        self.text: Text | None = None
        self._taken: dict[Text, int] | None = None  # characters of each, once there are several
        self._partial: PartialJson | None = None  # made when `parsed` is called
        self._read = 0  # characters that `_partial` has

    def take(self, text: Text) -> str:
        """Return what came to a text since it was taken last, and add that to this one."""
        whole, own, taken = str(text), self.text, self._taken
        if taken is None and own is not None and own is not text:
            taken = self._taken = {own: self.length}
            own = self.text = Text(self.until(self.length))
        if taken is None or own is None:
            self.text, fragment = text, whole[self.length :]
        else:
            fragment, taken[text] = whole[taken.get(text, 0) :], len(whole)
            own.append(fragment)
        self.length += len(fragment)
        return fragment

    def until(self, length: int) -> str:
        """Return the text as it was at a length."""
        return str(self.text)[:length] if length else ""

    def parsed(self, length: int, fragment: str) -> object:
        """Return what is known of the JSON text at a length, when it ended in `fragment`.

        If every event is read in turn, each fragment is parsed once. For an earlier event the text
        is parsed from its start.
        """
        partial = self._partial
        if partial is None or length < self._read:
            partial = PartialJson(self.until(length))
            if length < self._read:
                return partial.value
            self._partial = partial
        elif self._read == length - len(fragment):
            partial.push(fragment)
        else:
            partial.push(self.until(length)[self._read :])
        self._read = length
        return partial.value


# --- events that look back ----------------------------------------------------------------


# No event can be in a cycle: it is made after all that it refers to.
class EventBase(Struct, frozen=True, gc=False):
    """What all events have in common: `repr` shows no private field."""

    def __repr__(self) -> str:
        shown = [
            f"{name}={getattr(self, name)!r}"
            for name in self.__struct_fields__
            if not name.startswith("_") and name != "snapshot"
        ]
        return f"{type(self).__name__}({', '.join([*shown, *self._brief()])})"

    def _brief(self) -> Sequence[str]:
        """Return what `repr` shows of the values that are put together when looked at."""
        return ()


class LookingBack(EventBase, frozen=True, gc=False):
    """An event with values that are put together when looked at, by the names in `_VALUES`. Equal
    to one with the same values, however they are kept.
    """

    _VALUES: ClassVar[tuple[str, ...]] = ("snapshot",)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LookingBack) or type(self) is not type(other):
            return False
        return self._public() == other._public()

    def __hash__(self) -> int:
        raise TypeError(f"{type(self).__name__} has no hash: putting its values together is slow")

    def _public(self) -> list[object]:
        fields = [name for name in self.__struct_fields__ if not name.startswith("_")]
        return [getattr(self, name) for name in (*fields, *self._VALUES)]


class TextDelta(LookingBack, frozen=True, gc=False):
    choice_index: int
    delta: str
    _history: TextHistory
    _length: int

    @property
    def snapshot(self) -> str:
        """The whole text so far, this delta included."""
        return self._history.until(self._length)

    def _brief(self) -> Sequence[str]:
        return (f"snapshot=<{self._length} characters>",)


class CallDelta(TextDelta, frozen=True, gc=False):
    _VALUES = ("snapshot", "name")

    index: int
    id: str | None
    _name: TextHistory | None
    _name_length: int

    @property
    def name(self) -> str | None:
        """The function's or tool's name so far."""
        return None if self._name is None else self._name.until(self._name_length)
