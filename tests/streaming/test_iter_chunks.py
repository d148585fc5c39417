"""`iter_chunks`: the text of each chunk, from which the stream can be read again."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from streamed import BODY, CHUNKS, TEXTS, AsyncSource, Source, cut, fed, read_whole

from accumulator import ChatCompletion, DecodeError, LimitExceededError, Limits, iter_chunks, split
from accumulator.streams import Framing

LINES = [*(text.encode() for text in TEXTS), b"[DONE]"]
MODELS = [json.loads(text, object_hook=lambda fields: SimpleNamespace(**fields)) for text in TEXTS]
FORMS: dict[str, tuple[Framing, Iterable[object]]] = {
    "body": ("body", [BODY]),
    "body in bytes": ("body", cut(BODY, 1)),
    "body in text": ("body", cut(BODY.decode(), 5)),  # type: ignore[arg-type]
    "body with comments": ("body", [b": a\n\n", BODY.replace(b"data: ", b"event: x\ndata:")]),
    "body of JSON Lines": ("body", [b"\n".join(LINES)]),
    "body without blank lines": ("body", [BODY.replace(b"\n\n", b"\n")]),
    "lines": ("lines", BODY.splitlines(keepends=True)),
    "lines without ends": ("lines", BODY.decode().split("\n")),
    "lines without blank ones": ("lines", [line for line in BODY.splitlines() if line]),
    "lines of JSON": ("lines", map(memoryview, LINES)),
}


@pytest.mark.parametrize(("framing", "stream"), FORMS.values(), ids=FORMS)
def test_a_chunk_is_the_json_that_came(framing: Framing, stream: Iterable[object]) -> None:
    assert list(iter_chunks(stream, framing=framing)) == LINES


@pytest.mark.parametrize("chunks", [CHUNKS, MODELS], ids=["mappings", "objects"])
def test_of_objects_it_is_the_json_of_what_they_hold(chunks: list[Any]) -> None:
    assert [json.loads(chunk) for chunk in iter_chunks(chunks)] == CHUNKS


def test_of_openais_chunks_it_is_what_came() -> None:
    pytest.importorskip("openai", reason="an SDK that is installed for the tests only")
    from test_openai import ASKED, client_of, helper_of  # noqa: PLC0415

    with client_of(BODY) as completions:
        stream = completions.create(**ASKED, stream=True)
        assert [json.loads(chunk) for chunk in iter_chunks(stream)] == CHUNKS
    with helper_of(BODY) as events:
        chunks = iter_chunks(event for event in events)
        assert [json.loads(chunk) for chunk in chunks] == CHUNKS


def test_of_half_a_surrogate_pair_it_is_the_escape() -> None:
    [chunk] = iter_chunks([{"vendor": "a\ud83d"}])
    assert json.loads(chunk) == {"vendor": "a\ud83d"}


def test_json_in_several_lines_comes_on_one() -> None:
    body = b'data: {"a":\ndata: 1}\n\n{\n  "error": "no"\n}\n'
    assert list(iter_chunks([body])) == [b'{"a": 1}', b'{   "error": "no" }']


@pytest.mark.parametrize("size", [1, 2, 50])
def test_a_byte_order_mark_costs_no_chunk_wherever_it_is_cut(size: int) -> None:
    for body in b'data: {"a": 1}\n\n', b'{"a": 1}\n':
        assert list(iter_chunks(cut(b"\xef\xbb\xbf" + body, size))) == [b'{"a": 1}']


def test_what_is_damaged_or_cut_off_comes_as_it_is() -> None:
    assert list(iter_chunks([b'data: {no\n\ndata: {"a": 1'])) == [b"{no", b'{"a": 1']


@pytest.mark.parametrize("framing", ["body", "lines"])
def test_every_recorded_stream_can_be_read_again(corpus_stream: Path, framing: Framing) -> None:
    body = corpus_stream.read_bytes()
    pieces: Iterable[bytes] = cut(body, 4096) if framing == "body" else body.split(b"\n")
    expected, again = read_whole(body), fed(iter_chunks(pieces, framing=framing))
    assert again.snapshot() == expected.snapshot()
    assert again.status == expected.status


FIRST = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
# What follows a chunk, and the texts that it comes to.
NAMED: dict[str, tuple[bytes, list[bytes]]] = {
    "an error": (b'event: error\ndata: {"message":"no"}', [b'{"error":{"message":"no"}}']),
    "llama.cpp's line": (b'error: {"message":"no"}', [b'{"error":{"message":"no"}}']),
    "one that says so": (b'error: {"error":{"message":"no"}}', [b'{"error":{"message":"no"}}']),
    "one in a list": (b'error: [{"error":{"message":"no"}}]', [b'[{"error":{"message":"no"}}]']),
    "one that says it is none": (b'error: {"error":null}', [b'{"error":{"error":null}}']),
    "half a pair": (rb'error: "\ud83d"', [rb'{"error":"\ud83d"}']),
    "text": (b"event: error\ndata: in two\ndata: lines", [rb'{"error":"in two\nlines"}']),
    "nothing": (b"event: error\ndata: null", [b'{"error":true}']),
    "an error under another name": (b'event: x\ndata: {"error":7}', [b'{"error":7}']),
    "another protocol": (b'event: ping\ndata: {"type":"ping"}', []),
    "another protocol's text": (b"event: ping\ndata: pong", []),
    "another protocol's usage": (b'event: m\ndata: {"type":"message_delta","usage":{"a":1}}', []),
    "another API's start": (b'event: m\ndata: {"type":"message_start"}', []),
    "a chunk among others": (
        b'event: m\ndata: {"a":1}\n\nevent: m\n' + FIRST, [FIRST[6:].strip()]
    ),
    "broken JSON": (b"event: ping\ndata: {no", [b"{no"]),
}  # fmt: skip


@pytest.mark.parametrize(("named", "texts"), NAMED.values(), ids=NAMED)
def test_without_its_name_an_event_means_the_same(named: bytes, texts: list[bytes]) -> None:
    body = FIRST + named + b"\n\n"
    chunks = [*iter_chunks([body])]
    assert chunks[1:] == texts
    expected, again = read_whole(body), fed(chunks)
    assert again.snapshot() == expected.snapshot()
    assert (again.status, again.server_error) == (expected.status, expected.server_error)


def test_the_first_event_of_another_api_is_kept_because_it_names_the_api() -> None:
    start = b'{"type":"message_start"}'
    body = b'event: message_start\ndata: %b\n\nevent: stop\ndata: {"type":"stop"}\n\n' % start
    assert [*iter_chunks([body])] == [start]


def test_a_split_completion_without_a_finish_reason_ends_in_done() -> None:
    message = {"role": "assistant", "content": "a"}
    whole = ChatCompletion.from_dict({"id": "c", "choices": [{"index": 0, "message": message}]})
    assert fed(iter_chunks(split(whole))).completion() == whole


# --- how it ends ---


def test_the_stream_is_closed_with_the_generator() -> None:
    source = Source([BODY[:200], BODY[200:]])
    chunks = iter_chunks(source)
    next(chunks)
    chunks.close()
    assert source.closed == 1


def test_an_async_stream_is_read_async_and_closed() -> None:
    source = AsyncSource(cut(BODY, 100))

    async def read() -> list[bytes]:
        return [chunk async for chunk in iter_chunks(source)]

    assert asyncio.run(read()) == LINES
    assert source.closed == 1


def test_an_error_of_the_source_comes_after_the_chunks() -> None:
    chunks = iter_chunks(Source([BODY[:-14]], ConnectionError()))
    assert [next(chunks) for _ in LINES[1:]] == LINES[:-1]
    with pytest.raises(ConnectionError):
        next(chunks)


@pytest.mark.parametrize(
    ("stream", "framing", "error"),
    [
        ([b"data: {" + b" " * 1000], "body", LimitExceededError),
        ([b"data: {", b"data: " + b" " * 1000], "lines", LimitExceededError),
        ([gzip.compress(BODY)], "body", DecodeError),
        ([42], "body", TypeError),
    ],
)
def test_what_cannot_be_read_is_raised(
    stream: list[object], framing: Framing, error: type[Exception]
) -> None:
    chunks = iter_chunks(stream, framing=framing, limits=Limits(event_bytes=500))
    with pytest.raises(error):
        next(chunks)


def test_no_limit_is_no_bound() -> None:
    chunk = b'{"a":"%b"}' % (b"b" * 100)
    assert [*iter_chunks([b"data: " + chunk], limits=Limits(event_bytes=None))] == [chunk]
