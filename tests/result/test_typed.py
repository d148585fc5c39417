"""Finished JSON is read as the caller's types, strictly; errors have the path of what is wrong."""

from __future__ import annotations

import enum
import inspect
import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, make_dataclass
from datetime import date
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Optional,
    TypedDict,
    get_origin,
)

import attrs
import msgspec
import pytest
from typing_extensions import NotRequired, Required

from accumulator import (
    ChatCompletion,
    Custom,
    Function,
    FunctionCall,
    Message,
    ParseError,
    ToolCall,
    accumulate,
)

if TYPE_CHECKING:
    import pydantic
else:
    pydantic = pytest.importorskip("pydantic", reason="a library that is there for the tests only")


class Unit(enum.Enum):
    C = "celsius"
    F = "fahrenheit"


@attrs.frozen
class AttrsDay:
    date: date


@attrs.frozen
class AttrsQuery:
    city: str
    days: tuple[AttrsDay, ...] = ()
    unit: Unit = Unit.C


class StructDay(msgspec.Struct, frozen=True):
    date: date


class StructQuery(msgspec.Struct, frozen=True):
    city: str
    days: tuple[StructDay, ...] = ()
    unit: Unit = Unit.C


@dataclass(frozen=True)
class DataDay:
    date: date


@dataclass(frozen=True)
class DataQuery:
    city: str
    days: tuple[DataDay, ...] = ()
    unit: Unit = Unit.C


class ModelDay(pydantic.BaseModel):
    date: date


class ModelQuery(pydantic.BaseModel):
    city: str
    days: tuple[ModelDay, ...] = ()
    unit: Unit = Unit.C


class DictDay(TypedDict):
    date: date


class DictQuery(TypedDict):
    city: str
    days: list[DictDay]


@attrs.define
class Mixed:
    model: ModelDay
    struct: StructDay
    data: list[DataDay]


class Holding(msgspec.Struct):
    model: ModelDay


def upper(text: str) -> str:
    return text.upper()


@attrs.define
class Upper:
    x: str = attrs.field(converter=upper, validator=attrs.validators.in_(["A"]))


# A name inside another type that is not a string itself, as without the import of annotations.
_FIELDS: dict[str, object] = {"up": Optional["Tree"]}
Tree: Any = attrs.define(type("Tree", (), {"__annotations__": _FIELDS, "up": None}))

QUERIES = [AttrsQuery, StructQuery, DataQuery, ModelQuery, DictQuery]
every_query = pytest.mark.parametrize("kind", QUERIES)


def read(text: str | None, kind: Any) -> Any:
    return Function(name="f", arguments=text).arguments_as(kind)


def refused(text: str | None, kind: Any, match: str | None = None) -> ParseError:
    """Return the error of a text that is not read as a type."""
    with pytest.raises(ParseError, match=match) as raised:
        read(text, kind)
    return raised.value


