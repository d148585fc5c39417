"""The conformance cases: what a server sends, and what it means."""

import json
import re
from itertools import groupby
from pathlib import Path
from typing import Any

from peers import Object, decoded

CASES = Path(__file__).resolve().parents[2] / "tests" / "conformance"
UNREADABLE = frozenset({"malformed_json", "invalid_chunk"})
# These kinds leave a result incomplete, so a peer may refuse the stream.
LOSSY = UNREADABLE | {"invalid_arguments"}
# Names of events, besides `error`, that do not belong to another protocol.
OUR_NAMES = ("", "message", "chunk", "data", "completion")
# JSON or HTML at the start of a line is not in an event.
NO_EVENT = re.compile(rb"(?:^(?:\xef\xbb\xbf)?|[\r\n])[ \t]*(?:\{|\[(?!DONE\])|<)")


class Case:
    """One stream and its meaning."""

    def __init__(self, name: str, value: Object) -> None:
        self.name, self.completion, self.status = name, value["completion"], value["status"]
        # A kind that was recorded more than once has a count.
        kinds = {each if isinstance(each, str) else each["kind"] for each in value["problems"]}
        # Whether a less strict reader may read more than is expected.
        self.has_unreadable_chunks = not UNREADABLE.isdisjoint(kinds)
        broken = self.status != "complete" or not LOSSY.isdisjoint(kinds)
        # Whether an exception is a right answer.
        self.may_raise = broken or not self.completion["choices"]
        self.problems = kinds
        self.body = body_of(value)
        # Whether everything that counts is in events, so that a client has chunks to pass on.
        self.is_of_events = NO_EVENT.search(self.body) is None
        payloads = payloads_of(self.body)
        # The same events with standard framing: one line of data and one blank line each.
        self.clean_body = "".join(f"data: {payload}\n\n" for payload in payloads).encode()
        # The chunks that can be read.
        self.chunks = [value for value in map(parsed, payloads) if isinstance(value, dict)]

    def sends(self, name: str) -> bool:
        """Return whether the stream has a field of that name."""
        return f'"{name}":'.encode() in self.body

    @property
    def params(self) -> Object:
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


def load() -> dict[str, Case]:
    """Read the cases, except those with a caller's rules, which no peer takes."""
    files = sorted(CASES.glob("*.json"))
    values = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}
    return {name: Case(name, value) for name, value in values.items() if "rules" not in value}


def body_of(value: Object) -> bytes:
    """Return what the server of a case sends."""
    if "body" in value:
        return bytes(value["body"].encode(value.get("encoding", "utf-8")))
    lacks_types = "type" not in value["rule"] and '"type"' not in json.dumps(value["chunks"])
    chunks = whole(value["chunks"], lacks_types)
    # The string [DONE] is not JSON.
    data = (chunk if chunk == "[DONE]" else json.dumps(chunk) for chunk in chunks)
    return "".join(f"data: {each}\n\n" for each in data).encode()


def whole(value: Any, lacks_types: bool) -> Any:
    """Return a value with what servers send but cases leave out for brevity.

    That is the list of alternatives of a token, and the type of a call if no call has one.
    """
    if isinstance(value, list):
        return [whole(each, lacks_types) for each in value]
    if not isinstance(value, dict):
        return value
    filled = {name: whole(each, lacks_types) for name, each in value.items()}
    if "top_logprobs" in value:
        filled["top_logprobs"] = value["top_logprobs"]
    elif {"token", "logprob"} <= value.keys():
        filled["top_logprobs"] = []
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
    lines = re.split("\r\n|\r|\n", body.decode("utf-8-sig", "replace"))
    for _, event in groupby(lines, key=bool):
        data: list[str] = []
        name = ""
        for field, _, value in (line.partition(":") for line in event):
            if field == "data":
                data.append(value.strip())
            elif field == "event":
                name = value.strip()
            elif field == "error" and not data:
                payloads.append(as_error(value.strip()))
        joined = " ".join(data).strip()
        # Lines that are JSON one by one are one event each.
        if len(data) == 1 or parsed(joined) is not None or not any(map(parsed, data)):
            data = [joined]
        if name == "error" and joined:
            payloads.append(as_error(joined))
        else:
            payloads += [each for each in data if is_ours(each, name)]
        if "[DONE]" in payloads:
            return payloads[: payloads.index("[DONE]") + 1]
    # The last event counts without its blank line, if it can be read.
    if not body.endswith((b"\n", b"\r")) and payloads and parsed(payloads[-1]) is None:
        del payloads[-1]
    return payloads


def is_ours(text: str, event: str) -> bool:
    """Return whether data is neither nothing, nor a comment, nor another protocol's."""
    if text.startswith(":") or text in ("", "null", '""', "[]"):
        return False
    value = parsed(text)
    if event in OUR_NAMES or text == "[DONE]" or (value is None and text.startswith("{")):
        return True
    fields = set(value) if isinstance(value, dict) else set()
    return "type" not in fields and not fields.isdisjoint(("choices", "usage", "error"))


def as_error(text: str) -> str:
    """Return a server's error in the form that it has inside a chunk."""
    value = parsed(text)
    if isinstance(value, dict) and "error" in value:
        return text
    return json.dumps({"error": text if value is None else value})


def parsed(text: str) -> Any:
    """Return the value of JSON text, or None if it is not JSON."""
    value = decoded(text)
    return None if value is text else value
