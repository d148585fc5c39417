"""README keeps its word: its Python lines run, as they stand, against a real server."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from openai_played import playing

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def url() -> Iterator[str]:
    with playing() as base_url:
        yield f"{base_url}/chat/completions"


def test_the_python_lines_run_as_they_stand(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    [lines] = re.findall(
        r"^```python\n(.*?)^```$", ROOT.joinpath("README.md").read_text("utf-8"), re.M | re.S
    )
    asked = {"role": "user", "content": "How warm is it in Zürich and in 東京?"}
    tools = [{"type": "function", "function": {"name": "get_weather"}}]
    request = {"model": "gpt-4o-mini", "messages": [asked], "tools": tools, "stream": True}
    with openai.OpenAI(base_url=url.removesuffix("/chat/completions"), api_key="none") as client:
        names: dict[str, object] = {
            "client": client,
            "url": url,
            "headers": {"Authorization": "Bearer none"},
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
    *printed, told = capsys.readouterr().out.splitlines()
    assert len(printed) == 14
    assert told == "Let me see how warm it is in Zürich and in 東京 … 🌤️"
