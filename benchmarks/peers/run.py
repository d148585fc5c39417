"""Run the peers over the conformance cases, judge what comes back, and write the page.

It writes docs/peers.md and results.json. `--peer NAME` runs that peer alone and keeps the results
of the others; `--case CASE` shows verdicts and their reasons.
"""

import argparse
import hashlib
import json
import platform
import re
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
RESULTS = HERE / "results.json"
# Long for what takes milliseconds; a peer that needs longer hangs.
PATIENCE = 10.0


def main() -> int:
    """Do what the command line asks for."""
    options = arguments()
    every_case = load(options.cases)
    cases = chosen(every_case, options.case, "case")
    results = results_of(every_case, options)
    server = Server(cases)
    for peer in chosen(list(PEERS), options.peer, "peer"):
        results["not run"].pop(peer.name, None)
        its = [case for case in cases if peer.takes(case)]
        try:
            versions, answers = run(peer, its, server, options.cache)
        except (OSError, subprocess.CalledProcessError, TimeoutError, EOFError) as error:
            results["not run"][peer.name] = f"{type(error).__name__}: {error}"
            print(f"{peer.name} could not be run: {error}", file=sys.stderr)
            continue
        found = {case.name: judge(case, peer.room, answers[case.name]) for case in its}
        if options.case:
            for case in its:
                explain(peer, versions, case, found[case.name], answers[case.name])
        not_right = {name: reason(each) for name, each in found.items() if each.verdict != "right"}
        results["peers"][peer.name] = {"versions": versions, "not right": not_right}
        counts = Counter(each.partition(":")[0] for each in not_right.values())
        print(f"{peer.name} {versions}: {dict(counts)} of {len(its)}", file=sys.stderr)
    if not options.case and not options.no_write:
        page = report.markdown(report.columns_of(results, cases), results, cases)
        (ROOT / "docs" / "peers.md").write_text(page, encoding="utf-8")
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


def run(
    peer: Peer, cases: list[Case], server: Server, cache: Path
) -> tuple[dict[str, str], dict[str, Answer]]:
    """Put the cases to one peer; return its versions and answers."""
    process = Process(install.command_of(peer, cache), cache)
    try:
        process.start()
        return process.versions, {case.name: ask(process, peer, case, server) for case in cases}
    finally:
        process.stop()


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peer", action="append", help="only this peer; may be repeated")
    parser.add_argument("--case", action="append", help="only this case, and say why; likewise")
    parser.add_argument("--cases", type=Path, default=ROOT / "tests" / "conformance")
    parser.add_argument("--cache", type=Path, default=HERE / ".cache" / "peers")
    parser.add_argument("--no-write", action="store_true", help="write nothing")
    options = parser.parse_args()
    options.cache = options.cache.resolve()
    options.cache.mkdir(parents=True, exist_ok=True)
    return options


def chosen(all_of_them: list[Any], names: list[str] | None, kind: str) -> list[Any]:
    """Return those of a name, or all without names."""
    known = {each.name: each for each in all_of_them}
    unknown = [name for name in names or () if name not in known]
    if unknown or not known:
        sys.exit(f"no {kind} {', '.join(unknown)}; there are: {', '.join(known) or 'none'}")
    return [known[name] for name in names or known]


def results_of(cases: list[Case], options: argparse.Namespace) -> dict[str, Any]:
    """Return the results of the peers that are not run again, if these cases are still theirs."""
    seen = [
        (case.name, case.body, case.completion, case.status, sorted(case.problems))
        for case in cases
    ]
    digest = hashlib.sha256(repr(seen).encode()).hexdigest()
    new = {
        "run on": {"Python": platform.python_version(), "Node": install.node_version()},
        "cases": digest,
        "peers": {},
        "not run": {},
    }
    if not options.peer or options.case:
        return new
    kept: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    if kept["cases"] != digest and not options.no_write:
        sys.exit("the cases have changed since the other peers were run: run all, or --no-write")
    return kept if kept["cases"] == digest else new


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


def reason(verdict: Judgement) -> str:
    """Return a verdict and its reasons as text that comes out the same in every run."""
    if verdict.error is not None:
        first = verdict.error.partition("\n")[0][:160]
        # Ports, addresses of objects and made-up ids are another in every run.
        same = re.sub(r"127\.0\.0\.1:\d+|0x[0-9a-f]{8,}|[0-9a-f-]{32,36}", "…", first)
        return f"{verdict.verdict}: {same}"
    paths = {
        kind: " ".join(each.path for each in verdict.differences if each.kind == kind)
        for kind in ("wrong", "lost")
    }
    return "; ".join(f"{kind}: {each}" for kind, each in paths.items() if each)


if __name__ == "__main__":
    sys.exit(main())
