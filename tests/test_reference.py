"""The judge itself, on streams whose result is plain to see."""

from __future__ import annotations

import json
from typing import Any

import pytest
import reference

CALL_A = {"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x":'}}
CALL_A_MORE = {"index": 0, "function": {"arguments": "1}"}}
CALL_B = {"index": 0, "id": "b", "function": {"name": "f", "arguments": "{}"}}


def chunk(delta: object, finish_reason: str | None = None, **fields: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}], **fields}


def body(*chunks: object) -> bytes:
    return "".join(f"data: {json.dumps(item)}\n\n" for item in chunks).encode()


def message(outcome: reference.Outcome) -> dict[str, Any]:
    found: dict[str, Any] = outcome.completion["choices"][0]["message"]
    return found


def test_a_whole_completion_has_exactly_these_fields() -> None:
    outcome = reference.reduce_body(
        b'\xef\xbb\xbfdata: {"id":"","created":0,"first":[],"choices":[]}\r\r: comment\r\n\r\n'
        b'data:{"id":"x","object":"chat.completion.chunk","created":7,"model":"m","vendor":1,'
        b'"choices":[{"index":0,"delta":{"role":"assistant","content":"Hel"},"native":null,'
        b'"finish_reason":null}],"usage":null,"obfuscation":"zz"}\r\n\r\n'
        b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"lo"},"logprobs":{"content":['
        b'{"token":"lo","logprob":-1,"bytes":null}]},"finish_reason":"stop"}]}\n\n'
        b'data: {"id":"x","usage":{"prompt_tokens":2,"completion_tokens":3,"s":0.5}}\n\n'
        b'data: {"usage":{"prompt_tokens":1,"s":0.25}}\n\ndata: [DONE]\n\ndata: never read'
    )
    assert outcome == reference.Outcome(
        completion={
            "id": "x",
            "object": "chat.completion",
            "created": 7,
            "model": "m",
            "first": [],
            "vendor": 1,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "Hello", "refusal": None},
                    "finish_reason": "stop",
                    "logprobs": {
                        "content": [{"token": "lo", "logprob": -1, "bytes": None}],
                        "refusal": None,
                    },
                }
            ],
            "usage": {"prompt_tokens": 2, "completion_tokens": 3, "s": 0.5, "total_tokens": 5},
        },
        status="complete",
        problems=[],
    )


