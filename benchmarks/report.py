"""Write the report: the data, the tables and the chart."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import chart
from workloads import READS, TITLES

__all__ = ["reach", "write"]

Figures = Mapping[str, Any]

LARGE, SMALL, EACH = READS
OBJECTS = "objects"
PLAIN = "4 KiB reads, shortcut=False"
# The ratios to reach: on CPython 3.11, and on 3.13 and later.
REACH = {
    ("W1", SMALL): (1.0, 0.7),
    ("W1", EACH): (2.2, 1.8),
    ("W2", SMALL): (1.3, 0.9),
    ("W3", SMALL): (1.3, 1.0),
    ("W4", SMALL): (0.9, 0.6),
    ("W5", SMALL): (0.9, 0.9),
    ("W6", SMALL): (3.0, 2.7),
    ("W7", SMALL): (4.2, 4.0),
    ("W8", SMALL): (2.6, 2.4),
    ("W9", OBJECTS): (3.0, 3.0),
}
OWN = ("bare", "accumulator")  # among the peers
GROWTH_REACH = 1.15
WRAP_REACH = 1.03
IMPORT_REACH = 1.5
IDLE_REACH = 1024
HELD_REACH = 1.5
DECODE_REACH = 0.6
WORKERS_REACH = 1.8
SHUFFLED_REACH = 2.0
LOGS = {
    "bare": "bare chunks, in order",
    "rows": "rows of id, number and chunk, in order",
    "shuffled": "the same rows, shuffled",
}


def reach(workload: str, reads: str, version: str) -> float | None:
    """Give the ratio that a workload is to stay below on a version of CPython, if one is set."""
    bounds = REACH.get((workload, reads))
    minor = int(version.split(".")[1])
    if bounds is None or minor not in (11, 13, 14):
        return None
    return bounds[minor >= 13]


def write(figures: Figures, data: Path, documents: Path) -> None:
    """Write all three files and print the tables."""
    data.mkdir(parents=True, exist_ok=True)
    documents.mkdir(parents=True, exist_ok=True)
    text = json.dumps(figures, indent=1) + "\n"
    (data / "report.json").write_text(text, encoding="utf-8")
    tables = "\n".join(lines(figures)) + "\n"
    (documents / "benchmarks.md").write_text(tables, encoding="utf-8")
    (documents / "benchmarks.svg").write_text(drawn(figures), encoding="utf-8")
    print(tables)


# --- the document -------------------------------------------------------------------------


def lines(figures: Figures) -> Iterator[str]:
    """Give the lines of the document."""
    machine = figures["machine"]
    yield "# Benchmarks"
    yield ""
    yield (
        f"Made by `python3 benchmarks/run.py{' --quick' * figures['quick']}` on"
        f" {figures['date']}: {machine['cpu']}, {machine['cores']} cores, {machine['system']},"
        f" with a load of {machine['load when it started']} before it started."
    )
    yield (
        "The yardstick is `bare`: one reused `msgspec` decoder of a typed chunk, run over the same"
        " events, already split. A ratio of 1 is what parsing alone costs. Ratios are taken in one"
        " process, in turn with `bare`; each is the median, and beside it stand nanoseconds a"
        " chunk. What is measured goes from the bytes of the body to `completion()`. What stands"
        " under `reach` is the bound that the project has set itself."
    )
    yield ""
    yield "![The ratios to `bare`, and the peers' times, as bars](benchmarks.svg)"
    for version, own in figures["pythons"].items():
        yield ""
        yield f"## CPython {own['versions']['python']}"
        yield ""
        others = (f"{name} {number}" for name, number in own["versions"].items())
        yield ", ".join(list(others)[1:]) + "."
        for section in (workloads_table, growth_table, wrap_line, memory_tables, import_line):
            yield from section(own, version)
    if "logs" in figures:
        yield from logs_table(figures["logs"])
    if "peers" in figures:
        yield from peers_table(figures["peers"])


def workloads_table(own: Figures, version: str) -> Iterator[str]:
    """Give the table of W1 to W9."""
    tasks = own["tasks"]
    names = [name for name in TITLES if name in tasks]
    if not names:
        return
    yield ""
    columns = (column for reads in READS for column in (reads, "reach"))
    yield from head("", "bare, ns", *columns, f"4 KiB, `{PLAIN.partition(', ')[2]}`")
    for name in names:
        timed = tasks[name]
        cells = [f"**{name}** {TITLES[name]}", nanoseconds(timed["bare"])]
        for reads in READS:
            # Objects come one by one.
            label = OBJECTS if name == "W9" and reads == EACH else reads
            if label not in timed:
                cells += ["", ""]
                continue
            bound = reach(name, label, version)
            cells.append(ratio(timed[label]))
            cells.append("" if bound is None else verdict(timed[label]["ratio"], bound))
        yield row(*cells, ratio(timed[PLAIN]) if PLAIN in timed else "")
    if "W6 first" in tasks:
        yield ""
        yield (
            "Every workload has been read before in the same process. W6 at 4 KiB a read in one"
            f" that has read no stream at all: {ratio(tasks['W6 first'][SMALL])}."
        )


def growth_table(own: Figures, version: str) -> Iterator[str]:
    """Give the table of how the cost of a chunk grows with the length of its stream."""
    tasks = {name: timed for name, timed in own["tasks"].items() if name.startswith("growth")}
    if not tasks:
        return
    yield ""
    yield "Growth: what a chunk costs in a long stream, and in one of 2,000 chunks."
    yield ""
    yield from head("", "2,000 chunks, ns", "long, ns", "ratio", "reach")
    for name, timed in tasks.items():
        _, workload, *how = name.split()
        title = {
            "": f"{workload}, 200,000 chunks",
            "snapshots": f"{workload}, 200,000 chunks, `snapshot()` every 1,000",
            "million": f"{workload}, 1,000,000 fragments",
        }[" ".join(how)]
        short, long = timed["short"], timed["long"]
        grown = long["ratio"]
        yield row(
            title, nanoseconds(short), nanoseconds(long), f"{grown:.2f}",
            verdict(grown, GROWTH_REACH),
        )  # fmt: skip


def wrap_line(own: Figures, version: str) -> Iterator[str]:
    """Say what `wrap` adds to openai's stream."""
    if "wrap" in own["tasks"]:
        alone, under = (own["tasks"]["wrap"][label] for label in ("alone", "under wrap"))
        yield ""
        yield (
            f"`wrap` around a stream of openai's client: {100 * (under['ratio'] - 1):+.1f} % of"
            f" the {nanoseconds(alone)} ns a chunk that the stream needs itself"
            f" ({verdict(under['ratio'] - 1, WRAP_REACH - 1, '.0%')})."
        )


