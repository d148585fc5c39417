"""Where openai-python's own reducer is right, ours gives the same: field for field, and typed.

A stream is included if openai-python's rules give what its server meant: see `deviation`. Both read
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
from streamed import read_whole
from test_conformance import CASES

openai = pytest.importorskip("openai", reason="an SDK that is installed for the tests only")
chat = pytest.importorskip("openai.types.chat", reason="an SDK that is installed for the tests")

JsonObject = dict[str, object]
ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "?"}]}

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
    acc = read_whole(body)
    completion = chat.ChatCompletion.model_validate(acc.completion().to_dict(), strict=True)
    assert acc.problem_counts.keys() <= {"id_changed"}
    return completion.model_dump(exclude_none=True)


# --- where its rules hold ---


def deviation(body: bytes) -> str | None:
    """Return the rule of openai-python that a stream breaks, None if it keeps them all."""
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


# Of the cases that keep its rules, those in these areas are compared, but for some where it takes
# the last usage as it is, forgets a vendor's field, or demands what did not come.
AREAS = ("text", "reasoning", "logprobs", "tools", "surrogates", "usage", "choices", "audio")
OTHERWISE = {
    *("usage-details", "usage-details-not-repeated", "usage-reset-by-a-later-chunk"),
    *("usage-smaller-later", "usage-split", "tools-function-call-vendor-field"),
    *("choices-same-index-twice-in-a-chunk", "tools-arguments-never", "tools-null-id-and-name"),
}
STREAMS = {
    case.name: case.data
    for case in CASES
    if case.name.partition("-")[0] in AREAS
    and (case.status, case.problems) == ("complete", [])
    and case.name not in OTHERWISE
    and deviation(case.data) is None
}


def test_there_are_cases_where_its_rules_hold() -> None:
    assert len(STREAMS) >= 35


@pytest.mark.parametrize("body", STREAMS.values(), ids=STREAMS)
def test_our_completion_is_openai_pythons(body: bytes) -> None:
    assert ours(body) == theirs(body)


def compared(corpus: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the recordings that keep openai-python's rules, by their names."""
    bodies = {path.name: path.read_bytes() for path in sorted(corpus.glob("*.sse"))}
    found = {name: body for name, body in bodies.items() if deviation(body) is None}
    assert len(found) >= 40, "hardly a stream is left to compare"
    yield from found.items()


@pytest.mark.many
def test_the_completion_of_recorded_streams_is_openai_pythons(corpus: Path) -> None:
    assert [name for name, body in compared(corpus) if ours(body) != theirs(body)] == []
