"""The rows of the report: what is measured, against what, and the reach of each.

What is timed are two functions, ours and theirs. They are called in turn in one process, in every
other round in the reverse order, by the thread's own clock, which stands while others have the
processor. Of each input and function the fastest call counts; the figure is the sum of ours over
the sum of theirs. Results are compared before anything is timed.

`run.py` runs this file on each interpreter; it prints a line of JSON for each row.
"""

from __future__ import annotations

import gc
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from importlib import import_module
from typing import Any

import bare
import by_hand
import held
import logs
import msgspec
import shapes

from accumulator import Accumulator, AccumulatorError, ChatCompletion, Limits, iter_events, wrap

QUESTION: Any = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
HAND, BARE = "the loop by hand", "`bare`"
EACH, SMALL, WHOLE = "one event a read", "4 KiB reads", "one read"
SIZES = {EACH: None, SMALL: 4096, WHOLE: 0}
FOUR = ("text", "tool calls", "logprobs", "reasoning")

# What a row is measured by: takes the seconds it has; returns the figure, and what it is made of.
Measure = Callable[[float], tuple[float, str]]


@dataclass(frozen=True)
class Row:
    """A row of the tables: what is measured, and what it is to stay below."""

    group: str
    name: str
    against: str
    reach: float
    measure: Measure


def main(only: str, seconds: str) -> None:
    """Print the rows whose names match a pattern, each as soon as it is measured."""
    for row in rows():
        about = {name: getattr(row, name) for name in ("group", "name", "against", "reach")}
        if re.search(only, f"{row.group}: {row.name}, {row.against}"):
            try:
                figure, beside = row.measure(float(seconds))
            except FileNotFoundError as error:
                print(f"{row.group} is left out: {error}", file=sys.stderr)
            else:
                print(json.dumps({**about, "figure": figure, "beside": beside}), flush=True)


# --- timing -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """What is timed: two functions, and what each is given of a pair."""

    inputs: Sequence[tuple[Any, Any]]
    ours: Callable[[Any], Any]
    theirs: Callable[[Any], Any]
    chunks: int
    # What makes ours' argument of an input, outside the timing.
    ready: Callable[[Any], Any] = lambda given: given
    # Whether their results are the same, where that can be said.
    same: Callable[[Any, Any], bool] = lambda ours, theirs: True


Times = Sequence[float]  # the least seconds of each input


def ratio(ours: Times, theirs: Times) -> float:
    """Return how many times as long ours takes."""
    return sum(ours) / sum(theirs)


def added(ours: Times, theirs: Times) -> float:
    """Return the share that ours adds."""
    return ratio(ours, theirs) - 1


def timed(
    make: Callable[..., Case], *how: Any, figure: Callable[[Times, Times], float] = ratio
) -> Measure:
    """Return what measures a case."""

    def measure(seconds: float) -> tuple[float, str]:
        ours, theirs, chunks = times_of(make, how, seconds)
        spent = (f"{1e6 * sum(each) / chunks:.2f}" for each in (ours, theirs))
        return figure(ours, theirs), f"{' / '.join(spent)} us"

    return measure


@lru_cache(maxsize=1)  # several figures are of the same times
def times_of(
    make: Callable[..., Case], how: tuple[Any, ...], seconds: float
) -> tuple[Times, Times, int]:
    """Call both functions with all inputs in turn, for so long and four times at least."""
    case = make(*how)
    for ours, theirs in case.inputs[:20]:
        results = case.ours(case.ready(ours)), case.theirs(theirs)
        if not case.same(*results):
            raise AssertionError(f"{make.__name__}{how}: {results!s:.2000}")
    best = [[float("inf")] * len(case.inputs) for _ in range(2)]
    calls = [case.ours, case.theirs]
    clock = time.thread_time
    own = min(-(clock() - clock()) for _ in range(1000))  # a system call, which takes its time
    gc.collect()
    gc.freeze()
    end, turn = time.perf_counter() + seconds, 0
    while turn < 4 or time.perf_counter() < end:
        order = (0, 1) if turn % 2 else (1, 0)
        for number, pair in enumerate(case.inputs):
            for which in order:
                call = calls[which]
                given = pair[which] if which else case.ready(pair[which])
                start = clock()
                result = call(given)
                took = clock() - start - own
                del result
                best[which][number] = min(best[which][number], took)
        turn += 1
    gc.unfreeze()
    return best[0], best[1], case.chunks


