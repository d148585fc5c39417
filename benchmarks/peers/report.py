"""The table, as text for a terminal and as Markdown for the documentation."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cases import Case
from judge import VERDICTS, Judgement, asked
from peers import Peer

COMMAND = "python benchmarks/peers/run.py"
MARKS = {"right": "✓", "lost": "lost", "wrong": "wrong", "raises": "raises"}


@dataclass(frozen=True)
class Column:
    """One peer's part of the table."""

    peer: Peer
    versions: dict[str, str]
    judgements: dict[str, Judgement]
    asked: int

    @property
    def counts(self) -> Counter[str]:
        """Count the verdicts."""
        return Counter(judgement.verdict for judgement in self.judgements.values())

    def right_of(self, cases: list[str]) -> int:
        """Count the right ones of some cases."""
        return sum(self.judgements[case].verdict == "right" for case in cases)

    @property
    def version(self) -> str:
        """Give the version of the package that the reducer comes from."""
        return "this checkout" if self.peer.name == "ours" else next(iter(self.versions.values()))


@dataclass(frozen=True)
class Table:
    """What was run, and what came of it."""

    columns: list[Column]
    cases: list[str]
    run_on: dict[str, str]
    absent: dict[str, str]

    @classmethod
    def of(
        cls,
        rows: Sequence[tuple[Peer, dict[str, str], dict[str, Judgement]]],
        cases: list[Case],
        run_on: dict[str, str],
        absent: dict[str, str],
    ) -> "Table":
        """Make a table; the peer with the most right comes first."""
        columns = [Column(*row, sum(asked(case, row[0].room) for case in cases)) for row in rows]
        columns.sort(key=lambda column: -column.counts["right"])
        return cls(columns, [case.name for case in cases], run_on, absent)

    def text(self) -> str:
        """Give the summary for a terminal."""
        heads = "".join(f"{name:>8}" for name in (*VERDICTS, "asked"))
        lines = [f"{'peer':<16}{'version':<16}{heads}"]
        for column in self.columns:
            counts = "".join(f"{column.counts[name]:>8}" for name in VERDICTS)
            lines.append(f"{column.peer.name:<16}{column.version:<16}{counts}{column.asked:>8}")
        return "\n".join([*lines, f"of {len(self.cases)} cases"])

    def markdown(self) -> str:
        """Give the page for the documentation."""
        parts = [
            *(INTRODUCTION, self._summary(), self._run_with(), LEGEND),
            *("## Area by area", self._areas(), "## Case by case", self._matrix()),
        ]
        return "\n\n".join(parts) + "\n"

    def _summary(self) -> str:
        rows = [
            [
                f"**{column.peer.name}**" if column.peer.name == "ours" else column.peer.name,
                column.version,
                *(str(column.counts[name]) for name in VERDICTS),
                str(column.asked),
                column.peer.what,
            ]
            for column in self.columns
        ]
        total = f"of {len(self.cases)} cases: right"
        return grid(["peer", "version", total, *VERDICTS[1:], "asked for", "what is run"], rows)

    def _run_with(self) -> str:
        versions = [f"- {column.peer.name}: {named(column.versions)}" for column in self.columns]
        missing = [f"- {name} could not be run: {why}" for name, why in self.absent.items()]
        return "\n".join(
            [f"Made by `{COMMAND}` on {named(self.run_on)}, with\n", *versions, *missing]
        )

    def _areas(self) -> str:
        areas: dict[str, list[str]] = {}
        for case in self.cases:
            areas.setdefault(case.partition("-")[0], []).append(case)
        rows = [
            [area, str(len(cases)), *(str(column.right_of(cases)) for column in self.columns)]
            for area, cases in areas.items()
        ]
        return grid(["right of", "cases", *(column.peer.name for column in self.columns)], rows)

    def _matrix(self) -> str:
        rows = [
            [f"`{case}`", *(MARKS[column.judgements[case].verdict] for column in self.columns)]
            for case in self.cases
        ]
        return grid(["case", *(column.peer.name for column in self.columns)], rows)


def named(versions: dict[str, str]) -> str:
    """Give names and versions as a phrase."""
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def grid(head: list[str], rows: list[list[str]]) -> str:
    """Make a Markdown table."""
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
Peers that are handed chunks by openai-python get their bodies framed by the book. How else they are
given the benefit of the doubt stands in `benchmarks/peers/README.md`; one verdict and its reasons
are shown by `python benchmarks/peers/run.py --peer NAME --case CASE`."""
