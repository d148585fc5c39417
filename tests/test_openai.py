"""Where openai-python's own reducer is right, ours gives the same: field for field, and typed.

A stream is named here if openai-python's rules give what its server meant. In others it takes the
last usage as it is, forgets a vendor's field, joins labels, or demands what did not come. Both read
the same body, openai-python through its real client and a real socket.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from loopback import serving
from streamed import read_whole
from test_conformance import CASES

from accumulator import split
from accumulator.replay import sse

openai = pytest.importorskip("openai", reason="an SDK that is installed for the tests only")
chat = pytest.importorskip("openai.types.chat", reason="an SDK that is installed for the tests")

ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "?"}]}

# --- openai-python, for real ---


@contextmanager
def client_of(body: bytes) -> Iterator[Any]:
    """Serve the body to every request; yields the completions of an openai client."""
    with (
        serving(lambda request: ("text/event-stream", [body])) as url,
        openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client,
    ):
        yield client.chat.completions


@contextmanager
def helper_of(body: bytes) -> Iterator[Any]:
    """Read the body by openai-python's own helper."""
    with client_of(body) as completions, completions.stream(**ASKED) as stream:
        yield stream


def theirs(body: bytes) -> Any:
    """Let openai-python read the body, and take what it adds of its own out of its completion."""
    with helper_of(body) as stream:
        completion = stream.get_final_completion().model_dump(warnings="error")
    for choice in completion["choices"]:
        message = choice["message"]
        message.pop("parsed")
        for tool_call in message["tool_calls"] or ():
            tool_call.pop("index")  # of the fragments; the API's completion has none
            tool_call["function"].pop("parsed_arguments", None)
    # It keeps a vendor's null as a field; for us null is nothing (SPEC section 9).
    return chat.ChatCompletion.model_validate(completion).model_dump(exclude_none=True)


def ours(body: bytes) -> Any:
    acc = read_whole(body)
    completion = chat.ChatCompletion.model_validate(acc.completion().to_dict(), strict=True)
    assert acc.problem_counts.keys() <= {"id_changed"}
    return completion.model_dump(exclude_none=True)


# --- where its rules hold ---

NAMES = """
    audio-null choices-envelope-changes logprobs-empty-list logprobs-empty-object
    logprobs-many-chunks logprobs-vendor-field-in-token reasoning-between-content
    reasoning-both-names reasoning-content reasoning-empty reasoning-field
    surrogates-escapes-inside-arguments text-content-and-refusal text-content-empty
    text-content-null-between text-content-null text-looks-like-sse text-non-ascii text-plain
    text-refusal text-role-late tools-arguments-cut-in-escape tools-arguments-empty
    tools-arguments-null tools-empty-list tools-function-call-null tools-function-call
    tools-interleaved tools-plain tools-several-fragments-in-one-delta
    tools-vendor-field-in-function tools-whole-in-one-chunk usage-cost-grows usage-cost
    usage-cumulative usage-details-null usage-final-chunk usage-null-in-every-chunk
    usage-total-larger-than-the-sum usage-vendor-counts
"""
STREAMS = {case.name: case.data for case in CASES if case.name in NAMES.split()}
# The numbers that the names of the recordings begin with.
RECORDED = """
    001 002 023 024 025 041 054 055 058 060 061 062 077 095 123 132 141 142 143 147 148 149 152
    153 154 156 158 166 175 176 177 180 181 184 195 196 224 225 241 268 278 280 283 284 285 286
"""


def test_the_cases_that_are_compared_are_there() -> None:
    assert STREAMS.keys() == set(NAMES.split())


@pytest.mark.parametrize("body", STREAMS.values(), ids=STREAMS)
def test_our_completion_is_openai_pythons_and_it_reads_what_we_replay(body: bytes) -> None:
    expected = ours(body)
    assert expected == theirs(body)
    # It forgets a vendor's field of the completion, which comes with the last chunk.
    again = theirs(b"".join(sse(split(read_whole(body).completion()))))
    assert (again["choices"], again.get("usage")) == (expected["choices"], expected.get("usage"))


def compared(corpus: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the recordings in which openai-python's rules hold, by their names."""
    for number in RECORDED.split():
        [path] = corpus.glob(f"{number}-*.sse")
        yield path.name, path.read_bytes()


@pytest.mark.many
def test_the_completion_of_recorded_streams_is_openai_pythons(corpus: Path) -> None:
    assert [name for name, body in compared(corpus) if ours(body) != theirs(body)] == []
