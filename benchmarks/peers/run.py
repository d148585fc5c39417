"""Run the peers on the conformance cases, judge the results, and write the tables in docs/peers.md.

`--peer NAME` and `--case CASE` run only these and write nothing; `--case` shows verdicts and their
reasons.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from threading import Timer

import tracers  # noqa: F401  # they register themselves
from cases import CASES, Case, load
from judge import VERDICTS, Object, Room, asked, judge, pruned
from peers import PEERS

HERE = Path(__file__).resolve().parent
CACHE = HERE / ".cache"
PAGE = HERE.parents[1] / "docs" / "peers.md"
sys.path.append(str(CASES.parent))
from loopback import serving  # noqa: E402  # it is with the tests

# Long for what takes milliseconds, but the first case also waits until the peer is imported.
PATIENCE = 30.0
# Peers must not phone home while they answer.
QUIET = {
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "DD_TRACE_ENABLED": "false",
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "true",
    "NO_PROXY": "127.0.0.1",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "OTEL_SDK_DISABLED": "false",
    "PYTHONWARNINGS": "ignore",
    "no_proxy": "127.0.0.1",
}

Verdicts = dict[str, str]  # by case


def main() -> None:
    """Do what the command line asks for."""
    cases = load()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peer", nargs="+", choices=PEERS, help="only these peers")
    parser.add_argument("--case", nargs="+", choices=cases, metavar="CASE", help="only these cases")
    options = parser.parse_args()
    found: dict[str, Verdicts] = {}
    for name in options.peer or PEERS:
        room, found[name] = Room(PEERS[name].room), {}
        its = [cases[case] for case in options.case or cases]
        for case, body, answer in answers_of(name, its):
            verdict, differences = judge(case, room, answer)
            found[name][case.name] = verdict
            if options.case:
                print(f"== {name}, {case.name}: {verdict}")
                print(f"-- body\n{body.decode('utf-8', 'replace').rstrip()}")
                print(f"-- expected, status {case.status}, problems {sorted(case.problems)}")
                print(legible(pruned(case.completion), indent=1))
                print(f"-- got\n{legible(pruned(answer), indent=1)}")
                for kind, path, wanted, given in differences:
                    at = ".".join(map(str, path))
                    print(f"-- {kind}: {at}: expected {legible(wanted)}, got {legible(given)}")
        print(f"{name}: {dict(Counter(found[name].values()))}", file=sys.stderr)
    if not options.case and not options.peer:
        page = PAGE.read_text(encoding="utf-8")
        for name, text in parts_of(found, cases).items():
            before, begin, rest = page.partition(f"<!-- {name} -->\n")
            _, end, after = rest.partition("\n<!-- end -->")
            page = before + begin + text + end + after
        PAGE.write_text(page, encoding="utf-8")


def legible(value: object, indent: int | None = None) -> str:
    """Return JSON that distinguishes a character from the two halves of one."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


# --- asking -------------------------------------------------------------------------------


def answers_of(name: str, cases: list[Case]) -> Iterator[tuple[Case, bytes, Object]]:
    """Give cases to a peer; yield what was sent and its answers.

    The answer is an error if its process did not survive.
    """
    command, process = command_of(name), None
    for case in cases:
        if PEERS[name].reads_bytes:
            body = case.body
        elif case.is_of_events:
            body = case.clean_body
        else:
            continue  # there are no chunks that the client could pass on
        if process is None or process.poll() is not None:
            with (CACHE / "log.txt").open("a", encoding="utf-8") as log:
                process = subprocess.Popen(
                    command, cwd=CACHE, env=os.environ | QUIET, stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE, stderr=log, encoding="utf-8", errors="surrogatepass",
                )  # fmt: skip
        yield case, body, ask(process, body, case.params)
    if process is not None:
        process.kill()


def command_of(name: str) -> list[str]:
    """Install what a peer needs, and return the command that runs it."""
    CACHE.mkdir(exist_ok=True)
    if PEERS[name].reduce is None:
        on_node = [peer.packages for peer in PEERS.values() if peer.reduce is None]
        packages = [package.replace("==", "@") for packages in on_node for package in packages]
        install = ["npm", "install", "--silent", "--no-save", "--no-package-lock", "--prefix", HERE]
        subprocess.run([*install, *packages], check=True)
        return ["node", str(HERE / "peers.mjs"), name]
    python = str(CACHE / name / "bin" / "python")
    subprocess.run([sys.executable, "-m", "venv", str(CACHE / name)], check=True)
    subprocess.run([python, "-m", "pip", "install", "-qq", *PEERS[name].packages], check=True)
    return [python, "-E", "-s", str(HERE / "tracers.py"), name]


def ask(process: "subprocess.Popen[str]", body: bytes, params: Object) -> Object:
    """Return what a process makes of a body. Raises CalledProcessError if it fails on its own."""
    timer = Timer(PATIENCE, process.kill)
    with serving(lambda _: ("text/event-stream", [body])) as url:
        timer.start()
        print(json.dumps({"url": url, "params": params}), file=process.stdin, flush=True)
        line = process.stdout.readline() if process.stdout else ""
        timer.cancel()
    if not line and process.wait() > 0:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    answer: Object = json.loads(line) if line else {"error": "the process ended"}
    return answer


# --- the page -----------------------------------------------------------------------------


def parts_of(found: dict[str, Verdicts], cases: dict[str, Case]) -> dict[str, str]:
    """Return the tables of the page, with the peers sorted by the share of cases that are right."""
    counts = {name: Counter(its.values()) for name, its in found.items()}
    names = sorted(found, key=lambda name: -counts[name]["right"] / len(found[name]))
    node = subprocess.check_output(["node", "--version"], text=True).strip().removeprefix("v")
    ran = [f"On Python {platform.python_version()}, Node {node}:\n"]
    summary = [["peer", "version", *VERDICTS, "of cases", "asked for"]]
    for name in names:
        packages = [re.sub(r"\[.*\]", "", package) for package in PEERS[name].packages]
        ran.append(f"- {name} ({', '.join(packages).replace('==', ' ')}): {PEERS[name].what}")
        title, version = f"{name}", packages[0].partition("==")[2]
        if name == "ours":
            title, version = "**ours**", "this checkout"
        right = [str(counts[name][verdict]) for verdict in VERDICTS]
        values = sum(asked(cases[case], Room(PEERS[name].room)) for case in found[name])
        summary.append([title, version, *right, str(len(found[name])), str(values)])
    areas = [["right of", "cases", *names]]
    for area, group in groupby(cases, key=lambda name: name.partition("-")[0]):
        inside = list(group)
        shares = []
        for name in names:
            verdicts = [found[name][case] for case in inside if case in found[name]]
            some = f" of {len(verdicts)}" * (len(verdicts) < len(inside))
            shares.append(f"{verdicts.count('right')}{some}")
        areas.append([area, str(len(inside)), *shares])
    matrix = [["case", *names]]
    for case in cases:
        verdicts = [found[name].get(case, "-") for name in names]
        matrix.append([f"`{case}`", *("✓" if each == "right" else each for each in verdicts)])
    tables = {"summary": summary, "areas": areas, "cases": matrix}
    return {"run": "\n".join(ran)} | {name: table_of(rows) for name, rows in tables.items()}


def table_of(rows: list[list[str]]) -> str:
    """Return a Markdown table, whose first row is its head."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
