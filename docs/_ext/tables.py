"""Tables that are made from what they are about, so that they cannot differ from it.

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

# "bytes" can be chosen for no field, but a row has it.
MEANINGS: dict[Policy, str] = {
    "first": 'the first value stands that is neither null nor empty (`""`, `0`)',
    "last": "the last value stands that is not null",
    "concat": "strings are joined",
    "extend": "lists are joined",
    "collect": "the values are kept as they came, in a list",
    "by_index": "entries of a list with the same integer `index` are merged into one; a list whose "
    "entries have none is joined",
    "by_type": "as `by_index`, for entries that have the same `type`, too: others stand apart",
    "merge": "objects are merged key by key",
    "larger": "number by number the larger stands, in nested objects too",
    "blocks": "neighbours of the type `thinking` are merged up to the signature; others are whole",
    "bytes": "each fragment is base64 of its own: they are joined as bytes",
    "drop": "the value is not kept",
}


def as_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Write a Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


class Table(SphinxDirective):
    """A directive whose content is Markdown that `text` makes."""

    def text(self) -> str:
        """Make the Markdown."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(self.text())


class Policies(Table):
    def text(self) -> str:
        names = (*POLICIES, "blocks", "bytes")
        assert set(names) == set(MEANINGS), "a policy without a meaning"
        return as_table(("policy", "what it does"), [(f"`{n}`", MEANINGS[n]) for n in names])


class MergeRules(Table):
    """The rows by level, the fields that are named before the kinds of value that are not."""

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
    """Folded up: they are hundreds."""

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
