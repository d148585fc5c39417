"""A real HTTP server on the loopback interface: one answer or an echo, 401 for key `wrong`."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

# Takes the request's body; gives the content type and the answer's body in pieces.
Answer = Callable[[bytes], tuple[str, Iterable[bytes]]]


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """Serve until the block ends; gives the base URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Authorization"] == "Bearer wrong":
                self.send_error(401)
                return
            kind, pieces = answer(request)
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            with suppress(ConnectionError):  # the client may leave before the end
                for piece in pieces:
                    self.wfile.write(piece)
                    self.wfile.flush()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
