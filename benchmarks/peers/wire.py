"""A loopback server that streams the cases, and the processes that read them."""

import json
import os
import select
import subprocess
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cases import Case
from install import QUIET

Answer = dict[str, Any]


class Server(ThreadingHTTPServer):
    """Answers `POST /<framing>/<case>/chat/completions` with the case's body."""

    daemon_threads = True

    def __init__(self, cases: Sequence[Case]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies = {f"/own/{case.name}": case.body for case in cases}
        self.bodies |= {f"/chunks/{case.name}": case.clean_body for case in cases}
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """Let clients hang up, as those do whose process is ended."""


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        """Send the body of the case that the path names."""
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = self.server.bodies.get(self.path.removesuffix("/chat/completions"))
        self.send_response(404 if body is None else 200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


class Process:
    """A process that answers a JSON object per line; it is started anew where it did not survive.

    Its first line names the versions of what it runs.
    """

    def __init__(self, command: list[str], folder: Path) -> None:
        self._command, self._folder = command, folder
        self._process: subprocess.Popen[str] | None = None
        self.versions: dict[str, str] = {}

    def ask(self, request: object, patience: float) -> Any:
        """Return the answer; raises TimeoutError, EOFError or BrokenPipeError if there is none."""
        process = self._process or self.start()
        try:
            print(json.dumps(request), file=process.stdin, flush=True)
            return answer_of(process, patience)
        except (TimeoutError, EOFError, BrokenPipeError):
            self.stop()
            raise

    def start(self) -> "subprocess.Popen[str]":
        """Start the process and read which versions it has."""
        pipe = subprocess.PIPE
        with (self._folder / "log.txt").open("a", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, env=os.environ | QUIET, stdin=pipe,
                stdout=pipe, stderr=log, encoding="utf-8", errors="surrogatepass",
            )  # fmt: skip
        # Some of the packages take half a minute to import on a cold disk.
        self.versions = answer_of(self._process, 180)["versions"]
        return self._process

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def answer_of(process: "subprocess.Popen[str]", patience: float) -> Any:
    """Read one line of a process; none is waiting, as each is read before the next is asked for."""
    if not select.select([process.stdout], [], [], patience)[0]:
        raise TimeoutError(f"no answer within {patience:g} s")
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        raise EOFError("the process ended")
    return json.loads(line)
