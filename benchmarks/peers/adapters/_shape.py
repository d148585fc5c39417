"""The API's shape for adapters whose peer has names of its own: `from _shape import …`."""

from typing import Any

Object = dict[str, Any]


def completion(message: Object, usage: Object | None = None, **fields: Any) -> Object:
    """Return a completion of one choice; `finish_reason` and `logprobs` are the choice's."""
    names = fields.keys() & {"finish_reason", "logprobs"}
    choice = {"index": 0, "message": message, **{name: fields.pop(name) for name in names}}
    return {**fields, "usage": usage, "choices": [choice]}


def call(id: object, name: object, arguments: object, /, **fields: Any) -> Object:
    """Return a tool call."""
    return {"id": id, "function": {"name": name, "arguments": arguments}, **fields}


def usage(
    counts: tuple[Any, Any, Any],
    cached: Any = None,
    reasoning: Any = None,
    audio: tuple[Any, Any] = (None, None),
) -> Object:
    """Return a usage of the counts of prompt, completion and both."""
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    return {
        **dict(zip(names, counts, strict=True)),
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": audio[0]},
        "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": audio[1]},
    }
