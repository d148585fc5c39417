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
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import ODD_STREAMS, bodies, cut
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


def test_integers_that_msgpack_does_not_have_are_kept() -> None:
    big = 10**40
    check(
        [
            {"created": big, "n": [-big, {"x": 2**63 - 1, "y": 2**64}], "usage": {"cost": big}},
            {"choices": [{"index": big, "delta": {"x": [{"index": big, "text": "\ud83d"}]}}]},
            {"choices": [{"index": big, "delta": {"x": [{"index": big, "text": "\ude00"}]}}]},
            {"choices": [{"index": -big, "delta": {"tool_calls": [{"index": big}]}}]},
            {"choices": [{"delta": {"content": big}}]},  # a problem's detail
        ],
        "feed",
    )


@pytest.mark.parametrize("big", [2**63, 2**64, 10**40, -(2**63) - 1])
@pytest.mark.parametrize("feed", ["feed", "feed_line", "feed_sse"])
def test_integers_beside_and_in_logprobs_are_kept(big: int, feed: str) -> None:
    token = {"token": "a", "logprob": -1.0, "v": big, "top_logprobs": [{"token": "b", "w": [big]}]}
    choice = {"delta": {"content": "a", "span_id": big}, "logprobs": {"content": [token]}}
    chunks: list[object] = [{"choices": [choice]}] * 3
    if feed != "feed":
        chunks = [json.dumps(chunk) for chunk in chunks]
    if feed == "feed_sse":
        chunks = [f"data: {chunk}\n\n".encode() for chunk in chunks]
    check(chunks, feed)


def test_a_half_that_waits_in_a_text_that_was_replaced_is_kept() -> None:
    """It is still reported as a problem at the end."""
    check([{"choices": [{"delta": {"x": x}}]} for x in ("\ud83d", {"y": 1}, "z")], "feed")
    check(['{"choices":[{"delta":{"content":"\\ud83d"}}]}'], "feed")


def test_a_list_whose_entries_hide_their_index_is_kept() -> None:
    rules = DEFAULT_RULES.replace({"delta.x.index": "drop", "delta.x.text": "concat"})
    lists = ([{"index": 7, "text": "a"}], [{"index": 7, "text": "b"}, {"index": 3}, 5])
    check([{"choices": [{"delta": {"x": entries}}]} for entries in lists], "feed", rules=rules)


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


def test_any_byte_that_was_changed_is_found(checkpoint: bytes) -> None:
    for place in range(len(checkpoint)):
        for flip in (1, 0x80, 0xFF):
            damaged = bytearray(checkpoint)
            damaged[place] ^= flip
            with pytest.raises(CheckpointError):
                Accumulator.restore(damaged)


def test_what_was_cut_off_or_added_is_found(checkpoint: bytes) -> None:
    for end in range(len(checkpoint)):
        with pytest.raises(CheckpointError):
            Accumulator.restore(checkpoint[:end])
    with pytest.raises(CheckpointError):
        Accumulator.restore(checkpoint + b"\0")


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


def test_a_checkpoint_is_bytes() -> None:
    with pytest.raises(TypeError):
        Accumulator.restore("text")  # type: ignore[arg-type]  # the case


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
        delta = {
            "arguments": {"tool_calls": [call if number else call | head]},
            "vendor": {"details": [{"index": number, "type": "note", "text": text}], "x": text},
            "parts": {"content": [{"type": "image", "url": text}, {"type": "text", "text": text}]},
            "emoji": {"content": "😀" * 9},
            "audio": {"audio": {"id": "a", "data": "QUFB" * 40, "transcript": text}},
        }.get(kind, {"content": text})
        logprobs = {"content": [{**token, "top_logprobs": tops}], "refusal": None}
        more: dict[str, dict[str, object]] = {
            "logprobs": {"logprobs": logprobs},
            "choices": {"index": number % 64},
        }
        choice = {"index": 0, "delta": delta, "finish_reason": None, **more.get(kind, {})}
        chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        yield b"data: " + msgspec.json.encode({**chunk, "choices": [choice]}) + b"\n\n"


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


def test_the_smallest_checkpoint_is_small() -> None:
    assert len(Accumulator().checkpoint()) < 100


def test_an_unfinished_event_and_what_waits_are_kept_once() -> None:
    acc = Accumulator()
    acc.feed_sse(b"data: " + b"x" * 10_000)
    assert len(acc.checkpoint()) < 10_000 + 200


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


def _watched(start: Callable[[], subprocess.Popen[str]], until: int) -> str | None:
    """Kill a child process once it has read that much; return its result if it was faster."""
    with start() as child:
        assert child.stdout is not None
        line = ""
        for line in child.stdout:
            if line.startswith("{"):
                return line
            if int(line) >= until:
                os.kill(child.pid, signal.SIGKILL)
                break
        child.stdout.read()
    return None


@pytest.mark.costs
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no kill -9")
@pytest.mark.parametrize("kind", ["content", "logprobs", "arguments"])
def test_a_killed_process_is_gone_on_from(kind: str, tmp_path: Path) -> None:
    body, kept = tmp_path / "body.sse", tmp_path / "kept"
    body.write_bytes(b"".join(stream_of(kind, 80)) + b"data: [DONE]\n\n")
    whole = Accumulator()
    whole.feed_sse(body.read_bytes())
    size = len(body.read_bytes())

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", CHILD, str(body), str(kept), "97"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    # The child goes on while the line about its last read is on its way, so where it dies is up
    # to the machine: between two reads, inside one, or while it writes its checkpoint.
    results = [_watched(start, until) for until in (1, size // 3, size // 2, size)]
    results.append(_watched(start, 2 * size))
    assert results[0] is None
    found = next(result for result in results if result is not None)
    assert json.loads(found) == whole.completion().to_dict()


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


def at(name: str) -> int:
    return Saved.__struct_fields__.index(name)


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


def put(name: str, *path: Any, to: object) -> Callable[[list[Any]], object]:
    """Return a change that puts a value at a place in a checkpoint's field."""

    def change(body: list[Any]) -> None:
        *steps, last = (at(name), *path)
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
    "values nested deep": an_extra(nested(400)),
    "a usage of another kind": put("state", "usage", "extra", to=5),
    "an unknown extension": an_extension(9, b"text"),
    "a date": an_extra(datetime(2026, 1, 1, tzinfo=timezone.utc)),
    "a name that is a number": an_extra({1.5: 1}),
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
