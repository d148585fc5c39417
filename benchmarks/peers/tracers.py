"""Tracers, which observe a stream of openai-python's, and how to call each of them.

What they record is renamed to the API's fields, as in reducers.py.
"""
# ruff: noqa: PLC0415  # the peers are in other environments

import sys
from functools import cache
from types import SimpleNamespace
from typing import Any

import reducers  # noqa: F401  # they register themselves, and come first
from peers import EVERYTHING, Object, answer, chunks_of, completion, decoded, langchains, peer


@peer("openinference-instrumentation-openai==0.1.66 opentelemetry-sdk==1.45.2", EVERYTHING)
def openinference(url: str, params: Object) -> object:
    """the instrumented client, and the `output.value` of the span that it records."""
    spans = openinferences_spans()
    spans.clear()
    for _ in chunks_of(url, params):
        pass
    (span,) = spans.get_finished_spans()
    return decoded(span.attributes.get("output.value"))


@cache
def openinferences_spans() -> Any:
    """Instrument openai-python; return where its spans go."""
    from openinference.instrumentation.openai import OpenAIInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    OpenAIInstrumentor().instrument(tracer_provider=provider)
    return spans


# Of an unstreamed completion it keeps everything but the usage's vendor fields.
@peer(
    "langsmith==0.15.1",
    "API CALLS TYPES -usage USAGE CACHED REASONED AUDIO reasoning reasoning_content"
    " extra.completion extra.choices extra.message extra.tool_calls",
)
def langsmith(url: str, params: Object) -> object:
    """`wrap_openai`, and the outputs of the run that it records."""
    import openai
    from langsmith.run_helpers import tracing_context
    from langsmith.wrappers import wrap_openai

    runs: list[Any] = []
    params = {**params, "langsmith_extra": {"on_end": runs.append}}
    # "local": the run is traced, but not sent anywhere.
    with tracing_context(enabled="local"):
        for _ in chunks_of(url, params, lambda **how: wrap_openai(openai.OpenAI(**how))):
            pass
    outputs = dict(runs[0].outputs or {})
    counts = outputs.pop("usage_metadata", None)
    if counts is not None:
        outputs["usage"] = langchains(counts)
    return outputs


@peer(
    "langfuse==5.0.4",
    "model service_tier usage content finish_reason CALLS TYPES function_call",
)
def langfuse(url: str, params: Object) -> object:
    """its OpenAI client, and the observation that it records."""
    from langfuse.openai import OpenAI

    flush, spans = langfuses_spans()
    # An exception below leaves its span behind.
    flush()
    spans.clear()
    for _ in chunks_of(url, params, OpenAI):
        pass
    flush()
    (span,) = spans.get_finished_spans()
    of = {
        name.removeprefix("langfuse.observation."): value
        for name, value in (span.attributes or {}).items()
    }
    # It is set with everything else or not at all, because exceptions on the way are dropped.
    if "completion_start_time" not in of:
        raise RuntimeError("the extraction failed silently; nothing was recorded")
    message = decoded(of.get("output"))
    # Content without calls is recorded as it is, with calls as the JSON of a message.
    if not isinstance(message, dict) or message.keys().isdisjoint(("tool_calls", "function_call")):
        message = {"content": of.get("output")}
    return completion(
        message,
        decoded(of.get("usage_details")),
        decoded(of.get("metadata.finish_reason")),
        model=of.get("model.name"),
        service_tier=(decoded(of.get("model.parameters")) or {}).get("service_tier"),
    )


@cache
def langfuses_spans() -> Any:
    """Return a function that flushes langfuse's spans, and where they go."""
    from langfuse import Langfuse
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans = InMemorySpanExporter()
    return Langfuse(public_key="pk-none", secret_key="sk-none", span_exporter=spans).flush, spans


@peer(
    "ddtrace==4.16.0",
    "model USAGE CACHED REASONED role content finish_reason CALLS TYPES function_call"
    " reasoning_content",
)
def ddtrace(url: str, params: Object) -> object:
    """its handler of OpenAI streams around a real one, up to the messages it would send."""
    from ddtrace.contrib.internal.openai.utils import OpenAIStreamHandler
    from ddtrace.llmobs._integrations.base_stream_handler import make_traced_stream
    from ddtrace.trace import tracer

    found: list[Object] = []
    # Takes the place of LLM Observability, and keeps what the handler passes on.
    sink = SimpleNamespace(llmobs_set_tags=lambda span, **about: found.append(about))
    span = tracer.trace("openai.request")
    make_handler: Any = OpenAIStreamHandler
    handler = make_handler(sink, span, [], params, operation_type="chat")
    for _ in make_traced_stream(chunks_of(url, params), handler):
        pass
    if not found:
        raise RuntimeError("the handler failed and logged it; nothing was recorded")
    counts = None
    choices = []
    for message in found[-1]["response"]:
        counts = message.pop("usage", None) or counts
        # A legacy function call is recorded as a tool call without id, type and `function`.
        calls = message.get("tool_calls", [])
        message["function_call"] = next((each for each in calls if "index" not in each), None)
        message["tool_calls"] = [each for each in calls if "index" in each]
        index, reason = message.pop("index", 0), message.pop("finish_reason", None)
        choices.append({"index": index, "finish_reason": reason, "message": message})
    return {"model": span.get_tag("openai.response.model"), "usage": counts, "choices": choices}


if __name__ == "__main__":
    answer(sys.argv[1])
