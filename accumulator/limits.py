"""The bounds on what a server can make an accumulator hold."""

from __future__ import annotations

from attrs import field, frozen

__all__ = ["DEFAULT_LIMITS", "Limits"]


def _positive(instance: object, attribute: object, value: int | None) -> None:
    if value is not None and (type(value) is not int or value < 1):
        raise ValueError(f"a limit is a positive integer or None, not {value!r}")


@frozen(kw_only=True)
class Limits:
    """The bounds of one stream (SPEC section 8). A stream that passes one raises
    `LimitExceededError`; None means that there is no bound.

    - `event_bytes`: bytes of one event, from its first line to its blank line, or of a line or a
      chunk's text that comes without an event around it.
    - `choices`: choices of the completion.
    - `tool_calls`: tool calls of one choice.
    - `depth`: levels of nesting in one chunk, counting the chunk itself.
    - `total_bytes`: bytes of the whole stream. Of chunks that come as objects, the characters of
      their strings are counted.

    Raises ValueError for a limit that is not a positive integer.
    """

    # An image or a minute of audio in one delta is a few MiB of base64.
    event_bytes: int | None = field(default=16 * 1024 * 1024, validator=_positive)
    # OpenAI allows n = 128.
    choices: int | None = field(default=1024, validator=_positive)
    tool_calls: int | None = field(default=1024, validator=_positive)
    # The deepest recorded chunk (Vercel's routing metadata) has 9 levels.
    depth: int | None = field(default=64, validator=_positive)
    total_bytes: int | None = field(default=256 * 1024 * 1024, validator=_positive)


DEFAULT_LIMITS = Limits()
