"""`accumulate` and `wrap`, over iterables of every kind and over real clients and sockets."""

import asyncio
import copy
import json
import pickle
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from streamed import (
    BODY,
    CHUNKS,
    FINISH,
    REFUSED,
    TEXTS,
    WHOLE,
    AsyncSource,
    Chunk,
    Source,
    a_chunk,
    a_piece,
    content_of,
    cut,
    drip,
    fed,
)

from accumulator import (
    Accumulator,
    AccumulatorError,
    ChatCompletion,
    DecodeError,
    IncompleteStreamError,
    LimitExceededError,
    Limits,
    ServerError,
)
from accumulator.asgi import tap
from accumulator.streams import DualWrappedStream, Framing, StreamEnd, accumulate, wrap


def an_sdk_object(text: str) -> object:
    return json.loads(text, object_hook=lambda fields: SimpleNamespace(**fields))


# --- what the items of a stream can be ---

FORMS: dict[str, tuple[Framing, Iterable[object]]] = {
    "mappings": ("body", CHUNKS),
    "SDK objects": ("body", [*map(an_sdk_object, TEXTS)]),
    "body in one piece": ("body", [BODY]),
    "body in bytes": ("body", [*cut(BODY, 1)]),
    "body in pieces": ("body", [*cut(BODY, 1, 2, 3, 50)]),
    "body in bytearrays": ("body", [*map(bytearray, cut(BODY, 7))]),
    "body in memoryviews": ("body", [memoryview(piece) for piece in cut(BODY, 7)]),
    "body in str": ("body", [*BODY.decode()]),
    "body behind more blanks than are held": ("body", [b"\n" * 2000, b"\n" * 3000, BODY]),
    "body of JSON Lines": ("body", ["\n".join(TEXTS)]),
    "body of JSON Lines in bytes": ("body", [*cut("\r\n".join(TEXTS).encode(), 1)]),
    "lines of SSE with ends": ("lines", BODY.splitlines(keepends=True)),
    "lines of SSE without ends": ("lines", BODY.splitlines()),
    "lines of SSE as str": ("lines", [*map(bytes.decode, BODY.splitlines())]),
    "lines of JSON": ("lines", TEXTS),
    "lines of JSON as bytes with ends": ("lines", [f"{text}\r\n".encode() for text in TEXTS]),
    "lines of JSON in bytearrays": ("lines", [bytearray(text.encode()) for text in TEXTS]),
    "chunks among lines": ("lines", [TEXTS[0], *CHUNKS[1:]]),
    "body as a whole": ("body", BODY),
    "body as a whole, said to be lines": ("lines", BODY),
    "body as one str": ("body", BODY.decode()),
}


@pytest.mark.parametrize(("framing", "stream"), FORMS.values(), ids=FORMS)
def test_items_tell_what_they_are(framing: Framing, stream: Iterable[object]) -> None:
    assert accumulate(stream, framing=framing).to_dict() == WHOLE
    items = [stream] if isinstance(stream, (bytes, str)) else stream
    assert accumulate(iter(items), framing=framing)
    if items is stream:
        read = asyncio.run(accumulate(drip(items), framing=framing))
        assert read.to_dict() == WHOLE


@pytest.mark.parametrize("framing", ["body", "lines"])
@pytest.mark.parametrize("data", [BODY, "\n".join(TEXTS).encode()], ids=["SSE", "JSON Lines"])
def test_an_open_file_is_a_body_or_lines(data: bytes, framing: Framing, tmp_path: Path) -> None:
    path = tmp_path / "recorded"
    path.write_bytes(data)
    with path.open("rb") as file:
        assert accumulate(file, framing=framing).to_dict() == WHOLE
        assert file.closed
    with path.open(encoding="utf-8") as text_file:
        assert accumulate(text_file, framing=framing).to_dict() == WHOLE


@pytest.mark.parametrize(("body", "words"), [(b"x", "it begins: 'x'"), (b"\x1f", "no chunk")])
def test_a_body_that_ends_as_a_compressed_one_begins_is_read(body: bytes, words: str) -> None:
    with pytest.raises(IncompleteStreamError, match=words):
        accumulate([body])


def test_a_json_body_without_line_ends_is_held_to_the_limit() -> None:
    endless = iter(lambda: b'{"a":', b"")
    with pytest.raises(LimitExceededError) as caught:
        accumulate(endless, limits=Limits(event_bytes=1000))
    assert caught.value.limit == "event_bytes"


def test_a_completion_that_was_not_streamed_is_a_type_error_that_says_so() -> None:
    types = pytest.importorskip("openai.types.chat", reason="an SDK installed for the tests only")
    for completion in ChatCompletion.from_dict(WHOLE), types.ChatCompletion.model_validate(WHOLE):
        with pytest.raises(TypeError, match=r"not ChatCompletion.*stream=True"):
            accumulate(completion)


def test_an_unknown_framing_is_a_value_error() -> None:
    with pytest.raises(ValueError, match='"body" or "lines"'):
        accumulate(CHUNKS, framing="sse")  # type: ignore[call-overload]


# --- accumulate ---


