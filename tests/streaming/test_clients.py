"""`wrap` and `accumulate` over what each client hands out, read from a real server's socket.

What comes out is what `Accumulator` makes of the same bytes, and each stream has one end.
"""

from __future__ import annotations

import asyncio
import http.client
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    closing,
    contextmanager,
)
from pathlib import Path
from typing import Any

import pytest
from serving import Replay, Server, drop_connections, heavy, serving
from streamed import BODY, read_whole
from test_conformance import CASES

from accumulator import (
    AccumulatorError,
    ChatCompletion,
    DecodeError,
    IncompleteStreamError,
    StreamEnd,
    accumulate,
    wrap,
)
from accumulator.streams import Framing

TESTS = Path(__file__).parents[1]
RECORDING = (TESTS / "recordings" / "weather-tool-call.sse").read_bytes()
QUESTION = {"role": "user", "content": "How warm is it in Zürich?"}
ASKED: dict[str, Any] = {"model": "m", "messages": [QUESTION]}
KEYWORDS: dict[str, Any] = {"api_key": "none", "max_retries": 0}
WHY = "a client that is installed for the tests only"
SyncClient = Callable[[str], AbstractContextManager[Any]]
AsyncClient = Callable[[str], AbstractAsyncContextManager[Any]]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


# --- the clients: a URL to what one reads of it, in a context that closes all it opened ---


def imported(name: str) -> Any:
    return pytest.importorskip(name, reason=WHY)


@contextmanager
def created(completions: Any) -> Iterator[Any]:
    stream = completions.create(**ASKED, stream=True)
    yield stream
    assert stream.response.is_closed


@asynccontextmanager
async def async_created(completions: Any) -> AsyncIterator[Any]:
    stream = await completions.create(**ASKED, stream=True)
    yield stream
    assert stream.response.is_closed


def helper(completions: Any) -> Any:
    return completions.stream(**ASKED)


def raw(completions: Any) -> Any:
    return completions.with_streaming_response.create(**ASKED, stream=True)


def by_openai(opened: Callable[[Any], Any]) -> SyncClient:
    @contextmanager
    def ask(url: str) -> Iterator[Any]:
        with (
            imported("openai").OpenAI(base_url=url, **KEYWORDS) as client,
            opened(client.chat.completions) as stream,
        ):
            yield stream

    return ask


def by_async_openai(opened: Callable[[Any], Any]) -> AsyncClient:
    @asynccontextmanager
    async def ask(url: str) -> AsyncIterator[Any]:
        async with (
            imported("openai").AsyncOpenAI(base_url=url, **KEYWORDS) as client,
            opened(client.chat.completions) as stream,
        ):
            yield stream

    return ask


def litellm_arguments(url: str) -> dict[str, Any]:
    return {**ASKED, "model": "openai/m", "stream": True, "api_base": url, **KEYWORDS}


def any_llm_arguments(url: str) -> dict[str, Any]:
    return {**ASKED, "provider": "openai", "stream": True, "api_base": url, "api_key": "none"}


def by_heavy(name: str, arguments: Callable[[str], dict[str, Any]]) -> SyncClient:
    @contextmanager
    def ask(url: str) -> Iterator[Any]:
        with heavy(name) as module:
            yield module.completion(**arguments(url))

    return ask


def by_async_heavy(name: str, arguments: Callable[[str], dict[str, Any]]) -> AsyncClient:
    @asynccontextmanager
    async def ask(url: str) -> AsyncIterator[Any]:
        with heavy(name) as module:
            try:
                yield await module.acompletion(**arguments(url))
            finally:
                await drop_connections()

    return ask


def by_httpx(name: str) -> SyncClient:
    @contextmanager
    def get(url: str) -> Iterator[Any]:
        client = imported(name).Client(trust_env=False)
        with client, client.stream("GET", f"{url}/c") as response:
            yield response
            assert response.is_closed

    return get


def by_async_httpx(name: str) -> AsyncClient:
    @asynccontextmanager
    async def get(url: str) -> AsyncIterator[Any]:
        client = imported(name).AsyncClient(trust_env=False)
        async with client, client.stream("GET", f"{url}/c") as response:
            yield response
            assert response.is_closed

    return get


@contextmanager
def requests_response(url: str) -> Iterator[Any]:
    with imported("requests").Session() as session:
        session.trust_env = False
        response = session.get(f"{url}/c", stream=True)
        yield response
        assert response.raw.closed


