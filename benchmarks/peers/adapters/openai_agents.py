"""openai-agents: `OpenAIChatCompletionsModel.stream_response()`, and the response it completes."""

import asyncio
from typing import Any

from _shape import call, completion, usage
from agents import ModelSettings, OpenAIChatCompletionsModel
from agents.models.interface import ModelTracing
from openai import AsyncOpenAI
from openai.types.responses import (
    Response,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseReasoningItem,
)


def reduce(url: str, params: dict[str, Any]) -> object:
    """Stream one response and return it in the API's shape."""
    return asyncio.run(stream(url, params))


async def stream(url: str, params: dict[str, Any]) -> object:
    """Drain one streamed response; its last event carries all of it."""
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        model = OpenAIChatCompletionsModel(params["model"], client)
        completed: list[Response] = []
        async for event in model.stream_response(
            system_instructions=None,
            input="hello",
            model_settings=ModelSettings(include_usage=True),
            tools=[],
            output_schema=None,
            handoffs=[],
            tracing=ModelTracing.DISABLED,
            previous_response_id=None,
            conversation_id=None,
            prompt=None,
        ):
            if event.type == "response.completed":
                completed.append(event.response)
    (response,) = completed
    return in_api_shape(response)


def in_api_shape(response: Response) -> dict[str, Any]:
    """Name the Responses API's items as the Chat Completions API does."""
    message: dict[str, Any] = {"content": "", "refusal": "", "reasoning": "", "tool_calls": []}
    logprobs: list[Any] = []
    for item in response.output:
        match item:
            case ResponseOutputMessage():
                message["role"] = item.role
                for part in item.content:
                    if part.type == "output_text":
                        message["content"] += part.text
                        logprobs += part.logprobs or ()
                        message["annotations"] = [
                            {"type": "url_citation", "url_citation": each.model_dump()}
                            for each in part.annotations
                        ]
                    else:
                        message["refusal"] += part.refusal
            case ResponseFunctionToolCall():
                message["tool_calls"].append(call(item.call_id, item.name, item.arguments))
            case ResponseReasoningItem():
                texts = item.content or item.summary
                message["reasoning"] += "".join(part.text for part in texts)
    return completion(message, usage_of(response), logprobs={"content": logprobs})


def usage_of(response: Response) -> dict[str, Any] | None:
    """Return the usage as Chat Completions count it; a plain integer is 0 where nothing came."""
    counts = response.usage
    return counts and usage(
        (counts.input_tokens or None, counts.output_tokens or None, counts.total_tokens),
        counts.input_tokens_details.cached_tokens,
        counts.output_tokens_details.reasoning_tokens,
    )
