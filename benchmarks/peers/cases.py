"""The conformance cases: what a server sends, and what it means."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What these kinds leave behind is not whole, so a peer that refuses the stream is right to.
LOSSY = frozenset({"malformed_json", "invalid_chunk", "server_error"})
UNREADABLE = frozenset({"malformed_json", "invalid_chunk"})


@dataclass(frozen=True)
class Case:
    """One stream and its meaning."""

    name: str
    body: bytes
    completion: dict[str, Any]
    status: str
    problems: tuple[str, ...]

    @property
    def may_raise(self) -> bool:
        """Tell whether an exception is a right answer."""
        broken = self.status != "complete" or not LOSSY.isdisjoint(self.problems)
        return broken or not self.completion["choices"]

    @property
    def has_unreadable_chunks(self) -> bool:
        """Tell whether a reader that is less strict may make out more than is expected."""
        return not UNREADABLE.isdisjoint(self.problems)

    @property
    def payloads(self) -> list[str]:
        """Give the data of the events, read as leniently as a reader can be."""
        return list(read_leniently(self.body))

    @property
    def clean_body(self) -> bytes:
        """Give the same events framed by the book: one line of data and one blank line each."""
        return "".join(f"data: {payload}\n\n" for payload in self.payloads).encode()

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """Give the chunks that can be read."""
        values = [parsed(payload) for payload in self.payloads]
        return [value for value in values if isinstance(value, dict)]

    @property
    def params(self) -> dict[str, Any]:
        """Give the request that such a stream would answer."""
        found = re.findall(rb'"function": *{[^{}]*"name": *"([^"]+)"', self.body)
        names = {name.decode() for name in found}
        params = {
            "model": self.completion.get("model") or "some-model",
            "messages": [{"role": "user", "content": "hello"}],
            "n": max(1, len(self.completion["choices"])),
        }
        if names:
            params["tools"] = [
                {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
                for name in sorted(names)
            ]
        return params


def load(folder: Path) -> list[Case]:
    """Read every case of a folder."""
    return [case for path in sorted(folder.glob("*.json")) if (case := read(path))]


def read(path: Path) -> Case:
    """Read one case."""
    case = json.loads(path.read_text(encoding="utf-8"))
    if "rules" in case: return None
    if "chunks" in case:
        body = "".join(f"data: {rendered(chunk)}\n\n" for chunk in case["chunks"]).encode()
    else:
        body = case["body"].encode(case.get("encoding", "utf-8"))
    body = with_envelopes(body)
    return Case(path.stem, body, case["completion"], case["status"], tuple(p if isinstance(p,str) else p["kind"] for p in case["problems"]))


def rendered(chunk: object) -> str:
    """Write one chunk as a server does; the string [DONE] is no JSON."""
    return chunk if isinstance(chunk, str) and chunk == "[DONE]" else json.dumps(whole(chunk))


def whole(value: Any) -> Any:
    """Give token entries the list of alternatives that cases leave out and servers do not."""
    if isinstance(value, list):
        return [whole(each) for each in value]
    if not isinstance(value, dict):
        return value
    filled = {name: whole(each) for name, each in value.items()}
    for name in ("content", "refusal"):
        for entry in filled[name] if isinstance(filled.get(name), list) else ():
            if isinstance(entry, dict) and {"token", "logprob"} <= entry.keys():
                entry.setdefault("top_logprobs", [])
    return filled


def with_envelopes(body: bytes) -> bytes:
    """Give every chunk the envelope that cases leave out for brevity and servers do not.

    It changes nothing of what the stream means, and a peer that relies on it is not held to be
    wrong about what the case is about. A stream without any envelope is meant to be one.
    """
    chunks = [value for value in map(parsed, read_leniently(body)) if isinstance(value, dict)]
    envelope = {
        name: next(filter(None, (chunk.get(name) for chunk in chunks)), None)
        for name in ("id", "created", "model")
    }
    if envelope["id"] is None:
        return body
    envelope["object"] = "chat.completion.chunk"

    def fill(line: re.Match[bytes]) -> bytes:
        lacks = {
            name: value
            for name, value in envelope.items()
            if value is not None and f'"{name}":'.encode() not in line[0]
        }
        fields = json.dumps(lacks)[1:-1].encode()
        return line[1] + fields + (b"," if fields else b"") + line[2]

    # The first line of a chunk: a chunk on one line, or the head of one on several.
    return re.sub(
        rb"""(?m)^(data: ?\{)((?=[^\r\n]*"(?:choices|id)":)[^\r\n]*|(?=\n))""", fill, body
    )


def parsed(text: str) -> object:
    """Read JSON; None where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def read_leniently(body: bytes) -> list[str]:
    """Split a body into the data of its events, up to and with [DONE].

    This is the benefit of the doubt for peers that are handed chunks and read no bytes: what real
    servers do to the framing is undone for them.
    """
    payloads: list[str] = []
    data: list[str] = []
    event = ""
    text = body.decode("utf-8", "replace").removeprefix("\ufeff")
    *lines, rest = re.split("\r\n|\r|\n", text)
    # The last event counts without its blank line, if it can be read.
    for line in (*lines, rest, ""):
        if line:
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "data":
                data.append(value)
            elif field == "event":
                event = value
            elif field == "error" and not data:
                payloads.append(as_error(value))
            continue
        payloads += payloads_of(data, event)
        data, event = [], ""
        if "[DONE]" in payloads:
            return payloads[: payloads.index("[DONE]") + 1]
    if not body.endswith((b"\n", b"\r")) and payloads and parsed(payloads[-1]) is None:
        del payloads[-1]
    return payloads


def payloads_of(data: list[str], event: str) -> list[str]:
    """Give the data of one event; several lines that are JSON each are as many events."""
    whole = " ".join(data).strip()
    if not whole:
        return []
    if event == "error":
        return [as_error(whole)]
    if len(data) > 1 and parsed(whole) is None and any(parsed(line) for line in data):
        return [line for line in map(str.strip, data) if line]
    return [whole]


def as_error(text: str) -> str:
    """Give a server's error the form in which it comes inside of a chunk."""
    value = parsed(text)
    if isinstance(value, dict) and "error" in value:
        return text
    return json.dumps({"error": text if value is None else value})
