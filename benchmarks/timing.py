"""Time one task, in this process, and print a pyperf suite: `timing.py TASK`. run.py calls it.

A ratio is what is wanted, on a machine that others use, too. pyperf's own Runner gives every
benchmark worker processes of its own: two benchmarks never share a process, let alone a moment,
and the ratio of two of them wanders by more than what there is to be seen. So the functions that
belong together are called in turn in one process, in every other round in the reverse order, each
call timed by itself; a ratio is taken between the calls of one round, a few milliseconds apart, and
the median of all rounds of all processes is reported. run.py starts several such processes, one
task after another and then all over again, because processes differ in where their memory lies.
What comes out is pyperf's nevertheless: a value a call, in seconds per chunk, in suites that
`python -m pyperf` shows and compares.

Every function is called once before, and its result checked. What was made for the calls is hidden
from the garbage collector, which otherwise runs as it always does: a program does not hold all of
its input at once.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import bare
import pyperf  # type: ignore[import-untyped]
import workloads
from workloads import READS, Stream

from accumulator import Accumulator, AccumulatorError, ChatCompletion, Limits

__all__ = ["TASKS", "Timed", "sdk_stream"]

BARE = "bare"
# Each size of reads, and beside them what the plain way costs.
WAYS = (
    *((label, size, True) for label, size in READS.items()),
    ("4 KiB reads, shortcut=False", 4 * 1024, False),
)
# A million chunks are more bytes than the limit that protects a server.
_UNLIMITED = Limits(total_bytes=None)
_SNAPSHOT_EACH = 1000  # chunks
# How many chunks the generated workloads have; W5 and W9 take longer for each.
COUNTS = dict.fromkeys(workloads.NAMES, 20_000) | {"W5": 5_000, "W9": 5_000}


@dataclass(frozen=True)
class Timed:
    """What is called and timed, and how many chunks it goes through."""

    label: str
    call: Callable[[], object]
    chunks: int


def main() -> None:
    """Time the task that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    suite = measured(options.task, TASKS[options.task](), options.rounds)
    suite.dump(sys.stdout)


def measured(task: str, timed: Sequence[Timed], rounds: int) -> pyperf.BenchmarkSuite:
    """Call all in turn, in so many rounds and one before that is thrown away."""
    values: dict[str, list[float]] = {each.label: [] for each in timed}
    gc.collect()
    gc.freeze()
    clock = pyperf.perf_counter
    for number in range(rounds + 1):
        for each in timed if number % 2 else reversed(timed):
            gc.collect()
            start = clock()
            result = each.call()
            took = clock() - start
            del result
            if number:
                values[each.label].append(took / each.chunks)
    return pyperf.BenchmarkSuite(
        [
            pyperf.Benchmark([pyperf.Run(values[each.label], metadata=about(task, each))])
            for each in timed
        ]
    )


def about(task: str, timed: Timed) -> dict[str, object]:
    """Give what pyperf keeps beside the values."""
    return {"name": f"{task}: {timed.label}", "unit": "second", "chunks": timed.chunks}


# --- W1 to W9 -----------------------------------------------------------------------------


def generated(name: str) -> list[Timed]:
    """Time W1 to W5, W7 or W8: `bare`, and the package for each size of read."""
    parts = workloads.parts(name, COUNTS[name])
    stream = workloads.encoded(parts)
    wanted = workloads.reduced(parts)
    timed = [yardstick([stream])]
    for label, size, shortcut in WAYS:
        reads = stream.reads(size)
        check(name, accumulated(reads, shortcut), wanted)
        timed.append(Timed(label, partial(accumulated, reads, shortcut), len(stream.events)))
    return timed


def recorded() -> list[Timed]:
    """Time W6: each recorded stream by an accumulator of its own."""
    streams = workloads.corpus()
    events = sum(len(stream.events) for stream in streams)
    timed = [yardstick(streams)]
    results = []
    for label, size, shortcut in WAYS:
        bodies = [stream.reads(size) for stream in streams]
        results.append([outcome(reads, shortcut) for reads in bodies])
        timed.append(Timed(label, partial(each_accumulated, bodies, shortcut), events))
    if any(result != results[0] for result in results):
        raise AssertionError("W6: the size of the reads, or the shortcut, makes a difference")
    return timed


