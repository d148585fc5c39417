"""What came in a chunk's place: errors, events of other protocols, streams of other APIs."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .._decode.values import error_of

# The names under which servers send chunks; an event with another name may be no chunk.
OWN_NAMES = frozenset({None, b"", b"message", b"error", b"chunk", b"data", b"completion"})
_RAW_ERROR = re.compile(r'\s*\{\s*"error"\s*:\s*[{"]')


def error_object(value: object) -> object:
    """Return an object that brings an error, also out of a list of its own, or None."""
    if isinstance(value, list) and len(value) == 1:  # so Gemini's server sends it
        value = value[0]
    return None if error_of(value) is None else value


def is_raw_error(text: str) -> bool:
    """Return whether a text that is no JSON begins as an error does.

    transformers writes messages without escapes.
    """
    return _RAW_ERROR.match(text) is not None


def is_own(value: object) -> bool:
    """Return whether a value under another protocol's event name may be a chunk all the same."""
    if not isinstance(value, dict):
        return False
    if value.get("choices") is not None:
        return True
    if value.get("usage") is not None:
        return not isinstance(value.get("type"), str)  # as Anthropic's `message_delta` has
    return error_of(value) is not None


def find_other_api(value: object) -> str | None:
    """Return the name of the API of whose streams this is the first event, or None."""
    if not isinstance(value, Mapping) or value.get("choices") is not None:
        return None
    kind = value.get("type")
    if kind == "message_start":
        return "Anthropic Messages"
    if isinstance(kind, str) and kind.startswith("response."):
        return "OpenAI Responses"
    return "Gemini" if isinstance(value.get("candidates"), list) else None
