"""A moment of fuzzing; the long runs are by hand, see `fuzz/README.md`."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "fuzz"

pytestmark = [
    pytest.mark.skipif(
        find_spec("atheris") is None,
        reason="atheris has wheels for Linux on x86-64 alone, and not for every Python",
    ),
    pytest.mark.skipif(not FUZZ.is_dir(), reason="the targets stand in the repository alone"),
]


@pytest.mark.parametrize("target", ["feed_sse", "feed"])
def test_a_moment_of_fuzzing_finds_nothing(target: str, tmp_path: Path) -> None:
    options = ["-runs=1500", "-max_len=1500", "-seed=1", f"-artifact_prefix={tmp_path}/"]
    command = [sys.executable, f"{FUZZ}/{target}.py", *options, f"{tmp_path}/kept"]
    run = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert run.returncode == 0, run.stdout[-3000:]
    assert "Done 1500 runs" in run.stdout


def test_a_moment_on_the_fast_path_finds_nothing() -> None:
    command = [sys.executable, f"{FUZZ}/fast_path.py", "--bodies=200"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
