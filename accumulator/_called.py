"""A method that says so when somebody forgets to call it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar, cast

F = TypeVar("F", bound=Callable[..., object])


def to_be_called(function: F) -> F:
    """Return a method that must be called: reading its attributes raises an error that says so."""
    return cast("F", _Called(function))


class _Called(partial[object]):
    def __get__(self, owner: object, kind: type) -> Callable[..., object]:
        return self.func if owner is None else _Called(self.func, owner)

    def __getattr__(self, name: str) -> object:
        call = f"{self.func.__name__}()"
        message = f"{call} is a method, so what it returns has {name!r}: write {call}.{name}"
        raise AttributeError(message, name=name, obj=self)
