"""The shortcut for chunks that repeat: what `_reduce` would do, without parsing what is known.

From chunk to chunk of a stream only a few values change. What is the same was applied before, and
once more changes nothing: that is asked for when a template is learnt, and asked again (`forget`)
after anything else was applied in between. What changes is merged where it belongs.

Whatever is refused goes the plain way. So a template can make a stream faster, but it cannot make
an answer another one; SPEC law 6 holds that over every stream the tests have.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from operator import itemgetter
from typing import cast

import msgspec

from ._cuts import BETWEEN, cut_lines, decode_strings
from ._decode.chunk import Chunk, CompletionTokensDetails, UnreadTokens, Usage
from ._decode.sse import SHORT, EventParser
from ._decode.text import COMPACT_AT, Text
from ._decode.vendor_fields import ChunkDecoder
from ._learning import learn_template, the_change
from ._merge.reducer import Reducer
from ._merge.state import TokensState
from ._objects import ObjectTemplate, learn_object_template
from ._strings import Padded, Pair, Turns, padded_of, pair_of, turns_of
from ._template import Rows, Template

__all__ = ["Shortcut"]

_LONGEST_BACKOFF = 256  # reads
_MOST_MISSES = 3  # calls that take turns are known as such after two
_LF, _CR = 10, 13
_decode_string = msgspec.json.Decoder(str).decode


class Shortcut:
    """Holds the templates of a stream and applies what fits them."""

    __slots__ = (
        "_backoff",
        "_calls_seen",
        "_decoder",
        "_misses",
        "_most_pending",
        "_padded",
        "_pair",
        "_reducer",
        "_single",
        "_template",
        "_text",
        "_texts",
        "_tokens",
        "_turn_texts",
        "_turns",
        "_twin",
        "_vendor_seen",
        "_waits",
        "object",
        "ready",
    )

    def __init__(self, reducer: Reducer, decoder: ChunkDecoder, most_pending: float) -> None:
        self._reducer = reducer
        self._decoder = decoder
        self._most_pending = most_pending  # bytes; of a longer read each event is to be looked at
        self._template: Template | None = None
        self._text = Text()  # where the fragments go, if it is one text
        self._twin: Text | None = None  # and where they go, too, if they come twice
        self._padded: Padded | None = None  # how to cut it, if it brings a text and padding
        self._pair: Pair | None = None  # how to read an event of it, if that has two strings
        self._tokens: TokensState | None = None
        self._texts: dict[object, Text] = {}  # where they go if not, as they are met
        self._turns: Turns | None = None  # of these, if they take turns
        self._turn_texts: list[Text] = []  # as often as they come in two rounds
        self._calls_seen: frozenset[int] = frozenset()
        self._vendor_seen: str | None = None  # a field that brought a value in the last chunk
        self._waits = 0  # how many more reads to go by before learning again
        self._backoff = 1
        self._misses = 0  # reads in a row whose first event did not fit
        self._single = False  # the template has one gap, for one text
        self.object: ObjectTemplate | None = None
        self.ready = False  # there is a template, and nothing else was applied since it held

    def forget(self) -> None:
        """Something else was applied: what the templates take for known may have changed."""
        self.ready = False
        self.object = None

    def _give_up(self) -> None:
        """Learn later, and later still each time that what was learnt was of no use."""
        self.ready = False
        self._waits = self._backoff
        self._backoff = min(2 * self._backoff, _LONGEST_BACKOFF)

    # --- bytes ---

    def take_read(self, parser: EventParser, data: bytes) -> int:
        """Apply a read of which all whole events fit, and leave the rest to wait in the parser;
        return how many events they are, 0 if nothing was done. Only if `ready`.
        """
        # Nearly all reads of a long stream are taken here, so it makes few calls: of a single text,
        # `cut_lines` and `decode_joined` are written out.
        template = self._template
        assert template is not None
        if parser.size:
            if parser.size > SHORT or _LF not in data:
                return 0
            data = b"".join((parser.pending, data))
        elif data.startswith(template.head) and data.endswith(template.end):
            string = data[template.string]
            if _LF not in string:
                return self._take_one(template, parser, string, len(data))
        if len(data) > self._most_pending:
            return 0
        if self._single:
            gap = template.gap
            lines = BytesIO(data)
            cuts = [line[gap] for line, _ in zip(lines, lines)]  # noqa: B905  # the rest waits
            body = b"".join((template.head, template.between.join(cuts), template.end))
            if not data.startswith(body):
                return 0
            try:
                decoded = _decode_string(b'"%b"' % BETWEEN.join(cuts)).encode()
            except ValueError:
                return 0
            fragments = decoded.translate(None, BETWEEN)
            count, size = len(cuts), len(body)
            if len(decoded) - len(fragments) != count - 1:
                return 0  # a text has a BETWEEN of its own
            self._text.extend_utf8(fragments)
        elif self._padded is not None and (read := self._padded.read(data)) is not None:
            fragments, count, size = read
            self._text.extend_utf8(fragments)
        else:
            count, size = (0, 0) if self._turns is None else self._take_turns(self._turns, data)
            if not count:
                count, size = self._take_rows(template, data)
            if not count:
                return 0
        self._backoff, self._misses = 1, 0
        parser.taken += size
        parser.skip_lf = False
        rest = parser.pending = data[size:]
        parser.size = len(rest)
        parser.has_cr = _CR in rest
        return count

    def _take_rows(self, template: Template, data: bytes) -> tuple[int, int]:
        """Apply the events of a read, a row each; return how many events and how many bytes they
        are, 0 if nothing was done.
        """
        cuts = cut_lines(data, template.gap)
        if template.has_bare_gaps and _CR in data and _CR in b"".join(cuts):
            return 0, 0
        body = b"".join((template.head, template.between.join(cuts), template.end))
        fits = data.startswith(body) and self._apply(template, cuts)
        return (len(cuts), len(body)) if fits else (0, 0)

    def _take_one(self, template: Template, parser: EventParser, string: bytes, size: int) -> int:
        """Apply a read of so many bytes that is one event, by the look of it; as `take_read`.

        `string` is what stands in its gap, with the quotes.
        """
        if not template.whole <= size <= self._most_pending:
            return 0
        if self._single:
            try:
                fragment = _decode_string(string)
            except ValueError:
                return 0
            self._text.append(fragment)
        elif self._pair is not None:
            pair = self._pair.read(string)
            if pair is None:
                return 0
            self._text.append(pair[0])
            if self._twin is not None:
                self._twin.append(pair[1])
        elif (template.has_bare_gaps and _CR in string) or not self._apply(
            template, [string[1:-1]]
        ):
            return 0
        parser.taken += size
        parser.skip_lf = False
        return 1

    def take(self, lines: Sequence[bytes], line_end: bytes) -> tuple[int, int]:
        """Apply the events that fit, from the first on; return how many they are, and how many
        bytes. Only if `ready`.

        Each event is one line and a blank one, and all end alike.
        """
        template = self._template
        count = size = 0
        if template is not None and template.line_end == line_end:
            for line in lines:
                if not template.fits(line) and not self._follow(template, line):
                    break
                count += 1
                size += len(line) + len(line_end)
            if count:
                if self._apply(template, [line[template.gap] for line in lines[:count]]):
                    self._backoff, self._misses = 1, 0
                    return count, size
                self._give_up()
        self._misses += 1
        if self._misses > _MOST_MISSES:
            self._give_up()
        self.forget()
        return 0, 0

    def learn(self, line: bytes, chunk: Chunk) -> None:
        """Learn from the line of the chunk that was applied last."""
        if self._waits:
            self._waits -= 1
            return
        many = len(self._reducer.state.choices) > 1
        change = the_change(chunk, many=many)
        if change is None:
            return
        # A field that brings a value once is constant from then on, or nothing to learn from.
        vendor = None if chunk.extra is None else next(iter(chunk.extra))
        seen, self._vendor_seen = self._vendor_seen, vendor
        if vendor is not None and seen != vendor:
            return
        template = self._template
        if (
            template is None
            or not (template.fits(line) or self._follow(template, line))
            or (vendor is not None and template.name != vendor)
            or template.read([line[template.gap]]) is None
        ):
            template = learn_template(
                line, chunk, change, self._decoder.peek, many=many, calls=self._calls_seen
            )
            if template is None:
                self._give_up()
                return
            if template.call is not None:
                self._calls_seen |= {template.call}
            self._template = template
            self._padded = padded_of(template)
            self._pair = pair_of(template)
        self._tokens = self._turns = self._twin = None
        self._texts.clear()
        if not template.keys:
            part = change.inside if template.twin is None else None
            text = self._reducer.open_text(template.field, template.choice, template.call, part)
            if template.read_tokens is not None:
                self._tokens = self._reducer.open_tokens(template.choice)
            self.ready = text is not None and (
                template.read_tokens is None or self._tokens is not None
            )
            if text is not None:
                self._text = text
            if template.twin is not None:
                self._twin = self._reducer.open_text(
                    template.twin, template.choice, None, change.inside
                )
                self.ready = self.ready and self._twin is not None
        else:
            # What a vendor adds to one choice is not known of another.
            self.ready = not self._decoder.adds_to_choices
        if not self.ready:
            self._give_up()
            return
        self._single = template.roles == ("text",)

    def _follow(self, template: Template, line: bytes) -> bool:
        """Go on with a template in a line that was created at another time."""
        if not template.follow(line):
            return False
        self._padded = padded_of(template)
        return True

    def _apply(self, template: Template, cuts: list[bytes]) -> bool:
        """Apply what was cut out of events that fit, all or nothing."""
        if self._single:
            strings = decode_strings(cuts)
            if strings is not None:
                self._text.extend(strings)
            return strings is not None
        read = template.read(cuts)
        if read is None:
            return False
        rows, json = read
        place, tokens = template.text, self._tokens
        texts: list[str]
        if tokens is None or template.read_tokens is None:
            texts = [row[place] for row in rows]
        else:
            texts = [row[place].delta.content for row in rows]
            tokens.runs.append(UnreadTokens(json, template.read_tokens))
            tokens.count += sum([len(row[place].logprobs.content) for row in rows])
        if template.keys:
            if not self._add_by_key(template, rows, texts):
                return False
        else:
            self._text.extend(texts)
        if template.second is not None and self._twin is not None:
            place = template.second
            self._twin.extend([row[place] for row in rows])
        if template.counts:
            self._reducer.apply_usage(_usage_of(template, rows))
        if template.vendor is not None and template.name is not None:
            place = template.vendor
            self._reducer.merge_into_chunk(template.name, [row[place] for row in rows])
            self._decoder.forget()
        return True

    def _add_by_key(self, template: Template, rows: Rows, fragments: list[str]) -> bool:
        """Add fragments of several choices or calls, each to its own text."""
        places = template.keys
        # An index, or both in a tuple.
        keys: list[object] = list(map(itemgetter(*places), rows))
        texts = self._texts
        if len(keys) == 1 and keys[0] in texts:
            texts[keys[0]].append(fragments[0])
            if template.call is not None:
                self._reducer.set_last_call(*cast("tuple[int, int]", template.address(keys[0])))
            return True
        met = set(keys)
        if not met <= texts.keys():
            for key in dict.fromkeys(keys):
                text = self._reducer.open_text(template.field, *template.address(key))
                if text is None:
                    return False
                texts[key] = text
        period = len(met)
        count = len(keys)
        order = keys[:period]
        if keys == (order * (count // period + 1))[:count]:
            if count > period:
                self._turns = turns_of(template, order, count % period)
                self._turn_texts = 2 * [texts[key] for key in order]
            for place, key in enumerate(order):
                texts[key].extend(fragments[place::period])
        else:
            brought: dict[object, list[str]] = {key: [] for key in order}
            for key, fragment in zip(keys, fragments, strict=True):
                brought.setdefault(key, []).append(fragment)
            for key, own in brought.items():
                texts[key].extend(own)
        if template.call is not None:
            for choice, call in dict(map(template.address, keys)).items():
                self._reducer.set_last_call(choice, cast("int", call))
        return True

    def _take_turns(self, turns: Turns, data: bytes) -> tuple[int, int]:
        """Apply the events of a read if each is of the choice or call whose turn it is; return how
        many events and how many bytes they are, 0 if nothing was done.
        """
        period = turns.period
        cuts = cut_lines(data, turns.gap)
        count = len(cuts)
        if not count:
            return 0, 0
        body = turns.body(cuts)
        fragments = decode_strings(cuts) if data.startswith(body) else None
        if fragments is None:
            self._turns = None
            return 0, 0
        at, fewer = turns.next, min(count, period)
        for place, text in enumerate(self._turn_texts[at : at + fewer]):
            text.fragments += fragments[place::period]  # as `extend` does, without the call
            if len(text.fragments) >= COMPACT_AT:
                text.compact()
        turns.next = (at + count) % period
        template = cast("Template", self._template)
        if template.call is not None:
            for key in (turns.order * 3)[turns.next + period - fewer : turns.next + period]:
                choice, call = template.address(key)
                self._reducer.set_last_call(choice, cast("int", call))
        return count, len(body)

    # --- objects ---

    def learn_object(self, value: object, chunk: Chunk, size: int) -> None:
        """Learn from an object that was read as a chunk, which was applied last."""
        self.object = learn_object_template(value, chunk, size, self._reducer)


def _usage_of(template: Template, rows: Rows) -> Usage:
    """Make a usage of the largest of each count."""
    usage = Usage()
    for name, place in template.counts:
        count = max([row[place] for row in rows])
        if name == "reasoning_tokens":
            usage.completion_tokens_details = CompletionTokensDetails(reasoning_tokens=count)
        else:
            setattr(usage, name, count)
    return usage
