"""The page for the documentation, from the verdicts."""

import platform
import re
import subprocess
from collections import Counter
from itertools import groupby
from pathlib import Path
from string import Template

from cases import Case
from judge import VERDICTS, asked
from peers import PEERS

PAGE = Template(Path(__file__).with_name("page.md").read_text(encoding="utf-8"))
MARKS = {"right": "✓"}

Verdicts = dict[str, str]  # by case


def page_of(verdicts: dict[str, Verdicts], cases: dict[str, Case]) -> str:
    """Return the page, with the peers sorted by the share of their cases that are right."""
    counts = {name: Counter(its.values()) for name, its in verdicts.items()}
    names = sorted(verdicts, key=lambda name: -counts[name]["right"] / len(verdicts[name]))
    columns = [verdicts[name] for name in names]
    summary, ran = [], []
    for name, its in zip(names, columns, strict=True):
        peer, of = PEERS[name], counts[name]
        packages = [re.sub(r"\[.*\]", "", package) for package in peer.packages]
        title, version = name, packages[0].partition("==")[2]
        if name == "ours":
            title, version = "**ours**", "this checkout"
        values = sum(asked(cases[case], peer.room) for case in its)
        figures = [*map(of.__getitem__, VERDICTS), len(its), values]
        summary.append([title, version, *map(str, figures)])
        ran.append(f"- {name} ({', '.join(packages).replace('==', ' ')}): {peer.what}")
    areas = [
        [area, str(len(inside)), *(right_of(inside, its) for its in columns)]
        for area, group in groupby(cases, key=lambda name: name.partition("-")[0])
        for inside in [list(group)]
    ]
    matrix = []
    for case in cases:
        found = [its.get(case, "-") for its in columns]
        matrix.append([f"`{case}`", *(MARKS.get(verdict, verdict) for verdict in found)])
    node = subprocess.check_output(["node", "--version"], text=True).strip().removeprefix("v")
    return PAGE.substitute(
        summary=grid(["peer", "version", *VERDICTS, "of cases", "asked for"], summary),
        run_on=f"Python {platform.python_version()}, Node {node}",
        ran="\n".join(ran),
        areas=grid(["right of", "cases", *names], areas),
        cases=grid(["case", *names], matrix),
    )


def right_of(cases: list[str], verdicts: Verdicts) -> str:
    """Return how many of some cases are right, and out of how many if not all were asked."""
    found = [verdicts[case] for case in cases if case in verdicts]
    return f"{found.count('right')}" + f" of {len(found)}" * (len(found) < len(cases))


def grid(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
