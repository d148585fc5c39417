"""Plain bars as SVG, in colours that can be read on white and on black."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

__all__ = ["Bar", "Panel", "Row", "number", "svg"]

# No background is drawn, and a picture in a page does not learn which one the page has: so
# middling tones, each at least 4 to 1 against both white and GitHub's dark.
TEXT = "#74808c"
FILLS = ("#2f7fd1", "#b9731b", "#84909c")

WIDTH = 800
LABELS = 310  # the x at which bars start
ROOM = 70  # for the number behind the longest bar
THICK = 11
GAP = 9
LINE = 22


@dataclass(frozen=True)
class Bar:
    """A value, in the colour of its series, and the value to stay below."""

    value: float
    series: int
    reach: float | None = None


@dataclass(frozen=True)
class Row:
    """What stands under one label."""

    label: str
    bars: Sequence[Bar]


@dataclass(frozen=True)
class Panel:
    """A title, its bars, the names of the series, and a value at which a line is drawn."""

    title: str
    rows: Sequence[Row]
    series: Sequence[str]
    mark: float | None = None
    logarithmic: bool = False


def svg(panels: Sequence[Panel]) -> str:
    """Draw panels one below the other."""
    shapes: list[str] = []
    top = 10
    for panel in panels:
        shapes += drawn(panel, top)
        top += height(panel)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}"'
        f' viewBox="0 0 {WIDTH} {top}" font-family="system-ui, sans-serif" font-size="12"'
        f' fill="{TEXT}">\n' + "\n".join(shapes) + "\n</svg>\n"
    )


def height(panel: Panel) -> int:
    """Say how high a panel is."""
    rows = sum(len(row.bars) * THICK + GAP for row in panel.rows)
    return LINE + (LINE if panel.series else 0) + rows + LINE


def drawn(panel: Panel, top: int) -> Iterator[str]:
    """Draw one panel."""
    y = top + 14
    yield f'<text x="10" y="{y}" font-size="14" font-weight="600">{escape(panel.title)}</text>'
    y += LINE - 14 + 4
    if panel.series:
        yield from legend(panel, y)
        y += LINE
    scale = Scale(panel)
    start = y
    for row in panel.rows:
        middle = y + len(row.bars) * THICK / 2
        yield text(LABELS - 8, middle, row.label, anchor="end")
        for bar in row.bars:
            yield from bar_of(bar, scale, y)
            y += THICK
        y += GAP
    if panel.mark is not None:
        x = scale.x(panel.mark)
        yield (
            f'<line x1="{x:.1f}" y1="{start - 4}" x2="{x:.1f}" y2="{y - GAP + 4}"'
            f' stroke="{TEXT}" stroke-dasharray="3 3"/>'
        )


def legend(panel: Panel, y: float) -> Iterator[str]:
    """Name the series, and what the marks mean."""
    x = 10.0
    for number, name in enumerate(panel.series):
        yield f'<rect x="{x}" y="{y}" width="{THICK}" height="{THICK}" fill="{FILLS[number]}"/>'
        yield text(x + THICK + 5, y + THICK / 2, name)
        x += 130
    if any(bar.reach is not None for row in panel.rows for bar in row.bars):
        yield reach_mark(x + 4, y)
        yield text(x + 12, y + THICK / 2, "to reach")
        x += 90
    if panel.mark is not None:
        line = f'y1="{y - 1}" x2="{x + 4}" y2="{y + THICK + 1}" stroke="{TEXT}"'
        yield f'<line x1="{x + 4}" {line} stroke-dasharray="3 3"/>'
        yield text(x + 12, y + THICK / 2, "parsing alone")


def bar_of(bar: Bar, scale: Scale, y: float) -> Iterator[str]:
    """Draw a bar, its number and what it is to stay below."""
    length = scale.x(bar.value) - LABELS
    fill = FILLS[bar.series % len(FILLS)]
    yield (
        f'<rect x="{LABELS}" y="{y:.1f}" width="{length:.1f}" height="{THICK - 1}" fill="{fill}"/>'
    )
    end = scale.x(bar.value)
    if bar.reach is not None:
        yield reach_mark(scale.x(bar.reach), y)
        end = max(end, scale.x(bar.reach))
    yield text(end + 6, y + THICK / 2, number(bar.value), size=11)


def reach_mark(x: float, y: float) -> str:
    """Draw the mark of what is to be reached."""
    where = f'x1="{x:.1f}" y1="{y - 1:.1f}" x2="{x:.1f}" y2="{y + THICK:.1f}"'
    # The lighter edge is for where it lies on a bar.
    return (
        f'<line {where} stroke="#fff" stroke-width="5"/>'
        f'<line {where} stroke="{TEXT}" stroke-width="3"/>'
    )


def text(x: float, middle: float, content: str, *, anchor: str = "start", size: int = 12) -> str:
    """Write a line whose middle is at a height."""
    return (
        f'<text x="{x:.1f}" y="{middle + size * 0.35:.1f}" font-size="{size}"'
        f' text-anchor="{anchor}">{escape(content)}</text>'
    )


def number(value: float) -> str:
    """Write a value with as many digits as it can be trusted with."""
    return f"{value:,.0f}" if value >= 99.5 else f"{value:.3g}" if value >= 10 else f"{value:.2f}"


class Scale:
    """Where the values of a panel lie."""

    def __init__(self, panel: Panel) -> None:
        bars = [bar for row in panel.rows for bar in row.bars]
        values = [bar.value for bar in bars] + [bar.reach for bar in bars if bar.reach is not None]
        self._logarithmic = panel.logarithmic
        # Logarithmic bars start at a third of the least: their length says nothing by itself.
        self._least = min(values) / 3 if panel.logarithmic else 0.0
        self._most = max(values)

    def x(self, value: float) -> float:
        """Give the x of a value."""
        if self._logarithmic:
            share = math.log(value / self._least) / math.log(self._most / self._least)
        else:
            share = value / self._most
        return LABELS + share * (WIDTH - LABELS - ROOM)
