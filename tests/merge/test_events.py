"""Typed events: whatever the stream, they add up to its completion."""

from __future__ import annotations

import copy
import importlib.util
import json
import multiprocessing
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import CHOICES, ODD_STREAMS, bodies, rendered
from strategies import cut as cuts_of
from streamed import cut, fed, read_whole
from telling import check, events_of, shown, told
from test_conformance import CASES, DONE, Case, encode, every_case

from accumulator import (
    DEFAULT_RULES,
    Accumulator,
    AccumulatorError,
    LimitExceededError,
    Limits,
    ServerError,
    accumulate,
)
from accumulator import events as ev
from accumulator.errors import LOSSY_KINDS
from accumulator.events import Event

HAS_JITER = importlib.util.find_spec("jiter") is not None
needs_jiter = pytest.mark.skipif(not HAS_JITER, reason="the extra `partial` is not installed")
Chunk = dict[str, object]


def delta(fields: Chunk, **choice: object) -> Chunk:
    return {"choices": [{"index": 0, "delta": fields, **choice}]}


def call(index: int, arguments: str | None = None, **fields: object) -> Chunk:
    return {"index": index, "function": {"arguments": arguments}, **fields}


def types(events: Sequence[Event]) -> list[str]:
    return [event.type for event in events]


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


@pytest.mark.parametrize("case", [c for c in CASES if c.body is None], ids=lambda case: case.name)
def test_chunks_and_lines_give_the_same_events(case: Case) -> None:
    by_line: list[Event] = []
    by_chunk: list[Event] = []
    lines, chunks = Accumulator(on_event=by_line.append), Accumulator(on_event=by_chunk.append)
    for chunk in case.chunks:
        lines.feed_line(b"data: " + encode(chunk))
        lines.feed_line(b"")
        if chunk == DONE:
            chunks.feed_line(DONE)
        else:
            chunks.feed(encode(chunk))
    for acc, events in ((lines, by_line), (chunks, by_chunk)):
        acc.close()
        check(acc, events)

    def without_problems(events: list[Event]) -> list[object]:
        return shown([event for event in events if event.type != "problem"])  # these have offsets

    assert without_problems(by_line) == without_problems(by_chunk)
    _, by_body = events_of([case.data])
    assert without_problems(by_line) == without_problems(by_body)


def test_events_of_recorded_streams_add_up(corpus_stream: Path) -> None:
    body = corpus_stream.read_bytes()
    acc, events = events_of([body])
    check(acc, events)
    _, in_pieces = events_of(cut(body, 61))
    assert in_pieces == events
    plain = read_whole(body)
    assert plain.snapshot() == acc.snapshot()
    assert plain.problems == acc.problems


@given(st.data(), bodies(ODD_STREAMS))
def test_any_stream_in_any_cut_gives_the_same_events(data: st.DataObject, body: bytes) -> None:
    acc, events = events_of([body])
    check(acc, events)
    _, in_pieces = events_of(data.draw(cuts_of(body)))
    assert shown(in_pieces) == shown(events)


@given(bodies(ODD_STREAMS))
def test_events_change_nothing_else(body: bytes) -> None:
    plain, (acc, _) = read_whole(body), events_of([body])
    assert acc.snapshot().to_dict() == plain.snapshot().to_dict()
    assert (acc.status, acc.problems) == (plain.status, plain.problems)


# A problem in the midst of a chunk shows what was told by then: texts, then calls.
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
    events = told(chunks)
    deltas = [getattr(e, "delta", getattr(e, "transcript", None)) for e in events]
    assert [text for text in deltas if text] == ["a", "😀b" if end else "\ufffd"]
    (done,) = [e for e in events if e.type.endswith(".done") and e.type != "choice.done"]
    values = ("content", "refusal", "reasoning", "arguments", "input", "audio")
    value = next(getattr(done, name) for name in values if hasattr(done, name))
    assert getattr(value, "transcript", value) == ("a😀b" if end else "a\ufffd")


