"""The rows of the report: what is measured, against what, and the reach of each.

Two functions are timed, ours and theirs. They are called in turn in one process, every other round
in reverse order, by the thread's own clock, which stops while others have the processor. For each
input and function the fastest call counts; the figure is the sum of ours over the sum of theirs.
Results are compared before anything is timed.

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
import msgspec
import reducing
import shapes
from shapes import Stream

from accumulator import Accumulator, AccumulatorError, ChatCompletion, Limits, iter_events, wrap

QUESTION: Any = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
HAND, BARE = "the loop by hand", "`bare`"
EACH, SMALL, WHOLE = "one event a read", "4 KiB reads", "one read"
SIZES = {EACH: None, SMALL: 4096, WHOLE: 0}
# Other forms of a stream.
LINES, EVENTS, MAPPINGS, OBJECTS = "lines", "events", "mappings", "objects"
ASKING, CLIENT, PARTS = "asking", "client", "parts"
FOUR = ("text", "tool calls", "logprobs", "reasoning")


def main(only: str) -> None:
    """Print each row whose name matches a pattern, as soon as it is measured."""
    for group, name, against, reach, measured, *how in rows():
        if re.search(only, f"{group}: {name}, {against}"):
            try:
                taken = timed(measured, *how) if isinstance(measured, Case) else measured()
            except FileNotFoundError as error:
                print(f"{group} is left out: {error}", file=sys.stderr)
            else:
                print(json.dumps([group, name, against, reach, *taken]), flush=True)


# --- timing -------------------------------------------------------------------------------

Function = Callable[[Any], Any]
Times = Sequence[float]  # the fewest seconds for each stream


@dataclass(frozen=True)
class Case:
    """What is timed over some streams: two functions, each with the form in which it gets them."""

    shape: str  # empty: the recordings
    count: int
    number: int
    our_form: str
    ours: Function
    their_form: str
    theirs: Function
    # Whether their results are the same, if they can be compared.
    same: Callable[[Any, Any], bool] = lambda ours, theirs: True
    # Prepares each call of `ours`, outside the timing.
    ready: Function = lambda given: given
    repeats: int = 1  # how often an input contains its stream

    def streams(self) -> list[Stream]:
        return made(self.shape, self.count, self.number) if self.shape else readable()

    def chunks(self) -> int:
        return self.repeats * sum(len(stream.events) for stream in self.streams())

    def inputs(self) -> list[tuple[Any, Any]]:
        found = []
        for stream in self.streams():
            ours = given(stream, self.our_form)
            # The same objects, so that neither finds its bytes in a colder cache.
            is_same = self.their_form == self.our_form
            found.append((ours, ours if is_same else given(stream, self.their_form)))
        return found


def ratio(ours: Times, theirs: Times) -> float:
    return sum(ours) / sum(theirs)


def added(ours: Times, theirs: Times) -> float:
    return ratio(ours, theirs) - 1


def timed(case: Case, figure: Callable[[Times, Times], float] = ratio) -> tuple[float, str]:
    """Return the figure of a case, and the times that it is made of."""
    times = times_of(case)
    spent = (f"{1e6 * sum(each) / case.chunks():.2f}" for each in times)
    return figure(*times), f"{' / '.join(spent)} us"


@lru_cache(maxsize=1)  # several figures come from the same times
def times_of(case: Case) -> tuple[Times, Times]:
    """Call both functions with all inputs in turn, for a second and at least four times."""
    inputs = case.inputs()
    for ours, theirs in inputs[:20]:
        results = case.ours(case.ready(ours)), case.theirs(theirs)
        if not case.same(*results):
            raise AssertionError(f"{case}: {results!s:.2000}")
    best = [float("inf")] * len(inputs), [float("inf")] * len(inputs)
    clock = time.thread_time
    own = min(-(clock() - clock()) for _ in range(1000))  # a system call, which itself takes time
    gc.collect()
    gc.freeze()
    end, turn = time.perf_counter() + 1, 0
    while turn < 4 or time.perf_counter() < end:
        for number, (ours, theirs) in enumerate(inputs):
            turns = [(best[0], case.ours, case.ready(ours)), (best[1], case.theirs, theirs)]
            for fewest, call, given in turns if turn % 2 else reversed(turns):
                start = clock()
                result = call(given)
                took = clock() - start - own
                del result
                fewest[number] = min(fewest[number], took)
        turn += 1
    gc.unfreeze()
    return best


# --- streams, and the forms in which functions get them -----------------------------------


@cache
def made(shape: str, count: int, number: int) -> list[Stream]:
    """Return `number` streams of a shape."""
    return [shapes.made(shape, count, i) for i in range(number)]


@cache
def readable() -> list[Stream]:
    """Return the recordings that the loop by hand can read."""
    found = []
    for stream in shapes.recordings():
        with suppress(ValueError):
            by_hand.completion_of([stream.body])
            found.append(stream)
    return found


def given(stream: Stream, form: str) -> Any:
    """Return a stream in the form in which a function gets it."""
    if form in SIZES:
        return stream.reads(SIZES[form])
    if form in shapes.FRAMINGS:
        return shapes.cut(stream.body.replace(*shapes.FRAMINGS[form]), 4096)
    if form == PARTS:
        # The middle is the last 600 before the end: text, or fragments of one call.
        pieces = stream.reads(None)
        parts = (pieces[:-603], pieces[-603:-3], pieces[-3:])
        return [shapes.cut(b"".join(each), 4096) for each in parts]
    if form == LINES:
        return stream.body.splitlines(keepends=True)
    if form == MAPPINGS:
        return [*map(json.loads, stream.events)]
    if form == EVENTS:
        return stream.events
    completions = completions_of(stream)
    if form == CLIENT:
        return completions
    ask = partial(completions.create, **QUESTION, stream=True)
    return ask if form == ASKING else list(ask())


def completions_of(stream: Stream) -> Any:
    """Return the completions of an openai client that gets this stream for every answer."""
    httpx, openai = import_module("httpx2"), import_module("openai")
    reads, headers = stream.reads(4096), {"content-type": "text/event-stream"}

    def respond(request: object) -> Any:
        return httpx.Response(200, headers=headers, content=iter(reads))

    http_client = httpx.Client(transport=httpx.MockTransport(respond))
    client = openai.OpenAI(api_key="none", base_url="http://localhost/v1", http_client=http_client)
    return client.chat.completions


# --- ours and theirs ----------------------------------------------------------------------


def completed(items: Iterable[Any], feed: str = "feed_sse") -> ChatCompletion:
    """Return the completion of reads, of lines or of chunks."""
    acc = Accumulator()
    take = getattr(acc, feed)
    for item in items:
        take(item)
    return acc.completion()


fed = partial(completed, feed="feed")


def ended(reads: Iterable[bytes]) -> ChatCompletion | None:
    """Return the completion of a body that may be broken."""
    try:
        return completed(reads)
    except AccumulatorError as error:
        return error.partial


def same(completion: ChatCompletion, wanted: Any) -> bool:
    """Return whether a completion has everything that by hand's or openai's has."""
    if not isinstance(wanted, dict):
        wanted = wanted.model_dump(exclude_none=True, warnings=False)
    return within(msgspec.to_builtins(wanted), completion.to_dict())


def within(wanted: Any, given: Any) -> bool:
    """Return whether everything wanted is there; null, empty and absent are the same."""
    if isinstance(wanted, dict) and isinstance(given, dict):
        return all(within(value, given.get(name)) for name, value in wanted.items())
    if isinstance(wanted, list) and isinstance(given, list):
        return len(wanted) == len(given) and all(map(within, wanted, given))
    return bool(wanted == given) or not (wanted or given)


def median_of(vendors: bool, ours: Times, theirs: Times) -> float:
    """Return the median over the recordings with or without vendors' fields."""
    rated = zip(map(has_vendor_fields, readable()), ours, theirs, strict=True)
    return statistics.median(own / other for has, own, other in rated if has is vendors)


