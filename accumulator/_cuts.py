"""What is cut out of lines, and the strings among it, decoded together.

Each is decoded as strictly as it would be within its line: what is put between two shows that none
of them ends within an escape or a character.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import msgspec

__all__ = ["BETWEEN", "cut_lines", "decode_joined", "decode_strings"]

BETWEEN = b"\x7f"  # strings that are read as one: a control character that JSON allows in them
_decode_string = msgspec.json.Decoder(str).decode
_decode_texts = msgspec.json.Decoder(list[str]).decode


def cut_lines(data: bytes, gap: slice) -> list[bytes]:
    """Cut the same out of the line of each event; what has no blank line yet is left out."""
    lines = BytesIO(data)
    return [line[gap] for line, _ in zip(lines, lines)]  # noqa: B905  # the rest waits


def decode_strings(cuts: Sequence[bytes]) -> list[str] | None:
    """Decode what was cut out of so many strings; None unless all can be read."""
    try:
        texts = _decode_texts(b'["%b"]' % b'",\n"'.join(cuts))
    except ValueError:
        return None
    return texts if len(texts) == len(cuts) else None


def decode_joined(joined: bytes, count: int) -> bytes | None:
    """Read what was cut out of so many strings, with BETWEEN between, as one: no string is made of
    each. None if one is not valid by itself, or holds a BETWEEN.

    What is between two shows that none ends within an escape or a character. None has a quote, or
    it would end the string.
    """
    try:
        text = _decode_string(b'"%b"' % joined).encode()
    except ValueError:
        return None
    fragments = text.translate(None, BETWEEN)
    return fragments if len(text) - len(fragments) == count - 1 else None
