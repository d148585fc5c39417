"""A server that plays OpenAI's chat completions, for the examples."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loopback import serving

RECORDING = Path(__file__).parent / "recordings" / "weather-tool-call.sse"

JsonObject = dict[str, object]


def body_for(request: JsonObject) -> bytes:
    """Answer with the recorded calls if the request has tools, else with text."""
    messages = request["messages"]
    assert isinstance(messages, list)
    results = [message for message in messages if message["role"] == "tool"]
    if "tools" in request and not results:
        return RECORDING.read_bytes()
    answer = "It is 21 °C in Zürich" + (" and 27 °C in 東京." if len(results) > 1 else ".")
    words = re.findall(r"\s?\S{1,3}", answer)
    deltas: list[JsonObject] = [{"content": word} for word in words]
    deltas[0]["role"] = "assistant"
    chunks = [chunk({"index": 0, "delta": delta, "finish_reason": None}) for delta in deltas]
    chunks.append(chunk({"index": 0, "delta": {}, "finish_reason": "stop"}))
    if request.get("stream_options") == {"include_usage": True}:
        usage = {"prompt_tokens": 15, "completion_tokens": len(words)}
        chunks.append(chunk() | {"usage": {**usage, "total_tokens": 15 + len(words)}})
    events = [json.dumps(each, ensure_ascii=False) for each in chunks]
    return "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"]).encode()


def chunk(*choices: JsonObject) -> JsonObject:
    return {
        "id": "chatcmpl-loopback",
        "object": "chat.completion.chunk",
        "created": 1767225600,
        "model": "gpt-4o-mini",
        "choices": choices,
    }


@contextmanager
def playing() -> Iterator[str]:
    """Serve, in pieces that cut characters, until the block ends; gives the base URL."""

    def answer(request: bytes) -> tuple[str, Iterator[bytes]]:
        body = body_for(json.loads(request))
        return "text/event-stream", (body[start : start + 7] for start in range(0, len(body), 7))

    with serving(answer) as url:
        yield url
