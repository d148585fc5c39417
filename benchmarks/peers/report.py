"""The page for the documentation, from the results."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cases import Case
from judge import VERDICTS, asked
from peers import PEERS, Peer

MARKS = {"right": "✓", "not asked": "-"}


@dataclass(frozen=True)
class Column:
    """One peer's part of the table."""

    peer: Peer
    versions: dict[str, str]
    # By case; in the order of the cases.
    verdicts: dict[str, str]
    asked: int

    @property
    def version(self) -> str:
        """The version of the package that the reducer comes from."""
        return "this checkout" if self.peer.name == "ours" else next(iter(self.versions.values()))

    @property
    def marks(self) -> dict[str, str]:
        """What stands for the verdicts in the table of cases."""
        return {case: MARKS.get(verdict, verdict) for case, verdict in self.verdicts.items()}

    @property
    def counts(self) -> Counter[str]:
        """How often there is which verdict."""
        return Counter(self.verdicts.values())

    @property
    def cases(self) -> int:
        """How many cases it is asked for."""
        return len(self.verdicts) - self.counts["not asked"]

    def right_of(self, cases: list[str]) -> str:
        """Return how many of some cases are right, and of how many where not all are asked."""
        verdicts = [self.verdicts[case] for case in cases]
        of = f" of {len(cases) - verdicts.count('not asked')}" if "not asked" in verdicts else ""
        return f"{verdicts.count('right')}{of}"


def columns_of(results: dict[str, Any], cases: Sequence[Case]) -> list[Column]:
    """Return a column for each peer that was run, by the share of its cases that it has right."""
    columns = []
    for peer in PEERS:
        if found := results["peers"].get(peer.name):
            takes = [case for case in cases if peer.takes(case)]
            said = {case.name: found["not right"].get(case.name, "right") for case in takes}
            verdicts = {
                case.name: said.get(case.name, "not asked").partition(":")[0] for case in cases
            }
            values = sum(asked(case, peer.room) for case in takes)
            columns.append(Column(peer, found["versions"], verdicts, values))
    return sorted(columns, key=lambda column: -column.counts["right"] / column.cases)


def figures(column: Column) -> list[str]:
    """Return the counts of a peer: its verdicts, and the cases and the values it is asked for."""
    verdicts = map(column.counts.__getitem__, VERDICTS)
    return [str(each) for each in (*verdicts, column.cases, column.asked)]


def markdown(columns: list[Column], results: dict[str, Any], cases: Sequence[Case]) -> str:
    """Return the page for the documentation."""
    names = [column.peer.name for column in columns]
    summary = [
        [f"**{name}**" if name == "ours" else name, column.version, *figures(column)]
        for name, column in zip(names, columns, strict=True)
    ]
    ran = [
        f"- {column.peer.name} ({named(column.versions)}): {column.peer.what}" for column in columns
    ]
    ran += [f"- {name} could not be run: {why}" for name, why in results["not run"].items()]
    areas: dict[str, list[str]] = {}
    for case in cases:
        areas.setdefault(case.name.partition("-")[0], []).append(case.name)
    by_area = [
        [area, str(len(inside)), *(column.right_of(inside) for column in columns)]
        for area, inside in areas.items()
    ]
    matrix = [
        [f"`{case.name}`", *(column.marks[case.name] for column in columns)] for case in cases
    ]
    parts = (
        INTRODUCTION,
        grid(["peer", "version", *VERDICTS, "of cases", "asked for"], summary),
        LEGEND,
        "## What is run",
        f"On {named(results['run on'])}:",
        "\n".join(ran),
        OWN_FORMAT.rstrip(),
        "## Area by area",
        grid(["right of", "cases", *names], by_area),
        "## Case by case",
        grid(["case", *names], matrix),
    )
    return "\n\n".join(parts) + "\n"


def named(versions: dict[str, str]) -> str:
    """Return names and versions as a phrase."""
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def grid(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


INTRODUCTION = """\
# Peers

Many projects carry a reducer of their own that turns a chunk stream into one completion. Here each
of them is run, as it is installed, over the conformance cases of this library, which are in
`tests/conformance`. The cases follow this library's rules (`ours` passes them because its tests
see to it), and many are about what odd servers do: the numbers say how much of that a reducer
stands, not how often it fails."""

LEGEND = """\
- **right**: everything that the peer's result has room for is what it should be; or it raises where
  the stream is cut off or failed.
- **lost**: a field that the peer has room for is not there; all else is right.
- **wrong**: something is there that should not be, or is another.
- **raises**: an exception where a completion was due.

A peer is asked only for what its result format has room for. Who keeps less is asked for less, so
read the numbers beside that of the values **asked for**: an open format that loses a vendor's field
has a case against it that a narrow one never meets. Null, absent and empty are the same.
Peers that are handed chunks by openai-python get their bodies framed by the book; a body that is
JSON or HTML and no event stream has no chunks, and they are not asked for it (-). Cases about
rules that a caller sets are left out, as they are this library's alone. How else the peers are
given the benefit of the doubt stands in `benchmarks/peers/README.md`; one verdict and its reasons
are shown by `python benchmarks/peers/run.py --peer NAME --case CASE`."""

OWN_FORMAT = """\
## Right by its own format

The verdicts hold every peer to the rules of this library. Where its own format decides otherwise a
peer is right by that, and the table counts it against the peer all the same:

- **Other answers.** A client that asks for a stream of chat chunks need not read a JSON body
  (`body`), a legacy text completion (`legacy`) or a closing `message` (`message`).
- **openai, openai_node** are made for one API. It numbers every choice and every call, and sends no
  null in their place. An exception where a server does otherwise is right for that API.
- **any_llm, ai_sdk** check each chunk against a schema, and refuse one that does not fit.
- **ai_sdk** takes a stream without a finish reason for an error, and counts the total of a usage
  itself, as the sum of what went in and came out.
- **langchain** adds up the usages of all chunks, which is right where each reports its own part.
- **openai_agents** makes a response of the Responses API, and refuses what that has no place for.
- **lm15** refuses to guess: a call without a name, and a stream that does not say that it ended,
  are errors. It must name a finish reason, and says `stop` where a server named none. It keeps one
  message, whatever the number of choices.
- **llmstream** is for speech and has no result; what its events hold was put together for this
  table. It hands out a call only if the arguments are a JSON object, and else reports an error.
- **openinference, langsmith, langfuse, ddtrace** record what a person reads later. Nothing they
  keep is sent to a model again, so a lost signature or vendor's field does no harm there.
"""
