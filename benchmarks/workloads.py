"""What is measured: W1 to W9, the same bytes in every run, as servers send them.

Each is the envelope that OpenAI sends, in compact JSON, one `data:` line an event, and ends as its
streams do: a finish reason for every choice, the usage, `[DONE]`. All but W6 can be made of any
length.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "CORPUS",
    "NAMES",
    "READS",
    "TITLES",
    "Parts",
    "Stream",
    "corpus",
    "cut",
    "digest",
    "encoded",
    "fragment_chunk",
    "parts",
    "reduced",
    "stream",
    "text_chunk",
    "unended",
]

JsonObject = dict[str, object]

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus"
SEED = 20_000

TITLES = {
    "W1": "text",
    "W2": "text with `obfuscation`",
    "W3": "four interleaved choices",
    "W4": "three tool calls, 4-byte argument fragments",
    "W5": "logprobs, five `top_logprobs`",
    "W6": "all recorded streams",
    "W7": "a vendor's field in every chunk",
    "W8": "usage in every chunk",
    "W9": "openai's `ChatCompletionChunk` objects",
}
NAMES = tuple(TITLES)
# How a body arrives: so many bytes a read, None for one event a read.
READS: Mapping[str, int | None] = {
    "64 KiB reads": 64 * 1024,
    "4 KiB reads": 4 * 1024,
    "one event a read": None,
}

# fmt: off
_WORDS = (
    " the", " a", " of", " and", " to", " in", " is", " that", " it", " for", " with", " as",
    " was", " on", " are", " by", " be", " this", " from", "ing", "ed", "s", "er", "ly", "ation",
    ", ", ".", ":", " -", " stream", " token", " server", " answer", " because", " language",
    " between", " something", " implementation", " 20", "26", " 3", ".5",
)
# In every tenth chunk: what JSON escapes, and what ASCII does not have.
_ODD = (
    '"', '"\n', "\n\n", "\\", "\t", " é", "ß", " naïve", "“", " —", "日本", "が", "😀", " 👍🏽",
)
# fmt: on
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


@dataclass(frozen=True)
class Parts:
    """The chunks of a stream: in sections, each of which may go on for longer, and its end."""

    sections: Sequence[tuple[Sequence[JsonObject], Sequence[JsonObject]]]  # how it opens, goes on
    closing: Sequence[JsonObject]

    def __iter__(self) -> Iterator[JsonObject]:
        for opening, middle in self.sections:
            yield from opening
            yield from middle
        yield from self.closing


@dataclass(frozen=True)
class Stream:
    """A stream as it is on the wire: the JSON of its events, and the body in one piece each."""

    events: tuple[bytes, ...]
    pieces: tuple[bytes, ...]

    def reads(self, size: int | None) -> list[bytes]:
        """Cut the body into reads of so many bytes; None: one event each."""
        return list(self.pieces) if size is None else cut(b"".join(self.pieces), size)


def cut(body: bytes, size: int) -> list[bytes]:
    """Cut bytes into reads."""
    return [body[start : start + size] for start in range(0, len(body), size)]


# --- the generated ones -------------------------------------------------------------------


def parts(name: str, count: int) -> Parts:
    """Make the chunks of W1 to W5, W7 or W8, with `count` of them in the middle."""
    return _MAKERS[name](random.Random(f"{name} {SEED}"), count)


def stream(name: str, count: int) -> Stream:
    """Make the stream of W1 to W5, W7 or W8."""
    return encoded(parts(name, count))


def encoded(chunks: Iterable[JsonObject], *, escaped: bool | None = None) -> Stream:
    """Write chunks as an event stream; what is not ASCII escaped or not, None: now this, now that,
    as servers differ.
    """
    rng = random.Random(SEED)
    events = tuple(
        _json(chunk, ascii_only=rng.random() < 0.5 if escaped is None else escaped)
        for chunk in chunks
    )
    return Stream(events, (*map(_event, events), _event(b"[DONE]")))


def unended(chunks: Iterable[JsonObject], *, escaped: bool | None = None) -> bytes:
    """Write chunks as the bytes of a stream that goes on."""
    return b"".join(map(_event, encoded(chunks, escaped=escaped).events))


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


def _json(value: object, *, ascii_only: bool) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=ascii_only).encode()


def _chunk(*choices: JsonObject, usage: JsonObject | None = None) -> JsonObject:
    return {
        "id": "chatcmpl-CdKU5xm8z6nhRMJs7Slt7m0OhOdgz",
        "object": "chat.completion.chunk",
        "created": 1763489569,
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": "fp_560af6e559",
        "choices": list(choices),
        "usage": usage,
    }


def _choice(
    delta: JsonObject,
    *,
    index: int = 0,
    logprobs: JsonObject | None = None,
    finish_reason: str | None = None,
) -> JsonObject:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}


def _opening(index: int = 0) -> JsonObject:
    return _choice({"role": "assistant", "content": "", "refusal": None}, index=index)


def text_chunk(text: str, index: int = 0) -> JsonObject:
    """Make a chunk that brings text to a choice."""
    return _chunk(_choice({"content": text}, index=index))


def fragment_chunk(text: str, index: int = 0) -> JsonObject:
    """Make a chunk that brings a fragment of a tool call's arguments."""
    fragment: JsonObject = {"index": index, "function": {"arguments": text}}
    return _chunk(_choice({"tool_calls": [fragment]}))


