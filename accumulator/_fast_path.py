"""The fast path: events that differ from one already applied in a few strings and numbers only.

Most events of a long stream are the same bytes but for a text, and perhaps padding or a counter.
The bytes around these values are a template. It is proved by a rehearsal: the line is decoded with
other values in the gaps, and the reducer applies it to a copy of its state. The template holds if
each value is appended to a text or a list, takes the place of another, or is padding, and nothing
else changes.

Law: an event is taken only if it is the template byte for byte, and each value in a gap is valid
JSON by itself and more of its text. (What comes behind whole arguments of a call may be no more of
them.) Then it does what the rehearsal did. Everything else goes the plain way, and so does what
raises while a template is learnt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import BytesIO
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from ._decode.text import Text

LEARN_AFTER = 48  # events; a shorter stream would not earn back what learning costs
_PAUSE = 24  # events between two attempts to learn, twice as many after each that did not pay
_PROOF = 16  # events that must be taken to earn back what a proof costs
_CREDIT = 8 * _PROOF  # of a new template
_MOST_GAPS = 4
_LONGEST_LINE = 16384  # bytes
_LF, _CR, _BACKSLASH = 10, 13, 92
_NUMBER = re.compile(rb"(-?\d[\d.eE+-]*)")
_FIXED = (b"id", b"index", b"created")  # fields that are neither appended nor replaced
_PADDING = re.compile(rb'"obfuscation"\s*:\s*"\Z')
_decode_string = msgspec.json.Decoder(str).decode
_decode_strings = msgspec.json.Decoder(list[str]).decode
_decode_numbers = msgspec.json.Decoder(list[int | float]).decode


Gap = tuple[int, int, bool]  # where a value of a line starts and ends, and whether it is a string
Targets = list[Any]  # what the values of each gap are appended to, None for padding


class Rehearser(Protocol):
    """What the fast path needs of a reducer."""

    def may_repeat(self, chunk: Any) -> bool:
        """Return whether a chunk may change nothing but texts when it is applied once more."""
        ...

    def rehearse(self, data: bytes) -> Sequence[tuple[Any, object]]:
        """Return where the data of an event would bring strings and integers, and what they are.

        Raise if it would do anything else.
        """
        ...


class Template(Struct, frozen=True):
    """The constant bytes of an event, with gaps between them. Around strings they have quotes."""

    head: bytes  # before the first gap
    joints: tuple[bytes, ...]  # between two gaps
    end: bytes  # behind the last, the blank line included
    decoders: tuple[Callable[[list[bytes]], list[Any]], ...]  # one for each gap
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
    _last_event: int = 0  # and the number of its event
    _template: Template = Template(b"", (), b"", (), slice(0), slice(0))
    _asks: bool = False  # whether there are texts that do not take every string
    _is_simple: bool = False  # whether there is one text, and perhaps padding behind it
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

    def _append_one(self, value: bytes) -> bool:
        """Append the only string of an event to its text; return whether that could be done."""
        text = self._targets[0]
        try:
            fragment = _decode_string(b'"%b"' % value)
        except ValueError:
            return False
        if self._asks and not text.takes(fragment):
            return False
        text.append(fragment)
        self._credit += 1
        return True

    def _append_each(self, cut: bytes) -> bool:
        """Bring the values of an event to their targets: all of them, or none."""
        targets, template = self._targets or self._prove(), self._template
        values: list[bytes] = []
        for joint in template.joints:
            value, found, cut = cut.partition(joint)
            if not found:
                return False
            values.append(value)
        values.append(cut)
        try:
            brought = [
                _decode_string(b'"%b"' % value) if decode is _strings_of else decode([value])[0]
                for decode, value in zip(template.decoders, values)  # noqa: B905  # as many
            ]
        except ValueError:
            return False
        if not targets or (self._asks and not _takes_all(targets, [[each] for each in brought])):
            return False
        for target, each in zip(targets, brought):  # noqa: B905  # one for each
            if target is not None:
                target.append(each)
        self._credit += 1
        return True

    def _append(self, cuts: list[bytes]) -> bool:
        """Bring the values of some events to their targets: all of them, or none."""
        targets, template, count = self._targets or self._prove(), self._template, len(cuts)
        columns: list[list[bytes]] = []
        for joint in template.joints:
            halves = [cut.partition(joint) for cut in cuts]
            columns.append([value for value, _, _ in halves])
            cuts = [rest for _, found, rest in halves if found]
            if len(cuts) < count:
                return False
        columns.append(cuts)
        try:
            brought = [
                [] if target is None and b"".join(column).isalnum() else decode(column)
                for target, decode, column in zip(targets, template.decoders, columns)  # noqa: B905  # without targets for none
            ]
        except ValueError:
            return False
        if not targets or (self._asks and not _takes_all(targets, brought)):
            return False
        for target, values in zip(targets, brought):  # noqa: B905  # one for each
            if target is not None:
                target.extend(values)
        self._credit += count
        return True

    # --- learning ---

    def learn(self, line: bytes, chunk: object, event: int, before: bytes = b"") -> None:
        """Look for a template in the line of the chunk that was applied last, and in the line
        `before` it, or else the line of the last call, if that was the event before.

        The lines include their line ends. `event` is the number of events so far.
        """
        last = before or (self._last if event == self._last_event + 1 else b"")
        self._last, self._last_event = line, event
        if len(line) > _LONGEST_LINE or not self._reducer.may_repeat(chunk):
            self._last = b""
            self.learn_at = event + _PAUSE
        elif last and not (self.ready and (self._fits(line) or self._fits(last))):
            self._in_vain = 0 if self._credit > _CREDIT else self._in_vain + 1
            self.learn_at = event + (_PAUSE << self._in_vain)
            self._credit = _CREDIT
            self._targets = []
            self.ready = self._find_template(line, last)

    def _fits(self, line: bytes) -> bool:
        template = self._template
        end = template.end[: template.of_event.stop - template.of_line.stop]
        is_framed = line.startswith(template.head) and line.endswith(end)
        return is_framed and all(joint in line for joint in template.joints)

    def _find_template(self, line: bytes, last: bytes) -> bool:
        """Cut a line where its values differ from another's, and prove the template. Return
        whether it holds.
        """
        tokens, others = _tokens_of(line), _tokens_of(last)
        if len(tokens) != len(others) or _CR in line[:-2] or not line.startswith(b"data:"):
            return False
        constant: list[object] = []
        for _ in range(2):
            gaps = _gaps_between(tokens, others, constant)
            if not 0 < len(gaps) <= _MOST_GAPS:
                return False
            self._template = _cut(line, gaps)
            self._asks = False
            try:
                constant = self._rehearse()
            except Exception:  # any at all: such lines go the plain way
                return False
            if not constant:
                return True
        return False

    def _prove(self) -> Targets:
        """Prove the template again; return where its values go, nothing if it does not hold."""
        if self._credit < _PROOF:
            self.ready = False  # it was proved more often than it is worth
        else:
            with suppress(Exception):  # as in `_find_template`
                self._rehearse()
        return self._targets

    def _rehearse(self) -> list[object]:
        """Find where the values of an event go, by a line with probes in place of them.

        Return constants that would be brought, too; then nothing is proved. Raise if the template
        does not hold.
        """
        self._credit = min(self._credit, _CREDIT) - _PROOF
        template = self._template
        parts = [template.head, *template.joints, template.end]
        size = sum(map(len, parts)) + 1  # no other string of the line is as long
        probes: list[object] = []
        fill = [parts[0][5:]]  # without `data:`
        for place, decode in enumerate(template.decoders):
            # Less than any number: one that only larger ones replace does not take it.
            probe = -(10**15) - place if decode is _numbers_of else "abcd"[place] * size
            probes.append(probe)
            fill += (str(probe).encode(), parts[place + 1])
        brought = self._reducer.rehearse(b"".join(fill))
        found = {value: target for target, value in brought}
        if len(found) < len(brought):
            raise ValueError("perhaps a value that is brought to two places")
        targets = [found.pop(probe, None) for probe in probes]
        if found:
            return [*found]
        for part, target in zip(parts, targets):  # noqa: B905  # the last part is behind all gaps
            if target is None and not _PADDING.search(part):
                raise ValueError("a value that is neither brought nor padding")
        self._asks = any(isinstance(each, Text) and each.asks for each in targets)
        self._targets = targets
        self._is_simple = isinstance(targets[0], Text) and targets[1:] in ([], [None])
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


def _gaps_between(
    tokens: Sequence[bytes], others: Sequence[bytes], constant: Sequence[object]
) -> list[Gap]:
    """Return the strings and numbers in which two lines differ, none if they differ elsewhere or
    in a field that can be in no gap.

    A text that is the same in both lines is in a gap, too, if it is among the constants.
    """
    gaps: list[Gap] = []
    start = 0
    for place, (token, other) in enumerate(zip(tokens, others)):  # noqa: B905  # as many
        if token != other and tokens[place - 1 - place % 2] in _FIXED:
            return []
        if place % 2:
            if token != other or (constant and _string_of(token) in constant):
                gaps.append((start, start + len(token), True))
        elif token != other:
            ours, theirs = _NUMBER.split(token), _NUMBER.split(other)
            if ours[::2] != theirs[::2]:
                return []
            end = start
            for number, before in zip(ours, theirs):  # noqa: B905  # as many
                end += len(number)
                if number != before:
                    gaps.append((end - len(number), end, False))
        start += len(token) + 1
    return gaps


def _cut(line: bytes, gaps: Sequence[Gap]) -> Template:
    """Return the template of a line, given where its gaps are."""
    parts: list[bytes] = []
    before = 0
    for start, end, _ in gaps:
        parts.append(line[before:start])
        before = end
    (head, *joints), tail = parts, line[before:]
    closing = tail + (b"\r\n" if tail.endswith(b"\r\n") else b"\n")
    decoders = tuple([_strings_of if is_string else _numbers_of for _, _, is_string in gaps])
    of_line, of_event = slice(len(head), -len(tail)), slice(len(head), -len(closing))
    return Template(head, tuple(joints), closing, decoders, of_line, of_event)


def _takes_all(targets: Targets, brought: list[list[Any]]) -> bool:
    """Return whether each text takes its fragments. Of several none may make a text whole."""
    for text, fragments in zip(targets, brought):  # noqa: B905  # one for each
        if isinstance(text, Text):
            joined = "".join(fragments)
            is_open = text.closer and text.closer not in joined
            if not is_open and (len(fragments) > 1 or not text.takes(joined)):
                return False
    return True


def _strings_of(column: list[bytes]) -> list[Any]:
    """Decode what stands between the quotes of some strings, each by itself. Raises ValueError."""
    # No JSON string has a line end: one that is left open cannot reach the next.
    strings = _decode_strings(b'["%b"]' % b'",\n"'.join(column))
    if len(strings) != len(column):
        raise ValueError("a quote inside a string")
    return strings


def _numbers_of(column: list[bytes]) -> list[Any]:
    """Decode some numbers, each by itself. Raises ValueError."""
    text = b",".join(column)
    numbers = _decode_numbers(b"[%b]" % text)
    if _CR in text or len(numbers) != len(column):  # a CR ends a line of the body
        raise ValueError("more than a number")
    return numbers
