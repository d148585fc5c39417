"""A loopback server that streams the cases, and the processes that read them."""

import json
import queue
import subprocess
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TextIO

from cases import Case

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

    def url(self, framing: str, case: Case) -> str:
        """Give the base URL at which a client finds a case."""
        return f"http://127.0.0.1:{self.server_port}/{framing}/{case.name}"


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


class Adapter:
    """The process in which one peer runs; it is started anew after a case it did not survive."""

    def __init__(
        self, command: list[str], folder: Path, environment: dict[str, str], log: TextIO
    ) -> None:
        self._start = (command, folder, environment, log)
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str] = queue.Queue()
        self.versions: dict[str, str] = {}

    def ask(self, url: str, params: dict[str, Any], patience: float) -> Answer:
        """Put one case to the peer; what goes wrong with its process is an error of the peer's."""
        process = self._process or self.start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps({"url": url, "params": params}) + "\n")
            process.stdin.flush()
            return self._next(patience)
        except (TimeoutError, EOFError, BrokenPipeError) as error:
            self.stop()
            return {"error": f"{type(error).__name__}: {error}"}

    def start(self) -> "subprocess.Popen[str]":
        """Start the process and read which versions it has."""
        command, folder, environment, log = self._start
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            errors="surrogatepass",
        )
        self._answers = queue.Queue()
        threading.Thread(
            target=forward, args=(self._process.stdout, self._answers), daemon=True
        ).start()
        # Some of the packages take half a minute to import on a cold disk.
        self.versions = self._next(180)["versions"]
        return self._process

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _next(self, patience: float) -> Answer:
        try:
            line = self._answers.get(timeout=patience)
        except queue.Empty:
            raise TimeoutError(f"no answer within {patience:g} s") from None
        if not line:
            raise EOFError("the process ended")
        answer: Answer = json.loads(line)
        return answer


def forward(lines: TextIO, answers: "queue.Queue[str]") -> None:
    """Pass lines on as they come, and an empty one at their end."""
    for line in lines:
        answers.put(line)
    answers.put("")
