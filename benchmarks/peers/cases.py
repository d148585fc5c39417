"""The conformance cases: what a server sends, and what it means."""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

UNREADABLE = frozenset({"malformed_json", "invalid_chunk"})
# These kinds leave a result incomplete, so a peer may refuse the stream.
LOSSY = UNREADABLE | {"server_error", "invalid_arguments"}
# Names of events, besides `error`, that do not belong to another protocol.
OUR_NAMES = ("", "message", "chunk", "data", "completion")
# JSON or HTML at the start of a line is not in an event.
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
        """Whether a less strict reader may read more than is expected."""
        return not UNREADABLE.isdisjoint(self.problems)

    @property
    def is_of_events(self) -> bool:
        """Whether everything that counts is in events, so that a client has chunks to pass on."""
        return NO_EVENT.search(self.body) is None

    @property
    def clean_body(self) -> bytes:
        """The same events with standard framing: one line of data and one blank line each."""
        return "".join(f"data: {payload}\n\n" for payload in payloads_of(self.body)).encode()

    @cached_property
    def chunks(self) -> list[dict[str, Any]]:
        """The chunks that can be read."""
        return [value for value in map(parsed, payloads_of(self.body)) if isinstance(value, dict)]

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


def load(folder: Path) -> dict[str, Case]:
    """Read the cases of a folder, except those with a caller's rules, which no peer takes."""
    files = sorted(folder.glob("*.json"))
    values = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}
    return {name: case_of(name, value) for name, value in values.items() if "rules" not in value}


def case_of(name: str, value: dict[str, Any]) -> Case:
    """Read one case."""
    if "chunks" in value:
        lacks_types = "type" not in value["rule"] and '"type"' not in json.dumps(value["chunks"])
        # The string [DONE] is not JSON.
        data = (
            chunk if chunk == "[DONE]" else json.dumps(whole(chunk, lacks_types))
            for chunk in value["chunks"]
        )
        body = "".join(f"data: {each}\n\n" for each in data).encode()
    else:
        body = value["body"].encode(value.get("encoding", "utf-8"))
    # A kind that was recorded more than once has a count.
    problems = (each if isinstance(each, str) else each["kind"] for each in value["problems"])
    return Case(name, body, value["completion"], value["status"], frozenset(problems))


def whole(value: Any, lacks_types: bool) -> Any:
    """Return a value with what servers send but cases leave out for brevity.

    That is the list of alternatives of a token, and the type of a call if no call has one.
    """
    if isinstance(value, list):
        return [whole(each, lacks_types) for each in value]
    if not isinstance(value, dict):
        return value
    filled = {
        name: each if name == "top_logprobs" else whole(each, lacks_types)
        for name, each in value.items()
    }
    if {"token", "logprob"} <= value.keys():
        filled.setdefault("top_logprobs", [])
    function = value.get("function")
    if lacks_types and isinstance(function, dict) and function.get("name"):
        filled["type"] = "function"
    return filled


def payloads_of(body: bytes) -> list[str]:
    """Return the data of a body's events up to and with [DONE], reading as leniently as possible.

    This gives the benefit of the doubt to peers that get chunks and do not read bytes: what real
    servers do to the framing is undone for them.
    """
    payloads: list[str] = []
    text = body.decode("utf-8", "replace").removeprefix("\ufeff")
    for is_event, lines in groupby(re.split("\r\n|\r|\n", text), key=bool):
        data: list[str] = []
        event = ""
        for line in lines if is_event else ():
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "data":
                data.append(value.strip())
            elif field == "event":
                event = value
            elif field == "error" and not data:
                payloads.append(as_error(value))
        joined = " ".join(data).strip()
        # Lines that are JSON one by one are one event each.
        if len(data) == 1 or parsed(joined) is not None or not any(map(parsed, data)):
            data = [joined]
        if event == "error" and joined:
            payloads.append(as_error(joined))
        else:
            payloads += [each for each in data if not is_none_of_ours(each, event)]
        if "[DONE]" in payloads:
            return payloads[: payloads.index("[DONE]") + 1]
    # The last event counts without its blank line, if it can be read.
    if not body.endswith((b"\n", b"\r")) and payloads and parsed(payloads[-1]) is None:
        del payloads[-1]
    return payloads


def is_none_of_ours(text: str, event: str) -> bool:
    """Return whether data is nothing, a comment, or from another protocol's event."""
    if text.startswith(":") or text in ("", "null", '""', "[]"):
        return True
    value = parsed(text)
    if event in OUR_NAMES or text == "[DONE]" or (value is None and text.startswith("{")):
        return False
    fields = set(value) if isinstance(value, dict) else set()
    return "type" in fields or fields.isdisjoint(("choices", "usage", "error"))


def as_error(text: str) -> str:
    """Return a server's error in the form that it has inside a chunk."""
    value = parsed(text)
    if isinstance(value, dict) and "error" in value:
        return text
    return json.dumps({"error": text if value is None else value})


def decoded(value: Any) -> Any:
    """Return the value of JSON text; return anything else as it is."""
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        return value


def parsed(text: str) -> object:
    """Return the value of JSON text, or None if it is not JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return None
