"""SPEC law 6: the shortcuts give what the plain path gives, problem for problem."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import TEXTS, cut

from accumulator import Accumulator, LimitExceededError, Limits
from accumulator._reduce import Reducer
from accumulator._wire import Chunk


def outcome(body: Iterable[bytes], *, shortcut: bool = True) -> tuple[object, ...]:
    acc = Accumulator(shortcut=shortcut)
    try:
        for data in body:
            acc.feed_sse(data)
    except LimitExceededError as error:
        return acc.snapshot(), str(error)
    acc.close()
    problems = [(p.kind, p.message, p.event, p.offset, p.path) for p in acc.problems]
    return acc.snapshot(), acc.status, problems, acc.problem_counts


def pieces(body: bytes, size: int) -> list[bytes]:
    return [body[i : i + size] for i in range(0, len(body), size)]


def event(text: str | bytes) -> bytes:
    return b"data: " + (text.encode() if isinstance(text, str) else text) + b"\n\n"


ENVELOPE = (
    '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1760000000,"model":"gpt-4o",'
    '"service_tier":"default","system_fingerprint":"fp_1","choices":[%s],"usage":null%s}'
)


def text_chunk(text: str, index: int = 0, padding: str | None = None) -> str:
    choice = (
        f'{{"index":{index},"delta":{{"content":{json.dumps(text)}}},'
        '"logprobs":null,"finish_reason":null}'
    )
    return ENVELOPE % (choice, "" if padding is None else f',"obfuscation":"{padding}"')


def call_chunk(arguments: str, call: int, choice: int = 0) -> str:
    fragment = f'{{"index":{call},"function":{{"arguments":{json.dumps(arguments)}}}}}'
    return ENVELOPE % (
        f'{{"index":{choice},"delta":{{"tool_calls":[{fragment}]}},'
        '"logprobs":null,"finish_reason":null}',
        "",
    )


def call_start(call: int) -> str:
    fragment = (
        f'{{"index":{call},"id":"call_{call}","type":"function",'
        '"function":{"name":"f","arguments":""}}'
    )
    return ENVELOPE % (
        f'{{"index":0,"delta":{{"tool_calls":[{fragment}]}},"logprobs":null,"finish_reason":null}}',
        "",
    )


def token_chunk(text: str, logprob: float) -> str:
    token = json.dumps({"token": text, "logprob": logprob, "bytes": None, "top_logprobs": []})
    return ENVELOPE % (
        f'{{"index":0,"delta":{{"content":{json.dumps(text)}}},'
        f'"logprobs":{{"content":[{token}],"refusal":null}},"finish_reason":null}}',
        "",
    )


def with_usage(chunk: str, completion: int, total: int | None = None, reasoning: int = 0) -> str:
    counts: dict[str, object] = {"prompt_tokens": 9, "completion_tokens": completion}
    if total is not None:
        counts["total_tokens"] = total
    counts["completion_tokens_details"] = {"reasoning_tokens": reasoning, "audio_tokens": 0}
    return chunk.replace('"usage":null', f'"usage":{json.dumps(counts)}')


def with_vendor(chunk: str, value: object, *, first: bool = False) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if first:
        return f'{{"x_vendor":{text},{chunk[1:]}'
    return f'{chunk[:-1]},"x_vendor":{text}}}'


# Streams that a template fits, of every kind, so that the shortcut is really taken.
REGULAR: dict[str, list[str]] = {
    "text": [text_chunk(f"word{i} ") for i in range(60)],
    "text with escapes": [text_chunk('"é😀\\\n'[i % 5] * 3) for i in range(60)],
    "padding": [text_chunk("a", padding="x" * (i % 7)) for i in range(60)],
    "choices in turn": [text_chunk(f"w{i}", index=i % 4) for i in range(60)],
    "choices and padding": [text_chunk("w", index=i % 3, padding="p" * (i % 5)) for i in range(60)],
    "calls one after another": [
        chunk
        for call in range(3)
        for chunk in [call_start(call), *(call_chunk(f'{{"{i}', call) for i in range(20))]
    ],
    "calls in turn": [
        *(call_start(call) for call in range(3)),
        *(call_chunk(f"{i}", i % 3) for i in range(60)),
    ],
    "logprobs": [token_chunk(f"t{i}", -i / 8) for i in range(60)],
    "a letter that may separate": [text_chunk("a\x7f"[: i % 3]) for i in range(60)],
    "choices at random": [text_chunk(f"w{i}", index=(i * i + i // 7) % 3) for i in range(60)],
    "usage": [with_usage(text_chunk(f"u{i}"), i, i + 9) for i in range(1, 61)],
    "usage with reasoning": [
        with_usage(text_chunk(f"u{i}"), 2 * i, 2 * i + 9, reasoning=i) for i in range(1, 61)
    ],
    "usage without total": [with_usage(text_chunk(f"u{i}"), i) for i in range(1, 61)],
    "usage that shrinks": [with_usage(text_chunk("u"), 500 - i, 900 - i % 7) for i in range(60)],
    "usage and padding": [
        with_usage(text_chunk("u", padding="p" * (i % 5)), i, i + 9) for i in range(1, 61)
    ],
    "usage and choices in turn": [
        with_usage(text_chunk(f"u{i}", index=i % 3), i, i + 9) for i in range(1, 61)
    ],
    "usage and logprobs": [with_usage(token_chunk(f"u{i}", -i / 8), i) for i in range(1, 61)],
    "vendor": [with_vendor(text_chunk(f"v{i}"), {"seq": i, "region": "eu"}) for i in range(60)],
    "vendor first": [with_vendor(text_chunk(f"v{i}"), i, first=True) for i in range(60)],
    "vendor of every kind": [
        with_vendor(
            text_chunk("v"),
            [i, -i / 4, "null", [i], {"a": {f"b{i % 3}": [i]}}, True, json.dumps("é\n" * i)][i % 7],
        )
        for i in range(60)
    ],
    "vendor's text": [with_vendor(text_chunk("v"), f'"t{i}"') for i in range(60)],
    "vendor's object now and then the same": [
        with_vendor(text_chunk("v"), {"a": i // 20, "b": None}) for i in range(60)
    ],
    "vendor, usage and padding": [
        with_vendor(with_usage(text_chunk("v", padding="p"), i, i + 9), {"s": i})
        for i in range(1, 61)
    ],
    "vendor and choices in turn": [
        with_vendor(text_chunk(f"v{i}", index=i % 4), {"s": i}, first=True) for i in range(60)
    ],
    "two of a vendor's, one constant": [
        with_vendor(text_chunk(f"v{i}"), i).replace('"x_vendor"', '"x_same":{"a":[1]},"x_vendor"')
        for i in range(60)
    ],
}
# Not regular enough to be taken, but alike.
IRREGULAR: dict[str, list[str]] = {
    "two of a vendor's": [
        with_vendor(text_chunk(f"v{i}"), i).replace('"x_vendor"', f'"x_other":{i},"x_vendor"')
        for i in range(60)
    ],
    "vendor's null then deeper": [
        with_vendor(text_chunk("v"), "null" if i < 30 else "[" * (i - 25) + "]" * (i - 25))
        for i in range(60)
    ],
    "vendor's error": [
        with_vendor(text_chunk("v"), i).replace("x_vendor", "error" if i > 30 else "x_vendor")
        for i in range(60)
    ],
    "vendor's moderation": [
        with_vendor(text_chunk("v"), {"s": i}).replace("x_vendor", "moderation") for i in range(60)
    ],
    "usage that becomes null": [
        with_usage(text_chunk("u"), i, i).replace(f": {i},", ": null," if i > 30 else f": {i},")
        for i in range(1, 61)
    ],
    "usage of a vendor's": [
        with_usage(text_chunk("u"), i, i).replace('"audio_tokens"', '"x_tokens"')
        for i in range(1, 61)
    ],
    "usage in another order": [
        with_usage(text_chunk("u"), i, i + 9, reasoning=i)
        if i % 2
        else with_usage(text_chunk("u"), i, reasoning=i).replace(
            '"audio_tokens": 0', f'"total_tokens": {i + 9}'
        )
        for i in range(1, 61)
    ],
    "reasoning that starts": [
        with_usage(text_chunk("u"), i, i + 9, reasoning=max(0, i - 30)) for i in range(1, 61)
    ],
}
STREAMS = REGULAR | IRREGULAR


def body_of(chunks: Iterable[str]) -> bytes:
    return b"".join(event(chunk) for chunk in chunks)


@pytest.mark.parametrize("size", [1, 100, 400, 1500, 4096, 10**9])
@pytest.mark.parametrize("name", STREAMS)
def test_regular_streams_come_out_the_same(name: str, size: int) -> None:
    body = body_of(STREAMS[name])
    assert outcome(pieces(body, size)) == outcome([body], shortcut=False)
    body = body.replace(b"\n", b"\r\n")
    assert outcome(pieces(body, size)) == outcome([body], shortcut=False)


@pytest.mark.parametrize("name", REGULAR)
def test_regular_streams_take_the_shortcut(name: str) -> None:
    acc = Accumulator()
    reducer = CountingReducer(acc._intake.reducer)
    acc._intake.reducer = reducer  # type: ignore[assignment]  # hands everything on
    chunks = REGULAR[name] * 5
    for data in pieces(body_of(chunks), 2048):
        acc.feed_sse(data)
    assert 0 < reducer.applied < len(chunks) / 2


class CountingReducer:
    """Hands everything on to a reducer, and counts the chunks that were parsed."""

    def __init__(self, reducer: Reducer) -> None:
        self._reducer = reducer
        self.applied = 0

    def apply(self, chunk: Chunk, *, has_halves: bool = False) -> None:
        self.applied += 1
        self._reducer.apply(chunk, has_halves=has_halves)

    def __getattr__(self, name: str) -> object:
        return getattr(self._reducer, name)


# What must not be taken, or not be taken as something else, in the midst of a regular stream.
ODD: list[bytes] = [
    event(text_chunk("a").replace('"a"', '"a\\x"')),
    event(text_chunk("a").replace('"a"', '"a\\"')),
    event(text_chunk("a").replace('"a"', '"a\x01"')),
    event(text_chunk("a").encode().replace(b'"a"', b'"\xc3"')),
    event(text_chunk("a").replace('"a"', '"\\ud83d"')),
    event(text_chunk("a").replace('"a"', '"\\ude00"')),
    event(text_chunk("a").replace('"a"', '"a","refusal":"b"')),
    event(text_chunk("a").replace('"a"', '"a","b"')),
    event(text_chunk("a").replace('"a"', "5")),
    event(text_chunk("a").replace('"a"', '"","content":"b"')),
    event(text_chunk("a").replace('"index":0', '"index":1.0')),
    event(text_chunk("a").replace('"index":0', '"index":7')),
    event(text_chunk("a").replace('"index":0', '"index":-1')),
    event(text_chunk("a").replace('"finish_reason":null', '"finish_reason":"stop"')),
    event(text_chunk("a").replace("gpt-4o", "other")),
    event(text_chunk("a").replace("fp_1", "fp_2")),
    event(text_chunk("a").replace("chatcmpl-1", "chatcmpl-2")),
    event(text_chunk("a", padding="x").replace('"x"', '"x","vendor":1')),
    event(text_chunk("a", padding="x").replace('"obfuscation":"x"', '"usage":{"total_tokens":5}')),
    event(call_chunk("a", 0).replace('"arguments"', '"name":"g","arguments"')),
    event(call_chunk("a", 9)),
    event(with_vendor(text_chunk("a"), "null")),
    event(with_vendor(text_chunk("a"), '"\\ud83d"')),
    event(with_vendor(text_chunk("a"), '"\\ude00"')),
    event(with_vendor(text_chunk("a"), "01")),
    event(with_vendor(text_chunk("a"), "1,2")),
    event(with_vendor(text_chunk("a"), '{"seq":1')),
    event(with_vendor(text_chunk("a"), '{"seq":1}}')),
    event(with_vendor(text_chunk("a"), "[" * 40 + "]" * 40)),
    event(with_vendor(text_chunk("a"), "[" * 400 + "]" * 400)),
    event(with_vendor(text_chunk("a"), '1,"x_vendor":2')),
    event(with_vendor(text_chunk("a"), '1,"usage":{"total_tokens":7}')),
    event(with_vendor(text_chunk("a"), '"\xff"').encode("latin-1")),
    event(with_vendor(text_chunk("a"), "\r1")),
    event(with_vendor(text_chunk("a"), " 1 ")),
    event(with_usage(text_chunk("a"), -5, 3)),
    event(with_usage(text_chunk("a"), 10**30, 3)),
    event(with_usage(text_chunk("a"), 5, 3).replace(": 5", ": 5.0")),
    event(with_usage(text_chunk("a"), 5, 3).replace(": 5", ": 5.5")),
    event(with_usage(text_chunk("a"), 5, 3).replace(": 5", ": true")),
    event(with_usage(text_chunk("a"), 5, 3).replace(": 5", ': "5"')),
    event(with_usage(text_chunk("a"), 5, 3).replace(": 5", ": [5]")),
    event(with_usage(text_chunk("a"), 5, 3).replace(": 5", ": null")),
    event(with_usage(text_chunk("a"), 5, 3).replace(": 5", ": 05")),
    event('{"error":{"message":"overloaded"}}'),
    event("[DONE]"),
    event("{"),
    b": comment\n\n",
    b"event: error\ndata: {}\n\n",
    b"data:" + text_chunk("a").encode() + b"\n\n",
    b"data: " + text_chunk("a").encode() + b"\r\n\r\n",
    b"data: " + text_chunk("a").encode() + b"\n",
    b"\n",
]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", STREAMS)
def test_an_odd_event_in_a_regular_stream_comes_out_the_same(name: str, odd: bytes) -> None:
    events = [event(chunk) for chunk in STREAMS[name]]
    events[40:40] = [odd]
    body = b"".join(events)
    expected = outcome([body], shortcut=False)
    assert outcome(events) == expected
    assert outcome(pieces(body, 1000)) == expected
    assert outcome(pieces(body, 4096)) == expected


# Events that are broken each, but whose cuts would make whole strings if they were joined.
SWALLOWED: dict[str, tuple[str, list[str]]] = {
    "text": (
        "text",
        [text_chunk("a").replace('"a"', '"x\\"'), text_chunk("a").replace('"a"', '","y"')],
    ),
    "choices": (
        "choices in turn",
        [
            text_chunk("a", 0).replace('"a"', '"x\\"'),
            text_chunk("a", 1).replace('"a"', '"],[0,"y"'),
        ],
    ),
    "padding": (
        "padding",
        [text_chunk("a", padding="b\\"), text_chunk("a", padding='],["x","y')],
    ),
}


@pytest.mark.parametrize("name", SWALLOWED)
def test_a_string_left_open_does_not_swallow_the_next_event(name: str) -> None:
    stream, broken = SWALLOWED[name]
    reads = [event(chunk) for chunk in REGULAR[stream]]
    reads.append(body_of(broken))
    assert outcome(reads) == outcome(reads, shortcut=False)
    assert outcome(reads)[3] == {"malformed_json": 2}


@given(st.data())
def test_texts_of_any_kind_come_out_the_same(data: st.DataObject) -> None:
    chunks = data.draw(
        st.lists(
            st.one_of(
                st.builds(text_chunk, TEXTS),
                st.builds(text_chunk, TEXTS, st.integers(0, 2), st.sampled_from([None, "p", ""])),
                st.sampled_from([chunk for stream in STREAMS.values() for chunk in stream[:5]]),
            ),
            max_size=30,
        )
    )
    repeated = [chunk for chunk in chunks for _ in range(data.draw(st.integers(1, 4)))]
    body = body_of(repeated)
    expected = outcome([body], shortcut=False)
    assert outcome(data.draw(cut(body))) == expected
    assert outcome([event(chunk) for chunk in repeated]) == expected


@given(st.sampled_from(sorted(STREAMS)), st.data())
def test_a_damaged_byte_comes_out_the_same(name: str, data: st.DataObject) -> None:
    body = bytearray(body_of(STREAMS[name][:30]))
    for place in data.draw(st.lists(st.integers(0, len(body) - 1), max_size=3)):
        body[place] = data.draw(st.sampled_from(list(b'"\\{}[],:\n\r\x00\xff0a ')))
    whole = bytes(body)
    expected = outcome([whole], shortcut=False)
    assert outcome(pieces(whole, 900)) == expected
    assert outcome([line + b"\n\n" for line in whole.split(b"\n\n")[:-1]]) == outcome(
        [line + b"\n\n" for line in whole.split(b"\n\n")[:-1]], shortcut=False
    )


ODD_OBJECTS: list[dict[str, object]] = [
    {"created": 1760000000.0},
    {"created": True},
    {"model": "other"},
    {"vendor": 1},
    {"usage": {"total_tokens": 5}},
    {"choices": []},
    {"error": "overloaded"},
]


def fed_objects(chunks: Iterable[object], *, shortcut: bool) -> tuple[object, ...]:
    acc = Accumulator(shortcut=shortcut)
    for chunk in chunks:
        acc.feed(chunk)
    return acc.snapshot(), acc.status, acc.problems, acc.problem_counts


@pytest.mark.parametrize("odd", ODD_OBJECTS)
@pytest.mark.parametrize("name", STREAMS)
def test_objects_come_out_the_same(name: str, odd: dict[str, object]) -> None:
    chunks = [json.loads(chunk) for chunk in STREAMS[name]]
    first = json.loads(text_chunk("a"))
    odd_choices: list[dict[str, object]] = [
        {"index": 0.0, "delta": {"content": "a"}},
        {"index": 0, "delta": {"content": "\ud83d"}},
        {"index": 0, "delta": {"role": "\ud83d", "content": "a"}},
        {"index": 0, "delta": {"role": "\ud83d", "content": "a"}},
        {"index": 0, "delta": {"content": "a", "refusal": "b"}},
        {"index": 0, "delta": {"content": 5}},
        {"index": 0, "delta": {"content": "a"}, "finish_reason": "stop", "logprobs": None},
    ]
    mixed = [*chunks[:20], first | odd, *chunks[20:40]]
    for choice in odd_choices:
        mixed += [first | {"choices": [choice]}, *chunks[40:]]
    assert fed_objects(mixed, shortcut=True) == fed_objects(mixed, shortcut=False)


def test_recordings_come_out_the_same(corpus_stream: Path) -> None:
    body = corpus_stream.read_bytes()
    expected = outcome([body], shortcut=False)
    for size in (300, 4096, len(body) + 1):
        assert outcome(pieces(body, size)) == expected


def test_conformance_cases_come_out_the_same() -> None:
    for path in sorted((Path(__file__).parent / "conformance").glob("*.json")):
        case = json.loads(path.read_text())
        chunks = case.get("chunks")
        if chunks is None:
            body = case["body"].encode(case.get("encoding", "utf-8"), "surrogatepass")
        else:
            body = b"".join(event(c if c == "[DONE]" else json.dumps(c)) for c in chunks)
        assert outcome([body]) == outcome([body], shortcut=False), path.name
        assert outcome(pieces(body, 64)) == outcome([body], shortcut=False), path.name


def test_limits_hold_on_the_shortcut() -> None:
    chunk = event(text_chunk("word"))
    acc = Accumulator(limits=Limits(total_bytes=len(chunk) * 10))
    for _ in range(10):
        acc.feed_sse(chunk)
    with pytest.raises(LimitExceededError, match="total_bytes"):
        acc.feed_sse(chunk)
    assert acc.snapshot().choices[0].message.content == "word" * 10