# --- streams of bytes ---------------------------------------------------------------------


def completed(items: Iterable[Any], feed: str = "feed_sse") -> ChatCompletion:
    """Return the completion of reads, of lines or of chunks."""
    acc = Accumulator()
    take = getattr(acc, feed)
    for item in items:
        take(item)
    return acc.completion()


def ended(reads: Iterable[bytes]) -> ChatCompletion | None:
    """Return the completion of a body that may be broken."""
    try:
        return completed(reads)
    except AccumulatorError as error:
        return error.partial


@cache
def streams(shape: str, count: int, number: int) -> list[shapes.Stream]:
    """Return so many streams of a shape."""
    return [shapes.made(shape, count, i) for i in range(number)]


def chunks_of(made: Iterable[shapes.Stream]) -> int:
    """Count the chunks of streams."""
    return sum(len(stream.events) for stream in made)


def read_twice(made: Iterable[shapes.Stream], reads: str) -> list[tuple[Any, Any]]:
    """Return the reads of streams, for ours and for theirs."""
    return [(stream.reads(SIZES[reads]),) * 2 for stream in made]


def bodies(shape: str, count: int, number: int, reads: str) -> Case:
    """Compare with the loop by hand, from the bytes to the completion."""
    made = streams(shape, count, number)
    return Case(
        read_twice(made, reads), completed, by_hand.completion_of, chunks_of(made), same=same
    )


@cache
def readable() -> list[shapes.Stream]:
    """Return the recordings that the loop by hand can read."""
    found = []
    for stream in shapes.recordings():
        with suppress(ValueError):
            by_hand.completion_of([stream.body])
            found.append(stream)
    return found


def recorded(reads: str) -> Case:
    """Compare over every recording that the loop by hand can read."""
    made = readable()
    return Case(read_twice(made, reads), ended, by_hand.completion_of, chunks_of(made))


def median_of(vendors: bool, ours: Times, theirs: Times) -> float:
    """Return the median over the recordings with or without vendors' fields."""
    rated = zip(map(shapes.has_vendor_fields, readable()), ours, theirs, strict=True)
    return statistics.median(own / other for has, own, other in rated if has is vendors)


def same(completion: ChatCompletion, wanted: object) -> bool:
    """Return whether a completion has all that another reducer returned."""
    return within(msgspec.to_builtins(wanted), completion.to_dict())


def within(wanted: Any, given: Any) -> bool:
    """Return whether all that is wanted is there; null, empty and absent are the same."""
    if isinstance(wanted, dict) and isinstance(given, dict):
        return all(within(value, given.get(name)) for name, value in wanted.items())
    if isinstance(wanted, list) and isinstance(given, list):
        return len(wanted) == len(given) and all(map(within, wanted, given))
    return bool(wanted == given) or not (wanted or given)


# `bare` with content in parts, which is no string.
class PartsDelta(bare.Delta):
    content: object = None  # type: ignore[assignment]  # wider than the API's


class PartsChoice(bare.Choice):
    delta: PartsDelta | None = None


class PartsChunk(bare.Chunk):
    choices: list[PartsChoice] | None = None  # type: ignore[assignment]  # a list is invariant


def cliff(shape: str, change: tuple[bytes, bytes] = (b"\n", b"\n")) -> Case:
    """Compare with `bare` over a shape that nothing was made for, in 4 KiB reads."""
    made = streams(shape, 200, 10)
    decode: Callable[[bytes], object] = bare.decode
    if shape == "thinking in parts":
        decode = msgspec.json.Decoder(PartsChunk).decode
    inputs = [(shapes.cut(stream.body.replace(*change), 4096), stream.events) for stream in made]
    return Case(inputs, completed, partial(bare.decode_all, decode=decode), chunks_of(made))


