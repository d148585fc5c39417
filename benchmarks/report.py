"""Write `docs/benchmarks.md` and its chart from `report.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pygal
from pygal.style import Style

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
# The title of each table, the text above it, and the groups of its rows.
TABLES = (
    (
        "What people send",
        "From the construction of an accumulator to `completion()`. *The loop by hand* is what a"
        " good engineer would write without us (`benchmarks/by_hand.py`): typed msgspec Structs of"
        " what the job needs, and no checks; *the generator* is the same for events.",
        ("40 chunks of padded text", "recordings", "whole body", "long whole body",
         "long, 4 KiB reads", "long, one event a read", "events", "logprobs out"),
    ),
    (
        "Per chunk",
        "`bare` is one reused msgspec decoder of typed chunks, on the same JSON"
        " (`benchmarks/bare.py`): what parsing alone costs.",
        ("objects", "mappings", "feed_line", "wrap", "openai's helper", "cliffs"),
    ),
    (
        "Growth, memory, import, logs",
        "Memory is traced by tracemalloc; where it says RSS, it is the growth of the process.",
        ("growth", "memory", "import", "logs"),
    ),
)  # fmt: skip
# A picture cannot know whether its page is light or dark, so the tones are in between.
GREY, COLOURS = "#74808c", ("#2f7fd1", "#b9731b", "#3a9a5b")


def main() -> None:
    """Write the page and its chart."""
    figures = json.loads((HERE / "report.json").read_text(encoding="utf-8"))
    text = "\n".join(lines(figures)) + "\n"
    (DOCS / "benchmarks.md").write_text(text, encoding="utf-8")
    chart_of(figures).render_to_file(str(DOCS / "benchmarks.svg"))


def lines(figures: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the page."""
    yield "# Benchmarks\n"
    yield f"Made by `python3 benchmarks/run.py` on {figures['date']}: {figures['machine']}."
    yield (
        "A figure says how much something takes, as a multiple of what it is compared with. Both"
        " are called in turn in one process, and the fastest call for each input counts. Shown is"
        f" the median of {figures['turns']} such processes, with the microseconds per chunk of both"
        " in brackets. `reach` is the bound that the project has set itself.\n"
    )
    yield f"With {', '.join(figures['pins']).replace('==', ' ')}."
    yield "\n![The figures as bars, with the reach of each](benchmarks.svg)"
    versions = figures["versions"]
    for title, above, groups in TABLES:
        rows = [row for row in figures["rows"] if row["group"] in groups]
        yield f"\n## {title}\n\n{above}\n"
        yield row_of("", "", "against", "reach", *(f"CPython {version}" for version in versions))
        yield row_of("---", "---", "---", *("--:" for _ in ("reach", *versions)))
        for group, members in groupby(rows, key=lambda row: row["group"]):
            heading = f"**{group}**"
            for row in members:
                cells = (cell(row, version) for version in versions)
                yield row_of(heading, row["name"], row["against"], f"{row['reach']:,g}", *cells)
                heading = ""


def cell(row: dict[str, Any], version: str) -> str:
    """Return a figure, marked if it misses its reach."""
    (figure, beside), reach = row[version], row["reach"]
    shown = f"{figure:,.0f}" if reach >= 100 else f"{figure:.2f}"
    return shown + f" ({beside})" * bool(beside) + " **missed**" * (figure > reach)


def row_of(*cells: str) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(cells)} |"


def chart_of(figures: dict[str, Any]) -> Any:
    """Return a bar chart of the figures of speed, each as a share of its reach."""
    rows = [row for row in reversed(figures["rows"]) if row["group"] not in TABLES[-1][2]]
    greys = dict.fromkeys(("foreground", "foreground_strong", "foreground_subtle"), GREY)
    clear = dict.fromkeys(("background", "plot_background"), "transparent")
    chart = pygal.HorizontalBar(
        title="a share of the reach", style=Style(colors=COLOURS, **greys, **clear), js=(),
        width=900, height=22 * len(rows), truncate_label=-1, range=(0, 2), y_labels=(0, 1, 2),
    )  # fmt: skip
    chart.x_labels = [f"{row['group']}: {row['name']}".replace("`", "") for row in rows]
    for version in figures["versions"]:
        shares = [min(row[version][0] / row["reach"], 2) for row in rows]
        chart.add(f"CPython {version}", shares)
    return chart


if __name__ == "__main__":
    main()
