"""Tables that are made from what they are about, so that they cannot differ from it.

`{merge-rules}`: the rows of `DEFAULT_RULES`. `{policies}`: what each policy does. `{rooms}`: what
is changed where, held to the ladder of the layout test. `{peer-cases} NAME`: the conformance cases
that a peer has not right, from `peers.md`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from accumulator.rules import DEFAULT_RULES, POLICIES, Policy

DOCS = Path(__file__).resolve().parents[1]
LADDER_TEST = DOCS.parent / "tests" / "test_layout.py"
PEERS = DOCS / "peers.md"

# "bytes" can be chosen for no field, but a row has it.
MEANINGS: dict[Policy, str] = {
    "first": 'the first value stands that is neither null nor empty (`""`, `0`)',
    "last": "the last value stands that is not null",
    "concat": "strings are joined",
    "extend": "lists are joined",
    "by_index": "entries of a list with the same integer `index` are merged into one; a list whose "
    "entries have none is joined",
    "merge": "objects are merged key by key",
    "larger": "number by number the larger stands, in nested objects too",
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
        names = (*POLICIES, "bytes")
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


# What somebody wants to change: the modules that do it, and the tests to run and to add to. The
# highest rung first, as a ladder stands.
ROOMS: list[tuple[str, str, str]] = [
    ("the commands: arguments, exit codes", "__main__ cli _terminal", "test_cli"),
    ("`accumulator inspect`", "_command_inspect", "test_inspect"),
    (
        "`accumulator reduce`: files, workers, sorting",
        "_command_reduce _run _pool _units _rows _inputs _extras _sorting _spreading _runs _reading"
        " _records _alike",
        "test_reduce test_inputs",
    ),
    ("recorded logs, in other engines", "spark batch _bulk", "test_spark test_batch"),
    ("gateways", "asgi", "test_asgi"),
    ("the names of `import accumulator`", "__init__", "test_layout"),
    (
        "`accumulate`, `wrap`, `iter_events`; which clients are known, how an end is told",
        "streams _wrapped _observer _feeder _responses",
        "test_streams test_clients test_ends test_iter_events",
    ),
    ("a completion as a stream; as attributes", "replay telemetry", "test_replay test_telemetry"),
    ("input, the gate, checkpoints", "_accumulator _body _checkpoint", "test_laws test_checkpoint"),
    ("problems, timing", "_intake _problems _timing", "test_problems test_timing"),
    ("which events are told, and when", "_emit events _growing _told", "test_events"),
    (
        "speed of chunks that repeat",
        "_shortcut _template _strings _cuts _learning _objects",
        "test_shortcut",
    ),
    (
        "how values merge; tool calls; usage",
        "_reduce _state _freeze _calls _fields",
        "test_conformance test_calls test_reference",
    ),
    (
        "what a chunk may look like",
        "_reader _values _decoder _schema _wire",
        "test_objects test_vendors test_mutations",
    ),
    ("bytes to events; halves of characters", "_sse _text", "test_sse test_text test_conformance"),
    ("a row of the merge table; a bound", "rules limits", "test_rules test_limits"),
    ("exceptions, kinds of problem", "errors", "test_problems"),
    ("the result and its forms", "completion _outward _convert", "test_completion test_openai"),
    ("JSON into types; unfinished JSON", "_typed partial", "test_typed test_partial"),
]


class Rooms(Table):
    def text(self) -> str:
        rungs = {module: rung for rung, modules in enumerate(ladder()) for module in modules}
        placed = [module for _, modules, _ in ROOMS for module in modules.split()]
        assert sorted(placed) == sorted(rungs), f"no room for {set(rungs) ^ set(placed)}"
        tests = {f"{path.stem}" for path in LADDER_TEST.parent.glob("test_*.py")}
        named = {test for _, _, listed in ROOMS for test in listed.split()}
        assert named <= tests, f"no tests {named - tests}"
        rows = [(what, as_code(modules), as_code(listed)) for what, modules, listed in ROOMS]
        return as_table(("to change", "look in `accumulator/`", "and in `tests/`"), rows)


def as_code(names: str) -> str:
    return " ".join(f"`{name}`" for name in names.split())


def ladder() -> list[list[str]]:
    """Read the ladder out of its test, which is not imported: it needs pytest."""
    for node in ast.parse(LADDER_TEST.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LADDER":
            found: list[list[str]] = ast.literal_eval(node.value)
            return found
    raise LookupError(f"no LADDER in {LADDER_TEST.name}")


class PeerCases(Table):
    required_arguments = 1

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
    app.add_directive("rooms", Rooms)
    app.add_directive("peer-cases", PeerCases)
    return {"parallel_read_safe": True}
