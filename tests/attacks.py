"""What a hostile server sends, as data: each a body without end, in pieces as they are read.

`test_hostile` holds the package to what it promises against them, `benchmarks/held.py` measures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, cycle

_KIB = 1024
_EVENT = 64 * _KIB  # bytes, about; most attacks pack many small things into one


@dataclass(frozen=True)
class Attack:
    """A body without end; `limit` names the bound that ends it."""

    what: str
    limit: str
    pieces: Callable[[], Iterator[bytes]]


TINY = b'{"index":%d,"custom":{"name":"f"}}'  # without a name it is more of the call before it


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


def packed(chunk: Callable[[bytes], bytes], items: Iterator[bytes], size: int) -> Iterator[bytes]:
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


def numbered(item: bytes) -> Iterator[bytes]:
    return (item % number for number in count())


def same(item: bytes) -> Callable[[], Iterator[bytes]]:
    return lambda: cycle([item])


def many(
    chunk: Callable[[bytes], bytes], item: bytes, size: int = _EVENT
) -> Callable[[], Iterator[bytes]]:
    """Return events full of an item; a `%d` in it is its number."""
    return lambda: packed(chunk, numbered(item) if b"%" in item else cycle([item]), size)


ATTACKS = [
    Attack(
        "choices, one an event",
        "choices",
        many(lambda c: b'{"choices":[%s]}' % c, b'{"index":%d}', 1),
    ),
    Attack("choices, all in one event", "choices", many(lambda c: b'{"choices":[%s]}' % c, b"{}")),
    Attack("tool calls, one an event", "tool_calls", many(calls, TINY, 1)),
    Attack("tool calls, all in one event", "tool_calls", many(calls, TINY)),
    Attack(
        "tool calls of one id",
        "tool_calls",
        many(calls, b'{"index":%d,"id":"a","function":{"name":"f","arguments":"{}"}}'),
    ),
    Attack(
        "tool calls at one index",
        "tool_calls",
        many(calls, b'{"index":0,"id":"c%d","function":{"name":"f","arguments":"{}"}}'),
    ),
    Attack(
        "tool calls, one choice again and again",
        "tool_calls",
        many(lambda c: b'{"choices":[%s]}' % c, b'{"index":0,"delta":{"tool_calls":[%b]}}' % TINY),
    ),
    Attack("tool calls by id alone", "tool_calls", many(calls, b'{"id":"c%d"}')),
    Attack("nesting", "depth", many(lambda text: text * _KIB * 100, b'{"x":', 1)),
    Attack("a line, 64 KiB a read", "event_bytes", same(b"x" * 64 * _KIB)),
    Attack("a line, 2 bytes a read", "event_bytes", same(b"xy")),
    Attack("an event of short lines", "event_bytes", same(b"data:\n" * 1000)),
    Attack("comments", "event_bytes", same(b": keep-alive\r\n" * 1000)),
    Attack(
        "text, 64 KiB an event",
        "total_bytes",
        same(event(delta(b'"content":"%s"' % (b"a" * _EVENT)))),
    ),
    Attack("text, 1 byte an event", "total_bytes", same(event(delta(b'"content":"a"')))),
    Attack(
        "text beyond U+FFFF",
        "total_bytes",
        same(event(delta(b'"content":"%s"' % ("\U0001f600".encode() * 999)))),
    ),
    Attack(
        "arguments, 1 byte an event",
        "total_bytes",
        same(event(calls(b'{"index":0,"function":{"arguments":"1"}}'))),
    ),
    Attack("audio", "total_bytes", same(event(delta(b'"audio":{"data":"%s"}' % (b"QUFB" * 1000))))),
    Attack("problems", "total_bytes", many(lambda text: text, b"{%d", 1)),
    Attack(
        "problems with long details",
        "total_bytes",
        same(event(b'{"id":[%s]}' % (b"0," * 999 + b"0"))),
    ),
    Attack(
        "another id in each chunk",
        "total_bytes",
        many(lambda text: text, b'{"id":"chatcmpl-%d"}', 1),
    ),
    Attack(
        "tokens with logprobs",
        "total_bytes",
        many(tokens, b'{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[]}'),
    ),
    Attack("tokens with nothing in them", "total_bytes", many(tokens, b"{}")),
    Attack("content parts", "total_bytes", many(parts, b'{"type":"text","text":"a"},{"type":"x"}')),
    Attack(
        "reasoning details by index",
        "total_bytes",
        many(lambda d: delta(b'"reasoning_details":[%s]' % d), b'{"index":%d,"text":"a"}'),
    ),
    Attack("a vendor's fields", "total_bytes", many(delta, b'"x%d":"a"')),
    Attack("a vendor's list by index", "total_bytes", many(vendor_list, b'{"index":%d}')),
    Attack("a vendor's list of numbers", "total_bytes", many(vendor_list, b"1.5")),
    Attack("a vendor's list of empty lists", "total_bytes", many(vendor_list, b"[]")),
    Attack("a vendor's list of empty objects", "total_bytes", many(vendor_list, b"{}")),
    Attack("halves of surrogate pairs", "total_bytes", many(delta, b'"x%d":"\\ud83d"')),
]