def test_half_a_pair_held_back_survives_the_change_to_parts() -> None:
    events = told(
        [
            delta({"content": "a\ud83d"}),
            delta({"content": [{"type": "text", "text": "\ude00"}, {"type": "image_url"}]}),
            delta({"content": "b\ud83d"}),
        ]
    )
    texts = [event.delta for event in events if event.type == "content.delta"]
    assert texts == ["a", "😀", "b", "\ufffd"]


@pytest.mark.parametrize("end", ["\ude00", ""], ids=["joined", "left alone"])
@pytest.mark.parametrize("start", ["a", ""])
def test_half_a_pair_in_a_vendors_text_waits_for_the_other(start: str, end: str) -> None:
    events = told([delta({"vendor": start + "\ud83d"}), delta({"vendor": end})])
    values = [event.value for event in events if isinstance(event, ev.ExtraDeltaEvent)]
    assert values == [*start, "😀" if end else "\ufffd"]


# --- when a `.done` comes ---


def place(events: list[Event], type_: str, index: int) -> int:
    return next(
        i
        for i, event in enumerate(events)
        if event.type == type_ and getattr(event, "index", None) == index
    )


FUNCTION = "tool_calls.function.arguments"
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
    chunks = [
        delta({"tool_calls": [call(index, arguments, id=f"call-{index}")]})
        for index, arguments in fragments
    ]
    events: list[Event] = []
    acc = Accumulator(on_event=events.append)
    for number, chunk in enumerate(chunks):
        acc.feed(chunk)
        dones = [e.index for e in events if e.type == "tool_calls.function.arguments.done"]
        assert (0 in dones) == (at is not None and number >= at)
    acc.feed(delta({}, finish_reason="tool_calls"))
    acc.feed({"choices": []})
    dones = [e.index for e in events if e.type == "tool_calls.function.arguments.done"]
    assert sorted(dones) == sorted({index for index, _ in fragments})
    acc.close()
    check(acc, events)


FINISH = delta({}, finish_reason="tool_calls")
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
    "arguments": ([delta({"tool_calls": [call(0, " ")]})], False),
    "no arguments": ([delta({"tool_calls": [call(0, "")]})], True),
    "another call": ([delta({"tool_calls": [call(1, "", id="b")]})], False),
    "text, then nothing": ([delta({"content": "b"}), delta({})], True),
    "another choice": ([{"choices": [{"index": 1, "delta": {"content": "b"}}]}], False),
    "[DONE]": (["[DONE]"], True),
}


@pytest.mark.parametrize(("following", "is_over"), NEXT.values(), ids=NEXT)
def test_a_done_waits_for_the_input_behind_the_finish_reason(
    following: list[object], is_over: bool
) -> None:
    events: list[Event] = []
    acc = Accumulator(on_event=events.append)
    acc.feed(delta({"content": "a", "tool_calls": [call(0, "[1", id="a")]}))
    for chunk in [FINISH, *following]:
        assert "choice.done" not in types(events)
        acc.feed(chunk)
    for done in ("choice.done", "content.done", f"{FUNCTION}.done"):
        assert (done in types(events)) == is_over
    acc.close()
    check(acc, events)


def test_a_finish_reason_with_every_chunk_ends_nothing_early() -> None:
    pieces = ['{"city"', ': "Os', 'lo"}']
    chunks = [delta({"content": "a"}, finish_reason="stop")]
    chunks += [delta({"tool_calls": [call(0, p)]}, finish_reason="stop") for p in pieces]
    events = told([*chunks, delta({"content": "b"}, finish_reason="length")])
    dones = [event for event in events if event.type.endswith(".done")]
    assert [e.type for e in dones] == ["content.done", f"{FUNCTION}.done", "choice.done"]
    values = [getattr(e, "arguments", getattr(e, "content", None)) for e in dones]
    assert values == ["ab", "".join(pieces), None]


