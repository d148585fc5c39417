"""The rows of the report: what is timed, against what, and the reach of each.

A row has inputs and two functions of one of them, ours and theirs. They are called in turn in one
process, in every other round in the reverse order, by the thread's own clock, which stands while
others have the processor. Of each input and function the fastest call counts; the figure is the sum
of ours over the sum of theirs. Results are compared before anything is timed.

`quick.py` prints the rows, `run.py` makes the report of them.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from statistics import median
from typing import Any

import bare
import by_hand
import msgspec
import shapes

from accumulator import Accumulator, AccumulatorError, ChatCompletion, Limits, iter_events, wrap

QUESTION: Any = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
HAND, BARE = "the loop by hand", "`bare`"
EACH, SMALL, WHOLE = "one event a read", "4 KiB reads", "one read"
SIZES = {EACH: None, SMALL: 4096, WHOLE: 0}


@dataclass(frozen=True)
class Case:
    """What is timed: each input is given to both functions."""

    inputs: Sequence[Any]
    ours: Callable[[Any], object]
    theirs: Callable[[Any], object]
    chunks: int
    # What makes ours' argument of an input, outside the timing.
    ready: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class Times:
    """The least seconds of each input."""

    ours: Sequence[float]
    theirs: Sequence[float]
    chunks: int

    def ratio(self) -> float:
        return sum(self.ours) / sum(self.theirs)

    def added(self) -> float:
        return self.ratio() - 1


@dataclass(frozen=True)
class Row:
    """A cell of the tables: what is measured, how it is called, and what it is to stay below."""

    group: str
    name: str
    against: str
    reach: float
    case: Callable[[], Case]
    figure: Callable[[Times], float] = Times.ratio
    slow: bool = False


def measure(case: Case, seconds: float) -> Times:
    """Call both functions with all inputs in turn, for so long and four times at least."""
    best: list[list[float]] = [[float("inf")] * len(case.inputs) for _ in range(2)]
    calls = [case.ours, case.theirs]
    clock = time.thread_time
    own = min(-(clock() - clock()) for _ in range(1000))  # a system call, which takes its time
    gc.collect()
    gc.freeze()
    end, turn = time.perf_counter() + seconds, 0
    while turn < 4 or time.perf_counter() < end:
        order = (0, 1) if turn % 2 else (1, 0)
        for number, given in enumerate(case.inputs):
            for which in order:
                call = calls[which]
                ready = case.ready(given) if case.ready and not which else given
                start = clock()
                result = call(ready)
                took = clock() - start - own
                del result
                best[which][number] = min(best[which][number], took)
        turn += 1
    gc.unfreeze()
    return Times(best[0], best[1], case.chunks)


# --- streams of bytes ---------------------------------------------------------------------


def completed(reads: Iterable[bytes]) -> ChatCompletion:
    """Read a body, from its bytes to its completion."""
    acc = Accumulator()
    for data in reads:
        acc.feed_sse(data)
    return acc.completion()


def ended(reads: Iterable[bytes]) -> object:
    """Read a body that may be broken, which is a result, too."""
    try:
        return completed(reads)
    except AccumulatorError as error:
        return error


@cache
def streams(shape: str, count: int, number: int) -> list[shapes.Stream]:
    """Return so many streams of a shape."""
    return [shapes.made(shape, count, i) for i in range(number)]


def bodies(shape: str, count: int, number: int, reads: str) -> Case:
    """Compare with the loop by hand, from the bytes to the completion."""
    made = streams(shape, count, number)
    inputs = [stream.reads(SIZES[reads]) for stream in made]
    for each in inputs[:20]:
        check(completed(each), by_hand.completion_of(each))
    return Case(inputs, completed, by_hand.completion_of, chunks_of(made))


@cache
def readable() -> list[shapes.Stream]:
    """Read the recordings that the loop by hand can read, and check what comes out."""
    found = []
    for stream in shapes.recordings():
        with suppress(ValueError):
            wanted = digest(msgspec.to_builtins(by_hand.completion_of([stream.body])))
            acc = Accumulator()
            acc.feed_sse(stream.body)
            acc.close()
            given = digest(acc.snapshot().to_dict())
            # Without the calls and details that a server numbers in a way of its own.
            if [each[:5] for each in given[-1]] != [each[:5] for each in wanted[-1]]:
                raise AssertionError(f"ours {given!s:.2000}\n\ntheirs {wanted!s:.2000}")
            found.append(stream)
    return found


@cache
def recorded(reads: str) -> Case:
    """Compare over every recording that the loop by hand can read."""
    inputs = [stream.reads(SIZES[reads]) for stream in readable()]
    return Case(inputs, ended, by_hand.completion_of, chunks_of(readable()))


def median_of(vendors: bool, times: Times) -> float:
    """Return the median over the recordings with or without vendors' fields."""
    found = map(shapes.has_vendor_fields, readable())
    pairs = zip(times.ours, times.theirs, found, strict=True)
    return median(ours / theirs for ours, theirs, has in pairs if has is vendors)


