"""Where openai-python's own reducer is right, ours gives the same: field for field, and typed.

A stream is in where openai-python's rules give what its server meant: see `deviation`. Both read
the same body, openai-python through its real client and a real socket.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from loopback import serving

from accumulator import Accumulator

openai = pytest.importorskip("openai", reason="an SDK that is installed for the tests only")
chat = pytest.importorskip("openai.types.chat", reason="an SDK that is installed for the tests")

JsonObject = dict[str, object]
ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "?"}]}

ENVELOPE = {"id": "chatcmpl-1", "created": 1, "model": "gpt", "object": "chat.completion.chunk"}
ROLE: JsonObject = {"role": "assistant", "content": ""}
USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 3,
    "total_tokens": 12,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 1},
}


def chunk(delta: JsonObject, **choice: object) -> JsonObject:
    return {**ENVELOPE, "choices": [{"index": 0, "delta": delta, **choice}]}


def call(index: int, **fields: object) -> JsonObject:
    return chunk({"tool_calls": [{"index": index, **fields}]})


def opened(index: int, name: str) -> JsonObject:
    function = {"name": name, "arguments": ""}
    return call(index, id=f"call_{index}", type="function", function=function)


def argued(index: int, arguments: str) -> JsonObject:
    return call(index, function={"arguments": arguments})


def token(text: str, **fields: object) -> JsonObject:
    return {"token": text, "logprob": -0.5, "bytes": None, "top_logprobs": [], **fields}


def finished(reason: str = "stop") -> JsonObject:
    return chunk({}, finish_reason=reason)


def last(**fields: object) -> JsonObject:
    return {**ENVELOPE, "choices": [], **fields}


LIKELY = {"token": "h", "logprob": -1, "bytes": [104]}
STREAMS: dict[str, list[JsonObject]] = {
    "text": [chunk(ROLE), chunk({"content": "Hé"}), chunk({"content": "llo 😀"}), finished()],
    "no text": [chunk(ROLE), finished()],
    "null content": [chunk({"role": "assistant", "content": None}), finished()],
    "text and usage": [chunk(ROLE), chunk({"content": "Hi"}), finished(), last(usage=USAGE)],
    "text with the finish reason": [chunk(ROLE), chunk({"content": "Hi"}, finish_reason="stop")],
    "all in one chunk": [chunk({"role": "assistant", "content": "Hi"}, finish_reason="stop")],
    "service tier and fingerprint": [
        {**item, "service_tier": "default", "system_fingerprint": "fp_1"}
        for item in [chunk(ROLE), chunk({"content": "Hi"}), finished()]
    ],
    "a fingerprint that comes last": [chunk(ROLE), finished(), last(system_fingerprint="fp_1")],
    "refusal": [
        chunk({**ROLE, "content": None, "refusal": ""}),
        chunk({"refusal": "I can"}),
        chunk({"refusal": "not."}),
        finished(),
    ],
    "one call": [
        chunk({"role": "assistant", "content": None}),
        opened(0, "get"),
        argued(0, '{"a"'),
        argued(0, ":1}"),
        finished("tool_calls"),
    ],
    "calls one after another": [
        chunk({"role": "assistant", "content": None}),
        opened(0, "get"),
        argued(0, "{}"),
        opened(1, "put"),
        argued(1, '{"b":'),
        argued(1, "[]}"),
        finished("tool_calls"),
    ],
    "calls interleaved": [
        chunk(ROLE),
        opened(0, "get"),
        opened(1, "get"),
        argued(1, "{"),
        argued(0, "{}"),
        argued(1, "}"),
        finished("tool_calls"),
    ],
    "text, then a call": [
        chunk(ROLE),
        chunk({"content": "Let me see."}),
        opened(0, "get"),
        argued(0, "{}"),
        finished("tool_calls"),
    ],
    "function_call": [
        chunk({"role": "assistant", "function_call": {"name": "get", "arguments": ""}}),
        chunk({"function_call": {"arguments": '{"a":'}}),
        chunk({"function_call": {"arguments": "1}"}}),
        finished("function_call"),
    ],
    "logprobs": [
        chunk(ROLE, logprobs={"content": [], "refusal": None}),
        chunk({"content": "h"}, logprobs={"content": [token("h", top_logprobs=[LIKELY])]}),
        chunk({"content": "é"}, logprobs={"content": [token("Ã"), token("©", bytes=[169])]}),
        finished(),
    ],
    "logprobs of a refusal": [
        chunk({"role": "assistant", "refusal": "No"}, logprobs={"refusal": [token("No")]}),
        chunk({"refusal": "."}, logprobs={"content": None, "refusal": [token(".", bytes=[46])]}),
        finished(),
    ],
    "reasoning of a vendor": [
        chunk({**ROLE, "reasoning_content": "Hm"}),
        chunk({"reasoning_content": "m."}),
        chunk({"content": "Hi"}),
        finished(),
    ],
}


# --- openai-python, for real ---


@contextmanager
def client_of(body: bytes) -> Iterator[Any]:
    """Serve the body to every request; yields the completions of an openai client."""
    with (
        serving(lambda request: ("text/event-stream", [body])) as url,
        openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client,
    ):
        yield client.chat.completions


@contextmanager
def helper_of(body: bytes) -> Iterator[Any]:
    """Read the body by openai-python's own helper."""
    with client_of(body) as completions, completions.stream(**ASKED) as stream:
        yield stream


