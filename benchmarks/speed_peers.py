"""Time the peers beside the package on the same bodies: `speed_peers.py [ROUNDS]` prints JSON.

Each peer waits in a process of its own (peer_clock), in the environment that the comparison of
results (`peers/`) has for it. Every round asks all of them, and the package here, for one run. A
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

CACHE = HERE / "peers" / ".cache" / "peers"
COUNTS = {"text": 2000, "tool calls": 2000, "logprobs": 500}
# The title, the way of peer_clock, the environment, and whose versions are named.
PEERS = (
    ("openai-python, bytes to completion", "openai", "openai", ("openai", "pydantic")),
    ("openai-python, its state alone", "openai_state", "openai", ("openai", "pydantic")),
    ("openai-node, bytes to completion", "", "node", ("openai",)),
    ("litellm, bytes to response", "litellm", "litellm", ("litellm", "openai")),
    ("any-llm, bytes to completion", "any_llm", "any_llm", ("any-llm-sdk", "openai")),
    ("langchain, bytes to message", "langchain", "langchain", ("langchain-openai", "openai")),
)
FIELDS = "index content refusal reasoning reasoning_content details tool_calls logprobs reason"


def main() -> None:
    """Measure, and print what each needs for a chunk."""
    rounds = int((*sys.argv[1:], "10")[0])
    CACHE.mkdir(parents=True, exist_ok=True)
    ours: dict[str, Any] = {"the loop by hand": {}, "accumulator": {}}
    figures = {name: {"versions": {}, "shapes": shapes} for name, shapes in ours.items()}
    clocks: dict[str, subprocess.Popen[str]] = {}
    for title, way, where, packages in PEERS:
        try:
            clocks[title] = started(way, where, packages)
            versions = ask(clocks[title])
        except (OSError, EOFError, subprocess.CalledProcessError) as error:
            print(f"{title}: {error}", file=sys.stderr)
            clocks.pop(title, None)
        else:
            figures[title] = {"versions": versions, "shapes": {}}
    for shape, count in COUNTS.items():
        case = rows.bodies(shape, count, 1, rows.SMALL)
        (reads,) = case.inputs
        wanted = rows.digest(msgspec.to_builtins(by_hand.completion_of(reads)))
        seconds: dict[str, list[float]] = {title: [] for title in figures}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "body"
            path.write_bytes(b"".join(reads))
            for title, clock in clocks.items():
                result = ask(clock, {"body": str(path), "read": 4096})
                if found := differences(result, wanted):
                    figures[title]["shapes"][shape] = f"differs: {', '.join(found)}"
        for number in range(rounds + 1):
            times = rows.measure(case, 0.05)
            took = {"the loop by hand": times.theirs[0], "accumulator": times.ours[0]}
            took |= {title: ask(clock, {}) for title, clock in clocks.items()}
            for title, each in took.items():
                seconds[title] += [each] if number else []
        for title, taken in seconds.items():
            microseconds = 1e6 * statistics.median(taken) / case.chunks
            figures[title]["shapes"].setdefault(shape, microseconds)
    for clock in clocks.values():
        clock.kill()
        clock.communicate()
    json.dump(figures, sys.stdout)


def started(way: str, where: str, packages: tuple[str, ...]) -> subprocess.Popen[str]:
    """Install a peer unless it is there, and start the process in which it waits."""
    if where == "node":
        # Node looks for packages from where a script stands.
        script = install.node_folder(CACHE) / "peer_clock.mjs"
        script.write_bytes((HERE / script.name).read_bytes())
        command = ["node", str(script), *packages]
    else:
        python = install.venv(CACHE / where, HERE / "peers" / "requirements" / f"{where}.txt")
        command = [str(python), "-I", str(HERE / "peer_clock.py"), way, *packages]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, env=install.environment(), stdin=pipe, stdout=pipe, encoding="utf-8"
    )


def ask(clock: subprocess.Popen[str], request: object = None) -> Any:
    """Send a request, if any, and return the answer. Raises EOFError if the peer ended instead."""
    if clock.stdin is None or clock.stdout is None:
        raise OSError("the process has no pipes")
    if request is not None:
        print(json.dumps(request), file=clock.stdin, flush=True)
    if line := clock.stdout.readline():
        return json.loads(line)
    raise EOFError(f"ended with {clock.wait()}")


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
