"""Read values as JSON has them, whether they come from a server, a caller or an SDK.

No SDK is imported. An object is a mapping, a pydantic model, a Struct, or has plain attributes or
slots.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum

from .chunk import JsonObject

_LARGEST_FLOAT = 2**1000  # a larger integer may not fit in a float


class InvalidChunkError(ValueError):
    """The value cannot be read as a chunk at all; it may contain a server's error."""

    server_error: object = None


def fields_of(value: object) -> JsonObject:
    """Return the fields of a mapping or an SDK's object, a vendor's included.

    Do not change the dict: it may be the object's own.
    """
    if type(value) is dict:
        return value
    if hasattr(value, "__pydantic_extra__"):
        own: JsonObject = value.__dict__
        extra: JsonObject | None = getattr(value, "__pydantic_extra__", None)
        return {**own, **extra} if extra else own
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "__dict__"):
        own = value.__dict__
    else:
        names = getattr(value, "__struct_fields__", None) or [
            name for base in type(value).__mro__ for name in getattr(base, "__slots__", ())
        ]
        own = {name: getattr(value, name, None) for name in names}
    return {name: item for name, item in own.items() if not name.startswith("_")}


def is_object(value: object) -> bool:
    """Return whether `fields_of` can be called for a value."""
    return (
        type(value) is dict
        or hasattr(value, "__pydantic_extra__")
        or isinstance(value, Mapping)
        or (
            (
                hasattr(value, "__dict__")
                or hasattr(value, "__struct_fields__")
                or hasattr(value, "__attrs_attrs__")
            )
            and not callable(value)
        )
    )


def as_builtin(value: object) -> object:
    """Return an SDK's value as the builtin that JSON would give; nested values stay as they are.

    Raises InvalidChunkError for a value that JSON cannot express.
    """
    if isinstance(value, Enum):  # some SDKs make roles and finish reasons enums
        return value.value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, (list, tuple)):
        return [*value]
    if is_object(value):
        return dict(fields_of(value))
    raise InvalidChunkError(f"{kind_of(value)} is not a value that JSON can express")


def says_nothing(value: object) -> bool:
    """Return whether a value is an object with nothing but nulls and padding."""
    return isinstance(value, dict) and all(
        item is None or name == "obfuscation" for name, item in value.items()
    )


def error_of(value: object) -> object:
    """Return the server's error in an object; null, false and empty values are not errors."""
    if value is None:  # as nearly all are
        return None
    error = fields_of(value).get("error") if is_object(value) else None
    if error is not None and is_object(error):
        return error if fields_of(error) else None  # nor is an empty object of an SDK
    return error or None


_KIND_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
}


def kind_of(value: object) -> str:
    """Return the name of a value's kind, for a message."""
    return _KIND_NAMES.get(type(value), f"a {type(value).__name__}")


def as_integer(value: object) -> int | None:
    """Return a value as an integer, None where it is not exactly one: 1.0 and "1" are, True and
    "01" are not.
    """
    if isinstance(value, int) and type(value) is not bool:
        return int(value)
    if type(value) is float and value.is_integer():
        return int(value)
    if type(value) is str and len(value) < 20 and re.fullmatch("-?[0-9]+", value):
        return int(value) if str(int(value)) == value else None
    return None


def as_float(value: object) -> float | None:
    """Return a float, or an integer as a float; None for any other value."""
    if isinstance(value, float):
        return float(value)
    if type(value) is int and abs(value) < _LARGEST_FLOAT:
        return float(value)
    return None


def decode_base64(text: str) -> bytes:
    """Decode base64 text. Raises ValueError for what is not exactly base64."""
    import base64  # noqa: PLC0415  # takes time to import, and few streams have audio

    return base64.b64decode(text, validate=True)
