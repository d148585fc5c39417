"""What the streams of SDKs and the responses of HTTP clients are known by, and how they are read.

By their attributes: none of these libraries is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

__all__ = ["Found", "find", "is_bound_to_async"]


class Found(Struct, frozen=True):
    """How a stream is read: by `items`, by `aitems`, or by either."""

    items: Any
    aitems: Any
    is_body: bool = False
    has_events: bool = False  # whose `chunk`s are the stream
    encoding: str | None = None  # in which its pieces are compressed


def find(stream: object) -> Found:
    """Find out how a stream is read. Raises TypeError for what is no stream."""
    bodies = [read(stream) for marks, read in _RESPONSES if _has(stream, *marks)]
    whole = isinstance(stream, (bytes, bytearray, memoryview, str))
    given = bodies or [(stream,) if whole else stream]
    # Told by what came: the `iter_bytes` of openai's AsyncAPIResponse is async.
    items = next((each for each in given if _has(each, "__iter__")), None)
    aitems = next((each for each in given if _has(each, "__aiter__")), None)
    # pydantic's models, such as openai's ChatCompletion, are iterables of their fields.
    if items is aitems is None or isinstance(stream, Mapping) or _has(stream, "model_dump"):
        lacks = "; was it asked for without stream=True?" if hasattr(stream, "choices") else ""
        kind = type(stream).__name__
        raise TypeError(f"a stream is an iterable or a response, not {kind}{lacks}")
    encoding = _encoding(stream) if bodies else None
    return Found(items, aitems, bool(bodies), _has(stream, *_EVENT_STREAM), encoding)


def is_bound_to_async(stream: object) -> bool:
    """Tell by what it reads from whether one that can be read either way is an async client's."""
    sources = [getattr(stream, name, None) for name in ("stream", "completion_stream")]
    return any(_has(source, "__aiter__") and not _has(source, "__iter__") for source in sources)


# What a response is known by, and how its body is read in the pieces that arrive.
_RESPONSES: tuple[tuple[tuple[str, ...], Callable[[Any], object]], ...] = (
    # httpx, httpx2, openai's `with_streaming_response`
    (("iter_bytes",), lambda response: response.iter_bytes()),
    (("aiter_bytes",), lambda response: response.aiter_bytes()),
    # requests, which hands out 128 bytes at a time when iterated over
    (("iter_content",), lambda response: response.iter_content(chunk_size=None)),
    # aiohttp
    (("content", "request_info"), lambda response: response.content.iter_any()),
    # http.client, urllib, and urllib3, whose `stream` waits for 64 KiB where a body is not chunked
    (("geturl", "read1"), lambda response: iter(lambda: response.read1(65536), b"")),
)

# What openai's `chat.completions.stream()` gives: events of its own, a chunk in each first one.
_EVENT_STREAM = ("get_final_completion", "current_completion_snapshot")


def _has(thing: object, *names: str) -> bool:
    # Asked of the type: requests' `content` reads the body, and a wrapper answers for its source.
    return all(hasattr(type(thing), name) for name in names)


def _encoding(response: object) -> str | None:
    # Of all clients http.client and urllib alone leave it to their caller to decompress.
    if not _has(response, "geturl", "read1") or _has(response, "stream"):
        return None
    encoding: str = getattr(response, "headers", {}).get("Content-Encoding", "")
    return encoding if encoding.lower() not in ("", "identity") else None