# arguments in fragments, and the deltas that tell of them
PLACEHOLDERS: dict[str, tuple[list[str | list[str]], list[str]]] = {
    "to the end": (["{}"], ["", "{}"]),
    "named before": (["", "{}"], ["", "{}"]),
    "blanks behind": (["{}", " "], ["", "{} "]),
    "in two": (["{", "}"], ["{", "}"]),
    "replaced": (["{}", '{"a"', ": 1}"], ["", '{"a"', ": 1}"]),
    "in two, replaced": (["{", "}", '{"a"', ": 1}"], ["{", '"a"', ": 1}"]),
    "said again": (["{}", "{}"], ["", "{}"]),
    "replaced by two of one chunk": (["{}", ['{"a"', ": 1}"]], ["", '{"a": 1}']),
    "an object": (['{"a": 1}'], ['{"a": 1}']),
}


@pytest.mark.parametrize(("fragments", "deltas"), PLACEHOLDERS.values(), ids=PLACEHOLDERS)
def test_arguments_that_are_an_empty_object_wait(
    fragments: list[str | list[str]], deltas: list[str]
) -> None:
    lists = [[each] if isinstance(each, str) else each for each in fragments]
    events = told([delta({"tool_calls": [call(0, text) for text in each]}) for each in lists])
    found = [e.delta for e in events if isinstance(e, ev.FunctionToolCallArgumentsDeltaEvent)]
    assert found == deltas


def test_fragments_that_are_the_whole_so_far_tell_what_is_new() -> None:
    rules = DEFAULT_RULES.replace({"delta.tool_calls.function.arguments": "last"})
    texts = ("{", '{"a"', '{"a": 1', '{"a": 1}')
    events = told([delta({"tool_calls": [call(0, text)]}) for text in texts], rules=rules)
    found = [e.delta for e in events if isinstance(e, ev.FunctionToolCallArgumentsDeltaEvent)]
    assert found == ["{", '"a"', ": 1", "}"]


def test_a_done_says_whether_a_call_without_arguments_is_whole() -> None:
    named = delta({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "now"}}]})
    for end, is_whole in (([], False), ([FINISH], True)):
        dones = [
            event
            for event in told([named, *end])
            if isinstance(event, ev.FunctionToolCallArgumentsDoneEvent)
        ]
        functions = [event.tool_call.function for event in dones]
        assert [f is not None and f.arguments_complete for f in functions] == [is_whole]


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
def test_a_call_of_which_nothing_came_has_its_done(fields: Chunk, tool: str) -> None:
    events = told([delta({"tool_calls": [{"index": 0, "id": "a", **fields}]})])
    calls = [event.type for event in events if event.type.startswith("tool_calls")]
    assert calls == [f"tool_calls.{tool}.delta", f"tool_calls.{tool}.done"]


def test_a_tool_that_is_empty_until_the_other_comes_has_no_events() -> None:
    heads: list[Chunk] = [{"index": n, "id": f"call-{n}", "function": {}} for n in (0, 1)]
    inputs: list[Chunk] = [{"index": n, "custom": {"input": "x"}} for n in (0, 1)]
    events = told([delta({"tool_calls": heads}), delta({"tool_calls": inputs})])
    calls = [event.type for event in events if event.type.startswith("tool_calls")]
    assert calls == ["tool_calls.custom.input.delta"] * 2 + ["tool_calls.custom.input.done"] * 2


def test_texts_beyond_those_that_are_known_are_told() -> None:
    count = 300
    parts: list[Chunk] = [{"type": "text", "text": "a"}, {"type": "image_url"}]
    calls = [call(n, '{"a": ', id=f"call-{n}") for n in range(count)]
    ends = [call(n, "1}") for n in range(count)]
    chunks = [delta({"content": parts})] * count
    chunks += [delta({"tool_calls": [fragment]}) for fragment in [*calls, *ends]]
    found = types(told(chunks))
    assert found.count("content.delta") == count
    assert found.count(f"{FUNCTION}.delta") == 2 * count


