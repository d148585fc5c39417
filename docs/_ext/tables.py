"""Make tables from the data that they describe, so that they cannot differ from it.

`{merge-rules}`: the rows of `DEFAULT_RULES`. `{policies}`: what each policy does.
`{peer-cases} NAME`: the conformance cases that a peer does not get right, from `peers.md`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from accumulator.rules import DEFAULT_RULES, POLICIES, Policy

DOCS = Path(__file__).resolve().parents[1]
PEERS = DOCS / "peers.md"

# Callers cannot choose "bytes" or "blocks", but rows have them.
MEANINGS: dict[Policy, str] = {
    "first": 'the first value that is neither null nor empty (`""`, `0`) is kept',
    "last": "the last value that is not null is kept",
    "concat": "strings are joined",
    "extend": "lists are joined",
    "collect": "the values are kept as they came, in a list",
    "by_index": "entries of a list with the same integer `index` are merged into one; a list whose "
    "entries have none is joined",
    "by_type": "like `by_index`, but entries must have the same `type`, too; others stay separate",
    "merge": "objects are merged key by key",
    "larger": "the larger is kept, number by number, in nested objects too",
    "blocks": "neighbours of the type `thinking` are merged up to the signature; others stay apart",
    "bytes": "each fragment has base64 of its own, and they are joined as bytes",
    "drop": "the value is not kept",
}


def as_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


class Table(SphinxDirective):
    """A directive whose content is the Markdown that `text` returns."""

    def text(self) -> str:
        """Return the Markdown."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(self.text())


class Policies(Table):
    def text(self) -> str:
        names = (*POLICIES, "blocks", "bytes")
        assert set(names) == set(MEANINGS), "a policy without a meaning"
        return as_table(("policy", "what it does"), [(f"`{n}`", MEANINGS[n]) for n in names])


class MergeRules(Table):
    """The rows by level: first those of named fields, then those of kinds of value."""

    def text(self) -> str:
        out = ""
        for level in ("chunk", "choice", "delta"):
            rows = [
                (f"`{path.partition('.')[2]}`", f"`{policy}`")
                for path, policy in DEFAULT_RULES.rows.items()
                if path.startswith(f"{level}.")
            ]
            rows.sort(key=lambda row: row[0].startswith("`<"))
            out += f"**Fields of a {level}**\n\n{as_table(('field', 'policy'), rows)}\n"
        return out


class PeerCases(Table):
    """Folded up, because there are hundreds."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        start, end = "<details><summary>Every case</summary>", "</details>"
        return [
            nodes.raw("", start, format="html"),
            *super().run(),
            nodes.raw("", end, format="html"),
        ]

    def text(self) -> str:
        [peer] = self.arguments
        self.env.note_dependency(str(PEERS))
        rows = []
        for verdict in ("wrong", "lost", "raises"):
            cases = [f"`{case}`" for case, found in verdicts(peer) if found == verdict]
            rows.append((verdict, str(len(cases)), ", ".join(cases)))
        return as_table(("verdict", "cases", "which"), rows)


def verdicts(peer: str) -> Iterator[tuple[str, str]]:
    """Yield each case and how the peer did on it."""
    column = None
    for line in PEERS.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "case":
            column = cells.index(peer)
        elif column is not None and re.fullmatch(r"`[\w-]+`", cells[0]):
            yield cells[0].strip("`"), cells[column]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("merge-rules", MergeRules)
    app.add_directive("policies", Policies)
    app.add_directive("peer-cases", PeerCases)
    return {"parallel_read_safe": True}
