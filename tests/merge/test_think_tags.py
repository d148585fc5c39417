"""`think_tags`: reasoning between tags at the start of content, cut anywhere (SPEC section 3)."""

from __future__ import annotations

import json

import pytest
from doors import DOORS, Door
from hypothesis import given
from hypothesis import strategies as st
from judged import assert_as_judged
from regular import event, text_chunk
from strategies import STREAMS, cut, rendered
from streamed import delta, fed, read_all, read_whole
from telling import check as check_events
from test_checkpoint import check as check_checkpoints

from accumulator import (
    Accumulator,
    CheckpointError,
    IncompleteStreamError,
    Limits,
    accumulate,
    split,
)
from accumulator.events import Event

# The pieces of a content, the reasoning and the content that they come to.
CASES: dict[str, tuple[list[str], str | None, str | None]] = {
    "one piece": (["<think>Oslo?</think>Rome."], "Oslo?", "Rome."),
    "a piece for each token": (
        ["", "<think>", "\n", "Oslo", "?\n", "</think>", "\n\n", "Rome", "."], "\nOslo?\n", "Rome."
    ),
    "cut inside of both tags": (["<thi", "nk>Os", "lo</", "think", ">Rome"], "Oslo", "Rome"),
    "blanks around the tags go, those between stay": (
        [" \r", "\n\t<think> Oslo ", "</think> ", "\t\r\n", "Rome "], " Oslo ", "Rome "
    ),
    "what looks like the end of the reasoning": (
        ["<think>a</b</", "</thin", "k</think>c"], "a</b</</think", "c"
    ),
    "a second opening tag is reasoning": (["<think>a<think>", "</think>b"], "a<think>", "b"),
    "tags in the middle are content": (
        ["Rome <think>", "a</think>"], None, "Rome <think>a</think>"
    ),
    "tags behind the content are content": (
        ["<think>a</think>b", "<think>c</think>"], "a", "b<think>c</think>"
    ),
    "tags behind the tags are content": (
        ["<think>a</think> ", "<think>c</think>"], "a", "<think>c</think>"
    ),
    "empty tags": (["<think>", "</think>", "\n", "Rome"], None, "Rome"),
    "blanks between the tags": (["<think>\n\n</think>\n\nRome"], "\n\n", "Rome"),
    "an end without a beginning": (["Oslo?", "</think>Rome"], None, "Oslo?</think>Rome"),
    "another tag": (["<thinking>a</thinking>", "b"], None, "<thinking>a</thinking>b"),
    "another case": (["<THINK>a</THINK>b"], None, "<THINK>a</THINK>b"),
    "no tag": (["Ro", "me"], None, "Rome"),
    "nothing": ([""], None, ""),
    "blanks": ([" ", "\n"], None, " \n"),
    "blanks and no tag": (["\n", " <", "b>"], None, "\n <b>"),
    "it ends inside the opening tag": (["\n<thi"], None, "\n<thi"),
    "it ends inside the reasoning": (["<think>Oslo", "?"], "Oslo?", None),
    "it ends inside the closing tag": (["<think>Oslo", "</thi"], "Oslo</thi", None),
    "it ends behind the closing tag": (["<think>Oslo</think>", "\n"], "Oslo", None),
    "as many blanks as are waited for": ([" " * 256 + "<think>a</think>b"], "a", "b"),
    "more blanks than are waited for": ([" " * 257 + "<think>a"], None, " " * 257 + "<think>a"),
    "characters of several bytes": (["<think>日本😀", "é</think>\u2003é"], "日本😀é", "\u2003é"),
}  # fmt: skip


def said(text: str, index: int = 0, **choice: object) -> dict[str, object]:
    return delta({"content": text}, index=index, **choice)


def message_of(**fields: object) -> dict[str, object]:
    """Return a chunk with a message instead of a delta."""
    return {"choices": [{"message": fields}]}


def contents(pieces: list[str]) -> list[object]:
    """Return the chunks of a stream whose content comes in pieces."""
    return [*[said(piece) for piece in pieces], delta({}, finish_reason="stop")]


def message(acc: Accumulator) -> tuple[str | None, str | tuple[object, ...] | None]:
    acc.close()
    found = acc.snapshot().choices[0].message
    return found.reasoning_content, found.content


def in_reads(reads: list[bytes]) -> Accumulator:
    return read_all(reads, think_tags=True)


@pytest.mark.parametrize(("pieces", "reasoning", "content"), CASES.values(), ids=CASES)
def test_reasoning_between_tags_and_its_events(
    pieces: list[str], reasoning: str | None, content: str | None
) -> None:
    whole = "".join(pieces)
    for cut_so in (pieces, [whole], list(whole) or [""]):
        body = rendered(contents(cut_so)) + b"data: [DONE]\n\n"
        for reads in ([body], [body[i : i + 1] for i in range(len(body))]):
            acc = in_reads(reads)
            assert message(acc) == (reasoning, content)
            assert acc.status == "complete"
            assert not acc.problems
            assert_as_judged(acc, body, think_tags=True)
        by_chunk = fed(contents(cut_so), think_tags=True)
        assert by_chunk.snapshot() == acc.snapshot()  # a finish reason leaves nothing waiting
        assert accumulate(split(acc.snapshot())) == acc.snapshot()
    events: list[Event] = []
    acc = fed(map(json.dumps, contents(pieces)), think_tags=True, on_event=events.append)
    check_events(acc, events)
    assert message(acc) == (reasoning, content)
    kinds = [each.type for each in events if each.type in ("reasoning.delta", "content.delta")]
    assert kinds == sorted(kinds, reverse=True)  # all reasoning before the first of the content