def cliff(shape: str, change: tuple[bytes, bytes] = (b"\n", b"\n")) -> Case:
    """Compare with `bare` over a shape that nothing was made for, in 4 KiB reads."""
    made = streams(shape, 200, 10)
    decode = msgspec.json.Decoder(PartsChunk).decode if "parts" in shape else bare.decode
    inputs = [(shapes.cut(stream.body.replace(*change), 4096), stream.events) for stream in made]
    for given, stream in zip(inputs, made, strict=True):
        if completed(given[0]) != completed(stream.reads(None)):
            raise AssertionError(f"{shape}: the cut makes a difference")
    return Case(
        inputs,
        lambda given: completed(given[0]),
        lambda given: bare.decode_all(given[1], decode),
        chunks_of(made),
    )


# `bare` with content in parts, which is no string.
class PartsDelta(bare.Delta):
    content: object = None  # type: ignore[assignment]  # wider than the API's


class PartsChoice(bare.Choice):
    delta: PartsDelta | None = None


class PartsChunk(bare.Chunk):
    choices: list[PartsChoice] | None = None  # type: ignore[assignment]  # a list is invariant


# --- what must come out -------------------------------------------------------------------


def check(completion: ChatCompletion, wanted: object) -> None:
    """Raise AssertionError if a completion is not what the loop by hand returned."""
    ours, theirs = digest(completion.to_dict()), digest(msgspec.to_builtins(wanted))
    if ours != theirs:
        raise AssertionError(f"ours {str(ours)[:2000]}\n\ntheirs {str(theirs)[:2000]}")


def digest(completion: Any) -> Any:
    """Return what every reducer has to get right of a completion in the API's shape."""
    choices = []
    for choice in completion["choices"]:
        message = choice["message"]
        fields = ("content", "refusal", "reasoning", "reasoning_content")
        texts = [message.get(name) or "" for name in fields]
        details = [each.get("text") for each in message.get("reasoning_details") or ()]
        functions = ((call["id"], call["function"]) for call in message.get("tool_calls") or ())
        calls = [
            (id, function.get("name"), function.get("arguments")) for id, function in functions
        ]
        entries = (choice.get("logprobs") or {}).get("content") or ()
        logprobs = [
            (each["token"], each["logprob"], [top["token"] for top in each["top_logprobs"]])
            for each in entries
        ]
        reason = choice["finish_reason"]
        choices.append((choice["index"], *texts, details, calls, logprobs, reason))
    names = ("id", "created", "model", "system_fingerprint", "usage")
    return [*(completion.get(name) for name in names), choices]


def chunks_of(made: Iterable[shapes.Stream]) -> int:
    """Count the chunks of streams."""
    return sum(len(stream.events) for stream in made)


# --- events -------------------------------------------------------------------------------


def called_back(reads: Iterable[bytes]) -> list[object]:
    """Return the events that `on_event` was given."""
    events: list[object] = []
    acc = Accumulator(on_event=events.append)
    for data in reads:
        acc.feed_sse(data)
    acc.close()
    return events


