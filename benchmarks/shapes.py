"""The streams that are measured: generated ones, each with its own id, time and words, and the
recordings.

Generated streams are written in compact JSON, as servers send it, and end like real ones: a finish
reason for each choice, the usage, `[DONE]`.
"""

from __future__ import annotations

import json
import random
import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus"
EVENT = re.compile(rb"(?s)(?!\Z).*?(?:(?:\r\n|\n|\r(?!\n)){2}|\Z)")
WORDS = (
    " the| of| and| stream| in| a| to| chunk| server| is| reads|,|.| token| 42| London| weather"
    "| report| bytes| under| calls| we"
).split("|")
ODD = ("\n", "\n\n", '"', " é", " 東京", "—", " 👍", " naïve", "\\", "\t")
LETTERS = string.ascii_letters + string.digits

Json = dict[str, Any]


@dataclass(frozen=True)
class Stream:
    """A stream as it is on the wire, and the JSON of each of its chunks."""

    body: bytes
    events: tuple[bytes, ...]

    def reads(self, size: int | None) -> list[bytes]:
        """Cut the body into reads of `size` bytes; None means one event each, 0 one read."""
        if size is None:
            return EVENT.findall(self.body)
        return cut(self.body, size or len(self.body))


def cut(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]


def made(shape: str, count: int, number: int = 0) -> Stream:
    """Return a stream of a shape, with about `count` chunks; each number gives another stream."""
    rng = random.Random(f"{shape} {number}")
    escaped = rng.random() < 0.5  # servers differ in what they do with non-ASCII text
    envelope = envelope_of(rng)
    make, *changes = SHAPES[shape]
    chunks = make(rng, count)
    for change in changes:
        for i, chunk in enumerate(chunks):
            change(rng, i, chunk)
    return written(envelope, chunks, escaped)


def written(envelope: Json, chunks: Sequence[Json], escaped: bool) -> Stream:
    """Return a stream of chunks."""
    encode = partial(json.dumps, separators=(",", ":"), ensure_ascii=escaped)
    events = tuple(encode({**envelope, **chunk}).encode() for chunk in chunks)
    return Stream(b"".join(b"data: %b\n\n" % data for data in (*events, b"[DONE]")), events)


def envelope_of(rng: random.Random) -> Json:
    return {
        "id": "chatcmpl-" + "".join(rng.choices(LETTERS, k=29)),
        "object": "chat.completion.chunk",
        "created": rng.randint(1_700_000_000, 1_790_000_000),
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": f"fp_{rng.getrandbits(40):010x}",
    }


def chunk_of(delta: Json, index: int = 0, reason: str | None = None) -> Json:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
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


# --- chunks -------------------------------------------------------------------------------


def whole(deltas: list[Json], reason: str = "stop", choices: int = 1) -> list[Json]:
    """Return the chunks of a stream, with the deltas in the choices in turn."""
    opening = {"role": "assistant", "content": "", "refusal": None}
    return [
        *(chunk_of(opening, index) for index in range(choices)),
        *(chunk_of(delta, i % choices) for i, delta in enumerate(deltas)),
        *(chunk_of({}, index, reason) for index in range(choices)),
        {"choices": [], "usage": usage_of(len(deltas))},
    ]


def text(
    rng: random.Random, count: int, thought: Callable[[str], Json] | None = None, choices: int = 1,
    **beside: str,
) -> list[Json]:  # fmt: skip
    """Return chunks of a word each; if there are thoughts, they take two thirds of the words."""
    words = [rng.choice(ODD if i % 10 == 9 else WORDS) for i in range(count - 2 * choices - 1)]
    thoughts = 2 * count // 3 if thought else 0
    thinking = [thought(word) for word in words[:thoughts] if thought]
    return whole(
        thinking + [{**beside, "content": word} for word in words[thoughts:]], "stop", choices
    )


def claudes(word: str) -> Json:
    """Return a thought as OpenRouter sends Claude's, in two fields."""
    detail = {"type": "reasoning.text", "text": word, "format": "anthropic-claude-v1", "index": 0}
    return {"role": "assistant", "content": "", "reasoning": word, "reasoning_details": [detail]}


