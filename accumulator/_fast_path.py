"""The fast path: events that differ from one already applied in a few values only.

Most events of a long stream are the same bytes but for a text, padding or the index of a choice.
The bytes around these values are a template. It is proved by a rehearsal: the line is decoded with
other strings in the gaps, and the reducer applies that to a copy of its state. The template holds
if each string ends up in a text that it is appended to, or is padding, and nothing else changes.

Law: an event is taken only if it is the template byte for byte, each string in a gap is valid JSON
by itself, and each number in a gap was rehearsed as it stands. Then it does what the rehearsal did.
Everything else goes the plain way, and so does what raises while a template is learnt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from ._decode.text import Text

__all__ = ["LEARN_AFTER", "FastPath", "Rehearser"]

LEARN_AFTER = 96  # events; a shorter stream would not earn back what learning costs
_PAUSE = 32  # events between two attempts to learn, twice as many after each that did not pay
_PROOF = 32  # events that must be taken to earn back what a proof costs
_CREDIT = 8 * _PROOF  # of a new template
_MOST_GAPS = 4
_MOST_KEYS = 64  # choices, say; each costs an entry
_LONGEST_LINE = 16384  # bytes
_LF, _CR = 10, 13
_TOKEN = re.compile(rb'("[^"\\]*(?:\\.[^"\\]*)*"|-?[0-9][0-9.eE+-]*)')
_NUMBER = re.compile(rb"[0-9.eE+-]+")
_PADDING = re.compile(rb'"obfuscation"\s*:\s*"\Z')
_decode_string = msgspec.json.Decoder(str).decode
_decode_strings = msgspec.json.Decoder(list[str]).decode

Key = tuple[bytes, ...]  # the numbers of an event, as they stand there
Targets = list[Text | None]  # the text that each of its strings goes to, None for padding


class Rehearser(Protocol):
    """What the fast path asks a reducer."""

    def may_repeat(self, chunk: Any) -> bool:
        """Return whether a chunk may change nothing but texts when it is applied once more."""

    def rehearse(self, data: bytes) -> list[tuple[Text, str]]:
        """Return each text that the data of an event would append to, and what. Raise if it would
        do anything else.
        """


class Template(Struct):
    """The constant bytes of an event, with gaps between them."""

    head: bytes  # before the first gap
    joints: tuple[bytes, ...]  # between two gaps
    end: bytes  # behind the last, the blank line included
    of_line: slice  # all that is between head and end, cut out of a line
    of_event: slice  # and out of an event
    strings: tuple[int, ...]  # the gaps that hold a string, without its quotes
    numbers: tuple[int, ...]  # and those that hold a number
    is_one_string: bool  # nothing else


class FastPath:
    """Holds the template of a stream, and applies what fits it."""

    __slots__ = (
        "_credit",
        "_last",
        "_pause",
        "_reducer",
        "_targets",
        "_template",
        "learn_at",
        "ready",
    )

    def __init__(self, reducer: Rehearser) -> None:
        self._reducer = reducer
        self.ready = False  # whether there is a template
        self.learn_at = LEARN_AFTER  # the event from which on `learn` is worth a call
        self._pause = _PAUSE
        self._credit = 0  # events that were taken, less what proofs have cost
        self._last = b""  # the line that `learn` was called with before
        self._template = _cut([b""], [])
        # By the numbers of an event. Only what was proved since anything else was applied.
        self._targets: dict[Key, Targets] = {}

    def invalidate(self) -> None:
        """Drop what was proved: something else was applied, or is about to be."""
        self._targets.clear()

    # --- taking ---

    def apply_matching(self, data: bytes) -> tuple[int, int]:
        """Apply whole events that fit, from the first on; return how many they and their bytes
        are. Only if `ready`.
        """
        template = self._template
        head, end, gaps = template.head, template.end, template.of_line
        lines = BytesIO(data)
        cuts = [line[gaps] for line, _ in zip(lines, lines)]  # noqa: B905  # a line, a blank one
        body = b"".join((head, (end + head).join(cuts), end))
        if data.startswith(body) and self._append(cuts):
            self._credit += len(cuts)
            return len(cuts), len(body)
        count = size = 0
        for cut in cuts:
            event = b"".join((head, cut, end))
            if not data.startswith(event, size) or not self.apply_event(event):
                break
            count += 1
            size += len(event)
        return count, size

    def apply_event(self, data: bytes) -> bool:
        """Apply a read that is one event, if it is one and fits. Only if `ready`."""
        template = self._template
        head, end = template.head, template.end
        if not data.startswith(head) or not data.endswith(end):
            return False
        cut = data[template.of_event]
        if _LF in cut or len(data) < len(head) + len(end):
            return False
        if template.is_one_string:
            return self._append_one(cut)
        values = [cut]
        for joint in template.joints:
            value, found, cut = values.pop().partition(joint)
            if not found:
                return False
            values += (value, cut)
        key: Key = ()
        if template.numbers:
            key = tuple([values[gap] for gap in template.numbers])
            values = [values[gap] for gap in template.strings]
        targets = self._targets.get(key) or self._prove(key)
        if not targets:
            return False
        try:
            fragments = [_decode_string(b'"%b"' % value) for value in values]
        except ValueError:
            return False
        for text, fragment in zip(targets, fragments):  # noqa: B905  # one text for each
            if text is not None:
                text.append(fragment)
        self._credit += 1
        return True

    def _append_one(self, cut: bytes) -> bool:
        """Append the only string of an event to its text."""
        targets = self._targets.get(()) or self._prove(())
        if not targets:
            return False
        try:
            fragment = _decode_string(b'"%b"' % cut)
        except ValueError:
            return False
        if targets[0] is not None:
            targets[0].append(fragment)
        self._credit += 1
        return True

    def _append(self, cuts: list[bytes]) -> bool:
        """Append the strings of some events to their texts, all or nothing."""
        template = self._template
        columns: list[list[bytes]] = []
        for joint in template.joints:
            halves = [cut.partition(joint) for cut in cuts]
            columns.append([value for value, _, _ in halves])
            cuts = [rest for _, found, rest in halves if found]
            if len(cuts) < len(halves):
                return False
        columns.append(cuts)
        try:
            strings = [_decoded(columns[gap]) for gap in template.strings]
        except ValueError:
            return False
        if not template.numbers:
            targets = self._targets.get(()) or self._prove(())
            for text, fragments in zip(targets, strings):  # noqa: B905  # as in `apply_event`
                if text is not None:
                    text.extend(fragments)
            return bool(targets)
        keys = list(zip(*[columns[gap] for gap in template.numbers], strict=True))
        if not all(key in self._targets or self._prove(key) for key in dict.fromkeys(keys)):
            return False
        for key, *row in zip(keys, *strings, strict=True):
            for text, fragment in zip(self._targets[key], row, strict=True):
                if text is not None:
                    text.append(fragment)
        return True

    # --- learning ---

    def learn(self, line: bytes, chunk: object, event: int) -> None:
        """Learn from the line of the chunk that was applied last, and from the one before it.

        `line` has its line end, and `event` is how many events there were.
        """
        last, self._last = self._last, b""
        if len(line) > _LONGEST_LINE or not self._reducer.may_repeat(chunk):
            return
        template = self._template
        end = template.end[: template.of_event.stop - template.of_line.stop]
        fits = line.startswith(template.head) and line.endswith(end)
        if self.ready and fits and all(joint in line for joint in template.joints):
            return
        self._last = line
        if last:
            self._pause = _PAUSE if self._credit > _CREDIT else 2 * self._pause
            self.learn_at = event + self._pause
            self._credit = _CREDIT
            self._targets.clear()
            self.ready = self._find_template(line, last)

    def _find_template(self, line: bytes, last: bytes) -> bool:
        """Cut a line where it differs from another, and prove what is left."""
        tokens, others = _TOKEN.split(line), _TOKEN.split(last)
        if tokens[::2] != others[::2] or _CR in line[:-2] or not line.startswith(b"data:"):
            return False
        gaps = {i for i in range(1, len(tokens), 2) if tokens[i] != others[i]}
        for _ in range(2):
            if len(gaps) > _MOST_GAPS:
                return False
            self._template = _cut(tokens, sorted(gaps))
            key = tuple(tokens[gap] for gap in sorted(gaps) if tokens[gap][:1] != b'"')
            try:
                constant = self._rehearse(key)
            except Exception:  # whatever it is: the plain way takes such lines
                return False
            if not constant:
                return bool(self._targets[key])
            # A text that is the same in both lines is a gap, too.
            gaps.update(
                i
                for i in range(1, len(tokens), 2)
                if tokens[i][:1] == b'"' and _decode_string(tokens[i]) in constant
            )
        return False

    def _prove(self, key: Key) -> Targets:
        """Prove the template for some numbers; return where its strings go: nowhere if it does not
        hold, or was proved more often than it is worth.
        """
        if self._credit < _PROOF:
            self.ready = False
        # A line end may stand beside a number in JSON, but not in a line.
        elif len(self._targets) < _MOST_KEYS and all(map(_NUMBER.fullmatch, key)):
            with suppress(Exception):  # as in `_find_template`
                self._rehearse(key)
        return self._targets.get(key, [])

    def _rehearse(self, key: Key) -> list[str]:
        """Find the targets for some numbers, by a line with probes in place of its strings.

        Returns strings that are constant and would be appended again: then there are no targets,
        nor if it raises.
        """
        self._credit = min(self._credit, _CREDIT) - _PROOF
        template = self._template
        parts = [template.head, *template.joints, template.end]
        values = {0: b"", **dict(zip(template.numbers, key, strict=True))}
        size = sum(map(len, parts)) + 1  # no other string of the line is as long
        probes = [letter * size for letter in "abcd"[: len(template.strings)]]
        for gap, probe in zip(template.strings, probes, strict=True):
            values[gap] = probe.encode()
        line = parts[0] + b"".join([values[gap] + part for gap, part in enumerate(parts[1:])])
        grown = self._reducer.rehearse(line.removeprefix(b"data:"))
        found = {fragment: text for text, fragment in grown}
        if len(found) < len(grown) and not found.keys().isdisjoint(probes):
            raise ValueError("a string that is appended to two texts")
        targets = [found.pop(probe, None) for probe in probes]
        if found:
            return [*found]
        for gap, text in zip(template.strings, targets, strict=True):
            if text is None and not _PADDING.search(parts[gap]):
                raise ValueError("a string that is neither appended nor padding")
        self._targets[key] = targets
        return []


def _cut(tokens: Sequence[bytes], gaps: Sequence[int]) -> Template:
    """Make a template of a line's strings and numbers, and what is between them."""
    parts = [b""]
    strings: list[int] = []
    numbers: list[int] = []
    start = 0
    for place, gap in enumerate(gaps):
        is_string = tokens[gap].startswith(b'"')
        (strings if is_string else numbers).append(place)
        quote = b'"' if is_string else b""
        parts[-1] += b"".join(tokens[start:gap]) + quote
        parts.append(quote)
        start = gap + 1
    parts[-1] += b"".join(tokens[start:])
    head, *joints, tail = parts if gaps else [b"", *parts]
    end = tail + (b"\r\n" if tail.endswith(b"\r\n") else b"\n")
    of_line, of_event = slice(len(head), -len(tail)), slice(len(head), -len(end))
    is_one_string = len(strings) == 1 and not numbers
    return Template(
        head, tuple(joints), end, of_line, of_event, tuple(strings), tuple(numbers), is_one_string
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
