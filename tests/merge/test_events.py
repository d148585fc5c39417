"""Typed events: whatever the stream, they add up to its completion."""

from __future__ import annotations

import copy
import importlib.util
import json
import multiprocessing
import pickle
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, get_args

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import CHOICES, ODD_STREAMS, bodies, rendered
from strategies import cut as cuts_of
from streamed import Chunk, cut, delta, deltas, fed, read_whole
from telling import check, events_of, shown, told
from test_conformance import CASES, DONE, Case, cases_of_chunks, encode, every_case

from accumulator import (
    DEFAULT_RULES,
    Accumulator,
    AccumulatorError,
    ChatCompletion,
    LimitExceededError,
    Limits,
    Rules,
    ServerError,
    accumulate,
)
from accumulator import events as ev
from accumulator.errors import LOSSY_KINDS
from accumulator.events import Event

needs_jiter = pytest.mark.skipif(
    importlib.util.find_spec("jiter") is None, reason="the extra `partial` is not installed"
)
Kind = TypeVar("Kind", bound=Event)


def call(index: int, arguments: str | None = None, **fields: object) -> Chunk:
    return {"index": index, "function": {"arguments": arguments}, **fields}


def calls(*fragments: object) -> Chunk:
    return delta({"tool_calls": fragments})


def types(events: Sequence[Event]) -> list[str]:
    return [event.type for event in events]


def only(kind: type[Kind], events: Iterable[Event]) -> list[Kind]:
    return [event for event in events if isinstance(event, kind)]


def listening(**options: Any) -> tuple[Accumulator, list[Event]]:
    """Return an accumulator, and the list of its events."""
    events: list[Event] = []
    return Accumulator(on_event=events.append, **options), events


# --- the laws, over every stream there is ---


@pytest.mark.parametrize("case", [c for c in CASES if not c.rules], ids=lambda case: case.name)
def test_events_add_up_to_the_completion(case: Case) -> None:
    acc, events = events_of([case.data])
    check(acc, events)
    assert acc.snapshot().to_dict() == case.completion
    assert (acc.status, {**acc.problem_counts}) == (case.status, {**case.counts})


@pytest.mark.many
@pytest.mark.parametrize("size", [5, pytest.param(1, marks=pytest.mark.costs)])
@every_case
def test_a_few_bytes_at_a_time_give_the_same_events(case: Case, size: int) -> None:
    _, whole = events_of([case.data])
    _, in_pieces = events_of(cut(case.data, size))
    assert shown(in_pieces) == shown(whole)


@cases_of_chunks
def test_chunks_and_lines_give_the_same_events(case: Case) -> None:
    (lines, by_line), (chunks, by_chunk) = listening(), listening()
    for chunk in case.chunks:
        lines.feed_line(b"data: " + encode(chunk))
        lines.feed_line(b"")
        chunks.feed(encode(chunk))
    _, by_body = events_of([case.data])
    expected = shown([event for event in by_body if event.type != "problem"])  # these have offsets
    for acc, events in (lines, by_line), (chunks, by_chunk):
        acc.close()
        check(acc, events)
        assert shown([event for event in events if event.type != "problem"]) == expected


def test_events_of_recorded_streams_add_up(corpus_stream: Path) -> None:
    body = corpus_stream.read_bytes()
    plain, (acc, events) = read_whole(body), events_of([body])
    check(acc, events)
    assert events_of(cut(body, 61))[1] == events
    assert (plain.snapshot(), plain.problems) == (acc.snapshot(), acc.problems)


@given(st.data(), bodies(ODD_STREAMS))
def test_any_stream_in_any_cut_gives_the_same_events(data: st.DataObject, body: bytes) -> None:
    acc, events = events_of([body])
    check(acc, events)
    _, in_pieces = events_of(data.draw(cuts_of(body)))
    assert shown(in_pieces) == shown(events)
    plain = read_whole(body)  # which events do not change
    assert acc.snapshot().to_dict() == plain.snapshot().to_dict()
    assert (acc.status, acc.problems) == (plain.status, plain.problems)


# A problem in the middle of a chunk shows which events came before it: texts, then calls.
@example(
    [
        {"message": {"tool_calls": [{}, {"id": "call_a"}, {}]}},
        {"delta": {"reasoning": "a", "tool_calls": [{}, {"function": {"arguments": ""}}, {}]}},
    ]
)
@given(st.lists(CHOICES, min_size=1, max_size=6))
def test_interleaving_choices_changes_only_the_order_of_events(choices: list[Chunk]) -> None:
    indexed = [{**choice, "index": choice.get("index", 0), "usage": None} for choice in choices]
    one_by_one = told([{"choices": [choice]} for choice in indexed])
    in_order = sorted(indexed, key=lambda choice: str(choice["index"]))
    grouped = told([{"choices": [choice]} for choice in in_order])
    together = told([{"choices": indexed}])
    for index in {choice["index"] for choice in indexed}:
        expected = of_choice(one_by_one, index)
        assert of_choice(grouped, index) == expected
        assert of_choice(together, index) == expected


