"""Run the peers over the conformance cases, judge what comes back, and write docs/peers.md.

`--peer NAME` and `--case CASE` run these alone and write nothing; `--case` shows verdicts and their
reasons.
"""

import argparse
import json
import platform
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import install
import report
from cases import Case, load
from judge import Judgement, judge, pruned
from peers import PEERS, Peer
from wire import Answer, Process, Server

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CACHE = HERE / ".cache" / "peers"
# Long for what takes milliseconds; a peer that needs longer hangs.
PATIENCE = 10.0


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peer", action="append", help="only this peer; may be repeated")
    parser.add_argument("--case", action="append", help="only this case, and say why; likewise")
    options = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    cases = chosen(load(ROOT / "tests" / "conformance"), options.case, "case")
    server = Server(cases)
    columns, not_run = [], {}
    for peer in chosen(list(PEERS), options.peer, "peer"):
        its = [case for case in cases if peer.takes(case)]
        try:
            versions, answers = run(peer, its, server)
        except (OSError, subprocess.CalledProcessError, TimeoutError, EOFError) as error:
            not_run[peer.name] = f"{type(error).__name__}: {error}"
            print(f"{peer.name} could not be run: {error}", file=sys.stderr)
            continue
        found = {case.name: judge(case, peer.room, answers[case.name]) for case in its}
        if options.case:
            for case in its:
                explain(peer, versions, case, found[case.name], answers[case.name])
        verdicts = {name: each.verdict for name, each in found.items()}
        columns.append(report.column(peer, versions, verdicts, cases))
        print(f"{peer.name} {versions}: {dict(Counter(verdicts.values()))}", file=sys.stderr)
    if not options.case and not options.peer:
        run_on = {"Python": platform.python_version(), "Node": install.node_version()}
        page = report.markdown(columns, run_on, not_run, cases)
        (ROOT / "docs" / "peers.md").write_text(page, encoding="utf-8")
    return 0


def run(peer: Peer, cases: list[Case], server: Server) -> tuple[dict[str, str], dict[str, Answer]]:
    """Put the cases to one peer; return its versions and answers."""
    process = Process(install.command_of(peer, CACHE), CACHE)
    try:
        process.start()
        return process.versions, {case.name: ask(process, peer, case, server) for case in cases}
    finally:
        process.stop()


def chosen(all_of_them: list[Any], names: list[str] | None, kind: str) -> list[Any]:
    """Return those of a name, or all without names."""
    known = {each.name: each for each in all_of_them}
    unknown = [name for name in names or () if name not in known]
    if unknown or not known:
        sys.exit(f"no {kind} {', '.join(unknown)}; there are: {', '.join(known) or 'none'}")
    return [known[name] for name in names or known]


def ask(process: Process, peer: Peer, case: Case, server: Server) -> Answer:
    """Put one case to a peer; what goes wrong with its process is an error of the peer's."""
    url = f"http://127.0.0.1:{server.server_port}/{peer.framing}/{case.name}"
    request = {"url": url, "params": case.params}
    try:
        answer: Answer = process.ask(request, PATIENCE)
        return answer
    except (TimeoutError, EOFError, BrokenPipeError) as error:
        return {"error": f"{type(error).__name__}: {error}"}


def explain(
    peer: Peer, versions: dict[str, str], case: Case, verdict: Judgement, answer: Answer
) -> None:
    """Print what was expected, what came, and where they differ."""
    body = case.body if peer.framing == "own" else case.clean_body
    print(f"== {peer.name} {versions}, {case.name}: {verdict.verdict}")
    print(f"-- body ({peer.framing} framing)\n{body.decode('utf-8', 'replace').rstrip()}")
    print(f"-- expected, status {case.status}, problems {sorted(case.problems)}")
    print(legible(pruned(case.completion), indent=1))
    if verdict.error is not None:
        print(f"-- raised\n{verdict.error}")
        return
    print(f"-- got\n{legible(pruned(answer['result']), indent=1)}")
    for difference in verdict.differences:
        wanted, given = legible(difference.expected), legible(difference.got)
        print(f"-- {difference.kind}: {difference.path}: expected {wanted}, got {given}")


def legible(value: object, indent: int | None = None) -> str:
    """Return JSON in which a character and the two halves of one can be told apart."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


if __name__ == "__main__":
    sys.exit(main())
