"""README keeps its word: its Python lines run, as they stand, against a real server."""

import copy
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import openai
import pytest

ROOT = Path(__file__).resolve().parents[1]
RECORDING = ROOT / "tests" / "recordings" / "weather-tool-call.sse"


class Replay(BaseHTTPRequestHandler):
    """Answers every request with the recording, in pieces that cut characters."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        body = RECORDING.read_bytes()
        for start in range(0, len(body), 7):
            self.wfile.write(body[start : start + 7])

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Replay) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield f"http://127.0.0.1:{server.server_port}/chat/completions"
        server.shutdown()


def test_the_python_lines_run_as_they_stand(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    [lines] = re.findall(
        r"^```python\n(.*?)^```$", ROOT.joinpath("README.md").read_text("utf-8"), re.M | re.S
    )
    asked = {"role": "user", "content": "How warm is it in Zürich and in 東京?"}
    request = {"model": "gpt-4o-mini", "messages": [asked], "stream": True}
    with openai.OpenAI(base_url=url.removesuffix("/chat/completions"), api_key="none") as client:
        names: dict[str, object] = {
            "httpx": httpx,
            "client": client,
            "url": url,
            "request": copy.deepcopy(request),
        }
        exec(compile(lines, "README.md", "exec"), names)
    assert names["request"] == request | {
        "messages": [
            asked,
            {
                "role": "assistant",
                "content": "Let me see how warm it is in Zürich and in 東京 … 🌤️",
                "tool_calls": [
                    {
                        "id": f"call_{city}",
                        "type": "function",
                        "function": {"name": "get_weather", "arguments": arguments},
                    }
                    for city, arguments in [
                        ("zurich", '{"city": "Zürich", "unit": "°C"}'),
                        ("tokyo", '{"city": "東京", "unit": "°C"}'),
                    ]
                ],
            },
        ]
    }
    assert len(capsys.readouterr().out.splitlines()) == 14