def growth(shape: str, snapshots: bool) -> Case:
    """Compare a stream of 100,000 chunks with 50 streams of 2,000."""
    stream = shapes.made(shape, 2000)
    pieces = stream.reads(None)
    # The last 600 but for the end: text, or fragments of one call, again and again.
    parts = (pieces[:-603], pieces[-603:-3], pieces[-3:])
    opening, middle, end = (shapes.cut(b"".join(each), 4096) for each in parts)

    def read(times: int) -> ChatCompletion:
        acc = Accumulator(limits=Limits(total_bytes=None))
        for reads in (opening, *[middle] * times, end):
            for data in reads:
                acc.feed_sse(data)
            if snapshots:
                acc.snapshot()
        return acc.completion()

    many = [1] * 50
    return Case([(164, many)], read, lambda each: list(map(read, each)), 50 * len(stream.events))


def dumped(method: str, count: int = 500) -> Case:
    """Compare writing a completion with logprobs with feeding it."""
    inputs = read_twice(streams("logprobs", count, 3), SMALL)
    return Case(inputs, getattr(ChatCompletion, method), completed, 3 * count, ready=completed)


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
    inputs = read_twice(made, reads)
    return Case(inputs, WAYS[ours](), WAYS[theirs](), chunks_of(made), same=same_texts)


def same_texts(ours: list[Any], theirs: list[Any]) -> bool:
    """Return whether events bring the same texts."""
    return list(filter(None, map(text_of, ours))) == list(filter(None, map(text_of, theirs)))


def text_of(event: Any) -> str | None:
    """Return the text that an event of any library brings."""
    delta = getattr(event, "delta", event)
    text: str | None = delta if isinstance(delta, str) else getattr(delta, "text", None)
    return text


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


def listed(iterate: Callable[..., Iterable[object]], **how: str) -> Callable[[Any], list[object]]:
    """Return what reads all events of an iterator."""
    return lambda reads: list(iterate(reads, **how))


WAYS: dict[str, Callable[[], Callable[[Any], list[Any]]]] = {
    "iter_events": lambda: listed(iter_events),
    "on_event": lambda: called_back,
    "the generator": lambda: listed(by_hand.events_of),
    "llmstream": lambda: listed(import_module("llmstream").iter_events, provider="openai"),
    "lm15": lm15,
}


# --- objects, mappings, lines -------------------------------------------------------------

fed = partial(completed, feed="feed")


def objects(shape: str, kind: str, number: int = 50) -> Case:
    """Compare chunks of openai's client, or mappings, with `bare` over the same JSON."""
    made = streams(shape, 40, number)
    inputs = [
        (list(asked(each)() if kind == "objects" else map(json.loads, each.events)), each.events)
        for each in made
    ]
    return Case(inputs, fed, bare.decode_all, chunks_of(made))


def lines(kind: str) -> Case:
    """Compare `feed_line` with `feed` of the same JSON."""
    made = streams("text, padded", 40, 100)
    inputs = [
        (each.body.splitlines(keepends=True) if kind == "SSE" else each.events, each.events)
        for each in made
    ]
    return Case(inputs, partial(completed, feed="feed_line"), fed, chunks_of(made))


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

    return Case([(asked(each),) * 2 for each in made], under, alone, chunks_of(made))


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

    if way == "objects":
        inputs = [(list(asked(each)()),) * 2 for each in made]
        return Case(inputs, fed, by_state, chunks_of(made), same=same_as_model)
    pairs = [(each.reads(4096), completions_of(each)) for each in made]
    return Case(pairs, completed, by_stream, chunks_of(made), same=same_as_model)


def same_as_model(completion: ChatCompletion, wanted: Any) -> bool:
    """Return whether a completion has all that openai's has."""
    return same(completion, wanted.model_dump(exclude_none=True, warnings=False))


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


def imported(seconds: float) -> tuple[float, str]:
    """Time the import beside that of what it needs, each in new processes, in turn.

    Both run on compiled code: the first process of each keeps what it compiles, and does not count.
    """
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    spent: dict[str, list[float]] = {"accumulator": [], "msgspec, attrs, cattrs": []}
    for _ in range(1 + max(3, int(20 * seconds))):
        for names, values in spent.items():
            code = f"import time; t = time.process_time(); import {names}; "
            command = [sys.executable, "-c", code + "print(time.process_time() - t)"]
            values.append(float(subprocess.check_output(command, env=environment)))
    ours, theirs = (statistics.median(values[1:]) for values in spent.values())
    return ours / theirs, f"{1e3 * ours:.0f} / {1e3 * theirs:.0f} ms CPU"


