"""A stream in each form that it can have, and sources of it that count what happens to them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from contextlib import suppress
from typing import Any

from accumulator import Accumulator, ChatCompletion

Chunk = dict[str, object]


def a_chunk(*choices: Chunk, **fields: object) -> Chunk:
    envelope = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**envelope, "choices": list(choices), **fields}


def a_piece(text: str) -> Chunk:
    return a_chunk({"index": 0, "delta": {"content": text}, "finish_reason": None})


def delta(fields: object, **choice: object) -> Chunk:
    return {"choices": [{"index": 0, "delta": fields, **choice}]}


def deltas(*fields: object, **choice: object) -> list[Chunk]:
    return [delta(each, **choice) for each in fields]


FINISH = a_chunk({"index": 0, "delta": {}, "finish_reason": "stop"})
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
CHUNKS = [
    a_chunk({"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}),
    *map(a_piece, ["Grüße", ", 世界", " 🌍", "\u2028\n"]),
    FINISH,
    a_chunk(usage=USAGE),
]
TEXTS = [json.dumps(chunk, ensure_ascii=False) for chunk in CHUNKS]
BODY = "".join(f"data: {text}\n\n" for text in [*TEXTS, "[DONE]"]).encode()
_MESSAGE = {"role": "assistant", "content": "Grüße, 世界 🌍\u2028\n", "refusal": None}
WHOLE: Chunk = {
    **{"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m"},
    "choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop", "logprobs": None}],
    "usage": USAGE,
}
REFUSED: Chunk = {"error": {"message": "Incorrect API key provided.", "code": "invalid_api_key"}}


def cut(body: bytes, *sizes: int) -> Iterator[bytes]:
    """Cut a body into pieces of these sizes, again and again."""
    while body:
        for size in sizes:
            if body:
                yield body[:size]
                body = body[size:]


def closed_after(pieces: Iterable[Any], way: str, options: dict[str, Any]) -> Accumulator:
    acc = Accumulator(**options)
    for piece in pieces:
        getattr(acc, way)(piece)
    acc.close()
    return acc


def read_all(reads: Iterable[bytes], **options: Any) -> Accumulator:
    """Return a closed accumulator that was fed a body in these reads."""
    return closed_after(reads, "feed_sse", options)


def read_whole(body: bytes, **options: Any) -> Accumulator:
    """Return a closed accumulator that was fed a body in one read."""
    return read_all([body], **options)


def fed(chunks: Iterable[object], **options: Any) -> Accumulator:
    """Return a closed accumulator that was fed these chunks."""
    return closed_after(chunks, "feed", options)


def read_lines(lines: Iterable[bytes | str], **options: Any) -> Accumulator:
    """Return a closed accumulator that was fed these lines."""
    return closed_after(lines, "feed_line", options)


def spoil(value: object) -> None:
    """Change everything inside of a JSON value."""
    if isinstance(value, dict):
        for item in value.values():
            spoil(item)
        value.clear()
    elif isinstance(value, list):
        for item in value:
            spoil(item)
        value.append("spoiled")


def run_by_itself(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own, and return what it printed."""
    command = [sys.executable, *options, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def read_terminal(ours: int) -> bytes:
    """Return what a process writes to a terminal until it ends, and close our side."""
    shown = b""
    with suppress(OSError):  # what Linux raises at the end
        while part := os.read(ours, 65536):
            shown += part
    os.close(ours)
    return shown


def content_of(completion: ChatCompletion) -> object:
    return completion.choices[0].message.content if completion.choices else None


async def drip(items: Iterable[object]) -> AsyncIterator[object]:
    for item in items:
        await asyncio.sleep(0)
        yield item


async def cancel(reading: Coroutine[Any, Any, None]) -> None:
    """Cancel a reader once it waits for ever."""
    task = asyncio.ensure_future(reading)
    for _ in range(50):
        await asyncio.sleep(0)
    task.cancel()
    await task


class BodyError(Exception):
    """Raised by the body of a loop."""


class Source:
    """A stream of items and, if there is one, an error at their end; it counts what happens."""

    def __init__(self, items: Iterable[object], error: BaseException | None = None) -> None:
        self.items = list(items)
        self.error = error
        self.handed_out = 0
        self.closed = 0
        self.response = "the response"

    def __iter__(self) -> Source:
        return self

    def __next__(self) -> object:
        if self.handed_out < len(self.items):
            self.handed_out += 1
            return self.items[self.handed_out - 1]
        if self.error is not None:
            raise self.error
        raise StopIteration

    def close(self) -> None:
        self.closed += 1


class AsyncSource:
    """The same, async; if its error is a CancelledError, it waits at its end until cancelled."""

    def __init__(self, items: Iterable[object], error: BaseException | None = None) -> None:
        self.inner = Source(items, error)
        self.response = "the response"

    def __aiter__(self) -> AsyncSource:
        return self

    async def __anext__(self) -> object:
        await asyncio.sleep(0)
        try:
            return next(self.inner)
        except StopIteration:
            raise StopAsyncIteration from None
        except asyncio.CancelledError:
            await asyncio.Event().wait()
            raise

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.inner.close()

    @property
    def closed(self) -> int:
        return self.inner.closed

    @property
    def handed_out(self) -> int:
        return self.inner.handed_out
