"""llmstream: `iter_events` over the bytes of the body, and what its events hold."""

import urllib.request
from collections.abc import Iterator
from typing import Any

from _shape import call, completion, usage
from llmstream import iter_events


def reduce(url: str, params: dict[str, Any]) -> object:
    """Read one body and return what the events say in the API's shape.

    It has no result of its own: texts are joined here, and the last report of a usage stands.
    """
    message: dict[str, Any] = {"content": "", "reasoning": "", "tool_calls": []}
    fields: dict[str, Any] = {}
    for event in iter_events(reads(url)):
        match event.type:
            case "delta":
                message["content"] += event.text
            case "reasoning_delta":
                message["reasoning"] += event.text
            case "tool_call_complete":
                message["tool_calls"].append(call(event.id, event.name, event.raw_arguments))
            case "error":
                # At its end the stream reports these and does not raise them.
                raise RuntimeError(f"{event.code}: {event.message}")
            case "metadata":
                fields |= {"model": event.model, "finish_reason": event.finish_reason}
            case "usage":
                counts = (event.input_tokens, event.output_tokens, event.total_tokens)
                fields["usage"] = usage(counts)
    return completion(message, **fields)


def reads(url: str) -> Iterator[bytes]:
    """Yield the body of the answer as it comes."""
    with urllib.request.urlopen(f"{url}/chat/completions", data=b"{}") as response:
        while data := response.read1():
            yield data
