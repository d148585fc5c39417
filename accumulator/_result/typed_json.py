"""Read complete JSON text as a type of the caller's. Types are strict; broken JSON is an error.

msgspec reads the types that it knows. cattrs builds attrs classes, because msgspec would not call
their converters. pydantic reads its own models, and types annotated with its constraints. If one of
them refuses a text, we read its values one by one, to say which do not fit, and what would.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import is_dataclass
from enum import Enum
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from threading import Lock
from types import GenericAlias, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    Protocol,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import attrs
import cattrs
import msgspec
from cattrs import AttributeValidationNote, IterableValidationNote
from cattrs.cols import list_structure_factory, mapping_structure_factory
from cattrs.gen import make_dict_structure_fn

from ..partial import heal_escapes

if TYPE_CHECKING:
    from typing_extensions import TypeForm

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Misfit = tuple[str, str]  # a reason and a path


class TypeReader(Protocol[T_co]):
    """Something that reads JSON as a type, such as pydantic's `TypeAdapter`."""

    def validate_json(self, data: str | bytes, /, *, strict: bool | None) -> T_co: ...


_MSGSPEC_PATH = r" - at (?:`key` in )?`\$([^`]*)`$"
_DICTS = (dict, Mapping, MutableMapping)
_MOST_KINDS = 256  # types whose decoders are kept
_MOST_MISFITS = 100
_NAME = r"[A-Za-z_][A-Za-z0-9_]*"


class ParseError(ValueError):
    """The text is not JSON of the requested type.

    `path` is the JSON path of the value that does not fit (`$.days[0].city`). It is `$` if the text
    is empty, cut off or not JSON at all. `reason` says what is wrong there. `errors` has the reason
    and the path of everything that does not fit, including the first.
    """

    def __init__(self, reason: str, path: str = "$", *more: tuple[str, str]) -> None:
        super().__init__(reason, path, *more)
        self.reason = reason
        self.path = path
        self.errors: tuple[tuple[str, str], ...] = ((reason, path), *more)

    def __str__(self) -> str:
        return "; ".join(f"{reason} at {path}" for reason, path in self.errors)


def load(text: str | None, kind: TypeForm[T] | TypeReader[T], cause: str = "") -> T:
    """Read a JSON text as a type; `cause` says why it may be cut. Raises ParseError, TypeError."""
    if text is None or not text.strip():
        raise ParseError(f"{cause}there is no JSON")
    data = heal_escapes(text.encode("utf-8", "surrogatepass"))
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except RecursionError:
        raise ParseError("nested too deep") from None
    except ValueError as error:
        raise ParseError(f"{cause}{error}") from None
    try:
        return cast("T", _read(data, kind))
    except (NotImplementedError, cattrs.StructureHandlerNotFoundError, NameError) as error:
        raise TypeError(f"{kind!r} cannot be read from JSON: {error}") from error
    except RecursionError:
        raise ParseError("nested too deep") from None
    except TypeError:
        raise  # from msgspec, for a type that it cannot read
    except Exception as error:
        if isinstance(error, cattrs.BaseValidationError) and error.subgroup(NotImplementedError):
            raise TypeError(f"{kind!r} has a field that cannot be read from JSON") from error
        raise _explained(error, data.strip(), kind) from error


def _read(text: bytes, kind: object) -> object:
    reader = _reader_of(kind)
    if reader is not None:
        return reader.validate_json(text, strict=True)
    if _has_attrs(kind):
        return _converter().structure(msgspec.json.decode(text), cast("type[object]", kind))
    return _decoder(kind).decode(text)


def _explained(error: Exception, text: bytes, kind: object) -> ParseError:
    """Turn another library's error into a ParseError with everything that does not fit."""
    try:
        (reason, path), *more = islice(_misfits(error, text, kind, "$"), _MOST_MISFITS)
    except RecursionError:
        (reason, path), *more = _reasons(error, kind, "$")
    return ParseError(reason, path, *more)


def _misfits(error: Exception, text: bytes, kind: object, path: str) -> Iterator[Misfit]:
    """Yield what does not fit or is missing inside an object or list, or else the value itself."""
    found = False
    for step, item, kind_of_item in _inside(text, kind):
        try:
            if not item:
                raise KeyError(kind_of_item)
            _read(item, kind_of_item)
        except (TypeError, NotImplementedError):
            continue  # not a type to read alone
        except Exception as inner:
            found = True
            yield from _misfits(inner, item, kind_of_item, path + step)
    if not found:
        yield from _reasons(error, kind, path)


