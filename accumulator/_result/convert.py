"""The package's cattrs converter: attrs classes with an `extra` mapping to dicts and back.

The converter names no class; it goes by the fields of each. What has no field of its own is in
`extra`, and stands among the other fields in the dict. A None is left out, but written as null for
a field with `NULLABLE` metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, partial
from types import GenericAlias, NoneType
from typing import TypeVar, cast, get_args, get_origin

import attrs
import msgspec
from cattrs import Converter, transform_error
from cattrs.gen import make_dict_structure_fn

__all__ = [
    "NULLABLE",
    "OR_VENDORS",
    "JsonObject",
    "copy_json",
    "dicts_of",
    "from_dict",
    "names_of",
    "objects_of",
    "register",
    "split_extra",
    "to_dict",
]

T = TypeVar("T")
JsonObject = dict[str, object]

NULLABLE = {"nullable": True}
# A vendor may use this name for a field of its own: a value that is no string is the vendor's.
OR_VENDORS = {"or_vendors": True}
_SCALARS = frozenset({str, int, float, bool})  # nearly all fields; a converter's call costs more


def copy_json(value: object) -> object:
    """Copy a JSON value, its containers included; tuples become lists."""
    if isinstance(value, Mapping):
        return {key: copy_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [copy_json(item) for item in value]
    return value


@cache
def names_of(cls: type[attrs.AttrsInstance]) -> tuple[str, ...]:
    """Return the names of a class's fields that are the API's: no `extra`, and no private ones."""
    names = (field.name for field in attrs.fields(cls))
    return tuple(name for name in names if name != "extra" and not name.startswith("_"))


def _has_extra(cls: type) -> bool:
    return attrs.has(cls) and any(a.name == "extra" for a in attrs.fields(cls))


def _unstructure_fn(cls: type) -> Callable[[object], JsonObject]:
    fields = [(n, bool(attrs.fields_dict(cls)[n].metadata.get("nullable"))) for n in names_of(cls)]

    def unstructure(value: object) -> JsonObject:
        out: JsonObject = {}
        for name, nullable in fields:
            item = getattr(value, name)
            if type(item) in _SCALARS:
                out[name] = item
            elif type(item) is tuple:
                out[name] = [_converter.unstructure(entry) for entry in item]
            elif item is not None or nullable:
                out[name] = _converter.unstructure(item)
        extra = cast("Mapping[str, object]", value.extra)  # type: ignore[attr-defined]  # by _has_extra
        for name, item in extra.items():
            # A value of the wrong type is here under its field's name. If the field also has a
            # value of the right type, that one is written.
            if out.get(name) is None:
                out[name] = copy_json(item)
        return out

    return unstructure


def _structure_fn(cls: type[T]) -> Callable[[Mapping[str, object], type[T]], T]:
    names = names_of(cls)  # type: ignore[arg-type]  # an attrs class, by _has_extra
    shared = [n for n in names if attrs.fields_dict(cls)[n].metadata.get("or_vendors")]  # type: ignore[arg-type]  # as above
    structure_fields = make_dict_structure_fn(cls, _converter)

    def structure(value: Mapping[str, object], _: type[T]) -> T:
        if not isinstance(value, Mapping):
            raise TypeError(f"expected an object, got {type(value).__name__}")
        known: JsonObject = {}
        extra: JsonObject = {}
        for name, item in value.items():
            if name not in names or (name in shared and not isinstance(item, (str, NoneType))):
                extra[name] = copy_json(item)
            elif item is not None:
                known[name] = item
        return structure_fields({**known, "extra": extra}, cls)

    return structure


def _exact(kind: type, value: object, _: object) -> object:
    """Return a value of the right type, unchanged: cattrs would turn the number 5 into "5"."""
    if type(value) is not kind:
        raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value


def _number(value: object, _: object) -> float:
    if type(value) is not float and type(value) is not int:
        raise TypeError(f"expected a number, got {type(value).__name__}")
    return value


def _is_sequence(kind: object) -> bool:
    return get_origin(kind) is Sequence


def _sequence(value: object, kind: object) -> object:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise TypeError(f"expected a list, got {type(value).__name__}")
    kind_of_tuple = cast("type[object]", GenericAlias(tuple, (*get_args(kind), ...)))
    return _converter.structure(value, kind_of_tuple)


def _is_text_or_parts(kind: object) -> bool:
    return str in get_args(kind) and any(get_origin(arg) is tuple for arg in get_args(kind))


def _text_or_parts(value: object, _: object) -> object:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(copy_json(item) for item in value)
    raise TypeError(f"expected text or a list of parts, got {type(value).__name__}")


_converter = Converter()
_converter.register_unstructure_hook_factory(_has_extra, _unstructure_fn)
_converter.register_structure_hook_factory(_has_extra, _structure_fn)
_converter.register_structure_hook(str, partial(_exact, str))
_converter.register_structure_hook(int, partial(_exact, int))
_converter.register_structure_hook(float, _number)
_converter.register_structure_hook_func(lambda t: t is object, lambda value, _: copy_json(value))
_converter.register_structure_hook_func(_is_sequence, _sequence)
_converter.register_structure_hook_func(_is_text_or_parts, _text_or_parts)


def dicts_of(structs: Sequence[object], below: str) -> list[JsonObject]:
    """Convert Structs to dicts in which their `extra` stands among the other fields. The Structs in
    the list `below` of each are converted likewise.
    """
    dicts: list[JsonObject] = msgspec.to_builtins(structs)
    for outer in dicts:
        for each in (*cast("list[JsonObject]", outer.get(below, ())), outer):
            # A vendor's field called `extra` is inside of it.
            if "extra" in each:
                extra = cast("JsonObject", each.pop("extra"))
                each.update({name: item for name, item in extra.items() if each.get(name) is None})
    return dicts


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


def register(cls: type[T], convert: Callable[[T], object]) -> None:
    """Register the function that converts the instances of a class."""
    _converter.register_unstructure_hook(cls, convert)


def to_dict(value: object) -> JsonObject:
    """Convert an instance to a dict of builtins, as the API writes it."""
    return cast("JsonObject", _converter.unstructure(value))


def from_dict(data: Mapping[str, object], cls: type[T]) -> T:
    """Build an instance from a dict as the API writes it.

    Raises ValueError, which names each field that does not fit.
    """
    try:
        return _converter.structure(data, cls)
    except Exception as error:
        raise ValueError("; ".join(transform_error(error, path="$"))) from error
