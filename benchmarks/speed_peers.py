"""Time the peers beside the package on the same bodies, and print it as JSON. run.py calls it.

Each peer waits in a process of its own, in the environment that the comparison of results
(`peers/`) has for it. Every round asks all of them, and `bare` and the package here, for one run;
ratios are taken within a round. A peer whose result is not the package's in content, calls,
logprobs, finish reason or the totals of the usage is named with what differs, not with a time.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import bare
import workloads
from timing import accumulated

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE / "peers"))
import install  # noqa: E402

CACHE = HERE / "peers" / ".cache" / "peers"
READ = 4096
CHUNKS = {"W1": 2000, "W4": 2000, "W5": 500}
OURS = "accumulator"
TOTALS = ("prompt_tokens", "completion_tokens", "total_tokens")


@dataclass(frozen=True)
class Peer:
    """A peer, and one way to use it."""

    title: str
    way: str
    environment: str
    packages: tuple[str, ...]


PEERS = (
    Peer("openai-python, bytes to completion", "openai", "openai", ("openai", "pydantic")),
    Peer("openai-python, its state alone", "openai_state", "openai", ("openai", "pydantic")),
    Peer("openai-node, bytes to completion", "node", "node", ("openai",)),
    Peer("litellm, bytes to response", "litellm", "litellm", ("litellm", "openai")),
    Peer("any-llm, bytes to completion", "any_llm", "any_llm", ("any-llm-sdk", "openai")),
    Peer(
        "langchain, bytes to message",
        "langchain",
        "langchain",
        ("langchain-openai", "langchain-core", "openai"),
    ),
)


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    clocks: list[Clock] = []
    absent: dict[str, str] = {}
    for peer in PEERS:
        try:
            clocks.append(Clock(peer))
        except (OSError, EOFError, subprocess.CalledProcessError) as error:
            print(f"{peer.title}: {error}", file=sys.stderr)
            # Without the message, which names files of this machine.
            absent[peer.title] = type(error).__name__
    figures = {}
    for name, count in CHUNKS.items():
        figures[name] = compared(name, count, clocks, options.rounds)
    for clock in clocks:
        clock.stop()
    versions = {clock.peer.title: clock.versions for clock in clocks}
    json.dump({"bodies": figures, "versions": versions, "absent": absent}, sys.stdout)


def compared(name: str, count: int, clocks: list[Clock], rounds: int) -> dict[str, object]:
    """Give what each way needs for a chunk of a body, and its ratio to `bare` and to ours."""
    stream = workloads.stream(name, count)
    reads = stream.reads(READ)
    wanted = told(accumulated(reads).to_dict())
    chunks = len(stream.events)
    calls: dict[str, Callable[[], float]] = {
        "bare": partial(timed, lambda: bare.decode_all(stream.events)),
        OURS: partial(timed, lambda: accumulated(reads)),
    }
    differ: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "body"
        path.write_bytes(b"".join(stream.pieces))
        for clock in clocks:
            found = differences(clock.ask({"body": str(path), "read": READ}), wanted)
            if found:
                differ[clock.peer.title] = found
            else:
                calls[clock.peer.title] = partial(clock.ask, {})
    seconds: dict[str, list[float]] = {title: [] for title in calls}
    for number in range(rounds + 1):
        for title, call in calls.items():
            took = call()
            if number:
                seconds[title].append(took)
    return {
        "chunks": chunks,
        "differ": differ,
        "ways": {
            title: {
                "seconds_per_chunk": statistics.median(values) / chunks,
                "ratio": ratio(values, seconds["bare"]),
                "ratio_to_ours": ratio(values, seconds[OURS]),
            }
            for title, values in seconds.items()
        },
    }


def ratio(values: list[float], others: list[float]) -> float:
    """Give the median of the ratios that were taken in one round each."""
    return statistics.median(a / b for a, b in zip(values, others, strict=True))


def timed(call: Callable[[], object]) -> float:
    """Time a call of a millisecond, as the median of many: the peers have had the caches since."""
    gc.collect()
    seconds = []
    for _ in range(21):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def differences(result: Mapping[str, Any], wanted: Mapping[str, object]) -> list[str]:
    """Name what of a result is not what it should be."""
    try:
        given = told(result)
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        return [f"not in the API's shape: {type(error).__name__}: {error}"]
    return [name for name, value in wanted.items() if given.get(name) != value]


def told(completion: Mapping[str, Any]) -> dict[str, object]:
    """Give what is compared of a completion with one choice."""
    digest: dict[str, Any] = workloads.digest(completion)
    (choice,) = digest["choices"]
    usage = digest["usage"] or {}
    return {**choice, "usage": [usage.get(name) for name in TOTALS]}


@dataclass
class Clock:
    """The process in which a peer waits."""

    peer: Peer
    versions: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            command_of(self.peer),
            env=install.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
        )
        self.versions = self._answer()

    def ask(self, request: Mapping[str, object]) -> Any:
        """Send a request and wait for its answer. Raises EOFError if the peer ended instead."""
        assert self._process.stdin is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._answer()

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            last = self._log.read().strip().rpartition("\n")[2]
            raise EOFError(f"{self.peer.title} ended: {last}")
        return json.loads(line)


def command_of(peer: Peer) -> list[str]:
    """Install a peer unless it is there, and give the command of its process."""
    if peer.environment == "node":
        folder = install.node_folder(CACHE)
        # Node looks for packages from where a script stands.
        script = folder / "peer_clock.mjs"
        script.write_bytes((HERE / script.name).read_bytes())
        return ["node", str(script), *peer.packages]
    requirements = HERE / "peers" / "requirements" / f"{peer.environment}.txt"
    python = install.venv(CACHE / peer.environment, requirements)
    return [str(python), "-I", str(HERE / "peer_clock.py"), peer.way, *peer.packages]


if __name__ == "__main__":
    main()
