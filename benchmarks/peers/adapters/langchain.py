"""langchain-openai: the message chunks of `ChatOpenAI.stream()`, added up with `+`."""

from functools import reduce as fold
from operator import add
from typing import Any

from _shape import call, completion, usage
from langchain_core.messages import AIMessageChunk
from langchain_openai import ChatOpenAI
from pydantic import SecretStr


def reduce(url: str, params: dict[str, Any]) -> object:
    """Stream one message and return the sum of its chunks in the API's shape."""
    model = ChatOpenAI(
        base_url=url,
        api_key=SecretStr("none"),
        model=params["model"],
        n=params["n"],
        max_retries=0,
        stream_usage=True,
        use_responses_api=False,
    )
    return in_api_shape(fold(add, model.stream("hello")))


def in_api_shape(message: AIMessageChunk) -> dict[str, Any]:
    """Name langchain's fields as the API does."""
    about = message.response_metadata
    role = {"ai": "assistant", "AIMessageChunk": "assistant"}
    return completion(
        {
            "role": role.get(message.type, getattr(message, "role", message.type)),
            "content": message.content,
            "function_call": message.additional_kwargs.get("function_call"),
            "audio": message.additional_kwargs.get("audio"),
            "tool_calls": [
                call(each["id"], each["name"], each["args"])
                for each in getattr(message, "tool_call_chunks", ())
            ],
        },
        usage_of(message, about.get("service_tier")),
        model=about.get("model_name"),
        service_tier=about.get("service_tier"),
        system_fingerprint=about.get("system_fingerprint"),
        finish_reason=about.get("finish_reason"),
        logprobs=about.get("logprobs"),
    )


def usage_of(message: AIMessageChunk, tier: str | None) -> dict[str, Any] | None:
    """Return the usage as the API counts it; langchain prefixes two details with the paid tier."""
    counts: Any = getattr(message, "usage_metadata", None)
    if counts is None:
        return None
    read, written = counts.get("input_token_details", {}), counts.get("output_token_details", {})
    return usage(
        # A plain integer is 0 where nothing came.
        (counts["input_tokens"] or None, counts["output_tokens"] or None, counts["total_tokens"]),
        read.get("cache_read", read.get(f"{tier}_cache_read")),
        written.get("reasoning", written.get(f"{tier}_reasoning")),
        (read.get("audio"), written.get("audio")),
    )
