"""Chunks that add up to a completion again: SPEC law 5, and what a reader of them may expect."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import reference
from every_field import WHOLE
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import ODD_STREAMS, STREAMS, bodies
from streamed import deltas, fed, read_whole, spoil
from test_conformance import CASES, Case, same

from accumulator import (
    ChatCompletion,
    Choice,
    Message,
    ServerError,
    ToolCall,
    accumulate,
    split,
)
from accumulator.replay import sse

JsonObject = dict[str, object]
By = Literal["words"] | int

MANNERS = st.one_of(st.just("words"), st.integers(1, 5))
every_manner = pytest.mark.parametrize("by", ["words", 1])


def assert_law_5(completion: ChatCompletion, by: By = "words") -> None:
    again = fed(split(completion, by=by)).snapshot()
    assert again == completion
    assert same(completion.to_dict(), again.to_dict())
    assert read_whole(b"".join(sse(split(completion, by=by)))).snapshot() == completion


def are_told_apart(choice: Choice) -> bool:
    """Return whether no two tool calls come out as one; see `split`."""
    sharing = defaultdict[str | None, list[ToolCall]](list)
    for call in choice.message.tool_calls or ():
        if call.id or not call.name:
            sharing[call.id or None].append(call)
    return all(
        sum(not is_whole(call) for call in calls) <= 1
        and (id is None or len(calls) == 1 or all(call.name for call in calls))
        for id, calls in sharing.items()
    )


def is_whole(call: ToolCall) -> bool:
    has_input = call.custom is not None and bool(call.custom.input)
    return has_input or reference.is_whole(call.arguments or "")


# --- law 5 --------------------------------------------------------------------------------


@given(bodies(ODD_STREAMS), MANNERS)
def test_law_5_whatever_a_stream_gave_is_given_back(body: bytes, by: By) -> None:
    completion = read_whole(body).snapshot()
    assume(all(map(are_told_apart, completion.choices)))
    assert_law_5(completion, by)


@given(STREAMS, MANNERS)
def test_law_5_holds_for_the_completion_of_chunks(chunks: list[JsonObject], by: By) -> None:
    completion = fed(chunks).snapshot()
    assume(all(map(are_told_apart, completion.choices)))
    assert_law_5(completion, by)
    # A completion does not say whether `[DONE]` ended it, but it does say what its arguments are.
    told = {problem.kind for problem in fed(split(completion, by=by)).problems}
    assert told <= {"no_finish_reason", "invalid_arguments", "invalid_field", "server_error"}
    if (completion.choices or completion.usage) and "server_error" not in told:
        assert accumulate(split(completion, by=by)) == completion


@every_manner
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_law_5_holds_for_every_conformance_case(case: Case, by: By) -> None:
    assert_law_5(read_whole(case.data).snapshot(), by)


def test_law_5_holds_for_every_recorded_stream(corpus_stream: Path) -> None:
    completion = read_whole(corpus_stream.read_bytes()).snapshot()
    assert_law_5(completion)
    assert_law_5(completion, 3)


def calls(*fragments: JsonObject) -> list[JsonObject]:
    return deltas(*({"tool_calls": [fragment]} for fragment in fragments))


def more(index: int, arguments: str, **fields: object) -> JsonObject:
    return {"index": index, "function": {"arguments": arguments}, **fields}


def named(index: int, name: str, arguments: str, **fields: object) -> JsonObject:
    return {"index": index, "function": {"name": name, "arguments": arguments}, **fields}


def choice(**fields: object) -> JsonObject:
    return {"choices": [fields]}


ODD: dict[str, list[JsonObject]] = {
    "calls with one id": calls(named(0, "f", "{}", id="x"), named(1, "g", '{"a": 1}', id="x")),
    "calls with one id, the first incomplete in the end": calls(
        named(0, "f", "[1] ", id="x"), named(1, "g", "2", id="x"), more(0, "and more")
    ),
    "calls with one id, the last of them incomplete": calls(
        named(1, "f", "{}", id="x"), named(0, "g", '{"a"', id="x")
    ),
    "calls with one id, the first of them without a name": calls(
        more(5, "[]", id="x"), named(2, "g", "", id="x")
    ),
    "calls with one id, numbers as arguments": calls(
        named(0, "f", "12", id="x"), named(1, "g", "-3", id="x"), named(2, "h", "1" * 500, id="y"),
        more(0, "3 4"),
    ),
    "custom calls with one id": calls(
        {"index": 0, "id": "x", "custom": {"name": "f", "input": "{}"}},
        {"index": 1, "id": "x", "custom": {"name": "g", "input": "free text"}},
    ),
    "calls with empty ids": calls(named(0, "f", "", id=""), named(1, "f", "", id="")),
    "a call at an index that is none": calls({"index": "x", "id": "a"}, named(1, "f", "{}")),
    "a call's fields of a wrong type": calls(
        {"index": 0, "id": 5, "type": {}, "function": {"name": [], "arguments": 5}},
        named(0, "f", "{}", id="x", type="function"),
        {"index": 0, "function": 5, "custom": "text"},
    ),
    "a choice's fields of a wrong type": [
        choice(delta=5, finish_reason=5, logprobs="x", usage=7),
        choice(message=[5]),
        choice(finish_reason="stop", logprobs={"content": [5, {"token": "a"}], "refusal": 5}),
    ],
    "a chunk's fields of a wrong type, beside others": [
        {"id": 5, "created": "x", "model": [], "service_tier": {}, "moderation": 5, "usage": "x"},
        {"id": "x", "created": 5, "model": "m", "service_tier": "t", "moderation": {"a": None}},
    ],
    "entries among the top tokens that are none": [
        choice(logprobs={"content": [{"token": "a", "top_logprobs": [{"token": "a"}, 5, None]}]})
    ],
    "audio that is no base64, beside some that is": [
        choice(delta={"audio": {"data": "no base64", "id": 5}}),
        choice(delta={"audio": {"data": "AAEC", "id": "x", "transcript": ""}}),
    ],
    **{
        f"details of two types, and then of the type {odd!r}": deltas(*(
            {"reasoning_details": [{"index": 0, "type": type_, "text": "x", **vendors}]}
            for type_ in ("a", "b", odd)
        ))
        for odd, vendors in (("", {}), ("", {"v": 1}), (5, {}))
    },
    "empty texts": [
        choice(delta=dict.fromkeys("role content refusal reasoning vendor channel".split(), "")),
        choice(delta={"function_call": {"name": "", "arguments": ""}}),
        choice(delta={"audio": {"transcript": "", "data": ""}}),
        choice(logprobs={"content": [], "refusal": []}),
    ],
    "an empty role, then one of a wrong type": deltas({"role": "", "content": "a b"}, {"role": 5}),
    "tokens that spell a list of no parts": [
        choice(delta={"content": []}, logprobs={"content": [{"token": "[]"}]})
    ],
    "tokens that spell a part": [
        choice(delta={"content": [{}]}, logprobs={"content": [{"token": "[{}]"}]})
    ],
    "empty parts": [choice(delta={"content": [], "annotations": [], "audio": {}})],
    "parts": [choice(delta={"content": [
        {"type": "thinking", "thinking": [{"type": "text", "text": "two words"}, 5]},
        {"type": "text", "text": "two words", "vendor": {"a": None}},
        {"type": "thinking", "thinking": "two words", "signature": "s"},
        {"type": "reference", "reference_ids": [1, 2]},
        {"type": "text"},
        7,
    ]})],
}  # fmt: skip


@every_manner
@pytest.mark.parametrize("chunks", ODD.values(), ids=ODD)
def test_law_5_holds_where_servers_are_odd(chunks: list[JsonObject], by: By) -> None:
    assert_law_5(fed(chunks).snapshot(), by)


def message(**fields: object) -> JsonObject:
    return {"choices": [{"index": 0, "message": fields, "finish_reason": "stop"}]}


def answers(*contents: tuple[int, str]) -> JsonObject:
    return {"choices": [{"index": i, "message": {"content": text}} for i, text in contents]}


ENDED: JsonObject = {"index": 0, "message": {}}
COUNT: JsonObject = {"prompt_tokens": 1}
COUNTS = {**COUNT, "completion_tokens": 2}
# What an answer that was not streamed can contain but no stream gives, and what becomes of it.
NO_STREAM: dict[str, tuple[JsonObject, JsonObject]] = {
    "a null of a vendor": ({"vendor": None, "choices": []}, {"choices": []}),
    "no calls": (message(tool_calls=[]), message()),
    "an empty finish reason": ({"choices": [{**ENDED, "finish_reason": ""}]}, {"choices": [ENDED]}),
    "neighbouring texts": (
        message(content=[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
        message(content=[{"type": "text", "text": "ab"}]),
    ),
    "a part that is a string": (
        message(content=["a", ""]), message(content=[{"type": "text", "text": "a"}])
    ),
    "entries with one index": (
        message(reasoning_details=[{"index": 0, "text": text} for text in "ab"]),
        message(reasoning_details=[{"index": 0, "text": "ab"}]),
    ),
    "calls with one id that nothing tells apart": (
        message(tool_calls=[{"id": "x"}, {"id": "x"}]), message(tool_calls=[{"id": "x"}])
    ),
    "choices out of order, with one index": (
        answers((1, "b"), (0, "a"), (1, "c")), answers((0, "a"), (1, "bc"))
    ),
    "another object": ({"object": "text"}, {"object": "chat.completion"}),
    "obfuscation": ({"obfuscation": "x"}, {}),
    "a choice's usage": (
        {"choices": [{**ENDED, "usage": COUNT}]}, {"choices": [ENDED], "usage": COUNT}
    ),
    "a total that is missing": ({"usage": COUNTS}, {"usage": {**COUNTS, "total_tokens": 3}}),
    "Groq's usage, and none beside it": (
        {"x_groq": {"usage": COUNT}}, {"x_groq": {"usage": COUNT}, "usage": COUNT}
    ),
}  # fmt: skip


@pytest.mark.parametrize(("given_", "back"), NO_STREAM.values(), ids=NO_STREAM)
def test_law_5_leaves_out_what_no_stream_gives(given_: JsonObject, back: JsonObject) -> None:
    again = fed(split(ChatCompletion.from_dict(given_))).snapshot()
    assert again == ChatCompletion.from_dict(back) != ChatCompletion.from_dict(given_)
    assert_law_5(again)  # once through, it is what a stream gives


TOGETHER: dict[str, list[JsonObject]] = {
    "two calls without id and name that are cut, between whole ones": calls(
        more(0, '{"a'), named(1, "f", "[1]", id="x"), more(2, '{"b'), named(3, "g", "{}", id="y")
    ),
    "calls with one id, two of them with more than whole arguments": calls(
        named(0, "f", "{}", id="x"), named(1, "g", "{}", id="x"), more(0, "5"), more(1, "5")
    ),
}  # fmt: skip


@every_manner
@pytest.mark.parametrize("chunks", TOGETHER.values(), ids=TOGETHER)
def test_calls_that_nothing_tells_apart_come_out_as_one_and_lose_nothing(
    chunks: list[JsonObject], by: By
) -> None:
    completion = fed(chunks).snapshot()
    assert not are_told_apart(completion.choices[0])
    again = fed(split(completion, by=by)).snapshot()
    before, after = (c.choices[0].message.tool_calls or () for c in (completion, again))
    assert len(after) == len(before) - 1
    assert sorted("".join(call.arguments or "" for call in after)) == sorted(
        "".join(call.arguments or "" for call in before)
    )
    assert_law_5(again, by)


def test_audio_that_is_no_base64_goes_whole_to_its_extras() -> None:
    data = "no base64 " * 1000
    again = fed(split(ChatCompletion.from_dict(message(audio={"data": data})))).snapshot()
    audio = again.choices[0].message.audio
    assert audio is not None
    assert (audio.data, audio.extra) == (None, {"data": data})
    assert_law_5(again)


def test_an_error_is_sent_last_and_fails_the_stream() -> None:
    answer = {"error": {"message": "no"}, "usage": {"prompt_tokens": 1}, **message(content="Hi")}
    with pytest.raises(ServerError) as failed:
        accumulate(split(ChatCompletion.from_dict(answer)))
    assert failed.value.error == {"message": "no"}
    expected = ChatCompletion.from_dict({n: v for n, v in answer.items() if n != "error"})
    assert failed.value.partial == expected


def test_a_completion_without_a_finish_reason_is_given_back_in_every_form_and_on_record() -> None:
    """It does not say whether `[DONE]` ended it; else nobody could go on from a cache of it."""
    completion = ChatCompletion.from_dict({"choices": [{"index": 0, "message": {"content": "a"}}]})
    for whole in (completion, ChatCompletion.from_dict({"choices": [], "usage": COUNT})):
        for stream in (split(whole), list(split(whole)), sse(split(whole))):
            assert accumulate(stream) == whole
    assert [problem.kind for problem in fed(split(completion)).problems] == ["no_finish_reason"]
    *_, last = split(completion)
    assert json.loads(json.dumps(last)) == last == {"object": last["object"], "choices": []}


def test_openais_completion_is_split_as_ours_is() -> None:
    types = pytest.importorskip("openai.types.chat", reason="an SDK installed for the tests only")
    message = {"role": "assistant", "content": "Hi", "channel": "final"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    data = {**WHOLE, "choices": [choice]}
    del data["moderation"]  # to which openai's class adds nulls
    theirs = types.ChatCompletion.model_validate(data)
    again = accumulate(split(theirs))
    assert again == accumulate(split(ChatCompletion.from_dict(data)))
    assert again.to_openai() == theirs
    with pytest.raises(TypeError, match="split makes"):
        sse(theirs)


REFUSED: dict[str, tuple[Callable[[Any], object], list[object], type[Exception], str]] = {
    "no completion": (split, [WHOLE, "x", None, []], TypeError, r"ChatCompletion\.from_dict"),
    "another size": (
        lambda by: split(ChatCompletion(), by=by),
        [0, -1, True, 2.0, "lines", None], ValueError, "words",
    ),
    "no chunks": (sse, [WHOLE, ChatCompletion.from_dict(WHOLE)], TypeError, "split makes"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "wrong", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_refused_at_once_with_what_to_do(
    call: Callable[[Any], object], wrong: list[object], error: type[Exception], message: str
) -> None:
    for each in wrong:
        with pytest.raises(error, match=message):
            call(each)


# --- what a reader may expect -------------------------------------------------------------


def brought_by(data: JsonObject, by: By = "words") -> list[Any]:
    """Return the deltas of a completion's chunks."""
    chunks: Any = split(ChatCompletion.from_dict(data), by=by)
    return [c["delta"] for chunk in chunks for c in chunk["choices"] if c.get("delta")]