GATE: list[tuple[list[Chunk], type[AccumulatorError]]] = [
    (CHUNKS[:2], IncompleteStreamError),
    ([*CHUNKS[:2], REFUSED], ServerError),
    ([*CHUNKS, {"choices": 3}], DecodeError),
]


@pytest.mark.parametrize(("chunks", "error"), GATE)
def test_accumulate_raises_as_the_gate_does(
    chunks: list[Chunk], error: type[AccumulatorError]
) -> None:
    with pytest.raises(error) as caught:
        accumulate(chunks)
    assert caught.value.partial is not None
    assert str(content_of(caught.value.partial)).startswith("Grüße")
    with pytest.raises(error):
        asyncio.run(accumulate(drip(chunks)))


def test_accumulate_raises_a_passed_limit_at_once_and_closes() -> None:
    items = [a_piece("Grüße"), a_chunk({"index": 5, "delta": {"content": "!"}}), *CHUNKS]
    source, async_source = Source(items), AsyncSource(items)
    with pytest.raises(LimitExceededError):
        accumulate(source, limits=Limits(choices=1))
    with pytest.raises(LimitExceededError):
        asyncio.run(accumulate(async_source, limits=Limits(choices=1)))
    assert source.handed_out == async_source.handed_out == 2
    assert source.closed == async_source.closed == 1


# --- wrap: the items ---


def test_wrap_hands_out_the_same_objects_in_order() -> None:
    items = [bytearray(b"data: x\n\n"), "{", CHUNKS[0], 7, None, SimpleNamespace(choices=[]), b""]
    before = copy.deepcopy(items)

    async def collect() -> list[object]:
        return [item async for item in wrap(drip(items))]

    for out in list(wrap(items)), asyncio.run(collect()):
        assert list(map(id, out)) == list(map(id, items))
    assert repr(items) == repr(before)


def test_wrap_is_read_by_next_and_anext() -> None:
    stream = wrap(CHUNKS)
    assert iter(stream) is stream
    assert [next(stream) for _ in CHUNKS] == CHUNKS
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(stream)
    assert stream.completion.to_dict() == WHOLE

    async def read() -> None:
        stream = wrap(drip(CHUNKS))
        assert aiter(stream) is stream
        assert [await anext(stream) for _ in CHUNKS] == CHUNKS
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        assert stream.completion.to_dict() == WHOLE

    asyncio.run(read())


def test_wrap_of_an_iterable_reads_its_iterator_and_closes_both() -> None:
    closed: list[str] = []

    class Chunks:
        def __iter__(self) -> Generator[Chunk, None, None]:
            try:
                yield from CHUNKS
            finally:
                closed.append("iterator")

        async def __aiter__(self) -> AsyncGenerator[Chunk, None]:
            try:
                for chunk in CHUNKS:
                    yield chunk
            finally:
                closed.append("async iterator")

        def close(self) -> None:
            closed.append("source")

    async def read() -> None:
        async with wrap(Chunks()) as stream:
            await anext(stream)

    with wrap(Chunks()) as stream:
        next(stream)
    asyncio.run(read())
    assert closed == ["iterator", "source", "async iterator", "source"]


# --- wrap: the result ---


def test_looking_at_the_completion_too_early_disturbs_nothing() -> None:
    stream = wrap(CHUNKS)
    while next(stream) is not FINISH:
        with pytest.raises(IncompleteStreamError) as caught:
            _ = stream.completion
        assert caught.value.partial == stream.snapshot()
    # A complete stream need not be read to its end.
    assert (stream.status, stream.completion.usage) == ("complete", None)
    assert list(stream) == [CHUNKS[-1]]
    assert stream.completion.to_dict() == WHOLE


# The usage comes after the last finish reason; an event that has half arrived waits.
LOOKED_AT: dict[str, Iterable[object]] = {
    "chunks": CHUNKS,
    "a body in events": re.findall(b".*?\n\n", BODY, re.S),
    "a body in bytes": [*cut(BODY, 1)],
    "JSON Lines in bytes": [*cut("\n".join(TEXTS).encode(), 1)],
}


@pytest.mark.parametrize("form", LOOKED_AT.values(), ids=LOOKED_AT)
def test_looking_at_a_complete_stream_ends_nothing(form: Iterable[object]) -> None:
    ends: list[StreamEnd] = []
    stream = wrap(form, on_end=ends.append)
    for _ in stream:
        if stream.status == "complete":
            _ = stream.completion
    assert stream.completion.to_dict() == WHOLE
    assert [end.completion.to_dict() for end in ends] == [WHOLE]


def test_problems_are_those_of_the_accumulator() -> None:
    stream = wrap([b'data: {"id": "a"}\n\ndata: {"id": "b"}\n\ndata: {"id": "c"}\n\ndata: {\n\n'])
    list(stream)
    counts = {"id_changed": 2, "malformed_json": 1}
    assert {problem.kind: problem.count for problem in stream.problems} == counts
    assert stream.problem_counts == counts


def test_other_attributes_are_those_of_the_stream() -> None:
    for stream in wrap(Source(CHUNKS)), wrap(AsyncSource(CHUNKS)):
        assert stream.response == "the response"
        with pytest.raises(AttributeError):
            _ = stream.request