@contextmanager
def urllib3_response(url: str) -> Iterator[Any]:
    with imported("urllib3").PoolManager() as pool:
        response = pool.request("GET", f"{url}/c", preload_content=False, retries=False)
        yield response
        assert response.closed


@contextmanager
def urllib_response(url: str) -> Iterator[Any]:
    response = urllib.request.urlopen(f"{url}/c")
    yield response
    assert response.isclosed()


@contextmanager
def http_client_response(url: str) -> Iterator[Any]:
    host, _, path = url.removeprefix("http://").partition("/")
    with closing(http.client.HTTPConnection(host)) as connection:
        connection.request("GET", f"/{path}/c")
        response = connection.getresponse()
        yield response
        assert response.isclosed()


@asynccontextmanager
async def aiohttp_response(url: str) -> AsyncIterator[Any]:
    async with imported("aiohttp").ClientSession() as session:
        response = await session.get(f"{url}/c")
        yield response
        assert response.closed


def items_of(client: SyncClient, read: Callable[[Any], Any]) -> SyncClient:
    """Return a client that gives an iterator over the response instead of the response."""

    @contextmanager
    def get(url: str) -> Iterator[Any]:
        with client(url) as response, closing(response):
            yield read(response)

    return get


def async_items_of(client: AsyncClient, read: Callable[[Any], Any]) -> AsyncClient:
    @asynccontextmanager
    async def get(url: str) -> AsyncIterator[Any]:
        async with client(url) as response, response:
            yield read(response)

    return get


def sse_events(response: Any) -> Any:
    return imported("httpx_sse").EventSource(response)


def client_events(response: Any) -> Any:
    return imported("sseclient").SSEClient(response).events()


@asynccontextmanager
async def async_sse_events(url: str) -> AsyncIterator[Any]:
    async with by_async_httpx("httpx")(url) as response:
        yield sse_events(response).aiter_sse()
        await response.aclose()


SDKS: dict[str, SyncClient] = {
    "httpx-sse": items_of(by_httpx("httpx"), lambda r: sse_events(r).iter_sse()),
    "sseclient-py": items_of(
        requests_response, lambda r: imported("sseclient").SSEClient(r).events()
    ),
    "openai create": by_openai(created),
    "openai stream()": by_openai(helper),
    "litellm": by_heavy("litellm", litellm_arguments),
    "any-llm": by_heavy("any_llm", any_llm_arguments),
}
ASYNC_SDKS: dict[str, AsyncClient] = {
    "httpx-sse": async_sse_events,
    "openai create": by_async_openai(async_created),
    "openai stream()": by_async_openai(helper),
    "litellm": by_async_heavy("litellm", litellm_arguments),
    "any-llm": by_async_heavy("any_llm", any_llm_arguments),
}
HTTP: dict[str, SyncClient] = {
    "openai raw": by_openai(raw),
    "httpx": by_httpx("httpx"),
    "httpx2": by_httpx("httpx2"),
    "httpx raw": items_of(by_httpx("httpx"), lambda response: response.iter_raw()),
    "httpx lines": items_of(by_httpx("httpx"), lambda response: response.iter_lines()),
    "requests": requests_response,
    "requests iter_content": items_of(requests_response, lambda r: r.iter_content(7)),
    "requests lines": items_of(requests_response, lambda response: response.iter_lines()),
    "urllib3": urllib3_response,
    "urllib": urllib_response,
    "http.client": http_client_response,
}
ASYNC_HTTP: dict[str, AsyncClient] = {
    "openai raw": by_async_openai(raw),
    "httpx": by_async_httpx("httpx"),
    "httpx2": by_async_httpx("httpx2"),
    "aiohttp": aiohttp_response,
    "aiohttp iter_any": async_items_of(aiohttp_response, lambda r: r.content.iter_any()),
    "aiohttp lines": async_items_of(aiohttp_response, lambda response: response.content),
}
ASYNC = [*ASYNC_SDKS.values(), *ASYNC_HTTP.values()]
# Each with the error of it: by the body's header, or else by its bytes.
LEAVE_IT_COMPRESSED: dict[str, type[AccumulatorError]] = {
    "urllib": DecodeError,
    "http.client": DecodeError,
    "httpx raw": IncompleteStreamError,
}
# Also at U+2028, which BODY contains; it also decodes incomplete characters.
CUTS_AT_MORE_THAN_LINE_ENDS = {"httpx lines"}


