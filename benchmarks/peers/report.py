"""The page for the documentation, from the verdicts."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from cases import Case
from judge import VERDICTS, asked
from peers import Peer

PAGE = Template(Path(__file__).with_name("page.md").read_text(encoding="utf-8"))
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


def column(
    peer: Peer, versions: dict[str, str], found: dict[str, str], cases: Sequence[Case]
) -> Column:
    """Return the column of a peer from the verdicts on the cases that it takes."""
    verdicts = {case.name: found.get(case.name, "not asked") for case in cases}
    values = sum(asked(case, peer.room) for case in cases if peer.takes(case))
    return Column(peer, versions, verdicts, values)


def figures(column: Column) -> list[str]:
    """Return the counts of a peer: its verdicts, and the cases and the values it is asked for."""
    verdicts = map(column.counts.__getitem__, VERDICTS)
    return [str(each) for each in (*verdicts, column.cases, column.asked)]


def markdown(
    columns: list[Column], run_on: dict[str, str], not_run: dict[str, str], cases: Sequence[Case]
) -> str:
    """Return the page, the peers by the share of their cases that they have right."""
    columns = sorted(columns, key=lambda column: -column.counts["right"] / column.cases)
    names = [column.peer.name for column in columns]
    summary = [
        [f"**{name}**" if name == "ours" else name, column.version, *figures(column)]
        for name, column in zip(names, columns, strict=True)
    ]
    ran = [
        f"- {column.peer.name} ({named(column.versions)}): {column.peer.what}" for column in columns
    ]
    ran += [f"- {name} could not be run: {why}" for name, why in not_run.items()]
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
    return PAGE.substitute(
        summary=grid(["peer", "version", *VERDICTS, "of cases", "asked for"], summary),
        run_on=named(run_on),
        ran="\n".join(ran),
        areas=grid(["right of", "cases", *names], by_area),
        cases=grid(["case", *names], matrix),
    )


def named(versions: dict[str, str]) -> str:
    """Return names and versions as a phrase."""
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def grid(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