# Chunks, and what they come to: the content and the reasoning of each choice.
Texts = list[tuple[str | None, object]]
PART = {"type": "text", "text": "<think>b"}
PARTS = delta({"content": [PART]})
IMAGE = {"type": "image_url", "image_url": "u"}
FULL: dict[str, object] = {"message": {"content": "<think>a"}, "finish_reason": "stop"}
OTHERS: dict[str, tuple[list[object], Texts]] = {
    "each choice has tags of its own": (
        [said("<think>a"), said("b", 1), said("<th", 2), said("</think>c"), said("ink>d", 2)],
        [("a", "c"), (None, "b"), ("d", None)],
    ),
    "reasoning that came before in its own field": (
        [delta({"reasoning_content": "a"}), said("<think>b")], [("a", "<think>b")]
    ),
    "reasoning beside the content": (
        [said("<thi"), delta({"content": "nk>b", "reasoning": "a"})], [(None, "<think>b")]
    ),
    "reasoning in its own field that is empty is none": (
        [delta({"reasoning_content": ""}), said("<think>b")], [("b", None)]
    ),
    "reasoning in its own field inside of the tags is joined": (
        [said("<think>a"), delta({"reasoning_content": "b"}), said("c</think>d")], [("abc", "d")]
    ),
    "a message in place of a stream": ([message_of(content="<think>a</think>b")], [("a", "b")]),
    "a message that says the deltas again": (
        [said("<think>a", finish_reason="length"), message_of(content="<think>a")], [("a", None)]
    ),
    "a message that says a tag again": ([said("<think>"), {"choices": [FULL]}], [(None, None)]),
    "a message that says the reasoning again in its own field": (
        [said("<think>a</think>b"), message_of(content="b", reasoning_content="a")], [("a", "b")]
    ),
    "two messages that say the reasoning again": (
        [said("<th"), message_of(role="x"), said("ink>a"), message_of(reasoning_content="a")],
        [("a", None)],
    ),
    "a message behind deltas without a content": (
        [said(""), message_of(content="<think>a</think>b")], [("a", "b")]
    ),
    "messages without deltas are joined": (
        [message_of(content=text) for text in ("<think>a", "b</think>c", "d")], [("ab", "cd")]
    ),
    "a finish reason in each chunk": (
        [said(text, finish_reason="stop") for text in ("<think>", "a", "b</think>", "c")],
        [("ab", "c")],
    ),
    "a finish reason inside of a tag takes it for text": (
        [said("<think>a</th", finish_reason="stop"), said("ink>")], [("a</think>", None)]
    ),
    "a finish reason ahead of a content": (
        [said("", finish_reason="stop"), said("<think>a")], [(None, "<think>a")]
    ),
    "behind a finish reason nothing waits": (
        [delta({}, finish_reason="stop"), said("<th"), said("ink>a")], [(None, "<think>a")]
    ),
    "behind a finish reason nothing waits, not even for the reasoning beside it": (
        [
            said("<think>", finish_reason="stop"),
            delta({"content": "a<", "reasoning_content": "b"}),
        ],
        [("a<b", None)],
    ),
    "the server's error releases what waits": (
        [said("<thi"), {"error": {"message": "no"}}], [(None, "<thi")]
    ),
    "half a surrogate pair beside a tag": (
        [said("<think>\ud83d"), said("\ude00</think>\ud83d"), said("\ude00")], [("😀", "😀")]
    ),
    # Content in parts is not read for tags.
    "parts": ([PARTS], [(None, (PART,))]),
    "a string behind parts": (
        [PARTS, said("<think>c")], [(None, ({**PART, "text": "<think>b<think>c"},))]
    ),
    "parts behind what may become a tag": (
        [said("<thi"), PARTS], [(None, ({**PART, "text": "<thi<think>b"},))]
    ),
    "a part that is no text behind what may become a tag": (
        [said("<th"), delta({"content": [IMAGE]}), said("x")],
        [(None, ({"type": "text", "text": "<th"}, IMAGE, {"type": "text", "text": "x"}))],
    ),
    "parts inside of a tag": (
        [said("<think>a</"), PARTS, said("c")], [("a</", ({**PART, "text": "<think>bc"},))]
    ),
}  # fmt: skip


@pytest.mark.parametrize(("chunks", "texts"), OTHERS.values(), ids=OTHERS)
def test_tags_among_other_things(chunks: list[object], texts: Texts) -> None:
    body, events = rendered(chunks), list[Event]()
    acc, watched = in_reads([body]), read_whole(body, think_tags=True, on_event=events.append)
    found = [(c.message.reasoning_content, c.message.content) for c in acc.snapshot().choices]
    assert found == texts
    assert_as_judged(acc, body, think_tags=True)
    assert watched.snapshot() == acc.snapshot()
    check_events(watched, events)


