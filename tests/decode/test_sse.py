"""SPEC section 2 for the reader of lines: each event comes as soon as its blank line does."""

from __future__ import annotations

import re

import pytest
from judged import assert_as_judged
from streamed import cut, read_all

from accumulator import Accumulator
from accumulator.events import Event, ProblemEvent

BOM = b"\xef\xbb\xbf"
CHUNK = b'{"choices":[{"delta":{"content":"%b"}}]}'
LONG = b"x" * 9000  # two lines of this are more than the parser looks at with every read
Told = list[tuple[str, int | None, int | None]]  # kind, event and byte of each problem


def naive(body: bytes) -> Told:
    """Read line by line, as the standard has it; return what is told of each event."""
    events: Told = []
    data: list[bytes] = []
    kind = "malformed_json"
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
                events.append((kind, len(events) + 1, start))
            data, kind = [], "malformed_json"
            start = place
        elif field == b"data":
            data.append(value)
        elif field == b"event" and value != b"message":
            kind = "foreign_event"
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
    "a chunk in a comment": b"data: a\n\n: not " + CHUNK % b"x" + b"\n\ndata: b\n\n",
    "names, ids and comments": b": hi\n\nevent: message\nid: 7\ndata: a\n\ndata:b\nretry: 5\n\n",
    "two lines of data after an id": b"id: 7\ndata: a\n\nid: 8\ndata: b\ndata: c\n\n",
    "another name after an id": b"id: 7\ndata: a\n\nevent: e\nid: 8\ndata: b\n\n",
    "a comment and a long text": b": hi\n\ndata: no chunk, and not short\n\ndata: b\n\n",
    "nothing but comments": b": hi\n\n: ho\n\n: hu",
    "without data": b"event: e\n\ndata:\n\ndata: \n\ndata: a\n\n",
    "without a space": b"data:a\n\ndata:  b\n\ndata\n\n",
    "objects": b'data: {"a":x}\n\ndata: {"b":x}\n\n',
    "objects in several lines": b'data: {"a":\ndata: x}\n\ndata: {"b":x}\n\n',
    "objects with an id": b'data: {"a":x}\nid: 7\n\ndata: {"b":x}\n\n',
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
    """Feeds a body of events that are no JSON, each of which is told as a problem."""

    def __init__(self) -> None:
        self.told: Told = []
        self.acc = Accumulator(on_event=self._look)
        self.fed = b""

    def _look(self, event: Event) -> None:
        if isinstance(event, ProblemEvent):
            problem = event.problem
            self.told.append((problem.kind, problem.event, problem.offset))

    def feed(self, data: bytes) -> None:
        """Feed bytes, and compare what is known; a CR at their end may be half of a CRLF."""
        self.acc.feed_sse(data)
        self.fed += data
        known = [naive(self.fed)] + [naive(self.fed[:-1])] * self.fed.endswith(b"\r")
        assert self.told in known


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_each_event_comes_with_its_last_byte(body: bytes) -> None:
    reader = Reader()
    for i in range(len(body)):
        reader.feed(body[i : i + 1])


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_two_reads_are_as_one(body: bytes) -> None:
    for i in range(len(body) + 1):
        reader = Reader()
        for read in body[:i], b"", body[i:]:
            reader.feed(read)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_the_second_reducer_agrees(body: bytes) -> None:
    body = re.sub(rb"(data: *)([abc])\b", rb"\1" + CHUNK % rb"\2", body)
    for reads in [body], [*cut(body, 1)]:
        assert_as_judged(read_all(reads), body)


@pytest.mark.parametrize("body", LONGER.values(), ids=LONGER)
@pytest.mark.parametrize("size", [700, 5000, 17_000, 10**6])
def test_a_long_event_is_found_wherever_it_is_cut(body: bytes, size: int) -> None:
    reader = Reader()
    end = len(body) - 20
    for i in range(0, end, size):
        reader.feed(body[i : min(i + size, end)])
    for i in range(end, len(body)):
        reader.feed(body[i : i + 1])


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


# What the end of the body ends: the events that are told then.
UNTERMINATED = "unterminated_event"
ENDS: dict[str, tuple[bytes, Told]] = {
    "a line": (b"data: a\n\ndata: b", [(UNTERMINATED, 2, 9)]),
    "a line and its end": (b"data: a\n\nevent: e\r\ndata: b\r\n", [("foreign_event", 2, 9)]),
    "nothing": (b"data: a\n\n", []),
    "no data": (b"data: a\n\nevent: e\n", []),
    "nothing but a line": (b"data: b", [(UNTERMINATED, 1, 0)]),
    "a BOM and a line": (BOM + b"data: b", [(UNTERMINATED, 1, 3)]),
    "a BOM, a line end and a line": (BOM + b"\r\ndata: b", [(UNTERMINATED, 1, 5)]),
    "half a BOM": (BOM[:2], [("malformed_json", 1, 0)]),
    "a BOM that is not in front": (b"data: a\n\n" + BOM + b"data: b", []),
}


@pytest.mark.parametrize(("body", "expected"), ENDS.values(), ids=ENDS)
def test_the_end_of_the_body_ends_its_last_event(body: bytes, expected: Told) -> None:
    reader = Reader()
    reader.feed(body)
    before = len(reader.told)
    reader.acc.close()
    assert reader.told[before:] == expected
