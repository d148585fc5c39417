"""Finished JSON text into a type of the caller's: exact about kinds, nothing repaired.

msgspec reads what it knows, cattrs builds attrs classes (msgspec would leave out their converters),
and a pydantic model reads itself; it is known by its method, so that pydantic is never imported.
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
    """A text is not the JSON of the type that was asked for.

    `path` is the JSON path of the value that does not fit (`$.days[0].city`), `$` where the text
    is empty, cut off or no JSON at all. `reason` says what is wrong there.
    """

    def __init__(self, reason: str, path: str = "$") -> None:
        super().__init__(reason, path)
        self.reason = reason
        self.path = path

    def __str__(self) -> str:
        return f"{self.reason} at {self.path}"


def load(text: str | None, kind: type[T]) -> T:
    """Read a whole JSON text as a type.

    Takes what msgspec takes (builtins and generics of them, dataclasses, TypedDicts, Structs,
    enums, dates ...), attrs classes and pydantic models. Fields that the type does not name are
    ignored, unless it forbids them. Raises ParseError for a text that does not fit, TypeError for a
    type that cannot be read from JSON.
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
        raise  # msgspec's word for a type that it cannot read
    except Exception as error:
        raise _explained(error) from error


def _explained(error: Exception) -> ParseError:
    """Find the path and the reason in an error of the library that read the text."""
    if isinstance(error, msgspec.ValidationError):
        return ParseError(*_without_paths(str(error), "$"))
    first, *_ = transform_error(error, path="$", format_exception=_reason)
    reason, _, path = first.rpartition(" @ ")
    return ParseError(*_without_paths(reason, path))


def _without_paths(message: str, path: str) -> tuple[str, str]:
    """Take the paths off the end of a message of msgspec, the outermost of which is the last."""
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
        # msgspec puts its own path behind any ValueError but its own.
        raise ValueError(f"{first['msg']} - at `${''.join(steps)}`") from error


def _reason(error: BaseException, _: object) -> str:
    if isinstance(error, KeyError):
        return f"Object missing required field `{error.args[0]}`"
    return str(error)


# --- what msgspec reads -------------------------------------------------------------------


_meeting = Lock()


@lru_cache(_MOST_KINDS)
def _decoder(kind: Hashable) -> msgspec.json.Decoder[object]:
    """Make the decoder of a type; by one thread at a time, see `_wire`."""
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
    """Name the keys of a path in which msgspec writes `[...]` for any key of a dict.

    Of a dict's entries half is tried without the rest, until one is left.
    """
    steps: list[str | int | None] = [
        int(step[2]) if step[2] else step[1] for step in re.finditer(_STEP, path)
    ]
    for place, step in enumerate(steps):
        if step is None:
            found = _at(value, steps[:place])
            if not (found and isinstance(found, dict)):
                return path
            entries = [*found.items()]
            while len(entries) > 1:
                half = entries[: len(entries) // 2]
                fits = _fits(_replaced(value, steps[:place], dict(half)), kind)
                entries = entries[len(half) :] if fits else half
            value = _replaced(value, steps[:place], dict(entries))
            steps[place] = entries[0][0]
    return "$" + "".join(
        f"[{step}]"
        if isinstance(step, int)
        else f".{step}"
        if re.match(_NAME, str(step))
        else f"[{step!r}]"
        for step in steps
    )


def _fits(value: object, kind: type) -> bool:
    try:
        msgspec.convert(value, kind, str_keys=True, dec_hook=_load_nested)
    except msgspec.ValidationError:
        return False
    return True


def _at(value: object, steps: Sequence[str | int | None]) -> object:
    for step in steps:
        if isinstance(value, list) and isinstance(step, int):
            value = value[step]
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value


def _replaced(value: object, steps: Sequence[str | int | None], new: object) -> object:
    if not steps:
        return new
    first, *rest = steps
    inner = _replaced(_at(value, [first]), rest, new)
    if isinstance(value, list):
        return [inner if place == first else item for place, item in enumerate(value)]
    return {**cast("dict[object, object]", value), first: inner}


# --- attrs classes ------------------------------------------------------------------------


def _has_attrs(kind: object) -> bool:
    """Tell whether a type is an attrs class, or a builtin container or union of some."""
    return (isinstance(kind, type) and attrs.has(kind)) or any(map(_has_attrs, get_args(kind)))


def _load_nested(kind: type[T], value: object) -> T:
    if hasattr(kind, "model_validate_json"):
        return _load_model(cast("PydanticModel[T]", kind), msgspec.json.encode(value))
    if kind is object:
        return cast("T", value)
    raise NotImplementedError(f"{kind!r} is no type that JSON can be read as")


def _class_hook(kind: type[T], converter: Converter) -> Callable[[object, object], T]:
    build = make_dict_structure_fn(kind, converter)

    def hook(value: object, _: object) -> T:
        if not isinstance(value, dict):
            raise _unexpected("object", value)
        return build(value, kind)

    return hook


def _list_hook(kind: object, converter: Converter) -> Callable[[object, object], object]:
    """Build lists, homogeneous tuples and sets from a list: cattrs would take any iterable."""
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
