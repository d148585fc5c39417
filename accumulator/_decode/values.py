"""What a value is in JSON's terms, whoever made it: a server, a caller, any SDK.

No SDK is imported for it. Objects are mappings, pydantic models, Structs, or have plain attributes
or slots.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .chunk import JsonObject

__all__ = ["as_float", "as_integer", "decode_base64", "fields_of", "is_object", "kind_of"]

_LARGEST_FLOAT = 2**1000  # an integer beyond it may not be converted


def fields_of(value: object) -> JsonObject:
    """Return the fields of a mapping or an SDK's object, vendor extras included. Do not change
    them.
    """
    if type(value) is dict:
        return value
    if isinstance(value, Mapping):
        return dict(value)
    own: JsonObject | None = getattr(value, "__dict__", None)
    if own is None:
        names = getattr(value, "__struct_fields__", None) or [
            name for base in type(value).__mro__ for name in getattr(base, "__slots__", ())
        ]
        own = {name: getattr(value, name, None) for name in names}
    if hasattr(value, "__pydantic_extra__"):
        extra: JsonObject | None = getattr(value, "__pydantic_extra__", None)
        return {**own, **extra} if extra else own
    return {name: item for name, item in own.items() if not name.startswith("_")}


def is_object(value: object) -> bool:
    """Return whether a value has fields that `fields_of` can return."""
    return isinstance(value, Mapping) or (
        (
            hasattr(value, "__dict__")
            or hasattr(value, "__struct_fields__")
            or hasattr(value, "__attrs_attrs__")
        )
        and not callable(value)
    )


_KIND_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
}


def kind_of(value: object) -> str:
    """Return what a value is, for a message."""
    return _KIND_NAMES.get(type(value), f"a {type(value).__name__}")


def as_integer(value: object) -> int | None:
    """Read an integer where that loses nothing: 1.0 and "1" are one, True and "01" are none."""
    if isinstance(value, int) and type(value) is not bool:
        return int(value)
    if type(value) is float and value.is_integer():
        return int(value)
    if type(value) is str and len(value) < 20 and re.fullmatch("-?[0-9]+", value):
        return int(value) if str(int(value)) == value else None
    return None


def as_float(value: object) -> float | None:
    """Read a float, or an integer that it can stand for."""
    if isinstance(value, float):
        return float(value)
    if type(value) is int and abs(value) < _LARGEST_FLOAT:
        return float(value)
    return None


def decode_base64(text: str) -> bytes:
    """Read base64, strictly. Raises ValueError."""
    import base64  # noqa: PLC0415  # takes time to import, and few streams have audio

    return base64.b64decode(text, validate=True)
