"""What a server does wrong goes on record with its event, byte and path; strict mode raises it."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from strategies import rendered
from streamed import delta, fed, read_whole

from accumulator import (
    Accumulator,
    AccumulatorError,
    DecodeError,
    IncompleteStreamError,
    Problem,
    ServerError,
    StreamEnd,
    accumulate,
    wrap,
)
from accumulator.asgi import CompletionMiddleware
from accumulator.errors import PROBLEM_KINDS

GOOD = '{"id":"a","choices":[{"index":0,"delta":{"content":"x"}}]}'
FINISH = '{"id":"a","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'


def call(**fields: object) -> str:
    return json.dumps(delta({"tool_calls": [fields]}))


# For each kind: what comes before, the event at fault, the path named, what strict mode raises.
CASES: dict[str, tuple[list[str], str, str | None, type[AccumulatorError]]] = {
    "malformed_json": ([GOOD], '{"id":', None, DecodeError),
    "invalid_chunk": ([GOOD], "[1]", None, DecodeError),
    "server_error": ([GOOD], '{"error":{"message":"overloaded"}}', None, ServerError),
    "invalid_field": (
        [GOOD], json.dumps(delta({"content": 5})), "$.choices[0].delta.content", DecodeError
    ),
    "id_changed": ([GOOD], '{"id":"b"}', "$.id", DecodeError),
    "content_after_finish": ([FINISH], GOOD, "$.choices[0].delta", DecodeError),
    "invalid_utf8": ([GOOD], '{"model":"\udcff"}', None, DecodeError),
    "lone_surrogate": ([GOOD], '{"model":"\\ud83d"}', None, DecodeError),
    "unterminated_event": ([GOOD], '{"id":', None, IncompleteStreamError),
    "ambiguous_tool_call": (
        [call(index=0, id="a", function={"name": "f"}), call(index=1, id="b")],
        call(function={"arguments": "{}"}), "$.choices[0].delta.tool_calls[0]", DecodeError,
    ),
    "arguments_after_end": (
        [call(index=0, id="a", function={"name": "f", "arguments": "{}"})],
        call(index=0, function={"arguments": "x"}),
        "$.choices[0].delta.tool_calls[0].function.arguments", DecodeError,
    ),
    "invalid_arguments": (
        [call(index=0, id="a", function={"name": "f", "arguments": "{"}), FINISH], '{"model":"m"}',
        "$.choices[0].message.tool_calls[0].function.arguments", DecodeError,
    ),
    "no_finish_reason": ([GOOD], "[DONE]", None, DecodeError),
    "foreign_event": ([GOOD], "5\nevent: odd", None, DecodeError),
    "other_api": ([], '{"type":"message_start"}', None, DecodeError),
}  # fmt: skip


def test_every_kind_has_a_case() -> None:
    assert set(CASES) == set(PROBLEM_KINDS)


def body_of(kind: str) -> tuple[bytes, int, int]:
    """Return the case's body, and event and byte of the one at fault."""
    before, fault, _, _ = CASES[kind]
    head = b"".join(b"data: " + text.encode() + b"\n\n" for text in before)
    end = b"" if kind == "unterminated_event" else b"\n\n"
    body = head + b"data: " + fault.encode("utf-8", "surrogateescape") + end
    return body, len(before) + 1, len(head)


@pytest.mark.parametrize("kind", CASES)
def test_a_problem_names_event_byte_and_path(kind: str) -> None:
    body, event, offset = body_of(kind)
    (problem,) = read_whole(body).problems
    assert (problem.kind, problem.event, problem.offset) == (kind, event, offset)
    assert problem.path == CASES[kind][2]
    assert f"event {event}, byte {offset}" in str(problem)
    assert problem.message in str(problem)


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("at_once", [False, True], ids=["two reads", "one read"])
def test_strict_mode_raises_it_at_the_moment_it_is_met(kind: str, at_once: bool) -> None:
    body, event, offset = body_of(kind)
    acc = Accumulator(strict=True)
    with pytest.raises(CASES[kind][3]) as caught:  # noqa: PT012  # whichever meets it first
        for read in [body] if at_once else [body[:offset], body[offset:]]:
            acc.feed_sse(read)
        acc.close()
    error = caught.value
    assert type(error) is CASES[kind][3]
    assert f"event {event}, byte {offset}" in str(error)
    assert (CASES[kind][2] or "") in str(error)
    assert error.problem is not None
    assert error.problem.kind == kind
    assert error.problems == (error.problem,)
    assert error.partial is not None
    assert bool(error.partial.choices) == bool(CASES[kind][0])


