"""Recorded streams, damaged: only what was damaged is wrong, and the damage is on record."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from conftest import CORPUS
from hypothesis import given
from hypothesis import strategies as st
from judged import assert_as_judged
from strategies import cut
from streamed import read_all, read_whole
from test_laws import check_law_3

from accumulator import Accumulator, AccumulatorError

SHIPPED = Path(__file__).parent / "recordings"
LONGEST = 60_000  # bytes; what a longer recording has in it comes again and again


def events_of(body: bytes) -> list[bytes]:
    """Split a body into its events, comments included."""
    return [event for event in re.split(rb"(?:\r?\n){2,}", body) if event]


def joined(events: list[bytes]) -> bytes:
    return b"".join(event + b"\n\n" for event in events)


RECORDINGS = {
    path.name: events_of(path.read_bytes())
    for path in sorted([*SHIPPED.glob("*.sse"), *CORPUS.glob("*.sse")])
    if path.stat().st_size <= LONGEST
}


names = st.sampled_from(sorted(RECORDINGS))


# --- any damage, judged by the second reducer ---


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw a recording with a few of its events dropped, repeated, moved, cut, corrupted."""
    events = list(RECORDINGS[draw(names)])
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(events) - 1))
        event = events[place]
        match draw(st.sampled_from(["drop", "repeat", "move", "cut", "flip", "retype", "join"])):
            case "drop" if len(events) > 1:
                events.pop(place)
            case "repeat":
                events.insert(draw(st.integers(0, len(events))), event)
            case "move":
                events.insert(draw(st.integers(0, len(events) - 1)), events.pop(place))
            case "cut":
                events[place] = event[: draw(st.integers(0, len(event)))]
            case "flip":
                at = draw(st.integers(0, len(event) - 1)) if event else 0
                events[place] = event[:at] + draw(st.binary(max_size=2)) + event[at + 1 :]
            case "retype":
                events[place] = draw(retyped(event))
            case "join" if place:  # a log that lost a blank line
                events[place - 1] += b"\n" + events.pop(place)
    return joined(events)


@st.composite
def retyped(draw: st.DrawFn, event: bytes) -> bytes:
    """Draw an event one of whose values, anywhere in it, is of another type."""
    prefix, data, value = parsed(event)
    places = [*places_in(value)]
    if not places:
        return prefix + data
    into, where = draw(st.sampled_from(places))
    other = draw(st.sampled_from([None, 5, 1.0, "7", True, [], {}, ["x"], {"x": "y"}]))
    cast("dict[str | int, object]", into)[where] = other
    return prefix + json.dumps(value).encode()


def places_in(value: object) -> Iterator[tuple[object, str | int]]:
    """Yield each place in a JSON value: what it is in, and its name or index."""
    inner = value.items() if isinstance(value, dict) else ()
    for where, item in enumerate(value) if isinstance(value, list) else inner:
        yield value, where
        yield from places_in(item)


def parsed(event: bytes) -> tuple[bytes, bytes, object]:
    """Return an event's bytes up to its data, its data, and that parsed; None if not JSON."""
    prefix, colon, data = event.partition(b"data:")
    try:
        return prefix + colon, data, json.loads(data)
    except ValueError:
        return prefix + colon, data, None


@given(st.data(), damaged())
def test_nothing_raises_and_the_second_reducer_agrees(data: st.DataObject, body: bytes) -> None:
    assert_as_judged(read_all(data.draw(cut(body))), body)


# --- where the stream stops ---


@given(st.data(), names)
def test_a_stream_cut_at_any_byte_keeps_what_came_before(data: st.DataObject, name: str) -> None:
    events = RECORDINGS[name]
    whole = read_whole(joined(events))
    place = data.draw(st.integers(0, len(events) - 1))
    event = events[place]
    at = data.draw(st.integers(0, len(event) - 1))
    before = Accumulator()
    before.feed_sse(joined(events[:place]))
    acc = read_whole(joined(events[:place]) + event[:at])

    check_law_3(whole.snapshot().to_dict(), acc.snapshot().to_dict())
    prefix, _, chunk = parsed(event)
    if prefix == b"data:" and chunk is not None and event[5:at].strip() and before.status == "open":
        assert acc.snapshot() == before.snapshot()
        assert acc.status == "truncated"
        assert "unterminated_event" in acc.problem_counts
        with pytest.raises(AccumulatorError):
            acc.completion()


# --- one choice damaged, the other not ---


