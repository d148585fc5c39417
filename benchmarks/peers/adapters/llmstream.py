"""llmstream: `iter_events` over the bytes of the body, and what its events hold."""

import urllib.request
from collections.abc import Iterator
from typing import Any

from llmstream import iter_events


def reduce(url: str, params: dict[str, Any]) -> object:
    """Read one body and return what the events say in the API's shape.

    It has no result of its own: texts are joined here, and the last report of a usage stands.
    """
    text, reasoning, calls = "", "", []
    result: dict[str, Any] = {}
    choice: dict[str, Any] = {"index": 0}
    for event in iter_events(reads(url)):
        match event.type:
            case "delta":
                text += event.text
            case "reasoning_delta":
                reasoning += event.text
            case "tool_call_complete":
                function = {"name": event.name, "arguments": event.raw_arguments}
                calls.append({"id": event.id, "function": function})
            case "error":
                # At its end the stream reports these and does not raise them.
                raise RuntimeError(f"{event.code}: {event.message}")
            case "metadata":
                result["model"] = event.model
                choice["finish_reason"] = event.finish_reason
            case "usage":
                result["usage"] = {
                    "prompt_tokens": event.input_tokens,
                    "completion_tokens": event.output_tokens,
                    "total_tokens": event.total_tokens,
                }
    choice["message"] = {"content": text, "reasoning": reasoning, "tool_calls": calls}
    return {**result, "choices": [choice]}


def reads(url: str) -> Iterator[bytes]:
    """Yield the body of the answer as it comes."""
    with urllib.request.urlopen(f"{url}/chat/completions", data=b"{}") as response:
        while data := response.read1():
            yield data
