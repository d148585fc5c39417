"""Turn docstrings, which are written for readers of the source, into what Sphinx expects.

An indented example after a blank line is a literal block, and lines between bars are a table whose
first row is its head. A row whose first cell is empty continues the one above.
"""

from __future__ import annotations

import inspect
import re
from itertools import groupby

import attrs
from msgspec import Struct
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

from accumulator import streams
from accumulator.completion import TokenLogprobs

_EVENTS = "accumulator.events."
_MADE_HERE = (streams.WrappedStream, streams.AsyncWrappedStream, TokenLogprobs)
_DEFAULT = re.compile(r"attr_dict\['(\w+)'\]\.default")
_ALIAS = re.compile(r"TypeAliasForwardRef\('(\w+)'\)")
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
    if what == "class" and inspect.isclass(found) and issubclass(found, Struct):
        out += ["", "Fields: " + ", ".join(fields_of(found)), ""]
    lines[:] = [_CITATION.sub(as_link, line) for line in out]


def as_link(cited: re.Match[str]) -> str:
    section = 10 if cited[1] == "law" else cited[2]
    return f":ref:`{cited[0]} <s{section}>`"


def fields_of(event: type[Struct]) -> list[str]:
    """Return the public fields of an event; private ones are of no use to a reader."""
    annotations: dict[str, str] = {}
    for kind in reversed(event.__mro__):
        annotations |= inspect.get_annotations(kind)
    public = [name for name in event.__struct_fields__ if not name.startswith("_")]
    return [f"``{name}: {annotations[name]}``" for name in public]


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


def make_signature(
    app: Sphinx,
    what: str,
    name: str,
    found: object,
    options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    """Show defaults as values, where attrs has an expression, and an alias inside another type as
    just its name. Show no signature for classes that only this package instantiates.
    """
    if what == "class" and (
        name.startswith(_EVENTS) or (inspect.isclass(found) and issubclass(found, _MADE_HERE))
    ):
        return "", None
    if signature and inspect.isclass(found) and attrs.has(found):
        defaults = {field.name: field.default for field in attrs.fields(found)}
        signature = _DEFAULT.sub(lambda named: repr(defaults[named[1]]), signature)
        signature = signature.replace("= NOTHING", "= {}").replace("=NOTHING", "={}")
    return signature and _ALIAS.sub(r"\1", signature), returns and _ALIAS.sub(r"\1", returns)


def setup(app: Sphinx) -> dict[str, bool]:
    for module in ("accumulator.streams", "accumulator.asgi"):
        # The page spells out the keywords that the overloads take as `**options`.
        analyzer = ModuleAnalyzer.for_module(module)
        analyzer.analyze()
        analyzer.overloads.clear()
    app.connect("autodoc-process-docstring", make_rest)
    app.connect("autodoc-process-signature", make_signature)
    return {"parallel_read_safe": True}
