"""Each example of docs/use-it-with.md runs as it stands, against a real server."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from collections.abc import Coroutine, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from serving import Replay, Server, drop_connections, heavy, serving

from accumulator import Accumulator, ChatCompletion, accumulate, wrap

httpx = pytest.importorskip("httpx", reason="a client that is installed for the tests only")
from starlette.applications import Starlette  # noqa: E402
from starlette.routing import Mount, Route  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "use-it-with.md"
RECORDING = (ROOT / "tests" / "recordings" / "weather-tool-call.sse").read_bytes()
CODE = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
HEAVY = {"litellm": "litellm", "any-llm": "any_llm"}


def examples() -> list[Any]:
    if not PAGE.exists():
        reason = "docs/ is not beside the tests"
        return [pytest.param("", "", marks=pytest.mark.skip(reason=reason), id="none")]
    found = []
    for section in re.split(r"^## ", PAGE.read_text("utf-8"), flags=re.M)[1:]:
        title = section.partition("\n")[0]
        quiet = [pytest.mark.filterwarnings("ignore")] if title in HEAVY else []
        found += [
            pytest.param(title, code, marks=quiet, id=f"{title}-{number}")
            for number, code in enumerate(
                re.findall(r"^```python\n(.*?)^```$", section, re.M | re.S)
            )
        ]
    return found


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.mark.parametrize(("title", "code"), examples())
def test_the_example_runs_as_it_stands(
    server: Server, title: str, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    base_url = server.add(Replay(RECORDING, (1, 2, 3, 97)))
    asked = {"role": "user", "content": "How warm is it in Zürich?"}
    names: dict[str, Any] = {
        "base_url": base_url,
        "url": f"{base_url}/chat/completions",
        "request": {"model": "gpt-4o-mini", "messages": [asked], "stream": True},
        "accumulate": accumulate,
        "wrap": wrap,
        "routes": [Mount("/", app=server.app)],
    }
    compiled = compile(code, str(PAGE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    with heavy(HEAVY[title]) if title in HEAVY else nullcontext():
        running = eval(compiled, names)
        if inspect.iscoroutine(running):
            asyncio.run(ran(running, title))
    acc = Accumulator()
    acc.feed_sse(RECORDING)
    if title.startswith("a gateway"):
        path = names["url"].removeprefix(server.origin)
        app = names.get("app") or Starlette(
            routes=[Route(path, names["complete"], methods=["POST"])]
        )
        with serving(around=lambda _: app) as gateway:
            asked_for = {"json": names["request"], "trust_env": False}
            response = httpx.post(f"{gateway.origin}{path}", **asked_for)
        assert response.content == RECORDING
        assert "complete" in capsys.readouterr().out
    elif title.startswith("However"):
        assert re.match(r"cancelled .* None$", capsys.readouterr().out)
    else:
        completion = names["completion"]
        assert isinstance(completion, ChatCompletion)
        ours, whole = completion.choices[0], acc.completion().choices[0]
        assert ours.message.to_message() == whole.message.to_message()
        assert ours.finish_reason == whole.finish_reason


async def ran(running: Coroutine[Any, Any, object], title: str) -> None:
    await running
    if title in HEAVY:
        await drop_connections()


def test_the_page_has_a_section_for_each_client() -> None:
    if not PAGE.exists():
        pytest.skip("docs/ is not beside the tests")
    text = PAGE.read_text("utf-8")
    for name in (
        "openai",
        "litellm",
        "any-llm",
        "httpx",
        "httpx2",
        "requests",
        "aiohttp",
        "urllib3",
    ):
        assert re.search(rf"^## {re.escape(name)}$", text, re.M), name