def theirs(body: bytes) -> object:
    """Let openai-python read the body, and take what it adds of its own out of its completion."""
    with helper_of(body) as stream:
        completion = stream.get_final_completion().model_dump(warnings="error")
    for choice in completion["choices"]:
        message = choice["message"]
        message.pop("parsed")
        for tool_call in message["tool_calls"] or ():
            tool_call.pop("index")  # of the fragments; the API's completion has none
            tool_call["function"].pop("parsed_arguments", None)
    # It keeps a vendor's null as a field; for us null is nothing (SPEC section 9).
    return chat.ChatCompletion.model_validate(completion).model_dump(exclude_none=True)


def ours(body: bytes) -> object:
    acc = Accumulator()
    acc.feed_sse(body)
    completion = chat.ChatCompletion.model_validate(acc.completion().to_dict(), strict=True)
    assert acc.problem_counts.keys() <= {"id_changed"}
    return completion.model_dump(exclude_none=True)


# --- where its rules hold ---


def deviation(body: bytes) -> str | None:
    """Return the rule of openai-python that a stream does not go by, None if it goes by all."""
    chunks: list[JsonObject] = []
    for event in re.split(rb"(?:\r?\n){2,}", body):
        data = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
        if data == [b"[DONE]"]:
            return next(iter(deviations(chunks)), None)
        if len(data) > 1:
            return "each event is one chunk"
        for text in data:
            try:
                chat.ChatCompletionChunk.model_validate_json(text, strict=True)
            except ValueError:
                return "each chunk is of its types"
            chunks.append(json.loads(text))
    return "[DONE] ends the stream"


def deviations(chunks: list[JsonObject]) -> Iterator[str]:
    first = chunks[0]
    if not all(first[name] for name in ("id", "created", "model")):
        yield "the first chunk's id, time and model stand"
    for name in {name for chunk in chunks for name in chunk} - CHUNK_FIELDS:
        if any(chunk.get(name) != first.get(name) for chunk in chunks):
            yield "another field stands in the first chunk and stays"
    for name in ("usage", "system_fingerprint"):
        if any(chunk.get(name) is not None for chunk in chunks) and chunks[-1].get(name) is None:
            yield f"the last chunk's {name} stands"
    choices = [choice for chunk in chunks for choice in _objects(chunk["choices"])]
    if any(choice["index"] != 0 for choice in choices):
        yield "n = 1"
    for choice in choices:
        if {k for k, v in choice.items() if v is not None} - CHOICE_FIELDS:
            yield "a choice has the API's fields"
        if {k for k, v in _object(choice.get("logprobs")).items() if v} - {"content", "refusal"}:
            yield "logprobs have the API's fields"
        if choice.get("finish_reason") in ("length", "content_filter"):
            yield "the answer was not cut off"  # it raises
    deltas = [_object(choice["delta"]) for choice in choices]
    if any({k for k, v in delta.items() if v is not None} - DELTA_FIELDS for delta in deltas):
        yield "a delta has texts and calls"
    if sum(bool(delta.get("role")) for delta in deltas) != 1:
        yield "the role comes once"
    met: set[object] = set()
    for fragment in (part for delta in deltas for part in _objects(delta.get("tool_calls"))):
        given = {**fragment, **_object(fragment.get("function"))}
        labels = [bool(given.get(name)) for name in ("id", "type", "name")]
        if fragment["index"] not in met and fragment["index"] != len(met):
            yield "calls are opened in order"
        if any(labels) if fragment["index"] in met else not all(labels):
            yield "a call has its id, type and name once, at first"
        if fragment.keys() - {"index", "id", "type", "function"}:
            yield "a call has the API's fields"
        met.add(fragment["index"])


CHUNK_FIELDS = {
    *("id", "created", "model", "choices", "usage", "system_fingerprint"),
    *("object", "obfuscation"),  # neither keeps them
}
CHOICE_FIELDS = {"index", "delta", "finish_reason", "logprobs"}
DELTA_FIELDS = {
    *("role", "content", "refusal", "tool_calls", "function_call"),
    *("reasoning", "reasoning_content"),  # it joins a vendor's strings, and these are texts
}


def _object(value: object) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> list[JsonObject]:
    return value if isinstance(value, list) else []


# --- the comparison ---


def rendered(chunks: list[JsonObject]) -> bytes:
    events = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return "".join([*events, "data: [DONE]\n\n"]).encode()


@pytest.mark.parametrize("chunks", STREAMS.values(), ids=STREAMS)
def test_our_completion_is_openai_pythons(chunks: list[JsonObject]) -> None:
    body = rendered(chunks)
    assert deviation(body) is None
    assert ours(body) == theirs(body)


def compared(corpus: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the recordings that go by openai-python's rules, by their names."""
    bodies = {path.name: path.read_bytes() for path in sorted(corpus.glob("*.sse"))}
    found = {name: body for name, body in bodies.items() if deviation(body) is None}
    assert len(found) >= 40, "hardly a stream is left to compare"
    yield from found.items()


@pytest.mark.many
def test_the_completion_of_recorded_streams_is_openai_pythons(corpus: Path) -> None:
    assert [name for name, body in compared(corpus) if ours(body) != theirs(body)] == []