def _inside(text: bytes, kind: object) -> Iterator[tuple[str, bytes, object]]:
    """Yield the values in an object or list, each with its step and type; for a required field that
    is missing, an empty text and the name.
    """
    if _reader_of(kind) is not None or _has_attrs(kind) or not text.startswith((b"{", b"[")):
        return
    kind = _bare(kind)
    found = msgspec.json.decode(text, type=list[msgspec.Raw] | dict[str, msgspec.Raw])
    is_list = isinstance(found, list)
    items: dict[Any, msgspec.Raw] = dict(enumerate(found)) if isinstance(found, list) else found
    if _is_list_like(kind) if is_list else get_origin(kind) in _DICTS:
        of = get_args(kind)[0 if is_list else 1]
        yield from ((_step(key), bytes(item), of) for key, item in items.items())
        return
    hints: dict[str, object] = {}
    fields: Sequence[msgspec.inspect.Field] = ()
    with suppress(Exception):  # not a class, or one with names that cannot be found
        info: Any = msgspec.inspect.type_info(kind)
        if is_list == getattr(info, "array_like", hasattr(kind, "_fields")):  # a NamedTuple's
            hints, fields = get_type_hints(kind, include_extras=True), info.fields
    for place, field in enumerate(fields):
        key = place if is_list else field.encode_name
        if key in items:
            yield _step(key), bytes(items[key]), _unqualified(hints[field.name])
        elif field.required:
            yield "", b"", field.encode_name


def _bare(kind: object) -> object:
    """Return a type without its annotations, and without None."""
    some = [arg for arg in get_args(kind) if arg is not type(None)]
    if get_origin(kind) is Annotated or (get_origin(kind) in (Union, UnionType) and len(some) == 1):
        return _bare(some[0])
    return kind


def _unqualified(hint: object) -> object:
    """Return the hint of a TypedDict's field without what says whether it is required."""
    while str(get_origin(hint)).rpartition(".")[2] in ("Required", "NotRequired", "ReadOnly"):
        (hint,) = get_args(hint)
    return hint


def _step(key: object) -> str:
    key = key.value if isinstance(key, Enum) else key
    return f".{key}" if re.fullmatch(_NAME, str(key)) else f"[{key!r}]"


def _reasons(error: BaseException, kind: object, path: str) -> Iterator[Misfit]:
    """Yield each reason that another library's error gives, with its path."""
    if isinstance(error, cattrs.BaseValidationError):  # cattrs'
        for inner in error.exceptions:
            notes = getattr(inner, "__notes__", ())
            at: list[object] = [n.name for n in notes if isinstance(n, AttributeValidationNote)]
            at += [n.index for n in notes if isinstance(n, IterableValidationNote)]
            yield from _reasons(inner, object, path + "".join(map(_step, at)))
    elif isinstance(error, ParseError):  # for a value inside what cattrs read
        yield from ((reason, path + inner[1:]) for reason, inner in error.errors)
    elif isinstance(error, KeyError):
        yield f"Object missing required field `{error.args[0]}`", path
    elif (errors := getattr(error, "errors", None)) is not None:  # pydantic's
        yield from ((each["msg"], path + "".join(map(_step, each["loc"]))) for each in errors())
    else:
        reason = str(error)
        # Each of msgspec's decoders that called another adds a path; the outermost comes last.
        while (found := re.search(_MSGSPEC_PATH, reason)) is not None:
            reason = reason[: found.start()] + (" as a key" if "`key` in" in found[0] else "")
            path += found[1]
        yield reason + _choices(_bare(kind)), path


def _choices(kind: object) -> str:
    """Return the values of an enum or a Literal in words, or "" for other types."""
    values = get_args(kind) if get_origin(kind) is Literal else ()
    if isinstance(kind, type) and issubclass(kind, Enum):
        values = tuple(member.value for member in kind)
    return f"; expected one of {', '.join(map(repr, values))}" if values else ""


_meeting = Lock()


@lru_cache(_MOST_KINDS)
def _reader_of(kind: Hashable) -> TypeReader[object] | None:
    """Return the reader for a type that pydantic knows; None for all others."""
    if not isinstance(kind, type) and hasattr(kind, "validate_json"):
        return cast("TypeReader[object]", kind)
    if not _is_pydantics(kind):
        return None
    from pydantic import PydanticUserError, TypeAdapter  # noqa: PLC0415  # such a type comes with it

    try:
        return TypeAdapter(cast("type[object]", kind))
    except PydanticUserError as error:
        raise TypeError(f"{kind!r} cannot be read from JSON: {error}") from error


def _is_pydantics(kind: object) -> bool:
    """Return whether a type or its annotations contain something of pydantic's."""
    marks = ("__pydantic_validator__", "__get_pydantic_core_schema__")
    package = type(kind).__module__.partition(".")[0]
    return (
        package in ("pydantic", "annotated_types")
        or any(hasattr(kind, mark) for mark in marks)
        or any(map(_is_pydantics, get_args(kind)))
    )


