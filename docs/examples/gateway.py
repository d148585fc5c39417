"""A gateway: streams pass through as they arrive, SQLite stores their usage, cost and time to first
token, and a question that was answered before is streamed from the cache.

    pip install chunk-accumulator httpx starlette uvicorn
    python gateway.py gateway.sqlite 8000

Then point a client at http://127.0.0.1:8000/v1, with its usual key. OPENAI_BASE_URL names the
model's server.
"""

import hashlib
import json
import os
import sqlite3
import sys
import time
from collections.abc import AsyncIterator

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from accumulator import ChatCompletion, StreamEnd, Usage, iter_chunks, split
from accumulator.asgi import tap
from accumulator.replay import sse

URL = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1") + "/chat/completions"
DOLLARS = {"gpt-4o-mini": (0.15, 0.60)}  # per million tokens of the prompt and of the answer
SCHEMA = """
CREATE TABLE IF NOT EXISTS cache (key TEXT PRIMARY KEY, completion TEXT);
CREATE TABLE IF NOT EXISTS streams (
    id TEXT, model TEXT, status TEXT, prompt_tokens INTEGER, completion_tokens INTEGER,
    dollars REAL, first_token_seconds REAL, error TEXT
);
"""


class Gateway:
    def __init__(self, database: str) -> None:
        self.database = sqlite3.connect(database, isolation_level=None)  # each row is a transaction
        self.database.executescript(SCHEMA)
        # A model may think for minutes before its first byte.
        self.client = httpx.AsyncClient(timeout=httpx.Timeout(10, read=600))

    async def complete(self, request: Request) -> Response:
        started = time.monotonic()
        names = ("authorization", "content-type")
        headers = {name: request.headers[name] for name in names if name in request.headers}
        body = await request.body()
        asked = json.loads(body)
        options = asked.get("stream_options") or {}
        hides_usage = not options.get("include_usage")
        if asked.get("stream"):  # we need the usage, even if the client does not want it
            asked["stream_options"] = {**options, "include_usage": True}
            body = json.dumps(asked).encode()
        # The key includes the API key, so that nobody is answered from a stranger's cache.
        key = hashlib.sha256(headers.get("authorization", "").encode() + b"\n" + body).hexdigest()
        row = self.database.execute("SELECT completion FROM cache WHERE key = ?", [key]).fetchone()
        if row:
            completion = ChatCompletion.from_json(row[0])
            self.insert(asked["model"], completion, "complete", (0, 0))
            chunks = (chunk for chunk in split(completion) if chunk["choices"] or not hides_usage)
            return StreamingResponse(sse(chunks), media_type="text/event-stream")

        def on_end(end: StreamEnd) -> None:  # once, however the stream ends
            seconds = end.timing and end.timing.time_to_first_token
            prices = DOLLARS.get(asked["model"])
            self.insert(asked["model"], end.completion, end.status, prices, seconds, end.error)
            if end.status == "complete" and end.error is None:
                entry = [key, end.completion.to_json()]
                self.database.execute("INSERT OR REPLACE INTO cache VALUES (?, ?)", entry)

        question = self.client.build_request("POST", URL, content=body, headers=headers)
        upstream = await self.client.send(question, stream=True)
        kind = upstream.headers.get("content-type", "")
        pieces: AsyncIterator[bytes] = upstream.aiter_bytes()
        if kind.startswith("text/event-stream"):
            pieces = tap(upstream, on_end=on_end, clock=time.monotonic, started=started)
            if hides_usage:
                pieces = without_usage(pieces)
        return StreamingResponse(pieces, upstream.status_code, media_type=kind)

    def insert(
        self,
        model: str,
        completion: ChatCompletion,
        status: str,
        prices: tuple[float, float] | None,
        seconds: float | None = None,  # None if the cache answered
        error: BaseException | None = None,
    ) -> None:
        usage, dollars = completion.usage or Usage(), None
        prompt, answer = usage.prompt_tokens, usage.completion_tokens
        if prices and prompt is not None and answer is not None:
            dollars = (prompt * prices[0] + answer * prices[1]) / 1_000_000
        row = [completion.id, model, status, prompt, answer, dollars, seconds, error and str(error)]
        self.database.execute("INSERT INTO streams VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)


def is_usage_alone(chunk: bytes) -> bool:
    try:
        fields = json.loads(chunk)
    except ValueError:  # [DONE], or damaged data, which the client should see
        return False
    return isinstance(fields, dict) and bool(fields.get("usage")) and not fields.get("choices")


async def without_usage(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the events of a stream, except the one that has nothing but usage."""
    async for chunk in iter_chunks(stream):
        if not is_usage_alone(chunk):
            yield b"data: %b\n\n" % chunk


if __name__ == "__main__":
    route = Route("/v1/chat/completions", Gateway(sys.argv[1]).complete, methods=["POST"])
    uvicorn.run(Starlette(routes=[route]), port=int(sys.argv[2]))
