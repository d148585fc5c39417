"""The list of peers, how one of them answers, and what several of them need."""
# ruff: noqa: PLC0415  # each environment has only one peer

import json
import os
import resource
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
Reduce = Callable[[str, Object], object]  # takes a base URL and a request's parameters

EVERYTHING = "API CALLS TYPES reasoning reasoning_content extra"
OPENAI = "openai==3.57.0 pydantic==2.14.4"
MEMORY = 4 * 1024**3


@dataclass(frozen=True)
class Peer:
    """One reducer."""

    what: str
    # What is installed and named on the page, with the reducer's package first.
    packages: list[str]
    room: str
    # It reads the bytes itself. The others get chunks from openai-python, so framing is not their
    # job, and their bodies have standard framing.
    reads_bytes: bool
    reduce: Reduce | None = None  # None: it is in peers.mjs


PEERS: dict[str, Peer] = {}


def peer(packages: str, room: str, *, reads_bytes: bool = False) -> Callable[[Reduce], Reduce]:
    """Put a function on the list, as a peer with the function's name."""

    def register(reduce: Reduce) -> Reduce:
        installed = packages if reads_bytes else f"{packages} {OPENAI}"
        what = reduce.__doc__ or ""
        PEERS[reduce.__name__] = Peer(what, installed.split(), room, reads_bytes, reduce)
        return reduce

    return register


def plain(value: object) -> object:
    """Return a value that JSON can represent: a model as a dict, anything else as text."""
    dump = getattr(value, "model_dump", None)
    return dump() if callable(dump) else str(value)


def answer(name: str) -> None:
    """Answer each case with what a peer makes of it: one JSON object per line, in and out."""
    reduce: Any = PEERS[name].reduce
    # Peers and what they import may print to stdout, which is needed for the answers alone.
    # Halves of surrogate pairs are not escaped: two of them would become one character.
    with os.fdopen(os.dup(1), "w", encoding="utf-8", errors="surrogatepass") as out:
        os.dup2(2, 1)
        # A list as long as an index of a thousand million would take down the machine.
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        for line in sys.stdin:
            try:
                given = {"result": reduce(**json.loads(line))}
            except ImportError:
                raise
            except Exception as error:
                given = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(given, default=plain, ensure_ascii=False), file=out, flush=True)


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


def decoded(value: Any) -> Any:
    """Return the value of JSON text; return anything else as it is."""
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        return value


def completion(
    message: Object, usage: object, reason: object = None, logprobs: object = None, **fields: Any
) -> Object:
    """Return a completion of one choice."""
    choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": logprobs}
    return {**fields, "usage": usage, "choices": [choice]}


def call(id: object, name: object, arguments: object, **fields: Any) -> Object:
    """Return a tool call."""
    return {"id": id, "function": {"name": name, "arguments": arguments}, **fields}


def usage(counts: Any, **details: Any) -> Object:
    """Return a usage; counts that are plain integers are 0 if nothing came."""

    def read(name: str) -> Any:
        return counts.get(name) if isinstance(counts, dict) else getattr(counts, name, None)

    names = "cache_read_tokens input_audio_tokens reasoning_tokens output_audio_tokens"
    cached, heard, thought, said = (details.get(name, read(name)) for name in names.split())
    return {
        "prompt_tokens": read("input_tokens") or None,
        "completion_tokens": read("output_tokens") or None,
        "total_tokens": read("total_tokens"),
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": heard},
        "completion_tokens_details": {"reasoning_tokens": thought, "audio_tokens": said},
    }


def langchains(counts: Object, tier: object = None) -> Object:
    """Return a usage from langchain's counts; it prefixes two details with the paid tier."""
    read = counts.get("input_token_details") or {}
    written = counts.get("output_token_details") or {}
    return usage(
        counts,
        cache_read_tokens=read.get("cache_read", read.get(f"{tier}_cache_read")),
        input_audio_tokens=read.get("audio"),
        reasoning_tokens=written.get("reasoning", written.get(f"{tier}_reasoning")),
        output_audio_tokens=written.get("audio"),
    )