def test_it_is_off_unless_asked_for() -> None:
    assert message(fed(contents(["<think>a</think>b"]))) == (None, "<think>a</think>b")


def test_what_waits_is_in_no_snapshot_yet() -> None:
    acc = Accumulator(think_tags=True)
    acc.feed(said("<think>a</thi"))
    found = acc.snapshot().choices[0].message
    assert (found.reasoning_content, found.content) == ("a", None)
    with pytest.raises(IncompleteStreamError) as raised:
        acc.completion()
    assert raised.value.partial is not None
    assert raised.value.partial.choices[0].message.reasoning_content == "a</thi"


def test_done_releases_what_waits() -> None:
    acc = Accumulator(think_tags=True)
    acc.feed_sse(rendered([said("<thi")]) + b"data: [DONE]\n\n")
    assert acc.snapshot().choices[0].message.content == "<thi"


def test_a_chunk_that_passes_a_limit_changes_nothing() -> None:
    acc = Accumulator(think_tags=True, limits=Limits(choices=1))
    acc.feed(said("<think>a"))
    before = acc.snapshot()
    both = {"choices": [{"index": i, "delta": {"content": "b"}} for i in (0, 1)]}
    with pytest.raises(Exception, match="choices"):
        acc.feed(both)
    assert acc.snapshot() == before


# --- streams drawn at random ----------------------------------------------------------------

TAGS = ["<think>", "</think>", "<thi", "nk>", "</", "<", ">", "think", " ", "\n", "a", "é", ""]
TAGGED = st.lists(st.sampled_from(TAGS), max_size=12).map("".join)
DELTAS = st.fixed_dictionaries(
    {},
    optional={
        "content": st.one_of(
            TAGGED,
            TAGGED,
            st.none(),
            TAGGED.map(lambda text: [{"type": "text", "text": text}]),
            st.sampled_from(["<think>\ud83d", "\ude00</think>"]),
        ),
        "reasoning_content": st.sampled_from(["", "r", None]),
        "reasoning": st.sampled_from(["", "r", 1]),
        "refusal": st.just("no"),
    },
)
CHUNKS = st.builds(
    lambda kind, delta, index, finish: {
        "choices": [{"index": index, kind: delta, "finish_reason": finish}]
    },
    st.sampled_from(["delta", "delta", "delta", "delta", "message"]),
    DELTAS,
    st.sampled_from([0, 0, 0, 1]),
    st.sampled_from([None, None, None, None, "stop", ""]),
)
TAGGED_STREAMS: st.SearchStrategy[list[object]] = st.one_of(
    st.lists(CHUNKS, max_size=8), st.builds(list.__add__, st.lists(CHUNKS, max_size=3), STREAMS)
)


@given(st.data(), TAGGED_STREAMS)
@pytest.mark.usefixtures("no_shapes_of_other_tests", "learns_at_once")
def test_the_second_reducer_agrees(data: st.DataObject, chunks: list[object]) -> None:
    body = rendered(chunks)
    acc = in_reads(data.draw(cut(body)))
    assert_as_judged(acc, body, think_tags=True)
    plain = read_whole(body, think_tags=True, shortcut=False, on_event=lambda _: None)
    assert plain.snapshot() == acc.snapshot()
    assert plain.problem_counts == acc.problem_counts


@given(st.data(), TAGGED_STREAMS)
def test_a_checkpoint_changes_nothing(data: st.DataObject, chunks: list[object]) -> None:
    check_checkpoints(data.draw(cut(rendered(chunks))), think_tags=True)


@pytest.mark.parametrize("think_tags", [True, False])
def test_a_checkpoint_goes_on_with_the_same_think_tags(think_tags: bool) -> None:
    saved = Accumulator(think_tags=think_tags).checkpoint()
    with pytest.raises(CheckpointError, match=f"was written with think_tags={think_tags}"):
        Accumulator.restore(saved, think_tags=not think_tags)


# --- the fast path --------------------------------------------------------------------------


@pytest.mark.usefixtures("no_shapes_of_other_tests", "learns_at_once")
def test_the_fast_path_waits_for_the_end_of_the_tags() -> None:
    texts = ["<think>", *"abcdefgh" * 8, "</think>", *"ABCDEFGH" * 8]
    events = [event(text_chunk(text)) for text in texts]
    for size in 1, 20, len(events):
        reads = [b"".join(events[i : i + size]) for i in range(0, len(events), size)]
        assert message(in_reads(reads)) == ("abcdefgh" * 8, "ABCDEFGH" * 8)


# --- every door -----------------------------------------------------------------------------


BODY = rendered(contents(["<think>a</thi", "nk>b"])) + b"data: [DONE]\n\n"


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_every_door_takes_it(door: Door) -> None:
    acc = in_reads([BODY])
    assert message(acc) == ("a", "b")
    assert door([BODY], think_tags=True).completion == acc.snapshot()
