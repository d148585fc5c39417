"""The fast path: events that differ from one already applied in a few values only.

Most events of a long stream are the same bytes but for a text, padding, or the index of a choice.
The bytes around these values are a template. It is proved by a rehearsal: the line is decoded with
other strings in the gaps, and the reducer applies it to a copy of its state. The template holds if
each string ends up in a text that it is appended to, or is padding, and nothing else changes.

Law: an event is taken only if it is the template byte for byte, each string in a gap is valid JSON
by itself, and each number in a gap was rehearsed as it stands. Then it does what the rehearsal did.
Everything else goes the plain way, and so does what raises while a template is learnt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from io import BytesIO

import msgspec

from ._decode.chunk import Chunk
from ._decode.text import Text
from ._merge.reducer import Reducer

__all__ = ["FastPath"]

_LEARN_AFTER = 48  # events; a shorter stream would not earn back what learning costs
_PAUSE = 32  # events between two attempts to learn, twice as many after each that did not pay
_PROOF = 32  # events that must be taken to earn back what a proof costs
_MOST_CREDIT = 8 * _PROOF
_MOST_GAPS = 4
_MOST_KEYS = 64  # choices, say; each costs an entry
_LONGEST_LINE = 16384  # bytes
_LF, _CR = 10, 13
_TOKEN = re.compile(rb'("(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*)')
_PADDING = re.compile(rb'"obfuscation"\s*:\s*"\Z')
_decode_string = msgspec.json.Decoder(str).decode
_decode_strings = msgspec.json.Decoder(list[str]).decode

Key = tuple[bytes, ...]  # the numbers in the gaps of an event, as they stand there


class FastPath:
    """Holds the template of a stream, and applies what fits it."""

    __slots__ = (
        "_credit",
        "_decode",
        "_end",
        "_gap",
        "_last",
        "_numbers",
        "_parts",
        "_pause",
        "_reducer",
        "_strings",
        "_targets",
        "learn_at",
    )

    def __init__(self, reducer: Reducer, decode: Callable[[bytes], Chunk]) -> None:
        """`decode` reads a chunk whole and remembers nothing of it."""
        self._reducer = reducer
        self._decode = decode
        self.learn_at = _LEARN_AFTER  # the event from which on `learn` is worth a call
        self._pause = _PAUSE
        self._credit = 0  # events that were taken, less those that proofs have cost
        self._last = b""  # the line that `learn` was called with before
        self._parts: list[bytes] = []  # the constant bytes of a line, its gaps between them
        self._end = b""  # the last of these with the blank line behind it
        self._gap = slice(0)  # of a line: all that is between the first and the last part
        self._strings: list[int] = []  # which gaps hold a string
        self._numbers: list[int] = []  # and which a number
        # For the numbers of an event: the text that each of its strings is appended to, None for
        # padding. Only what was proved since something else was applied.
        self._targets: dict[Key, list[Text | None]] = {}

    @property
    def ready(self) -> bool:
        """Whether there is a template."""
        return bool(self._parts)

    def invalidate(self) -> None:
        """Drop what was proved: something else was applied, or is about to be."""
        self._targets.clear()

    # --- taking ---

    def apply_matching(self, data: bytes) -> tuple[int, int]:
        """Apply the events that fit, from the first on; return how many they and their bytes are.

        `data` is whole events. The first event that is left goes the plain way.
        """
        if not self._parts:
            return 0, 0
        head, end = self._parts[0], self._end
        if data.startswith(head) and data.endswith(end):
            cut = data[len(head) : -len(end)]
            if _LF not in cut:  # one event, as clients hand them out
                taken = len(data) >= len(head) + len(end) and self._append([cut])
                self._credit += taken
                return (1, len(data)) if taken else (0, 0)
        lines, gap = BytesIO(data), self._gap
        cuts = [line[gap] for line, _ in zip(lines, lines)]  # noqa: B905  # a line without a blank one
        body = b"".join((head, (end + head).join(cuts), end))
        count, size = len(cuts), len(body)
        if not data.startswith(body) or not self._append(cuts):
            count = size = 0
            for cut in cuts:
                event = b"".join((head, cut, end))
                if not data.startswith(event, size) or not self._append([cut]):
                    break
                count += 1
                size += len(event)
        self._credit += count
        if self._credit > _MOST_CREDIT:
            self._credit, self._pause = _MOST_CREDIT, _PAUSE
        return count, size

    def _append(self, cuts: list[bytes]) -> bool:
        """Append the strings of some events to their texts, all or nothing.

        Each of `cuts` is what an event has between the first and the last part.
        """
        columns: list[list[bytes]] = []
        for part in self._parts[1:-1]:
            halves = [cut.partition(part) for cut in cuts]
            columns.append([value for value, _, _ in halves])
            cuts = [rest for _, found, rest in halves if found]
            if len(cuts) < len(halves):
                return False
        columns.append(cuts)
        try:
            strings = [_decoded(columns[gap]) for gap in self._strings]
        except ValueError:
            return False
        if not self._numbers:
            targets = self._targets.get(()) or self._prove(())
            for text, fragments in zip(targets, strings, strict=False):
                if text is not None:
                    text.extend(fragments)
            return bool(targets)
        keys = list(zip(*[columns[gap] for gap in self._numbers], strict=True))
        if not all(key in self._targets or self._prove(key) for key in dict.fromkeys(keys)):
            return False
        for key, *row in zip(keys, *strings, strict=True):
            for text, fragment in zip(self._targets[key], row, strict=True):
                if text is not None:
                    text.append(fragment)
        return True

    # --- learning ---

    def learn(self, line: bytes, chunk: Chunk, event: int) -> None:
        """Learn from the line of the chunk that was applied last, and from the one before it.

        `line` has its line end, and `event` is how many events there were.
        """
        last, self._last = self._last, b""
        if len(line) > _LONGEST_LINE or not _may_repeat(chunk):
            return
        self._last = line
        parts = self._parts
        if parts and line.startswith(parts[0]) and line.endswith(parts[-1]):
            return
        if last:
            self.learn_at = event + self._pause
            self._pause *= 2
            self._credit = _MOST_CREDIT
            if not self._find_template(line, last):
                self._parts = []

    def _find_template(self, line: bytes, last: bytes) -> bool:
        """Cut a line where it differs from another, and prove what is left."""
        tokens, others = _TOKEN.split(line), _TOKEN.split(last)
        if tokens[::2] != others[::2] or _CR in line[:-2] or not line.startswith(b"data:"):
            return False
        gaps = {i for i in range(1, len(tokens), 2) if tokens[i] != others[i]}
        for _ in range(2):
            if not self._cut(tokens, sorted(gaps)):
                return False
            key = tuple(tokens[gap] for gap in sorted(gaps) if tokens[gap][:1] != b'"')
            try:
                constant = self._rehearse(key)
            except Exception:  # noqa: BLE001  # whatever it is: the plain way takes such lines
                return False
            if not constant:
                return True
            # A text that did not change from the last line to this one.
            gaps.update(
                i
                for i in range(1, len(tokens), 2)
                if tokens[i][:1] == b'"' and _decode_string(tokens[i]) in constant
            )
        return False

    def _cut(self, tokens: Sequence[bytes], gaps: Sequence[int]) -> bool:
        """Make a template of a line's tokens; return whether the gaps can be those of one."""
        if not 0 < len(gaps) <= _MOST_GAPS:
            return False
        self._targets.clear()
        self._parts, self._strings, self._numbers = [], [], []
        start, quote = 0, b""
        for place, gap in enumerate(gaps):
            before, quote_before = b"".join(tokens[start:gap]), quote
            is_string = tokens[gap][:1] == b'"'
            if is_string and tokens[gap + 1].lstrip().startswith(b":"):
                return False  # the name of a field
            quote = b'"' if is_string else b""
            (self._strings if is_string else self._numbers).append(place)
            self._parts.append(quote_before + before + quote)
            start = gap + 1
        self._parts.append(quote + b"".join(tokens[start:]))
        line_end = b"\r\n" if tokens[-1].endswith(b"\r\n") else b"\n"
        self._end = self._parts[-1] + line_end
        self._gap = slice(len(self._parts[0]), -len(self._parts[-1]))
        return True

    def _prove(self, key: Key) -> list[Text | None]:
        """Prove the template for some numbers; return where its strings go, nothing if it does not
        hold or was proved too often for what it is worth.
        """
        if self._credit < _PROOF:
            self._parts = []
            return []
        if len(self._targets) < _MOST_KEYS:
            try:
                self._rehearse(key)
            except Exception:  # noqa: BLE001  # as in `_find_template`
                return []
        return self._targets.get(key, [])

    def _rehearse(self, key: Key) -> Sequence[str]:
        """Find the targets for some numbers, by a line with probes in place of its strings.

        Returns strings that are constant and would be appended again: then there are no targets,
        nor if it raises.
        """
        self._credit -= _PROOF
        parts, values = self._parts, dict(zip(self._numbers, key, strict=True))
        # No string of the line is as long as a probe is.
        size = sum(map(len, parts)) + 1
        probes = [letter * size for letter in "abcd"[: len(self._strings)]]
        for gap, probe in zip(self._strings, probes, strict=True):
            values[gap] = probe.encode()
        line = b"".join([b"".join((part, values[gap])) for gap, part in enumerate(parts[:-1])])
        chunk = self._decode((line + parts[-1]).partition(b":")[2])
        grown = self._reducer.rehearse(chunk)
        found = {fragment: text for text, fragment in grown}
        targets = [found.pop(probe, None) for probe in probes]
        if found:
            return list(found)
        if len(grown) < len(probes) and any(
            text is None and not _PADDING.search(parts[gap])
            for text, gap in zip(targets, self._strings, strict=True)
        ):
            raise ValueError("a string that is neither appended nor padding")
        self._targets[key] = targets
        return ()


def _may_repeat(chunk: Chunk) -> bool:
    """Return whether a chunk may change nothing but texts when it is applied once more."""
    return chunk.usage is None and all(
        choice.delta is not None and not choice.finish_reason and choice.logprobs is None
        for choice in chunk.choices or ()
    )


def _decoded(column: list[bytes]) -> list[str]:
    """Decode what stands between the quotes of some strings, each by itself. Raises ValueError."""
    if len(column) == 1:
        return [_decode_string(b'"%b"' % column[0])]
    # No JSON string has a line end: one that is left open cannot reach the next.
    strings = _decode_strings(b'["%b"]' % b'",\n"'.join(column))
    if len(strings) != len(column):
        raise ValueError("a quote inside a string")
    return strings