@lru_cache(_MOST_KINDS)
def _decoder(kind: Hashable) -> msgspec.json.Decoder[object]:
    """Return the decoder for a type. Two threads must not prepare the same type at once."""
    with _meeting:
        return msgspec.json.Decoder(cast("type[object]", kind), dec_hook=_load_nested)


def _load_nested(kind: object, value: object) -> object:
    reader = _reader_of(kind)
    if reader is not None:
        return reader.validate_json(msgspec.json.encode(value), strict=True)
    if kind is object:
        return value
    raise NotImplementedError(f"{kind!r} is not a type that JSON can be read as")


def _has_attrs(kind: object) -> bool:
    """Return whether a type contains an attrs class or a union of dataclasses: cattrs reads it."""
    is_class = isinstance(kind, type) and attrs.has(kind)
    is_union = sum(map(is_dataclass, get_args(kind))) > 1
    return is_class or is_union or any(map(_has_attrs, get_args(kind)))


def _convert(value: object, kind: object) -> object:
    text = msgspec.json.encode(value)
    try:
        return _read(text, kind)
    except ValueError as error:
        raise _explained(error, text, kind) from error


def _strict_hook(kind: Any, converter: Any) -> Callable[[object, object], object]:
    """Return a hook that only takes objects or lists: cattrs takes any mapping or iterable."""
    origin, args = get_origin(kind), get_args(kind)
    outline: Any = list  # what msgspec checks first
    make: Any = origin if origin in (set, frozenset, tuple) else None
    build: Any
    if attrs.has(kind):
        attrs.resolve_types(origin or kind)  # also the names inside other types
        outline, build = dict, make_dict_structure_fn(kind, converter)
    elif origin is Annotated:  # cattrs ignores the bounds
        kind, bounded = args[0], (list if _is_list_like(args[0]) else dict, *args[1:])
        outline, build = Annotated[bounded], converter.get_structure_hook(kind)
    elif origin in _DICTS:
        kind, outline = GenericAlias(dict, args), GenericAlias(dict, (args[0], Any))
        build = mapping_structure_factory(kind, converter)
    else:
        kind = GenericAlias(list, args[:1])
        build = list_structure_factory(kind, converter)

    def read(value: object, _: object) -> object:
        built = build(msgspec.convert(value, outline, str_keys=True), kind)
        return make(built) if make else built

    return read


def _union_hook(kind: object, converter: Any) -> Callable[[object, object], object]:
    """Return a hook for a union of attrs classes and other types: the kind of JSON says which one a
    value has. Raises TypeError if it does not.
    """
    built: dict[type, list[object]] = {}
    others: list[object] = []
    for each in get_args(kind):
        if _has_attrs(each) or is_dataclass(each):
            is_list = get_origin(_bare(each)) is tuple or _is_list_like(_bare(each))
            built.setdefault(list if is_list else dict, []).append(each)
        else:
            others.append(each)
    unions = {json: Union[tuple(kinds)] for json, kinds in built.items()}  # noqa: UP007  # made here
    if any(map(_is_mixed, unions.values())):
        raise TypeError(f"nothing tells apart the types of {kind!r}")
    outline: object = Union[tuple(others + list(built))]  # noqa: UP007  # as above
    _decoder(outline)  # raises TypeError, too

    def read(value: object, _: object) -> object:
        union = unions.get(type(value))
        return _convert(value, outline) if union is None else converter.structure(value, union)

    return read


def _is_mixed(kind: object) -> bool:
    """Return whether a type is a union that cattrs cannot read: of classes and other types."""
    others = [each for each in get_args(kind) if not (attrs.has(each) or is_dataclass(each))]
    is_other = others not in ([], [type(None)])
    return get_origin(kind) in (Union, UnionType) and is_other and _has_attrs(kind)


def _is_strict(kind: object) -> bool:
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    return get_origin(kind) in _DICTS or _is_list_like(kind)


def _is_list_like(kind: object) -> bool:
    args = get_args(kind)
    if get_origin(kind) is tuple:
        return len(args) == 2 and args[1] is ...
    return get_origin(kind) in (list, set, frozenset, Sequence)


@cache
def _converter() -> cattrs.Converter:
    """Return the converter that builds the caller's attrs classes."""
    converter = cattrs.Converter()
    converter.register_structure_hook_factory(attrs.has, _strict_hook)
    converter.register_structure_hook_factory(_is_strict, _strict_hook)
    converter.register_structure_hook_factory(_is_mixed, _union_hook)
    for kind in (str, bytes, int, float, Enum, Path):  # cattrs has conversions of its own for these
        converter.register_structure_hook(kind, _convert)
    converter.register_structure_hook_func(lambda kind: not _has_attrs(kind), _convert)
    return converter