def has_vendor_fields(stream: Stream) -> bool:
    """Return whether a chunk has a field that `bare`, which has the API's, does not have."""

    def beyond(value: object, known: Any) -> bool:
        if isinstance(value, list):
            return any(map(beyond, value, known or ()))
        if isinstance(value, dict):
            return any(k not in known or beyond(v, known[k]) for k, v in value.items())
        return False

    return any(
        beyond(json.loads(event), msgspec.to_builtins(bare.decode(event)) | {"obfuscation": None})
        for event in stream.events
    )


def bodies(shape: str, count: int, number: int, reads: str) -> Case:
    """Compare with the loop by hand, from the bytes to the completion."""
    return Case(shape, count, number, reads, completed, reads, by_hand.completion_of, same)


def objects(shape: str, form: str, number: int = 50) -> Case:
    """Compare ready-made chunks with `bare` over the same JSON."""
    return Case(shape, 40, number, form, fed, EVENTS, bare.decode_all)


def dumped(method: str, count: int = 500) -> Case:
    """Compare writing a completion with logprobs with feeding it."""
    write = getattr(ChatCompletion, method)
    return Case("logprobs", count, 3, SMALL, write, SMALL, completed, ready=completed)


# `bare` with content in parts, which is not a string.
Delta = msgspec.defstruct("Delta", [("content", object, None)], bases=(bare.Delta,))
Choice = msgspec.defstruct("Choice", [("delta", Delta | None, None)], bases=(bare.Choice,))
Chunk = msgspec.defstruct("Chunk", [("choices", list[Choice], None)], bases=(bare.Chunk,))
by_parts = partial(bare.decode_all, decode=msgspec.json.Decoder(Chunk).decode)


