"""`checkpoint` and `restore`: SPEC law 4, damage, size, and a process that is killed."""

from __future__ import annotations

import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from regular import event
from strategies import ODD_STREAMS, bodies, cut
from streamed import Chunk, a_chunk, delta, deltas, read_whole
from test_conformance import CASES, Case

from accumulator import (
    DEFAULT_RULES,
    Accumulator,
    AccumulatorError,
    CheckpointError,
    LimitExceededError,
    Limits,
)
from accumulator._checkpoint import _HEADER, Saved
from accumulator.rules import Policy

# --- law 4 --------------------------------------------------------------------------------


def everything(acc: Accumulator) -> tuple[object, ...]:
    return acc.snapshot().to_dict(), acc.status, acc.problems, dict(acc.problem_counts)


def resumed(acc: Accumulator, **keywords: Any) -> Accumulator:
    """Return an accumulator restored from a checkpoint. Its own checkpoint must be the same."""
    data = acc.checkpoint()
    before = everything(acc)
    again = Accumulator.restore(data, **keywords)
    assert everything(again) == before
    assert again.checkpoint() == data
    return again


def check(
    pieces: Iterable[object], way: str = "feed_sse", every: int = 1, **options: Any
) -> Accumulator:
    """Check that checkpoints between the pieces change nothing, neither then nor later."""
    straight, broken = Accumulator(**options), Accumulator(**options)
    for count, piece in enumerate(pieces):
        getattr(straight, way)(piece)
        if count % every == 0:
            broken = resumed(broken, **options)
        getattr(broken, way)(piece)
    straight.close()
    resumed(broken, **options).close()
    broken.close()
    assert everything(broken) == everything(straight)
    closed = resumed(broken, **options)
    assert everything(closed) == everything(straight)
    with pytest.raises(ValueError, match="closed"):
        closed.feed({})
    return straight


@given(st.data(), bodies(ODD_STREAMS))
def test_law_4_a_checkpoint_at_any_byte_changes_nothing(data: st.DataObject, body: bytes) -> None:
    check(data.draw(cut(body)))


@given(ODD_STREAMS)
def test_law_4_a_checkpoint_between_chunks_changes_nothing(chunks: list[object]) -> None:
    check([chunk for chunk in chunks if isinstance(chunk, dict)], "feed")
    check([json.dumps(chunk) for chunk in chunks], "feed")


@given(bodies(ODD_STREAMS))
def test_law_4_a_checkpoint_between_lines_changes_nothing(body: bytes) -> None:
    check(body.splitlines(), "feed_line")
    check(body.splitlines(keepends=True), "feed_line")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_law_4_over_the_conformance_cases(case: Case) -> None:
    data = case.data
    # A prime, so that some case is cut at every place of an event.
    check(data[i : i + 23] for i in range(0, len(data), 23))
    check(data.splitlines(keepends=True), "feed_line")


