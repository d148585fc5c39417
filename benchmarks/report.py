"""Write the tables and the chart of `docs/benchmarks.md` from `report.json`."""

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pygal
from pygal.style import Style

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
# The groups of rows in each table.
TABLES = {
    "what people send": (
        "40 chunks of padded text", "recordings", "whole body", "long whole body",
        "long, 4 KiB reads", "long, one event a read", "events", "logprobs out",
    ),
    "per chunk": ("objects", "mappings", "feed_line", "wrap", "openai's helper", "cliffs"),
    "the rest": ("growth", "memory", "import", "logs"),
}  # fmt: skip
# A picture cannot know whether its page is light or dark, so the tones are in between.
GREY, COLOURS = "#74808c", ("#2f7fd1", "#b9731b", "#3a9a5b")


def main() -> None:
    """Write the page and its chart."""
    figures = json.loads((HERE / "report.json").read_text("utf-8"))
    made = (
        f"Made by `python3 benchmarks/run.py` on {figures['date']}: {figures['machine']},"
        f" each row in {figures['turns']} processes."
        f" With {', '.join(figures['pins']).replace('==', ' ')}."
    )
    parts = {"made": made, **{name: "\n".join(table(figures, name)) for name in TABLES}}
    page = (DOCS / "benchmarks.md").read_text("utf-8")
    for name, text in parts.items():
        before, begin, rest = page.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("\n<!-- end -->")
        page = before + begin + text + end + after
    (DOCS / "benchmarks.md").write_text(page, encoding="utf-8")
    chart_of(figures).render_to_file(str(DOCS / "benchmarks.svg"))


def table(figures: dict[str, Any], name: str) -> Iterator[str]:
    """Yield the lines of a table."""
    versions = figures["versions"]
    rows = [row for row in figures["rows"] if row["group"] in TABLES[name]]
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
    rows = [row for row in reversed(figures["rows"]) if row["group"] not in TABLES["the rest"]]
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