def events(shape: str, ours: str, theirs: str, reads: str, number: int = 100) -> Case:
    """Compare the events of 40 chunks with the generator by hand, or with a rival's."""
    made = streams(shape, 40, number)
    inputs = [stream.reads(SIZES[reads]) for stream in made]
    way: Callable[[Any], Any] = called_back
    if ours == "iter_events":
        way = lambda given: list(iter_events(given))  # noqa: E731
    other = EVENTS[theirs]()
    for given in inputs:
        texts = (
            [e.delta for e in way(given) if e.type in ("content.delta", "reasoning.delta")],
            [e.text for e in by_hand.events_of(given) if isinstance(e, by_hand.TextDelta)],
            [text for e in other(given) if (text := text_of(e))],
        )
        if texts[0] != texts[1] or texts[1] != texts[2]:
            raise AssertionError(f"{theirs}: other events: {texts!s:.2000}")
    return Case(inputs, way, other, chunks_of(made))


def text_of(event: Any) -> str | None:
    """Return the text that an event of any library brings."""
    event = getattr(event, "delta", event)
    text: str | None = getattr(event, "text", None)
    return text


def llmstream() -> Callable[[Any], list[object]]:
    """Return the way that llmstream's users read events."""
    iterate = import_module("llmstream").iter_events
    return lambda reads: list(iterate(reads, provider="openai"))


def lm15() -> Callable[[Any], list[object]]:
    """Return the way that lm15's client reads events, without its requests."""
    package = import_module("lm15")
    parse = import_module("lm15.sse").parse_sse
    client = import_module("lm15.providers.openai_chat").OpenAIChatLM(api_key="none")
    request = package.Request(model="gpt-4o-mini", messages=(package.Message.user("hello"),))

    def read(reads: Iterable[bytes]) -> list[object]:
        lines = (line for data in reads for line in data.splitlines(keepends=True))
        of_event = client.parse_stream_events
        return [each for event in parse(lines) for each in of_event(request, event)]

    return read


EVENTS: dict[str, Callable[[], Callable[[Any], list[Any]]]] = {
    "the generator": lambda: lambda reads: list(by_hand.events_of(reads)),
    "llmstream": llmstream,
    "lm15": lm15,
}


# --- what a completion is turned into ------------------------------------------------------


def dumped(method: str, count: int = 500) -> Case:
    """Compare writing a completion with logprobs with feeding it."""
    inputs = [stream.reads(4096) for stream in streams("logprobs", count, 3)]
    write = getattr(ChatCompletion, method)
    for given in inputs:
        again = write(completed(given))
        again = json.loads(again) if method == "to_json" else again
        if again != json.loads(json.dumps(completed(given).to_dict())):
            raise AssertionError(f"{method}: not what arrived")
    return Case(inputs, write, completed, 3 * count, ready=completed)


# --- long streams -------------------------------------------------------------------------


def growth(shape: str, snapshots: bool) -> Case:
    """Compare a stream of 100,000 chunks with 50 streams of 2,000."""
    stream = shapes.made(shape, 2000)
    pieces = stream.reads(None)
    # The last 600 but for the end: text, or fragments of one call, again and again.
    parts = [shapes.cut(b"".join(each), 4096) for each in (pieces[:-603], pieces[-603:-3])]
    opening, middle = parts
    end = b"".join(pieces[-3:])

    def read(times: int) -> ChatCompletion:
        acc = Accumulator(limits=Limits(total_bytes=None))
        for reads in (opening, *(middle for _ in range(times))):
            for data in reads:
                acc.feed_sse(data)
            if snapshots:
                acc.snapshot()
        acc.feed_sse(end)
        return acc.completion()

    check(read(1), by_hand.completion_of([stream.body]))
    return Case([164], read, lambda _: [read(1) for _ in range(50)], 50 * len(stream.events))


# --- objects, mappings, lines -------------------------------------------------------------


def fed(chunks: Iterable[object]) -> ChatCompletion:
    """Return the completion of chunks that are fed one by one."""
    acc = Accumulator()
    for chunk in chunks:
        acc.feed(chunk)
    return acc.completion()