QUERY = '{"city": "Paris", "days": [{"date": "2026-01-02"}], "unknown": 1}'
DAY, DAYS = '{"date": "2026-01-02"}', '[{"date": "2026-01-02"}]'
DATE = date(2026, 1, 2)
MODEL_DAY = ModelDay(date=DATE)
FITTING: list[tuple[str, Any, object]] = [
    (QUERY, AttrsQuery, AttrsQuery("Paris", (AttrsDay(DATE),))),
    (QUERY, StructQuery, StructQuery("Paris", (StructDay(DATE),))),
    (QUERY, DataQuery, DataQuery("Paris", (DataDay(DATE),))),
    (QUERY, ModelQuery, ModelQuery(city="Paris", days=(MODEL_DAY,))),
    (QUERY, DictQuery, {"city": "Paris", "days": [{"date": DATE}]}),
    (DAYS, list[AttrsDay], [AttrsDay(DATE)]),
    (DAYS, list[StructDay], [StructDay(DATE)]),
    (DAYS, list[DataDay], [DataDay(DATE)]),
    (DAYS, list[ModelDay], [MODEL_DAY]),
    (DAYS, set[AttrsDay], {AttrsDay(DATE)}),
    (f'{{"a": {DAY}}}', dict[str, AttrsDay], {"a": AttrsDay(DATE)}),
    (f'{{"model": {DAY}}}', Holding, Holding(MODEL_DAY)),
    (
        f'{{"model": {DAY}, "struct": {DAY}, "data": {DAYS}}}',
        Mixed,
        Mixed(MODEL_DAY, StructDay(DATE), [DataDay(DATE)]),
    ),
    ('{"x": "a"}', Upper, Upper("A")),  # converted before it is validated
    ('[{"x": "a"}]', list[Upper], [Upper("A")]),
    ('{"a": 1}', dict[str, int], {"a": 1}),
    (f'{{"1": {DAY}}}', dict[int, AttrsDay], {1: AttrsDay(DATE)}),
    (f'[{DAY}, "x"]', tuple[AttrsDay, str], (AttrsDay(DATE), "x")),
    (DAYS, Annotated[list[AttrsDay], msgspec.Meta(max_length=1)], [AttrsDay(DATE)]),
    ("null", Annotated[AttrsDay | None, "a note"], None),
    (f'[{DAY}, "x"]', Annotated[tuple[AttrsDay, str], "a note"], (AttrsDay(DATE), "x")),
    ("5", AttrsDay | int, 5),
    (DAY, AttrsDay | int, AttrsDay(DATE)),
    (DAYS, AttrsDay | list[AttrsDay] | None, [AttrsDay(DATE)]),
    (DAY, AttrsDay | list[AttrsDay] | None, AttrsDay(DATE)),
    ("null", AttrsDay | list[AttrsDay] | None, None),
    (DAY, dict[str, date] | list[AttrsDay], {"date": DATE}),
    (f'[{DAY}, "x"]', list[AttrsDay | str], [AttrsDay(DATE), "x"]),
    (f'[{DAY}, "x"]', tuple[AttrsDay, str] | AttrsDay, (AttrsDay(DATE), "x")),
    ("5", float, 5.0),
    ("5", Annotated[int, pydantic.Field(gt=0)], 5),
    (' "text" ', str, "text"),
    (r'{"a": "\ud83d\ud83d\ude00"}', dict[str, str], {"a": "\ufffd😀"}),
    (r'{"date": "2026-01-02", "\ud83d": 1}', ModelDay, MODEL_DAY),
    ('{"a": [1, null]}', object, {"a": [1, None]}),
    ('["celsius"]', list[Unit], [Unit.C]),
    ('{"up": {"up": null}}', Tree, Tree(Tree())),
    ('{"a": 1, "b": {"c d": ["x"]}}', dict[str, object], {"a": 1, "b": {"c d": ["x"]}}),
]


@pytest.mark.parametrize(("text", "kind", "expected"), FITTING)
def test_a_fitting_text_is_an_instance(text: str, kind: Any, expected: object) -> None:
    found = read(text, kind)
    assert found == expected
    assert type(found) is type(expected)


@every_query
@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('{"city": 5, "days": []}', "$.city"),
        ('{"city": null, "days": []}', "$.city"),
        ('{"city": "Paris", "days": [{"date": "2026-01-02"}, {"date": "no"}]}', "$.days[1].date"),
        ('{"city": "Paris", "days": [{"date": 5}]}', "$.days[0].date"),
        ('{"city": "Paris", "days": {}}', "$.days"),
        ('{"city": "Paris", "days": ""}', "$.days"),
        ('{"city": "Paris", "days": [[]]}', "$.days[0]"),
        ('{"city": "Paris", "days": "ab"}', "$.days"),
    ],
)
def test_an_error_has_the_path_of_what_does_not_fit(kind: type, text: str, path: str) -> None:
    error = refused(text, kind, "at ")
    assert error.path == path
    assert error.reason in str(error)


