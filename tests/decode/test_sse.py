"""SPEC section 2 for the reader of lines: each event comes as soon as its blank line does."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from accumulator import Accumulator
from accumulator._decode.lines import Event, LineReader
from accumulator._decode.sse import cut_events

BOM = b"\xef\xbb\xbf"
LONG = b"x" * 9000  # two lines of this are more than the parser looks at with every read


def naive(body: bytes) -> list[tuple[bytes, bytes | None, int]]:
    """Read line by line, as the standard has it."""
    events: list[tuple[bytes, bytes | None, int]] = []
    data: list[bytes] = []
    name: bytes | None = None
    place = start = len(BOM) if body.startswith(BOM) else 0
    for each in body[place:].splitlines(keepends=True):
        line = each.rstrip(b"\r\n")
        if line == each:
            break
        place += len(each)
        field, _, value = line.partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if not line:
            if b"".join(data).strip():
                events.append((b"\n".join(data), name, start))
            data, name = [], None
            start = place
        elif field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return events


BODIES: dict[str, bytes] = {
    "LF": b"data: a\n\ndata: b\n\n",
    "CRLF": b"data: a\r\n\r\ndata: b\r\n\r\n",
    "CR": b"data: a\r\rdata: b\r\r",
    "CRLF, then LF": b"data: a\r\n\ndata: b\n\r\ndata: c\n\n",
    "CR, then LF": b"data: a\r\rdata: b\n\ndata: c\r\r",
    "CR before a blank line of LF": b"data: a\r\n\ndata: b\r\r\ndata: c\n\n",
    "a lone CR among CRLF": b"data: a\rdata: b\r\n\r\ndata: c\r\n\r\n",
    "a lone CR in what waits": b"data: a\r\n\r\ndata: b\rdata: c",
    "a CR in front": b"\r\n\r\ndata: a\n\n\rdata: b\r\r",
    "many blank lines": b"\n\n\ndata: a\n\n\n\n\ndata: b\n\n\n",
    "many blank lines of CRLF": b"\r\n\r\n\r\ndata: a\r\n\r\n\r\n\r\ndata: b\r\n\r\n\r\n",
    "a BOM": BOM + b"data: a\n\ndata: b\n\n",
    "a BOM and CRLF": BOM + b"data: a\r\n\r\ndata: b\r\n\r\n",
    "a BOM that is not in front": b"data: a\n\n" + BOM + b"data: b\n\n",
    "several lines": b"event: e\ndata: a\ndata: b\nid: 1\n\ndata: c\n\n",
    "several lines of CRLF": b"event: e\r\ndata: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n",
    "comments": b": hi\n\n: ho\ndata: a\n\n:\n\n",
    "names, ids and comments": b": hi\n\nevent: message\nid: 7\ndata: a\n\ndata:b\nretry: 5\n\n",
    "two lines of data after an id": b"id: 7\ndata: a\n\nid: 8\ndata: b\ndata: c\n\n",
    "another name after an id": b"id: 7\ndata: a\n\nevent: e\nid: 8\ndata: b\n\n",
    "nothing but comments": b": hi\n\n: ho\n\n: hu",
    "without data": b"event: e\n\ndata:\n\ndata: \n\ndata: a\n\n",
    "without a space": b"data:a\n\ndata:  b\n\ndata\n\n",
    "objects": b'data: {"a":1}\n\ndata: {"b":2}\n\n',
    "objects in several lines": b'data: {"a":\ndata: 1}\n\ndata: {"b":2}\n\n',
    "objects with an id": b'data: {"a":1}\nid: 7\n\ndata: {"b":2}\n\n',
    "no blank line at the end": b"data: a\n\ndata: b\n",
    "no blank line of CRLF at the end": b"data: a\r\n\r\ndata: b\r\n",
    "no line end at the end": b"data: a\n\ndata: b",
    "nothing but line ends": b"\n\r\n\r\r\n\n",
}
LONGER: dict[str, bytes] = {
    f"{name} {where}": b"data: " + (end.join([LONG] * 3) if inside else LONG) + more
    for name, end in {"LF": b"\n", "CRLF": b"\r\n", "CR": b"\r"}.items()
    for where, inside, more in (
        ("in a long event", True, end * 2 + b"data: b" + end * 2),
        ("behind a long line", False, LONG * 2 + end + end + b"data: b" + end * 2),
        ("behind a long line and another end", False, LONG * 2 + b"\r\n" + end + b"data: b\r\n"),
    )
}


class Reader:
    """Feeds a body to a reader of lines, and compares its events with those cut out at once."""

    def __init__(self) -> None:
        self.reader = LineReader()
        self.size = 0

    def feed(self, data: bytes) -> list[Event]:
        waits = bytes(self.reader.pending or b"")
        start = self.size - len(waits)
        cut = cut_events(waits + data, start) if self.reader.is_fresh else None
        events = self.reader.feed(data, self.size)
        self.size += len(data)
        if cut is not None:
            places = [cut.start_of(i) for i in range(len(cut.texts))]
            rows = zip(places, cut.texts, strict=True)
            rows_with_data = [(text.strip(), place) for place, text in rows if text.strip()]
            assert rows_with_data == [(event.data.strip(), event.offset) for event in events]
        return events


def as_rows(events: Iterable[Event]) -> list[tuple[bytes, bytes | None, int | None]]:
    return [(event.data, event.name, event.offset) for event in events]


def check(reader: Reader, events: list[Event], body: bytes) -> None:
    """Compare what is known after these bytes; a CR at their end may be half of a CRLF."""
    known = [naive(body)] + [naive(body[:-1])] * body.endswith(b"\r")
    assert as_rows(events) in known
    assert reader.size == len(body)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_each_event_comes_with_its_last_byte(body: bytes) -> None:
    reader = Reader()
    events: list[Event] = []
    for i in range(len(body)):
        events += reader.feed(body[i : i + 1])
        check(reader, events, body[: i + 1])


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_two_reads_are_as_one(body: bytes) -> None:
    for i in range(len(body) + 1):
        reader = Reader()
        events = reader.feed(body[:i])
        check(reader, events, body[:i])
        events += reader.feed(b"")
        events += reader.feed(body[i:])
        check(reader, events, body)


@pytest.mark.parametrize("body", LONGER.values(), ids=LONGER)
@pytest.mark.parametrize("size", [700, 5000, 17_000, 10**6])
def test_a_long_event_is_found_wherever_it_is_cut(body: bytes, size: int) -> None:
    reader = Reader()
    events: list[Event] = []
    end = len(body) - 20
    for i in range(0, end, size):
        events += reader.feed(body[i : min(i + size, end)])
    for i in range(end, len(body)):
        events += reader.feed(body[i : i + 1])
        check(reader, events, body[: i + 1])


# What is between the `data` lines, by how each of these begins.
BETWEEN = {
    "names and ids": b"event: message\nid: 7\ndata: ",
    "comments": b": PROCESSING\n\ndata: ",
    "comments in the event": b": PROCESSING\ndata:",
    "names of another kind": b"event: chunk\ndata: ",
    "a name without a blank, and a CR": b"event:message\r\ndata: ",
}


@pytest.mark.parametrize("end", [b"data: [DONE]\n\n", b"data: [DONE]\n\nid: 9\n", b"", b"data: {"])
@pytest.mark.parametrize("opening", BETWEEN.values(), ids=BETWEEN)
def test_lines_that_say_nothing_change_nothing(opening: bytes, end: bytes) -> None:
    """The problems of such a body are at the same bytes, however it is cut into reads."""
    word = b'data: {"choices":[{"delta":{"content":"word"}}]}\n\n'
    odd = (b"data: {\n\n", b"data: {}\n\n", b'data: {"choices":5}\n\n', b"data: x\n\n", b"data\n\n")
    body = b"".join([*(word + each for each in odd), *[word] * 9, end]).replace(b"data: ", opening)
    outcomes = []
    for size in (1, 10, 60, 333, len(body)):
        acc = Accumulator()
        for start in range(0, len(body), size):
            acc.feed_sse(body[start : start + size])
            acc = Accumulator.restore(acc.checkpoint())
        acc.close()
        outcomes.append((acc.snapshot(), acc.problems, acc.status))
    assert outcomes == outcomes[:1] * 5
    assert acc.snapshot().choices[0].message.content == "word" * 14
    assert [problem.kind for problem in acc.problems][:3].count("malformed_json") == 2


ENDS: dict[str, tuple[bytes, list[tuple[bytes, bytes | None, int]]]] = {
    "a line": (b"data: a\n\ndata: b", [(b"b", None, 9)]),
    "a line and its end": (b"data: a\n\nevent: e\r\ndata: b\r\n", [(b"b", b"e", 9)]),
    "nothing": (b"data: a\n\n", []),
    "no data": (b"data: a\n\nevent: e\n", []),
    "nothing but a line": (b"data: b", [(b"b", None, 0)]),
    "a BOM and a line": (BOM + b"data: b", [(b"b", None, 3)]),
    "a BOM, a line end and a line": (BOM + b"\r\ndata: b", [(b"b", None, 5)]),
    "half a BOM": (BOM[:2], []),
    "a BOM that is not in front": (b"data: a\n\n" + BOM + b"data: b", []),
}


@pytest.mark.parametrize(("body", "expected"), ENDS.values(), ids=ENDS)
def test_the_end_of_the_body_ends_its_last_event(
    body: bytes, expected: list[tuple[bytes, bytes | None, int]]
) -> None:
    reader = LineReader()
    before = reader.feed(body, 0)
    assert as_rows(reader.close(len(body) - len(reader.pending or b""))) == expected
    assert len(before) == body.count(b"\n\n")
    assert reader.held == 0
    assert reader.close(len(body)) == []
