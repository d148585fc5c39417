"""lm15: `OpenAIChatLM.stream()`, and the `Response` that its `ResponseStream` ends with."""

from typing import Any

from lm15 import (
    Message,
    OpenAIChatLM,
    RefusalPart,
    Request,
    Response,
    ResponseStream,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    Usage,
)

REASONS = {"tool_call": "tool_calls"}


def reduce(url: str, params: dict[str, Any]) -> object:
    """Stream one response and return it in the API's shape."""
    model = OpenAIChatLM(api_key="none", base_url=url)
    request = Request(model=params["model"], messages=(Message.user("hello"),))
    return in_api_shape(ResponseStream(model.stream(request), request).response)


def in_api_shape(response: Response) -> dict[str, Any]:
    """Name lm15's parts as the API does."""

    def joined(kind: type[Any]) -> str:
        return "".join(part.text for part in response.message.parts if isinstance(part, kind))

    calls = [part for part in response.message.parts if isinstance(part, ToolCallPart)]
    message = {
        "role": response.message.role,
        "content": joined(TextPart),
        "reasoning": joined(ThinkingPart),
        "refusal": joined(RefusalPart),
        "tool_calls": [
            {"id": call.id, "function": {"name": call.name, "arguments": arguments_of(call)}}
            for call in calls
        ],
    }
    reason = response.finish_reason
    logprobs = [
        {"token": each.token, "logprob": each.logprob, "bytes": each.bytes}
        for each in response.logprobs or ()
    ]
    choice = {
        "index": 0,
        "finish_reason": REASONS.get(reason, reason),
        "message": message,
        "logprobs": {"content": logprobs},
    }
    return {"usage": usage_of(response.usage), "choices": [choice]}


def arguments_of(call: ToolCallPart) -> object:
    """Return the arguments; lm15 wraps what is no JSON object in one."""
    if len(call.input) == 1:
        return call.input.get("partial_json", call.input.get("value", call.input))
    return call.input


def usage_of(usage: Usage) -> dict[str, Any]:
    """Return the usage as the API counts it."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "audio_tokens": usage.input_audio_tokens,
            "cached_tokens": usage.cache_read_tokens,
        },
        "completion_tokens_details": {
            "audio_tokens": usage.output_audio_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
        },
    }
