"""The result: the API's shape and back, and the message for the next request."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Sequence

import attrs
import pytest
from every_field import WHOLE
from streamed import fed, spoil

from accumulator import ChatCompletion, Function, ParseError, TokenLogprob, ToolCall, accumulate
from accumulator.completion import FunctionCall, Timing


def test_to_dict_gives_the_apis_shape_and_from_dict_reads_it() -> None:
    completion = ChatCompletion.from_dict(WHOLE)
    assert completion.to_dict() == WHOLE == json.loads(completion.to_json())
    for text in json.dumps(WHOLE), json.dumps(WHOLE).encode(), completion.to_json():
        assert ChatCompletion.from_json(text) == completion


def test_fields_have_types_and_what_has_none_is_extra() -> None:
    completion = ChatCompletion.from_dict(WHOLE)
    choice = completion.choices[0]
    assert completion.extra == {"citations": ["https://example.org"]}
    assert choice.message.tool_calls is not None
    assert choice.message.tool_calls[0].function == Function(
        name="f", arguments="{}", extra={"vendor": 1}
    )
    assert content_of(completion)[0].bytes == (72, 105)
    assert completion.usage is not None
    assert completion.usage.extra == {"cost": 0.25}


def test_a_whole_completion_read_as_a_stream_is_itself() -> None:
    assert accumulate([WHOLE]).to_dict() == WHOLE


def test_instances_are_frozen_and_what_to_dict_gives_is_the_callers() -> None:
    completion = ChatCompletion.from_dict(WHOLE)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        completion.id = "other"  # type: ignore[misc]  # what is wrong is the point
    spoil(completion.to_dict())
    assert completion.to_dict() == WHOLE


def test_a_text_of_a_class_of_its_own_is_kept() -> None:
    class Word(str):
        __slots__ = ()

    message = attrs.evolve(ChatCompletion.from_dict(WHOLE).choices[0].message, content=Word("Hi"))
    assert dict(message)["content"] == "Hi"
    assert ChatCompletion.from_dict({"choices": [{"index": 0, "message": dict(message)}]})


def test_fields_that_the_api_always_sends_are_null_and_others_left_out() -> None:
    out = ChatCompletion.from_dict({"choices": [{"index": 0, "message": {}}]}).to_dict()
    assert out == {
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": None, "refusal": None},
                "finish_reason": None,
                "logprobs": None,
            }
        ],
    }


def with_tokens(tokens: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "message": {}, "logprobs": {"content": tokens}}]}


@pytest.mark.parametrize("text", [5, ["a"], {"a": 1}, "a"])
def test_a_vendors_field_by_the_name_of_a_legacy_one_is_read_back(text: object) -> None:
    choice = {"index": 0, "delta": {"content": "a"}, "finish_reason": "stop", "text": text}
    completion = accumulate([{"choices": [choice]}])
    assert completion.choices[0].extra == {"text": text}
    assert ChatCompletion.from_dict(completion.to_dict()) == completion


@pytest.mark.parametrize("odd", ["x", True, 1.5, [], {"cached_tokens": "x", "v": 1}])
@pytest.mark.parametrize("name", ["prompt_tokens", "total_tokens", "prompt_tokens_details"])
def test_a_usage_of_x_groq_is_read_back_whatever_is_wrong_in_it(name: str, odd: object) -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "queue_time": 0.5, name: odd}
    choice = {"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}
    completion = accumulate([{"choices": [choice], "x_groq": {"usage": usage}}])
    assert completion.usage is not None
    assert completion.usage.extra == {"queue_time": 0.5}
    assert completion.extra == {"x_groq": {"usage": usage}}
    assert ChatCompletion.from_json(completion.to_json()) == completion


def test_a_legacy_text_is_read_back_where_no_chunk_says_what_it_is() -> None:
    completion = accumulate([{"choices": [{"index": 0, "text": "a", "finish_reason": "stop"}]}])
    assert completion.choices[0].text == "a"
    assert ChatCompletion.from_dict(completion.to_dict()) == completion


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"id": 5}, r"\$\.id"),
        ({"choices": [{"index": "0", "message": {}}]}, r"\$\.choices\[0\]\.index"),
        ({"choices": [{"index": 0, "message": {"content": 5}}]}, r"message\.content"),
        ({"choices": [{"index": 0, "message": {"annotations": "x"}}]}, r"`array`.*annotations"),
        ({"moderation": 5}, r"`object`, got `int` @ \$\.moderation"),
        ({"choices": [{"index": 0}]}, "message"),
        ({"usage": {"prompt_tokens": True}}, r"\$\.usage\.prompt_tokens"),
        (with_tokens(5), r"logprobs\.content"),
        (with_tokens("Hi"), r"logprobs\.content"),
        (with_tokens([{"logprob": "-1"}]), r"logprobs\.content\[0\]\.logprob"),
        ([], "object"),
    ],
)
def test_from_dict_names_what_does_not_fit(data: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ChatCompletion.from_dict(data)


@pytest.mark.parametrize(
    ("arguments", "complete"),
    [("{}", True), (' {"a": 1} ', True), ("", False), ('{"a": 1', False), ("{}{}", False)],
)
def test_arguments_are_complete_as_one_json_value(arguments: str, complete: bool) -> None:
    assert Function(arguments=arguments).arguments_complete is complete
    assert Function().arguments_complete is False


def with_logprobs(**logprobs: object) -> ChatCompletion:
    return fed([{"choices": [{"index": 0, "logprobs": logprobs}]}]).snapshot()


def content_of(completion: ChatCompletion) -> Sequence[TokenLogprob]:
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    return logprobs.content


def token_logprobs() -> Sequence[TokenLogprob]:
    tokens = [{"token": text, "logprob": -0.5} for text in ("Hi", "!")]
    return content_of(with_logprobs(content=tokens))


MADE = (TokenLogprob(token="Hi", logprob=-0.5), TokenLogprob(token="!", logprob=-0.5))


def test_tokens_that_are_made_late_are_like_a_tuple() -> None:
    assert token_logprobs() == MADE
    assert token_logprobs() == list(MADE)
    assert token_logprobs() == token_logprobs()
    assert token_logprobs() != MADE[:1]
    text: object = "Hi!"
    assert token_logprobs() != text
    assert token_logprobs()[1:] == MADE[1:]
    assert repr(token_logprobs()) == repr(MADE)
    assert hash(token_logprobs()) == hash(MADE)
    assert copy.deepcopy(token_logprobs()) == MADE


TOP = {"token": "a", "logprob": -1.5, "bytes": [97]}
NO_BYTES: dict[str, object] = {"token": "a", "logprob": -1.5, "bytes": None, "top_logprobs": []}
VENDORS: dict[str, object] = {
    **TOP, "top_logprobs": [{**TOP, "v": {"w": [None, 2**64]}}], "extra": {"extra": None}
}  # fmt: skip
# A token as it came, and as it is written.
WRITTEN: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "whole": ({**TOP, "top_logprobs": [TOP]}, {**TOP, "top_logprobs": [TOP]}),
    "no bytes": (NO_BYTES, NO_BYTES),
    "fields in another order": (
        {"v": 1, "top_logprobs": [], "logprob": -1.0, "token": "a", "b": 2},
        {"token": "a", "logprob": -1.0, "bytes": None, "top_logprobs": [], "b": 2, "v": 1},
    ),
    "a vendor's values": (VENDORS, VENDORS),
    "values that do not fit": (
        {"token": 5, "logprob": "x", "bytes": "y", "top_logprobs": [TOP, 7, {"token": [1]}]},
        {"bytes": "y", "top_logprobs": [TOP, {"bytes": None, "token": [1]}], "logprob": "x",
         "token": 5},
    ),
    "nothing": ({}, {"bytes": None}),
}  # fmt: skip


@pytest.mark.parametrize(("token", "written"), WRITTEN.values(), ids=WRITTEN)
def test_tokens_are_written_as_they_came(
    token: dict[str, object], written: dict[str, object]
) -> None:
    completion = with_logprobs(content=[token], refusal=[token])
    expected = json.dumps({"content": [written], "refusal": [written]})
    assert logprobs_in(completion.to_dict()) == expected
    assert logprobs_in(json.loads(completion.to_json())) == expected
    # Entries that were looked at, and kept in a tuple, are written alike.
    choice = completion.choices[0]
    made = attrs.evolve(choice.logprobs, content=tuple(content_of(completion)))  # type: ignore[misc]  # not None
    evolved = attrs.evolve(completion, choices=(attrs.evolve(choice, logprobs=made),))
    for each in evolved, completion:
        assert logprobs_in(each.to_dict()) == expected


def logprobs_in(completion: object) -> str:
    return json.dumps(completion["choices"][0]["logprobs"])  # type: ignore[index]  # JSON


def test_what_a_dict_of_tokens_holds_is_the_callers() -> None:
    token = {**TOP, "v": [1], "top_logprobs": [{**TOP, "v": [2]}]}
    completion = with_logprobs(content=[token])
    before = completion.to_json()
    spoil(completion.to_dict())
    assert completion.to_json() == before


def test_results_are_equal_by_class_and_fields() -> None:
    assert Function(name="f", arguments="{}") == Function(name="f", arguments="{}")
    assert Function(name="f", arguments="{}") != Function(name="f")
    assert Function(name="f") != FunctionCall(name="f")
    text: object = "f"
    assert Function(name="f") != text
    assert hash(Timing(gap_count=1)) == hash(Timing(gap_count=1))
    assert hash(Timing(gap_count=1)) != hash(Timing(gap_count=2))


def test_what_is_equal_has_one_hash_whatever_its_extras_hold() -> None:
    one, other = ChatCompletion.from_dict(WHOLE), ChatCompletion.from_dict(WHOLE)
    assert len({one, other, attrs.evolve(one, id="x")}) == 2
    for each in (one.choices[0], one.choices[0].message, one.usage):
        assert each in {each: 1}


@pytest.mark.parametrize("text", ["", '{"id": "a"', '{"id": 5}', "[]", b"\xff"])
def test_from_json_refuses_what_is_no_completion(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        ChatCompletion.from_json(text)


def test_a_calls_name_and_arguments_are_those_of_its_tool() -> None:
    calls = [*(ChatCompletion.from_dict(WHOLE).choices[0].message.tool_calls or ()), ToolCall()]
    found = [(call.name, call.arguments) for call in calls]
    assert found == [("f", "{}"), ("c", None), (None, None)]


def test_a_vendors_field_is_found_by_the_error_of_who_looks_for_it() -> None:
    completion = ChatCompletion.from_dict(WHOLE)
    with pytest.raises(AttributeError, match=r"in `extra`: \.extra\['citations'\]$"):
        completion.citations  # type: ignore[attr-defined]  # noqa: B018  # that is what is tried
    with pytest.raises(AttributeError, match=r"\['reasoning_details', 'channel'\]") as raised:
        completion.choices[0].message.citations  # type: ignore[attr-defined]  # noqa: B018  # as above
    assert raised.value.name == "citations"
    with pytest.raises(AttributeError, match=r"in `extra`, which is empty$"):
        ToolCall().citations  # type: ignore[attr-defined]  # noqa: B018  # as above
    with pytest.raises(AttributeError, match=r"'Timing' object has no attribute 'extra'$"):
        Timing().extra  # type: ignore[attr-defined]  # noqa: B018  # as above
    assert not hasattr(TokenLogprob(), "_private")
    assert copy.copy(completion) == copy.deepcopy(completion) == completion


CUT = {"id": "x", "type": "function", "function": {"name": "f", "arguments": '{"a": '}}


def test_evolve_and_copies_keep_what_the_stream_told() -> None:
    ended = {
        "index": 0,
        "finish_reason": "length",
        "message": {"content": "{", "tool_calls": [CUT]},
    }
    message = ChatCompletion.from_dict({"choices": [ended]}).choices[0].message
    assert "tool_calls" not in message.to_message()
    assert message.tool_calls is not None
    [call] = message.tool_calls
    for each in (attrs.evolve(call, id="y"), copy.copy(call), pickle.loads(pickle.dumps(call))):
        changed = attrs.evolve(message, tool_calls=(each,), role="assistant")
        assert "tool_calls" not in changed.to_message()
    with pytest.raises(ParseError, match="finish reason 'length'"):
        attrs.evolve(message, content="").content_as(dict)
