"""Threads: each with an accumulator of its own, or one that they share behind a lock.

These run on a free-threaded Python as well.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from streamed import cut, read_all
from telling import check, events_of

from accumulator import Accumulator, ChatCompletion

THREADS = 8
COUNT = 300


def body_of(number: int) -> bytes:
    """Return a stream with text, a call and fields made of one number, and a shape of its own."""
    chunks: list[dict[str, object]] = []
    for i in range(COUNT):
        call = {"index": 0, "function": {"arguments": f"{number}" if i else f'["{number}'}}
        delta = {"content": f"{number}-{i} é", "tool_calls": [call], f"vendor_{number}": "x"}
        chunks.append({"id": f"c{number}", "choices": [{"index": 0, "delta": delta}]})
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    return b"".join(b"data: %s\n\n" % json.dumps(chunk).encode() for chunk in chunks)


def read(number: int, size: int = 997) -> ChatCompletion:
    return read_all(cut(body_of(number), size)).completion()


def read_with_events(number: int) -> ChatCompletion:
    acc, events = events_of([body_of(number)])
    check(acc, events)
    return acc.completion()


def read_with_checkpoints(number: int) -> ChatCompletion:
    acc = Accumulator()
    for data in cut(body_of(number), 9973):
        acc = Accumulator.restore(acc.checkpoint())
        acc.feed_sse(data)
    return acc.completion()


@pytest.mark.parametrize("way", [read, read_with_events, read_with_checkpoints])
def test_threads_with_an_accumulator_each_disturb_nobody(
    way: Callable[[int], ChatCompletion],
) -> None:
    """What a process shares, such as the decoders of the shapes it saw, is safe to share."""
    start = threading.Barrier(THREADS)

    def run(number: int) -> ChatCompletion:
        start.wait()
        return way(number)

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(run, range(THREADS)))
    for number, completion in enumerate(found):
        message = completion.choices[0].message
        assert message.content == "".join(f"{number}-{i} é" for i in range(COUNT))
        assert message.extra == {f"vendor_{number}": "x" * COUNT}
        texts = [call.arguments for call in message.tool_calls or ()]
        assert texts == [f'["{number}' + f"{number}" * (COUNT - 1)]


@pytest.mark.parametrize("form", ["chunk", "event"])
def test_threads_that_share_an_accumulator_behind_a_lock_lose_nothing(form: str) -> None:
    acc = Accumulator()
    lock, start = threading.Lock(), threading.Barrier(THREADS)

    def run(number: int) -> None:
        start.wait()
        for i in range(COUNT):
            text = json.dumps({"choices": [{"index": number, "delta": {"content": f"{i},"}}]})
            with lock:
                if form == "chunk":
                    acc.feed(text.encode())
                else:
                    acc.feed_sse(b"data: %s\n\n" % text.encode())
                if i % 50 == 0:
                    acc.snapshot()

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(run, range(THREADS)))
    expected = "".join(f"{i}," for i in range(COUNT))
    contents = {choice.index: choice.message.content for choice in acc.snapshot().choices}
    assert contents == dict.fromkeys(range(THREADS), expected)
    assert acc.problems == ()


# What a process does for the first time, eight threads do at once. msgspec crashes the process if
# two threads make it inspect a class that is new to it.
FIRST = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor

import attrs
import msgspec

from accumulator import Accumulator, ChatCompletion, Function
from every_field import WHOLE
from regular import REGULAR, event

what = sys.argv[1]
if what == "conformed":
    from test_conformance import CASES, check

class Week(msgspec.Struct):
    days: list[int]
    best: "Week | None" = None

class Query(msgspec.Struct):
    weeks: dict[str, Week]
    then: Week | None = None

@attrs.frozen
class Place:
    name: str

@attrs.frozen
class Trip:
    places: list[Place]
    back: Place | None = None

def streamed():
    found = []
    for name in ("logprobs", "vendor", "calls in turn", "usage"):
        body = b"".join(map(event, REGULAR[name]))
        acc = Accumulator()
        for at in range(0, len(body), 3000):
            acc.feed_sse(body[at : at + 3000])
            acc.checkpoint()
        acc.close()
        found.append(Accumulator.restore(acc.checkpoint()).snapshot().to_dict())
    return found

def restored():
    return Accumulator.restore(CHECKPOINT).snapshot()

def parsed():
    return Function(arguments='{"weeks":{"a":{"days":[1]}}}').arguments_as(Query)

def parsed_into_attrs():
    return Function(arguments='{"places":[{"name":"a"}],"back":{"name":"b"}}').arguments_as(Trip)

def converted():
    completion = ChatCompletion.from_dict(WHOLE)
    return completion, completion.to_dict()

def conformed():
    for case in CASES[::8]:
        acc = case.accumulator()
        acc.feed_sse(case.data)
        check(acc, case)

acc = Accumulator()
acc.feed({"choices": [{"delta": {"content": "x", "tool_calls": [{"index": 0, "id": "a"}]}}]})
CHECKPOINT = acc.checkpoint()
start = threading.Barrier(8)

def run(number):
    start.wait()
    return globals()[what]()

sys.setswitchinterval(1e-6)
with ThreadPoolExecutor(8) as pool:
    found = list(pool.map(run, range(8)))
assert all(each == found[0] for each in found)
"""


def ran(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.mark.many
@pytest.mark.parametrize(
    "what", ["streamed", "conformed", "restored", "parsed", "parsed_into_attrs", "converted"]
)
def test_what_a_process_does_first_is_done_by_threads_at_once(what: str) -> None:
    for _ in range(2):
        done = ran(FIRST, what)
        assert done.returncode == 0, done.stderr[-2000:]


AT_EXIT = """
import sys, threading
from accumulator import wrap

ended = []
kept = []

def open_one():
    kept.append(wrap(iter(()), on_end=ended.append))

def go_on():
    while len(kept) < 11_000:
        open_one()

for _ in range(10_000):
    open_one()
sys.setswitchinterval(1e-6)
threading.Thread(target=go_on, daemon=True).start()
"""


@pytest.mark.costs
def test_a_daemon_thread_that_opens_streams_disturbs_no_exit() -> None:
    for _ in range(2):
        done = ran(AT_EXIT)
        # Python collects what is opened after that when little is left of its modules.
        assert "atexit callback" not in done.stderr
        assert done.returncode == 0, done.stderr[-2000:]