def texts(data: JsonObject, name: str, by: By = "words") -> list[Any]:
    return [delta[name] for delta in brought_by(data, by) if delta.get(name)]


@pytest.mark.parametrize("name", ["content", "reasoning", "reasoning_content", "refusal", "vendor"])
@pytest.mark.parametrize(
    ("by", "pieces"),
    [
        ("words", ["The", " quick", "\n 日本語の文 "]),
        (9, ["The quick", "\n 日本語の文 "]),
        (100, ["The quick\n 日本語の文 "]),
    ],
)
def test_texts_are_cut_at_words_or_to_size(name: str, by: By, pieces: list[str]) -> None:
    assert texts(message(**{name: "The quick\n 日本語の文 "}), name, by) == pieces


def test_a_text_without_blanks_is_cut_too() -> None:
    assert all(len(str(piece)) <= 24 for piece in texts(message(content="語" * 1000), "content"))


def test_a_call_comes_with_its_id_and_name_first_and_then_its_arguments() -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "get weather", "arguments": '{"city": "Paris", "days": 3}'},
        "extra_content": {"google": {"thought_signature": "c2ln"}},
    }
    custom = {"id": "call_2", "type": "custom", "custom": {"name": "c", "input": "one two"}}
    found = [f for each in texts(message(tool_calls=[call, custom]), "tool_calls") for f in each]
    assert found[0] == {**call, "index": 0, "function": {"name": "get weather", "arguments": ""}}
    until = [fragment["index"] for fragment in found].index(1)
    assert all(fragment.keys() == {"index", "function"} for fragment in found[1:until])
    assert until > 3
    assert found[until:] == [
        {**custom, "index": 1, "custom": {"name": "c", "input": ""}},
        {"index": 1, "custom": {"input": "one"}},
        {"index": 1, "custom": {"input": " two"}},
    ]


