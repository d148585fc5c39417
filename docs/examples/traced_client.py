"""An async client that makes each request a span, however it ends: complete, abandoned by its
reader, timed out, or refused with a 401.

    pip install chunk-accumulator openai opentelemetry-sdk
    OPENAI_API_KEY=… python traced_client.py

OPENAI_BASE_URL names another server, OPENAI_MODEL another model.
"""

import asyncio
import os
import time
from contextlib import suppress

import openai
from openai.types.chat import ChatCompletionChunk
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Span, SpanKind, StatusCode

from accumulator import StreamEnd, telemetry, wrap
from accumulator.streams import AsyncWrappedStream

MODEL = os.environ.get("OPENAI_MODEL", "gpt-4o-mini")

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
tracer = provider.get_tracer("traced_client")


def end_span(span: Span, status: str, error: BaseException | None) -> None:
    """End a span; a reader that stops early is not an error."""
    span.set_attribute("stream.status", status)
    if error is not None:
        name = type(error).__qualname__
        span.set_attribute("error.type", name)
        span.set_status(StatusCode.ERROR, str(error) or name)
    span.end()


async def ask(client: openai.AsyncOpenAI, question: str) -> AsyncWrappedStream[ChatCompletionChunk]:
    """Return the stream of chunks; its span ends when the stream does."""
    span = tracer.start_span(f"chat {MODEL}", kind=SpanKind.CLIENT)
    span.set_attribute("gen_ai.operation.name", "chat")
    span.set_attribute("gen_ai.request.model", MODEL)

    def on_end(end: StreamEnd) -> None:
        span.set_attributes(telemetry.attributes(end.completion, timing=end.timing))
        end_span(span, end.status, end.error)

    started = time.monotonic()
    try:
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": question}],
            stream=True,
            stream_options={"include_usage": True},
        )
    except BaseException as error:  # there is no stream, so `on_end` is never called
        is_cancelled = isinstance(error, asyncio.CancelledError)
        end_span(span, "cancelled" if is_cancelled else "failed", error)
        raise
    return wrap(stream, clock=time.monotonic, started=started, on_end=on_end)


async def read_all(client: openai.AsyncOpenAI, pause: float = 0) -> None:
    async with await ask(client, "How warm is it in Zürich?") as stream:
        async for _ in stream:
            await asyncio.sleep(pause)


async def read_two(client: openai.AsyncOpenAI) -> None:
    async with await ask(client, "How warm is it in Zürich?") as stream:
        chunks = 0
        async for _ in stream:
            chunks += 1
            if chunks == 2:
                break


async def main() -> None:
    async with openai.AsyncOpenAI() as client, openai.AsyncOpenAI(api_key="wrong") as stranger:
        for reading in (
            read_all(client),
            read_two(client),
            asyncio.wait_for(read_all(client, pause=60), timeout=1),
            read_all(stranger),
        ):
            with suppress(openai.APIError, asyncio.TimeoutError):
                await reading

    for span in exporter.get_finished_spans():
        attributes = span.attributes or {}
        print(
            attributes["stream.status"],
            span.status.status_code.name,
            attributes.get("error.type"),
            attributes.get("gen_ai.response.finish_reasons"),
            attributes.get("gen_ai.usage.output_tokens"),
        )


if __name__ == "__main__":
    asyncio.run(main())
