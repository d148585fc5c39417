"""The fast path: events that differ from one already applied in a few strings only.

Most events of a long stream are the same bytes but for a text, and perhaps padding. The bytes
around these strings are a template. It is proved by a rehearsal: the line is decoded with other
strings in the gaps, and the reducer applies it to a copy of its state. The template holds if each
string ends up in a text that it is appended to, or is padding, and nothing else changes.

Law: an event is taken only if it is the template byte for byte, and each string in a gap is valid
JSON by itself and more of its text. (What comes behind whole arguments of a call may be no more of
them.) Then it does what the rehearsal did. Everything else goes the plain way, and so does what
raises while a template is learnt.
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

LEARN_AFTER = 48  # events; a shorter stream would not earn back what learning costs
_REHEARSE_AFTER = 96  # events; likewise, where a proof needs a copy of the state
_PAUSE = 24  # events between two attempts to learn, twice as many after each that did not pay
_PROOF = 16  # events that must be taken to earn back what a proof costs
_CREDIT = 8 * _PROOF  # of a new template
_MOST_GAPS = 4
_LONGEST_LINE = 16384  # bytes
_LF, _CR, _BACKSLASH = 10, 13, 92
_PADDING = re.compile(rb'"obfuscation"\s*:\s*"\Z')
_decode_string = msgspec.json.Decoder(str).decode
_decode_strings = msgspec.json.Decoder(list[str]).decode

Targets = list[Text | None]  # the text that each string of an event goes to, None for padding


class Rehearser(Protocol):
    """What the fast path needs of a reducer."""

    def may_repeat(self, chunk: Any) -> bool:
        """Return whether a chunk may change nothing but texts when it is applied once more."""
        ...

    def rehearse(self, data: bytes, *, thoroughly: bool) -> list[tuple[Text, str]]:
        """Return each text that the data of an event would append to, and what. Raise if it would
        do anything else, or if that can only be seen thoroughly.
        """
        ...


class Template(Struct, frozen=True):
    """The constant bytes of an event, with gaps between them that hold strings."""

    head: bytes  # before the first gap, its quote included
    joints: tuple[bytes, ...]  # between two gaps
    end: bytes  # behind the last, the blank line included
    of_line: slice  # all that is between head and end, cut out of a line
    of_event: slice  # and out of an event


class FastPath(Struct, eq=False):
    """Holds the template of a stream, and applies the events that match it."""

    _reducer: Rehearser
    ready: bool = False  # whether there is a template
    learn_at: int = 0  # the event from which on `learn` is worth a call
    _in_vain: int = 0  # attempts to learn in a row that did not pay
    _credit: int = 0  # events that were taken, less what proofs have cost
    _last: bytes = b""  # the line that `learn` was called with before
    _is_late: bool = False  # whether the stream is long enough to rehearse thoroughly
    _template: Template = Template(b"", (), b"", slice(0), slice(0))
    _asks: bool = False  # whether there are targets that do not take every string
    _is_simple: bool = False  # whether there is one target, and perhaps padding behind it
    _joint: bytes = b""  # between these two
    _targets: Targets = []  # if it was proved since anything else was applied

    def invalidate(self) -> None:
        """Discard the proof: something else was applied, or is about to be."""
        self._targets = []

    # --- taking ---

    def apply_matching(self, data: bytes) -> tuple[int, int]:
        """Apply the events at the start of a read, as far as they match. Only if `ready`.

        Return how many events were applied, and how many bytes they have.
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
        """Apply a read that is one event; return whether it is, and matches. Only if `ready`."""
        template = self._template
        head, end = template.head, template.end
        if not data.startswith(head) or not data.endswith(end):
            return False
        cut = data[template.of_event]
        if _LF in cut or len(data) < len(head) + len(end):
            return False
        if self._is_simple and self._targets:
            # Nearly all templates have one text, and perhaps padding behind it.
            value, _, padding = cut.partition(self._joint) if self._joint else (cut, b"", b"x")
            if padding.isalnum():
                return self._append_one(value)
        return self._append_each(cut)

    def _append_each(self, cut: bytes) -> bool:
        """Append the strings of an event to their texts: all of them, or none."""
        values: list[bytes] = []
        for joint in self._template.joints:
            value, found, cut = cut.partition(joint)
            if not found:
                return False
            values.append(value)
        values.append(cut)
        targets = self._targets or self._prove()
        fragments: list[tuple[Text, str]] = []
        try:
            for text, value in zip(targets, values):  # noqa: B905  # without targets for none
                if text is not None:
                    fragment = _decode_string(b'"%b"' % value)
                    if self._asks and not text.takes(fragment):
                        return False
                    fragments.append((text, fragment))
                elif not value.isalnum():  # as nearly all padding is
                    _decode_string(b'"%b"' % value)
        except ValueError:
            return False
        for text, fragment in fragments:
            text.append(fragment)
        self._credit += 1
        return bool(targets)

    def _append_one(self, value: bytes) -> bool:
        """Append the only string of an event to its text; return whether that could be done."""
        text = self._targets[0]
        try:
            fragment = _decode_string(b'"%b"' % value)
        except ValueError:
            return False
        if text is None or (self._asks and not text.takes(fragment)):
            return False
        text.append(fragment)
        self._credit += 1
        return True

    def _append(self, cuts: list[bytes]) -> bool:
        """Append the strings of several events to their texts: all of them, or none."""
        targets = self._targets or self._prove()
        columns: list[list[bytes]] = []
        for joint in self._template.joints:
            halves = [cut.partition(joint) for cut in cuts]
            columns.append([value for value, _, _ in halves])
            cuts = [rest for _, found, rest in halves if found]
            if len(cuts) < len(halves):
                return False
        columns.append(cuts)
        try:
            strings = [
                [] if text is None and b"".join(column).isalnum() else _decoded(column)
                for text, column in zip(targets, columns)  # noqa: B905  # as in `apply_event`
            ]
        except ValueError:
            return False
        if self._asks:
            return bool(targets) and _append_closely(targets, strings)
        for text, fragments in zip(targets, strings):  # noqa: B905  # one for each
            if text is not None:
                text.extend(fragments)
        return bool(targets)

    # --- learning ---

    def learn(self, line: bytes, chunk: object, event: int, before: bytes = b"") -> None:
        """Look for a template in the line of the chunk that was applied last, and in the line
        `before` it, or else the line of the last call.

        The lines include their line ends. `event` is the number of events so far.
        """
        last, self._last = before or self._last, b""
        self._is_late = event >= _REHEARSE_AFTER
        if len(line) > _LONGEST_LINE or not self._reducer.may_repeat(chunk):
            self.learn_at = event + _PAUSE
            return
        template = self._template
        end = template.end[: template.of_event.stop - template.of_line.stop]
        fits = line.startswith(template.head) and line.endswith(end)
        if self.ready and fits and all(joint in line for joint in template.joints):
            return
        self._last = line
        if last:
            self._in_vain = 0 if self._credit > _CREDIT else self._in_vain + 1
            self.learn_at = event + (_PAUSE << self._in_vain)
            self._credit = _CREDIT
            self._targets = []
            self.ready = self._find_template(line, last)
            self._last = b"" if self.ready else line

    def _find_template(self, line: bytes, last: bytes) -> bool:
        """Cut a line where its strings differ from another's, and prove the template. Return
        whether it holds.
        """
        tokens, others = _tokens_of(line), _tokens_of(last)
        if tokens[::2] != others[::2] or _CR in line[:-2] or not line.startswith(b"data:"):
            return False
        gaps = {i for i in range(1, len(tokens), 2) if tokens[i] != others[i]}
        for _ in range(2):
            if not 0 < len(gaps) <= _MOST_GAPS:
                return False
            self._template = _cut(line, tokens, sorted(gaps))
            self._asks = False
            try:
                constant = self._rehearse()
            except Exception:  # any at all: such lines go the plain way
                return False
            if not constant:
                return True
            # A text that is the same in both lines is a gap, too.
            gaps.update(i for i in range(1, len(tokens), 2) if _string_of(tokens[i]) in constant)
        return False

    def _prove(self) -> Targets:
        """Prove the template again; return where its strings go, nothing if it does not hold."""
        if self._credit < _PROOF:
            self.ready = False  # it was proved more often than it is worth
        else:
            with suppress(Exception):  # as in `_find_template`
                self._rehearse()
        return self._targets

    def _rehearse(self) -> list[str]:
        """Find where the strings of an event go, by a line with probes in place of them.

        Return constant strings that would be appended, too; then nothing is proved. Raise if the
        template does not hold.
        """
        self._credit = min(self._credit, _CREDIT) - _PROOF
        template = self._template
        parts = [template.head, *template.joints, template.end]
        size = sum(map(len, parts)) + 1  # no other string of the line is as long
        probes = [letter * size for letter in "abcd"[: len(parts) - 1]]
        fill = [parts[0][5:]]  # without `data:`
        for probe, part in zip(probes, parts[1:], strict=True):
            fill += (probe.encode(), part)
        grown = self._reducer.rehearse(b"".join(fill), thoroughly=self._is_late)
        found = {fragment: text for text, fragment in grown}
        if len(found) < len(grown):
            raise ValueError("perhaps a string that is appended to two texts")
        targets = [found.pop(probe, None) for probe in probes]
        if found:
            return [*found]
        for part, text in zip(parts, targets):  # noqa: B905  # the last part is behind all gaps
            if text is None and not _PADDING.search(part):
                raise ValueError("a string that is neither appended nor padding")
            self._asks = self._asks or (text is not None and text.asks)
        self._targets = targets
        self._is_simple = targets[0] is not None and targets[1:] in ([], [None])
        self._joint = b"".join(template.joints)
        return []


