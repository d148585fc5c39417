"""Time the peers beside the package: `speed_peers.py [ROUNDS]` prints the report's table as JSON.

Each peer waits in a process of its own, as the comparison of results (`peers/`) starts it, and
reads bodies from the loopback server of that comparison. Every round asks all of them for a long
stream and a short one; the difference is what the chunks between take, so that no client's start
counts. A peer whose result is not the package's is named with what differs, not with a time.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE / "peers"))

import install  # noqa: E402
import rows  # noqa: E402
import shapes  # noqa: E402
from cases import Case  # noqa: E402
from peers import PEERS  # noqa: E402
from wire import Adapter, Server  # noqa: E402

CACHE = HERE / "peers" / ".cache" / "peers"
NAMES = ("ours", "openai", "openai_node", "litellm", "any_llm", "langchain")
LONG, SHORT = 1000, 10
FIELDS = (
    "content",
    "refusal",
    "reasoning",
    "reasoning_content",
    "details",
    "tool_calls",
    "logprobs",
)


def main() -> None:
    """Measure, and print the table."""
    rounds = int((*sys.argv[1:], "10")[0])
    cases = {
        (shape, count): case_of(
            f"{shape.replace(' ', '-')}-{count}", shapes.made(shape, count).body
        )
        for shape in ("text", "tool calls", "logprobs")
        for count in (LONG, SHORT)
    }
    server = Server(list(cases.values()))
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, (CACHE.parent / "log").open("w") as log:
        started = {}
        for peer in (each for each in PEERS if each.name in NAMES):
            command = install.command_of(peer, CACHE)
            started[peer.name] = Adapter(command, Path(folder), install.environment(), log)
            figures[peer.name] = {"versions": {}, "shapes": {}}
        for shape in ("text", "tool calls", "logprobs"):
            long, short = (cases[shape, count] for count in (LONG, SHORT))
            chunks = len(long.chunks) - len(short.chunks)
            seconds: dict[str, list[float]] = {name: [] for name in started}
            wanted = None
            for _ in range(rounds + 1):
                for name, adapter in started.items():
                    took, answer = ask(adapter, server, long)
                    wanted = wanted or rows.digest(answer["result"])
                    seconds[name].append(took - ask(adapter, server, short)[0])
                    found = differences(answer, wanted)
                    if found:
                        figures[name]["shapes"][shape] = found
            for name, taken in seconds.items():
                microseconds = 1e6 * statistics.median(taken[1:]) / chunks
                figures[name]["shapes"].setdefault(shape, microseconds)
                figures[name]["versions"] = started[name].versions
        for adapter in started.values():
            adapter.stop()
    json.dump(figures, sys.stdout)


def case_of(name: str, body: bytes) -> Case:
    """Return a body as the comparison of results knows its cases."""
    message = {"model": "gpt-4o-mini", "choices": [{}]}
    return Case(name, body, message, "complete", ())


def ask(adapter: Adapter, server: Server, case: Case) -> tuple[float, dict[str, Any]]:
    """Have a peer read a body; return the seconds until its result was there, and its answer."""
    start = time.perf_counter()
    answer = adapter.ask(server.url("own", case), case.params, 60)
    return time.perf_counter() - start, answer


def differences(answer: dict[str, Any], wanted: Any) -> str:
    """Return what of an answer is not what it should be."""
    if "error" in answer:
        return str(answer["error"]).partition("\n")[0][:80]
    try:
        (given,), (right,) = rows.digest(answer["result"])[-1], wanted[-1]
    except (KeyError, TypeError, ValueError) as error:
        return f"not in the API's shape: {error!r}"
    names = ("index", *FIELDS, "finish_reason")
    found = [name for name, a, b in zip(names, given, right, strict=True) if a != b]
    return f"differs: {', '.join(found)}" if found else ""


if __name__ == "__main__":
    main()