def in_parts(word: str) -> Json:
    """Return a thought as Mistral sends it."""
    return {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": word}]}]}


def without_index(word: str) -> Json:
    """Return a thought as OpenRouter sent Gemini's at first."""
    detail = {"type": "reasoning.text", "text": word, "provider": "google"}
    return {"role": "assistant", "content": "", "reasoning": word, "reasoning_details": [detail]}


def tool_calls(rng: random.Random, count: int) -> list[Json]:
    """Return the chunks of three calls, with arguments in fragments of 4 bytes."""
    calls: list[Json] = []
    for index in range(3):
        id = "call_" + "".join(rng.choices(LETTERS, k=24))
        function = {"name": "file_report", "arguments": ""}
        calls.append({"index": index, "id": id, "type": "function", "function": function})
        summary = "".join(rng.choices(WORDS, k=2 * count))
        arguments = json.dumps({"place": rng.choice(("Oslo", "Bonn")), "text": summary})
        # Cut to length, and closed so that they are JSON.
        arguments = arguments[: 4 * max(count // 3 - 3, 9) - 2] + '"}'
        for start in range(0, len(arguments), 4):
            calls.append({"index": index, "function": {"arguments": arguments[start : start + 4]}})
    return whole([{"tool_calls": [call]} for call in calls], "tool_calls")


def cumulative(rng: random.Random, count: int) -> list[Json]:
    chunks, so_far = text(rng, count), ""
    for chunk in chunks:
        for choice in chunk["choices"]:
            so_far += choice["delta"].get("content", "")
            choice["message"] = {"role": "assistant", "content": so_far}
        chunk["citations"] = ["https://example.com/a"]
    return chunks


# --- changes of a chunk, given its number -------------------------------------------------


def pad(rng: random.Random, i: int, chunk: Json) -> None:
    # OpenAI pads its events so that their lengths reveal nothing.
    chunk["obfuscation"] = "".join(rng.choices(LETTERS, k=rng.randint(1, 14)))


def add_logprobs(rng: random.Random, i: int, chunk: Json) -> None:
    def entry(token: str) -> Json:
        logprob = round(-3 * rng.random(), 8)
        return {"token": token, "logprob": logprob, "bytes": list(token.encode())}

    for choice in chunk["choices"]:
        if word := choice["delta"].get("content"):
            tops = [entry(token) for token in (word, *rng.choices(WORDS, k=4))]
            given = {"content": [{**tops[0], "top_logprobs": tops}], "refusal": None}
            choice["logprobs"] = given


def number_tokens(rng: random.Random, i: int, chunk: Json) -> None:
    # Like Fireworks.
    for choice in chunk["choices"]:
        for token in (choice["logprobs"] or {}).get("content", ()):
            token["token_id"] = rng.randint(0, 99_999)


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


# --- the tables ---------------------------------------------------------------------------

# What makes the chunks of a shape, and then what changes each of them.
Shape = tuple[Callable[..., Any], ...]
HELD_OUT: Mapping[str, Shape] = {
    "an object in each choice": (text, judge_choices),
    "an object in each delta": (text, route_deltas),
    "a list in each choice, keys sorted": (text, sort_keys),
    "a counter beside the text": (text, lambda _, i, chunk: chunk.update(x_seq=i, p=i * 7)),
    "thinking in parts": (partial(text, thought=in_parts),),
    "thinking without an index": (partial(text, thought=without_index),),
    "a number in each token": (text, add_logprobs, number_tokens),
    "usage in every chunk": (text, lambda _, i, chunk: chunk.update(usage=usage_of(i))),
    "cumulative message": (cumulative,),
    "created changes": (text, lambda _, i, chunk: chunk.update(created=1_763_489_569 + i)),
    "four choices in turn": (partial(text, choices=4),),
}
SHAPES: Mapping[str, Shape] = {
    "text": (text,),
    "tool calls": (tool_calls,),
    "logprobs": (text, add_logprobs),
    "reasoning": (partial(text, thought=claudes, role="assistant"),),
    # Like DeepSeek, and many others since.
    "reasoning_content": (
        partial(text, thought=lambda word: {"content": None, "reasoning_content": word}),
    ),
    "text, padded": (text, pad),
    "tool calls, padded": (tool_calls, pad),
    "logprobs, padded": (text, add_logprobs, pad),
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


def recordings() -> list[Stream]:
    """Read all recorded streams. Raises FileNotFoundError if there are none."""
    bodies = [path.read_bytes() for path in sorted(CORPUS.glob("*.sse"))]
    if not bodies:
        raise FileNotFoundError(f"no recorded streams in {CORPUS}")
    return [Stream(body, tuple(data_of(body))) for body in bodies]


def data_of(body: bytes) -> Iterator[bytes]:
    """Yield the data of each event."""
    for event in EVENT.findall(body):
        lines = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
        data = b"\n".join(lines)
        if data not in (b"", b"[DONE]"):
            yield data