def of_choice(events: list[Event], index: object) -> list[object]:
    return shown([event for event in events if getattr(event, "choice_index", None) == index])


TEXTS: dict[str, Callable[[str], Chunk]] = {
    "content": lambda text: {"content": text},
    "refusal": lambda text: {"refusal": text},
    "reasoning": lambda text: {"reasoning": text},
    "reasoning_content": lambda text: {"reasoning_content": text},
    "transcript": lambda text: {"audio": {"transcript": text}},
    "arguments": lambda text: {"tool_calls": [call(0, text)]},
    "input": lambda text: {"tool_calls": [{"index": 0, "custom": {"input": text}}]},
    "text part": lambda text: {"content": [{"type": "text", "text": text}]},
    "thinking": lambda text: {"content": [{"type": "thinking", "thinking": text}]},
    "thinking part": lambda text: {
        "content": [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]
    },
}


@pytest.mark.parametrize("field", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("end", ["\ude00b", ""], ids=["joined", "left alone"])
def test_a_pair_that_is_cut_is_one_character_in_the_events(
    field: Callable[[str], Chunk], end: str
) -> None:
    chunks = [delta(field("a\ud83d")), delta(field("")), delta(field(end)), delta({"content": ""})]
    # That each `.done` has the sum of these is checked, too.
    told_texts = [getattr(e, "delta", getattr(e, "transcript", None)) for e in told(chunks)]
    assert [text for text in told_texts if text] == ["a", "😀b" if end else "\ufffd"]


@pytest.mark.parametrize("end", ["\ude00", ""], ids=["joined", "left alone"])
@pytest.mark.parametrize("start", ["a", ""])
def test_half_a_pair_in_a_vendors_text_waits_for_the_other(start: str, end: str) -> None:
    events = told([delta({"vendor": start + "\ud83d"}), delta({"vendor": end})])
    values = [event.value for event in only(ev.ExtraDeltaEvent, events)]
    assert values == [*start, "😀" if end else "\ufffd"]


# --- when a `.done` comes ---


FUNCTION = "tool_calls.function.arguments"
FINISH = delta({}, finish_reason="tool_calls")
# fragments of calls (index, arguments), and which of them lets the first call be done
DONE_BY: dict[str, tuple[list[tuple[int, str]], int | None]] = {
    "another call starts": ([(0, "[]"), (1, "")], 1),
    "an empty object may be replaced": ([(0, "{}"), (1, "[1]"), (0, '{"a": 1}'), (1, " ")], 3),
    "an empty object is not replaced": ([(0, "{}"), (1, "[1]")], None),
    "another call starts, blanks behind": ([(0, "{} "), (1, "")], 1),
    "the other call starts before it is whole": ([(0, "["), (1, "{}"), (0, "]"), (1, " ")], 3),
    "it is not whole": ([(0, "{"), (1, "{}")], None),
    "null is whole": ([(0, "null"), (1, "")], 1),
    "a string is not whole": ([(0, '"x"'), (1, "")], None),
    "a number could go on": ([(0, "1"), (1, ""), (0, "2")], None),
    "no arguments": ([(0, ""), (1, "")], None),
    "no other call": ([(0, "{}")], None),
}


@pytest.mark.parametrize(("fragments", "at"), DONE_BY.values(), ids=DONE_BY)
def test_a_call_is_done_when_it_is_whole_and_another_goes_on(
    fragments: list[tuple[int, str]], at: int | None
) -> None:
    acc, events = listening()
    for number, (index, arguments) in enumerate(fragments):
        acc.feed(calls(call(index, arguments, id=f"call-{index}")))
        dones = only(ev.FunctionToolCallArgumentsDoneEvent, events)
        assert (0 in [done.index for done in dones]) == (at is not None and number >= at)
    acc.feed(FINISH)
    acc.feed({"choices": []})
    dones = only(ev.FunctionToolCallArgumentsDoneEvent, events)
    assert sorted(done.index for done in dones) == sorted({index for index, _ in fragments})
    acc.close()
    check(acc, events)


NEXT: dict[str, tuple[list[object], bool]] = {
    "nothing": ([], False),
    "usage": ([{"choices": [], "usage": {"prompt_tokens": 1}}], True),
    "null choices": ([{"choices": None, "usage": None}], True),
    "an empty delta": ([delta({})], True),
    "an empty text": ([delta({"content": ""})], True),
    "the same reason again": ([FINISH], True),
    "another reason": ([delta({}, finish_reason="stop")], False),
    "another reason, then nothing": ([delta({}, finish_reason="stop"), delta({})], True),
    "no delta": ([{"choices": [{"index": 0, "content_filter_results": {}}]}], True),
    "text": ([delta({"content": "b"})], False),
    "reasoning": ([delta({"reasoning": "b"})], False),
    "arguments": ([calls(call(0, " "))], False),
    "no arguments": ([calls(call(0, ""))], True),
    "another call": ([calls(call(1, "", id="b"))], False),
    "text, then nothing": ([delta({"content": "b"}), delta({})], True),
    "text, then the same reason": ([delta({"content": "b"}), FINISH], False),
    "text, then the same reason twice": ([delta({"content": "b"}), FINISH, FINISH], True),
    "another choice": ([{"choices": [{"index": 1, "delta": {"content": "b"}}]}], False),
    "[DONE]": (["[DONE]"], True),
}


@pytest.mark.parametrize(("following", "is_over"), NEXT.values(), ids=NEXT)
def test_a_done_waits_for_the_input_behind_the_finish_reason(
    following: list[object], is_over: bool
) -> None:
    acc, events = listening()
    acc.feed(delta({"content": "a", "tool_calls": [call(0, "[1", id="a")]}))
    for chunk in [FINISH, *following]:
        assert "choice.done" not in types(events)
        acc.feed(chunk)
    for done in ("choice.done", "content.done", f"{FUNCTION}.done"):
        assert (done in types(events)) == is_over
    acc.close()
    check(acc, events)


# --- which events come, and in which order ---

# Arguments in fragments, those of one chunk in a list, and the deltas in their events.
Arguments = dict[str, tuple[list[str | list[str]], list[str]]]
ARGUMENTS: Arguments = {
    "an object": (['{"a": 1}'], ['{"a": 1}']),
    "an empty object": (["{}"], ["", "{}"]),
    "an empty object, named before": (["", "{}"], ["", "{}"]),
    "an empty object, blanks behind": (["{}", " "], ["", "{} "]),
    "an empty object in two": (["{", "}"], ["{", "}"]),
    "an empty object, replaced": (["{}", '{"a"', ": 1}"], ["", '{"a"', ": 1}"]),
    "an empty object in two, replaced": (["{", "}", '{"a"', ": 1}"], ["{", '"a"', ": 1}"]),
    "an empty object, said again": (["{}", "{}"], ["", "{}"]),
    "an empty object, replaced in one chunk": (["{}", ['{"a"', ": 1}"]], ["", '{"a": 1}']),
}


# The same, where each fragment is the whole so far.
WHOLES: Arguments = {
    "each begins with the last": (["{", '{"a"', '{"a": 1', '{"a": 1}'], ["{", '"a"', ": 1", "}"]),
    "one is empty": (["{", "", '{"a": 1}'], ["{", '"a": 1}']),
    "one is another text": (["[", "{", "[{1"], ["[", "{", "1"]),
}
LAST = DEFAULT_RULES.replace({"delta.tool_calls.function.arguments": "last"})


@pytest.mark.parametrize(
    ("rules", "name"),
    [*((DEFAULT_RULES, name) for name in ARGUMENTS), *((LAST, name) for name in WHOLES)],
    ids=[*ARGUMENTS, *WHOLES],
)
def test_deltas_of_arguments_tell_what_is_new_and_will_not_be_replaced(
    rules: Rules, name: str
) -> None:
    fragments, deltas = (ARGUMENTS | WHOLES)[name]
    lists = [[each] if isinstance(each, str) else each for each in fragments]
    events = told((calls(*(call(0, text) for text in each)) for each in lists), rules=rules)
    found = only(ev.FunctionToolCallArgumentsDeltaEvent, events)
    assert [event.delta for event in found] == deltas


def brief(event: Any) -> str:
    """Describe an event in a few words."""
    kind, _, when = event.type.rpartition(".")
    index = getattr(event, "index", None)
    names = {FUNCTION: f"call {index}", "tool_calls.custom.input": f"custom {index}"}
    what = getattr(event, "field", names.get(kind, kind))
    if isinstance(event, ev.ExtraDeltaEvent):
        return f"{event.path} {json.dumps(event.value, sort_keys=True)}"
    if isinstance(event, ev.UsageEvent):
        return f"usage {event.usage.total_tokens}"
    if isinstance(event, ev.ProblemEvent):
        return event.problem.kind
    return f"{what} {event.delta}" if when == "delta" else f"{what} is done"


TEXT, IMAGE = {"text": "a", "type": "text"}, {"type": "image", "url": "u"}
HALF = {"text": "\ude00b", "type": "text"}
DETAIL = {"index": 0, "text": "a", "type": "reasoning.text"}
EMPTY = [{"index": n, "id": f"call-{n}", "function": Chunk()} for n in (0, 1)]
INPUTS = [{"index": n, "custom": {"input": "x"}} for n in (0, 1)]
USAGES: list[Chunk] = [{"prompt_tokens": 3}, {"prompt_tokens": 3}, {"completion_tokens": 2}]
# Chunks, and the events before the stream is closed.
TOLD: dict[str, tuple[list[Chunk], list[str]]] = {
    "one text": (
        deltas({"content": "a"}, {"content": "b"}, {"content": ""}), ["content a", "content b"]
    ),
    "thoughts": (
        deltas({"reasoning_content": "a"}, {"content": "", "reasoning_content": "b"}, {}),
        ["reasoning_content a", "reasoning_content b"],
    ),
    "thoughts before the answer": (
        deltas({"content": "a", "reasoning": "b"}, {"content": "c", "reasoning": "d"}),
        ["reasoning b", "content a", "reasoning d", "content c"],
    ),
    "thoughts twice": (
        deltas(*({"reasoning": text, "reasoning_content": text} for text in "ab")),
        ["reasoning a", "reasoning_content a", "reasoning b", "reasoning_content b"],
    ),
    "one text, then parts": (
        deltas({"content": "b"}, {"content": [TEXT]}, {"content": "c"}),
        ["content b", "content a", "content c"],
    ),
    "half a pair, then parts": (
        deltas({"content": "a\ud83d"}, {"content": [HALF]}, {"content": "\ud83d"}),
        ["content a", "content 😀b"],
    ),
    "half a pair, then a part that cannot bring the other": (
        deltas({"content": "a\ud83d"}, {"content": [IMAGE]}, {"content": "\ude00"}),
        ["content a", "content \ufffd", "lone_surrogate", f"delta.content [{json.dumps(IMAGE)}]",
         "content \ufffd"],  # the same problem again
    ),
    "half a pair in a thinking part, then another part": (
        deltas({"content": [{"type": "thinking", "thinking": [{**TEXT, "text": "a\ud83d"}]}]},
               {"content": "b"}, {"content": [{"type": "thinking", "thinking": "c"}]}),
        ["thinking a", "thinking \ufffd", "lone_surrogate", "content b", "thinking c"],
    ),
    "parts before calls, whatever else the delta has": (
        deltas({"content": [IMAGE]}, {"content": "a", "tool_calls": [call(0, "1")], "images": [1]}),
        [f"delta.content [{json.dumps(IMAGE)}]", "content a", "call 0 1", "delta.images [1]"],
    ),
    "a tool that is empty until the other comes": (
        [calls(*EMPTY), calls(*INPUTS)], ["custom 0 x", "custom 1 x"]
    ),
    "a call that is done before the fragment that shows it": (
        [calls(call(0, "[1]", id="a"), call(1, "[", id="b"))],
        ["call 0 [1]", "call 0 is done", "call 1 ["],
    ),
    "a finish reason with every chunk ends nothing": (
        deltas(*({"content": "a", "tool_calls": [call(0, t)]} for t in "[]"), finish_reason="stop"),
        ["content a", "call 0 [", "content_after_finish", "content a", "call 0 ]"],
    ),
    "what comes behind the finish reason": (
        [
            *deltas({"content": "a"}, {"content": "b"}, {"refusal": "c"}, finish_reason="stop"),
            *deltas({}, {"reasoning": "d"}),
        ],
        ["content a", "content_after_finish", "content b", "refusal c",  # the same problem again
         "content is done", "refusal is done", "choice is done", "reasoning d"],
    ),
    "a problem behind what its chunk brought before it": (
        deltas(*({"content": "a", "tool_calls": [call(0, text, id=text)]} for text in "12")),
        ["content a", "call 0 1", "content a", "ambiguous_tool_call", "call 0 2"],
    ),
    "a problem with what it is about": (
        [calls(call(0, "[1]")), calls(call(0, "]"))],
        ["call 0 [1]", "arguments_after_end", "call 0 ]"],
    ),
    "the end of texts in the order in which they began": (
        [*deltas({"reasoning_content": "a"}, {"content": ""}, {"content": "c", "reasoning": "b"}),
         delta({}, finish_reason="stop"), delta({})],
        ["reasoning_content a", "reasoning b", "content c", "reasoning_content is done",
         "reasoning is done", "content is done", "choice is done"],
    ),
    "usage where it changes": ([{"usage": each} for each in USAGES], ["usage None", "usage 5"]),
    # What has no event of its own.
    "images": (deltas({"images": [1]}, {"images": [1]}), ["delta.images [1]"] * 2),
    "annotations": (deltas({"annotations": [{"a": 1}]}), ['delta.annotations [{"a": 1}]']),
    "a joined text": (
        deltas({"vendor": "a"}, {"vendor": "a"}, {"vendor": ""}), ['delta.vendor "a"'] * 2
    ),
    "a label that is repeated": (
        deltas({"channel": "a"}, {"channel": "a"}, {"channel": "b"}),
        ['delta.channel "a"', 'delta.channel "b"'],
    ),
    "a number, and a list between": (
        [*deltas({}, {}, vendor=0), *deltas({}, vendor=[]), *deltas({}, vendor=0)],
        ["choice.vendor 0", "choice.vendor []", "choice.vendor 0"],
    ),
    "a list that equals the last one and is another": (
        [{"x": each} for each in ([{"a": 1}], [{"a": True}], [{"a": True}], [{"a": 1.0}])],
        ['chunk.x [{"a": 1}]', 'chunk.x [{"a": true}]', 'chunk.x [{"a": 1.0}]'],
    ),
    "nulls and padding": ([delta({"x": None, "function_call": {}}, obfuscation="x", y=None)], []),
    "of the chunk": ([{"citations": ["u"]}, {"citations": ["u"]}], ['chunk.citations ["u"]']),
    "moderation": ([{"moderation": {"a": 1}}], ['chunk.moderation {"a": 1}']),
    "of the choice": ([delta({}, filter={"hate": False})], ['choice.filter {"hate": false}']),
    "of logprobs": ([delta({}, logprobs={"tokens": [1]})], ["choice.logprobs.tokens [1]"]),
    "of audio": (
        deltas({"audio": {"expires_at": 3, "voice": "a"}}),
        ["delta.audio.expires_at 3", 'delta.audio.voice "a"'],
    ),
    "of a call": (
        [calls(call(7, "1"), call(8, "2", id="b", extra_content={"s": "x"}))],
        ["call 0 1", "call 1 2", 'delta.tool_calls[1].extra_content {"s": "x"}'],
    ),
    "of a function": (
        [calls({"index": 7, "function": {"name": "f", "note": "n"}})],
        ["call 0 ", 'delta.tool_calls[0].function.note "n"'],
    ),
    "the text of a legacy completion": (
        [{"choices": [{"text": text}]} for text in ("a", "", "a")], ['choice.text "a"'] * 2
    ),
    "a text beside a delta": (
        deltas({"content": "a"}, {"content": "a"}, text="a"),
        ["content a", 'choice.text "a"', "content a"],
    ),
    "the old function call": (
        deltas({"function_call": {"name": "f"}}), ['delta.function_call {"name": "f"}']
    ),
    "parts": (
        deltas({"content": [TEXT, IMAGE]}), ["content a", f"delta.content [{json.dumps(IMAGE)}]"]
    ),
    "reasoning, and its details": (
        deltas({"reasoning": "a", "reasoning_details": [DETAIL]}),
        ["reasoning a", f"delta.reasoning_details [{json.dumps(DETAIL)}]"],
    ),
    "details come last, whether the chunk is read field by field or not": (
        deltas(*[{"reasoning_details": [DETAIL], "annotations": [1], "z": [1]}] * 4),
        ["delta.z [1]", "delta.annotations [1]", f"delta.reasoning_details [{json.dumps(DETAIL)}]"]
        * 4,
    ),
    "reasoning details": (
        deltas({"reasoning_details": [DETAIL]}), [f"delta.reasoning_details [{json.dumps(DETAIL)}]"]
    ),
}  # fmt: skip


@pytest.mark.parametrize("as_json", [False, True], ids=["mappings", "JSON"])
@pytest.mark.parametrize(("chunks", "expected"), TOLD.values(), ids=TOLD)
def test_what_comes_is_told_in_order(
    chunks: list[Chunk], expected: list[str], as_json: bool
) -> None:
    acc, events = listening()
    for chunk in chunks:
        acc.feed(json.dumps(chunk) if as_json else chunk)
    assert [brief(event) for event in events] == expected
    acc.close()
    check(acc, events)


def test_fields_that_a_rule_moves_or_joins_are_told_and_what_it_drops_is_not() -> None:
    rules = DEFAULT_RULES.replace(
        {"delta.content": "last", "chunk.note": "concat", "chunk.pad": "drop"}
    )
    chunks = [{**delta({"content": text}), "note": "n", "pad": "p"} for text in "aab"]
    events: list[Event] = []
    fed(chunks, on_event=events.append, rules=rules)
    found = sorted(map(brief, only(ev.ExtraDeltaEvent, events)))
    assert found == ['chunk.note "n"'] * 3 + ['delta.content "a"', 'delta.content "b"']


@pytest.mark.parametrize(
    ("fields", "tool"),
    [
        ({}, "function.arguments"),
        ({"type": "function"}, "function.arguments"),
        ({"type": "custom"}, "custom.input"),
        ({"x": 1}, "function.arguments"),
        ({"function": {}}, "function.arguments"),
        ({"custom": {}}, "custom.input"),
    ],
)
def test_a_call_of_which_nothing_came_is_told_at_the_end(fields: Chunk, tool: str) -> None:
    found = types(told([calls({"index": 0, "id": "a", **fields})]))
    expected = [f"tool_calls.{tool}.delta", f"tool_calls.{tool}.done"]
    assert [each for each in found if each.startswith("tool_calls")] == expected


def test_a_done_says_whether_a_call_without_arguments_is_whole() -> None:
    named = calls({"index": 0, "id": "a", "function": {"name": "now"}})
    for end, is_whole in (([], False), ([FINISH], True)):
        [done] = only(ev.FunctionToolCallArgumentsDoneEvent, told([named, *end]))
        assert done.tool_call.function is not None
        assert done.tool_call.function.arguments_complete == is_whole


def test_texts_beyond_those_that_are_known_are_told() -> None:
    heads = [call(n, '{"a": ', id=f"call-{n}") for n in range(300)]
    chunks = [delta({"content": [TEXT, IMAGE]})] * 300
    chunks += [calls(each) for each in [*heads, *(call(n, "1}") for n in range(300))]]
    found = types(told(chunks))
    assert (found.count("content.delta"), found.count(f"{FUNCTION}.delta")) == (300, 600)


def test_every_call_is_announced_by_a_delta_and_told_by_name() -> None:
    names = ("get", "_it")
    events = told([calls({"index": 3, "id": "a", "function": {"name": name}}) for name in names])
    [first] = only(ev.FunctionToolCallArgumentsDeltaEvent, events)
    assert (first.index, first.id, first.name, first.delta) == (0, "a", "get", "")
    # openai-python's names:
    assert (first.arguments_delta, first.arguments) == (first.delta, first.snapshot)
    [done] = only(ev.FunctionToolCallArgumentsDoneEvent, events)
    assert (done.index, done.id, done.name, done.arguments) == (0, "a", "get_it", "")


def test_calls_that_the_server_numbers_alike_are_told_apart() -> None:
    functions = {id: {"name": id, "arguments": "{}"} for id in "abc"}
    events = told([calls({"index": 0, "id": id, "function": functions[id]}) for id in "abc"])
    dones = only(ev.FunctionToolCallArgumentsDoneEvent, events)
    assert [(done.index, done.id) for done in dones] == [(0, "a"), (1, "b"), (2, "c")]


def test_azures_late_filter_results_are_in_the_choice() -> None:
    late = {"content_filter_results": {"hate": False}}
    events = told([delta({}, finish_reason="stop"), {"choices": [{"index": 0, **late}]}])
    [done] = only(ev.ChoiceDoneEvent, events)
    assert (done.finish_reason, done.choice.extra) == ("stop", late)


# A chunk, and what changes its choice after the `choice.done`.
CHANGED: dict[str, tuple[Chunk, list[Chunk]]] = {
    "more text": (delta({"content": "a"}), deltas({"content": "b"})),
    "half a pair that stays alone": (delta({"vendor": {"text": "\ud83d"}}), []),
    "it is a legacy completion's": (
        {"choices": [{"text": "a"}]}, [{"object": "text_completion", "choices": []}]
    ),
}  # fmt: skip


@pytest.mark.parametrize(("first", "later"), CHANGED.values(), ids=CHANGED)
def test_done_has_a_choice_as_it_is_at_the_end(first: Chunk, later: list[Chunk]) -> None:
    end = {"choices": [{"finish_reason": "stop"}]}
    events = told([first, end, {"choices": []}, *later])
    [before], [done] = only(ev.ChoiceDoneEvent, events), only(ev.DoneEvent, events)
    assert done.completion.choices[0] != before.choice


def test_a_half_in_a_vendors_value_is_replaced_in_its_event_too() -> None:
    events = told([delta({"vendor": {"k": "a\ud83d"}, "annotations": ["\ude00"]})])
    values = [event.value for event in only(ev.ExtraDeltaEvent, events)]
    assert values == [{"k": "a\ufffd"}, ["\ufffd"]]


def test_problems_too_many_to_be_kept_are_told() -> None:
    assert types(told(["no json"] * 150)) == [*["problem"] * 150, "done"]


ENDS: dict[str, tuple[bytes, str, object]] = {
    "[DONE]": (b"data: [DONE]\n\n", "complete", None),
    "an error event": (b'event: error\ndata: {"code": 5}\n\n', "failed", {"code": 5}),
    "an error chunk": (b'data: {"error": {"code": 5}}\n\n', "failed", {"code": 5}),
}


@pytest.mark.parametrize(("end", "status", "error"), ENDS.values(), ids=ENDS)
def test_done_comes_as_soon_as_the_stream_ends(end: bytes, status: str, error: object) -> None:
    acc, events = listening()
    acc.feed_sse(rendered([delta({"content": "a\ud83d"})]) + end)
    before = shown(events)
    last = events[-1]
    assert isinstance(last, ev.DoneEvent)
    assert last.status == status
    assert last.server_error == last.error == error
    assert last.completion.choices[0].message.content == "a\ufffd"
    acc.close()
    acc.close()
    assert shown(events) == before


def test_a_usage_is_that_of_its_event_whenever_it_is_looked_at() -> None:
    def usage(n: int, costs: dict[str, int]) -> Chunk:
        details = {"x": n}
        return {"completion_tokens": n, "cost": costs, "completion_tokens_details": details}

    events = told([{"usage": usage(n, {"all": n, f"k{n}": n})} for n in range(100)])
    assert [event.usage for event in only(ev.UsageEvent, events)] == [
        ChatCompletion.from_dict(
            {"usage": usage(n, {"all": n, **{f"k{each}": each for each in range(n + 1)}})}
        ).usage
        for n in range(100)
    ]


def test_a_usage_that_grows_without_end_is_told_at_a_bounded_cost() -> None:
    count = 5000
    events = told([{"choices": [], "usage": {f"k{n}": n}} for n in range(count)])
    usages = [event.usage.extra for event in only(ev.UsageEvent, events)]
    sizes = [*map(len, usages)]
    assert sizes[:30] == [*range(1, 31)]
    assert sizes[-1] == count
    assert sum(sizes) < 100 * count
    assert all(known == {f"k{n}": n for n in range(len(known))} for known in usages)


# --- snapshots, and unfinished JSON ---


def test_a_snapshot_is_that_of_its_event_whenever_it_is_looked_at() -> None:
    token = {"token": "x", "logprob": -1.0}
    chunks = [delta({"content": text}, logprobs={"content": [token]}) for text in "abc" * 20]
    events = told(chunks)
    deltas = only(ev.ContentDeltaEvent, events)
    assert [event.snapshot for event in reversed(deltas)] == [
        ("abc" * 20)[:length] for length in range(60, 0, -1)
    ]
    tokens = only(ev.LogprobsContentDeltaEvent, events)
    assert [len(event.snapshot) for event in tokens] == [*range(1, 61)]


def test_events_are_frozen() -> None:
    for event in told([delta({"content": "a"}, finish_reason="stop")]):
        with pytest.raises(AttributeError):
            event.type = "content.delta"  # type: ignore[misc]  # that is the point


@needs_jiter
def test_parsed_is_what_is_known_of_unfinished_json_in_whatever_order_it_is_looked_at() -> None:
    pieces = ['{"city": "Par', 'is", "days": [1, ', "2]", "}"]
    days = {"city": "Paris", "days": [1, 2]}
    known = [{"city": "Par"}, {"city": "Paris", "days": [1]}, days, days]
    contents = only(ev.ContentDeltaEvent, told([delta({"content": each}) for each in pieces]))
    events = told([calls(call(0, piece)) for piece in pieces])
    arguments = only(ev.FunctionToolCallArgumentsDeltaEvent, events)
    for order in ([0, 3, 1, 2], [2, 0], [3, 3], [0, 1, 2, 3]):
        for found in contents, arguments:
            assert [found[place].parsed for place in order] == [known[place] for place in order]
    assert [each.parsed_arguments for each in arguments] == known
    for event in only(ev.ContentDeltaEvent, told([delta({"content": "Hello, "})])):
        assert event.parsed is None


# --- what goes wrong ---


def test_a_chunk_that_a_limit_refuses_tells_nothing() -> None:
    acc, events = listening(limits=Limits(choices=1, tool_calls=1))
    acc.feed(delta({"content": "a"}))
    before = types(events)
    two_choices = {"choices": [{"index": 1, "delta": {"content": "b"}}]}
    two_calls = calls(call(0, "{}"), call(1, "{}"))
    for chunk in (two_choices, two_calls, json.dumps(two_choices), json.dumps(two_calls)):
        with pytest.raises(LimitExceededError):
            acc.feed(chunk)
    assert types(events) == before
    acc.feed(delta({"content": "c"}))
    acc.close()
    check(acc, events)


def test_a_limit_inside_a_read_tells_what_stands_before_it() -> None:
    acc, events = listening(limits=Limits(choices=1))
    other = {"choices": [{"index": 1, "delta": {"content": "b"}}]}
    with pytest.raises(LimitExceededError):
        acc.feed_sse(rendered([delta({"content": "a"}), other, delta({"content": "c"})]))
    assert list(map(brief, events)) == ["content a"]
    acc.feed_sse(b"")
    assert list(map(brief, events)) == ["content a", "content c"]
    acc.close()
    check(acc, events)


@given(bodies(ODD_STREAMS))
def test_strict_mode_tells_before_it_raises(body: bytes) -> None:
    acc, events = listening(strict=True)
    for _ in range(40):  # the next call reads what follows an event that raised
        count = len(events)
        try:
            acc.feed_sse(b"" if count else body)
            acc.close()
        except AccumulatorError as error:
            problem = error.problem
            assert problem is not None
            before, new = (only(ev.ProblemEvent, part) for part in (events[:count], events[count:]))
            if problem not in [event.problem for event in new]:
                # A problem like it had its event before.
                assert problem.kind not in LOSSY_KINDS
                known = [event.problem for event in before]
                assert (problem.kind, problem.path) in [(each.kind, each.path) for each in known]
        except ValueError:
            break  # closed by a close that raised
    check(acc, events)


def test_to_show_an_event_puts_no_text_together() -> None:
    events = [*told(FULL), *told([delta({"content": "a word"})])]
    shown = {type(event).__name__: repr(event) for event in events}
    assert "<6 characters>" in shown["ContentDeltaEvent"]
    assert "..." in shown["DoneEvent"]
    assert "<3 bytes, 1 characters>" in shown["AudioDeltaEvent"]
    assert "value=[1]" in shown["ExtraDeltaEvent"]
    assert "usage=Usage(prompt_tokens=3" in shown["UsageEvent"]
    assert [text for text in shown.values() if "(_" in text or " _" in text] == []
    assert [text for text in map(repr, events) if "snapshot=(" in text] == []


def test_an_event_that_looks_back_has_no_hash_and_is_equal_to_none_of_another_kind() -> None:
    content, refusal, *_ = told([delta({"content": "a"}), delta({"refusal": "a"})])
    others: list[object] = [refusal, "a"]
    assert [content == other for other in others] == [False, False]
    with pytest.raises(TypeError, match="ContentDeltaEvent has no hash"):
        hash(content)


class Boom(Exception):
    pass


def test_a_callback_that_cannot_be_called_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="on_event is a function of an event, not list"):
        Accumulator(on_event=[])  # type: ignore[arg-type]  # is the point