@pytest.mark.parametrize("text", ['{"choices": 5}', '{"choices"', '"x"'])
def test_strict_mode_raises_what_a_text_holds(text: str) -> None:
    with pytest.raises(DecodeError):
        Accumulator(strict=True).feed(text)


ENDING = {"server_error", "unterminated_event", "no_finish_reason", "other_api"}
GOING_ON = [kind for kind in CASES if kind not in ENDING]


@pytest.mark.parametrize("kind", GOING_ON)
@pytest.mark.parametrize("strict", [False, True])
def test_events_around_a_problem_stand_and_in_strict_mode_come_with_the_next_call(
    kind: str, strict: bool
) -> None:
    body, _, _ = body_of(kind)
    acc = Accumulator(strict=strict)
    with pytest.raises(CASES[kind][3]) if strict else nullcontext():
        acc.feed_sse(body + b'data:  \n\ndata: {"service_tier":"read"}\n\n')
    assert acc.snapshot().service_tier == (None if strict else "read")
    acc.feed_sse(rendered([delta({}, finish_reason="stop")]))
    assert acc.snapshot().service_tier == "read"
    assert acc.snapshot().choices[0].finish_reason == "stop"
    assert len(acc.problems) == 1


@pytest.mark.parametrize(
    ("line", "offset"),
    [
        (b"[1]\n", 59),
        (b'{"broken\n', 59),
        (b"data: [1]\r\n", 59),
        (b"data: [1]", 59),
        (b"data: [1]", None),
    ],
)
def test_lines_with_their_ends_know_their_byte(line: bytes, offset: int | None) -> None:
    acc = Accumulator()
    end = "" if offset is None else "\n"
    for each in (GOOD + end, line, end):
        acc.feed_line(each)
    acc.close()
    if line.startswith(b"["):
        assert acc.problems == ()  # no event stream has such a line, and JSON Lines no such chunk
    else:
        assert [(problem.event, problem.offset) for problem in acc.problems] == [(2, offset)]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_any_kind_are_taken_and_not_kept(kind: Callable[[bytearray], bytes]) -> None:
    ways = {
        "feed": GOOD.encode(),
        "feed_line": GOOD.encode(),
        "feed_sse": b"data: " + GOOD.encode() + b"\n\n",
    }
    for way, data in ways.items():
        acc = Accumulator()
        for part in (data, data[:20], data[20:]) if way == "feed_sse" else (data, data):
            buffer = bytearray(part)
            getattr(acc, way)(kind(buffer))
            buffer[:] = b"x" * len(buffer)
        assert acc.problems == ()
        assert acc.snapshot().choices[0].message.content == "xx"


@pytest.mark.parametrize("way", ["feed", "feed_sse", "feed_line"])
def test_feeding_after_close_raises_and_closing_again_does_not(way: str) -> None:
    acc = Accumulator()
    acc.close()
    acc.close()
    with pytest.raises(ValueError, match="closed"):
        getattr(acc, way)(b"")


def test_status_follows_the_stream() -> None:
    acc = Accumulator()
    seen = [acc.status]
    for chunk in (GOOD, FINISH, '{"choices":[{"index":1,"delta":{}}]}', "[DONE]"):
        acc.feed(chunk)
        seen.append(acc.status)
    assert seen == ["open", "open", "complete", "open", "complete"]
    assert str(Problem("id_changed", "why", 3)) == "event 3: why"


def raised(acc: Accumulator) -> AccumulatorError:
    with pytest.raises(AccumulatorError) as caught:
        acc.completion()
    return caught.value


# --- words that say what to do ---

LINE = f"data: {GOOD}"
PACKED = [
    gzip.compress(LINE.encode()),
    zlib.compress(LINE.encode()),
    b"\x28\xb5\x2f\xfd" + bytes(9),
]

