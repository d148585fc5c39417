"""The process that a peer runs in: what is installed for it, and how it is asked."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Timer

import reducers  # noqa: F401  # they register themselves
import tracers  # noqa: F401
from cases import Case
from peers import PEERS, Object, Peer

HERE = Path(__file__).resolve().parent
CACHE = HERE / ".cache"
sys.path.append(str(HERE.parents[1] / "tests"))
from loopback import serving  # noqa: E402  # it is with the tests

__all__ = ["PEERS", "Peer", "answers_of"]
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
    "no_proxy": "127.0.0.1",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "OTEL_SDK_DISABLED": "false",
    "PYTHONWARNINGS": "ignore",
}


def answers_of(peer: Peer, cases: list[Case]) -> Iterator[tuple[Case, Object]]:
    """Give cases to a peer; yield its answers, or an error if its process did not survive."""
    command = command_of(peer)
    process = None
    for case in cases:
        if process is None or process.poll() is not None:
            with (CACHE / "log.txt").open("a", encoding="utf-8") as log:
                process = subprocess.Popen(
                    command, cwd=CACHE, env=os.environ | QUIET, stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE, stderr=log, encoding="utf-8", errors="surrogatepass",
                )  # fmt: skip
        yield case, ask(process, peer.body_of(case), case.params)
    if process is not None:
        process.kill()


def command_of(peer: Peer) -> list[str]:
    """Install what a peer needs, and return the command that runs it."""
    CACHE.mkdir(exist_ok=True)
    if peer.reduce is None:
        install = ["npm", "ci", "--silent", "--no-fund", "--no-audit"]
        subprocess.run(install, cwd=HERE, check=True)
        return ["node", str(HERE / "peers.mjs"), peer.name]
    python = str(CACHE / peer.name / "bin" / "python")
    subprocess.run([sys.executable, "-m", "venv", str(CACHE / peer.name)], check=True)
    subprocess.run([python, "-m", "pip", "install", "-qq", *peer.packages], check=True)
    return [python, "-E", "-s", str(HERE / "answer.py"), peer.name]


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
