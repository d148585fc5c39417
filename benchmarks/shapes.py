"""The streams that are measured: generated ones, each with its own id, time and words, and the
recordings.

A shape is a function from a random generator and a count to the chunks of one stream, in compact
JSON as its server sends it. Every stream ends as that server's do: a finish reason for each choice,
the usage, `[DONE]`.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bare
import msgspec

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus"

# fmt: off
_WORDS = (
    " the", " of", " and", " stream", " in", " a", " to", " chunk", " server", " is", " reads", ",",
    ".", " token", " 42", " London", " weather", " report", " bytes", " under", " calls", " we",
)
_ODD = ("\n", "\n\n", '"', " é", " 東京", "—", " 👍", " naïve", "\\", "\t")
# fmt: on
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


Json = dict[str, Any]


@dataclass(frozen=True)
class Stream:
    """A stream as it is on the wire, and the JSON of each of its chunks."""

    body: bytes
    events: tuple[bytes, ...]

    def reads(self, size: int | None) -> list[bytes]:
        """Cut the body into reads of so many bytes; None: one event each; 0: all in one."""
        if size is None:
            ends = [found.end() for found in _BLANK_LINE.finditer(self.body)]
            ends += [len(self.body)] if ends[-1:] != [len(self.body)] else []
            return [self.body[a:b] for a, b in zip([0, *ends], ends, strict=False)]
        return cut(self.body, size or len(self.body))


def cut(body: bytes, size: int) -> list[bytes]:
    """Cut bytes into reads."""
    return [body[start : start + size] for start in range(0, len(body), size)]


def made(shape: str, count: int, number: int = 0) -> Stream:
    """Return a stream of a shape, with about `count` chunks; each number is another stream."""
    rng = random.Random(f"{shape} {number}")
    escaped = rng.random() < 0.5  # what is not ASCII: servers differ
    envelope = _envelope(rng)
    chunks = [{**envelope, **chunk} for chunk in SHAPES[shape](rng, count)]
    events = tuple(_json(chunk, escaped) for chunk in chunks)
    return Stream(b"".join(b"data: %b\n\n" % data for data in (*events, b"[DONE]")), events)


def _json(chunk: Json, escaped: bool) -> bytes:
    return json.dumps(chunk, separators=(",", ":"), ensure_ascii=escaped).encode()


def unended(texts: list[str], *, arguments: bool, escaped: bool) -> tuple[bytes, bytes]:
    """Write how a stream opens, and the events that bring these texts and may come again."""
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "report"}}
    opening = {"role": "assistant", **({"tool_calls": [call]} if arguments else {"content": ""})}

    def written(delta: Json) -> bytes:
        chunk = {**_envelope(random.Random(0)), **_chunk(delta)}
        return b"data: %b\n\n" % _json(chunk, escaped)

    def brought(text: str) -> Json:
        fragment = {"index": 0, "function": {"arguments": text}}
        return {"tool_calls": [fragment]} if arguments else {"content": text}

    return written(opening), b"".join(written(brought(text)) for text in texts)


# --- shapes -------------------------------------------------------------------------------


def _envelope(rng: random.Random) -> Json:
    return {
        "id": "chatcmpl-" + "".join(rng.choices(_LETTERS, k=29)),
        "object": "chat.completion.chunk",
        "created": rng.randint(1_700_000_000, 1_790_000_000),
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": f"fp_{rng.getrandbits(40):010x}",
    }


def _chunk(
    delta: Json, *, index: int = 0, reason: str | None = None, logprobs: Json | None = None
) -> Json:
    choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
    return {"choices": [choice], "usage": None}


def _usage(tokens: int) -> Json:
    details = dict.fromkeys(("reasoning_tokens", "audio_tokens"), 0)
    details |= dict.fromkeys(("accepted_prediction_tokens", "rejected_prediction_tokens"), 0)
    return {
        "prompt_tokens": 120,
        "completion_tokens": tokens,
        "total_tokens": 120 + tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": details,
    }


def _words(rng: random.Random, count: int) -> list[str]:
    return [rng.choice(_ODD if i % 10 == 9 else _WORDS) for i in range(count)]


def _whole(middle: list[Json], reason: str = "stop", choices: int = 1) -> list[Json]:
    opening = {"role": "assistant", "content": "", "refusal": None}
    return [
        *(_chunk(opening, index=index) for index in range(choices)),
        *middle,
        *(_chunk({}, index=index, reason=reason) for index in range(choices)),
        {"choices": [], "usage": _usage(len(middle))},
    ]


def _text(rng: random.Random, count: int) -> list[Json]:
    return _whole([_chunk({"content": word}) for word in _words(rng, count - 3)])


def _tools(rng: random.Random, count: int) -> list[Json]:
    calls = []
    for index in range(3):
        id = "call_" + "".join(rng.choices(_LETTERS, k=24))
        function = {"name": "file_report", "arguments": ""}
        call = {"index": index, "id": id, "type": "function", "function": function}
        calls.append(_chunk({"tool_calls": [call]}))
        summary = "".join(rng.choices(_WORDS, k=2 * count))
        arguments = json.dumps({"place": rng.choice(("Oslo", "Bonn")), "text": summary})
        # Three calls of 4-byte fragments, cut to length and closed as JSON is.
        arguments = arguments[: 4 * max(count // 3 - 3, 9) - 2] + '"}'
        for start in range(0, len(arguments), 4):
            fragment = {"index": index, "function": {"arguments": arguments[start : start + 4]}}
            calls.append(_chunk({"tool_calls": [fragment]}))
    return _whole(calls, "tool_calls")


def _logprobs(rng: random.Random, count: int) -> list[Json]:
    def entry(token: str) -> Json:
        logprob = round(-3 * rng.random(), 8)
        return {"token": token, "logprob": logprob, "bytes": list(token.encode())}

    middle = []
    for word in _words(rng, count - 3):
        tops = [entry(token) for token in (word, *rng.choices(_WORDS, k=4))]
        logprobs = {"content": [{**tops[0], "top_logprobs": tops}], "refusal": None}
        middle.append(_chunk({"content": word}, logprobs=logprobs))
    return _whole(middle)


def _reasoning(rng: random.Random, count: int) -> list[Json]:
    # As OpenRouter sends Claude: the thoughts twice, then the answer.
    def thought(word: str) -> Json:
        detail = {"type": "reasoning.text", "text": word, "format": "anthropic-claude-v1"}
        details = [{**detail, "index": 0}]
        return {"role": "assistant", "content": "", "reasoning": word, "reasoning_details": details}

    words = _words(rng, count - 3)
    thoughts = [_chunk(thought(word)) for word in words[: 2 * count // 3]]
    answer = [_chunk({"role": "assistant", "content": word}) for word in words[2 * count // 3 :]]
    return _whole(thoughts + answer)


def _reasoning_content(rng: random.Random, count: int) -> list[Json]:
    # As DeepSeek does, and many after it.
    words = _words(rng, count - 3)
    thoughts = words[: 2 * count // 3]
    middle = [_chunk({"content": None, "reasoning_content": word}) for word in thoughts]
    return _whole(middle + [_chunk({"content": word}) for word in words[len(thoughts) :]])


def _changed(
    shape: str, change: Callable[[random.Random, int, Json], object]
) -> Callable[[random.Random, int], list[Json]]:
    def maker(rng: random.Random, count: int) -> list[Json]:
        chunks = SHAPES[shape](rng, count)
        for i, chunk in enumerate(chunks):
            change(rng, i, chunk)
        return chunks

    return maker


def _padded(rng: random.Random, i: int, chunk: Json) -> None:
    # OpenAI pads its events against those who read their lengths.
    chunk["obfuscation"] = "".join(rng.choices(_LETTERS, k=rng.randint(1, 14)))


def _choice_object(rng: random.Random, i: int, chunk: Json) -> None:
    for choice in chunk["choices"]:
        scores = {"hate": {"filtered": False, "severity": "safe"}, "seq": rng.randint(0, 9)}
        choice["content_filter_results"] = scores


def _delta_object(rng: random.Random, i: int, chunk: Json) -> None:
    # As the AI SDK's gateway does.
    for choice in chunk["choices"]:
        choice["delta"]["provider_metadata"] = {"router": {"attempt": 1, "took": i / 8}}


def _sorted_keys(rng: random.Random, i: int, chunk: Json) -> None:
    # As servers in Go do, with tokens as vLLM has them.
    for choice in chunk["choices"]:
        choice |= {"stop_reason": None, "token_ids": [rng.randint(0, 99_999)]}
    in_order = sorted(chunk.items())
    chunk.clear()
    chunk.update(in_order)


def _thinking_parts(rng: random.Random, count: int) -> list[Json]:
    def part(word: str) -> Json:
        return {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": word}]}]}

    words = _words(rng, count - 3)
    thoughts = [_chunk(part(word)) for word in words[: 2 * count // 3]]
    return _whole(thoughts + [_chunk({"content": word}) for word in words[2 * count // 3 :]])


def _cumulative(rng: random.Random, count: int) -> list[Json]:
    chunks = _text(rng, count)
    text = ""
    for chunk in chunks:
        for choice in chunk["choices"]:
            text += choice["delta"].get("content", "")
            choice["message"] = {"role": "assistant", "content": text}
    return [{**chunk, "citations": ["https://example.com/a"]} for chunk in chunks]


def _four_choices(rng: random.Random, count: int) -> list[Json]:
    words = enumerate(_words(rng, count - 9))
    return _whole([_chunk({"content": word}, index=i % 4) for i, word in words], choices=4)


HELD_OUT: Mapping[str, Callable[[random.Random, int], list[Json]]] = {
    "an object in each choice": _changed("text", _choice_object),
    "an object in each delta": _changed("text", _delta_object),
    "a list in each choice, keys sorted": _changed("text", _sorted_keys),
    "a counter beside the text": _changed(
        "text", lambda rng, i, chunk: chunk.update(x_seq=i, p=i * 7)
    ),
    "thinking in parts": _thinking_parts,
    "usage in every chunk": _changed("text", lambda rng, i, chunk: chunk.update(usage=_usage(i))),
    "cumulative message": _cumulative,
    "created changes": _changed(
        "text", lambda rng, i, chunk: chunk.update(created=1_763_489_569 + i)
    ),
    "four choices in turn": _four_choices,
}
SHAPES: Mapping[str, Callable[[random.Random, int], list[Json]]] = {
    "text": _text,
    "tool calls": _tools,
    "logprobs": _logprobs,
    "reasoning": _reasoning,
    "reasoning_content": _reasoning_content,
    **{f"{name}, padded": _changed(name, _padded) for name in ("text", "tool calls", "logprobs")},
    **HELD_OUT,
}
# What is replaced in a body, and by what, so that it is framed as other servers do.
FRAMINGS = {
    "data: without a blank": (b"data: ", b"data:"),
    "CRLF": (b"\n", b"\r\n"),
    "an event's name and id": (b"data: ", b"event: message\nid: 7\ndata: "),
    "comments between": (b"data: ", b": PROCESSING\n\ndata: "),
    "blanks in the JSON": (b'":', b'": '),
}


# --- recordings ---------------------------------------------------------------------------

_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")


def recordings() -> list[Stream]:
    """Read all recorded streams. Raises FileNotFoundError where they are not."""
    paths = sorted(CORPUS.glob("*.sse"))
    if not paths:
        raise FileNotFoundError(f"no recorded streams in {CORPUS}")
    return [_recorded(path.read_bytes()) for path in paths]


def _recorded(body: bytes) -> Stream:
    pieces = [piece.splitlines() for piece in Stream(body, ()).reads(None)]
    data = (
        b"\n".join(line[5:].strip() for line in lines if line.startswith(b"data:"))
        for lines in pieces
    )
    return Stream(body, tuple(text for text in data if text not in (b"", b"[DONE]")))


def has_vendor_fields(stream: Stream) -> bool:
    """Return whether a chunk has a field that `bare`, which has the API's, has not."""

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
