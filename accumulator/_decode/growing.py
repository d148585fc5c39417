"""A text that is still growing, as it was at an earlier time: what events look back on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from ..partial import PartialJson
from .text import Text

__all__ = ["Growing", "Later", "Then"]

T = TypeVar("T")


class Growing:
    """Gives a text as it was at any length. Texts only grow, so a length is a point in time."""

    __slots__ = ("_partial", "_pushed", "text")

    def __init__(self, text: Text | None = None) -> None:
        self.text = text
        self._partial: PartialJson | None = None  # made once somebody looks
        self._pushed = 0  # how much of the text it has

    def until(self, length: int) -> str:
        return str(self.text)[:length] if length else ""

    def parsed(self, length: int, fragment: str) -> object:
        """Give what is known of the JSON text at a length, where it ended in `fragment`.

        Whoever looks at every event in turn pays for each fragment once. Looking back at an
        earlier one starts afresh.
        """
        partial = self._partial
        if partial is None or length < self._pushed:
            partial = PartialJson()
            partial.push(self.until(length))
            if length < self._pushed:
                return partial.value
            self._partial = partial
        elif self._pushed == length - len(fragment):
            partial.push(fragment)
        else:
            partial.push(self.until(length)[self._pushed :])
        self._pushed = length
        return partial.value


class Then:
    """A growing text at one time: its first `length` characters. Equal to the same text."""

    __slots__ = ("growing", "length")

    def __init__(self, growing: Growing, length: int) -> None:
        self.growing = growing
        self.length = length

    def __str__(self) -> str:
        return self.growing.until(self.length)

    def __repr__(self) -> str:
        return f"<{self.length} characters>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Then) and str(self) == str(other)

    __hash__ = None  # type: ignore[assignment]  # by whose text is not known before it is looked at


class Later(Generic[T]):
    """A value that is put together when it is called for. Equal to the same value."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make

    def __call__(self) -> T:
        return self._make()

    def __repr__(self) -> str:
        return "..."

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Later) and self() == other()

    __hash__ = None  # type: ignore[assignment]  # as above