def test_a_stream_cannot_be_copied() -> None:
    for stream in wrap(Source(CHUNKS)), wrap(AsyncSource(CHUNKS)):
        for copied in copy.copy, copy.deepcopy, pickle.dumps:
            with pytest.raises(TypeError, match="cannot be copied"):
                copied(stream)


def test_wrap_of_a_wrapped_stream_reads_through_it() -> None:
    inner = wrap(Source(CHUNKS))
    outer = wrap(inner)
    assert list(outer) == CHUNKS
    assert inner.completion == outer.completion == outer.completion()  # called by mistake


# --- responses; those of real clients, from a real socket, are read in test_clients.py ---


class Plain:
    """A response like that of http.client and urllib, which give the body as it came."""

    def __init__(self, body: bytes, headers: dict[str, str]) -> None:
        self.headers = headers
        self.asked: list[int] = []
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        raise AssertionError("lines of a response are not how its body is read")

    def geturl(self) -> str:
        return ""

    def read1(self, size: int) -> bytes:
        self.asked.append(size)
        piece, self._body = self._body[:7], self._body[7:]
        return piece


class Decoding(Plain):
    """A response like that of urllib3, which decompresses the body."""

    def stream(self) -> None: ...


@pytest.mark.parametrize("kind", [Plain, Decoding])
@pytest.mark.parametrize("encoding", [None, "", "identity", "Identity", "gzip", "br"])
def test_a_body_that_nobody_decompresses_is_refused_by_its_header(
    kind: type[Plain], encoding: str | None
) -> None:
    headers = {} if encoding is None else {"Content-Encoding": encoding}
    response = kind(BODY, headers)
    if kind is Plain and encoding in ("gzip", "br"):
        with pytest.raises(DecodeError, match=f"compressed \\({encoding}\\)"):
            accumulate(response)
    else:
        assert accumulate(response).to_dict() == WHOLE
        assert set(response.asked) == {65536}


WHY = "a client that is installed for the tests only"


def test_an_httpx_response_can_be_read_either_way() -> None:
    httpx = pytest.importorskip("httpx", reason=WHY)
    response = httpx.Response(200, content=BODY)
    stream = wrap(response)
    assert type(stream) is DualWrappedStream
    assert b"".join(stream) == BODY

    async def read() -> list[bytes]:
        return [piece async for piece in wrap(response)]

    assert b"".join(asyncio.run(read())) == BODY


def test_an_error_that_openai_takes_out_of_the_stream_is_the_servers() -> None:
    openai = pytest.importorskip("openai", reason=WHY)
    from test_openai import ASKED, client_of  # noqa: PLC0415

    ends: list[StreamEnd] = []
    with client_of(BODY[:-14] + f"data: {json.dumps(REFUSED)}\n\n".encode()) as completions:
        stream = wrap(completions.create(**ASKED, stream=True), on_end=ends.append)
        with pytest.raises(openai.APIError):
            list(stream)
    [end] = ends
    assert end.status == "failed"
    assert end.server_error == stream.server_error == REFUSED["error"]


def test_a_completion_that_was_not_called_names_the_mistake() -> None:
    acc = fed(CHUNKS)
    with pytest.raises(AttributeError, match=r"write completion\(\)\.choices$"):
        acc.completion.choices  # type: ignore[attr-defined]  # noqa: B018  # that is what is tried
    assert Accumulator.completion(acc) == acc.completion()


def test_repr_shows_the_status_and_how_many_chunks_came() -> None:
    chunk = {"choices": [{"index": 0, "delta": {"content": "a"}}]}
    acc = Accumulator()
    stream = wrap([chunk, chunk])
    assert repr(acc) == "<Accumulator status='open' chunks=0>"
    acc.feed(chunk)
    acc.feed("[DONE]")
    assert repr(acc) == "<Accumulator status='complete' chunks=1>"
    next(stream)
    assert repr(stream) == "<WrappedStream status='open' chunks=1>"
    stream.close()
    assert repr(stream) == "<WrappedStream status='cancelled' chunks=1>"
    assert repr(wrap(drip([]))) == "<AsyncWrappedStream status='open' chunks=0>"


class Response:
    """Like httpx's: one class for sync and async, tied to one of them by what it reads from."""

    def __init__(self, stream: object) -> None:
        self.stream = stream

    def iter_bytes(self) -> Iterator[bytes]:
        yield BODY

    async def aiter_bytes(self) -> AsyncIterator[bytes]:
        yield BODY


@pytest.mark.parametrize("around", [wrap, tap])
def test_a_response_is_wrapped_as_its_client_reads_it(
    around: Callable[..., Iterable[bytes]],
) -> None:
    ends: list[StreamEnd] = []
    stream = around(Response(Source([])), on_end=ends.append)
    assert not hasattr(stream, "__aiter__")  # Starlette would read it so
    assert b"".join(stream) == BODY
    assert [end.status for end in ends] == ["complete"]
    assert hasattr(around(Response(AsyncSource([])), on_end=ends.append), "__aiter__")