@pytest.mark.parametrize("form", ["body", "chunks", "lines"])
def test_what_the_callback_raises_reaches_the_caller_and_loses_nothing(form: str) -> None:
    case = next(case for case in CASES if case.name == "ends-tool-call-after-finish")
    events: list[Event] = []

    def fail(event: Event) -> None:
        events.append(event)
        raise Boom

    acc = Accumulator(on_event=fail)
    feeds: dict[str, Callable[[object], None]] = {
        "body": lambda chunk: acc.feed_sse(rendered([chunk])),
        "chunks": acc.feed,
        "lines": lambda chunk: acc.feed_line(encode(chunk)),
    }
    for chunk in [chunk for chunk in case.chunks if chunk != DONE]:
        with pytest.raises(Boom):
            feeds[form](chunk)
    for _ in range(20):
        with suppress(Boom):
            acc.close()
    check(acc, events)
    assert acc.snapshot().to_dict() == case.completion


def test_the_callback_may_look_and_close() -> None:
    events: list[Event] = []

    def look(event: Event) -> None:
        events.append(event)
        acc.snapshot()
        acc.close()

    acc = Accumulator(on_event=look)
    acc.feed(delta({"content": "a"}))
    check(acc, events)


# --- what goes to another process ---

BROUGHT = {
    "delta": {
        "content": "a",
        "vendor": "v",
        "refusal": "r",
        "reasoning": "t",
        "reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "a"}],
        "audio": {"data": "AAAA", "transcript": "h"},
        "tool_calls": [call(0, "{}", id="a"), {"index": 1, "custom": {"input": "i"}}],
    },
    "logprobs": {name: [{"token": "x", "logprob": -1.0}] for name in ("content", "refusal")},
}
FULL: list[Chunk] = [
    {"choices": [{"index": 0, **BROUGHT}], "usage": {"prompt_tokens": 3}, "x": [1]},
    {"error": {"message": "no"}},
]


