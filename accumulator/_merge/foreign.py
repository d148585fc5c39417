"""What came instead of a chunk: errors, events of other protocols, streams of other APIs."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .._decode.values import error_of

# The names under which servers send chunks; an event with another name need not be one.
CHUNK_NAMES = frozenset({None, b"", b"message", b"error", b"chunk", b"data", b"completion"})
_RAW_ERROR = r'\s*\{\s*"error"\s*:\s*[{"]'


def error_object(value: object) -> object:
    """Return an object that contains an error, even if it is alone in a list; else None."""
    if isinstance(value, list) and len(value) == 1:  # as Gemini's server sends it
        value = value[0]
    return None if error_of(value) is None else value


def is_raw_error(text: str) -> bool:
    """Return whether a text that is not JSON begins like an error.

    transformers writes messages without escaping them.
    """
    return re.match(_RAW_ERROR, text) is not None


def may_be_chunk(value: object) -> bool:
    """Return whether a value under another protocol's event name may still be a chunk."""
    if not isinstance(value, dict):
        return False
    if value.get("choices") is not None:
        return True
    if value.get("usage") is not None:
        return not isinstance(value.get("type"), str)  # as Anthropic's `message_delta` has
    return error_of(value) is not None


def find_other_api(value: object) -> str | None:
    """Return the name of the other API whose streams begin with this event, or None."""
    if not isinstance(value, Mapping) or value.get("choices") is not None:
        return None
    kind = value.get("type")
    if kind == "message_start":
        return "Anthropic Messages"
    if isinstance(kind, str) and kind.startswith("response."):
        return "OpenAI Responses"
    return "Gemini" if isinstance(value.get("candidates"), list) else None