@pytest.mark.parametrize(
    ("content", "tokens", "by", "spread"),
    [
        ("Hello you", ["He", "llo", " you"], 4, [("He", 1), ("llo", 1), (" you", 1)]),
        ("one two three", [*"0123456"], "words", [("one", 3), (" two", 3), (" three", 1)]),
    ],
    ids=["are the text", "are not the text"],
)
def test_tokens_come_with_the_pieces_of_their_text(
    content: str, tokens: list[str], by: By, spread: list[tuple[str, int]]
) -> None:
    entries = [{"token": token, "logprob": -1.0, "bytes": None} for token in tokens]
    choice = {"index": 0, "message": {"content": content}, "logprobs": {"content": entries}}
    chunks: Any = split(ChatCompletion.from_dict({"choices": [choice]}), by=by)
    found = [each for chunk in chunks for each in chunk["choices"] if each.get("logprobs")]
    given = [each["logprobs"]["content"] for each in found]
    assert [token for tokens in given for token in tokens] == entries
    contents = [each["delta"]["content"] for each in found]
    assert [*zip(contents, map(len, given), strict=True)] == spread


def test_usage_is_last_and_the_finish_reason_after_all_content() -> None:
    chunks: list[Any] = list(split(ChatCompletion.from_dict(WHOLE)))
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == WHOLE["usage"]
    assert not any("usage" in chunk for chunk in chunks[:-1])
    reasons = [c["finish_reason"] for chunk in chunks for c in chunk["choices"]]
    assert reasons == [None] * (len(reasons) - 1) + ["tool_calls"]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert {chunk["id"] for chunk in chunks} == {"chatcmpl-1"}


