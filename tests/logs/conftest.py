"""Where the tests of logs keep what is read and what is written, and what the command says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder that is a log."""
    path = tmp_path / "log"
    path.mkdir()
    return path


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Return a function that returns what came on standard error since the last call."""
    return lambda: capfd.readouterr().err
