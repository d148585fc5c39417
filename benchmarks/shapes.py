"""The streams that are measured: generated ones, each with its own id, time and words, and the
recordings.

A shape is a function from a random generator and a count to the chunks of one stream, which are
written in compact JSON, as servers send it. Every stream ends like a real one: a finish reason for
each choice, the usage, `[DONE]`.
"""

from __future__ import annotations

import json
import random
import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bare
import msgspec

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus"
BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
# fmt: off
WORDS = (
    " the", " of", " and", " stream", " in", " a", " to", " chunk", " server", " is", " reads", ",",
    ".", " token", " 42", " London", " weather", " report", " bytes", " under", " calls", " we",
)
ODD = ("\n", "\n\n", '"', " é", " 東京", "—", " 👍", " naïve", "\\", "\t")
# fmt: on
LETTERS = string.ascii_letters + string.digits

Json = dict[str, Any]
Shape = Callable[[random.Random, int], list[Json]]


@dataclass(frozen=True)
class Stream:
    """A stream as it is on the wire, and the JSON of each of its chunks."""

    body: bytes
    events: tuple[bytes, ...]

    def reads(self, size: int | None) -> list[bytes]:
        """Cut the body into reads of `size` bytes; None means one event each, 0 one read."""
        if size is None:
            ends = [found.end() for found in BLANK_LINE.finditer(self.body)]
            ends += [len(self.body)] if ends[-1:] != [len(self.body)] else []
            return [self.body[a:b] for a, b in zip([0, *ends], ends, strict=False)]
        return cut(self.body, size or len(self.body))


def cut(body: bytes, size: int) -> list[bytes]:
    """Cut bytes into reads."""
    return [body[start : start + size] for start in range(0, len(body), size)]


def made(shape: str, count: int, number: int = 0) -> Stream:
    """Return a stream of a shape, with about `count` chunks; each number gives another stream."""
    rng = random.Random(f"{shape} {number}")
    escaped = rng.random() < 0.5  # servers differ in what they do with non-ASCII text
    envelope = envelope_of(rng)
    chunks = [{**envelope, **chunk} for chunk in SHAPES[shape](rng, count)]
    events = tuple(written(chunk, escaped) for chunk in chunks)
    return Stream(b"".join(b"data: %b\n\n" % data for data in (*events, b"[DONE]")), events)


def written(chunk: Json, escaped: bool) -> bytes:
    """Write a chunk as servers do."""
    return json.dumps(chunk, separators=(",", ":"), ensure_ascii=escaped).encode()


# --- what chunks are made of --------------------------------------------------------------


def envelope_of(rng: random.Random) -> Json:
    return {
        "id": "chatcmpl-" + "".join(rng.choices(LETTERS, k=29)),
        "object": "chat.completion.chunk",
        "created": rng.randint(1_700_000_000, 1_790_000_000),
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": f"fp_{rng.getrandbits(40):010x}",
    }


def chunk_of(
    delta: Json, *, index: int = 0, reason: str | None = None, logprobs: Json | None = None
) -> Json:
    choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
    return {"choices": [choice], "usage": None}


def usage_of(tokens: int) -> Json:
    details = ("reasoning", "audio", "accepted_prediction", "rejected_prediction")
    return {
        "prompt_tokens": 120,
        "completion_tokens": tokens,
        "total_tokens": 120 + tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {f"{name}_tokens": 0 for name in details},
    }


def words_of(rng: random.Random, count: int) -> list[str]:
    return [rng.choice(ODD if i % 10 == 9 else WORDS) for i in range(count)]


def whole(middle: list[Json], reason: str = "stop", choices: int = 1) -> list[Json]:
    opening = {"role": "assistant", "content": "", "refusal": None}
    return [
        *(chunk_of(opening, index=index) for index in range(choices)),
        *middle,
        *(chunk_of({}, index=index, reason=reason) for index in range(choices)),
        {"choices": [], "usage": usage_of(len(middle))},
    ]


