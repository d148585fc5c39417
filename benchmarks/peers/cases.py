"""The conformance cases: what a server sends, and what it means."""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

UNREADABLE = frozenset({"malformed_json", "invalid_chunk"})
# What these kinds leave behind is not whole, so a peer that refuses the stream is right to.
LOSSY = UNREADABLE | {"server_error", "invalid_arguments"}
# Names of events, beside `error`, that are no other protocol's.
OUR_NAMES = ("", "message", "chunk", "data", "completion")
# JSON or HTML that opens a line stands in no event.
NO_EVENT = re.compile(rb"(?:^(?:\xef\xbb\xbf)?|[\r\n])[ \t]*(?:\{|\[(?!DONE\])|<)")


@dataclass(frozen=True)
class Case:
    """One stream and its meaning."""

    name: str
    body: bytes
    completion: dict[str, Any]
    status: str
    problems: frozenset[str]

    @property
    def may_raise(self) -> bool:
        """Whether an exception is a right answer."""
        broken = self.status != "complete" or not LOSSY.isdisjoint(self.problems)
        return broken or not self.completion["choices"]

    @property
    def has_unreadable_chunks(self) -> bool:
        """Whether a reader that is less strict may make out more than is expected."""
        return not UNREADABLE.isdisjoint(self.problems)

    @property
    def is_of_events(self) -> bool:
        """Whether all that counts comes in events, so that a client has chunks to hand over."""
        return NO_EVENT.search(self.body) is None

    @cached_property
    def payloads(self) -> list[str]:
        """The data of the events, read as leniently as a reader can be."""
        return read_leniently(self.body)

    @property
    def clean_body(self) -> bytes:
        """The same events framed by the book: one line of data and one blank line each."""
        return "".join(f"data: {payload}\n\n" for payload in self.payloads).encode()

    @cached_property
    def chunks(self) -> list[dict[str, Any]]:
        """The chunks that can be read."""
        values = [parsed(payload) for payload in self.payloads]
        return [value for value in values if isinstance(value, dict)]

    def sends(self, name: str) -> bool:
        """Return whether the stream has a field of that name."""
        return f'"{name}":'.encode() in self.body

    @property
    def params(self) -> dict[str, Any]:
        """The request that such a stream would answer."""
        found = re.findall(rb'"function": *{[^{}]*"name": *"([^"]+)"', self.body)
        tools = [
            {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
            for name in sorted({name.decode() for name in found})
        ]
        return {
            "model": self.completion.get("model") or "some-model",
            "messages": [{"role": "user", "content": "hello"}],
            "n": max(1, len(self.completion["choices"])),
            **({"tools": tools} if tools else {}),
        }


def load(folder: Path) -> list[Case]:
    """Read the cases of a folder but those with rules of a caller's, which no peer takes."""
    files = sorted(folder.glob("*.json"))
    values = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}
    return [case_of(name, value) for name, value in values.items() if "rules" not in value]


def case_of(name: str, value: dict[str, Any]) -> Case:
    """Read one case."""
    if "chunks" in value:
        lacks_types = "type" not in value["rule"] and '"type"' not in json.dumps(value["chunks"])
        data = [rendered(chunk, lacks_types) for chunk in value["chunks"]]
        body = "".join(f"data: {each}\n\n" for each in data).encode()
    else:
        body = value["body"].encode(value.get("encoding", "utf-8"))
    # A kind that was met more than once comes with a count.
    problems = (each if isinstance(each, str) else each["kind"] for each in value["problems"])
    completion, status = value["completion"], value["status"]
    return Case(name, body, completion, status, frozenset(problems))


def rendered(chunk: object, lacks_types: bool) -> str:
    """Write one chunk as a server does; the string [DONE] is no JSON."""
    return "[DONE]" if chunk == "[DONE]" else json.dumps(whole(chunk, lacks_types))


def whole(value: Any, lacks_types: bool) -> Any:
    """Return a value with what cases leave out for brevity and servers do not.

    That is the list of alternatives of a token, and the type of a call where no call has one.
    """
    if isinstance(value, list):
        return [whole(each, lacks_types) for each in value]
    if not isinstance(value, dict):
        return value
    filled = {name: whole(each, lacks_types) for name, each in value.items()}
    if lacks_types and isinstance(value.get("function"), dict) and value["function"].get("name"):
        filled["type"] = "function"
    for entries in (filled.get("content"), filled.get("refusal")):
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and {"token", "logprob"} <= entry.keys():
                entry.setdefault("top_logprobs", [])
    return filled


def parsed(text: str) -> object:
    """Return what JSON says, or None where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def read_leniently(body: bytes) -> list[str]:
    """Return the data of a body's events, up to and with [DONE].

    This is the benefit of the doubt for peers that are handed chunks and read no bytes: what real
    servers do to the framing is undone for them.
    """
    payloads: list[str] = []
    data: list[str] = []
    event = ""
    text = body.decode("utf-8", "replace").removeprefix("\ufeff")
    # The last event counts without its blank line, if it can be read.
    for line in (*re.split("\r\n|\r|\n", text), ""):
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
    """Return the data of one event; several lines that are JSON each are as many events."""
    whole = " ".join(data).strip()
    if event == "error" and whole:
        return [as_error(whole)]
    many = len(data) > 1 and parsed(whole) is None and any(parsed(line) for line in data)
    payloads = list(map(str.strip, data)) if many else [whole]
    return [each for each in payloads if not is_nothing(each) and not is_foreign(each, event)]


def is_nothing(text: str) -> bool:
    """Return whether data is empty or a comment."""
    return text.startswith(":") or text in ("", "null", '""', "[]")


def is_foreign(text: str, event: str) -> bool:
    """Return whether data is that of another protocol's event, as its name and its fields say."""
    if event in OUR_NAMES or text == "[DONE]":
        return False
    value = parsed(text)
    if value is None and text.startswith("{"):
        return False
    fields = set(value) if isinstance(value, dict) else set()
    return "type" in fields or fields.isdisjoint(("choices", "usage", "error"))


def as_error(text: str) -> str:
    """Return a server's error in the form in which it comes inside of a chunk."""
    value = parsed(text)
    if isinstance(value, dict) and "error" in value:
        return text
    return json.dumps({"error": text if value is None else value})