def framing_of(name: str) -> Framing:
    return "lines" if name.endswith("lines") else "body"


def accumulated(name: str, client: Any, url: str) -> Any:
    """Read it by `accumulate`."""

    async def read() -> Any:
        async with client(url) as stream:
            return await accumulate(stream, framing=framing_of(name))

    if client in ASYNC:
        return asyncio.run(read())
    with client(url) as stream:
        return accumulate(stream, framing=framing_of(name))


def wrapped(
    name: str, client: Any, url: str, each: Callable[[Any], object] = id
) -> tuple[StreamEnd, BaseException | None]:
    """Read it by `wrap`, with `each` called at each item; give its end and what it raised."""
    ends: list[StreamEnd] = []
    raised: list[BaseException] = []
    options: Any = {"framing": framing_of(name), "on_end": ends.append}

    async def read() -> None:
        async with client(url) as stream:
            try:
                async with wrap(stream, **options) as reading:
                    async for item in reading:
                        each(item)
            except Exception as error:
                raised.append(error)

    if client in ASYNC:
        asyncio.run(read())
    else:
        with client(url) as stream:
            try:
                with wrap(stream, **options) as reading:
                    for item in reading:
                        each(item)
            except Exception as error:
                raised.append(error)
    [end] = ends
    return end, raised[0] if raised else None


ALL_HTTP: list[Any] = [*HTTP.items(), *ASYNC_HTTP.items()]
ALL_SDKS: list[Any] = [
    pytest.param(name, client, marks=pytest.mark.filterwarnings("ignore"))
    if name in ("litellm", "any-llm")  # which cause warnings
    else (name, client)
    for name, client in [*SDKS.items(), *ASYNC_SDKS.items()]
]


def named(value: object) -> str | None:
    if isinstance(value, str):
        return value
    return "async" if value in ASYNC else "sync"


HARD = {
    "audio-fragments", "ends-truncated-in-utf8", "ends-truncated-in-arguments",
    "errors-event-wrapped", "framing-after-done",
}  # fmt: skip
BODIES = [case.data for case in CASES if case.name in HARD]
every_http_client = pytest.mark.parametrize(("name", "client"), ALL_HTTP, ids=named)
every_sdk = pytest.mark.parametrize(("name", "client"), ALL_SDKS, ids=named)
every_client = pytest.mark.parametrize(("name", "client"), [*ALL_HTTP, *ALL_SDKS], ids=named)


@every_http_client
def test_a_body_gives_what_its_bytes_give(
    server: Server, name: str, client: SyncClient | AsyncClient
) -> None:
    replays = [Replay(RECORDING, (1, 2, 3, 97)), Replay(RECORDING, sized=True)]
    if name not in CUTS_AT_MORE_THAN_LINE_ENDS:
        replays += [Replay(BODY, (1,)), *(Replay(body, (13,)) for body in BODIES)]
    if name not in LEAVE_IT_COMPRESSED:
        replays += [Replay(RECORDING, (1, 50), encoding) for encoding in ("gzip", "deflate")]
    for replay in replays:
        items: list[bytes] = []
        end, raised = wrapped(name, client, server.add(replay), items.append)
        acc = read_whole(replay.body)
        assert raised is None
        assert framing_of(name) == "lines" or b"".join(items) == replay.body
        assert end.completion == acc.snapshot()
        assert end.status == acc.status
        assert [p.kind for p in end.problems] == [p.kind for p in acc.problems]
    assert accumulated(name, client, server.add(replays[0])) == read_whole(RECORDING).completion()


def facts(completion: ChatCompletion) -> object:
    """Return what no SDK changes: some make up an id, name the model otherwise, add null fields."""
    [choice] = completion.choices
    return choice.finish_reason, choice.message.to_message()


@every_sdk
def test_an_sdks_chunks_give_what_their_bytes_give(
    server: Server, name: str, client: SyncClient | AsyncClient
) -> None:
    for body, encoding in (RECORDING, None), (BODY, None), (RECORDING, "gzip"):
        replay = Replay(body, (1, 2, 3, 97), encoding)
        completion = accumulated(name, client, server.add(replay))
        whole = read_whole(body).completion()
        if name.startswith(("openai", "httpx", "sse")):
            assert completion == whole
        assert facts(completion) == facts(whole)
        end, raised = wrapped(name, client, server.add(replay))
        assert raised is None
        assert facts(end.completion) == facts(whole)
        assert (end.status, end.error) == ("complete", None)


