"""The fast path: events that differ only in a few strings and numbers from one already applied.

Most events of a long stream are the same bytes except for a text, and perhaps padding or a counter.
The bytes around these values are a template. It is proved by a rehearsal: the line is decoded with
other values in the gaps, and the reducer applies it to a copy of its state. The template holds if
each value is appended to a text or a list, replaces another, or is dropped: padding, or a time
that is not the first. Nothing else may change.

Law: an event is taken only if it matches the template byte for byte, and each value in a gap is
valid JSON on its own and continues its text, if it goes to one. (What follows whole arguments of a
call may not continue them.) Then it does what the rehearsal did. Everything else goes the plain
way, including what raises while a template is learnt.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from io import BytesIO
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from ._decode.template import Template, cut_at, decode_string, find_gaps, integers_of, strings_of
from ._decode.text import Text

LEARN_AFTER = 48  # events; a shorter stream would not earn back what learning costs
_PAUSE = 24  # events between two attempts to learn, doubled after each that did not pay off
_PROOF = 16  # what a proof costs, in events that must be taken to earn it back
_CREDIT = 8 * _PROOF  # what a new template may spend on proofs; more is not carried over
_MOST_GAPS = 4
_LONGEST_LINE = 16384  # bytes
_MOST_DIGITS = 20
_LF = 10
_PADDING = rb'"obfuscation"\s*:\s*"\Z'

Targets = list[Any]  # where the values of each gap go, None if they are dropped


class Rehearser(Protocol):
    """What the fast path needs of a reducer."""

    def may_repeat(self, chunk: Any) -> bool:
        """Return whether the next events may be like that of a chunk."""
        ...

    def rehearse(self, data: bytes) -> Sequence[tuple[Any, object]]:
        """Return each target that an event's data would change, and the string or integer for it;
        None as the target of a number that is never kept. Raise if it would do anything else.
        """
        ...


class FastPath(Struct, eq=False):
    """Holds the template of a stream, and applies the events that match it."""

    _reducer: Rehearser
    ready: bool = False  # whether there is a template
    learn_at: int = 0  # the event from which `learn` is worth calling
    _in_vain: int = 0  # attempts to learn in a row that did not pay off
    _credit: int = 0  # events that were taken, less what proofs have cost
    _last: bytes = b""  # the line of the last call of `learn`, to compare the next with
    _last_event: int = 0  # and the number of its event
    _template: Template = Template(b"", (), b"", b"", (), slice(0), slice(0))
    _may_refuse: bool = False  # whether a text may not accept a fragment
    # Of a template with one text, and nothing or one value that is dropped beside it: the joint of
    # the two, None for other templates, and which of them the text is.
    _joint: bytes | None = None
    _text_at: int = 0
    _targets: Targets = []  # empty unless it was proved since something else was applied

    def invalidate(self) -> None:
        """Discard the proof: something else was applied, or is about to be."""
        self._targets = []

    # --- taking ---

    def apply_matching(self, data: bytes) -> tuple[int, int]:
        """Apply the events at the start of a read, as far as they match. Only if `ready`.

        Return how many events were applied, and how many bytes they were.
        """
        template = self._template
        gaps, lines = template.of_line, BytesIO(data)
        if not data.startswith(template.head) or not lines.readline().endswith(template.tail):
            return 0, 0
        lines.seek(0)
        cuts = [line[gaps] for line, _ in zip(lines, lines)]  # noqa: B905  # a line, a blank one
        body = template.join(cuts)
        if not data.startswith(body):  # as in a stream's last read
            counts = range(1, len(cuts) + 1)
            fit = bisect_left(
                counts, x=True, key=lambda n: not data.startswith(template.join(cuts[:n]))
            )
            cuts = cuts[:fit]
            body = template.join(cuts)
        if cuts and self._append(cuts):
            return len(cuts), len(body)
        count = size = 0
        for cut in cuts:
            event = template.join([cut])
            if not self.apply_event(event):
                break
            count += 1
            size += len(event)
        return count, size

    def may_match(self, data: bytes, start: int) -> bool:
        """Return whether the line at a place in a read begins and ends like those that match."""
        template, stop = self._template, data.find(b"\n", start) + 1
        return data.startswith(template.head, start) and data.endswith(template.tail, start, stop)

    def apply_event(self, data: bytes) -> bool:
        """Apply a read if it is one matching event; return whether it is. Only if `ready`."""
        template = self._template
        head, end = template.head, template.end
        if not data.startswith(head) or not data.endswith(end):
            return False
        cut = data[template.of_event]
        if _LF in cut or len(data) < len(head) + len(end):
            return False
        if self._joint is not None and self._targets:
            # Nearly all templates have one text, and perhaps padding or a time beside it.
            if not self._joint:
                return self._append_one(cut)
            value, found, dropped = cut.partition(self._joint)
            if self._text_at:
                value, dropped = dropped, value
            is_string = template.decoders[1 - self._text_at] is strings_of
            if found and dropped.isalnum() and (is_string or _is_integer(dropped)):
                return self._append_one(value)
        return self._append_each(cut)

    def _append_one(self, value: bytes) -> bool:
        """Append the only string of an event to its text; return whether that was possible."""
        text = self._targets[self._text_at]
        try:
            fragment = decode_string(b'"%b"' % value)
        except ValueError:
            return False
        if self._may_refuse and not text.accepts(fragment):
            return False
        text.append(fragment)
        self._credit += 1
        return True

    def _append_each(self, cut: bytes) -> bool:
        """Bring the values of an event to their targets: all of them, or none."""
        targets, template = self._targets or self._prove(), self._template
        try:
            brought = [
                decode_string(b'"%b"' % value) if decode is strings_of else decode([value])[0]
                for decode, value in zip(template.decoders, template.split(cut))  # noqa: B905  # as many, or none
            ]
        except ValueError:
            return False
        if not targets or not brought:
            return False
        if self._may_refuse and not _all_accept(targets, [[each] for each in brought]):
            return False
        for target, each in zip(targets, brought):  # noqa: B905  # one for each
            if target is not None:
                target.append(each)
        self._credit += 1
        return True

    def _append(self, cuts: list[bytes]) -> bool:
        """Bring the values of some events to their targets: all of them, or none."""
        targets, template = self._targets or self._prove(), self._template
        columns = template.columns(cuts)
        try:
            brought = [
                []
                if target is None and decode is strings_of and b"".join(column).isalnum()
                else decode(column)
                for target, decode, column in zip(targets, template.decoders, columns)  # noqa: B905  # as many, or none
            ]
        except ValueError:
            return False
        if not brought or (self._may_refuse and not _all_accept(targets, brought)):
            return False
        for target, values in zip(targets, brought):  # noqa: B905  # one for each
            if target is not None:
                target.extend(values)
        self._credit += len(cuts)
        return True

    # --- learning ---

    def learn(self, line: bytes, chunk: object, event: int, before: bytes = b"") -> None:
        """Look for a template in the line of the chunk that was applied last and the line `before`
        it. Without `before`, take the line of the last call, if that was the previous event.

        The lines include their line ends. `event` is the number of events so far.
        """
        last = before or (self._last if event == self._last_event + 1 else b"")
        self._last, self._last_event = b"", event
        if len(line) > _LONGEST_LINE or not self._reducer.may_repeat(chunk):
            self.learn_at = event + _PAUSE
        elif not self._fits(line):
            self._last = line
            if last and not self._fits(last):
                self._in_vain = 0 if self._credit > _CREDIT else self._in_vain + 1
                self.learn_at = event + (_PAUSE << self._in_vain)
                self._credit = _CREDIT
                self._targets = []
                self.ready = self._find_template(line, last)
                self._last = b"" if self.ready else line

    def _fits(self, line: bytes) -> bool:
        return self.ready and self._template.fits(line)

    def _find_template(self, line: bytes, last: bytes) -> bool:
        """Cut a line where its values differ from those of another, and prove the template.
        Return whether it holds.
        """
        needed: list[object] = []
        for _ in range(2):
            gaps = find_gaps(line, last, needed)
            if not 0 < len(gaps) <= _MOST_GAPS:
                return False
            self._template = cut_at(line, gaps)
            self._may_refuse = False
            try:
                needed = self._rehearse()
            except Exception:  # any at all: such lines go the plain way
                return False
            if not needed:
                return True
        return False

    def _prove(self) -> Targets:
        """Prove the template again; return where its values go, or [] if it does not hold."""
        if self._credit < _PROOF:
            self.ready = False  # it was proved more often than it is worth
        else:
            try:
                self._rehearse()
            except Exception:  # as in `_find_template`; the next proof is likely to fail, too
                self._credit //= 2
        return self._targets

    def _rehearse(self) -> list[object]:
        """Find where the values of an event go, by a line with probes instead of them.

        Return the values besides the gaps that go somewhere, too: each needs a gap, so if there are
        any, nothing is proved. Raise if the template does not hold.
        """
        self._credit = min(self._credit, _CREDIT) - _PROOF
        template = self._template
        parts = [template.head, *template.joints, template.end]
        size = sum(map(len, parts)) + 1  # no other string of the line is as long
        probes: list[str | int] = []
        fill = [parts[0][5:]]  # without `data:`
        for place, decode in enumerate(template.decoders):
            # Less than any number, so a field that only larger ones replace does not take it.
            probe = "abcd"[place] * size if decode is strings_of else -(10**15) - place
            probes.append(probe)
            fill += (str(probe).encode(), parts[place + 1])
        brought = self._reducer.rehearse(b"".join(fill))
        found = {value: target for target, value in brought}
        if len(found) < len(brought):
            raise ValueError("perhaps a value that goes to two places")
        for part, probe in zip(parts, probes):  # noqa: B905  # the last part follows all gaps
            if probe not in found and not re.search(_PADDING, part):
                raise ValueError("a value that neither goes anywhere nor is padding")
        targets = [found.pop(probe, None) for probe in probes]
        if not found:
            self._accept(targets)
        return [*found]

    def _accept(self, targets: Targets) -> None:
        """Note that the template is proved, and where its values go."""
        self._targets = targets
        # A number that is dropped is the time, which is an integer.
        decoders = [
            integers_of if target is None and decode is not strings_of else decode
            for target, decode in zip(targets, self._template.decoders)  # noqa: B905  # one for each
        ]
        self._template = replace(self._template, decoders=tuple(decoders))
        self._may_refuse = any(isinstance(each, Text) and each.may_refuse for each in targets)
        texts = [isinstance(each, Text) for each in targets]
        is_simple = sum(texts) == 1 and targets.count(None) == len(targets) - 1 < 2
        self._joint = b"".join(self._template.joints) if is_simple else None
        self._text_at = texts.index(True) if is_simple else 0


def _is_integer(digits: bytes) -> bool:
    # A decoder refuses integers of thousands of digits.
    return digits.isdigit() and not digits.startswith(b"0") and len(digits) < _MOST_DIGITS


def _all_accept(targets: Targets, brought: list[list[Any]]) -> bool:
    """Join the fragments of each text, and return whether the texts accept them. If a text gets
    more than one, none may make it whole.
    """
    for text, fragments in zip(targets, brought):  # noqa: B905  # one for each
        if isinstance(text, Text):
            joined = "".join(fragments)
            is_open = text.closer and text.closer not in joined
            if not is_open and (len(fragments) > 1 or not text.accepts(joined)):
                return False
            fragments[:] = [joined]
    return True
