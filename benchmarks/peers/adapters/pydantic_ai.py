"""pydantic-ai: `OpenAIChatModel.request_stream()`, and the response it ends with."""

import asyncio
from typing import Any

from openai import AsyncOpenAI
from pydantic_ai.messages import (
    ModelRequest,
    ModelResponse,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIChatModelSettings
from pydantic_ai.providers.openai import OpenAIProvider

# Without the second, usage in every chunk is added up; with it, a usage in two halves is not.
SETTINGS = OpenAIChatModelSettings(
    openai_include_raw_annotations=True, openai_continuous_usage_stats=True
)


def reduce(url: str, params: dict[str, Any]) -> object:
    """Stream one response and return it in the API's shape."""
    return asyncio.run(stream(url, params))


async def stream(url: str, params: dict[str, Any]) -> object:
    """Drain one streamed response."""
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        model = OpenAIChatModel(params["model"], provider=OpenAIProvider(openai_client=client))
        request = ModelRequest(parts=[UserPromptPart("hello")])
        async with model.request_stream([request], SETTINGS, ModelRequestParameters()) as response:
            async for _ in response:
                pass
            return in_api_shape(response.get())


def in_api_shape(response: ModelResponse) -> dict[str, Any]:
    """Name pydantic-ai's parts and details as the API does."""
    details = response.provider_details or {}
    text = [part for part in response.parts if isinstance(part, TextPart)]
    timestamp = details.get("timestamp")
    return {
        "id": response.provider_response_id,
        "created": None if timestamp is None else timestamp.timestamp(),
        "model": response.model_name,
        "service_tier": details.get("service_tier"),
        "moderation": details.get("moderation"),
        "usage": usage_of(response),
        "choices": [
            {
                "index": 0,
                # The provider's own word where there is one, else what pydantic-ai makes of it;
                # beside a refusal it says `content_filter` of its own.
                "finish_reason": details.get(
                    "finish_reason", None if "refusal" in details else response.finish_reason
                ),
                "logprobs": {"content": details.get("logprobs")},
                "message": {
                    "content": "".join(part.content for part in text),
                    "refusal": details.get("refusal"),
                    "reasoning": "".join(
                        part.content for part in response.parts if isinstance(part, ThinkingPart)
                    ),
                    "annotations": [
                        annotation
                        for part in text
                        for annotation in (part.provider_details or {}).get("annotations", ())
                    ],
                    "tool_calls": [
                        {
                            "id": call.tool_call_id,
                            "function": {"name": call.tool_name, "arguments": call.args},
                            **(call.provider_details or {}),
                        }
                        for call in response.parts
                        if isinstance(call, ToolCallPart)
                    ],
                },
            }
        ],
    }


def usage_of(response: ModelResponse) -> dict[str, Any]:
    """Give the usage as the API counts it; a plain integer is 0 where nothing came."""
    usage = response.usage
    return {
        "prompt_tokens": usage.input_tokens or None,
        "completion_tokens": usage.output_tokens or None,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "audio_tokens": usage.input_audio_tokens,
        },
        "completion_tokens_details": {
            name: usage.details.get(name)
            for name in (
                "reasoning_tokens",
                "accepted_prediction_tokens",
                "rejected_prediction_tokens",
                "audio_tokens",
            )
        },
    }