def test_an_event_of_mistrals_sdk_holds_a_chunk(server: Server) -> None:
    head = '"id": "m-1", "object": "chat.completion.chunk", "created": 1, "model": "m"'
    choice = '{"index": 0, "delta": {"content": "%s"}, "finish_reason": %s}'
    chunks = [
        f'{{{head}, "choices": [{choice % each}]}}' for each in (("Hi", "null"), (".", '"stop"'))
    ]
    body = "".join(f"data: {each}\n\n" for each in (*chunks, "[DONE]")).encode()
    origin = server.add(Replay(body, (100,))).removesuffix("/v1")  # it adds that itself
    with heavy("mistralai.client") as module:
        client = module.Mistral(api_key="none", server_url=origin)
        completion = accumulate(client.chat.stream(**ASKED))
    assert facts(completion) == facts(read_whole(body).completion())


@every_client
def test_a_reset_reaches_the_caller_and_the_partial_completion_on_end(
    server: Server, name: str, client: SyncClient | AsyncClient
) -> None:
    cut = RECORDING.index(b"\n\n", len(RECORDING) // 2) + 2
    end, raised = wrapped(name, client, server.add(Replay(RECORDING[:cut], (100,), resets=True)))
    assert end.error is raised
    assert raised is not None
    assert end.status == "truncated"
    content = end.completion.choices[0].message.content if end.completion.choices else None
    whole = read_whole(RECORDING).completion().choices[0].message.content
    assert str(whole).startswith(content if isinstance(content, str) else "")


@pytest.mark.parametrize(("name", "error"), LEAVE_IT_COMPRESSED.items())
def test_a_compressed_body_that_its_client_leaves_so_is_a_clear_error(
    server: Server, name: str, error: type[AccumulatorError]
) -> None:
    for encoding in "gzip", "deflate":
        url = server.add(Replay(RECORDING, (1,), encoding))
        with pytest.raises(error, match=f"compressed.*{encoding}"):
            accumulated(name, HTTP[name], url)
        end, _ = wrapped(name, HTTP[name], url)
        assert type(end.error) is error


def held_back() -> Replay:
    # Two events at first: litellm holds one back. requests reads lines 512 bytes at a time.
    first = RECORDING.index(b"\n\n", 1200) + 2
    return Replay(RECORDING, (first, 65536), holds_after=1)


@every_client
def test_items_are_handed_out_while_the_server_holds_back_the_rest(
    server: Server, name: str, client: SyncClient | AsyncClient
) -> None:
    replay = held_back()
    end, raised = wrapped(name, client, server.add(replay), lambda _: replay.goes_on.set())
    assert raised is None
    assert replay.goes_on.is_set()
    assert facts(end.completion) == facts(read_whole(RECORDING).completion())


class LeftError(Exception):
    """Raised by a reader that has enough."""


@every_client
def test_who_leaves_early_closes_the_stream(
    server: Server, name: str, client: SyncClient | AsyncClient
) -> None:
    def leave(item: object) -> None:
        raise LeftError

    replay = held_back()
    end, raised = wrapped(name, client, server.add(replay), leave)
    replay.goes_on.set()
    assert isinstance(raised, LeftError)
    assert end.status == "cancelled"


# --- another event loop ---


# httpx leaves its inner generators to the garbage collector where it is not read to the end.
@pytest.mark.filterwarnings("ignore:Async generator 'httpx:ResourceWarning")
def test_trio_reads_as_asyncio_does(server: Server) -> None:
    httpx, trio = imported("httpx"), imported("trio")
    ends: list[StreamEnd] = []
    url = server.add(Replay(RECORDING, (1, 50)))

    async def read() -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            async with client.stream("GET", url + "/x") as response:
                assert await accumulate(response) == read_whole(RECORDING).completion()
            async with client.stream("GET", url + "/x") as response:
                async with wrap(response, on_end=ends.append) as stream:
                    assert b"".join([piece async for piece in stream]) == RECORDING
                assert stream.completion == read_whole(RECORDING).completion()
            async with client.stream("GET", url + "/x") as response:
                with trio.CancelScope() as scope:
                    async with wrap(response, on_end=ends.append) as stream:
                        await stream.__anext__()
                        scope.cancel()
                        await trio.sleep_forever()

    trio.run(read)
    assert [end.status for end in ends] == ["complete", "cancelled"]
    assert isinstance(ends[1].error, trio.Cancelled)