# deltas in turn, and what is told of them
DELTAS: dict[str, tuple[list[Chunk], list[str]]] = {
    "one text": ([{"content": "a"}, {"content": "b"}, {"content": ""}], ["content a", "content b"]),
    "thoughts": (
        [
            {"reasoning_content": "a"},
            {"content": "", "reasoning_content": "b"},
            {"content": ""},
            {},
        ],
        ["reasoning_content a", "reasoning_content b"],
    ),
    "thoughts before the answer": (
        [{"content": "a", "reasoning": "b"}, {"content": "c", "reasoning": "d"}],
        ["reasoning b", "content a", "reasoning d", "content c"],
    ),
    "thoughts twice": (
        [
            {"reasoning": "a", "reasoning_content": "b"},
            {"reasoning": "c", "reasoning_content": "d"},
        ],
        ["reasoning a", "reasoning_content b", "reasoning c", "reasoning_content d"],
    ),
    "one text, then parts": (
        [{"content": "a"}, {"content": [{"type": "text", "text": "b"}]}, {"content": "c"}],
        ["content a", "content b", "content c"],
    ),
}


@pytest.mark.parametrize("as_json", [False, True], ids=["mappings", "JSON"])
@pytest.mark.parametrize(("deltas", "expected"), DELTAS.values(), ids=DELTAS)
def test_texts_are_told_in_order(deltas: list[Chunk], expected: list[str], as_json: bool) -> None:
    chunks = [delta(fields) for fields in deltas]
    found = [
        f"{getattr(event, 'field', 'content')} {event.delta}"
        for event in told([json.dumps(chunk) for chunk in chunks] if as_json else chunks)
        if isinstance(event, (ev.ContentDeltaEvent, ev.ReasoningDeltaEvent))
    ]
    assert found == expected


# --- what no event is named for ---

