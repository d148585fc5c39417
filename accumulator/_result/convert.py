"""The classes of a result, whatever their fields are, to dicts and back.

Nothing here names a class; everything goes by the fields of each. What has no field of its own is
in `extra`, and appears among the other fields in the dict. A None is left out, but written as null
for a field with `NULLABLE` metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args, get_origin, overload

import attrs
import msgspec
from cattrs import Converter, transform_error
from cattrs.gen import make_dict_structure_fn

T = TypeVar("T")
W = TypeVar("W")
JsonObject = dict[str, object]

NULLABLE = {"nullable": True}
# A vendor may use this name for a field of its own: a value that is not a string is the vendor's.
OR_VENDORS = {"or_vendors": True}
_SCALARS = frozenset({str, int, float, bool, NoneType})
_OBJECTS: tuple[object, ...] = (Mapping,)
_LISTS: tuple[object, ...] = (tuple, Sequence)


@cache
def names_of(cls: type) -> tuple[str, ...]:
    """Return the names of a class's API fields: without `extra`, and without private ones."""
    return tuple(n for n in attrs.fields_dict(cls) if n != "extra" and not n.startswith("_"))


@cache
def _marked(cls: type, mark: str) -> tuple[str, ...]:
    return tuple(name for name, field in attrs.fields_dict(cls).items() if mark in field.metadata)


class Fields:
    """Shows and compares fields, without those that did not arrive. One method serves all classes:
    one for each, as attrs makes them, would take a twentieth of the package's import time.
    """

    __slots__ = ()

    def _named(self) -> list[tuple[str, object]]:
        names = (*names_of(cast("Any", type(self))), "extra")
        return [(name, getattr(self, name, None)) for name in names]

    def __repr__(self) -> str:
        shown = (f"{n}={value!r}" for n, value in self._named() if value not in (None, {}))
        return f"{type(self).__name__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fields) or type(self) is not type(other):
            return NotImplemented
        return self._named() == other._named()

    def __hash__(self) -> int:
        # Only the texts and numbers, because `extra` and parts of content cannot be hashed.
        plain = (value for _, value in self._named() if isinstance(value, (str, int, float)))
        return hash((type(self), *plain))

    def __iter__(self) -> Iterator[tuple[str, object]]:
        """Iterate over names and values in the API's shape: FastAPI writes `dict(...)` of it."""
        return iter(to_dict(self).items())

    if not TYPE_CHECKING:  # to a type checker, an object with this method has every attribute

        def __getattr__(self, name: str) -> object:
            message = f"{type(self).__name__!r} object has no attribute {name!r}"
            if name != "extra" and not name.startswith("_") and hasattr(self, "extra"):
                extra = self.extra
                has = f", which has {list(extra)}" if extra else ", which is empty"
                held = f": .extra[{name!r}]" if name in extra else has
                message += f"; what a server adds to the API is in `extra`{held}"
            raise AttributeError(message, name=name, obj=self)