def cliff(shape: str, form: str, theirs: Function = bare.decode_all) -> Case:
    """Compare with `bare` over a shape that nothing was optimised for."""
    return Case(shape, 200, 10, form, completed, EVENTS, theirs)


def growth(shape: str, snapshots: bool) -> Case:
    """Compare a stream of 100,000 chunks with 50 streams of 2,000."""

    def read(parts: list[list[bytes]], times: int = 164) -> ChatCompletion:
        opening, middle, end = parts
        acc = Accumulator(limits=Limits(total_bytes=None))
        for reads in (opening, *[middle] * times, end):
            for data in reads:
                acc.feed_sse(data)
            if snapshots:
                acc.snapshot()
        return acc.completion()

    def read_short(parts: list[list[bytes]]) -> list[ChatCompletion]:
        return [read(parts, 1) for _ in range(50)]

    return Case(shape, 2000, 1, PARTS, read, PARTS, read_short, repeats=50)


# --- events -------------------------------------------------------------------------------


def called_back(reads: Iterable[bytes]) -> list[object]:
    """Return the events that `on_event` was given."""
    events: list[object] = []
    acc = Accumulator(on_event=events.append)
    for data in reads:
        acc.feed_sse(data)
    acc.close()
    return events


def listed(iterate: Function, reads: Iterable[bytes]) -> list[Any]:
    return list(iterate(reads))


def lm15s(reads: Iterable[bytes]) -> Iterator[Any]:
    """Yield events as lm15's client does, without its requests."""
    parse, of_event = lm15s_readers()
    lines = (line for data in reads for line in data.splitlines(keepends=True))
    for event in parse(lines):
        yield from of_event(event)


@cache
def lm15s_readers() -> tuple[Function, Function]:
    package = import_module("lm15")
    client = import_module("lm15.providers.openai_chat").OpenAIChatLM(api_key="none")
    request = package.Request(model="gpt-4o-mini", messages=(package.Message.user("hello"),))
    return import_module("lm15.sse").parse_sse, partial(client.parse_stream_events, request)


def events(shape: str, ours: Function, theirs: Function, reads: str, number: int = 100) -> Case:
    """Compare the events of 40 chunks with the generator by hand, or with a rival's."""
    return Case(shape, 40, number, reads, ours, reads, theirs, same_texts)


def same_texts(ours: list[Any], theirs: list[Any]) -> bool:
    """Return whether events have the same texts."""
    return list(filter(None, map(text_of, ours))) == list(filter(None, map(text_of, theirs)))


def text_of(event: Any) -> str | None:
    """Return the text of an event of any library."""
    delta = getattr(event, "delta", event)
    text: str | None = delta if isinstance(delta, str) else getattr(delta, "text", None)
    return text


# --- openai's client ----------------------------------------------------------------------


def under_wrap(create: Callable[[], Iterable[object]]) -> ChatCompletion:
    with wrap(create()) as chunks:
        for _ in chunks:
            pass
    return chunks.completion


def alone(create: Callable[[], Iterable[object]]) -> None:
    for _ in create():
        pass


def helped(completions: Any) -> Any:
    with completions.stream(**QUESTION) as stream:
        return stream.get_final_completion()


def handled(chunks: Iterable[Any]) -> Any:
    state = import_module("openai.lib.streaming.chat").ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(chunk)
    return state.get_final_completion()


# --- the tables ---------------------------------------------------------------------------


def imported() -> tuple[float, str]:
    """Compare the import with that of what it needs, each in new processes, in turn.

    Both run compiled code: the first process of each stores its bytecode, and does not count.
    """
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    spent: dict[str, list[float]] = {"accumulator": [], "msgspec, attrs, cattrs": []}
    for _ in range(21):
        for names, values in spent.items():
            code = f"import time; t = time.process_time(); import {names}; "
            command = [sys.executable, "-c", code + "print(time.process_time() - t)"]
            values.append(float(subprocess.check_output(command, env=environment)))
    ours, theirs = (statistics.median(values[1:]) for values in spent.values())
    return ours / theirs, f"{1e3 * ours:.0f} / {1e3 * theirs:.0f} ms CPU"