def rows() -> Iterator[Row]:
    """Yield the rows of the tables."""
    for reads, reach in ((EACH, 1.1), (SMALL, 1.2)):
        measure = timed(bodies, "text, padded", 40, 200, reads)
        yield Row("40 chunks of padded text", reads, HAND, reach, measure)
    for reads in (EACH, SMALL):
        yield Row("recordings", f"all, {reads}", HAND, 1.6, timed(recorded, reads))
        for vendors, what, reach in ((False, "without", 1.4), (True, "with", 2.0)):
            name = f"median {what} vendors' fields, {reads}"
            measure = timed(recorded, reads, figure=partial(median_of, vendors))
            yield Row("recordings", name, HAND, reach, measure)
    for group, count, number in (("whole body", 50, 50), ("long whole body", 2000, 2)):
        for shape, reach in zip(FOUR, (1.1, 1.2, 1.1, 1.25), strict=True):
            yield Row(group, shape, HAND, reach, timed(bodies, shape, count, number, WHOLE))
    for reads, reaches in ((SMALL, (0.7, 0.8, 1.05, 1.1, 0.7)), (EACH, (0.9, 1.0, 1.1, 1.1, 0.9))):
        for shape, reach in zip((*FOUR, "text, padded"), reaches, strict=True):
            yield Row(f"long, {reads}", shape, HAND, reach, timed(bodies, shape, 2000, 2, reads))
    for shape in ("text", "reasoning", "reasoning_content"):
        for ours in ("iter_events", "on_event"):
            for reads in (EACH, SMALL):
                measure = timed(events, shape, ours, "the generator", reads)
                yield Row("events", f"{ours}, {shape}, {reads}", "the generator", 2.5, measure)
    for shape in ("text", "reasoning_content"):
        for rival in ("llmstream", "lm15"):
            measure = timed(events, shape, "iter_events", rival, EACH)
            yield Row("events", f"iter_events, {shape}, and {rival}'s", rival, 1.0, measure)
    for method in ("to_json", "to_dict"):
        yield Row("logprobs out", method, "feeding", 1.0, timed(dumped, method))
    padded = (*(f"{name}, padded" for name in FOUR[:3]), "reasoning", "reasoning_content")
    for kind, bounds in (("objects", (5, 7, 5, 9, 9)), ("mappings", (4.5, 4.5, 2.5, 9, 9))):
        for shape, reach in zip(padded, bounds, strict=True):
            yield Row(kind, shape, BARE, reach, timed(objects, shape, kind))
    for kind in ("JSON Lines", "SSE"):
        yield Row("feed_line", kind, "feed", 1.5, timed(lines, kind))
    measure = timed(wrapped, figure=added)
    yield Row("wrap", "added to openai's stream", "the stream alone", 0.05, measure)
    for way, name in (("bytes", "from the bytes"), ("objects", "from its chunk objects")):
        yield Row("openai's helper", name, "its final completion", 1.0, timed(helped, way))
    for shape in shapes.HELD_OUT:
        yield Row("cliffs", shape, BARE, 6, timed(cliff, shape))
    for name, change in shapes.FRAMINGS.items():
        yield Row("cliffs", name, BARE, 6, timed(cliff, "text", change))
    for shape in FOUR[:3]:
        for snapshots in (False, True):
            name = f"100,000 chunks, {shape}" + ", `snapshot()` every 600" * snapshots
            yield Row("growth", name, "2,000 chunks", 1.15, timed(growth, shape, snapshots))
    yield Row("memory", "in flight after 400 chunks, RSS", "bytes", 4500, held.in_flight)
    yield Row("memory", "idle, traced", "bytes", 1024, held.idle)
    for kind in held.TEXTS:
        against = "its UTF-8, beyond 2 KiB"
        yield Row("memory", f"text held, {kind}", against, 1.5, partial(held.text_held, kind))
    yield Row("import", "`import accumulator`", "`import msgspec, attrs, cattrs`", 1.4, imported)
    for kind in ("chunks", "rows"):
        measure = partial(logs.reduced, kind)
        yield Row("logs", f"`accumulator reduce`, {kind}", "decoding", 1.67, measure)
    measure = partial(logs.reduced, "shuffled")
    yield Row("logs", "`accumulator reduce`, shuffled", "rows in order", 2.0, measure)


if __name__ == "__main__":
    main(*sys.argv[1:])
