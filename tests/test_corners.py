"""Bodies at the corners of the rules: what few servers send, and each kind of it once."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from judged import assert_as_judged
from strategies import rendered
from streamed import Chunk, cut, deltas, fed, read_all, read_whole

from accumulator import Accumulator, ChatCompletion, LimitExceededError
from accumulator.events import Event, FunctionToolCallArgumentsDoneEvent

STOP: dict[str, list[dict[str, object]]] = {"choices": [{"index": 0, "finish_reason": "stop"}]}
BLANK_LINE = b"\n\n"


def sse(*chunks: object) -> bytes:
    return rendered([*chunks])


def arguments(*texts: str) -> list[Chunk]:
    head = {"index": 0, "id": "a", "function": {"name": "f", "arguments": texts[0]}}
    more = [{"index": 0, "function": {"arguments": text}} for text in texts[1:]]
    return deltas(*({"tool_calls": [call]} for call in (head, *more)))


def call(index: int, id_: str, name: str, text: str = "{}") -> object:
    one = {"index": index, "id": id_, "function": {"name": name, "arguments": text}}
    return {"tool_calls": [one]}


def many(**fixed: object) -> list[Chunk]:
    return deltas(*({"content": f"x{number}", **fixed} for number in range(60)))


FUNCTION = {"name": "f", "arguments": " "}
NAMED: list[dict[str, object]] = [
    {"id": "a", "function": {"name": "f", "arguments": "{}"}},
    {"function": FUNCTION},
    {"id": "", "function": FUNCTION},
]
ANNOTATED = {"arguments": "[", "annotations": [{"index": 0, "text": "a"}]}
TWICE = b'data: {"content":"%b","content":"x","choices":[]}\n\n'
END: dict[str, object] = {"delta": {}, "finish_reason": "stop"}
LATE: list[list[dict[str, object]]] = [
    [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}}],
    [END, {"text": "late"}],
    [END],  # so the calls are not judged yet
    [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "x"}}]}}],
]
BODIES: dict[str, bytes] = {
    "a line of a JSON text that looks like one": b'{"choices": [\n{x}\n]}\n' + sse(STOP),
    "a JSON text of nothing": b"[\n]\n" + sse(STOP),
    "bytes that are not UTF-8 where a name stands twice": 4 * (TWICE % b"a")
    + TWICE % b"\xed\xa0\xbd",
    "text behind an end in the same chunk": sse(
        *({"choices": [{"index": 0, **entry} for entry in each]} for each in LATE)
    ),
    "a string over the ends of two lines": b'{"a": "\nx\n}"}\n' + sse(STOP),
    "a bracket in a string over lines, and a list behind it": b'{"a": "\n}\n[{"choices": '
    b'[{"index": 0, "delta": {"content": "x"}}]}]\n' + sse(STOP),
    "a list nested deep": b'[\n{"choices": [{"index": 0, "delta": {"v": %b1%b}}]}\n]\n'
    % (b"[" * 30, b"]" * 30),
    "an escape that is none, among many": sse(*many())
    + rb'data: {"choices": [{"index": 0, "delta": {"content": "\x"}}]}'
    + BLANK_LINE
    + sse(*many()),
    "whole arguments with half a surrogate pair behind them": sse(
        *arguments("{}", "\ud83d"), *deltas({}, finish_reason="tool_calls"), *deltas({})
    ),
    "the name again without an id, and blanks behind whole arguments": sse(
        *deltas(*({"tool_calls": [{"index": 0, "type": "function", **each}]} for each in NAMED))
    ),
    "a list of a blank that JSON has not": sse(STOP) + b"data: [\x0b]" + BLANK_LINE,
    "an object of such a blank": sse(STOP) + b"data: {\x0b}" + BLANK_LINE,
    "a legacy choice with a message that is none": sse(
        {"object": "text_completion", "choices": [{"index": 0, "text": "a", "message": 0}]}, STOP
    ),
    "a CR in a line that ends in CRLF, before a blank line of LF": b'data: {"choices": []}\r1\r\n\n'
    + sse(STOP),
    "a CR in a line that ends in LF, before a blank line of CRLF": b"data:{\re\n\r\n",
    "an empty role, then one of a wrong type": sse(
        *deltas({"role": "", "content": "a"}, {"role": {"a": 1}}), STOP
    ),
    "one string for two fields": sse(*many(vendor="and", other="and")),
    "a name in each chunk": sse(
        *many(tool_calls=[{"index": 0, "id": "a", "function": FUNCTION}])
    ),
    "NaN behind whole arguments": sse(*arguments('{"a": 1}', '{"a": NaN}'), STOP),
    "a number written otherwise": sse(*arguments('{"a": 1}', '{"a": 1.0}'), STOP),
    "no call behind the finish reason": sse(*deltas({"content": "x"}), STOP)
    + sse(*deltas({"tool_calls": [None]}), *deltas({"tool_calls": [{}]}), STOP),
    "an entry whose type is none": sse(
        *deltas(
            {"reasoning_details": [{"index": 0, "type": "a", "text": "x"}]},
            {"reasoning_details": [{"index": 0, "type": 5, "text": "y"}]},
            {"reasoning_details": [{"index": 0, "type": "a", "text": "z"}]},
        )
    ),
    "bytes that are not UTF-8 of another API": b'data: {"candidates": [], "x": "\xff"}\n\n',
    "bytes that are not UTF-8 in a foreign event": b'event: x\ndata: {"x": "\xff"}\n\n' + sse(STOP),
    "a line that is no field behind arguments that are no JSON": sse(*arguments('{"a'), STOP)
    + b"dat"
    + BLANK_LINE,
    "a page behind the end": b"data: [DONE]\n\ndata: [DONE]\n\n<html>\n</html>\n\n",
    "a page in the event that is the end": b"data: [DONE]\n<html>\n</html>\n",
    "a page behind the one end": b"data: null\n\ndata: [DONE]\n\n<html>\n\n",
    "a page behind nothing": b"data: null\n\n<html>\n</html>\n\ndata: [DONE]\n\n",
    "bytes that are not UTF-8 in a broken JSON text": b'[\n{"a": "\xff\n' + sse(STOP),
    "bytes that are not UTF-8 in a list": b'[{"choices": []}, {"id": "\xff"}, {"model": "m"}]\n'
    + sse(STOP),
    "legacy text beside content, late": sse(
        {"object": "text_completion", **STOP},
        {"object": "text_completion", "choices": [{"delta": {"content": "x"}, "text": "y"}]},
    ),
    "bytes that are not UTF-8 before more": b'{"a":"\xff"} x\n' + sse(STOP),
    "a list with many brackets": b'[{"choices": [{"index": 0, "delta": {"v": [%b1]}}]}\n]\n'
    % (b"[]," * 100),
    "legacy text beside a delta, late": sse(
        {"object": "text_completion", **STOP},
        *deltas({"content": "x"}, text="y"),
    ),
    "text beside a delta, late": sse(STOP, *deltas({"content": "x"}, text="y")),
    "a message behind content in parts": sse(
        *deltas({"content": [{"type": "text", "text": "x"}]}),
        {"choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}]},
    ),
    "half a character in a usage": sse({"usage": {"prompt_tokens": 1, "v": "\ud83d"}}, STOP),
    "ids that several calls have": sse(
        *deltas(
            call(0, "a", "f"), call(1, "a", "g"), call(2, "a", "h"),
            call(3, "b", "f"), call(4, "b", "g"), call(0, "a", "i"),
        ),
        STOP,
    ),
    "an error of Groq's in an invalid chunk": sse(
        {"choices": [[]], "x_groq": {"error": [None]}}
    ),
    "of an open event's lines only the last is open": b'data: {"choices": []}\ndata: {\ndata: {',
    "annotations of a call, which are a vendor's list": sse(
        *deltas(*[{"tool_calls": [{"index": 0, "function": ANNOTATED}]}] * 2)
    ),
    "a server's own total, where no sum is known": sse(
        {"choices": [], "usage": {"completion_tokens": 1, "total_tokens": -1}}
    ),
    **{
        f"a blank of Unicode, U+{ord(blank):04X}": f"data: {blank}[DONE]\n\n".encode()
        for blank in "\x1c\x85\xa0\u2028"
    },
    **{
        f"a page behind an object of nulls, {nothing}": b"data: %b\n\n<html>\n\ndata: [DONE]\n\n"
        % nothing.encode()
        for nothing in ("{ }", '{"id": null}', '{"vendor": null}')
    },
    "tokens of a legacy completion": sse(
        {
            "object": "text_completion",
            "choices": [
                {"index": 0, "text": "x", "logprobs": {"content": [{"token": "x", "logprob": 0.0}]}}
            ],
        }
    ),
}  # fmt: skip


def reads_of(body: bytes) -> list[list[bytes]]:
    """Return a body whole, in halves, in its events, and byte by byte."""
    *events, rest = body.split(BLANK_LINE)
    by_events = [*(event + BLANK_LINE for event in events), rest]
    return [[body], [*cut(body, len(body) // 2, len(body))], by_events, [*cut(body, 1)]]


@pytest.mark.parametrize("name", BODIES)
def test_the_second_reducer_agrees(name: str) -> None:
    for reads in reads_of(BODIES[name]):
        acc = read_all(reads)
        assert_as_judged(acc, BODIES[name])
        assert acc.problems == read_whole(BODIES[name]).problems


@pytest.mark.parametrize("levels", [1, 900, 100_000])
def test_deep_arguments_said_twice_raise_nothing(levels: int) -> None:
    deep = "[" * levels + "]" * levels
    body = sse(*arguments(f'{{"a": {deep}}}', f'{{"a":{deep}}}'), STOP)
    assert read_whole(body).status == "complete"


@pytest.mark.parametrize("place", [0, 1])
def test_a_list_nested_too_deep_is_a_limit(place: int) -> None:
    entry = b'{"choices": [{"index": 0, "delta": {"v": %b1%b}}]}' % (b"[" * 100_000, b"]" * 100_000)
    with pytest.raises(LimitExceededError):
        read_whole(b"[\n" + place * b"{},\n" + entry + b"\n]\n")


def test_bytes_and_lines_of_one_event() -> None:
    acc = Accumulator()
    acc.feed_sse(b'data: {"choices": [{"index": 0, "delta": ')
    acc.feed_line(b'{"content": "x"}}]}')
    acc.feed_line(b"")
    assert acc.snapshot().choices[0].message.content == "x"


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_a_line_may_hold_several(end: str) -> None:
    chunks = deltas({"content": "a"}, {"content": "b"})
    acc = Accumulator()
    acc.feed_line(sse(*chunks).decode().replace("\n", end))
    acc.feed_line("")
    assert acc.snapshot() == fed(chunks).snapshot()
    assert acc.problems == ()


@pytest.mark.parametrize("choices", [5, [5]])
def test_a_legacy_completion_without_choices_is_refused(choices: object) -> None:
    with pytest.raises(ValueError, match="choices"):
        ChatCompletion.from_dict({"object": "text_completion", "choices": choices})


@pytest.mark.parametrize("error", [SimpleNamespace(), {}, "", None, False])
def test_an_error_without_fields_is_none(error: object) -> None:
    acc = fed([SimpleNamespace(choices=[SimpleNamespace(**STOP["choices"][0])], error=error)])
    assert (acc.status, acc.server_error) == ("complete", None)


def test_what_is_no_chunk_is_the_first_event_in_each_form() -> None:
    chunks = [{"choices": ["x"]}, {"type": "message_start", "message": {}}]
    by_object, by_text = fed(chunks), fed(map(json.dumps, chunks))
    assert by_object.problem_counts == by_text.problem_counts == {"invalid_chunk": 1}
    assert by_object.snapshot() == by_text.snapshot()


def test_the_shape_of_what_was_no_chunk_takes_no_stream_of_another_api() -> None:
    for _ in range(4):  # until the fields of it are known
        acc = read_whole(sse({"choices": []}, {"type": "function", "message": {}, "usage": {}}))
    acc = Accumulator()
    for _ in range(2):
        acc.feed_sse(b'data: {"type": "function", "usage": {"output\n\n')
    acc.feed_sse(sse({"type": "message_start", "message": {}}))
    acc.close()
    assert acc.problem_counts == {"malformed_json": 2, "other_api": 1}


def test_an_object_of_nulls_is_an_input_however_it_is_read() -> None:
    """Whether the typed decoder takes it depends on what came before."""
    calls = [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "x"}}]
    last = {"choices": [{"index": 0, "delta": {"tool_calls": calls}, "finish_reason": "stop"}]}
    for count in range(6):
        acc = read_whole(sse(last) + count * b"data: x\n\n" + b'data: {"id": null}\n\n' * 9)
        [problem] = [each for each in acc.problems if each.kind == "invalid_arguments"]
        assert problem.event == count + 2


def test_an_empty_moderation_is_no_chunk_of_texts_alone() -> None:
    moderations: list[object] = [*[{}] * 90, {"x": 1}, {}, {}, {}]
    ways = Accumulator(), Accumulator(shortcut=False)
    for acc in ways:
        for number, moderation in enumerate(moderations):
            choice = {"index": 0, "delta": {"content": f"word {number}"}}
            acc.feed_sse(sse({"moderation": moderation, "choices": [choice]}))
    assert ways[0].snapshot().moderation == ways[1].snapshot().moderation == {}


@pytest.mark.parametrize("nothing", ["{}", "{ }", " {}", "{}\t", "null ", ' ""', "[ ]"])
def test_what_says_nothing_is_no_event_and_releases_no_done(nothing: str) -> None:
    def call(arguments: str, finish_reason: str | None) -> str:
        delta = {"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]}
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return json.dumps({"choices": [choice]})

    texts = [call("[1", "tool_calls"), nothing, call(",2]", None), "[DONE]"]
    events = [b"data:%b\n\n" % text.encode() for text in texts]
    forms: list[tuple[str, list[Any]]] = [
        ("feed", texts[:3]),
        ("feed_line", [line for text in texts for line in (f"data: {text}", "")]),
        ("feed_sse", events),
        ("feed_sse", [b"".join(events)]),
    ]
    for feed, items in forms:
        done: list[Event] = []
        acc = Accumulator(on_event=done.append)
        for item in items:
            getattr(acc, feed)(item)
        acc.close()
        assert "chunks=2" in repr(acc)
        [event] = [e for e in done if isinstance(e, FunctionToolCallArgumentsDoneEvent)]
        assert event.arguments == "[1,2]"


@pytest.mark.parametrize("end", ["", "\n"])
def test_an_empty_line_ends_a_line_that_a_read_began(end: str) -> None:
    acc = Accumulator()
    acc.feed_sse(b'data: {"choices":[{"delta":{"content":"a"}},')
    acc.feed_line(end)
    acc.feed_sse(sse(STOP))
    assert acc.problem_counts == {"malformed_json": 1}
