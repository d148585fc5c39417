"""How to recognise the streams of SDKs and the responses of HTTP clients, and how to read them.

They are recognised by their attributes: none of these libraries is imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from types import GeneratorType
from typing import Any

from msgspec import Struct


class Found(Struct, frozen=True):
    """How to read a stream: through `items`, `aitems`, or either of them."""

    items: Any
    aitems: Any
    is_body: bool = False
    encoding: str = ""  # of its pieces, if the client leaves them compressed


def find(stream: object) -> Found:
    """Find out how to read a stream. Raises TypeError for anything else."""
    if type(stream) in (list, tuple, GeneratorType):  # as most are
        return Found(stream, None)
    names = _names(stream)
    bodies = [read(stream) for marks, read in _RESPONSES if marks <= names]
    is_piece = isinstance(stream, (bytes, bytearray, memoryview, str))
    given = bodies or [(stream,) if is_piece else stream]
    # The values decide, not the names: the `iter_bytes` of openai's AsyncAPIResponse is async.
    items = next((each for each in given if "__iter__" in _names(each)), None)
    aitems = next((each for each in given if "__aiter__" in _names(each)), None)
    # Completions, openai's and ours, and mappings can be iterated over, but yield their fields.
    if items is aitems is None or not names.isdisjoint(("keys", "model_dump", "to_openai")):
        hint = next((hint for name, hint in _HINTS if hasattr(stream, name)), "")
        kind = type(stream).__name__
        raise TypeError(f"a stream is an iterable or a response, not {kind}{hint}")
    # Only http.client and urllib leave decompression to their caller.
    is_raw = names & {"geturl", "read1", "stream"} == {"geturl", "read1"}
    headers = getattr(stream, "headers", {}) if is_raw else {}
    ways = [] if items is None or aitems is None else _ways_of_sources(stream)
    return Found(
        items=None if {"__aiter__"} in ways else items,
        aitems=None if {"__iter__"} in ways else aitems,
        is_body=bool(bodies),
        encoding=headers.get("Content-Encoding", ""),
    )


def _ways_of_sources(stream: object) -> list[frozenset[str]]:
    """Return the ways to read the source of a response (httpx) or a stream (litellm)."""
    sources = [getattr(stream, name, None) for name in ("stream", "completion_stream")]
    return [_names(source) & {"__iter__", "__aiter__"} for source in sources]


# Attributes of objects that are mistaken for streams, and how to get a stream from one.
_HINTS = (
    ("choices", "; was it asked for without stream=True?"),
    ("read_bytes", "; open it first"),
    ("__await__", "; await it first"),
    ("__enter__", "; enter it first: with ... as stream"),
    ("__aenter__", "; enter it first: async with ... as stream"),
    ("__call__", "; call it first"),
)

# The attributes of a response, and how to read its body in the pieces that arrive.
_RESPONSES: tuple[tuple[frozenset[str], Callable[[Any], object]], ...] = (
    # httpx, httpx2, openai's `with_streaming_response`
    (frozenset({"iter_bytes"}), lambda response: response.iter_bytes()),
    (frozenset({"aiter_bytes"}), lambda response: response.aiter_bytes()),
    # requests, which yields 128 bytes at a time when iterated over
    (frozenset({"iter_content"}), lambda response: response.iter_content(chunk_size=None)),
    # aiohttp
    (frozenset({"content", "request_info"}), lambda response: response.content.iter_any()),
    # http.client, urllib, and urllib3, whose `stream` waits for 64 KiB if a body is not chunked
    (frozenset({"geturl", "read1"}), lambda response: iter(lambda: response.read1(65536), b"")),
)

_NAMES = frozenset({"__aiter__", "__iter__", "keys", "model_dump", "stream", "to_openai"}).union(
    *(marks for marks, _ in _RESPONSES)
)


def _names(thing: object) -> frozenset[str]:
    """Return which of `_NAMES` the type of a thing has."""
    # The type is asked: requests' `content` reads the body, and a wrapper answers for its source.
    # Trying each with `hasattr` takes ten times as long, mostly for the names that are missing.
    return frozenset().union(*[_NAMES & vars(each).keys() for each in type(thing).__mro__])
