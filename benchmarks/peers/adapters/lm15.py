"""lm15: `OpenAIChatLM.stream()`, and the `Response` that its `ResponseStream` ends with."""

from typing import Any

from _shape import call, completion, usage
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
)


def reduce(url: str, params: dict[str, Any]) -> object:
    """Stream one response and return it in the API's shape."""
    model = OpenAIChatLM(api_key="none", base_url=url)
    request = Request(model=params["model"], messages=(Message.user("hello"),))
    return in_api_shape(ResponseStream(model.stream(request), request).response)


def in_api_shape(response: Response) -> dict[str, Any]:
    """Name lm15's parts as the API does."""
    parts, counts = response.message.parts, response.usage

    def text_of(kind: type[Any]) -> str:
        return "".join(part.text for part in parts if isinstance(part, kind))

    calls = [
        call(part.id, part.name, arguments_of(part))
        for part in parts
        if isinstance(part, ToolCallPart)
    ]
    message = {
        "role": response.message.role,
        "content": text_of(TextPart),
        "reasoning": text_of(ThinkingPart),
        "refusal": text_of(RefusalPart),
        "tool_calls": calls,
    }
    tokens = [
        {"token": each.token, "logprob": each.logprob, "bytes": each.bytes}
        for each in response.logprobs or ()
    ]
    return completion(
        message,
        usage(
            (counts.input_tokens, counts.output_tokens, counts.total_tokens),
            counts.cache_read_tokens,
            counts.reasoning_tokens,
            (counts.input_audio_tokens, counts.output_audio_tokens),
        ),
        finish_reason=reason_of(response),
        logprobs={"content": tokens},
    )


def reason_of(response: Response) -> object:
    """Return the server's word where the last frame has it, else lm15's for it."""
    for choice in (response.provider_data or {}).get("choices") or ():
        if isinstance(choice, dict) and choice.get("finish_reason"):
            return choice["finish_reason"]
    reason = response.finish_reason
    return "tool_calls" if reason == "tool_call" else reason


def arguments_of(part: ToolCallPart) -> object:
    """Return the arguments; lm15 wraps what is no JSON object in one."""
    if len(part.input) == 1:
        return part.input.get("partial_json", part.input.get("value", part.input))
    return part.input