CLASSES = get_args(Event)


def copied(value: object) -> list[object]:
    pickled = [pickle.loads(pickle.dumps(value, level)) for level in range(2, 6)]
    return [*pickled, copy.copy(value), copy.deepcopy(value)]


def test_events_are_pickled_and_copied() -> None:
    events = told(FULL)
    assert {type(event) for event in events} == set(CLASSES)
    stand_in = told([{"choices": [], "x_groq": {"usage": {"prompt_tokens": 3}}}])
    assert "usage" in types(stand_in)
    for event in [*events, *stand_in]:
        assert all(each == event for each in copied(event))


FAILURES: dict[str, tuple[list[Chunk], dict[str, Any]]] = {
    "ServerError": (FULL, {}),
    "LimitExceededError": (FULL, {"limits": Limits(tool_calls=1)}),
    "IncompleteStreamError": (FULL[:1], {}),
    "DecodeError": ([{"choices": 1}, delta({}, finish_reason="stop")], {}),
    "ServerError, strict": (FULL, {"strict": True}),
}


@pytest.mark.parametrize(("chunks", "options"), FAILURES.values(), ids=FAILURES)
def test_errors_are_pickled_and_copied(chunks: list[Chunk], options: dict[str, Any]) -> None:
    with pytest.raises(AccumulatorError) as raised:
        accumulate(chunks, **options)
    error = raised.value
    for each in copied(error):
        assert type(each) is type(error)
        assert (str(each), vars(each)) == (str(error), vars(error))


def test_errors_and_events_come_out_of_a_process_pool() -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        with pytest.raises(ServerError) as raised:
            pool.submit(accumulate, FULL).result()
        assert raised.value.error == {"message": "no"}
        assert pool.submit(copy.copy, told(FULL)[-1]).result() == told(FULL)[-1]


def test_types_are_one_to_a_class() -> None:
    literals = [
        next(field.default for field in msgspec.structs.fields(cls) if field.name == "type")
        for cls in CLASSES
    ]
    assert len(set(literals)) == len(CLASSES) == 21
    assert {cls.__name__ for cls in CLASSES} == {
        name for name, kind in vars(ev).items() if isinstance(kind, type) and name.endswith("Event")
    }