# What came instead of chunks: by which method, and what the error says after "no chunk was read".
UNREAD: dict[str, tuple[str, list[object], str]] = {
    "nothing": ("feed_sse", [], "nothing came (a stream can be read only once)"),
    "an empty body": ("feed_sse", [b""], "nothing came"),
    "comments": ("feed_sse", [b": ping\n\n"], "only comments, blank lines or [DONE] came"),
    "the end alone": ("feed", ["[DONE]"], "only comments, blank lines or [DONE] came"),
    "empty chunks": ("feed", [{"choices": []}], "the chunks that came are empty"),
    "a page": (
        "feed_sse", [b"<p>502\n"], "not an event stream (an error page?); it begins: '<p>502'"
    ),
    "a long page": ("feed_sse", [b"<p>" * 999], f"it begins: '{'<p>' * 66}<p'"),
    "a long page and an end": ("feed_sse", [b"<p>" * 999 + b"\n\ndata: [DONE]\n\n"], "<p>" * 66),
    "other JSON": ("feed_sse", [b'{"detail":"No"}'], "has no choices: {'detail': 'No'}"),
    "a line, fed": ("feed", [LINE], f"feed_line reads lines, feed_sse a body; it begins: {LINE!r}"),
    "the name of an event, fed": ("feed", ["event: x"], "feed_line reads lines"),
    "a body, fed": ("feed", [f"{LINE}\n\n"], "feed_line reads lines, feed_sse a body"),
    "lines without their ends": (
        "feed_sse",
        [LINE.encode()] * 2,
        'its lines came without line ends; feed_line or framing="lines" reads those; it begins: '
        f"{GOOD + LINE!r}",
    ),
    "long ones": ("feed_sse", [b'data: {"id":"%s"}' % (b"x" * 300)] * 2, "without line ends"),
    "JSON texts without line ends": (
        "feed_sse", [GOOD.encode()] * 2,
        'its texts came without line ends; feed_line or framing="lines" reads those; it begins: ',
    ),
    "the start of an event": ("feed_sse", [b'data: {"cho'], "the body ends inside an event"),
    "broken JSON": ("feed", ['{"cho'], "the JSON is broken, or"),
    "a list": ("feed", ["[1]"], "event 1: expected an object, got a list"),
    "another protocol": (
        "feed_sse", [b"event: odd\ndata: 5\n\n"], "an event that is not a chunk: '5'"
    ),
    **{
        f"{name} in {method}": (method, [data], f"the body is compressed ({name}); feed the bytes")
        for name, data in zip(["gzip", "deflate", "zstd"], PACKED, strict=True)
        for method in ("feed_sse", "feed_line", "feed")
    },
    **{
        f"a body in {encoding}": ("feed_sse", [f"{LINE}\n\n".encode(encoding)], "it as UTF-8")
        for encoding in ("utf-16", "utf-16-le", "utf-16-be")
    },
    "no text": ("feed_sse", [bytes(range(128, 200))], "compressed (or is not text)"),
    "lines in brackets": (
        "feed_sse", [b"[ERROR] no model\n[INFO] bye\n"], "it begins: '[ERROR] no"
    ),
    "a bracket": ("feed_sse", [b"\n[\n"], ""),
    "a path": ("feed_sse", [b"weather.sse"], "it begins: 'weather.sse'"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNREAD)
def test_an_error_quotes_what_came_and_names_the_remedy(name: str) -> None:
    method, given, words = UNREAD[name]
    acc = Accumulator()
    for each in given:
        getattr(acc, method)(each)
    error = raised(acc)
    assert type(error) is IncompleteStreamError
    assert str(error).startswith("no chunk was read: ")
    assert words in str(error)
    assert "\x00" not in str(error)


@pytest.mark.parametrize(
    ("event", "api"),
    [
        ('{"type":"message_start"}', "Anthropic Messages"),
        ('{"type":"response.created"}', "OpenAI Responses"),
        ('{"candidates":[]}', "Gemini"),
    ],
)
def test_another_api_is_named(event: str, api: str) -> None:
    acc = fed([event])
    assert str(raised(acc)) == (
        f"this is a stream of {api}, not of chat completions; "
        "does the server have a /chat/completions, too?"
    )
    assert api in acc.problems[0].message


def a_choice(index: int, reason: str | None = None) -> dict[str, object]:
    return {"choices": [{"index": index, "delta": {}, "finish_reason": reason}]}


CUT_OFF: list[tuple[list[dict[str, object]], str]] = [
    ([{"id": "a"}], "after 1 chunk, none of them with a choice"),
    ([{"id": "", "choices": []}], "after 1 chunk, none of them with a choice"),
    ([{"usage": {"prompt_tokens": 1}}], "after 1 chunk, none of them with a choice"),
    ([a_choice(0)] * 2, "after 2 chunks: choice 0 has no finish reason"),
    (
        [a_choice(0, "stop"), a_choice(1)],
        "after 2 chunks: choice 1 has no finish reason, choice 0 has 'stop'",
    ),
    (
        [a_choice(2), a_choice(0, "stop"), a_choice(1, "length"), a_choice(3)],
        "after 4 chunks: choice 2 (and 1 more) has no finish reason, choice 1 has 'length'",
    ),
]


@pytest.mark.parametrize(("chunks", "words"), CUT_OFF)
def test_a_cut_stream_says_where_it_stopped_and_who_stopped_it(
    chunks: list[dict[str, object]], words: str
) -> None:
    with pytest.raises(IncompleteStreamError) as caught:
        accumulate(chunks)
    assert str(caught.value) == f"the stream stopped before its end, {words}"
    with wrap([*chunks, a_choice(0)]) as stream:
        for _ in chunks:
            next(stream)
    with pytest.raises(IncompleteStreamError) as caught:
        _ = stream.completion
    assert str(caught.value) == f"the reader stopped before the stream's end, {words}"


def test_a_stream_that_nobody_read_says_so() -> None:
    with wrap([a_choice(0)]) as stream:
        pass
    with pytest.raises(IncompleteStreamError, match=r"the reader stopped before the first one$"):
        _ = stream.completion


class Response:
    """What the responses of HTTP clients have in common."""

    def __init__(self, **fields: object) -> None:
        vars(self).update(fields)

    def iter_bytes(self) -> Iterator[bytes]:
        yield b"<p>Bad Gateway</p>"


HTML = {"content-type": "text/html"}
RESPONSES = [
    (Response(status_code=502, headers=HTML), "status 502 and the content type text/html"),
    (Response(status=502, headers={}), "status 502 and the content type unknown"),
    (
        Response(response=SimpleNamespace(status_code=200, headers=HTML)),
        "status 200 and the content type text/html",
    ),
]


@pytest.mark.parametrize(("response", "words"), RESPONSES)
def test_a_response_is_named_by_status_and_content_type(response: Any, words: str) -> None:
    with pytest.raises(IncompleteStreamError) as caught:
        accumulate(response)
    assert str(caught.value).endswith(f"it begins: '<p>Bad Gateway</p>' (the response has {words})")


def test_a_gateway_names_the_response_of_its_app() -> None:
    ends: list[StreamEnd] = []

    async def app(scope: object, receive: object, send: Callable[..., Any]) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": b"busy\n"})

    async def nothing(*_: object) -> Any:
        return {}

    gateway = CompletionMiddleware(app, on_end=lambda end, scope: ends.append(end))
    asyncio.run(gateway({"type": "http", "path": "/chat/completions"}, nothing, nothing))
    [end] = ends
    assert str(end.error).endswith("status 503 and the content type text/event-stream)")


async def an_async_stream() -> AsyncIterator[str]:
    yield GOOD


@contextmanager
def a_manager() -> Iterator[list[str]]:
    yield [GOOD]


class AsyncManager:
    async def __aenter__(self) -> list[str]:
        return [GOOD]


class Awaited:
    def __await__(self) -> Iterator[object]:
        return iter(())


# Callers' mistakes: what was called with what, and what the error says.
MISTAKES: dict[str, tuple[Callable[[Any], object], object, str]] = {
    "text as a body": (Accumulator().feed_sse, LINE, "not str; encode it, or use feed_line"),
    "an object as a body": (Accumulator().feed_sse, {}, "a body is bytes, not dict"),
    "an async stream as a chunk": (Accumulator().feed, an_async_stream(), "accumulate() reads a"),
    "a stream as a chunk": (Accumulator().feed, iter([GOOD]), "accumulate() reads a whole stream"),
    "a number as a chunk": (Accumulator().feed, 5, "not int"),
    "a list as a chunk": (Accumulator().feed, [], "not list"),
    "no more than an object as a chunk": (Accumulator().feed, object(), "not object"),
    "a number as a line": (Accumulator().feed_line, 5, "not int"),
    "a call that was not awaited": (wrap, Awaited(), "not Awaited; await it first"),
    "a function": (wrap, an_async_stream, "not function; call it first"),
    "a path": (wrap, Path(__file__), "; open it first"),
    "a context manager": (wrap, a_manager(), "; enter it first: with ... as stream"),
    "an async one": (wrap, AsyncManager(), "; enter it first: async with ... as stream"),
    "a response that was not streamed": (wrap, SimpleNamespace(choices=[]), "without stream=True?"),
    "no stream at all": (wrap, 5, "a stream is an iterable or a response, not int"),
    "nothing": (wrap, None, "not NoneType"),
    "a chunk": (wrap, {"choices": []}, "not dict"),
    "an accumulator": (wrap, Accumulator(), "not Accumulator"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_callers_mistake_names_the_remedy(name: str) -> None:
    call, given, words = MISTAKES[name]
    with pytest.raises(TypeError) as caught:
        call(given)
    assert words in str(caught.value)