EXTRAS: dict[str, tuple[list[Chunk], list[tuple[int | None, str, object]]]] = {
    "images": ([delta({"images": [1]}), delta({"images": [1]})], [(0, "delta.images", [1])] * 2),
    "annotations": ([delta({"annotations": [{"a": 1}]})], [(0, "delta.annotations", [{"a": 1}])]),
    "a joined text": (
        [delta({"vendor": "a"}), delta({"vendor": "a"}), delta({"vendor": ""})],
        [(0, "delta.vendor", "a"), (0, "delta.vendor", "a")],
    ),
    "a label that is repeated": (
        [delta({"channel": "a"}), delta({"channel": "a"}), delta({"channel": "b"})],
        [(0, "delta.channel", "a"), (0, "delta.channel", "b")],
    ),
    "a number, and a list between": (
        [delta({}, vendor=0), delta({}, vendor=0), delta({}, vendor=[]), delta({}, vendor=0)],
        [(0, "choice.vendor", 0), (0, "choice.vendor", []), (0, "choice.vendor", 0)],
    ),
    "nulls and padding": ([delta({"x": None, "function_call": {}}, obfuscation="x", y=None)], []),
    "of the chunk": (
        [{"choices": [], "citations": ["u"]}, {"choices": [], "citations": ["u"]}],
        [(None, "chunk.citations", ["u"])],
    ),
    "moderation": (
        [{"choices": [], "moderation": {"a": 1}}],
        [(None, "chunk.moderation", {"a": 1})],
    ),
    "of the choice": (
        [delta({}, content_filter_results={"hate": {"filtered": False}})],
        [(0, "choice.content_filter_results", {"hate": {"filtered": False}})],
    ),
    "of logprobs": ([delta({}, logprobs={"tokens": [1]})], [(0, "choice.logprobs.tokens", [1])]),
    "of audio": (
        [delta({"audio": {"expires_at": 3, "voice": "a"}})],
        [(0, "delta.audio.expires_at", 3), (0, "delta.audio.voice", "a")],
    ),
    "of a call": (
        [delta({"tool_calls": [call(7, "1"), call(8, "2", id="b", extra_content={"s": "x"})]})],
        [(0, "delta.tool_calls[1].extra_content", {"s": "x"})],
    ),
    "of a function": (
        [delta({"tool_calls": [{"index": 7, "function": {"name": "f", "note": "n"}}]})],
        [(0, "delta.tool_calls[0].function.note", "n")],
    ),
    "the text of a legacy completion": (
        [{"choices": [{"index": 0, "text": text}]} for text in ("a", "", "a")],
        [(0, "choice.text", "a"), (0, "choice.text", "a")],
    ),
    "a text beside a delta": (
        [delta({"content": "a"}, text="a"), delta({"content": "a"}, text="a")],
        [(0, "choice.text", "a")],
    ),
    "the old function call": (
        [delta({"function_call": {"name": "f"}})],
        [(0, "delta.function_call", {"name": "f"})],
    ),
    "parts": (
        [delta({"content": [{"type": "text", "text": "a"}, {"type": "image", "url": "u"}]})],
        [(0, "delta.content", [{"type": "image", "url": "u"}])],
    ),
    "reasoning details": (
        [delta({"reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "a"}]})],
        [(0, "delta.reasoning_details", [{"type": "reasoning.text", "index": 0, "text": "a"}])],
    ),
}


@pytest.mark.parametrize("as_json", [False, True], ids=["mappings", "JSON"])
@pytest.mark.parametrize(("chunks", "expected"), EXTRAS.values(), ids=EXTRAS)
def test_what_no_event_is_named_for_is_told(
    chunks: list[Chunk], expected: list[tuple[int | None, str, object]], as_json: bool
) -> None:
    events = told([json.dumps(chunk) for chunk in chunks] if as_json else chunks)
    extras = [event for event in events if isinstance(event, ev.ExtraDeltaEvent)]
    assert [(e.choice_index, e.path, e.value) for e in extras] == expected


def test_fields_that_a_rule_moves_or_joins_are_told_and_what_it_drops_is_not() -> None:
    rules = DEFAULT_RULES.replace(
        {"delta.content": "last", "chunk.note": "concat", "chunk.pad": "drop"}
    )
    chunks = [{**delta({"content": text}), "note": "n", "pad": "p"} for text in "aab"]
    events: list[Event] = []
    fed(chunks, on_event=events.append, rules=rules)
    extras = [event for event in events if isinstance(event, ev.ExtraDeltaEvent)]
    found = [(e.path, e.value) for e in extras]
    assert [value for path, value in found if path == "delta.content"] == ["a", "b"]
    assert [each for each in found if each[0] != "delta.content"] == [("chunk.note", "n")] * 3


def test_a_call_is_done_before_the_fragment_that_shows_it() -> None:
    events = told([delta({"tool_calls": [call(0, "[1]", id="a"), call(1, "[", id="b")]})])
    assert place(events, f"{FUNCTION}.done", 0) < place(events, f"{FUNCTION}.delta", 1)


def test_every_call_is_announced_by_a_delta_and_told_by_name() -> None:
    (first, *rest) = told(
        [
            delta({"tool_calls": [{"index": 3, "id": "a", "function": {"name": "get"}}]}),
            delta({"tool_calls": [{"index": 3, "function": {"name": "_it"}}]}),
        ]
    )
    assert isinstance(first, ev.FunctionToolCallArgumentsDeltaEvent)
    assert (first.index, first.id, first.name, first.delta) == (0, "a", "get", "")
    (done,) = [e for e in rest if isinstance(e, ev.FunctionToolCallArgumentsDoneEvent)]
    assert (done.index, done.id, done.name, done.arguments) == (0, "a", "get_it", "")


def test_the_names_of_openai_python_are_there_too() -> None:
    [event, *_] = told([delta({"tool_calls": [call(0, '{"a": 1}', id="a")]})])
    assert isinstance(event, ev.FunctionToolCallArgumentsDeltaEvent)
    assert (event.arguments_delta, event.arguments) == (event.delta, event.snapshot)
    if HAS_JITER:
        assert event.parsed_arguments == event.parsed == {"a": 1}


def test_calls_that_the_server_numbers_alike_are_told_apart() -> None:
    chunks = [
        delta({"tool_calls": [{"index": 0, "id": i, "function": {"name": i, "arguments": "{}"}}]})
        for i in ("a", "b", "c")
    ]
    calls = [e for e in told(chunks) if e.type == "tool_calls.function.arguments.done"]
    assert [(e.index, e.id) for e in calls] == [(0, "a"), (1, "b"), (2, "c")]


def test_what_comes_after_the_finish_reason_is_told_and_no_done_is_repeated() -> None:
    events = told(
        [
            delta({"content": "Hi"}, finish_reason="stop"),
            delta({"content": " there"}),
            delta({"refusal": "No"}, finish_reason="stop"),
            delta({}),
            delta({"reasoning": "Hm"}),
        ]
    )
    assert types(events) == [
        "content.delta",
        "problem",
        "content.delta",
        "refusal.delta",  # the same problem once more
        "content.done",
        "refusal.done",
        "choice.done",
        "reasoning.delta",
        "reasoning.done",
        "done",
    ]


def test_azures_late_filter_results_are_in_the_choice() -> None:
    events = told(
        [
            delta({"content": "Hi"}, finish_reason="stop"),
            {"choices": [{"index": 0, "content_filter_results": {"hate": False}}]},
        ]
    )
    (choice,) = [e for e in events if isinstance(e, ev.ChoiceDoneEvent)]
    results = {"content_filter_results": {"hate": False}}
    assert (choice.finish_reason, choice.choice.extra) == ("stop", results)


ENDS: dict[str, tuple[bytes, str]] = {
    "[DONE]": (b"data: [DONE]\n\n", "complete"),
    "an error event": (b'event: error\ndata: {"message": "no"}\n\n', "failed"),
    "an error chunk": (b'data: {"error": {"message": "no"}}\n\n', "failed"),
}


@pytest.mark.parametrize(("end", "status"), ENDS.values(), ids=ENDS)
def test_done_comes_as_soon_as_the_stream_ends(end: bytes, status: str) -> None:
    events: list[Event] = []
    acc = Accumulator(on_event=events.append)
    acc.feed_sse(rendered([delta({"content": "a\ud83d"})]) + end)
    before = shown(events)
    last = events[-1]
    assert isinstance(last, ev.DoneEvent)
    assert last.status == status
    assert last.completion.choices[0].message.content == "a\ufffd"
    acc.close()
    acc.close()
    assert shown(events) == before


def test_usage_is_told_when_it_changes() -> None:
    counts = [{"prompt_tokens": 3}, {"prompt_tokens": 3}, {"completion_tokens": 2}]
    events = told([{"choices": [], "usage": usage} for usage in counts])
    usages = [event.usage for event in events if event.type == "usage"]
    assert [usage.total_tokens for usage in usages] == [None, 5]


def test_a_usage_is_that_of_its_event_whenever_it_is_looked_at() -> None:
    count = 100
    usages: list[Chunk] = [
        {
            "completion_tokens": n,
            "cost": {f"k{n}": n, "all": n},
            "completion_tokens_details": {"x": n},
        }
        for n in range(count)
    ]
    events = told([{"choices": [], "usage": usage} for usage in usages])
    found = [event.usage for event in events if isinstance(event, ev.UsageEvent)]
    assert len(found) == count
    for n, usage in enumerate(found):
        assert usage.completion_tokens == n
        details = usage.completion_tokens_details
        assert details is not None
        assert details.extra == {"x": n}
        assert usage.extra == {"cost": {"all": n, **{f"k{each}": each for each in range(n + 1)}}}


def test_a_usage_that_grows_without_end_is_told_at_a_bounded_cost() -> None:
    count = 5000
    events = told([{"choices": [], "usage": {f"k{n}": n}} for n in range(count)])
    usages = [event.usage.extra for event in events if isinstance(event, ev.UsageEvent)]
    sizes = [*map(len, usages)]
    assert sizes[:30] == [*range(1, 31)]
    assert sizes[-1] == count
    assert sum(sizes) < 100 * count
    assert all(known == {f"k{n}": n for n in range(len(known))} for known in usages)


def test_a_problem_stands_behind_what_its_chunk_brought_before_it() -> None:
    first = delta({"tool_calls": [call(0, "[1", id="a")]})
    events = told([first, delta({"content": "a", "tool_calls": [call(0, ", 2]", id="b")]})])
    assert types(events)[:4] == [
        f"{FUNCTION}.delta",
        "content.delta",
        "problem",
        f"{FUNCTION}.delta",
    ]


def test_what_a_problem_is_about_is_told_with_its_chunk() -> None:
    events = told(
        [delta({"tool_calls": [call(0, "[1]", id="a")]}), delta({"tool_calls": [call(0, "]")]})]
    )
    assert types(events)[:3] == [f"{FUNCTION}.delta", "problem", f"{FUNCTION}.delta"]


def test_problems_too_many_to_be_kept_are_told() -> None:
    assert types(told(["no json"] * 150)) == [*["problem"] * 150, "done"]


# --- snapshots, and unfinished JSON ---


def test_a_snapshot_is_that_of_its_event_whenever_it_is_looked_at() -> None:
    token = {"token": "x", "logprob": -1.0}
    chunks = [delta({"content": text}, logprobs={"content": [token]}) for text in "abc" * 20]
    events = told(chunks)
    deltas = [event for event in events if isinstance(event, ev.ContentDeltaEvent)]
    assert [event.snapshot for event in reversed(deltas)] == [
        ("abc" * 20)[:length] for length in range(60, 0, -1)
    ]
    tokens = [event for event in events if isinstance(event, ev.LogprobsContentDeltaEvent)]
    assert [len(event.snapshot) for event in tokens] == [*range(1, 61)]


def test_events_are_frozen() -> None:
    for event in told([delta({"content": "a"}, finish_reason="stop")]):
        with pytest.raises(AttributeError):
            event.type = "content.delta"  # type: ignore[misc]  # that is the point


@needs_jiter
@pytest.mark.parametrize("arguments", [True, False], ids=["arguments", "content"])
def test_parsed_is_what_is_known_of_unfinished_json(arguments: bool) -> None:
    pieces = ['{"city": "Par', 'is", "days": [1, ', "2]", "}"]
    seen: list[object] = []

    def look(event: Event) -> None:
        if isinstance(event, (ev.ContentDeltaEvent, ev.FunctionToolCallArgumentsDeltaEvent)):
            seen.append(event.parsed)

    acc = Accumulator(on_event=look)
    for piece in pieces:
        acc.feed(delta({"tool_calls": [call(0, piece)]} if arguments else {"content": piece}))
    assert seen[0] in ({}, {"city": "Par"})
    assert seen[2] == {"city": "Paris", "days": [1, 2]}


@needs_jiter
def test_parsed_can_be_looked_at_in_any_order() -> None:
    events = told([delta({"content": text}) for text in ["[1,", "22,", "333,", "4444]"]])
    deltas = [event for event in events if isinstance(event, ev.ContentDeltaEvent)]
    known: list[object] = [[1], [1, 22], [1, 22, 333], [1, 22, 333, 4444]]
    for order in ([0, 3, 1, 2], [2, 0], [3, 3], [0, 1, 2, 3]):
        assert [deltas[i].parsed for i in order] == [known[i] for i in order]


@needs_jiter
def test_parsed_of_text_that_is_no_json_is_none() -> None:
    events = told([delta({"content": text}) for text in ["Hello, ", "world"]])
    assert [e.parsed for e in events if isinstance(e, ev.ContentDeltaEvent)] == [None, None]


# --- what goes wrong ---


def test_a_chunk_that_a_limit_refuses_tells_nothing() -> None:
    events: list[Event] = []
    acc = Accumulator(on_event=events.append, limits=Limits(choices=1, tool_calls=1))
    acc.feed(delta({"content": "a"}))
    before = types(events)
    two_choices = {"choices": [{"index": 1, "delta": {"content": "b"}}]}
    two_calls = delta({"content": "b", "tool_calls": [call(0, "{}"), call(1, "{}")]})
    for chunk in (two_choices, two_calls, json.dumps(two_choices), json.dumps(two_calls)):
        with pytest.raises(LimitExceededError):
            acc.feed(chunk)
    assert types(events) == before
    acc.feed(delta({"content": "c"}))
    acc.close()
    check(acc, events)


def test_a_limit_inside_a_read_tells_what_stands_before_it() -> None:
    events: list[Event] = []
    acc = Accumulator(on_event=events.append, limits=Limits(choices=1))
    other = {"choices": [{"index": 1, "delta": {"content": "b"}}]}
    with pytest.raises(LimitExceededError):
        acc.feed_sse(rendered([delta({"content": "a"}), other, delta({"content": "c"})]))
    assert types(events) == ["content.delta"]
    acc.feed_sse(b"")
    acc.close()
    check(acc, events)
    assert [e.delta for e in events if isinstance(e, ev.ContentDeltaEvent)] == ["a", "c"]


@given(bodies(ODD_STREAMS))
def test_strict_mode_tells_before_it_raises(body: bytes) -> None:
    events: list[Event] = []
    acc = Accumulator(on_event=events.append, strict=True)
    for _ in range(40):  # what stands behind an event that raised is read by the next call
        count = len(events)
        try:
            acc.feed_sse(b"" if count else body)
            acc.close()
        except AccumulatorError as error:
            problem = error.problem
            assert problem is not None
            if problem not in [e.problem for e in events[count:] if e.type == "problem"]:
                # It was told before, and this is the same once more.
                assert problem.kind not in LOSSY_KINDS
                before = [e.problem for e in events[:count] if e.type == "problem"]
                assert (problem.kind, problem.path) in [(p.kind, p.path) for p in before]
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


def test_events_that_look_back_have_no_hash() -> None:
    for event in told([delta({"content": "a"})])[:1]:
        with pytest.raises(TypeError, match="ContentDeltaEvent has no hash"):
            hash(event)


def test_an_event_is_equal_to_none_of_another_kind() -> None:
    content, refusal, *_ = told([delta({"content": "a"}), delta({"refusal": "a"})])
    others: list[object] = [refusal, "a"]
    assert [content == other for other in others] == [False, False]


class Boom(Exception):
    pass


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
        try:
            acc.close()
        except Boom:
            continue
        break
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


def failing(chunks: list[Chunk], **options: Any) -> AccumulatorError:
    with pytest.raises(AccumulatorError) as raised:
        accumulate(chunks, **options)
    return raised.value


FAILURES: dict[str, Callable[[], AccumulatorError]] = {
    "ServerError": lambda: failing(FULL),
    "LimitExceededError": lambda: failing(FULL, limits=Limits(tool_calls=1)),
    "IncompleteStreamError": lambda: failing(FULL[:1]),
    "DecodeError": lambda: failing([{"choices": 1}, delta({}, finish_reason="stop")]),
    "ServerError, strict": lambda: failing(FULL, strict=True),
}


@pytest.mark.parametrize("fail", FAILURES.values(), ids=FAILURES)
def test_errors_are_pickled_and_copied(fail: Callable[[], AccumulatorError]) -> None:
    error = fail()
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


def test_done_has_the_servers_error() -> None:
    (*_, done) = told(FULL)
    assert isinstance(done, ev.DoneEvent)
    assert done.server_error == done.error == {"message": "no"}
    (*_, done) = told(FULL[:1])
    assert isinstance(done, ev.DoneEvent)
    assert done.error is None


def test_types_are_one_to_a_class() -> None:
    literals = [
        next(field.default for field in msgspec.structs.fields(cls) if field.name == "type")
        for cls in CLASSES
    ]
    assert len(set(literals)) == len(CLASSES) == 21
    assert {cls.__name__ for cls in CLASSES} == {
        name for name, kind in vars(ev).items() if isinstance(kind, type) and name.endswith("Event")
    }
