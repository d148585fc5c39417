"""ddtrace: its handler of OpenAI streams around a real one, up to the messages it would send."""

from typing import Any

import openai
from ddtrace.contrib.internal.openai.utils import OpenAIStreamHandler
from ddtrace.llmobs._integrations.base_stream_handler import make_traced_stream
from ddtrace.trace import tracer


class Sink:
    """Stand where LLM Observability does and keep what the handler hands over."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] | None = None

    def llmobs_set_tags(self, span: object, **about: Any) -> None:
        """Keep the messages, one for each choice."""
        self.messages = about["response"]


def reduce(url: str, params: dict[str, Any]) -> object:
    """Drain one traced stream and return its messages in the API's shape."""
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
    sink = Sink()
    span = tracer.trace("openai.request")
    stream = client.chat.completions.create(**params, stream=True)
    make_handler: Any = OpenAIStreamHandler
    handler = make_handler(sink, span, [], params, operation_type="chat")
    for _ in make_traced_stream(stream, handler):
        pass
    if sink.messages is None:
        raise RuntimeError("the handler failed and logged it; nothing was recorded")
    return in_api_shape(sink.messages, span.get_tag("openai.response.model"))


def in_api_shape(messages: list[dict[str, Any]], model: str | None) -> dict[str, Any]:
    """Put finish reason, index and usage where the API has them."""
    usage = None
    choices = []
    for message in messages:
        usage = message.pop("usage", None) or usage
        # A legacy function call is filed as a tool call without id, type and `function`.
        calls = message.get("tool_calls", [])
        legacy = [call for call in calls if "index" not in call]
        message["tool_calls"] = [call for call in calls if "index" in call]
        message["function_call"] = legacy[0] if legacy else None
        choices.append(
            {
                "index": message.pop("index", 0),
                "finish_reason": message.pop("finish_reason", None),
                "message": message,
            }
        )
    return {"model": model, "usage": usage, "choices": choices}
