"""A copy of a state to try a chunk on, with an empty text in place of each."""

from __future__ import annotations

from copy import copy
from typing import cast

from msgspec import Struct

from .._decode.text import Text
from ..errors import ProblemKind
from .json_merge import IndexedList
from .problem_log import ProblemLog
from .state import State

__all__ = ["RefusingLog", "Rehearsal"]

_MOST_VALUES = 500  # objects, lists and texts: a bound on what a copy costs
_SCALARS = (str, int, float, bool, type(None))


class Rehearsal:
    """A copied state; `texts` are the original's texts, each with the one that stands for it.

    Raises TypeError for a value that is not copied, ValueError for too many of them.
    """

    __slots__ = ("_count", "state", "texts")

    def __init__(self, state: State) -> None:
        self.texts: list[tuple[Text, Text]] = []
        self._count = 0
        self.state = cast("State", self._copy(state))

    def describe(self) -> str:
        """Return all that the copy holds, but for the letters of its texts."""
        return repr(self.state)  # of a text it shows which one it is

    def grown(self) -> list[tuple[Text, str]]:
        """Return each text that a chunk appended to when it was applied twice, and what.

        Raises ValueError if that was not the same each time.
        """
        found: list[tuple[Text, str]] = []
        for text, stand_in in self.texts:
            twice = str(stand_in)
            once = twice[: len(twice) // 2]
            if once * 2 != twice:
                raise ValueError("the chunk does not append the same each time")
            if once:
                found.append((text, once))
        return found

    def _copy(self, value: object) -> object:
        if type(value) in _SCALARS:
            return value
        self._count += 1
        if self._count > _MOST_VALUES:
            raise ValueError("too much to copy")
        if isinstance(value, Text):
            stand_in = type(value)()
            self.texts.append((value, stand_in))
            return stand_in
        if isinstance(value, Struct):
            copied = copy(value)
            for name in copied.__struct_fields__:
                field = getattr(copied, name)
                if type(field) not in _SCALARS:  # most are: asked here, it is no call for each
                    setattr(copied, name, self._copy(field))
            return copied
        if isinstance(value, dict):
            return type(value)({name: self._copy(item) for name, item in value.items()})
        if isinstance(value, list):
            return type(value)(map(self._copy, value))
        if isinstance(value, IndexedList):
            return IndexedList([*map(self._copy, value.entries)], value.places.copy())
        raise TypeError(f"{type(value).__name__} is not copied")


class RefusingLog(ProblemLog):
    """Raises ValueError for a problem, in place of recording it."""

    __slots__ = ()

    def report(
        self, kind: ProblemKind, message: str, path: str | None = None, detail: object = None
    ) -> None:
        """Raise ValueError."""
        raise ValueError(message)