iterated, generated = partial(listed, iter_events), partial(listed, by_hand.events_of)


def rows() -> Iterator[tuple[Any, ...]]:
    """Yield the rows: group, name, against what, reach, a case or what measures it."""
    for reads, reach in ((EACH, 1.1), (SMALL, 1.2)):
        case = bodies("text, padded", 40, 200, reads)
        yield "40 chunks of padded text", reads, HAND, reach, case
    for reads in (EACH, SMALL):
        case = Case("", 0, 0, reads, ended, reads, by_hand.completion_of)
        yield "recordings", f"all, {reads}", HAND, 1.6, case
        for vendors, what, reach in ((False, "without", 1.4), (True, "with", 2.0)):
            name = f"median {what} vendors' fields, {reads}"
            yield "recordings", name, HAND, reach, case, partial(median_of, vendors)
    for group, count, number in (("whole body", 50, 50), ("long whole body", 2000, 2)):
        for shape, reach in zip(FOUR, (1.1, 1.2, 1.1, 1.25), strict=True):
            yield group, shape, HAND, reach, bodies(shape, count, number, WHOLE)
    for reads, reaches in ((SMALL, (0.7, 0.8, 1.05, 1.1, 0.7)), (EACH, (0.9, 1.0, 1.1, 1.1, 0.9))):
        for shape, reach in zip((*FOUR, "text, padded"), reaches, strict=True):
            yield f"long, {reads}", shape, HAND, reach, bodies(shape, 2000, 2, reads)
    for shape in ("text", "reasoning", "reasoning_content"):
        for way, ours in (("iter_events", iterated), ("on_event", called_back)):
            for reads in (EACH, SMALL):
                case = events(shape, ours, generated, reads)
                yield "events", f"{way}, {shape}, {reads}", "the generator", 2.5, case
    llmstreams = partial(import_module("llmstream").iter_events, provider="openai")
    for shape in ("text", "reasoning_content"):
        for rival, iterate in (("llmstream", llmstreams), ("lm15", lm15s)):
            case = events(shape, iterated, partial(listed, iterate), EACH)
            yield "events", f"iter_events, {shape}, and {rival}'s", rival, 1.0, case
    for method in ("to_json", "to_dict"):
        yield "logprobs out", method, "feeding", 1.0, dumped(method)
    padded = (*(f"{name}, padded" for name in FOUR[:3]), "reasoning", "reasoning_content")
    for kind, bounds in ((OBJECTS, (5, 7, 5, 9, 9)), (MAPPINGS, (4.5, 4.5, 2.5, 9, 9))):
        for shape, reach in zip(padded, bounds, strict=True):
            yield kind, shape, BARE, reach, objects(shape, kind)
    for kind, form in (("JSON Lines", EVENTS), ("SSE", LINES)):
        case = Case(
            "text, padded", 40, 100, form, partial(completed, feed="feed_line"), EVENTS, fed
        )
        yield "feed_line", kind, "feed", 1.5, case
    case = Case("text, padded", 300, 5, ASKING, under_wrap, ASKING, alone)
    yield "wrap", "added to openai's stream", "the stream alone", 0.05, case, added
    for name, *how in (
        ("from the bytes", SMALL, completed, CLIENT, helped),
        ("from its chunk objects", OBJECTS, fed, OBJECTS, handled),
    ):
        case = Case("text", 300, 5, *how, same)
        yield "openai's helper", name, "its final completion", 1.0, case
    for shape in shapes.HELD_OUT:
        theirs = by_parts if shape == "thinking in parts" else bare.decode_all
        yield "cliffs", shape, BARE, 6, cliff(shape, SMALL, theirs)
    for framing in shapes.FRAMINGS:
        yield "cliffs", framing, BARE, 6, cliff("text", framing)
    for shape in FOUR[:3]:
        for snapshots in (False, True):
            name = f"100,000 chunks, {shape}" + ", `snapshot()` every 600" * snapshots
            yield "growth", name, "2,000 chunks", 1.15, growth(shape, snapshots)
    yield "memory", "in flight after 400 chunks, RSS", "bytes", 4500, held.in_flight
    yield "memory", "idle, traced", "bytes", 1024, held.idle
    for kind in held.TEXTS:
        measure, against = partial(held.text_held, kind), "its UTF-8, beyond 2 KiB"
        yield "memory", f"text held, {kind}", against, 1.5, measure
    yield "import", "`import accumulator`", "`import msgspec, attrs, cattrs`", 1.4, imported
    for kind, against, reach in reducing.ROWS:
        yield (
            "logs",
            f"`accumulator reduce`, {kind}",
            against,
            reach,
            partial(reducing.reduced, kind),
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
