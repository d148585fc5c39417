"""langfuse: its OpenAI client, and the observation that it records."""

import json
from collections.abc import Mapping
from typing import Any

from _shape import completion
from langfuse import Langfuse
from langfuse.openai import OpenAI  # type: ignore[attr-defined]
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

SPANS = InMemorySpanExporter()
LANGFUSE = Langfuse(public_key="pk-none", secret_key="sk-none", span_exporter=SPANS)
PREFIX = "langfuse.observation."


def reduce(url: str, params: dict[str, Any]) -> object:
    """Drain one traced stream and return its observation in the API's shape."""
    # An exception below leaves its span behind.
    LANGFUSE.flush()
    SPANS.clear()
    client = OpenAI(base_url=url, api_key="none", max_retries=0)
    for _ in client.chat.completions.create(**params, stream=True):
        pass
    LANGFUSE.flush()
    (span,) = SPANS.get_finished_spans()
    attributes = span.attributes or {}
    # It is set with the rest, or with nothing, as an exception in between is dropped.
    if f"{PREFIX}completion_start_time" not in attributes:
        raise RuntimeError("the extraction failed silently; nothing was recorded")
    return in_api_shape(attributes)


def in_api_shape(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Put the observation's attributes where the API has them."""
    output = attributes.get(f"{PREFIX}output")
    message = decoded(output)
    # Content alone is recorded as it is, with calls as the JSON of a message.
    if not isinstance(message, dict) or message.keys().isdisjoint(("tool_calls", "function_call")):
        message = {"content": output}
    parameters = decoded(attributes.get(f"{PREFIX}model.parameters")) or {}
    return completion(
        message,
        decoded(attributes.get(f"{PREFIX}usage_details")),
        model=attributes.get(f"{PREFIX}model.name"),
        service_tier=parameters.get("service_tier"),
        finish_reason=decoded(attributes.get(f"{PREFIX}metadata.finish_reason")),
    )


def decoded(value: object) -> Any:
    """Undo the JSON that attributes wrap everything but text in."""
    try:
        return json.loads(str(value)) if isinstance(value, str) else value
    except ValueError:
        return value