def memory_tables(own: Figures, version: str) -> Iterator[str]:
    """Give what accumulators hold."""
    if "memory" not in own:
        return
    memory = own["memory"]
    idle = memory["idle"]
    yield ""
    yield f"An idle accumulator holds {idle:,.0f} bytes ({verdict(idle, IDLE_REACH, ',')})."
    yield ""
    yield (
        "One in flight holds, beyond 2 KiB and as a factor of the UTF-8 length of its text"
        f" (to stay below {HELD_REACH}; traced by tracemalloc):"
    )
    yield ""
    end = f"{memory['tokens']:,} fragments"
    yield from head("", "10,000 fragments", end, "highest between", "and after a `snapshot()`")
    for title, factors in memory["in_flight"].items():
        measured = [factors["at 10,000"], factors["at the end"]]
        others = [factors["highest"], factors["after a snapshot"]]
        marked = [f"{each:.2f}{'' if each <= HELD_REACH else ' (missed)'}" for each in measured]
        yield row(title, *marked, *(f"{each:.2f}" for each in others))
    streams = memory["streams"]
    yield ""
    yield (
        f"{streams['streams']:,} streams in flight at once in one process, {streams['tokens']}"
        f" tokens ({streams['text_bytes']:,.0f} bytes of text) each: {streams['bytes']:,.0f} bytes"
        f" a stream (RSS), {1e9 * streams['seconds_per_chunk']:,.0f} ns a chunk"
        f" ({streams['ratio']:.2f} times `bare`)."
    )


def import_line(own: Figures, version: str) -> Iterator[str]:
    """Say how long the import takes."""
    if "import" in own:
        figures = own["import"]
        brought = ", ".join(f"`{name}`" for name in figures["outside the standard library"])
        yield ""
        yield (
            f"`import accumulator`: {1e3 * figures['seconds']:.0f} ms,"
            f" {figures['ratio']:.2f} times `import msgspec, attrs, cattrs`"
            f" ({verdict(figures['ratio'], IMPORT_REACH)}); it brings {brought}, and"
            f" {'**asyncio**' if figures['asyncio'] else 'no asyncio'}."
        )