def test_choices_come_in_turn() -> None:
    choices = [{"index": i, "message": {"content": "a b"}} for i in range(3)]
    chunks: Any = split(ChatCompletion.from_dict({"choices": choices}))
    indices = [c["index"] for chunk in chunks for c in chunk["choices"]]
    assert indices == [0, 1, 2] * (len(indices) // 3)


@pytest.mark.parametrize("name", ["parts", "a chunk's fields of a wrong type, beside others"])
def test_chunks_are_json_and_share_nothing_with_the_completion(name: str) -> None:
    for completion in (ChatCompletion.from_dict(WHOLE), fed(ODD[name]).snapshot()):
        before = json.dumps(completion.to_dict())
        chunks = list(split(completion))
        assert json.loads(json.dumps(chunks)) == chunks
        spoil(chunks)
        assert json.dumps(completion.to_dict()) == before


def test_a_list_that_grows_comes_entry_by_entry() -> None:
    images = [{"type": "image_url", "image_url": {"url": f"data:{i}"}} for i in range(3)]
    details = [{"type": "reasoning.text", "index": i, "text": "a b"} for i in range(2)]
    data = message(images=images, reasoning_details=details, annotations=[1, 2], vendor=[])
    assert texts(data, "images") == [[image] for image in images]
    assert texts(data, "reasoning_details") == [[detail] for detail in details]
    assert texts(data, "annotations") == [[1], [2]]
    assert [delta["vendor"] for delta in brought_by(data) if "vendor" in delta] == [[]]


def test_a_body_is_one_event_a_piece_and_ends_in_done() -> None:
    chunks = list(split(ChatCompletion.from_dict(WHOLE)))
    pieces = list(sse(chunks))
    assert all(piece.startswith(b"data: ") and piece.endswith(b"\n\n") for piece in pieces)
    assert [json.loads(piece[6:]) for piece in pieces[:-1]] == chunks
    assert pieces[-1] == b"data: [DONE]\n\n"


def test_a_body_holds_even_half_a_surrogate_pair() -> None:
    [event, _] = sse([{"vendor": "a\ud83d"}])
    assert json.loads(event[6:]) == {"vendor": "a\ud83d"}


def test_a_body_ends_without_done_where_its_chunks_fail() -> None:
    def failing() -> Iterator[JsonObject]:
        yield {}
        raise OSError("gone")

    body = sse(failing())
    assert next(body) == b"data: {}\n\n"
    with pytest.raises(OSError, match="gone"):
        next(body)


@pytest.mark.parametrize(
    ("index", "told"), [(2, True), (1023, True), (1024, False), (10**9, False)]
)
def test_an_index_that_could_not_be_read_is_told_by_its_place_within_the_limit(
    index: int, told: bool
) -> None:
    extra = {"index": "two", "vendor": "b"}
    message = Message(role="assistant", content="x")
    odd = ChatCompletion(choices=(Choice(index=index, message=message, extra=extra),))
    chunks: list[Any] = [*split(odd)]
    assert all(len(chunk["choices"]) <= 1024 for chunk in chunks)
    found = fed(chunks).snapshot().choices[-1]
    assert (found.index, found.message.content) == (index, "x")
    assert found.extra == (extra if told else {"vendor": "b"})
