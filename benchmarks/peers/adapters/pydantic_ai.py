"""pydantic-ai: `OpenAIChatModel.request_stream()`, and the response it ends with."""

import asyncio
from typing import Any

from _shape import call, completion, usage
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
    details, counts = response.provider_details or {}, response.usage
    text = [part for part in response.parts if isinstance(part, TextPart)]
    thoughts = [part for part in response.parts if isinstance(part, ThinkingPart)]
    calls = [part for part in response.parts if isinstance(part, ToolCallPart)]
    timestamp = details.get("timestamp")
    # The provider's own word where there is one, else what pydantic-ai makes of it; beside a
    # refusal it says `content_filter` of its own.
    reason = None if "refusal" in details else response.finish_reason
    return completion(
        {
            "content": "".join(part.content for part in text),
            "refusal": details.get("refusal"),
            "reasoning": "".join(part.content for part in thoughts),
            "annotations": [
                annotation
                for part in text
                for annotation in (part.provider_details or {}).get("annotations", ())
            ],
            "tool_calls": [
                call(part.tool_call_id, part.tool_name, part.args, **(part.provider_details or {}))
                for part in calls
            ],
        },
        usage(
            # A plain integer is 0 where nothing came; it has no total.
            (counts.input_tokens or None, counts.output_tokens or None, None),
            counts.cache_read_tokens,
            counts.details.get("reasoning_tokens"),
            (counts.input_audio_tokens, counts.details.get("audio_tokens")),
        ),
        id=response.provider_response_id,
        created=None if timestamp is None else timestamp.timestamp(),
        model=response.model_name,
        service_tier=details.get("service_tier"),
        moderation=details.get("moderation"),
        finish_reason=details.get("finish_reason", reason),
        logprobs={"content": details.get("logprobs")},
    )
