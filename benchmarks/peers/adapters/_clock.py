"""Time one peer in the environment it is installed in, as one more adapter of the harness.

A request with the path of a body and `{"way": NAME, "read": BYTES}` is answered with the peer's
result, one without a path with the seconds of one more run. The body comes through a transport in
this process, so that no socket is timed.
"""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from __main__ import load

Reads = list[bytes]
# What is timed, and what puts its result into the API's shape.
Way = tuple[Callable[[], Any], Callable[[Any], Any]]

MESSAGES = [{"role": "user", "content": "hello"}]
QUESTION: dict[str, Any] = {"model": "gpt-4o-mini", "messages": MESSAGES}
RUNS: list[Callable[[], Any]] = []


def reduce(path: str, params: dict[str, Any]) -> object:
    """Return the result for a body, or the seconds of one more run over the last one."""
    gc.collect()
    if path:
        body, size = Path(path).read_bytes(), params["read"]
        reads = [body[start : start + size] for start in range(0, len(body), size)]
        run, shape = WAYS[params["way"]](reads)
        RUNS[:] = [run]
        result = shape(run())
        gc.freeze()
        return result
    start = time.perf_counter()
    RUNS[0]()
    return time.perf_counter() - start


def dumped(completion: Any) -> Any:
    """Return a pydantic model as builtins."""
    return completion.model_dump(warnings=False)


def openai_bytes(reads: Reads) -> Way:
    """From bytes to the final completion, as openai-python's own helper does it."""
    completions = openai_client(reads).chat.completions

    def run() -> Any:
        with completions.stream(**QUESTION) as stream:
            return stream.get_final_completion()

    return run, dumped


def openai_state(reads: Reads) -> Way:
    """Only the state of that helper, over objects that are ready."""
    helper = import_module("openai.lib.streaming.chat").ChatCompletionStreamState
    chunks = list(openai_client(reads).chat.completions.create(**QUESTION, stream=True))

    def run() -> Any:
        state = helper()
        for chunk in chunks:
            state.handle_chunk(chunk)
        return state.get_final_completion()

    return run, dumped


def litellm(reads: Reads) -> Way:
    """From bytes to chunks, and from the chunks to a response."""
    package, client = import_module("litellm"), openai_client(reads)
    options = {"client": client, "stream": True, "stream_options": {"include_usage": True}}

    def run() -> Any:
        stream = package.completion("openai/gpt-4o-mini", MESSAGES, **options)
        return package.stream_chunk_builder(list(stream), messages=MESSAGES)

    return run, lambda built: load("litellm").in_api_shape(built.model_dump())


def any_llm(reads: Reads) -> Way:
    """From bytes to chunks to a completion, the async way, which its sync one goes through."""
    package, httpx = import_module("any_llm"), http_library()
    accumulate = import_module("any_llm.utils.streaming").aaccumulate_chunks

    async def ask() -> Any:
        client = {"http_client": httpx.AsyncClient(transport=transport(httpx, reads))}
        options = {"provider": "openai", "api_key": "none", "client_args": client, "stream": True}
        return await accumulate(await package.acompletion(**options, **QUESTION))

    return lambda: asyncio.run(ask()), dumped


def langchain(reads: Reads) -> Way:
    """From bytes to message chunks, and to their sum."""
    httpx = http_library()
    client = httpx.Client(transport=transport(httpx, reads))
    options = {"api_key": "none", "http_client": client, "stream_usage": True}
    model = import_module("langchain_openai").ChatOpenAI(
        model=QUESTION["model"], use_responses_api=False, **options
    )

    def run() -> Any:
        # Their `+` takes a list, too, and is not quadratic then.
        first, *others = model.stream("hello")
        return first + others

    return run, load("langchain").in_api_shape


WAYS: dict[str, Callable[[Reads], Way]] = {
    "openai": openai_bytes,
    "openai_state": openai_state,
    "litellm": litellm,
    "any_llm": any_llm,
    "langchain": langchain,
}


def openai_client(reads: Reads) -> Any:
    """Return openai's client, which gets these reads for an answer."""
    httpx = http_library()
    client = httpx.Client(transport=transport(httpx, reads))
    return import_module("openai").OpenAI(api_key="none", http_client=client, max_retries=0)


def http_library() -> Any:
    """Import the library that the installed openai has its clients from."""
    base = import_module("openai").DefaultHttpxClient.__mro__[1]
    return import_module(base.__module__.partition(".")[0])


def transport(httpx: Any, reads: Reads) -> Any:
    """Return a transport that answers every request with these reads."""

    class Body(httpx.SyncByteStream, httpx.AsyncByteStream):  # type: ignore[misc]  # known at run time
        def __iter__(self) -> Iterator[bytes]:
            return iter(reads)

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for data in reads:
                yield data

    def respond(request: object) -> Any:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Body())

    return httpx.MockTransport(respond)
