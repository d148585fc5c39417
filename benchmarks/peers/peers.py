"""The list of peers, and what several of them need."""
# ruff: noqa: PLC0415  # each environment has only one peer

import json
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cases import Case
from judge import Room

Object = dict[str, Any]
Reduce = Callable[[str, Object], object]  # takes a base URL and a request's parameters

EVERYTHING = "API reasoning reasoning_content extra"
OPENAI = "openai==3.57.0 pydantic==2.14.4"


@dataclass(frozen=True)
class Peer:
    """One reducer."""

    name: str
    what: str
    # What is installed and named on the page, with the reducer's package first.
    packages: list[str]
    room: Room
    # It reads the bytes itself. The others get chunks from openai-python, so framing is not their
    # job, and their bodies have standard framing.
    reads_bytes: bool
    reduce: Reduce | None = None  # None: it is in peers.mjs

    def takes(self, case: Case) -> bool:
        """Return whether this peer can be given a case: one without events has no chunks."""
        return self.reads_bytes or case.is_of_events

    def body_of(self, case: Case) -> bytes:
        """Return what the server sends to this peer."""
        return case.body if self.reads_bytes else case.clean_body


PEERS: dict[str, Peer] = {}


def peer(
    packages: str, room: str, *, reads_bytes: bool = False, **how: str
) -> Callable[[Reduce], Reduce]:
    """Put a function on the list, as a peer with the function's name."""

    def register(reduce: Reduce) -> Reduce:
        name, what = reduce.__name__, reduce.__doc__ or ""
        installed = packages if reads_bytes else f"{packages} {OPENAI}"
        PEERS[name] = Peer(name, what, installed.split(), Room(room, **how), reads_bytes, reduce)
        return reduce

    return register


def node_peer(name: str, what: str, packages: str, room: str, **how: str) -> None:
    """Put a function of peers.mjs on the list; package.json pins what is installed."""
    path = Path(__file__).with_name("package.json")
    pins = json.loads(path.read_text(encoding="utf-8"))["dependencies"]
    pinned = [f"{package}=={pins[package]}" for package in packages.split()]
    PEERS[name] = Peer(name, what, pinned, Room(room, **how), True)


# --- what several of them need -------------------------------------------------------------


def bytes_of(url: str) -> Iterator[bytes]:
    """Yield the body of the answer as it arrives."""
    with urllib.request.urlopen(f"{url}/chat/completions", data=b"{}") as response:
        while data := response.read1():
            yield data


def chunks_of(url: str, params: Object, client: Any = None) -> Any:
    """Return a stream of openai-python's, or of a client with the same constructor."""
    from openai import OpenAI

    made = (client or OpenAI)(base_url=url, api_key="none", max_retries=0)
    return made.chat.completions.create(**params, stream=True)


def completion(message: Object, usage: Object | None = None, **fields: Any) -> Object:
    """Return a completion of one choice; `finish_reason` and `logprobs` are the choice's."""
    names = fields.keys() & {"finish_reason", "logprobs"}
    choice = {"index": 0, "message": message, **{name: fields.pop(name) for name in names}}
    return {**fields, "usage": usage, "choices": [choice]}


def call(id: object, name: object, arguments: object, /, **fields: Any) -> Object:
    """Return a tool call."""
    return {"id": id, "function": {"name": name, "arguments": arguments}, **fields}


def usage(
    counts: Any, cached: Any = None, reasoning: Any = None, audio: tuple[Any, Any] = (None, None),
    *, plain: bool = False,
) -> Object:  # fmt: skip
    """Return a usage; `plain` counts are 0 if nothing came."""
    read = counts.get if isinstance(counts, dict) else partial(getattr, counts)
    prompt, completion = read("input_tokens"), read("output_tokens")
    return {
        "prompt_tokens": prompt or None if plain else prompt,
        "completion_tokens": completion or None if plain else completion,
        "total_tokens": read("total_tokens"),
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": audio[0]},
        "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": audio[1]},
    }


def langchains(counts: Object, tier: object = None, *, plain: bool = False) -> Object:
    """Return a usage from langchain's counts; it prefixes two details with the paid tier."""
    read = counts.get("input_token_details") or {}
    written = counts.get("output_token_details") or {}
    return usage(
        counts,
        read.get("cache_read", read.get(f"{tier}_cache_read")),
        written.get("reasoning", written.get(f"{tier}_reasoning")),
        (read.get("audio"), written.get("audio")),
        plain=plain,
    )
