"""Write the report: the data, the tables and the chart."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

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
        ("objects", "mappings", "feed_line", "wrap", "openai's helper", "cliffs"),
    ),
    (
        "Growth, memory, import, logs",
        "Memory is traced by tracemalloc, or the growth of the process where it says RSS.",
        ("growth", "memory", "import", "logs"),
    ),
)  # fmt: skip


def row(
    group: str, name: str, against: str, reach: float, figure: float | None, beside: str
) -> dict[str, Any]:
    """Return a row as the scripts print it; without a figure, `beside` says why."""
    about = {"group": group, "name": name, "against": against, "reach": reach}
    return {**about, "figure": figure, "beside": beside}


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


# A picture in a page does not learn whether the page is white or black: middling tones.
TEXT, FILLS = "#74808c", ("#2f7fd1", "#b9731b", "#3a9a5b")
# Where the bars begin, how long one is that is its reach, and how high.
LEFT, REACH, HIGH = 400, 200, 10


def drawn(figures: Figures) -> str:
    """Return the figures of speed as bars: what is measured, as a share of its reach."""
    versions = list(figures["versions"])
    shapes, y = [text(LEFT, 13, "a share of the reach; the line is the reach itself")], 32
    for number, version in enumerate(versions):
        shapes.append(text(10 + 130 * number, 13, f"CPython {version}", fill(number)))
    for row in figures["rows"]:
        own = [row[version]["figure"] for version in versions if version in row]
        if row["group"] in TABLES[-1][2] or None in own:
            continue
        label = f"{row['group']}: {row['name']}".replace("`", "")
        shapes.append(text(LEFT - 8, y + HIGH * len(own) / 2 + 4, label, 'text-anchor="end"'))
        for number, figure in enumerate(own):
            # Twice the reach is the end of the scale; the number says what is beyond it.
            long = min(figure / row["reach"], 2) * REACH
            bar = f'x="{LEFT}" y="{y}" width="{long:.1f}" height="{HIGH - 1}" {fill(number)}'
            shapes += [f"<rect {bar}/>", text(LEFT + long + 5, y + 9, f"{figure:.2f}")]
            y += HIGH
        y += 7
    line = f'<path d="M{LEFT + REACH} 28V{y}" stroke="{TEXT}" stroke-dasharray="3 3"/>'
    head = f'viewBox="0 0 860 {y}" width="860" font-family="system-ui, sans-serif" font-size="11"'
    parts = "\n".join([*shapes, line])
    return f'<svg xmlns="http://www.w3.org/2000/svg" {head} fill="{TEXT}">\n{parts}\n</svg>\n'


def fill(number: int) -> str:
    """Return the colour of an interpreter."""
    return f'fill="{FILLS[number % len(FILLS)]}"'


def text(x: float, y: float, content: str, more: str = "") -> str:
    """Return a line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(content)}</text>'