# --- shapes -------------------------------------------------------------------------------


def text(rng: random.Random, count: int) -> list[Json]:
    return whole([chunk_of({"content": word}) for word in words_of(rng, count - 3)])


def tool_calls(rng: random.Random, count: int) -> list[Json]:
    calls = []
    for index in range(3):
        id = "call_" + "".join(rng.choices(LETTERS, k=24))
        function = {"name": "file_report", "arguments": ""}
        call = {"index": index, "id": id, "type": "function", "function": function}
        calls.append(chunk_of({"tool_calls": [call]}))
        summary = "".join(rng.choices(WORDS, k=2 * count))
        arguments = json.dumps({"place": rng.choice(("Oslo", "Bonn")), "text": summary})
        # Three calls in 4-byte fragments, cut to length and closed so that they are JSON.
        arguments = arguments[: 4 * max(count // 3 - 3, 9) - 2] + '"}'
        for start in range(0, len(arguments), 4):
            fragment = {"index": index, "function": {"arguments": arguments[start : start + 4]}}
            calls.append(chunk_of({"tool_calls": [fragment]}))
    return whole(calls, "tool_calls")


def logprobs(rng: random.Random, count: int) -> list[Json]:
    def entry(token: str) -> Json:
        logprob = round(-3 * rng.random(), 8)
        return {"token": token, "logprob": logprob, "bytes": list(token.encode())}

    middle = []
    for word in words_of(rng, count - 3):
        tops = [entry(token) for token in (word, *rng.choices(WORDS, k=4))]
        given = {"content": [{**tops[0], "top_logprobs": tops}], "refusal": None}
        middle.append(chunk_of({"content": word}, logprobs=given))
    return whole(middle)


def thinking(thought: Callable[[str], Json], beside: Json) -> Shape:
    """Return a shape with two thirds of the words as thoughts, and then the answer."""

    def maker(rng: random.Random, count: int) -> list[Json]:
        words = words_of(rng, count - 3)
        thoughts = [chunk_of(thought(word)) for word in words[: 2 * count // 3]]
        answer = [chunk_of({**beside, "content": word}) for word in words[2 * count // 3 :]]
        return whole(thoughts + answer)

    return maker


def claudes(word: str) -> Json:
    """Return a thought as OpenRouter sends Claude's, in two fields."""
    detail = {"type": "reasoning.text", "text": word, "format": "anthropic-claude-v1", "index": 0}
    return {"role": "assistant", "content": "", "reasoning": word, "reasoning_details": [detail]}


def in_parts(word: str) -> Json:
    """Return a thought as Mistral sends it."""
    return {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": word}]}]}


def cumulative(rng: random.Random, count: int) -> list[Json]:
    chunks = text(rng, count)
    so_far = ""
    for chunk in chunks:
        for choice in chunk["choices"]:
            so_far += choice["delta"].get("content", "")
            choice["message"] = {"role": "assistant", "content": so_far}
        chunk["citations"] = ["https://example.com/a"]
    return chunks


def four_choices(rng: random.Random, count: int) -> list[Json]:
    words = enumerate(words_of(rng, count - 9))
    return whole([chunk_of({"content": word}, index=i % 4) for i, word in words], choices=4)


def changed(shape: Shape, change: Callable[[random.Random, int, Json], object]) -> Shape:
    """Return a shape whose chunks are changed, each with its number."""

    def maker(rng: random.Random, count: int) -> list[Json]:
        chunks = shape(rng, count)
        for i, chunk in enumerate(chunks):
            change(rng, i, chunk)
        return chunks

    return maker


def pad(rng: random.Random, i: int, chunk: Json) -> None:
    # OpenAI pads its events so that their lengths reveal nothing.
    chunk["obfuscation"] = "".join(rng.choices(LETTERS, k=rng.randint(1, 14)))


def judge_choices(rng: random.Random, i: int, chunk: Json) -> None:
    for choice in chunk["choices"]:
        scores = {"hate": {"filtered": False, "severity": "safe"}, "seq": rng.randint(0, 9)}
        choice["content_filter_results"] = scores


def route_deltas(rng: random.Random, i: int, chunk: Json) -> None:
    # Like the AI SDK's gateway.
    for choice in chunk["choices"]:
        choice["delta"]["provider_metadata"] = {"router": {"attempt": 1, "took": i / 8}}


def sort_keys(rng: random.Random, i: int, chunk: Json) -> None:
    # Like servers in Go, with tokens like those of vLLM.
    for choice in chunk["choices"]:
        choice |= {"stop_reason": None, "token_ids": [rng.randint(0, 99_999)]}
    in_order = sorted(chunk.items())
    chunk.clear()
    chunk.update(in_order)


HELD_OUT: Mapping[str, Shape] = {
    "an object in each choice": changed(text, judge_choices),
    "an object in each delta": changed(text, route_deltas),
    "a list in each choice, keys sorted": changed(text, sort_keys),
    "a counter beside the text": changed(text, lambda _, i, chunk: chunk.update(x_seq=i, p=i * 7)),
    "thinking in parts": thinking(in_parts, {}),
    "usage in every chunk": changed(text, lambda _, i, chunk: chunk.update(usage=usage_of(i))),
    "cumulative message": cumulative,
    "created changes": changed(text, lambda _, i, chunk: chunk.update(created=1_763_489_569 + i)),
    "four choices in turn": four_choices,
}
SHAPES: Mapping[str, Shape] = {
    "text": text,
    "tool calls": tool_calls,
    "logprobs": logprobs,
    "reasoning": thinking(claudes, {"role": "assistant"}),
    # Like DeepSeek, and many others since.
    "reasoning_content": thinking(lambda word: {"content": None, "reasoning_content": word}, {}),
    "text, padded": changed(text, pad),
    "tool calls, padded": changed(tool_calls, pad),
    "logprobs, padded": changed(logprobs, pad),
    **HELD_OUT,
}
# What is replaced in a body, and by what, to frame it like other servers.
FRAMINGS = {
    "data: without a blank": (b"data: ", b"data:"),
    "CRLF": (b"\n", b"\r\n"),
    "an event's name and id": (b"data: ", b"event: message\nid: 7\ndata: "),
    "comments between": (b"data: ", b": PROCESSING\n\ndata: "),
    "blanks in the JSON": (b'":', b'": '),
}


# --- recordings ---------------------------------------------------------------------------


def recordings() -> list[Stream]:
    """Read all recorded streams. Raises FileNotFoundError if there are none."""
    paths = sorted(CORPUS.glob("*.sse"))
    if not paths:
        raise FileNotFoundError(f"no recorded streams in {CORPUS}")
    return [recorded(path.read_bytes()) for path in paths]


def recorded(body: bytes) -> Stream:
    """Return a recording with the data of its events."""
    data = (
        b"\n".join(line[5:].strip() for line in piece.splitlines() if line.startswith(b"data:"))
        for piece in Stream(body, ()).reads(None)
    )
    return Stream(body, tuple(each for each in data if each not in (b"", b"[DONE]")))


def has_vendor_fields(stream: Stream) -> bool:
    """Return whether a chunk has a field that `bare`, which has the API's, does not have."""

    def beyond(value: object, known: Any) -> bool:
        if isinstance(value, list):
            return any(map(beyond, value, known or ()))
        if isinstance(value, dict):
            return any(k not in known or beyond(v, known[k]) for k, v in value.items())
        return False

    for event in stream.events:
        chunk = json.loads(event)
        chunk.pop("obfuscation", None)
        if beyond(chunk, msgspec.to_builtins(bare.decode(event))):
            return True
    return False
