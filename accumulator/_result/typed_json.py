"""Read finished JSON text as a type of the caller's. Types are strict; broken JSON is an error.

msgspec reads the types that it knows. cattrs builds attrs classes, because msgspec would not call
their converters. A pydantic model reads its own text; it is recognised by its method, so pydantic
is never imported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from enum import Enum
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Protocol, TypeVar, cast, get_args, get_origin

import attrs
import msgspec
from cattrs import Converter, StructureHandlerNotFoundError, transform_error
from cattrs.cols import list_structure_factory
from cattrs.gen import make_dict_structure_fn

__all__ = ["ParseError", "load"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class PydanticModel(Protocol[T_co]):
    """The part of a pydantic model's class that reads JSON."""

    def model_validate_json(self, json_data: str | bytes, *, strict: bool) -> T_co: ...


_MSGSPEC_PATH = r" - at (?:`key` in )?`\$([^`]*)`$"
_STEP = r"\.([^.\[]+)|\[(\d+)\]|\[\.\.\.\]"
_NAME = r"[A-Za-z_][A-Za-z0-9_]*\Z"
_decode_raw = msgspec.json.Decoder(msgspec.Raw).decode
_decode = msgspec.json.Decoder().decode
_MOST_KINDS = 256  # types whose decoders are kept


class ParseError(ValueError):
    """The text is not JSON of the requested type.

    `path` is the JSON path of the value that does not fit (`$.days[0].city`). It is `$` where the
    text is empty, cut off or not JSON at all. `reason` says what is wrong there.
    """

    def __init__(self, reason: str, path: str = "$") -> None:
        super().__init__(reason, path)
        self.reason = reason
        self.path = path

    def __str__(self) -> str:
        return f"{self.reason} at {self.path}"


def load(text: str | None, kind: type[T]) -> T:
    """Return a whole JSON text as an instance of a type.

    The type may be any that msgspec reads (builtins and generics of them, dataclasses, TypedDicts,
    Structs, enums, dates ...), an attrs class or a pydantic model. Fields that it does not name are
    ignored, unless it forbids them.

    Raises ParseError for a text that does not fit, TypeError for a type that cannot be read from
    JSON.
    """
    if text is None or not text.strip():
        raise ParseError("there is no JSON")
    try:
        _decode_raw(text)
    except RecursionError:
        raise ParseError("nested too deep") from None
    except ValueError as error:
        raise ParseError(str(error)) from None
    try:
        if hasattr(kind, "model_validate_json"):
            return _load_model(cast("PydanticModel[T]", kind), text)
        if _has_attrs(kind):
            return _converter.structure(_decode(text), kind)
        return _load_plain(text, kind)
    except (NotImplementedError, StructureHandlerNotFoundError) as error:
        raise TypeError(f"{kind!r} cannot be read from JSON: {error}") from error
    except RecursionError:
        raise ParseError("nested too deep") from None
    except TypeError:
        raise  # by msgspec, for a type that it cannot read
    except Exception as error:
        raise _explained(error) from error


def _explained(error: Exception) -> ParseError:
    """Return a ParseError with the path and the reason from another library's error."""
    if isinstance(error, msgspec.ValidationError):
        return ParseError(*_without_paths(str(error), "$"))
    first, *_ = transform_error(error, path="$", format_exception=_reason)
    reason, _, path = first.rpartition(" @ ")
    return ParseError(*_without_paths(reason, path))


def _without_paths(message: str, path: str) -> tuple[str, str]:
    """Return a message of msgspec without the paths at its end, and the given path with them.

    There are several where one decoder called another; the outermost is the last.
    """
    while (found := re.search(_MSGSPEC_PATH, message)) is not None:
        is_key = "`key` in" in found[0]
        message = message[: found.start()] + (" as a key" if is_key else "")
        path += found[1]
    return message, path


def _load_model(kind: PydanticModel[T], text: str | bytes) -> T:
    try:
        return kind.model_validate_json(text, strict=True)
    except ValueError as error:
        errors = getattr(error, "errors", None)
        if errors is None:
            raise
        first = errors()[0]
        steps = (f"[{step}]" if type(step) is int else f".{step}" for step in first["loc"])
        # Not a ValidationError: msgspec adds its own path to any other ValueError.
        raise ValueError(f"{first['msg']} - at `${''.join(steps)}`") from error


def _reason(error: BaseException, _: object) -> str:
    if isinstance(error, KeyError):
        return f"Object missing required field `{error.args[0]}`"
    return str(error)


# --- what msgspec reads -------------------------------------------------------------------


_meeting = Lock()