@pytest.mark.parametrize(
    ("deltas", "field", "merged"),
    [
        ([{"role": ""}, {"role": "user"}, {"role": "tool"}], "role", "user"),
        ([{"refusal": "n"}, {"refusal": None}, {"refusal": "o"}], "refusal", "no"),
        ([{"channel": "a"}, {"channel": "b"}], "channel", "b"),
        ([{"poem": "a"}, {"poem": "b"}], "poem", "ab"),
        ([{"score": 1}, {"score": 2}], "score", 2),
        ([{"v": {"a": None, "b": 1}}, {"v": {"b": None}}], "v", {"a": None, "b": 1}),
        (
            [
                {"reasoning_details": [{"index": 0, "text": "a", "content": "a"}]},
                {"reasoning_details": [{"index": 0, "text": "b", "content": "b"}]},
            ],
            "reasoning_details",
            [{"index": 0, "text": "ab", "content": "b"}],
        ),
        (
            [{"v": {"text": "a", "k": "a"}}, {"v": {"text": "b", "k": "b"}}],
            "v",
            {"text": "ab", "k": "b"},
        ),
        (
            [{"list": [{"index": 1, "text": "a"}]}, {"list": [{"index": 1, "text": "b"}, 5]}],
            "list",
            [{"index": 1, "text": "ab"}, 5],
        ),
        (
            [{"content": "a"}, {"content": ["b", {"type": "x"}]}, {"content": "c"}],
            "content",
            [{"type": "text", "text": "ab"}, {"type": "x"}, {"type": "text", "text": "c"}],
        ),
        ([{"audio": {"data": "YQ=="}}, {"audio": {"data": "YmM="}}], "audio", {"data": "YWJj"}),
        (
            [{"function_call": {"name": "f"}}, {"function_call": {"arguments": {"x": 1}}}],
            "function_call",
            {"name": "f", "arguments": '{"x":1}'},
        ),
        ([{"content": "\ud83d"}, {"content": "\ude00"}], "content", "\U0001f600"),
        (
            [{"tool_calls": [CALL_A]}, {"tool_calls": [CALL_A_MORE]}, {"tool_calls": [CALL_B]}],
            "tool_calls",
            [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
                {"id": "b", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            ],
        ),
    ],
)
def test_fragments_of_a_delta_merge_by_their_rule(
    deltas: list[object], field: str, merged: object
) -> None:
    outcome = reference.reduce_chunks([chunk(delta) for delta in deltas])
    assert message(outcome)[field] == merged
    assert (outcome.status, outcome.problems) == ("truncated", [])


HI = chunk({"content": "Hi"})


@pytest.mark.parametrize(
    ("given", "status", "problems", "content"),
    [
        (b"", "truncated", [], None),
        (body(HI), "truncated", [], "Hi"),
        (body(HI).rstrip(), "truncated", [], "Hi"),
        (body(HI) + b"data: [DONE]", "complete", ["no_finish_reason"], "Hi"),
        (b"data: [DONE]", "truncated", [], None),
        (b"<html>\n\ndata: [DONE]", "truncated", ["malformed_json"], None),
        (body(None, HI, {}, []) + b"data: : comment\n\n", "truncated", [], "Hi"),
        (b"event: odd\ndata: {}\n\nevent: odd\ndata: 5\n\n", "truncated", ["foreign_event"], None),
        (b'data: {"type": "message_start"}\n\n' + body(HI), "truncated", ["other_api"], None),
        (
            json.dumps(HI, indent=1).encode() + b"data: [DONE]",
            "complete",
            ["no_finish_reason"],
            "Hi",
        ),
        (body(chunk({"content": "Hi"}, "stop")), "complete", [], "Hi"),
        (body(HI).replace(b"\n\n", b"\n") * 2 + b"\n", "truncated", [], "HiHi"),
        (body(HI) + b'data: {"choi', "truncated", ["unterminated_event"], "Hi"),
        (
            body(HI) + b"data: {\n\ndata: 5\n\n",
            "truncated",
            ["malformed_json", "invalid_chunk"],
            "Hi",
        ),
        (body(HI).replace(b"Hi", b"\xff"), "truncated", ["invalid_utf8"], "\ufffd"),
        (body(chunk({"content": "\ud83d"})), "truncated", ["lone_surrogate"], "\ufffd"),
        (
            body({"id": "a"}, {"id": "b", "created": "1"}),
            "truncated",
            ["invalid_field", "id_changed"],
            None,
        ),
        (body(chunk({}, "stop"), HI), "complete", ["content_after_finish"], "Hi"),
        (body(HI | {"error": "no"}, HI), "failed", ["server_error"], "Hi"),
        (body(HI) + b"event: error\ndata: no\n\n", "failed", ["server_error"], "Hi"),
        (body(HI) + b'error: {"error": "no"}\n', "failed", ["server_error"], "Hi"),
        (body(HI) + b'[{"error": "no"}]', "failed", ["server_error"], "Hi"),
        (body(HI | {"x_groq": {"error": "no"}}), "failed", ["server_error"], "Hi"),
    ],
)
def test_the_end_and_the_problems_are_as_the_body_says(
    given: bytes, status: str, problems: list[str], content: str | None
) -> None:
    outcome = reference.reduce_body(given)
    assert (outcome.status, outcome.problems) == (status, problems)
    assert outcome.error == ("no" if status == "failed" else None)
    if outcome.completion["choices"]:
        assert message(outcome)["content"] == content
    else:
        assert content is None


def test_json_lines_and_lines_of_an_event_stream_mix() -> None:
    lines = json.dumps(HI).encode() + b"\n" + body(HI) + b'{"choices":[\n[DONE]\n' + body(HI)
    outcome = reference.reduce_body(lines)
    assert message(outcome)["content"] == "HiHi"
    assert outcome.status == "complete"
    assert outcome.problems == ["malformed_json", "no_finish_reason"]


def test_a_new_tool_starts_a_call_where_the_last_has_no_arguments() -> None:
    calls: list[object] = [
        {"index": 5, "id": "a", "function": {"name": "f"}},
        {"index": 5, "id": "b", "function": {"name": "g"}},
        {"id": "c", "function": {"name": "h"}},
    ]
    outcome = reference.reduce_chunks([chunk({"tool_calls": calls})])
    assert [call["id"] for call in message(outcome)["tool_calls"]] == ["c", "a", "b"]
    assert outcome.problems == []


def test_a_fragment_that_could_be_of_either_call_is_on_record() -> None:
    calls: list[object] = [CALL_A, CALL_B | {"index": 1}, {"function": {"arguments": "!"}}]
    outcome = reference.reduce_chunks([chunk({"tool_calls": calls}), "[DONE]"])
    assert message(outcome)["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":'}},
        {"id": "b", "type": "function", "function": {"name": "f", "arguments": "{}!"}},
    ]
    found = ["ambiguous_tool_call", "arguments_after_end", "no_finish_reason"]
    assert outcome.problems == found
