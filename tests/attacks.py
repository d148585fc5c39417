"""What hostile servers send, as data: endless bodies, in pieces as they are read.

`test_hostile` holds the package to its promises against them, `benchmarks/held.py` measures memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, cycle, islice

_KIB = 1024
_EVENT = 64 * _KIB  # bytes, about; most attacks pack many small things into one
Pieces = Callable[[], Iterator[bytes]]
Make = Callable[[bytes], bytes]  # of what is in it


@dataclass(frozen=True)
class Attack:
    """An endless body; `limit` names the bound that stops it."""

    what: str
    limit: str
    pieces: Pieces


TINY = b'{"index":%d,"custom":{"name":"f"}}'  # without a name it would continue the call before


def event(text: bytes) -> bytes:
    return b"data: " + text + b"\n\n"


def choice(fields: bytes) -> bytes:
    return b'{"choices":[{"index":0,' + fields + b"}]}"


def delta(fields: bytes) -> bytes:
    return choice(b'"delta":{' + fields + b"}")


def calls(fragments: bytes) -> bytes:
    return delta(b'"tool_calls":[' + fragments + b"]")


def parts(fields: bytes) -> bytes:
    return delta(b'"content":[' + fields + b"]")


def vendor_list(entries: bytes) -> bytes:
    return delta(b'"x":[' + entries + b"]")


def tokens(entries: bytes) -> bytes:
    return choice(b'"logprobs":{"content":[' + entries + b"]}")


def packed(chunk: Make, items: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Pack items into events of about `size` bytes."""
    pack: list[bytes] = []
    left = size
    for item in items:
        pack.append(item)
        left -= len(item) + 1
        if left <= 0:
            yield event(chunk(b",".join(pack)))
            pack.clear()
            left = size
    if pack:
        yield event(chunk(b",".join(pack)))


def same(item: bytes) -> Pieces:
    return lambda: cycle([item])


def many(
    chunk: Make, item: bytes, size: int = _EVENT, times: int | None = None, first: bytes = b""
) -> Pieces:
    """Return events full of one item; a `%d` in it becomes its number.

    They are endless, or have so many `times` the item, after a `first` one in an event of its own.
    """

    def pieces() -> Iterator[bytes]:
        if first:
            yield event(chunk(first))
        items = (item % number for number in count()) if b"%" in item else cycle([item])
        yield from packed(chunk, islice(items, times), size)

    return pieces


def choices(each: bytes) -> bytes:
    return b'{"choices":[%s]}' % each


CALL = b'"function":{"name":"f","arguments":"{}"}'
LONG, FACES = b"a" * _EVENT, "\U0001f600".encode() * 999
# By the limit that stops them.
BODIES: dict[str, dict[str, Pieces]] = {
    "choices": {
        "choices, one an event": many(choices, b'{"index":%d}', 1),
        "choices, all in one event": many(choices, b"{}"),
    },
    "tool_calls": {
        "tool calls, one an event": many(calls, TINY, 1),
        "tool calls, all in one event": many(calls, TINY),
        "tool calls of one id": many(calls, b'{"index":%d,"id":"a",' + CALL + b"}"),
        "tool calls at one index": many(calls, b'{"index":0,"id":"c%d",' + CALL + b"}"),
        "tool calls, one choice again and again": many(
            choices, b'{"index":0,"delta":{"tool_calls":[%b]}}' % TINY
        ),
        "tool calls by id alone": many(calls, b'{"id":"c%d"}'),
    },
    "depth": {"nesting": many(lambda text: text * _KIB * 100, b'{"x":', 1)},
    "event_bytes": {
        "a line, 64 KiB a read": same(b"x" * 64 * _KIB),
        "a line, 2 bytes a read": same(b"xy"),
        "an event of short lines": same(b"data:\n" * 1000),
        "comments": same(b": keep-alive\r\n" * 1000),
    },
    "total_bytes": {
        "text, 64 KiB an event": same(event(delta(b'"content":"%s"' % LONG))),
        "text, 1 byte an event": same(event(delta(b'"content":"a"'))),
        "text beyond U+FFFF": same(event(delta(b'"content":"%s"' % FACES))),
        "arguments, 1 byte an event": same(
            event(calls(b'{"index":0,"function":{"arguments":"1"}}'))
        ),
        "audio": same(event(delta(b'"audio":{"data":"%s"}' % (b"QUFB" * 1000)))),
        "problems": many(bytes, b"{%d", 1),
        "problems with long details": same(event(b'{"id":[%s]}' % (b"0," * 999 + b"0"))),
        "another id in each chunk": many(bytes, b'{"id":"chatcmpl-%d"}', 1),
        "tokens with logprobs": many(
            tokens, b'{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[]}'
        ),
        "tokens with nothing in them": many(tokens, b"{}"),
        "content parts": many(parts, b'{"type":"text","text":"a"},{"type":"x"}'),
        "reasoning details by index": many(
            lambda each: delta(b'"reasoning_details":[%s]' % each), b'{"index":%d,"text":"a"}'
        ),
        "a vendor's fields": many(delta, b'"x%d":"a"'),
        "a vendor's list by index": many(vendor_list, b'{"index":%d}'),
        "a vendor's list of numbers": many(vendor_list, b"1.5"),
        "a vendor's list of empty lists": many(vendor_list, b"[]"),
        "a vendor's list of empty objects": many(vendor_list, b"{}"),
        "halves of surrogate pairs": many(delta, b'"x%d":"\\ud83d"'),
    },
}
ATTACKS = [Attack(what, limit, body) for limit in BODIES for what, body in BODIES[limit].items()]