@pytest.mark.many
@pytest.mark.usefixtures("learns_at_once")
def test_law_4_over_recorded_streams(corpus_stream: Path) -> None:
    body = corpus_stream.read_bytes()
    events = [event + b"\n\n" for event in body.split(b"\n\n")]
    check(events, every=max(1, len(events) // 20))
    # Not cut at the ends of events, and with reads of several events on the fast path.
    check([body[i : i + 999] for i in range(0, len(body), 999)], every=max(1, len(body) // 9999))


@pytest.mark.usefixtures("learns_at_once")
def test_a_run_of_chunks_that_went_the_fast_path_is_kept() -> None:
    for kind in ("content", "logprobs", "arguments"):
        events = list(stream_of(kind, 60))
        for every in (1, 4):
            check([b"".join(events[i : i + 5]) for i in range(0, 60, 5)], every=every)
        check(events, every=7)


BIG = 10**40


def with_integer(big: int) -> list[object]:
    """Return chunks with an integer beside logprobs and in them."""
    token = {"token": "a", "logprob": -1.0, "v": big, "top_logprobs": [{"token": "b", "w": [big]}]}
    fields = {"content": "a", "span_id": big}
    return [delta(fields, logprobs={"content": [token]})] * 3


# Chunks that leave in an accumulator what is seldom there, and rules for them.
SELDOM: dict[str, tuple[Sequence[object], dict[str, Policy]]] = {
    "integers that msgpack does not have": (
        [
            {"created": BIG, "n": [-BIG, {"x": 2**63 - 1, "y": 2**64}], "usage": {"cost": BIG}},
            {"choices": [{"index": BIG, "delta": {"x": [{"index": BIG, "text": "\ud83d"}]}}]},
            {"choices": [{"index": BIG, "delta": {"x": [{"index": BIG, "text": "\ude00"}]}}]},
            {"choices": [{"index": -BIG, "delta": {"tool_calls": [{"index": BIG}]}}]},
            {"choices": [{"delta": {"content": BIG}}]},  # a problem's detail
        ],
        {},
    ),
    **{
        f"{big} in and beside logprobs": (with_integer(big), {})
        for big in (2**63, 2**64, BIG, -(2**63) - 1)
    },
    # It is still reported as a problem at the end.
    "a half in a text that was replaced": (
        deltas({"x": "\ud83d"}, {"x": {"y": 1}}, {"x": "z"}),
        {},
    ),
    "a half in the content": ([delta({"content": "\ud83d"})], {}),
    "a half behind whole arguments, and the same again": (
        deltas(
            *(
                {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}
                for text in ('{"a": 1}', "\ud83d", '{"a": 1}')
            )
        ),
        {},
    ),
    "a list whose entries hide their index": (
        deltas(
            {"x": [{"index": 7, "text": "a"}]},
            {"x": [{"index": 7, "text": "b"}, {"index": 3}, 5]},
        ),
        {"delta.x.index": "drop", "delta.x.text": "concat"},
    ),
}


@pytest.mark.parametrize("way", ["feed", "feed_line", "feed_sse"])
@pytest.mark.parametrize(("chunks", "rules"), SELDOM.values(), ids=SELDOM)
def test_what_is_seldom_in_an_accumulator_is_kept(
    chunks: Sequence[object], rules: dict[str, Policy], way: str
) -> None:
    texts = [json.dumps(chunk) for chunk in chunks]
    ways: dict[str, Sequence[object]]
    ways = {"feed": chunks, "feed_line": texts, "feed_sse": [*map(event, texts)]}
    check(ways[way], way, rules=DEFAULT_RULES.replace(rules))


def test_under_rules_that_move_fields_nothing_changes() -> None:
    rules = DEFAULT_RULES.replace({"delta.content": "last", "chunk.id": "last"})
    acc = check(stream_of("content", 20), rules=rules)
    assert acc.snapshot().choices[0].message.content == text_of(19)


@pytest.mark.parametrize("at", range(4))
def test_what_waits_behind_an_event_that_raised_is_kept(at: int) -> None:
    body = b"".join(stream_of("content", 2)) + b"data: {\n\n" + b"".join(stream_of("content", 2))
    limits = Limits(event_bytes=600)
    body += b"data: " + b"x" * 700 + b"\n\n" + b"".join(stream_of("content", 3))
    raised: list[list[str]] = []
    ends = []
    for breaking in (False, True):
        acc = Accumulator(strict=True, limits=limits)
        raised.append([])
        for step in range(5):
            if breaking and step == at:
                acc = resumed(acc, strict=True, limits=limits)
            try:
                acc.feed_sse(b"" if step else body)
            except AccumulatorError as error:
                raised[-1].append(f"{type(error).__name__}: {error}")
        ends.append(everything(acc))
    assert raised[0] == raised[1]
    assert len(raised[0]) == 2
    assert ends[0] == ends[1]


def test_limits_go_on_counting() -> None:
    limits = Limits(total_bytes=1000, choices=1)
    acc = Accumulator(limits=limits)
    acc.feed_sse(next(stream_of("content", 1)))
    acc = resumed(acc, limits=limits)
    with pytest.raises(LimitExceededError, match="choices"):
        acc.feed({"choices": [{"index": 1, "delta": {}}]})
    with pytest.raises(LimitExceededError, match="total_bytes"):
        resumed(acc, limits=limits).feed_sse(b"x" * 900)


# --- what is refused ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint() -> bytes:
    acc = Accumulator()
    acc.feed_sse(b"".join(stream_of("logprobs", 3)) + b"data: {\n\ndata: half an event")
    return acc.checkpoint()


def test_any_byte_that_was_changed_cut_off_or_added_is_found(checkpoint: bytes) -> None:
    for place, byte in enumerate(checkpoint):
        before, after = checkpoint[:place], checkpoint[place + 1 :]
        changed = [before + bytes([byte ^ flip]) + after for flip in (1, 0x80, 0xFF)]
        for damaged in (*changed, before, checkpoint + b"\0"):
            with pytest.raises(CheckpointError):
                Accumulator.restore(damaged)


RULES = DEFAULT_RULES.replace({"chunk.citations": "extend"})
WRONG: dict[str, tuple[Callable[[bytes], bytes], dict[str, Any]]] = {
    "not a checkpoint": (lambda data: b"", {}),
    "does not start like one": (lambda data: b"{" + data, {}),
    "another version": (lambda data: data[:4] + b"\x09" + data[5:], {}),
    "damaged": (lambda data: data[:-1], {}),
    "other rules": (lambda data: data, {"rules": RULES}),
}


@pytest.mark.parametrize("why", WRONG)
def test_what_is_wrong_is_said(why: str, checkpoint: bytes) -> None:
    change, options = WRONG[why]
    with pytest.raises(CheckpointError, match=why):
        Accumulator.restore(change(checkpoint), **options)


# --- size ---------------------------------------------------------------------------------


def text_of(number: int) -> str:
    return f" word{number} «é» 日本" if number % 3 else " a plain piece of text,"


def stream_of(kind: str, count: int) -> Iterator[bytes]:
    """Return the events of a stream of one kind."""
    for number in range(count):
        text = text_of(number)
        tops = [{"token": t, "logprob": -0.123456 * number, "bytes": [65]} for t in "ab"]
        token = {"token": text, "logprob": -1.2345 * number, "bytes": list(text.encode())}
        call: dict[str, object] = {"index": 0, "function": {"arguments": text}}
        head = {"id": "call_a", "type": "function", "function": {"name": "f", "arguments": ""}}
        brought = {
            "arguments": {"tool_calls": [call if number else call | head]},
            "vendor": {"details": [{"index": number, "type": "note", "text": text}], "x": text},
            "parts": {"content": [{"type": "image", "url": text}, {"type": "text", "text": text}]},
            "emoji": {"content": "😀" * 9},
            "audio": {"audio": {"id": "a", "data": "QUFB" * 40, "transcript": text}},
        }.get(kind, {"content": text})
        choice: Chunk = {"index": 0, "delta": brought, "finish_reason": None}
        if kind == "logprobs":
            choice["logprobs"] = {"content": [{**token, "top_logprobs": tops}], "refusal": None}
        elif kind == "choices":
            choice["index"] = number % 64
        yield event(msgspec.json.encode(a_chunk(choice)))


KINDS = "content logprobs arguments vendor parts choices emoji audio".split()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 40, 3000])
@pytest.mark.parametrize("reads", [1, 50])
def test_a_checkpoint_is_as_large_as_what_arrived(kind: str, count: int, reads: int) -> None:
    """It contains the texts, and the rest of the completion in about the size of its JSON."""
    acc = Accumulator()
    events = list(stream_of(kind, count))
    for i in range(0, count, reads):
        acc.feed_sse(b"".join(events[i : i + reads]))
    held = len(acc.snapshot().to_json().encode())
    size = len(acc.checkpoint())
    assert size <= 1.2 * held + 1024, f"{size} bytes for {held}"


@pytest.mark.parametrize("unread", [b"", b"data: " + b"x" * 10_000])
def test_a_checkpoint_is_hardly_larger_than_an_unfinished_event(unread: bytes) -> None:
    acc = Accumulator()
    acc.feed_sse(unread)
    assert len(acc.checkpoint()) < len(unread) + 100


# --- a process that is killed -------------------------------------------------------------

CHILD = """
import os, sys
from pathlib import Path
from accumulator import Accumulator

body, kept, size = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
acc, place = Accumulator(), 0
if kept.exists():
    data = kept.read_bytes()
    acc, place = Accumulator.restore(data[8:]), int.from_bytes(data[:8], "big")
with body.open("rb") as source:
    source.seek(place)
    while data := source.read(size):
        acc.feed_sse(data)
        place += len(data)
        new = kept.with_suffix(".new")
        new.write_bytes(place.to_bytes(8, "big") + acc.checkpoint())
        os.replace(new, kept)  # whole or not at all
        print(place, flush=True)
print(acc.completion().to_json(), flush=True)
"""


@pytest.mark.costs
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no kill -9")
@pytest.mark.parametrize("kind", ["content", "logprobs", "arguments"])
def test_a_killed_process_is_gone_on_from(kind: str, tmp_path: Path) -> None:
    body, kept = tmp_path / "body.sse", tmp_path / "kept"
    data = b"".join(stream_of(kind, 80)) + b"data: [DONE]\n\n"
    body.write_bytes(data)

    def result_of_one_killed_at(place: int) -> str | None:
        """Kill a child once it has read that much; return its result if it was faster."""
        command = [sys.executable, "-c", CHILD, str(body), str(kept), "97"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if line.startswith("{"):
                    return line
                if int(line) >= place:
                    os.kill(child.pid, signal.SIGKILL)
                    break
            child.stdout.read()
        return None

    # The child goes on while the line about its last read is on its way, so where it dies is up
    # to the machine: between two reads, inside one, or while it writes its checkpoint.
    size = len(data)
    results = [*map(result_of_one_killed_at, (1, size // 3, size // 2, size, 2 * size))]
    assert results[0] is None
    found = next(result for result in results if result is not None)
    assert json.loads(found) == read_whole(data).completion().to_dict()


# --- bytes that somebody made up ----------------------------------------------------------


def pack(body: bytes | bytearray) -> bytes:
    """Return a checkpoint of these bytes with the right checksum."""
    magic, version, layout, _ = _HEADER.unpack_from(Accumulator().checkpoint())
    return _HEADER.pack(magic, version, layout, zlib.crc32(body)) + body


def saved() -> bytes:
    """Return the body of a checkpoint that has a bit of everything."""
    acc = Accumulator()
    acc.feed_sse(b"".join(stream_of("logprobs", 2)))
    acc.feed({"id": "another", "x": [{"index": 3, "text": "a"}], "usage": {"vendor": "x"}})
    acc.feed({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "a"}]}}]})
    acc.feed_sse(b'{"a":\n')
    return acc.checkpoint()[_HEADER.size :]


def forged(change: Callable[[list[Any]], object]) -> bytes:
    """Return a checkpoint that was changed, with the right checksum."""
    body = msgspec.msgpack.decode(saved())
    change(body)
    return pack(msgspec.msgpack.encode(body))


def put(name: str, *path: Any, to: object) -> Callable[[list[Any]], object]:
    """Return a change that puts a value at a place in a checkpoint's field."""

    def change(body: list[Any]) -> None:
        *steps, last = (Saved.__struct_fields__.index(name), *path)
        for step in steps:
            body = body[step]
        body[last] = to

    return change


def of_choice(*path: Any, to: object) -> Callable[[list[Any]], object]:
    return put("state", "choices", 0, *path, to=to)


def an_extra(value: object) -> Callable[[list[Any]], object]:
    return put("state", "extra", to={"x": value})


def a_list(entries: object, places: object) -> Callable[[list[Any]], object]:
    return an_extension(2, msgspec.msgpack.encode([entries, places]))


def an_extension(number: int, data: bytes) -> Callable[[list[Any]], object]:
    return an_extra(msgspec.msgpack.Ext(number, data))


FORGERIES: dict[str, Callable[[list[Any]], object]] = {
    "halves without end": put("halves", to=2**62),
    "halves below zero": put("halves", to=-1),
    "a size below zero": put("tally", 0, to=-1),
    "more besides than in all": put("tally", 1, to=2**62),
    "an event below zero": put("event", to=-5),
    "counts below zero": put("counts", "id_changed", to=-5),
    "an unknown kind": put("problems", 0, "kind", to="made up"),
    "an unknown kind that is counted": put("counts", "made up", to=1),
    "the last call": of_choice("calls", "last", to=7),
    "a call by its index": of_choice("calls", "by_index", 1, to=7),
    "a call below zero": of_choice("calls", "by_index", 1, to=-1),
    "the number of tokens": of_choice("logprobs", "content", "count", to=2**62),
    "tokens that are no JSON": of_choice("logprobs", "content", "runs", to=[{"text": b"[{"}]),
    "values nested deep": an_extra(json.loads("[" * 400 + "]" * 400)),
    "a usage of another kind": put("state", "usage", "extra", to=5),
    "an unknown extension": an_extension(9, b"text"),
    "a date": an_extra(datetime(2026, 1, 1, tzinfo=timezone.utc)),
    "a name that is a number": an_extra({1.5: 1}),
    "a name that is an integer": put("state", "extra", to={"x_groq": {"usage": {7: 1}}}),
    "a text that grows, in a token": of_choice(
        *("logprobs", "content", "runs", 0, 0, "extra"), to={"x": msgspec.msgpack.Ext(1, b"a")}
    ),
    "half a pair inside a text": an_extension(1, b"a\xed\xb0\xbd"),
    "a choice to judge that is not there": put("state", "due", to={7: False}),
    "an index of no entry": a_list([{}], [[0, -1]]),
    "entries that are no list": a_list({0: {}}, [[0, 0]]),
    "an index of an entry that is no object": a_list([5], [[0, 0]]),
}


@pytest.mark.parametrize("change", FORGERIES.values(), ids=FORGERIES)
def test_what_does_not_fit_together_is_found_at_once(change: Callable[[list[Any]], object]) -> None:
    with pytest.raises(CheckpointError):
        Accumulator.restore(forged(change))


def test_a_checkpoint_that_nobody_changed_is_none_of_these() -> None:
    assert Accumulator.restore(forged(lambda body: None)).snapshot().choices


@given(st.data())
def test_no_forged_byte_raises_later(data: st.DataObject) -> None:
    body = bytearray(saved())
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        acc = Accumulator.restore(pack(body))
    except CheckpointError:
        return
    with suppress(ValueError):  # a state that says that it is closed
        for chunk in stream_of("logprobs", 2):
            acc.feed_sse(chunk)
        acc.feed({"choices": [{"delta": {"tool_calls": [{"function": {"arguments": "{}"}}]}}]})
    acc.close()
    acc.snapshot().to_json()
    acc.checkpoint()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_an_accumulator_is_copied_by_a_checkpoint_alone(copied: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match=r"restore\(acc\.checkpoint\(\)\)"):
        copied(Accumulator())
    with pytest.raises(TypeError):
        Accumulator.restore("text")  # type: ignore[arg-type]  # a checkpoint is bytes
