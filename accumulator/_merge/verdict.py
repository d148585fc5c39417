"""Say why a stream is not whole: what came, and what the caller can do about it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..completion import ChatCompletion, Choice
from ..errors import Problem
from .problem_log import brief

_EXCERPT = 200  # characters of what came
# How a compressed body begins when decoded: U+FFFD stands for bytes that are not UTF-8.
COMPRESSED = (
    r"(?P<gzip>\x1f?\ufffd\x08)|(?P<zstd>\(\ufffd/\ufffd)|(?P<deflate>x[\x01\ufffd])"
    r"|.?[\x00-\x08\x0e-\x1f\ufffd]"
)
_UTF16 = r"\ufffd{0,2}(([!-~]\x00){2}|(\x00[!-~]){2})"
_UNPACKED = "feed the bytes that your HTTP client has decompressed"
_LINES = 'came without line ends; feed_line or framing="lines" reads those'
# What a text that is not JSON may be, by how it begins.
_MISTAKES = {
    "(data|event|error|id|retry):": "a line of an event stream came as a chunk; feed_line reads "
    "lines, feed_sse a body",
    r"[{\[]": f"the JSON is broken, or its texts {_LINES}",
    "": "this is not an event stream (an error page?)",
}


def has_chunks(completion: ChatCompletion) -> bool:
    """Return whether a completion contains anything that a chunk brought."""
    return bool(completion.choices or completion.usage) or completion.id is not None


def why_truncated(
    completion: ChatCompletion,
    problems: Sequence[Problem],
    *,
    chunks: int,
    size: int,
    is_stopped: bool,
    source: object,
) -> str:
    """Return why a stream is truncated, given how many chunks and bytes came from its source.
    `is_stopped` says that its reader stopped.
    """
    if has_chunks(completion):
        who = "the reader stopped before the stream's end"
        who = who if is_stopped else "the stream stopped before its end"
        count = "1 chunk" if chunks == 1 else f"{chunks:,} chunks"
        return f"{who}, after {count}{_finish_reasons(completion.choices)}"
    if is_stopped:
        return "no chunk was read: the reader stopped before the first one"
    for problem in problems:
        if problem.kind == "other_api":
            return f"{problem.message}; does the server have a /chat/completions, too?"
    return f"no chunk was read: {_why_unread(completion, problems, chunks, size)}{_of(source)}"


def _finish_reasons(choices: Sequence[Choice]) -> str:
    going = [choice.index for choice in choices if not choice.finish_reason]
    if not going:
        return ", none of them with a choice"
    ended = [choice for choice in choices if choice.finish_reason]
    more = f" (and {len(going) - 1} more)" if going[1:] else ""
    last = f", choice {ended[-1].index} has {brief(ended[-1].finish_reason)}" if ended else ""
    return f": choice {going[0]}{more} has no finish reason{last}"


def _why_unread(
    completion: ChatCompletion, problems: Sequence[Problem], chunks: int, size: int
) -> str:
    for problem in problems:
        text = problem.detail
        if problem.kind == "unterminated_event":
            why = f"the body ends inside an event, or its lines {_LINES}"
            return f"{why}; it begins: {_quoted(text)}"
        if problem.kind == "malformed_json" and isinstance(text, str):
            if re.match(_UTF16, text):
                return "the body is UTF-16, as PowerShell's `>` writes it; save it as UTF-8"
            if packed := re.match(COMPRESSED, text):
                name = packed.lastgroup or "or is not text"
                return f"the body is compressed ({name}); {_UNPACKED}"
            why = next(why for begins, why in _MISTAKES.items() if re.match(begins, text))
            return f"{why}; it begins: {_quoted(text)}"
    if problems:
        problem = problems[0]
        return f"{problem}" + ("" if problem.detail is None else f": {_quoted(problem.detail)}")
    if completion.extra:
        return f"the JSON that came has no choices: {brief(dict(completion.extra), _EXCERPT)}"
    if chunks:
        return "the chunks that came are empty"
    if size:
        return "only comments, blank lines or [DONE] came"
    return "nothing came (a stream can be read only once)"


def _quoted(text: object) -> str:
    return repr(str(text)[:_EXCERPT])


def _of(source: object) -> str:
    """Return a response's status and content type in words, if the source is or has a response."""
    for response in source, getattr(source, "response", None):
        status = getattr(response, "status_code", None) or getattr(response, "status", None)
        if isinstance(status, int):
            kind = getattr(response, "headers", {}).get("content-type", "unknown")
            return f" (the response has status {status} and the content type {kind})"
    return ""
