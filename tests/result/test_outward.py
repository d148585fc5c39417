"""A completion as a message of the next request, and as an object of the openai package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from every_field import WHOLE
from streamed import delta, fed, read_whole, run_by_itself
from test_conformance import CASES

from accumulator import ChatCompletion, Message

if TYPE_CHECKING:
    import pydantic
    from openai.types import chat
else:
    pydantic = pytest.importorskip("pydantic", reason="a library that is there for the tests only")
    chat = pytest.importorskip("openai.types.chat", reason="an SDK that is there for the tests")

JsonObject = dict[str, object]


# The annotation and the moderation of WHOLE have only some of their fields.
VALID = json.loads(json.dumps(WHOLE))
del VALID["moderation"]
del VALID["choices"][0]["message"]["annotations"]


def snapshot(body: bytes) -> ChatCompletion:
    return read_whole(body).snapshot()


def message(deltas: list[JsonObject]) -> Message:
    acc = fed({"choices": [{"index": 0, "delta": delta}]} for delta in deltas)
    return acc.snapshot().choices[0].message


# --- the next request ---------------------------------------------------------------------

CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
FRAGMENT = {"index": 0, **CALL}
CUSTOM = {"id": "call_1", "type": "custom", "custom": {"name": "c", "input": "x"}}

SIGNED = {"google": {"thought_signature": "c2ln"}}
# A turn as it streams, and what of it the next request must contain; the conformance cases that
# have a `to_message` show the others.
TURNS: dict[str, tuple[list[JsonObject], JsonObject]] = {
    "Gemini's text with a signature": (
        [{"content": "4"}, {"extra_content": SIGNED}], {"content": "4", "extra_content": SIGNED}
    ),
    "Gemini's calls behind LiteLLM": (
        [{"tool_calls": [{**FRAGMENT, "provider_specific_fields": SIGNED["google"]}]}],
        {"content": None, "tool_calls": [{**CALL, "provider_specific_fields": SIGNED["google"]}]},
    ),
    "a custom call beside a function without a name": (
        [{"tool_calls": [{**CUSTOM, "index": 0, "function": {"arguments": ""}}]}],
        {"content": None, "tool_calls": [CUSTOM]},
    ),
    "fields of a wrong type": (
        [{"role": 5, "tool_calls": [{"index": 0, "id": 5, "function": {"arguments": 5}}]}],
        {"content": ""},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("deltas", "sent"), TURNS.values(), ids=TURNS)
def test_a_turn_is_sent_back_with_what_its_provider_wants(
    deltas: list[JsonObject], sent: JsonObject
) -> None:
    assert message(deltas).to_message() == {"role": "assistant", **sent}


@pytest.mark.parametrize("said", [None, "", []], ids=str)
@pytest.mark.parametrize(
    ("word", "content"), [("null", {"content": None}), ("empty", {"content": ""}), ("absent", {})]
)
def test_the_content_beside_calls_is_as_the_server_wants_it(
    word: Literal["null", "empty", "absent"], content: JsonObject, said: object
) -> None:
    beside = message([{"content": said}, {"tool_calls": [FRAGMENT]}])
    sent = beside.to_message(content_beside_calls=word)
    assert sent == {"role": "assistant", **content, "tool_calls": [CALL]}
    assert message([{"content": said}]).to_message(content_beside_calls=word).get("content") == ""
    spoken = message([{"content": "Hi", "tool_calls": [FRAGMENT]}])
    assert spoken.to_message(content_beside_calls=word).get("content") == "Hi"


@pytest.mark.parametrize("name", ["f", None])
@pytest.mark.parametrize("arguments", ['{"a": ', "{}", ""])
@pytest.mark.parametrize("finish_reason", [None, "length", "stop"])
def test_a_call_that_was_cut_or_has_no_name_is_left_out_in_its_old_form_too(
    name: str | None, arguments: str, finish_reason: str | None
) -> None:
    tool = {"name": name, "arguments": arguments}
    old, new = (
        fed([delta(fields, finish_reason=finish_reason)]).snapshot().choices[0].message.to_message()
        for fields in ({"function_call": tool}, {"tool_calls": [{"index": 0, "function": tool}]})
    )
    is_sent = name is not None and (arguments == "{}" or finish_reason == "stop")
    assert ("function_call" in old) is ("tool_calls" in new) is is_sent
    assert old.get("content") == new.get("content") == (None if is_sent else "")


def test_another_word_for_the_content_beside_calls_is_refused() -> None:
    with pytest.raises(ValueError, match='"null", "empty" or "absent", not None'):
        message([{}]).to_message(content_beside_calls=None)  # type: ignore[arg-type]  # is the point


def test_a_message_shares_nothing_with_the_completion() -> None:
    ours = message([{"thinking_blocks": [{"type": "thinking", "thinking": "a"}]}])
    before = json.dumps(ours.to_message())
    dict(ours.to_message())["thinking_blocks"].clear()  # type: ignore[attr-defined]  # a list
    assert json.dumps(ours.to_message()) == before


PARAMS: list[pydantic.TypeAdapter[Any]] = [
    pydantic.TypeAdapter(chat.ChatCompletionMessageParam),
    pydantic.TypeAdapter(chat.ChatCompletionAssistantMessageParam),
]


def assert_accepted(sent: object) -> None:
    for params in PARAMS:
        read = params.validate_python(sent, strict=True)
        list(read.get("tool_calls") or ())  # an iterable is validated as it is read


@pytest.mark.parametrize("name", TURNS)
def test_openais_request_types_take_a_message(name: str) -> None:
    assert_accepted(message(TURNS[name][0]).to_message())


@pytest.mark.many
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_openais_request_types_take_the_messages_of_every_case(case: object) -> None:
    for choice in snapshot(case.data).choices:  # type: ignore[attr-defined]
        assert_accepted(choice.message.to_message())


def test_openais_request_types_take_the_messages_of_every_recorded_stream(
    corpus_stream: Path,
) -> None:
    for choice in snapshot(corpus_stream.read_bytes()).choices:
        assert_accepted(choice.message.to_message())


# --- web frameworks -----------------------------------------------------------------------

TOKENS = {"content": [{"token": "Hi", "bytes": None}], "tokens": ["Hi"]}
TEXT: JsonObject = {
    "object": "text_completion",
    "choices": [{"index": 0, "finish_reason": "stop", "logprobs": TOKENS, "text": "Hi"}],
}


@pytest.mark.parametrize("data", [WHOLE, TEXT], ids=["chat", "text"])
def test_fastapi_writes_a_completion_in_the_apis_shape(data: JsonObject) -> None:
    completion = ChatCompletion.from_dict(data)
    # What its encoder calls for a result without a type, then what its fields do for one with.
    assert dict(completion) == completion.to_dict() == data
    field = pydantic.TypeAdapter(ChatCompletion)
    assert field.validate_python(completion) is completion
    assert json.loads(field.dump_json(completion)) == completion.to_dict()
    assert field.json_schema(mode="serialization")["type"] == "object"


def test_parts_of_a_completion_are_dicts_in_the_apis_shape_too() -> None:
    choice = ChatCompletion.from_dict(WHOLE).choices[0]
    assert dict(choice) == WHOLE["choices"][0]  # type: ignore[index]  # a list
    assert dict(choice.message) == WHOLE["choices"][0]["message"]  # type: ignore[index]  # as above


def test_pydantic_reads_a_completion_from_the_apis_shape() -> None:
    class Row(pydantic.BaseModel):
        completion: ChatCompletion

    row = Row.model_validate({"completion": WHOLE})
    assert row.completion == ChatCompletion.from_dict(WHOLE)
    assert Row.model_validate_json(row.model_dump_json()) == row
    for odd in ({"id": 5}, "x"):
        with pytest.raises(pydantic.ValidationError, match="Expected"):
            Row.model_validate({"completion": odd})


# --- openai's object ----------------------------------------------------------------------


def test_openais_object_has_all_that_ours_has() -> None:
    ours = ChatCompletion.from_dict(VALID)
    theirs = ours.to_openai()
    assert type(theirs) is chat.ChatCompletion
    assert theirs.choices[0].message.content == "Hi"
    calls = theirs.choices[0].message.tool_calls or []
    assert [call.type for call in calls] == ["function", "custom"]
    assert theirs.model_dump(exclude_unset=True) == ours.to_dict()
    theirs.choices.clear()  # they share nothing
    assert ours == ChatCompletion.from_dict(VALID)


def test_without_openai_the_error_names_it() -> None:
    code = """
