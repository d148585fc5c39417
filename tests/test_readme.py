"""README keeps its word: its Python lines run, as they stand, against a real server."""

import copy
import re
from pathlib import Path

import openai
import pytest
from openai_played import RECORDING, playing
from streamed import read_whole

ROOT = Path(__file__).resolve().parents[1]


def test_the_python_lines_run_as_they_stand(capsys: pytest.CaptureFixture[str]) -> None:
    [lines] = re.findall(
        r"^```python\n(.*?)^```$", ROOT.joinpath("README.md").read_text("utf-8"), re.M | re.S
    )
    asked = {"role": "user", "content": "How warm is it in Zürich and in 東京?"}
    tools = [{"type": "function", "function": {"name": "get_weather"}}]
    request = {"model": "gpt-4o-mini", "messages": [asked], "tools": tools, "stream": True}
    with playing() as base_url, openai.OpenAI(base_url=base_url, api_key="none") as client:
        names: dict[str, object] = {
            "client": client,
            "url": f"{base_url}/chat/completions",
            "headers": {"Authorization": "Bearer none"},
            "request": copy.deepcopy(request),
        }
        exec(compile(lines, "README.md", "exec"), names)
    answer = read_whole(RECORDING.read_bytes()).completion().choices[0].message
    assert names["request"] == request | {"messages": [asked, answer.to_message()]}
    *printed, told = capsys.readouterr().out.splitlines()
    assert len(printed) == 14
    assert told == answer.content == "Let me see how warm it is in Zürich and in 東京 … 🌤️"
