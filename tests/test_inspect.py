"""`accumulator inspect`: one stream to look at."""

import json
from pathlib import Path

import pytest

from accumulator import cli

pytest.importorskip("rich", reason="the extra 'cli' is not installed")


def test_what_a_server_wrote_is_shown_and_commands_no_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, svg = tmp_path / "log.jsonl", tmp_path / "out.svg"
    rows = [
        {"time": t, "chunk": {"choices": [{"index": 0, "delta": {"content": "[red]\x1b[2Jx\x07"}}]}}
        for t in (1.0, 1.5, 3.0)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli.main(["inspect", str(path), "--svg", str(svg)]) == 0
    shown = capfd.readouterr().out
    assert "[red]" in shown
    assert "truncated" in shown
    assert "3 chunks in 2.000 s" in shown
    assert not {"\x1b", "\x07"} & set(shown)
    assert "<svg" in svg.read_text(encoding="utf-8")
    assert "@font-face" not in svg.read_text(encoding="utf-8")
