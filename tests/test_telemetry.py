"""The `gen_ai.*` attributes have the names of today's conventions, and reach a real exporter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from every_field import WHOLE
from streamed import read_whole

from accumulator import ChatCompletion, Timing, telemetry

JsonObject = dict[str, object]
NO_OTEL = "OpenTelemetry's SDK is installed for the tests only"


def text(content: str) -> JsonObject:
    return {"type": "text", "content": content}


def thought(content: str) -> JsonObject:
    return {"type": "reasoning", "content": content}


def called(id: str | None, name: str, arguments: object) -> JsonObject:
    return {"type": "tool_call", "id": id, "name": name, "arguments": arguments}


def calling(arguments: str) -> JsonObject:
    return {"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": arguments}}]}


def answer(message: JsonObject, **fields: object) -> ChatCompletion:
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    return ChatCompletion.from_dict({"choices": [choice], **fields})


INPUT = {
    "cached_tokens": 8, "audio_tokens": 3, "cache_write_tokens": 4, "text_tokens": 15,
    "image_tokens": 2,
}  # fmt: skip
OUTPUT = {
    "reasoning_tokens": 5, "audio_tokens": 1, "text_tokens": 3, "image_tokens": 1,
    "accepted_prediction_tokens": 0,
}  # fmt: skip
USAGE = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
COMPLETION = answer(
    {"reasoning": "They want the weather.", "content": "Let me see.", **calling('{"a": 1}')},
    id="chatcmpl-1",
    model="gpt-4o-2024-08-06",
    service_tier="default",
    system_fingerprint="fp_1",
    usage={**USAGE, "prompt_tokens_details": INPUT, "completion_tokens_details": OUTPUT},
)
ATTRIBUTES = {
    "gen_ai.response.id": "chatcmpl-1",
    "gen_ai.response.model": "gpt-4o-2024-08-06",
    "gen_ai.response.finish_reasons": ["tool_calls"],
    "gen_ai.response.time_to_first_chunk": 0.25,
    "gen_ai.usage.input_tokens": 20,
    "gen_ai.usage.output_tokens": 10,
    "gen_ai.usage.cache_read.input_tokens": 8,
    "gen_ai.usage.cache_write.input_tokens": 4,
    "gen_ai.usage.text.input_tokens": 15,
    "gen_ai.usage.image.input_tokens": 2,
    "gen_ai.usage.audio.input_tokens": 3,
    "gen_ai.usage.reasoning.output_tokens": 5,
    "gen_ai.usage.text.output_tokens": 3,
    "gen_ai.usage.image.output_tokens": 1,
    "gen_ai.usage.audio.output_tokens": 1,
    "openai.response.service_tier": "default",
    "openai.response.system_fingerprint": "fp_1",
}
SAID = [thought("They want the weather."), text("Let me see."), called("a", "f", {"a": 1})]
MESSAGES = [{"role": "assistant", "parts": SAID, "finish_reason": "tool_calls"}]
TIMING = Timing(time_to_first_chunk=0.25, time_to_first_token=0.5, duration=2.0)


def test_a_completion_and_its_timing_are_attributes() -> None:
    assert telemetry.attributes(COMPLETION, timing=TIMING) == ATTRIBUTES


def test_what_did_not_arrive_is_left_out() -> None:
    assert telemetry.attributes(ChatCompletion()) == {}
    assert telemetry.attributes(ChatCompletion(), timing=Timing()) == {}
    zero: dict[str, object] = {"prompt_tokens": 0, "prompt_tokens_details": {"cached_tokens": 0}}
    zero["completion_tokens_details"] = {"image_tokens": "x"}
    completion = ChatCompletion.from_dict({"choices": [{"index": 0, "message": {}}], "usage": zero})
    assert telemetry.attributes(completion) == {"gen_ai.usage.input_tokens": 0}


def test_content_is_given_only_when_asked_for() -> None:
    found = telemetry.attributes(COMPLETION, timing=TIMING, content=True)
    messages = found.pop("gen_ai.output.messages")
    assert found == ATTRIBUTES
    assert isinstance(messages, str)
    assert json.loads(messages) == MESSAGES == telemetry.output_messages(COMPLETION)


def test_choices_have_a_message_and_a_reason_each() -> None:
    choices = [
        {"index": 0, "message": {"content": "a"}, "finish_reason": "stop"},
        {"index": 1, "message": {"content": "b"}},
        {"index": 2, "message": {"content": "c"}, "finish_reason": "length"},
    ]
    completion = ChatCompletion.from_dict({"choices": choices})
    found = telemetry.output_messages(completion)
    assert [message.get("finish_reason") for message in found] == ["stop", None, "length"]
    reasons = telemetry.attributes(completion)["gen_ai.response.finish_reasons"]
    assert reasons == ["stop", "length"]


REFERENCE: JsonObject = {"type": "reference", "reference_ids": [1]}
CONTENT = [
    {"type": "thinking", "thinking": [{"type": "text", "text": "a"}, 5]},
    {"type": "thinking", "thinking": "b"},
    {"type": "thinking", "thinking": 5},
    {"type": "text", "text": "c"},
    REFERENCE,
    "odd",
    {"type": 5},
]
AUDIO = {"id": "a", "transcript": "Hi"}
BLOB: JsonObject = {"type": "blob", "modality": "audio", "mime_type": None, "content": "AAEC"}
CUSTOM: JsonObject = {"id": "a", "custom": {"name": "sh", "input": "ls"}}
PARTS: list[tuple[JsonObject, list[JsonObject]]] = [
    ({}, []),
    ({"content": ""}, []),
    ({"refusal": "No."}, [text("No.")]),
    ({"reasoning": "a", "reasoning_content": "a", "content": "b"}, [thought("a"), text("b")]),
    ({"content": CONTENT}, [thought("a"), thought("b"), text("c"), REFERENCE]),
    ({"audio": {**AUDIO, "data": "AAEC"}}, [text("Hi"), BLOB]),
    ({"audio": AUDIO}, [text("Hi")]),
    ({"function_call": {"name": "f", "arguments": "[1]"}}, [called(None, "f", [1])]),
    (
        {"function_call": {"name": "f", "arguments": "[1]"}, **calling("[1]")},
        [called("a", "f", [1])],
    ),
    (
        {"function_call": {"name": "f", "arguments": "[2]"}, **calling("[1]")},
        [called(None, "f", [2]), called("a", "f", [1])],
    ),
    (calling('{"a": 1'), [called("a", "f", '{"a": 1')]),
    (calling("1e999"), [called("a", "f", "1e999")]),
    ({"tool_calls": [CUSTOM, {}]}, [called("a", "sh", "ls"), called(None, "", None)]),
]


@pytest.mark.parametrize(("message", "expected"), PARTS)
def test_parts_of_a_message(message: JsonObject, expected: object) -> None:
    assert telemetry.output_messages(answer(message))[0]["parts"] == expected


def test_the_text_of_a_legacy_completion_is_a_part() -> None:
    choice = {"index": 0, "text": "Hello", "finish_reason": "stop"}
    completion = ChatCompletion.from_dict({"object": "text_completion", "choices": [choice]})
    [message] = telemetry.output_messages(completion)
    assert message == {"role": "assistant", "parts": [text("Hello")], "finish_reason": "stop"}


def test_every_recorded_stream_has_attributes(corpus_stream: Path) -> None:
    acc = read_whole(corpus_stream.read_bytes())
    found = telemetry.attributes(acc.snapshot(), timing=TIMING, content=True)
    assert all(type(value) in (str, int, float, list) for value in found.values())
    messages = json.loads(str(found["gen_ai.output.messages"]))
    assert len(messages) == len(acc.snapshot().choices)


def test_the_completion_is_not_shared() -> None:
    completion = ChatCompletion.from_dict(WHOLE)
    for message in telemetry.output_messages(completion):
        message.clear()
    assert completion == ChatCompletion.from_dict(WHOLE)


# --- the real SDK, of which docs/tracing.md is the example ---------------------------------


def test_the_names_are_those_of_opentelemetrys_own_instrumentation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For the same completion, the span of opentelemetry-util-genai has the same attributes."""
    sdk = "opentelemetry.sdk.trace"
    trace, export, in_memory, handlers, types = (
        pytest.importorskip(name, reason=NO_OTEL)
        for name in (
            *(sdk, f"{sdk}.export", f"{sdk}.export.in_memory_span_exporter"),
            *("opentelemetry.util.genai.handler", "opentelemetry.util.genai.types"),
        )
    )
    if not hasattr(types, "TextPart"):
        pytest.skip("opentelemetry-util-genai before 1.2b0 has other names")
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "gen_ai_latest_experimental")
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "SPAN_ONLY")
    exporter, provider = in_memory.InMemorySpanExporter(), trace.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    handler = handlers.TelemetryHandler(tracer_provider=provider)
    with handler.inference("openai", request_model="gpt-4o") as call:
        call.response_id, call.response_model_name = COMPLETION.id, COMPLETION.model
        call.finish_reasons, call.ttfc_seconds = ["tool_calls"], TIMING.time_to_first_chunk
        call.input_tokens, call.output_tokens = 20, 10
        call.cache_read_input_tokens, call.cache_write_input_tokens = 8, 4
        call.text_input_tokens, call.image_input_tokens, call.audio_input_tokens = 15, 2, 3
        call.thinking_tokens = 5
        call.text_output_tokens, call.image_output_tokens, call.audio_output_tokens = 3, 1, 1
        parts = [
            types.ReasoningPart("They want the weather."),
            types.TextPart("Let me see."),
            types.ToolCallRequestPart({"a": 1}, "f", "a"),
        ]
        message = {"role": "assistant", "parts": parts, "finish_reason": "tool_calls"}
        call.output_messages = [types.OutputMessage(**message)]
    [finished] = exporter.get_finished_spans()
    provider.shutdown()
    theirs: dict[str, Any]
    theirs = {name: [*v] if isinstance(v, tuple) else v for name, v in finished.attributes.items()}
    [message] = json.loads(theirs.pop("gen_ai.output.messages"))
    assert {name: value for name, value in message.items() if value is not None} == MESSAGES[0]
    shared = ("gen_ai.response.", "gen_ai.usage.")
    ours = {name: value for name, value in ATTRIBUTES.items() if name.startswith("gen_ai.")}
    assert {name: theirs[name] for name in theirs if name.startswith(shared)} == ours


def test_openais_own_names_are_those_of_the_conventions() -> None:
    names = pytest.importorskip(
        "opentelemetry.semconv._incubating.attributes.openai_attributes", reason=NO_OTEL
    )
    known = {value for name, value in vars(names).items() if name.startswith("OPENAI_RESPONSE")}
    assert {name for name in ATTRIBUTES if name.startswith("openai.")} == known
