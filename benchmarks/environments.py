"""The virtual environments that are measured: the requirements, and the package from this tree."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["CACHE", "ready", "run"]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
CACHE = HERE / ".cache"


def ready(interpreter: str) -> Path:
    """Make an environment of an interpreter, or bring it up to date; give its own interpreter."""
    # The whole version: one environment for 3.13.0 and 3.13.1 would be that of neither.
    version = run([interpreter, "-c", "import platform; print(platform.python_version())"]).strip()
    folder = CACHE / f"python{version}"
    python = folder / "bin" / "python"
    requirements = HERE / "requirements.txt"
    pins = [requirements, *sorted((HERE / "peers" / "requirements").glob("o*.txt"))]
    if _changed(folder / "requirements.sha256", pins):
        print(f"installing what is measured on Python {version}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        run([interpreter, "-m", "venv", str(folder)])
        run([str(python), "-m", "pip", "install", "-qq", "-r", str(requirements)])
        _note(folder / "requirements.sha256", pins)
    sources = [ROOT / "pyproject.toml", *sorted((ROOT / "accumulator").rglob("*.py"))]
    if _changed(folder / "package.sha256", sources):
        install = ["install", "-qq", "--no-deps", "--force-reinstall"]
        run([str(python), "-m", "pip", *install, str(ROOT)])
        _note(folder / "package.sha256", sources)
    return python


def run(command: Sequence[str]) -> str:
    """Run a command and give what it prints. Raises CalledProcessError."""
    # The package that is measured is the installed one, whatever the caller's shell says.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=True
    )
    return done.stdout


def _changed(stamp: Path, files: Sequence[Path]) -> bool:
    return not stamp.exists() or stamp.read_text(encoding="utf-8") != _hash(files)


def _note(stamp: Path, files: Sequence[Path]) -> None:
    stamp.write_text(_hash(files), encoding="utf-8")


def _hash(files: Sequence[Path]) -> str:
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