Lists = dict[str, list[int]]


@attrs.frozen
class Nested:
    inner: dict[str, Lists]


@pytest.mark.parametrize(
    ("text", "kind", "path"),
    [
        ('{"city": "Paris", "days": 1}', dict[str, int], "$.city"),
        ('{"a": {"b": [1]}, "c d": {"e": [1, "x"]}}', dict[str, Lists], "$['c d'].e[1]"),
        ('[{"a": 1}, {"a": 1, "b": "x"}]', list[dict[str, int]], "$[1].b"),
        ('{"inner": {"a": {"b": []}, "c": {"d": [true]}}}', Nested, "$.inner.c.d[0]"),
        ('{"a": {"date": 5}}', dict[str, StructDay], "$.a.date"),
        ('{"a": {"date": 5}}', dict[str, ModelDay], "$.a.date"),
        ('[{"date": 5}]', list[ModelDay], "$[0].date"),
        ('{"a": {"date": 5}}', dict[str, AttrsDay], "$.a.date"),
        ('{"model": {"date": 5}}', Holding, "$.model.date"),
        (f'{{"model": {{"date": 5}}, "struct": {DAY}, "data": []}}', Mixed, "$.model.date"),
        (f'{{"model": {DAY}, "struct": {{"date": 5}}, "data": []}}', Mixed, "$.struct.date"),
        ('{"a": "x"}', Mapping[str, int], "$.a"),
        ('{"celsius": {"date": 5}}', dict[Unit, AttrsDay], "$.celsius.date"),
    ],
)
def test_a_path_names_the_keys_of_dicts(text: str, kind: Any, path: str) -> None:
    assert refused(text, kind).path == path


@pytest.mark.parametrize("bad", [0, 1, 499, 998, 999])
def test_one_key_of_many_is_found(bad: int) -> None:
    text = msgspec.json.encode({f"k{i}": "x" if i == bad else i for i in range(1000)}).decode()
    assert refused(text, dict[str, int]).path == f"$.k{bad}"


@every_query
def test_a_missing_field_is_named(kind: type) -> None:
    error = refused('{"days": []}', kind, r"(?i)required")
    assert "city" in str(error) + error.path


@every_query
@pytest.mark.parametrize("text", ["[]", '"Paris"', "5", "null"])
def test_another_value_than_an_object_is_refused(kind: type, text: str) -> None:
    assert refused(text, kind).path == "$"


@pytest.mark.parametrize("kind", [*QUERIES, dict[str, object], object])
@pytest.mark.parametrize(
    "text",
    [None, "", " \n", '{"city": "Par', '{"city": "Paris"', "{}{}", "{'city': 1}", "[" * 100_000],
)
def test_what_is_not_one_whole_json_value_is_never_repaired(kind: type, text: str | None) -> None:
    assert refused(text, kind).path == "$"


@pytest.mark.parametrize("field_type", [int, str, bool, Literal["a"], list[int], dict[str, int]])
@pytest.mark.parametrize("value", ['"5"', "5", "5.5", "true", "null", "[]", "{}"])
@pytest.mark.parametrize(
    "make",
    [
        lambda kind: attrs.make_class("Made", {"x": attrs.field(type=kind)}),
        lambda kind: pydantic.create_model("Made", x=(kind, ...)),
    ],
    ids=["attrs", "pydantic"],
)
def test_all_sorts_of_classes_are_as_exact_as_msgspec(
    make: Callable[[object], type], field_type: object, value: str
) -> None:
    text = f'{{"x": {value}}}'
    try:
        expected = msgspec.json.decode(value, type=field_type)
    except msgspec.ValidationError:
        assert refused(text, make(field_type)).path == "$.x"
    else:
        assert read(text, make(field_type)).x == expected


WRONG = """{"city": 5, "days": [{"date": "2026-01-02"}, {"date": 5}], "unit": "kelvin"}"""