import sys
sys.modules["openai"] = None
from accumulator import ChatCompletion
try:
    ChatCompletion().to_openai()
except ImportError as error:
    print(error)
"""
    assert "pip install openai" in run_by_itself(code).stdout


# What its types require, and some server does differently.
REFUSED = {
    "Field required",
    "Input should be a valid string",  # content, where Mistral sends parts
    "Input should be 'stop', 'length', 'tool_calls', 'content_filter' or 'function_call'",
    "Input should be 'auto', 'default', 'flex', 'scale'",
    "Input should be 'custom'",  # the other kind of call, which it tries as well
}


def test_a_recorded_stream_is_openais_object_or_the_refusal_is_explained(
    corpus_stream: Path,
) -> None:
    ours = snapshot(corpus_stream.read_bytes())
    try:
        theirs = ours.to_openai()
    except ValueError as error:
        assert isinstance(error, pydantic.ValidationError)
        for found in error.errors():
            named = [step for step in found["loc"] if step != "message"]
            assert named, found
            assert any(found["msg"].startswith(reason[:60]) for reason in REFUSED), found
            assert found["loc"][-1] != "role"
    else:
        dumped = theirs.model_dump(exclude_unset=True, warnings="error")
        expected = ours.to_dict()
        for choice in expected["choices"]:  # type: ignore[attr-defined]
            choice["message"].setdefault("role", "assistant")
            for call in choice["message"].get("tool_calls", ()):
                call.setdefault("type", "function")
        assert dumped == expected


def test_most_recorded_streams_are_openais_objects(corpus: Path) -> None:
    refused = 0
    bodies = [path.read_bytes() for path in corpus.glob("*.sse")]
    for body in bodies:
        try:
            snapshot(body).to_openai()
        except ValueError:
            refused += 1
    assert refused <= 26, "more than lack an id, a finish reason, or have values of their own"


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"id": None}, ("id",)),
        ({"created": None}, ("created",)),
        ({"model": None}, ("model",)),
        ({"service_tier": "on_demand"}, ("service_tier",)),
        ({"choices": [{"index": 0, "message": {"content": "a"}}]}, ("choices", 0, "finish_reason")),
        (
            {"choices": [{"index": 0, "message": {"content": []}, "finish_reason": "stop"}]},
            ("choices", 0, "message", "content"),
        ),
    ],
)
def test_what_did_not_arrive_is_not_made_up(change: JsonObject, path: tuple[object, ...]) -> None:
    completion = ChatCompletion.from_dict({**VALID, **change})
    with pytest.raises(ValueError, match=str(path[-1])) as refused:
        completion.to_openai()
    assert isinstance(refused.value, pydantic.ValidationError)
    assert refused.value.errors()[0]["loc"] == path