@lru_cache(_MOST_KINDS)
def _decoder(kind: Hashable) -> msgspec.json.Decoder[object]:
    """Return the decoder of a type. It is made by one thread at a time: msgspec cannot have two
    meet a new type at once.
    """
    with _meeting:
        return msgspec.json.Decoder(cast("type[object]", kind), dec_hook=_load_nested)


def _load_plain(text: str, kind: type[T]) -> T:
    try:
        return cast("T", _decoder(cast("Hashable", kind)).decode(text))
    except msgspec.ValidationError as error:
        if "[...]" in str(error):
            _convert(_decode(text), kind)  # its error names the key
        raise


def _convert(value: object, kind: type[T]) -> T:
    _decoder(cast("Hashable", kind))
    try:
        return msgspec.convert(value, kind, str_keys=True, dec_hook=_load_nested)
    except msgspec.ValidationError as error:
        reason, path = _without_paths(str(error), "$")
        named = _with_keys(path, value, kind)
        if named == path:
            raise
        raise msgspec.ValidationError(f"{reason} - at `{named}`") from error


def _with_keys(path: str, value: object, kind: type) -> str:
    """Return a path with the names of keys in place of `[...]`, which msgspec writes for each.

    To find the key, half of the dict's entries are tried without the others, again and again until
    one is left. This changes `value`, which nobody needs any more.
    """
    found, named = value, "$"
    for step in re.finditer(_STEP, path):
        key: object = int(step[2]) if step[2] else step[1]
        if isinstance(found, dict) and found and key is None:
            entries = [*found.items()]
            while len(entries) > 1:
                half = entries[: len(entries) // 2]
                _refill(found, half)
                entries = entries[len(half) :] if _fits(value, kind) else half
            _refill(found, entries)
            key = entries[0][0]
        if isinstance(found, dict) and key in found:
            found = found[key]
            named += f".{key}" if re.match(_NAME, str(key)) else f"[{key!r}]"
        elif isinstance(found, list) and isinstance(key, int):
            found = found[key]
            named += f"[{key}]"
        else:
            return path
    return named


def _refill(found: dict[object, object], entries: list[tuple[object, object]]) -> None:
    found.clear()
    found.update(entries)


def _fits(value: object, kind: type) -> bool:
    try:
        msgspec.convert(value, kind, str_keys=True, dec_hook=_load_nested)
    except msgspec.ValidationError:
        return False
    return True


# --- attrs classes ------------------------------------------------------------------------


def _has_attrs(kind: object) -> bool:
    """Return whether a type is an attrs class, or a container or union with one in it."""
    return (isinstance(kind, type) and attrs.has(kind)) or any(map(_has_attrs, get_args(kind)))


def _load_nested(kind: type[T], value: object) -> T:
    if hasattr(kind, "model_validate_json"):
        return _load_model(cast("PydanticModel[T]", kind), msgspec.json.encode(value))
    if kind is object:
        return cast("T", value)
    raise NotImplementedError(f"{kind!r} is not a type that JSON can be read as")


def _class_hook(kind: type[T], converter: Converter) -> Callable[[object, object], T]:
    build = make_dict_structure_fn(kind, converter)

    def hook(value: object, _: object) -> T:
        if not isinstance(value, dict):
            raise _unexpected("object", value)
        return build(value, kind)

    return hook


def _list_hook(kind: object, converter: Converter) -> Callable[[object, object], object]:
    """Return a hook that builds a list, a tuple of one type or a set, and only from a list: cattrs
    would take any iterable.
    """
    origin, (item, *_) = get_origin(kind), get_args(kind)
    list_of = list[item]  # type: ignore[valid-type]  # built at run time
    build = list_structure_factory(list_of, converter)

    def hook(value: object, _: object) -> object:
        if not isinstance(value, list):
            raise _unexpected("array", value)
        found = build(value, list_of)
        return origin(found) if origin in (tuple, set, frozenset) else found

    return hook


def _is_list_like(kind: object) -> bool:
    args = get_args(kind)
    if get_origin(kind) is tuple:
        return len(args) == 2 and args[1] is ...
    return get_origin(kind) in (list, set, frozenset, Sequence)


def _unexpected(wanted: str, value: object) -> msgspec.ValidationError:
    found = _KINDS.get(type(value), type(value).__name__)
    return msgspec.ValidationError(f"Expected `{wanted}`, got `{found}`")


_KINDS = {dict: "object", list: "array", type(None): "null"}

_converter = Converter()
_converter.register_structure_hook_factory(attrs.has, _class_hook)
_converter.register_structure_hook_factory(_is_list_like, _list_hook)
for _kind in (str, bytes, int, float, Enum, Path):  # cattrs has conversions of its own for these
    _converter.register_structure_hook(_kind, _convert)
_converter.register_structure_hook_func(lambda kind: not _has_attrs(kind), _convert)
