"""The programs in docs/examples do what they say, each as a process, against a real server."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from loopback import serving
from openai_played import JsonObject, chunk, playing

pytestmark = pytest.mark.costs  # each process imports an SDK
EXAMPLES = Path(__file__).resolve().parents[1] / "docs" / "examples"
PATIENCE = 60  # seconds
ASKED: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "How warm is it in Zürich?"}],
    "stream": True,
}


def command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]


def environment(base_url: str) -> dict[str, str]:
    asked = {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "none", "PYTHONIOENCODING": "utf-8"}
    return {**os.environ, **asked}


def printed_by(name: str, *arguments: str, base_url: str = "", code: int = 0) -> list[str]:
    ran = subprocess.run(
        command(name, *arguments),
        env=environment(base_url),
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    assert ran.returncode == code, ran.stderr
    return ran.stdout.splitlines()


def body_of(*deltas: Mapping[str, object], finish_reason: str = "stop") -> bytes:
    choices: list[JsonObject] = [{"index": 0, "delta": delta} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish_reason})
    events = [json.dumps(chunk(choice)) for choice in choices]
    return "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"]).encode()


@contextmanager
def answering(*bodies: bytes) -> Iterator[tuple[str, list[Any]]]:
    """Serve these bodies, one a request; gives the base URL and the requests that came."""
    asked: list[Any] = []

    def answer(request: bytes) -> tuple[str, list[bytes]]:
        asked.append(json.loads(request))
        return "text/event-stream", [bodies[len(asked) - 1]]

    with serving(answer) as base_url:
        yield base_url, asked


def call(index: int, name: str, *pieces: str) -> list[JsonObject]:
    """Return the deltas of a tool call, its arguments in pieces."""
    functions = [{"name": name, "arguments": ""}, *({"arguments": piece} for piece in pieces)]
    entries: list[JsonObject] = [{"index": index, "function": each} for each in functions]
    entries[0] |= {"id": f"call_{index}", "type": "function"}
    return [{"tool_calls": [entry]} for entry in entries]


def test_the_agent_runs_its_calls_and_keeps_the_reasoning() -> None:
    calls = [
        ("get_weather", '{"city": "Zür', 'ich"}'),
        ("add_numbers", '{"numbers": [1, ', "2]}"),
        ("add_numbers", '{"numbers": ["x"]}'),
        ("get_time", "{}"),
    ]
    # The second call comes first, so that events and message have them in another order.
    deltas = [delta for index in (1, 0, 2, 3) for delta in call(index, *calls[index])]
    reasoning = [{"role": "assistant", "reasoning_content": "One city"}]
    reasoning.append({"reasoning_content": ", one sum."})
    with answering(
        body_of(*reasoning, *deltas, finish_reason="tool_calls"), body_of({"content": "21 °C, 3"})
    ) as (base_url, asked):
        printed = printed_by("agent_loop", "How", "warm?", base_url=base_url)
    results = [
        "21 °C",
        "3.0",
        "wrong arguments: Input should be a valid number at $.numbers[0]",
        "there is no tool get_time",
    ]
    told = [
        f"{name}({''.join(pieces)}) = {result}"
        for (name, *pieces), result in zip(calls, results, strict=True)
    ]
    assert printed == ["One city, one sum.", *told, "21 °C, 3"]

    question, turn, *answers = asked[1]["messages"]
    assert question == {"role": "user", "content": "How warm?"}
    assert turn["reasoning_content"] == "One city, one sum."
    assert [each["function"]["name"] for each in turn["tool_calls"]] == [name for name, *_ in calls]
    assert answers == [
        {"role": "tool", "tool_call_id": f"call_{index}", "content": result}
        for index, result in enumerate(results)
    ]


CALL = call(0, "get_weather", '{"city": "Zür', 'ich"}')


@pytest.mark.parametrize(
    "body",
    [body_of(*CALL)[:-150], body_of(*CALL[:-1], finish_reason="length")],
    ids=["the stream was cut off", "the call was cut off"],
)
def test_the_agent_does_not_go_on_from_half_an_answer(body: bytes) -> None:
    with answering(body) as (base_url, asked):
        printed_by("agent_loop", "How warm?", base_url=base_url, code=1)
    assert len(asked) == 1


@contextmanager
def gateway(database: Path, upstream: str) -> Iterator[str]:
    """Run the gateway; gives its base URL."""
    process = subprocess.Popen(
        command("gateway", str(database), "0"),
        env=environment(upstream),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stderr is not None
    with process:
        try:
            line = next(line for line in process.stderr if "running on" in line)
            yield f"{re.findall(r'http://[^ ]+', line)[0]}/v1"
        finally:
            process.terminate()
            process.stderr.read()


def rows_of(database: Path, count: int) -> list[tuple[object, ...]]:
    """Wait for so many rows: a client has its answer before the gateway writes of it."""
    end = time.monotonic() + PATIENCE
    query = "SELECT status, prompt_tokens, completion_tokens, dollars, first_token_seconds, error"
    connection = sqlite3.connect(database)
    try:
        while len(rows := connection.execute(f"{query} FROM streams").fetchall()) < count:
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        connection.close()
    return rows


def test_the_gateway_meters_and_answers_from_its_cache(tmp_path: Path) -> None:
    database = tmp_path / "gateway.sqlite"
    with playing() as upstream, gateway(database, upstream) as base_url:
        for number, wants_usage in enumerate([False, False, True]):
            request = {**ASKED, "stream_options": {"include_usage": wants_usage}}
            with openai.OpenAI(base_url=base_url, api_key="a key", max_retries=0) as client:
                chunks = list(client.chat.completions.create(**request))
            text = "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)
            assert text == "It is 21 °C in Zürich."
            assert (chunks[-1].usage is not None) == wants_usage
            rows_of(database, number + 1)
        with (
            openai.OpenAI(base_url=base_url, api_key="wrong", max_retries=0) as client,
            pytest.raises(openai.AuthenticationError),
        ):
            client.chat.completions.create(**ASKED)
    asked_first, cached, cached_with_usage = rows_of(database, 3)
    *counted, dollars, seconds, error = asked_first
    assert counted == ["complete", 15, 8]
    assert dollars == pytest.approx(15 * 0.15e-6 + 8 * 0.60e-6)
    assert isinstance(seconds, float)
    assert seconds > 0
    assert error is None
    assert cached == cached_with_usage == ("complete", 15, 8, 0.0, None, None)


def test_the_gateway_passes_a_damaged_chunk_on_and_does_not_cache_it(tmp_path: Path) -> None:
    database = tmp_path / "gateway.sqlite"
    body = body_of({"content": "It is"}).replace(b"}}]}\n\n", b'}, "usage"\n\n', 1)
    with answering(body, body) as (upstream, asked), gateway(database, upstream) as base_url:
        for _ in range(2):
            response = httpx.post(f"{base_url}/chat/completions", json=ASKED, timeout=PATIENCE)
            assert response.content == body
    assert len(asked) == 2
    [(status, *_, error), _] = rows_of(database, 2)
    assert (status, error) == ("complete", "event 1, byte 0: Input data was truncated")


def test_the_gateway_writes_of_a_client_that_left(tmp_path: Path) -> None:
    database, is_written = tmp_path / "gateway.sqlite", threading.Event()
    first, _, rest = body_of({"content": "It is"}, {"content": " 21 °C."}).partition(b"\n\n")

    def halted() -> Iterator[bytes]:
        yield first + b"\n\n"
        is_written.wait(PATIENCE)
        yield rest

    def answer(request: bytes) -> tuple[str, Iterable[bytes]]:
        return "text/event-stream", halted()

    with serving(answer) as upstream, gateway(database, upstream) as base_url:
        with (
            openai.OpenAI(base_url=base_url, api_key="a key", max_retries=0) as client,
            client.chat.completions.create(**ASKED) as stream,
        ):
            assert next(iter(stream)).choices[0].delta.content == "It is"
        [(status, *_, seconds, error)] = rows_of(database, 1)
        is_written.set()
    assert (status, error) == ("cancelled", None)
    assert seconds is not None


def test_the_traced_client_ends_a_span_for_each_request() -> None:
    with playing() as base_url:
        printed = printed_by("traced_client", base_url=base_url)
    assert printed == [
        "complete UNSET None ('stop',) 8",
        "cancelled UNSET None None None",
        "cancelled ERROR CancelledError None None",
        "failed ERROR AuthenticationError None None",
    ]


@pytest.mark.skipif(
    importlib.util.find_spec("duckdb") is None, reason="the extra `logs` is not installed"
)
def test_shuffled_rows_come_to_a_summary(tmp_path: Path) -> None:
    printed = printed_by("logs_to_summary", str(tmp_path), "20000")
    assert [line.rsplit(" ", 1)[0] for line in printed] == [
        "large complete 400 7200",
        "large truncated 100 None",
        "small complete 500 9000",
    ]


RECIPE = [{"content": '{"title": "Panc'}, {"content": 'akes", "servings": 4, "steps": ["mi'}]
REFUSAL = "I cannot help with that."
BEGUN, GOES_ON = "Panc | for … | 0 steps", "Pancakes | for 4 | 1 steps"
FORMS: dict[str, tuple[bytes, int, list[str]]] = {
    "whole": (
        body_of(*RECIPE, {"content": 'x", "fry"]}'}), 0,
        [BEGUN, GOES_ON, "Pancakes | for 4 | 2 steps", "Cook Pancakes:", "- mix", "- fry"],
    ),
    "length": (
        body_of(*RECIPE, finish_reason="length"), 1,
        [BEGUN, GOES_ON,
         "no recipe: cut off by the finish reason 'length': Input data was truncated at $",
         "what there is: {'title': 'Pancakes', 'servings': 4, 'steps': ['mi']}"],
    ),
    "refusal": (
        body_of({"refusal": REFUSAL[:8]}, {"refusal": REFUSAL[8:]}), 1,
        [REFUSAL, f"no recipe: the model refused: '{REFUSAL}': there is no JSON at $"],
    ),
    "cut off": (
        body_of(RECIPE[0])[:-150], 1,
        [BEGUN, "the stream is truncated", "no recipe: Input data was truncated at $",
         "what there is: {'title': 'Panc'}"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "code", "printed"), FORMS.values(), ids=FORMS)
def test_the_form_fills_itself(body: bytes, code: int, printed: list[str]) -> None:
    with answering(body) as (base_url, _):
        assert printed_by("partial_json_ui", "Pancakes", base_url=base_url, code=code) == printed


def test_every_example_is_on_its_page_and_is_short() -> None:
    page = EXAMPLES.with_suffix(".md").read_text("utf-8")
    shown = re.findall(r"^```{literalinclude} examples/(.+)$", page, re.M)
    assert sorted(shown) == sorted(each.name for each in EXAMPLES.glob("*.py"))
    for name in shown:
        assert len(EXAMPLES.joinpath(name).read_text("utf-8").splitlines()) <= 120, name