def fed_lines(lines: Iterable[bytes]) -> ChatCompletion:
    """Return the completion of lines that are fed one by one."""
    acc = Accumulator()
    for line in lines:
        acc.feed_line(line)
    return acc.completion()


def objects(shape: str, kind: str, number: int = 50) -> Case:
    """Compare chunks of openai's client, or mappings, with `bare` over the same JSON."""
    made = streams(shape, 40, number)
    inputs = []
    for stream in made:
        if kind == "objects":
            chunks: list[object] = list(asked(stream)())
        else:
            chunks = [json.loads(event) for event in stream.events]
        check(fed(chunks), by_hand.completion_of(stream.reads(0)))
        inputs.append((chunks, stream.events))
    return Case(
        inputs, lambda given: fed(given[0]), lambda given: bare.decode_all(given[1]),
        chunks_of(made),
    )  # fmt: skip


def lines(kind: str) -> Case:
    """Compare `feed_line` with `feed` of the same JSON."""
    made = streams("text, padded", 40, 100)
    inputs = []
    for stream in made:
        given = list(stream.events)
        if kind == "SSE":
            given = stream.body.splitlines(keepends=True)
        if fed_lines(given) != fed(stream.events):
            raise AssertionError("feed_line is not feed")
        inputs.append((given, stream.events))
    return Case(
        inputs, lambda given: fed_lines(given[0]), lambda given: fed(given[1]), chunks_of(made)
    )


def wrapped() -> Case:
    """Compare openai's stream under `wrap` with the stream alone."""
    made = streams("text, padded", 300, 5)

    def under(create: Callable[[], Iterable[object]]) -> ChatCompletion:
        with wrap(create()) as chunks:
            for _ in chunks:
                pass
        return chunks.completion

    def alone(create: Callable[[], Iterable[object]]) -> None:
        for _ in create():
            pass

    inputs = [asked(stream) for stream in made]
    for stream, create in zip(made, inputs, strict=True):
        check(under(create), by_hand.completion_of(stream.reads(0)))
    return Case(inputs, under, alone, chunks_of(made))


def helped(way: str) -> Case:
    """Compare with openai's own helper: its streams, or its state over objects that are ready."""
    state_of = import_module("openai.lib.streaming.chat").ChatCompletionStreamState
    made = streams("text", 300, 5)

    def by_stream(completions: Any) -> Any:
        with completions.stream(**QUESTION) as stream:
            return stream.get_final_completion()

    def by_state(chunks: Iterable[Any]) -> Any:
        state = state_of()
        for chunk in chunks:
            state.handle_chunk(chunk)
        return state.get_final_completion()

    inputs: list[tuple[Any, Any]] = [(each.reads(4096), completions_of(each)) for each in made]
    ours, theirs = completed, by_stream
    if way == "objects":
        inputs = [(chunks, chunks) for chunks in (list(asked(each)()) for each in made)]
        ours, theirs = fed, by_state
    for given, other in inputs:
        check(ours(given), theirs(other).model_dump(exclude_none=True, warnings=False))
    return Case(
        inputs, lambda given: ours(given[0]), lambda given: theirs(given[1]), chunks_of(made)
    )


def asked(stream: shapes.Stream) -> Callable[[], Iterable[object]]:
    """Return a function that asks openai's client for a stream, and gets this one."""
    return partial(completions_of(stream).create, **QUESTION, stream=True)


def completions_of(stream: shapes.Stream) -> Any:
    """Return the completions of an openai client that gets this stream for every answer."""
    httpx, openai = import_module("httpx2"), import_module("openai")
    reads = stream.reads(4096)

    class Body(httpx.SyncByteStream):  # type: ignore[misc, name-defined]  # known at run time
        def __iter__(self) -> Iterator[bytes]:
            return iter(reads)

    def respond(request: object) -> Any:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Body())

    http_client = httpx.Client(transport=httpx.MockTransport(respond))
    client = openai.OpenAI(api_key="none", base_url="http://localhost/v1", http_client=http_client)
    return client.chat.completions