def logs_table(logs: Figures) -> Iterator[str]:
    """Give what `accumulator reduce` costs."""
    decode, runs = logs["decode"], logs["runs"]
    yield ""
    yield "## Recorded logs"
    yield ""
    yield (
        f"`accumulator reduce` over {logs['chunks']:,} chunks of W1 ({logs['megabytes']} MB as bare"
        " chunks), 400 a stream, its start and its files included; the load was"
        f" {logs['load']:.1f}. Beside it stands what decoding the same lines alone is of its CPU"
        " time, typed as `bare` is."
    )
    yield ""
    yield from head("", "1 worker, CPU s", "decode", "reach", "2 workers, CPU s", "s by the clock")
    for kind, title in LOGS.items():
        one, two = runs[f"{kind}, 1"], runs[f"{kind}, 2"]
        share = decode["bare" if kind == "bare" else "rows"] / one["cpu"]
        bound = "" if kind == "shuffled" else at_least(share, DECODE_REACH)
        cells = (f"{one['cpu']:.2f}", f"{share:.2f}", bound, f"{two['cpu']:.2f}")
        yield row(title, *cells, f"{one['clock']:.2f} to {two['clock']:.2f}")
    faster = runs["bare, 1"]["clock"] / runs["bare, 2"]["clock"]
    dearer = runs["shuffled, 1"]["cpu"] / runs["rows, 1"]["cpu"]
    yield ""
    yield (
        f"Two workers are {faster:.2f} times as fast as one by the clock"
        f" ({at_least(faster, WORKERS_REACH)}); shuffled rows cost {dearer:.1f} times the CPU time"
        f" of sorted ones ({verdict(dearer, SHUFFLED_REACH)})."
    )


def peers_table(peers: Figures) -> Iterator[str]:
    """Give the table of the peers."""
    bodies = peers["bodies"]
    yield ""
    yield "## Peers"
    yield ""
    yield (
        "The same bodies in 4 KiB reads, each peer in a process of its own, asked in turn;"
        " microseconds a chunk, and how many times `bare` that is. The results were compared first:"
        " who gives another one than the package is named with what differs."
    )
    yield ""
    titles = (f"{name} {TITLES[name]}, {bodies[name]['chunks']:,} chunks" for name in bodies)
    yield from head("", *titles, "versions")
    named: dict[str, None] = {}
    for body in bodies.values():
        named |= dict.fromkeys((*body["ways"], *body["differ"]))
    for title in named:
        cells = []
        for body in bodies.values():
            way = body["ways"].get(title)
            if way is None:
                cells.append(f"differs: {', '.join(body['differ'][title])}")
            else:
                microseconds = chart.number(1e6 * way["seconds_per_chunk"])
                cells.append(f"{microseconds} ({chart.number(way['ratio'])})")
        versions = peers["versions"].get(title, {})
        yield row(title, *cells, ", ".join(f"{name} {each}" for name, each in versions.items()))
    for title, reason in peers["absent"].items():
        yield ""
        yield f"{title}: could not be run ({reason})."


# --- tables -------------------------------------------------------------------------------


def head(first: str, *others: str) -> Iterator[str]:
    """Give the head of a table with numbers in all columns but the first."""
    yield row(first, *others)
    yield row("---", *("--:" for _ in others))


def row(*cells: str) -> str:
    """Give a row of a table."""
    return f"| {' | '.join(cells)} |"


def verdict(value: float, bound: float, form: str = "") -> str:
    """Say whether a bound was kept."""
    return f"≤ {bound:{form}}" if value <= bound else f"≤ {bound:{form}} **missed**"


def at_least(value: float, bound: float) -> str:
    """Say whether a lower bound was reached."""
    return f"≥ {bound}" if value >= bound else f"≥ {bound} **missed**"


def ratio(timed: Figures) -> str:
    """Give a ratio, and the time a chunk beside it."""
    return f"{timed['ratio']:.2f} ({nanoseconds(timed)} ns)"


def nanoseconds(timed: Figures) -> str:
    """Give a time a chunk."""
    return f"{1e9 * timed['seconds_per_chunk']:,.0f}"


# --- the chart ----------------------------------------------------------------------------


def drawn(figures: Figures) -> str:
    """Draw the ratios of all workloads, and the peers."""
    panels = []
    pythons: Mapping[str, Figures] = figures["pythons"]
    rows = []
    for name, title in TITLES.items():
        label = OBJECTS if name == "W9" else SMALL
        bars = [
            chart.Bar(own["tasks"][name][label]["ratio"], number, reach(name, label, version))
            for number, (version, own) in enumerate(pythons.items())
            if name in own["tasks"]
        ]
        if bars:
            rows.append(chart.Row(f"{name} {title.replace('`', '')}", bars))
    if rows:
        title = "Bytes to completion() in 4 KiB reads, as a multiple of parsing alone"
        series = [f"CPython {own['versions']['python']}" for own in pythons.values()]
        panels.append(chart.Panel(title, rows, series, mark=1.0))
    if "peers" in figures:
        panels.append(peers_panel(figures["peers"]["bodies"]["W1"]))
    return chart.svg(panels)


def peers_panel(body: Figures) -> chart.Panel:
    """Draw the peers' times for text."""
    ways: Sequence[tuple[str, Figures]] = list(body["ways"].items())
    rows = [
        chart.Row(
            "parsing alone (bare)" if title == "bare" else title,
            [chart.Bar(1e6 * way["seconds_per_chunk"], 0 if title in OWN else 2)],
        )
        for title, way in ways
    ]
    title = "W1 text, microseconds a chunk (logarithmic)"
    return chart.Panel(title, rows, [], logarithmic=True)
