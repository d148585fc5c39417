"""What the classes of a result have in common, whatever their fields are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, TypeVar, overload

import attrs

from .convert import dicts_of, to_dict

__all__ = ["Fields", "LateSequence"]

T = TypeVar("T")
W = TypeVar("W")


@cache
def _shown(cls: type[attrs.AttrsInstance]) -> tuple[str, ...]:
    return tuple(field.name for field in attrs.fields(cls) if not field.name.startswith("_"))


class Fields:
    """Shows and compares its fields, what did not arrive left out, by one method for all classes:
    one for each, as attrs makes them, is a twentieth of the time that importing the package takes.
    """

    __slots__ = ()

    def _named(self) -> list[tuple[str, object]]:
        return [(name, getattr(self, name)) for name in _shown(type(self))]  # type: ignore[arg-type]  # each class is one

    def __repr__(self) -> str:
        shown = (
            f"{n}={value!r}" for n, value in self._named() if value is not None and value != {}
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fields) or type(self) is not type(other):
            return NotImplemented
        return self._named() == other._named()

    def __hash__(self) -> int:
        # Of the texts and numbers alone, because `extra` and parts of content cannot be hashed.
        plain = (value for _, value in self._named() if isinstance(value, (str, int, float)))
        return hash((type(self), *plain))

    def __iter__(self) -> Iterator[tuple[str, object]]:
        """Iterate over names and values in the API's shape, so that `dict(...)` has that shape.
        FastAPI writes an object so.
        """
        return iter(to_dict(self).items())

    if TYPE_CHECKING:
        pass  # with the method below an object has every attribute to a type checker
    else:

        def __getattr__(self, name: str) -> object:
            message = f"{type(self).__name__!r} object has no attribute {name!r}"
            if "extra" in _shown(type(self)) and name != "extra" and not name.startswith("_"):
                extra = self.extra
                has = f", which has {list(extra)}" if extra else ", which is empty"
                held = f": .extra[{name!r}]" if name in extra else has
                message += f"; what a server adds to the API is in `extra`{held}"
            raise AttributeError(message, name=name, obj=self)


class LateSequence(Sequence[T]):
    """A tuple whose entries are made when one is first looked at.

    `find` returns them as Structs, in which they came; `make` is called with each.
    """

    __slots__ = ("_find", "_length", "_made", "_make")

    def __init__(
        self, length: int, find: Callable[[], Sequence[W]], make: Callable[[W], T]
    ) -> None:
        self._length = length
        self._find = find
        self._make = make
        self._made: tuple[T, ...] | None = None

    def _all(self) -> tuple[T, ...]:
        if self._made is None:
            self._made = tuple(map(self._make, self._find()))
        return self._made

    def _as_dicts(self) -> list[dict[str, object]]:
        return dicts_of(self._find(), "top_logprobs")

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[T, ...]: ...
    def __getitem__(self, place: int | slice) -> T | tuple[T, ...]:
        return self._all()[place]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (LateSequence, tuple, list)):
            return NotImplemented
        return self._length == len(other) and self._all() == tuple(other)

    def __hash__(self) -> int:
        return hash(self._all())

    def __repr__(self) -> str:
        return repr(self._all())

    def __reduce__(self) -> tuple[object, ...]:
        return tuple, (list(self._all()),)