@pytest.mark.parametrize("kind", [AttrsQuery, StructQuery, DataQuery, ModelQuery])
def test_an_error_names_all_that_does_not_fit_and_what_would(kind: type) -> None:
    error = refused(WRONG, kind)
    assert [path for _, path in error.errors] == ["$.city", "$.days[1].date", "$.unit"]
    assert error.errors[0] == (error.reason, error.path)
    assert all(f"{reason} at {path}" in str(error) for reason, path in error.errors)
    assert "'celsius'" in error.errors[2][0]
    assert "'fahrenheit'" in error.errors[2][0]
    assert isinstance(pickle.loads(pickle.dumps(error)).errors, tuple)
    assert pickle.loads(pickle.dumps(error)).errors == error.errors
    if kind is ModelQuery:
        assert isinstance(error.__cause__, pydantic.ValidationError)
        assert len(error.__cause__.errors()) == 3


class WholeTrip(TypedDict):
    city: str
    days: int


class DictTrip(WholeTrip, total=False):
    unit: str


class TupleTrip(NamedTuple):
    city: str
    days: int
    unit: str = "C"


TRIP: list[Any] = [("city", str), ("days", int), ("unit", str, "C")]
OBJECTS = [make_dataclass("Trip", TRIP), msgspec.defstruct("Trip", TRIP), DictTrip]
RENAMED = msgspec.defstruct("Trip", TRIP, rename={"unit": "Unit"})
LISTS = [msgspec.defstruct("Trip", TRIP, array_like=True), TupleTrip]
NO_CITY, NO_DAYS = (f"Object missing required field `{name}` at $" for name in ("city", "days"))
TEXT, NUMBER = "Expected `str`, got `int` at $", "Expected `int`, got `str` at $"
WANTING: list[tuple[Any, str, str]] = [
    *((kind, "{}", f"{NO_CITY}; {NO_DAYS}") for kind in OBJECTS),
    *((kind, '{"unit": 1}', f"{NO_CITY}; {NO_DAYS}; {TEXT}.unit") for kind in OBJECTS),
    (RENAMED, '{"days": 1, "Unit": 1}', f"{NO_CITY}; {TEXT}.Unit"),
    *((kind, "[5]", f"{TEXT}[0]; {NO_DAYS}") for kind in LISTS),
    *((kind, '[5, "x"]', f"{TEXT}[0]; {NUMBER}[1]") for kind in LISTS),
    *((kind, '{"unit": 1}', "Expected `array`, got `object` at $") for kind in LISTS),
]


@pytest.mark.parametrize(("kind", "text", "words"), WANTING)
def test_an_error_names_all_that_is_missing_beside_what_does_not_fit(
    kind: Any, text: str, words: str
) -> None:
    assert str(refused(text, kind)) == words
    assert str(refused(f"[{text}]", list[kind])) == words.replace("$", "$[0]")


SHORT = Annotated[str, msgspec.Meta(max_length=3)]
COUNT = Annotated[int, msgspec.Meta(gt=0)]
TWO_DAYS: Any = Annotated[list[AttrsDay], msgspec.Meta(min_length=2)]


class Bounded(TypedDict):
    name: Required[SHORT]
    either: NotRequired[SHORT | COUNT]


