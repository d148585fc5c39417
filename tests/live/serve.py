"""Serves the tiny model by llama.cpp's own server, in a process that a test may kill."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
SLOTS = 4  # requests that the server works on at once; the others wait
TIMEOUT = 30  # seconds that a test waits for anything

Body = dict[str, Any]


def streamed(body: Body) -> Body:
    """Return the request that asks for a stream, and for its usage."""
    return {**body, "stream": True, "stream_options": {"include_usage": True}}


@dataclass(eq=False)
class LlamaServer:
    """A running server: `origin` is its address, `url` the base URL that clients want."""

    origin: str
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        return f"{self.origin}/v1"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def serving(folder: Path) -> Iterator[LlamaServer]:
    """Serve until the block ends. The model and the server's log are written to the folder."""
    log = folder / "server.log"
    command = [sys.executable, "-m", "live.serve", str(folder / "tiny.gguf")]
    # Without it, llama.cpp calls a debugger where it crashes.
    environment = {**os.environ, "GGML_NO_BACKTRACE": "1"}
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            command, cwd=TESTS, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
        ) as process,
    ):  # fmt: skip
        assert process.stdout
        assert process.stdin
        # A server that hangs while it starts is killed.
        patience = threading.Timer(TIMEOUT, process.kill)
        patience.start()
        origin = process.stdout.readline().strip()
        patience.cancel()
        try:
            if not origin:
                raise RuntimeError(f"the server did not start:\n{log.read_text(errors='replace')}")
            yield LlamaServer(origin, process)
        finally:
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def main(model: Path) -> None:
    """Write the model, serve it, and end with the process that started this one."""
    # Installed only for the session `live`, and needed only in this process.
    import xllamacpp  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

    from live.tiny_model import write_model  # noqa: PLC0415

    write_model(model)
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model)
    parameters.port = 0
    parameters.offline = True
    parameters.warmup = False
    parameters.n_gpu_layers = 0
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.n_parallel = SLOTS
    parameters.n_ctx = 4096 * SLOTS
    # The same prompt gives the same answer, to the last digit, whatever was asked before.
    parameters.cache_prompt = False
    parameters.use_jinja = True
    parameters.default_template_kwargs = {"enable_thinking": "false"}
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