def _tokens_of(line: bytes) -> list[bytes]:
    """Split a line of JSON at its quotes, so that every second token is a string. What begins with
    a backslash in strings is masked by NULs, which no JSON has.
    """
    if _BACKSLASH in line:
        line = line.replace(b"\\\\", b"\0\0").replace(b'\\"', b"\0\1")
    return line.split(b'"')


def _string_of(token: bytes) -> str:
    return _decode_string(b'"%b"' % token.replace(b"\0\1", b'\\"').replace(b"\0\0", b"\\\\"))


def _cut(line: bytes, tokens: Sequence[bytes], gaps: Sequence[int]) -> Template:
    """Return the template of a line, given its tokens and which of them are gaps."""
    parts: list[bytes] = []
    end = 0
    for gap in gaps:
        start = sum(map(len, tokens[:gap])) + gap  # with a quote in front of each token but one
        parts.append(line[end:start])
        end = start + len(tokens[gap])
    (head, *joints), tail = parts, line[end:]
    closing = tail + (b"\r\n" if tail.endswith(b"\r\n") else b"\n")
    of_line, of_event = slice(len(head), -len(tail)), slice(len(head), -len(closing))
    return Template(head, tuple(joints), closing, of_line, of_event)


def _append_closely(targets: Targets, strings: list[list[str]]) -> bool:
    """Append strings to their texts if none of them may make a text whole; all or nothing."""
    joined = ["".join(fragments) for fragments in strings]
    for text, string in zip(targets, joined):  # noqa: B905  # as in `apply_event`
        if text is not None and (not text.closer or text.closer in string):
            return False
    for text, string in zip(targets, joined):  # noqa: B905  # as in `apply_event`
        if text is not None:
            text.append(string)
    return True


def _decoded(column: list[bytes]) -> list[str]:
    """Decode what stands between the quotes of some strings, each by itself. Raises ValueError."""
    if len(column) == 1:
        return [_decode_string(b'"%b"' % column[0])]
    # No JSON string has a line end: one that is left open cannot reach the next.
    strings = _decode_strings(b'["%b"]' % b'",\n"'.join(column))
    if len(strings) != len(column):
        raise ValueError("a quote inside a string")
    return strings
