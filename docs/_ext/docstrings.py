"""Docstrings are written for who reads the source: Sphinx is told what is meant.

An indented example after a blank line is a literal block, and lines between bars are a table, the
first of them its head; a row whose first cell is empty goes on with the one above.
"""

from __future__ import annotations

import re
from itertools import groupby

from sphinx.application import Sphinx

_CITATION = re.compile(r"SPEC (sections?|law) (\d+)")


def make_rest(
    app: Sphinx, what: str, name: str, found: object, options: object, lines: list[str]
) -> None:
    """Rewrite the lines of a docstring in place."""
    out: list[str] = []
    in_literal = False
    for kind, grouped in groupby(lines, kind_of):
        group = list(grouped)
        if kind == "example" and out and not out[-1] and not in_literal:
            out += ["::", "", *group]
            in_literal = True
        elif kind == "table":
            out += as_list_table(group)
        else:
            out += group
        in_literal = in_literal and kind in ("example", "blank")
    lines[:] = [_CITATION.sub(as_link, line) for line in out]


def as_link(cited: re.Match[str]) -> str:
    section = 10 if cited[1] == "law" else cited[2]
    return f":ref:`{cited[0]} <s{section}>`"


def kind_of(line: str) -> str:
    if line.startswith("|"):
        return "table"
    return "example" if line.startswith("    ") else "blank" if not line.strip() else "text"


def as_list_table(lines: list[str]) -> list[str]:
    rows: list[list[str]] = []
    for line in lines:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if all(re.fullmatch(r"-+", cell) for cell in cells):
            continue
        if rows and not cells[0]:
            rows[-1] = [
                f"{above} {cell}".strip() for above, cell in zip(rows[-1], cells, strict=True)
            ]
        else:
            rows.append(cells)
    out = ["", ".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        out += [f"   {'  -' if place else '* -'} {cell}" for place, cell in enumerate(row)]
    return [*out, ""]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", make_rest)
    return {"parallel_read_safe": True}