def for_two(events: list[bytes]) -> tuple[list[bytes], list[int]]:
    """Let two choices say what a recording's first one says, each in events of its own.

    Also return which events are the second's.
    """
    both: list[bytes] = []
    of_second: list[int] = []
    for _, _, chunk in map(parsed, events):
        if isinstance(chunk, dict) and "error" not in chunk:
            said = (chunk.get("choices") or [])[:1]
            for index in range(len(said) + 1):
                choices = [{**choice, "index": index} for choice in said]
                both.append(b"data: " + json.dumps({**chunk, "choices": choices}).encode())
            of_second += [len(both) - 1] * len(said)
    return both, of_second


FOR_TWO = [(both, second) for both, second in map(for_two, RECORDINGS.values()) if second]


def truncated(data: st.DataObject, event: bytes) -> bytes:
    return event[: data.draw(st.integers(len(b"data: {"), len(event) - 1))]


def unquoted(data: st.DataObject, event: bytes) -> bytes:
    at = data.draw(st.sampled_from([m.start() for m in re.finditer(rb'(?<!\\)"', event)]))
    return event[:at] + event[at + 1 :]


def not_utf8(data: st.DataObject, event: bytes) -> bytes:
    return event.replace(b'"choices"', b'"x":"\xff","choices"')


def wrongly_typed(data: st.DataObject, event: bytes) -> bytes:
    chunk: Any = parsed(event)[2]
    [choice] = chunk["choices"]
    names = ["finish_reason", "logprobs", "delta"]
    of_delta = ["role", "content", "refusal", "reasoning", "reasoning_content", "tool_calls"]
    name = data.draw(st.sampled_from([*names, *of_delta, "function_call", "audio"]))
    odd = {name: data.draw(st.sampled_from([5, True, 1.5]))}
    choice |= odd if name in names else {"delta": {**(choice.get("delta") or {}), **odd}}
    return b"data: " + json.dumps(chunk).encode()


# The problem that each damage is reported as (SPEC 7).
DAMAGES: dict[str, tuple[Callable[[st.DataObject, bytes], bytes], str]] = {
    "an event cut short": (truncated, "malformed_json"),
    "a quote lost": (unquoted, "malformed_json"),
    "bytes that are not UTF-8": (not_utf8, "invalid_utf8"),
    "a field of a wrong type": (wrongly_typed, "invalid_field"),
}


@pytest.mark.parametrize(("damage", "kind"), DAMAGES.values(), ids=DAMAGES)
@given(data=st.data(), recorded=st.sampled_from(FOR_TWO))
def test_damage_to_one_choice_is_on_record_and_leaves_the_other_alone(
    damage: Callable[[st.DataObject, bytes], bytes],
    kind: str,
    data: st.DataObject,
    recorded: tuple[list[bytes], list[int]],
) -> None:
    clean, of_second = recorded
    stream = list(clean)
    places = data.draw(st.lists(st.sampled_from(of_second), min_size=1, max_size=5, unique=True))
    for place in places:
        stream[place] = damage(data, stream[place])
    acc = read_all(data.draw(cut(joined(stream))))

    assert acc.snapshot().choices[0] == read_whole(joined(clean)).snapshot().choices[0]
    assert acc.problem_counts[kind] >= len(places)
    # Where a stream goes on after a finish reason (Cerebras), each later chunk is a problem of its
    # own, and of more than a hundred the first hundred alone are kept.
    if sum(acc.problem_counts.values()) == len(acc.problems):
        known = {(p.kind, p.event, p.offset) for p in acc.problems}
        for place in places:
            assert (kind, place + 1, len(joined(stream[:place]))) in known


@given(st.data(), st.sampled_from(FOR_TWO))
def test_events_of_one_choice_lost_repeated_or_moved_leave_the_other_alone(
    data: st.DataObject, recorded: tuple[list[bytes], list[int]]
) -> None:
    clean, of_second = recorded
    lost = data.draw(st.sets(st.sampled_from(of_second)))
    stream = [event for place, event in enumerate(clean) if place not in lost]
    for place in sorted(lost):
        for _ in range(data.draw(st.integers(0, 2))):
            stream.insert(data.draw(st.integers(0, len(stream) - 1)), clean[place])
    one, other = (read_whole(joined(events)).snapshot() for events in (stream, clean))
    assert one.choices[0] == other.choices[0]


@given(st.data(), names)
def test_what_came_before_the_damage_stands(data: st.DataObject, name: str) -> None:
    events = RECORDINGS[name]
    place = data.draw(st.integers(0, len(events) - 1))
    acc = Accumulator()
    acc.feed_sse(joined(events[:place]))
    before = acc.snapshot()
    acc.feed_sse(b"data: {\n\n" + data.draw(st.binary(max_size=9)) + b'data: {"choices":5}\n\n')
    acc.feed_sse(joined(events[place:]))
    acc.close()
    check_law_3(acc.snapshot().to_dict(), before.to_dict())
    if before.id:
        assert acc.snapshot().id == before.id