LONG, SMALL = "Expected `str` of length <= 3 at $", "Expected `int` >= 1 at $"
ONE_DAY = "Expected `array` of length >= 2 at $"
BOUNDS: list[tuple[Any, str, str]] = [
    (Bounded, '{"name": "long", "either": 0}', f"{SMALL}.either; {LONG}.name"),
    (Bounded, '{"name": "long", "either": "long"}', f"{LONG}.either; {LONG}.name"),
    (dict[str, AttrsDay], "[]", "Expected `object`, got `array` at $"),
    (dict[int, AttrsDay], '{"x": {}}', "Expected `int`, got `str` as a key at $"),
    (TWO_DAYS, DAYS, ONE_DAY),
    (TWO_DAYS | int, DAYS, ONE_DAY),
    (AttrsDay | int, '"x"', "Expected `int | object`, got `str` at $"),
    (
        list[AttrsDay | int],
        '[5, {"date": 5}, "x"]',
        "Expected `date`, got `int` at $[1].date; Expected `int | object`, got `str` at $[2]",
    ),
    (TWO_DAYS | None, DAYS, ONE_DAY),
    (
        attrs.make_class("Made", {"days": attrs.field(type=TWO_DAYS)}),
        f'{{"days": {DAYS}}}',
        f"{ONE_DAY}.days",
    ),
    # That no JSON can be read as a field's type is not the text's fault.
    (
        msgspec.defstruct("Made", [("x", int), ("y", complex)]),
        '{"x": "x", "y": 1}',
        f"{NUMBER}.x",
    ),
]


@pytest.mark.parametrize(("kind", "text", "words"), BOUNDS)
def test_what_passes_the_bounds_of_its_type_is_named(kind: Any, text: str, words: str) -> None:
    assert str(refused(text, kind)) == words


def test_as_many_errors_are_named_as_a_reader_can_use() -> None:
    assert len(refused("[" + "null, " * 10_000 + "null]", list[int]).errors) == 100


@pydantic.dataclasses.dataclass(frozen=True)
class Positive:
    lives: int = pydantic.Field(gt=0)


@dataclass
class Even:
    x: int
    seen: list[int] = field(default_factory=list)
    made: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if self.x % 2:
            raise ValueError("odd")


def refusing(error: Exception) -> type[pydantic.BaseModel]:
    class Refusing(pydantic.BaseModel):
        @pydantic.model_validator(mode="before")
        @classmethod
        def refuse(cls, value: object) -> object:
            raise error

    return Refusing


def renamed(name: str, **fields: Any) -> Any:
    """Return a Struct whose `inner` has another name in JSON."""
    return msgspec.defstruct("Made", [*fields.items()], rename={"inner": name})


POSITIVE = Annotated[int, pydantic.Field(gt=0)]
# A text, a type that refuses it, and what the error says.
REFUSED: dict[str, tuple[str, Any, str]] = {
    "a key that does not fit": ('{"a": 1}', dict[int, int], "as a key"),
    # cattrs does not say whose it was.
    "a validator of attrs": ('{"x": "b"}', Upper, r"'B'.* at \$$"),
    "a post-init": ('{"x": 1}', Even, "odd"),
    "a hint that is none of a field": (
        '{"x": "a", "made": "b"}', Even, r"^Expected `int`, got `str` at \$\.x$"
    ),
    "a model": ("{}", refusing(ValueError("not today")), "not today"),
    "a model that recurses": ("{}", refusing(RecursionError()), "too deep"),
    "pydantic's words in an Annotated": ("-5", POSITIVE, "greater than 0"),
    "pydantic's dataclass": ('{"kind": "cat", "lives": -9}', Positive, "greater than 0"),
    "a key with a dot": (
        '{"a.b": {"c": "x"}}', renamed("a.b", inner=dict[str, int]), "Expected `int`"
    ),
    "a key with brackets": (
        '{"a[...]": "x", "a": {}}', renamed("a[...]", inner=int, a=dict[str, int]), "Expected `int`"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "kind", "words"), REFUSED.values(), ids=REFUSED)
def test_what_a_type_refuses_in_its_own_words_does_not_fit(
    text: str, kind: Any, words: str
) -> None:
    refused(text, kind, words)


@attrs.frozen
class Node:
    child: Node | None = None
    x: int = 0


class StructNode(msgspec.Struct):
    child: StructNode | None = None
    x: int = 0