# --- the tables ---------------------------------------------------------------------------

FOUR = ("text", "tool calls", "logprobs", "reasoning")


def rows() -> Iterator[Row]:
    """Yield the cells of the tables."""
    for reads, reach in ((EACH, 1.1), (SMALL, 1.2)):
        case = partial(bodies, "text, padded", 40, 200, reads)
        yield Row("40 chunks of padded text", reads, HAND, reach, case)
    for reads in (EACH, SMALL):
        case = partial(recorded, reads)
        yield Row("recordings", f"all, {reads}", HAND, 1.6, case)
        for vendors, what, reach in ((False, "without", 1.4), (True, "with", 2.0)):
            name = f"median {what} vendors' fields, {reads}"
            yield Row("recordings", name, HAND, reach, case, partial(median_of, vendors))
    for shape, reach in zip(FOUR, (1.1, 1.2, 1.1, 1.25), strict=True):
        yield Row("whole body", shape, HAND, reach, partial(bodies, shape, 50, 50, WHOLE))
    for shape, reach in zip(FOUR, (1.1, 1.2, 1.1, 1.25), strict=True):
        yield Row("long whole body", shape, HAND, reach, partial(bodies, shape, 2000, 2, WHOLE))
    for reads, reaches in ((SMALL, (0.7, 0.8, 1.05, 1.1)), (EACH, (0.9, 1.0, 1.1, 1.1))):
        for shape, reach in zip(FOUR, reaches, strict=True):
            case = partial(bodies, shape, 2000, 2, reads)
            yield Row(f"long, {reads}", shape, HAND, reach, case)
        case = partial(bodies, "text, padded", 2000, 2, reads)
        yield Row(f"long, {reads}", "text, padded", HAND, reaches[0], case)
    for shape in ("text", "reasoning", "reasoning_content"):
        for ours in ("iter_events", "on_event"):
            for reads in (EACH, SMALL):
                case = partial(events, shape, ours, "the generator", reads)
                yield Row("events", f"{ours}, {shape}, {reads}", "the generator", 2.5, case)
    for shape in ("text", "reasoning_content"):
        for rival in ("llmstream", "lm15"):
            case = partial(events, shape, "iter_events", rival, EACH)
            yield Row("events", f"iter_events, {shape}, and {rival}'s", rival, 1.0, case)
    for method in ("to_json", "to_dict"):
        yield Row("logprobs out", method, "feeding", 1.0, partial(dumped, method))
    padded = (*(f"{name}, padded" for name in FOUR[:3]), "reasoning", "reasoning_content")
    objects_reach, mappings_reach = (5.0, 7.0, 5.0, 9.0, 9.0), (4.5, 4.5, 2.5, 9.0, 9.0)
    for kind, bounds in (("objects", objects_reach), ("mappings", mappings_reach)):
        for shape, reach in zip(padded, bounds, strict=True):
            yield Row(kind, shape, BARE, reach, partial(objects, shape, kind))
    for kind in ("JSON Lines", "SSE"):
        yield Row("feed_line", kind, "feed", 1.5, partial(lines, kind))
    yield Row("wrap", "added to openai's stream", "the stream alone", 0.05, wrapped, Times.added)
    for way, name in (("bytes", "from the bytes"), ("objects", "from its chunk objects")):
        yield Row("openai's helper", name, "its final completion", 1.0, partial(helped, way))
    for shape in shapes.HELD_OUT:
        yield Row("cliffs", shape, BARE, 6, partial(cliff, shape))
    for name, change in shapes.FRAMINGS.items():
        yield Row("cliffs", name, BARE, 6, partial(cliff, "text", change))
    for shape in FOUR[:3]:
        for snapshots in (False, True):
            name = f"100,000 chunks, {shape}" + ", `snapshot()` every 600" * snapshots
            case = partial(growth, shape, snapshots)
            yield Row("growth", name, "2,000 chunks", 1.15, case, slow=True)


ROWS = tuple(rows())
