"""langchain-openai: the message chunks of `ChatOpenAI.stream()`, added up with `+`."""

from functools import reduce as fold
from operator import add
from typing import Any

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
    return {
        "model": about.get("model_name"),
        "service_tier": about.get("service_tier"),
        "system_fingerprint": about.get("system_fingerprint"),
        "usage": usage_of(message, about.get("service_tier")),
        "choices": [
            {
                "index": 0,
                "finish_reason": about.get("finish_reason"),
                "logprobs": about.get("logprobs"),
                "message": {
                    "role": {"ai": "assistant", "AIMessageChunk": "assistant"}.get(
                        message.type, getattr(message, "role", message.type)
                    ),
                    "content": message.content,
                    "function_call": message.additional_kwargs.get("function_call"),
                    "audio": message.additional_kwargs.get("audio"),
                    "tool_calls": [
                        {
                            "id": call["id"],
                            "function": {"name": call["name"], "arguments": call["args"]},
                        }
                        for call in getattr(message, "tool_call_chunks", ())
                    ],
                },
            }
        ],
    }


def usage_of(message: AIMessageChunk, tier: str | None) -> dict[str, Any] | None:
    """Give the usage as the API counts it; langchain prefixes two details with the paid tier."""
    usage = getattr(message, "usage_metadata", None)
    if usage is None:
        return None
    read = usage.get("input_token_details", {})
    written = usage.get("output_token_details", {})
    return {
        # A plain integer is 0 where nothing came.
        "prompt_tokens": usage["input_tokens"] or None,
        "completion_tokens": usage["output_tokens"] or None,
        "total_tokens": usage["total_tokens"],
        "prompt_tokens_details": {
            "audio_tokens": read.get("audio"),
            "cached_tokens": read.get("cache_read", read.get(f"{tier}_cache_read")),
        },
        "completion_tokens_details": {
            "audio_tokens": written.get("audio"),
            "reasoning_tokens": written.get("reasoning", written.get(f"{tier}_reasoning")),
        },
    }