@pytest.mark.parametrize("kind", [Node, StructNode])
def test_what_does_not_fit_far_below_is_an_error_whatever_the_stack_holds(kind: type) -> None:
    limit, here = sys.getrecursionlimit(), len(inspect.stack(0))
    for depth in (*range(100, 240, 3), 400):
        text = '{"child": ' * depth + '{"x": "a"}' + "}" * depth
        sys.setrecursionlimit(here + 230)
        try:
            refused(text, kind)
        finally:
            sys.setrecursionlimit(limit)


def test_an_explanation_for_which_the_stack_is_too_small_is_the_librarys_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """CPython 3.12 does not count calls of C, so the test above gets there only on others."""

    def too_deep(*_: object) -> None:
        raise RecursionError

    monkeypatch.setattr("accumulator._result.typed_json._inside", too_deep)
    refused('{"x": "a"}', StructNode, "Expected `int`, got `str`")


class Plain:
    pass


class HasPlain(msgspec.Struct):
    x: int
    plain: Plain


def test_what_comes_before_a_value_that_cannot_be_read_is_named_alone() -> None:
    assert [path for _, path in refused('{"x": "a", "plain": 1}', HasPlain).errors] == ["$.x"]


@attrs.frozen
class Unknown:
    x: Plainly  # type: ignore[name-defined]  # noqa: F821  # that is what is tried


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Plain, "Plain"),
        (list[Plain], "Plain"),
        (dict[str, Plain], "Plain"),
        (Unknown, "Plain"),
        (attrs.make_class("Made", {"a": attrs.field(type=complex)}), "Made"),
        pytest.param(list[Plain | ModelDay], "Plain", id="both"),
        pytest.param(list[list[int] | set[int]], "union", id="a union that nothing tells apart"),
        pytest.param(list[list[AttrsDay] | set[AttrsDay]], "apart", id="lists of classes"),
        pytest.param(list[AttrsDay | dict[str, AttrsDay]], "apart", id="a class and a dict of it"),
        pytest.param(list[AttrsDay | dict[str, int]], "union", id="a class and a dict"),
    ],
)
def test_a_type_that_json_cannot_be_read_as_is_the_callers_mistake(kind: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        read("[1]" if get_origin(kind) is list else '{"a": 1}', kind)


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]
    name: str


def struct(tag: str, /, **fields: type) -> Any:
    return msgspec.defstruct("Made", [*fields.items()], tag=tag, tag_field="kind", frozen=True)


def data(kind: object, /, **fields: type) -> Any:
    return make_dataclass("Data", [("kind", kind), *fields.items()], frozen=True)


def of_attrs(**fields: type) -> Any:
    return attrs.make_class("Made", {name: attrs.field(type=t) for name, t in fields.items()})


StructCat, StructDog = struct("cat", lives=int), struct("dog", name=str)
DataCat, DataDog = data(Literal["cat"], lives=int), data(Literal["dog"], name=str)
AttrsCat, AttrsDog = of_attrs(lives=int), of_attrs(name=str)


CAT = Cat(kind="cat", lives=9)
UNIONS: dict[str, tuple[object, object]] = {
    "of models": (Cat | Dog, CAT),
    "told apart by a field": (Annotated[Cat | Dog, pydantic.Field(discriminator="kind")], CAT),
    "a TypeAdapter": (pydantic.TypeAdapter(Cat | Dog), CAT),
    "a model or null": (Cat | None, CAT),
    "of Structs": (StructCat | StructDog, StructCat(9)),
    "of dataclasses": (DataCat | DataDog, DataCat("cat", 9)),
    "of attrs classes": (AttrsCat | AttrsDog, AttrsCat(9)),
    "annotated": (Annotated[AttrsCat, "a word"], AttrsCat(9)),
    "a dataclass of pydantic's": (Positive, Positive(9)),
}


@pytest.mark.parametrize(("kind", "cat"), UNIONS.values(), ids=UNIONS)
def test_unions_and_types_in_annotated_are_read(kind: type, cat: object) -> None:
    assert read('{"kind": "cat", "lives": 9}', kind) == cat
    assert refused('{"kind": "cat", "lives": "nine"}', kind).path.endswith(".lives")


