"""Run every peer over every conformance case, judge what comes back, and write the table.

Without options it prints the table and writes docs/peers.md and results.json; with `--peer NAME
--case CASE` it shows one verdict and its reasons.
"""

import argparse
import json
import platform
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import install
import report
from cases import Case, load
from judge import Judgement, judge, pruned
from peers import PEERS, Peer
from wire import Adapter, Answer, Server

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# Long for what takes milliseconds; a peer that needs longer hangs.
PATIENCE = 10.0


@dataclass(frozen=True)
class Row:
    """One peer's run."""

    peer: Peer
    versions: dict[str, str]
    judgements: dict[str, Judgement]
    answers: dict[str, Answer]


def main() -> int:
    """Do what the command line asks for."""
    options = arguments()
    cases = chosen(load(options.cases), options.case, "case")
    peers = chosen(list(PEERS), options.peer, "peer")
    server = Server(cases)
    rows, absent = [], {}
    for peer in peers:
        try:
            rows.append(run(peer, cases, server, options.cache))
        except (OSError, subprocess.CalledProcessError, TimeoutError, EOFError) as error:
            absent[peer.name] = f"{type(error).__name__}: {error}"
            print(f"{peer.name} could not be run: {error}", file=sys.stderr)
    if options.case:
        for row in rows:
            for case in cases:
                explain(row, case)
        return 0
    table = report.Table.of(
        [(row.peer, row.versions, row.judgements) for row in rows],
        cases,
        {"Python": platform.python_version(), "Node": node_version()},
        absent,
    )
    print(table.text())
    if not options.peer and not options.no_write:
        write(table, rows)
    return 0


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peer", action="append", help="only this peer; may be repeated")
    parser.add_argument("--case", action="append", help="only this case, and say why; likewise")
    parser.add_argument("--cases", type=Path, default=ROOT / "tests" / "conformance")
    parser.add_argument("--cache", type=Path, default=HERE / ".cache" / "peers")
    parser.add_argument("--no-write", action="store_true", help="print the table, write nothing")
    options = parser.parse_args()
    options.cache = options.cache.resolve()
    return options


def chosen(all_of_them: list[Any], names: list[str] | None, kind: str) -> list[Any]:
    """Pick by name; all without names."""
    known = {each.name: each for each in all_of_them}
    unknown = [name for name in names or () if name not in known]
    if unknown or not known:
        sys.exit(f"no {kind} {', '.join(unknown)}; there are: {', '.join(known) or 'none'}")
    return [known[name] for name in names or known]


def run(peer: Peer, cases: list[Case], server: Server, cache: Path) -> Row:
    """Put every case to one peer."""
    command = install.command_of(peer, cache)
    cache.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with (cache / f"{peer.name}.log").open("w", encoding="utf-8") as log:
        adapter = Adapter(command, cache, install.environment(), log)
        adapter.start()
        try:
            answers = {
                case.name: adapter.ask(server.url(peer.framing, case), case.params, PATIENCE)
                for case in cases
            }
        finally:
            adapter.stop()
    judgements = {case.name: judge(case, peer.room, answers[case.name]) for case in cases}
    counts = Counter(judgement.verdict for judgement in judgements.values())
    took = time.monotonic() - started
    print(f"{peer.name}: {dict(counts)} in {took:.1f} s", file=sys.stderr)
    return Row(peer, adapter.versions, judgements, answers)


def node_version() -> str:
    """Give the version of Node, or say that there is none."""
    try:
        done = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    except OSError:
        return "none"
    return done.stdout.strip().removeprefix("v")


def explain(row: Row, case: Case) -> None:
    """Print what was expected, what came, and where they differ."""
    judgement = row.judgements[case.name]
    body = case.body if row.peer.framing == "own" else case.clean_body
    print(f"== {row.peer.name} {row.versions}, {case.name}: {judgement.verdict}")
    print(f"-- body ({row.peer.framing} framing)\n{body.decode('utf-8', 'replace').rstrip()}")
    print(f"-- expected, status {case.status}, problems {list(case.problems)}")
    print(legible(pruned(case.completion), indent=1))
    if judgement.error is not None:
        print(f"-- raised\n{judgement.error}")
        return
    print(f"-- got\n{legible(pruned(row.answers[case.name]['result']), indent=1)}")
    for difference in judgement.differences:
        wanted, given = legible(difference.expected), legible(difference.got)
        print(f"-- {difference.kind}: {difference.path}: expected {wanted}, got {given}")


def legible(value: object, indent: int | None = None) -> str:
    """Give JSON in which a character and the two halves of one can be told apart."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def write(table: report.Table, rows: list[Row]) -> None:
    """Write docs/peers.md and results.json."""
    (ROOT / "docs").mkdir(exist_ok=True)
    (ROOT / "docs" / "peers.md").write_text(table.markdown(), encoding="utf-8")
    results = {
        row.peer.name: {
            "versions": row.versions,
            "right": sum(each.verdict == "right" for each in row.judgements.values()),
            "not right": {
                name: reasons(judgement)
                for name, judgement in row.judgements.items()
                if judgement.verdict != "right"
            },
        }
        for row in rows
    }
    about = {"run on": table.run_on, "cases": len(table.cases), "peers": results}
    text = json.dumps(about, indent=1)
    (HERE / "results.json").write_text(text + "\n", encoding="utf-8")


def reasons(judgement: Judgement) -> dict[str, Any]:
    """Give a judgement as data that comes out the same in every run."""
    said: dict[str, Any] = {"verdict": judgement.verdict}
    if judgement.error is not None:
        first = judgement.error.partition("\n")[0][:160]
        # Ports, addresses of objects and made-up ids are another in every run.
        said["error"] = re.sub(r"127\.0\.0\.1:\d+|0x[0-9a-f]{8,}|[0-9a-f-]{32,36}", "…", first)
    if judgement.differences:
        for kind in sorted({each.kind for each in judgement.differences}):
            said[kind] = " ".join(each.path for each in judgement.differences if each.kind == kind)
    return said


if __name__ == "__main__":
    sys.exit(main())
