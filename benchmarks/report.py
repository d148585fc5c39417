"""Write the report: the data, the tables and the chart."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

__all__ = ["write"]

Figures = Mapping[str, Any]
# The title of each table, what is said above it, and the groups of rows in it.
TABLES = (
    (
        "What people send",
        "From the construction of an accumulator to `completion()`. *The loop by hand* is what a"
        " good engineer writes without us (`benchmarks/by_hand.py`): typed msgspec Structs of what"
        " the job needs and no checks; *the generator* is the same for events.",
        ("40 chunks of padded text", "recordings", "whole body", "long whole body",
         "long, 4 KiB reads", "long, one event a read", "events", "logprobs out"),
    ),
    (
        "Per chunk",
        "`bare` is one reused msgspec decoder of a typed chunk over the same JSON"
        " (`benchmarks/bare.py`): what parsing alone costs.",
        ("objects", "mappings", "feed_line", "wrap", "cliffs"),
    ),
    (
        "Growth, memory, import, logs",
        "Memory is traced by tracemalloc, or the growth of the process where it says RSS.",
        ("growth", "memory", "import", "logs"),
    ),
)  # fmt: skip


def write(figures: Figures, data: Path, documents: Path) -> None:
    """Write all three files, and print the tables."""
    for folder in (data, documents):
        folder.mkdir(parents=True, exist_ok=True)
    (data / "report.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    tables = "\n".join(lines(figures)) + "\n"
    (documents / "benchmarks.md").write_text(tables, encoding="utf-8")
    (documents / "benchmarks.svg").write_text(drawn(figures), encoding="utf-8")
    print(tables)


def lines(figures: Figures) -> Iterator[str]:
    """Yield the lines of the document."""
    versions = figures["versions"]
    yield "# Benchmarks\n"
    yield f"Made by `python3 benchmarks/run.py` on {figures['date']}: {figures['machine']}."
    yield (
        "A figure is how many times as much something takes as what stands beside it; both are"
        " called in turn in one process, and the fastest call of each input counts. Shown is the"
        f" median of {figures['turns']} such processes, with microseconds a chunk of both in"
        " brackets. `reach` is the bound that the project has set itself.\n"
    )
    for own in versions.values():
        yield "- " + ", ".join(f"{name} {version}" for name, version in own.items())
    yield "\n![The figures as bars, with the reach of each](benchmarks.svg)"
    for title, above, groups in TABLES:
        rows = [row for row in figures["rows"] if row["group"] in groups]
        if rows:
            yield f"\n## {title}\n\n{above}\n"
            yield from table(rows, list(versions))
    if "peers" in figures:
        yield from peers_table(figures["peers"])


def table(rows: list[Figures], versions: list[str]) -> Iterator[str]:
    """Yield a table of rows, the name of a group in its first row."""
    yield row_of("", "", "beside", "reach", *(f"CPython {version}" for version in versions))
    yield row_of("---", "---", "---", *("--:" for _ in ("reach", *versions)))
    for group, members in groupby(rows, key=lambda row: row["group"]):
        title = f"**{group}**"
        for row in members:
            cells = (cell(row.get(version), row["reach"]) for version in versions)
            yield row_of(title, row["name"], row["against"], f"{row['reach']:,g}", *cells)
            title = ""


def cell(measured: Figures | None, reach: float) -> str:
    """Return a figure, with a mark where the reach is missed."""
    if measured is None:
        return ""
    if measured["figure"] is None:
        return f"**missed** ({measured['beside']})"
    figure: float = measured["figure"]
    shown = f"{figure:,.0f}" if reach >= 100 else f"{figure:.2f}"
    beside = f" ({measured['beside']})" * bool(measured["beside"])
    return shown + beside + " **missed**" * (figure > reach)


def row_of(*cells: str) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(cells)} |"


def peers_table(peers: Figures) -> Iterator[str]:
    """Yield the table of the peers."""
    yield "\n## Peers\n"
    yield (
        "Microseconds a chunk, the same bodies in 4 KiB reads, each peer in a process of its own,"
        " asked in turn. The results were compared first: a peer with another one is named with"
        " what differs.\n"
    )
    shapes = list(next(iter(peers.values()))["shapes"])
    yield row_of("", *shapes, "versions")
    yield row_of("---", *("--:" for _ in shapes), "---")
    for name, peer in peers.items():
        cells = (
            each if isinstance(each, str) else f"{each:,.{2 if each < 10 else 0}f}"
            for each in peer["shapes"].values()
        )
        versions = ", ".join(f"{key} {version}" for key, version in peer["versions"].items())
        yield row_of(name, *cells, versions)


# --- the chart ----------------------------------------------------------------------------

# A picture in a page does not learn whether the page is white or black: middling tones.
TEXT, FILLS = "#74808c", ("#2f7fd1", "#b9731b", "#3a9a5b")
LABELS, WIDTH, ROOM, THICK, GAP, LINE = 400, 860, 60, 10, 7, 24


def drawn(figures: Figures) -> str:
    """Return the figures of speed as bars: what is measured, as a share of its reach."""
    versions = list(figures["versions"])
    shapes, y = [], 8.0
    for number, version in enumerate(versions):
        fill = FILLS[number % len(FILLS)]
        shapes.append(
            f'<rect x="{10 + 150 * number}" y="{y}" width="10" height="10" fill="{fill}"/>'
        )
        shapes.append(text(26 + 150 * number, y + 5, f"CPython {version}"))
    shapes.append(text(LABELS, y + 5, "a share of the reach; the line is the reach itself"))
    y = start = y + LINE
    # Twice the reach is the end of the scale; the number says what is beyond it.
    unit = (WIDTH - LABELS - ROOM) / 2
    for row in figures["rows"]:
        own = [row[version]["figure"] for version in versions if version in row]
        if row["group"] in TABLES[-1][2] or None in own:
            continue
        middle = y + THICK * len(own) / 2
        label = f"{row['group']}: {row['name']}".replace("`", "")
        shapes.append(text(LABELS - 8, middle, label, 'text-anchor="end"'))
        for number, figure in enumerate(own):
            length = min(figure / row["reach"], 2) * unit
            bar = f'width="{length:.1f}" height="{THICK - 1}" fill="{FILLS[number % len(FILLS)]}"'
            shapes.append(f'<rect x="{LABELS}" y="{y:.1f}" {bar}/>')
            shapes.append(text(LABELS + length + 5, y + THICK / 2, f"{figure:.2f}"))
            y += THICK
        y += GAP
    x = LABELS + unit
    shapes.append(f'<path d="M{x} {start - 4}V{y}" stroke="{TEXT}" stroke-dasharray="3 3"/>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:.0f}" width="{WIDTH}"'
        f' font-family="system-ui, sans-serif" font-size="11" fill="{TEXT}">\n'
        + "\n".join(shapes)
        + "\n</svg>\n"
    )


def text(x: float, middle: float, content: str, more: str = "") -> str:
    """Return a line of text whose middle is at a height."""
    return f'<text x="{x:.1f}" y="{middle + 4:.1f}" {more}>{escape(content)}</text>'
