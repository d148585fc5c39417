"""Time the peers beside the package on the same bodies: `speed_peers.py [ROUNDS]` prints JSON.

Each peer waits in a process of its own (`peers/adapters/_clock`), in the environment that the
comparison of results has for it. Every round asks all of them, and the package here, for one run. A
peer whose result is not that of the loop by hand is named with what differs, not with a time.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE / "peers"))

import by_hand  # noqa: E402
import install  # noqa: E402
import msgspec  # noqa: E402
import rows  # noqa: E402
from peers import PEERS  # noqa: E402
from wire import Process  # noqa: E402

CACHE = HERE / "peers" / ".cache" / "peers"
COUNTS = {"text": 2000, "tool calls": 2000, "logprobs": 500}
# The title, the way of _clock.py, and the peer.
WAYS = (
    ("openai-python, bytes to completion", "openai", "openai"),
    ("openai-python, its state alone", "openai_state", "openai"),
    ("openai-node, bytes to completion", "", "openai_node"),
    ("litellm, bytes to response", "litellm", "litellm"),
    ("any-llm, bytes to completion", "any_llm", "any_llm"),
    ("langchain, bytes to message", "langchain", "langchain"),
)
PATIENCE = 300.0
FIELDS = "index content refusal reasoning reasoning_content details tool_calls logprobs reason"


def main() -> None:
    """Measure, and print what each needs for a chunk."""
    rounds = int((*sys.argv[1:], "10")[0])
    CACHE.mkdir(parents=True, exist_ok=True)
    ours: dict[str, Any] = {"the loop by hand": {}, "accumulator": {}}
    figures = {name: {"versions": {}, "shapes": shapes} for name, shapes in ours.items()}
    clocks: dict[str, Process] = {}
    known = {peer.name: peer for peer in PEERS}
    for title, _, name in WAYS:
        try:
            clock = Process(install.command_of(known[name], CACHE, "_clock"), CACHE)
            clock.start()
        except (OSError, EOFError, subprocess.CalledProcessError) as error:
            print(f"{title}: {error}", file=sys.stderr)
        else:
            clocks[title] = clock
            figures[title] = {"versions": clock.versions, "shapes": {}}
    for shape, count in COUNTS.items():
        case = rows.bodies(shape, count, 1, rows.SMALL)
        (reads,) = case.inputs
        wanted = rows.digest(msgspec.to_builtins(by_hand.completion_of(reads)))
        seconds: dict[str, list[float]] = {title: [] for title in figures}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "body"
            path.write_bytes(b"".join(reads))
            for title, way, _ in WAYS:
                if title not in clocks:
                    continue
                result = ask(clocks[title], str(path), way=way)
                if found := differences(result, wanted):
                    figures[title]["shapes"][shape] = f"differs: {', '.join(found)}"
        for number in range(rounds + 1):
            times = rows.measure(case, 0.05)
            took = {"the loop by hand": times.theirs[0], "accumulator": times.ours[0]}
            took |= {title: ask(clock) for title, clock in clocks.items()}
            for title, each in took.items():
                seconds[title] += [each] if number else []
        for title, taken in seconds.items():
            microseconds = 1e6 * statistics.median(taken) / case.chunks
            figures[title]["shapes"].setdefault(shape, microseconds)
    for clock in clocks.values():
        clock.stop()
    json.dump(figures, sys.stdout)


def ask(clock: Process, path: str = "", **params: object) -> Any:
    """Return what a peer makes of a body, or without one the seconds of one more run."""
    answer = clock.ask({"url": path, "params": {"read": 4096, **params}}, PATIENCE)
    if "error" in answer:
        raise OSError(answer["error"])
    return answer["result"]


def differences(result: Any, wanted: Any) -> list[str]:
    """Return what differs in a result."""
    try:
        ((given,), (right,)) = rows.digest(result)[-1], wanted[-1]
    except (KeyError, TypeError, ValueError) as error:
        return [f"not in the API's shape, {error!r}"]
    pairs = list(zip(FIELDS.split(), given, right, strict=True))
    for total in ("prompt_tokens", "completion_tokens", "total_tokens"):
        pairs.append((total, (result["usage"] or {}).get(total), wanted[4][total]))
    return [str(name) for name, a, b in pairs if a != b]


if __name__ == "__main__":
    main()