class LateSequence(Sequence[T]):
    """A tuple whose entries are only made when the first one is looked at.

    `find` returns the Structs in which they came; `make` turns each into an entry.
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

    def _as_dicts(self) -> list[JsonObject]:
        dicts: list[JsonObject] = msgspec.to_builtins(self._find())
        for token in dicts:
            for each in (*cast("list[JsonObject]", token.get("top_logprobs", ())), token):
                if "extra" in each:  # a vendor's field of that name is inside it
                    _add_extra(each, cast("JsonObject", each.pop("extra")))
        return dicts

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


def copy_json(value: object) -> object:
    """Copy a value of a result, with everything inside it, as builtins."""
    if type(value) in _SCALARS:
        return value
    if isinstance(value, Fields):
        return to_dict(value)
    if isinstance(value, LateSequence):
        return value._as_dicts()
    if isinstance(value, Mapping):
        return {key: copy_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [copy_json(item) for item in value]
    return value


def to_dict(value: Fields) -> JsonObject:
    """Convert an instance to a dict of builtins, as the API writes it."""
    kind: Any = type(value)
    nullable = _marked(kind, "nullable")
    out: JsonObject = {}
    for name in names_of(kind):
        item = getattr(value, name)
        if item is not None or name in nullable:
            out[name] = item if type(item) in _SCALARS else copy_json(item)
    if value.extra:  # type: ignore[attr-defined]  # every class that becomes JSON has it
        _add_extra(out, value.extra)  # type: ignore[attr-defined]  # as above
    return out


def _add_extra(fields: JsonObject, extra: Mapping[str, object]) -> None:
    """Add what is in `extra`, except where a name already has a value: that one is well-typed."""
    fields.update({n: copy_json(item) for n, item in extra.items() if fields.get(n) is None})


def objects_of(value: Fields, names: Sequence[str] = ()) -> list[JsonObject]:
    """Return the objects that merge to an instance. A field of `extra` whose name is taken, by a
    field of the class or one of `names`, has an object of its own.
    """
    own = names_of(cast("Any", type(value)))
    objects: JsonObject = {}
    alone: list[JsonObject] = []
    for name in own:
        item = getattr(value, name)
        if isinstance(item, Fields):
            objects[name], *rest = objects_of(item)
            alone.extend({name: more} for more in rest)
        elif item is not None:
            objects[name] = copy_json(item)
    extra: JsonObject = {n: copy_json(item) for n, item in value.extra.items()}  # type: ignore[attr-defined]  # all have it
    misfits = [{name: extra.pop(name)} for name in (*own, *names) if name in extra]
    return [{**objects, **extra}, *misfits, *alone]


def from_dict(data: Mapping[str, object], cls: type[T]) -> T:
    """Build an instance from a dict in the API's shape. Raises ValueError, naming each misfit."""
    try:
        return _converter().structure(data, cls)
    except Exception as error:
        raise ValueError("; ".join(transform_error(error, "$", _in_words))) from error


def _in_words(error: BaseException, kind: type | None) -> str:
    is_missing = isinstance(error, KeyError)
    return f"required field {error} is missing" if is_missing else str(error)


def _reader_of(cls: Any) -> Callable[[object, object], object]:
    names, shared = names_of(cls), _marked(cls, "or_vendors")
    build = make_dict_structure_fn(cls, _converter())

    def read(value: object, _: object) -> object:
        known: JsonObject = {}
        extra: JsonObject = {}
        for name, item in _exact(value, dict).items():
            if name not in names or (name in shared and not isinstance(item, (str, NoneType))):
                extra[name] = copy_json(item)
            elif item is not None:
                known[name] = item
        return build({**known, "extra": extra}, cls)

    return read


def _exact(value: object, kind: type[T]) -> T:
    """Return a value if it has the type. Cattrs would turn the number 5 into "5"."""
    return value if type(value) is kind else msgspec.convert(value, kind)


def _read_list(value: object, kind: object) -> object:
    entries: Any = list[get_args(kind)[0]]  # type: ignore[misc]  # a type at run time
    return tuple(_converter().structure(_exact(value, list), entries))


def _read_content(value: object, _: object) -> object:
    content = value if type(value) is str else msgspec.convert(copy_json(value), str | list)
    return content if isinstance(content, str) else tuple(content)


@cache
def _converter() -> Converter:
    """Return the converter for these classes. Making it takes as long as importing a module."""
    converter = Converter()
    for kind in (str, int, float):
        converter.register_structure_hook(kind, _exact)
    add = converter.register_structure_hook_func
    add(lambda kind: kind is object, lambda value, _: copy_json(value))
    add(lambda kind: get_origin(kind) in _OBJECTS, lambda value, _: copy_json(_exact(value, dict)))
    add(lambda kind: get_origin(kind) in _LISTS, _read_list)
    add(lambda kind: str in get_args(kind) and len(get_args(kind)) > 2, _read_content)
    converter.register_structure_hook_factory(attrs.has, _reader_of)
    return converter
