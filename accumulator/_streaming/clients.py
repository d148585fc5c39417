"""What the streams of SDKs and the responses of HTTP clients are known by, and how they are read.

By their attributes: none of these libraries is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import GeneratorType
from typing import Any

from msgspec import Struct


class Found(Struct, frozen=True):
    """How a stream is read: by `items`, by `aitems`, or by either."""

    items: Any
    aitems: Any
    is_async: bool = False  # whoever may choose reads it async
    is_body: bool = False
    has_events: bool = False  # whose `chunk`s are the stream
    encoding: str | None = None  # in which its pieces are compressed


def find(stream: object) -> Found:
    """Find out how a stream is read. Raises TypeError for what is no stream."""
    if type(stream) in _ITERABLES:
        return Found(stream, None)
    names = _names(stream)
    bodies = [read(stream) for marks, read in _RESPONSES if marks <= names]
    is_piece = isinstance(stream, (bytes, bytearray, memoryview, str))
    given = bodies or [(stream,) if is_piece else stream]
    # Told by what came: the `iter_bytes` of openai's AsyncAPIResponse is async.
    items = next((each for each in given if "__iter__" in _names(each)), None)
    aitems = next((each for each in given if "__aiter__" in _names(each)), None)
    # Completions, openai's and ours, are iterables of their fields.
    if (
        items is aitems is None
        or not names.isdisjoint(("model_dump", "to_openai"))
        or isinstance(stream, Mapping)
    ):
        hint = next((hint for name, hint in _HINTS if hasattr(stream, name)), "")
        kind = type(stream).__name__
        raise TypeError(f"a stream is an iterable or a response, not {kind}{hint}")
    ways = [] if items is None or aitems is None else _ways_of_sources(stream)
    return Found(
        items=items,
        # Starlette reads whatever can be read async so.
        aitems=None if {"__iter__"} in ways else aitems,
        is_async=items is None or {"__aiter__"} in ways,
        is_body=bool(bodies),
        has_events=names >= _EVENT_STREAM,
        encoding=_encoding(stream, names),
    )


def _ways_of_sources(stream: object) -> list[frozenset[str]]:
    """Return in which ways the source of a response (httpx) or a stream (litellm) is read."""
    sources = [getattr(stream, name, None) for name in ("stream", "completion_stream")]
    return [_names(source) & {"__iter__", "__aiter__"} for source in sources]


# What is taken for a stream, told by an attribute, and what makes one of it.
_HINTS = (
    ("choices", "; was it asked for without stream=True?"),
    ("__await__", "; await it first"),
    ("__enter__", "; enter it first: with ... as stream"),
    ("__aenter__", "; enter it first: async with ... as stream"),
    ("__call__", "; call it first"),
)

_ITERABLES = frozenset({list, tuple, GeneratorType})  # told by their type alone, as most are

# What a response is known by, and how its body is read in the pieces that arrive.
_RESPONSES: tuple[tuple[frozenset[str], Callable[[Any], object]], ...] = (
    # httpx, httpx2, openai's `with_streaming_response`
    (frozenset({"iter_bytes"}), lambda response: response.iter_bytes()),
    (frozenset({"aiter_bytes"}), lambda response: response.aiter_bytes()),
    # requests, which hands out 128 bytes at a time when iterated over
    (frozenset({"iter_content"}), lambda response: response.iter_content(chunk_size=None)),
    # aiohttp
    (frozenset({"content", "request_info"}), lambda response: response.content.iter_any()),
    # http.client, urllib, and urllib3, whose `stream` waits for 64 KiB where a body is not chunked
    (frozenset({"geturl", "read1"}), lambda response: iter(lambda: response.read1(65536), b"")),
)

# What openai's `chat.completions.stream()` gives: events of its own, a chunk in each first one.
_EVENT_STREAM = frozenset({"get_final_completion", "current_completion_snapshot"})

_NAMES = _EVENT_STREAM.union(
    ("__aiter__", "__iter__", "model_dump", "stream", "to_openai"),
    *(marks for marks, _ in _RESPONSES),
)


def _names(thing: object) -> frozenset[str]:
    """Return which of the names that streams are known by a thing has."""
    # Asked of the type: requests' `content` reads the body, and a wrapper answers for its source.
    # To ask for each with `hasattr` takes ten times as long, most of it for those that are missing.
    return frozenset().union(*[_NAMES & vars(each).keys() for each in type(thing).__mro__])


def _encoding(response: object, names: frozenset[str]) -> str | None:
    # Of all clients http.client and urllib alone leave it to their caller to decompress.
    if not names.issuperset(("geturl", "read1")) or "stream" in names:
        return None
    encoding: str = getattr(response, "headers", {}).get("Content-Encoding", "")
    return encoding if encoding.lower() not in ("", "identity") else None