def _usage(tokens: int) -> JsonObject:
    return {
        "prompt_tokens": 120,
        "completion_tokens": tokens,
        "total_tokens": 120 + tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _closing(count: int, reason: str = "stop", choices: int = 1) -> list[JsonObject]:
    ends = [_chunk(_choice({}, index=i, finish_reason=reason)) for i in range(choices)]
    return [*ends, _chunk(usage=_usage(count))]


def _texts(rng: random.Random, count: int) -> list[str]:
    return [rng.choice(_ODD if i % 10 == 9 else _WORDS) for i in range(count)]


def _text(rng: random.Random, count: int) -> Parts:
    middle = [text_chunk(text) for text in _texts(rng, count)]
    return Parts([([_chunk(_opening())], middle)], _closing(count))


def _obfuscated(rng: random.Random, count: int) -> Parts:
    plain = _text(rng, count)

    def padded(chunk: JsonObject) -> JsonObject:
        # OpenAI pads its events against those who read their lengths.
        return {**chunk, "obfuscation": "".join(rng.choices(_LETTERS, k=rng.randint(1, 14)))}

    ((opening, middle),) = plain.sections
    section = [padded(chunk) for chunk in opening], [padded(chunk) for chunk in middle]
    return Parts([section], [padded(chunk) for chunk in plain.closing])


def _four_choices(rng: random.Random, count: int) -> Parts:
    # As OpenAI does with n=4: the openings, then one token of each choice in turn.
    middle = [text_chunk(text, i % 4) for i, text in enumerate(_texts(rng, count))]
    opening = [_chunk(_opening(i)) for i in range(4)]
    return Parts([(opening, middle)], _closing(count, choices=4))


def _tool_calls(rng: random.Random, count: int) -> Parts:
    sections = []
    for index in range(3):
        call: JsonObject = {
            "index": index,
            "id": f"call_7p1vRWhZc9Pm0j6JVvrHK4Z{index}",
            "type": "function",
            "function": {"name": "file_report", "arguments": ""},
        }
        role: JsonObject = {} if index else {"role": "assistant", "content": None}
        opening = [_chunk(_choice({**role, "tool_calls": [call]}))]
        text = _arguments(rng, 4 * ((count + index) // 3))
        middle = [fragment_chunk(text[i : i + 4], index) for i in range(0, len(text), 4)]
        sections.append((opening, middle))
    return Parts(sections, _closing(count, "tool_calls"))


def _arguments(rng: random.Random, length: int) -> str:
    """Write the JSON of a call's arguments: ASCII, and exactly so long."""
    reports: list[JsonObject] = []
    report: JsonObject = {"reports": reports, "note": ""}
    while len(_json(report, ascii_only=True)) < length - 200:
        place, degrees = rng.choice(("London", "Oslo", "Lima")), rng.randint(-9, 35)
        summary = "".join(rng.choices(_WORDS, k=10)).strip()
        reports.append({"place": place, "degrees": degrees, "summary": summary})
    missing = length - len(_json(report, ascii_only=True))
    report["note"] = "".join(rng.choices(_LETTERS, k=missing))
    return _json(report, ascii_only=True).decode()


def _logprobs(rng: random.Random, count: int) -> Parts:
    def entry(token: str) -> JsonObject:
        logprob = round(-3 * rng.random(), 8)
        return {"token": token, "logprob": logprob, "bytes": list(token.encode())}

    middle = []
    for text in _texts(rng, count):
        own = entry(text)
        others = [entry(token) for token in rng.choices(_WORDS, k=4)]
        content = [{**own, "top_logprobs": [own, *others]}]
        logprobs: JsonObject = {"content": content, "refusal": None}
        middle.append(_chunk(_choice({"content": text}, logprobs=logprobs)))
    return Parts([([_chunk(_opening())], middle)], _closing(count))


def _vendor(rng: random.Random, count: int) -> Parts:
    middle = [
        {**text_chunk(text), "x_routing": {"seq": i, "region": "eu-west-1"}}
        for i, text in enumerate(_texts(rng, count))
    ]
    return Parts([([_chunk(_opening())], middle)], _closing(count))


def _usage_each(rng: random.Random, count: int) -> Parts:
    middle = [
        {**text_chunk(text), "usage": _usage(i + 1)} for i, text in enumerate(_texts(rng, count))
    ]
    return Parts([([_chunk(_opening())], middle)], _closing(count))


_MAKERS: Mapping[str, Callable[[random.Random, int], Parts]] = {
    "W1": _text,
    "W2": _obfuscated,
    "W3": _four_choices,
    "W4": _tool_calls,
    "W5": _logprobs,
    "W7": _vendor,
    "W8": _usage_each,
}


# --- the recorded ones --------------------------------------------------------------------

_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")


def corpus() -> list[Stream]:
    """Read all recorded streams. Raises FileNotFoundError where they are not."""
    streams = [_recorded(path.read_bytes()) for path in sorted(CORPUS.glob("*.sse"))]
    if not streams:
        raise FileNotFoundError(f"no recorded streams in {CORPUS}")
    return streams


def _recorded(body: bytes) -> Stream:
    ends = [found.end() for found in _BLANK_LINE.finditer(body)]
    if not ends or ends[-1] < len(body):
        ends.append(len(body))
    pieces = tuple(body[start:end] for start, end in zip([0, *ends], ends, strict=False))
    data = (
        b"\n".join(
            line[5:].removeprefix(b" ") for line in piece.splitlines() if line.startswith(b"data:")
        )
        for piece in pieces
    )
    return Stream(tuple(text for text in data if text.strip() not in (b"", b"[DONE]")), pieces)


# --- what must come out -------------------------------------------------------------------


def reduced(chunks: Iterable[JsonObject]) -> JsonObject:
    """Add the chunks of a generated workload up, in the plainest way, to what `digest` keeps."""
    choices: dict[int, JsonObject] = {}
    usage: object = None
    for chunk in chunks:
        usage = chunk["usage"] or usage
        for choice in _objects(chunk["choices"]):
            index = choice["index"]
            assert isinstance(index, int)
            message = choices.setdefault(
                index, {"content": "", "tool_calls": {}, "logprobs": [], "finish_reason": None}
            )
            _add(message, choice)
    return {"choices": [_listed(choices[index]) for index in sorted(choices)], "usage": usage}


def _add(message: JsonObject, choice: JsonObject) -> None:
    (delta,) = _objects([choice["delta"]])
    message["content"] = f"{message['content']}{delta.get('content') or ''}"
    message["finish_reason"] = choice["finish_reason"] or message["finish_reason"]
    calls, entries = message["tool_calls"], message["logprobs"]
    assert isinstance(calls, dict)
    assert isinstance(entries, list)
    for call in _objects(delta.get("tool_calls")):
        (function,) = _objects([call["function"]])
        held = calls.setdefault(call["index"], {"id": None, "name": "", "arguments": []})
        held["id"] = call.get("id") or held["id"]
        held["name"] += function.get("name", "")
        held["arguments"].append(function["arguments"])
    for logprobs in _objects([choice["logprobs"]]):
        entries += [_entry(entry) for entry in _objects(logprobs["content"])]


def _listed(message: JsonObject) -> JsonObject:
    calls = message["tool_calls"]
    assert isinstance(calls, dict)
    listed = [{**call, "arguments": "".join(call["arguments"])} for call in calls.values()]
    return {**message, "tool_calls": listed}


def digest(completion: Mapping[str, object]) -> JsonObject:
    """Give what of a completion, in the API's shape, every reducer has to get right."""
    choices = []
    for choice in _objects(completion["choices"]):
        (message,) = _objects([choice["message"]])
        calls: list[JsonObject] = []
        for call in _objects(message.get("tool_calls")):
            (function,) = _objects([call["function"]])
            arguments, name = function["arguments"], function["name"]
            calls.append({"id": call["id"], "name": name, "arguments": arguments})
        entries = [
            _entry(entry)
            for logprobs in _objects([choice.get("logprobs")])
            for entry in _objects(logprobs["content"])
        ]
        choices.append(
            {
                "content": message.get("content") or "",
                "tool_calls": calls,
                "logprobs": entries,
                "finish_reason": choice["finish_reason"],
            }
        )
    return {"choices": choices, "usage": completion.get("usage")}


def _entry(entry: JsonObject) -> list[object]:
    tops = [[top["token"], top["logprob"]] for top in _objects(entry["top_logprobs"])]
    return [entry["token"], entry["logprob"], tops]


def _objects(values: object) -> list[JsonObject]:
    assert values is None or isinstance(values, list)
    return [value for value in values or () if isinstance(value, dict)]