@pytest.mark.parametrize("wrong", ['"c"', "5"])
@pytest.mark.parametrize("kind", [Literal["a", "b"], Literal["a", "b"] | None])
def test_the_values_of_a_literal_are_named(wrong: str, kind: type) -> None:
    kinds = dict[str, list[kind]]  # type: ignore[valid-type]  # made here
    assert refused(f'{{"x": [{wrong}]}}', kinds, "expected one of 'a', 'b' at").path == "$.x[0]"


def ended(finish_reason: str, **fields: object) -> Message:
    choice = {"index": 0, "message": fields, "finish_reason": finish_reason}
    return ChatCompletion.from_dict({"choices": [choice]}).choices[0].message


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        (ended("stop", refusal="I will not"), "refused: 'I will not'"),
        (ended("length", content='{"city": "Par'), "the finish reason 'length'"),
        (ended("content_filter", content=""), "the finish reason 'content_filter'"),
    ],
)
def test_json_that_is_not_whole_is_explained_by_how_the_answer_ended(
    message: Message, cause: str
) -> None:
    with pytest.raises(ParseError, match=cause) as raised:
        message.content_as(StructQuery)
    assert raised.value.path == "$"
    delta = {"content": message.content, "refusal": message.refusal}
    choice = {"index": 0, "delta": delta, "finish_reason": message._finish_reason}
    again = accumulate([{"choices": [choice]}])
    with pytest.raises(ParseError, match=cause):
        again.choices[0].message.content_as(StructQuery)


def test_how_an_answer_ended_is_no_reason_where_its_json_is_whole() -> None:
    assert ended("length", content='{"city": "Paris"}').content_as(StructQuery).city == "Paris"
    with pytest.raises(ParseError, match=r"^Expected `str`, got `int` at \$.city$"):
        ended("length", content='{"city": 5}').content_as(StructQuery)


def test_arguments_that_were_cut_off_say_so_and_none_are_an_empty_object() -> None:
    def call(arguments: str) -> ToolCall:
        tools = [{"id": "x", "function": {"name": "f", "arguments": arguments}}]
        return next(iter(ended("length", tool_calls=tools).tool_calls or ()))

    with pytest.raises(ParseError, match="the finish reason 'length'"):
        call('{"a": ').arguments_as(dict)
    assert call("").arguments_as(dict) == {}


def test_calls_and_content_are_read_alike() -> None:
    text = '{"city": "Paris"}'
    expected = StructQuery("Paris")
    call = ToolCall(function=Function(name="f", arguments=text))
    found: StructQuery = call.arguments_as(StructQuery)  # for type checkers, too
    assert found == expected
    texts: dict[str, str] = call.arguments_as(dict[str, str])
    assert texts == {"city": "Paris"}
    assert FunctionCall(name="f", arguments=text).arguments_as(StructQuery) == expected
    assert Message(content=text).content_as(StructQuery) == expected
    parts = ({"type": "thinking", "thinking": []}, {"type": "text", "text": text}, 5)
    assert Message(content=parts).content_as(StructQuery) == expected


@pytest.mark.parametrize(
    "missing",
    [
        lambda: ToolCall(custom=Custom(name="c", input="{}")).arguments_as(dict),
        lambda: ToolCall().arguments_as(dict),
        lambda: Message(refusal="no").content_as(dict),
        lambda: Message(content=()).content_as(dict),
    ],
)
def test_where_there_is_no_json_an_error_says_so(missing: Callable[[], object]) -> None:
    with pytest.raises(ParseError, match=r"there (is|are) no"):
        missing()


def test_a_parse_error_is_a_value_error_and_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(ParseError("no", "$.a")))
    assert isinstance(error, ParseError)
    assert isinstance(error, ValueError)
    assert (error.reason, error.path, str(error)) == ("no", "$.a", "no at $.a")