def first_recorded() -> list[Timed]:
    """Time W6 at 4 KiB a read in a process that has not read a stream before, and so has learned
    no shape of a vendor's chunks: one that is forked each time.
    """
    streams = workloads.corpus()
    bodies = [stream.reads(4096) for stream in streams]
    events = sum(len(stream.events) for stream in streams)

    def read_by_a_child() -> None:
        child = os.fork()
        if not child:
            each_accumulated(bodies, True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            raise AssertionError(f"W6: the child ended with {status}")

    return [yardstick(streams), Timed("4 KiB reads", read_by_a_child, events)]


def objects() -> list[Timed]:
    """Time W9: the objects that openai's client makes of W1."""
    parts = workloads.parts("W1", COUNTS["W9"])
    stream = workloads.encoded(parts)
    chunks = list(sdk_stream(stream)())
    check("W9", fed(chunks), workloads.reduced(parts))
    return [yardstick([stream]), Timed("objects", partial(fed, chunks), len(chunks))]


def yardstick(streams: Iterable[Stream]) -> Timed:
    """Time `bare` over all events that it can read: in W6 some are not typed as the API is."""
    events = [event for stream in streams for event in stream.events if readable(event)]
    return Timed(BARE, partial(bare.decode_all, events), len(events))


def readable(event: bytes) -> bool:
    """Tell whether `bare` can read an event."""
    try:
        bare.decode(event)
    except ValueError:
        return False
    return True


def accumulated(reads: Iterable[bytes], shortcut: bool = True) -> ChatCompletion:
    """Read a body, from its bytes to its completion."""
    acc = Accumulator(shortcut=shortcut)
    feed = acc.feed_sse
    for data in reads:
        feed(data)
    return acc.completion()


def each_accumulated(bodies: Iterable[Iterable[bytes]], shortcut: bool) -> None:
    """Read bodies of which some are broken."""
    for reads in bodies:
        with suppress(AccumulatorError):
            accumulated(reads, shortcut)


def outcome(reads: Iterable[bytes], shortcut: bool) -> object:
    """Give what comes of a body, whole or broken."""
    try:
        return accumulated(reads, shortcut)
    except AccumulatorError as error:
        return type(error), error.partial, error.problems


def fed(chunks: Iterable[object]) -> ChatCompletion:
    """Take in chunks that are objects."""
    acc = Accumulator()
    feed = acc.feed
    for chunk in chunks:
        feed(chunk)
    return acc.completion()


def check(name: str, completion: ChatCompletion, wanted: Mapping[str, object]) -> None:
    """Raise AssertionError if a completion is not what its chunks add up to."""
    if workloads.digest(completion.to_dict()) != wanted:
        raise AssertionError(f"{name}: not what the chunks add up to")


# --- growth -------------------------------------------------------------------------------


def growth(name: str, count: int, snapshots: bool) -> list[Timed]:
    """Time a stream of 2,000 chunks, again and again, and a long one of the same bytes."""
    times = count // 2000
    parts = workloads.parts(name, 2000)
    short, long = in_thousands(parts, 1), in_thousands(parts, times)
    check(name, grown(short, snapshots), workloads.reduced(parts))
    chunks = sum(len(middle) for _, middle in parts.sections)
    return [
        Timed("short", partial(grown_often, short, snapshots, times), chunks * times),
        Timed("long", partial(grown, long, snapshots), chunks * times),
    ]


def in_thousands(parts: workloads.Parts, times: int) -> list[list[bytes]]:
    """Give the 4 KiB reads of a stream whose sections go on so many times as long, by the thousand
    chunks.
    """
    reads: list[bytes] = []
    for opening, middle in parts.sections:
        reads.append(workloads.unended(opening))
        reads += workloads.cut(workloads.unended(middle), 4096) * times
    reads.append(workloads.unended(parts.closing) + b"data: [DONE]\n\n")
    groups: list[list[bytes]] = [[]]
    seen = 0
    for data in reads:
        groups[-1].append(data)
        seen += data.count(b"\n\n")
        if seen >= _SNAPSHOT_EACH * len(groups):
            groups.append([])
    return groups


def grown(groups: Iterable[Iterable[bytes]], snapshots: bool) -> ChatCompletion:
    """Read a body, with a snapshot after each group of reads if so wanted."""
    acc = Accumulator(limits=_UNLIMITED)
    feed = acc.feed_sse
    for reads in groups:
        for data in reads:
            feed(data)
        if snapshots:
            acc.snapshot()
    return acc.completion()


def grown_often(groups: Iterable[Iterable[bytes]], snapshots: bool, times: int) -> None:
    """Read the same body so many times."""
    for _ in range(times):
        grown(groups, snapshots)


# --- wrap ---------------------------------------------------------------------------------


def wrapped() -> list[Timed]:
    """Time openai's stream read to its end, alone and under `wrap`."""
    from accumulator.streams import wrap  # noqa: PLC0415

    parts = workloads.parts("W1", 1000)
    stream = workloads.encoded(parts)
    create = sdk_stream(stream)

    def alone() -> None:
        for _ in create():
            pass

    def looked_on() -> ChatCompletion:
        with wrap(create()) as chunks:
            for _ in chunks:
                pass
        return chunks.completion

    check("wrap", looked_on(), workloads.reduced(parts))
    count = len(stream.events)
    return [Timed("alone", alone, count), Timed("under wrap", looked_on, count)]


def sdk_stream(stream: Stream) -> Callable[[], Iterable[object]]:
    """Give a function that asks openai's client for a completion, and gets this stream."""
    # Both are slow to import, and few tasks need them.
    import httpx2  # noqa: PLC0415
    import openai  # noqa: PLC0415

    reads = stream.reads(4096)

    class Body(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            return iter(reads)

    def respond(request: object) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Body())

    client = openai.OpenAI(
        api_key="none",
        base_url="http://127.0.0.1/v1",
        http_client=httpx2.Client(transport=httpx2.MockTransport(respond)),
    )
    return partial(
        client.chat.completions.create,
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": "hello"}],
        stream=True,
    )


TASKS: Mapping[str, Callable[[], list[Timed]]] = {
    **{name: partial(generated, name) for name in ("W1", "W2", "W3", "W4", "W5")},
    "W6": recorded,
    "W6 first": first_recorded,
    **{name: partial(generated, name) for name in ("W7", "W8")},
    "W9": objects,
    **{f"growth {name}": partial(growth, name, 200_000, False) for name in ("W1", "W4", "W5")},
    **{
        f"growth {name} snapshots": partial(growth, name, 200_000, True)
        for name in ("W1", "W4", "W5")
    },
    "growth W4 million": partial(growth, "W4", 1_000_000, False),
    "wrap": wrapped,
}


if __name__ == "__main__":
    main()
