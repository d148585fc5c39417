"""Run the peers on the conformance cases, judge the results, and write docs/peers.md.

`--peer NAME` and `--case CASE` run only these and write nothing; `--case` shows verdicts and their
reasons.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

from cases import Case, load
from judge import Difference, Object, judge, pruned
from process import PEERS, Peer, answers_of
from report import Verdicts, page_of

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Do what the command line asks for."""
    cases = load(ROOT / "tests" / "conformance")
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peer", nargs="+", choices=PEERS, help="only these peers")
    parser.add_argument("--case", nargs="+", choices=cases, metavar="CASE", help="only these cases")
    options = parser.parse_args()
    verdicts: dict[str, Verdicts] = {}
    for name in options.peer or PEERS:
        peer = PEERS[name]
        its = [cases[case] for case in options.case or cases if peer.takes(cases[case])]
        verdicts[name] = {}
        for case, answer in answers_of(peer, its):
            verdicts[name][case.name], differences = judge(case, peer.room, answer)
            if options.case:
                print(f"== {name}, {case.name}: {verdicts[name][case.name]}")
                explain(peer, case, answer, differences)
        print(f"{name}: {dict(Counter(verdicts[name].values()))}", file=sys.stderr)
    if not options.case and not options.peer:
        page = page_of(verdicts, cases)
        (ROOT / "docs" / "peers.md").write_text(page, encoding="utf-8")


def explain(peer: Peer, case: Case, answer: Object, differences: list[Difference]) -> None:
    """Print the expected and the actual result, and where they differ."""
    print(f"-- body\n{peer.body_of(case).decode('utf-8', 'replace').rstrip()}")
    print(f"-- expected, status {case.status}, problems {sorted(case.problems)}")
    print(legible(pruned(case.completion), indent=1))
    if "error" in answer:
        print(f"-- raised\n{answer['error']}")
        return
    print(f"-- got\n{legible(pruned(answer['result']), indent=1)}")
    for verdict, path, wanted, given in differences:
        print(f"-- {verdict}: {path}: expected {legible(wanted)}, got {legible(given)}")


def legible(value: object, indent: int | None = None) -> str:
    """Return JSON that distinguishes a character from the two halves of one."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


if __name__ == "__main__":
    main()
