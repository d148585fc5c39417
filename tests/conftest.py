"""What every test gets: patience, and the recorded streams where they are."""

import gc
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from accumulator._decode import shapes as _shapes

SHARED = Path(__file__).resolve().parents[2] / "shared"
CORPUS, REPORTS = SHARED / "corpus", SHARED / "reports"

# A deadline, or a health check on how long drawing takes, measures the machine and not the code.
settings.register_profile(
    "patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
# For when the full search runs elsewhere: nox uses it on every Python but one.
settings.register_profile("brief", settings.get_profile("patient"), max_examples=10)
# For a long search by hand: pytest --hypothesis-profile=thorough
settings.register_profile("thorough", settings.get_profile("patient"), max_examples=5000)
settings.load_profile("patient")


@pytest.fixture(scope="module", autouse=True)
def no_walk_through_what_was_there() -> None:
    """Keep the collector from walking through what other modules left at each `gc.collect`, which
    a few tests call for each of their rows.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def corpus() -> Path:
    """Return the folder of recorded streams."""
    return kept_beside(CORPUS)


@pytest.fixture(scope="session")
def reports() -> Path:
    """Return the folder of reported streams."""
    return kept_beside(REPORTS)


def kept_beside(folder: Path) -> Path:
    """Skip if a folder kept beside the repository is missing; fail in CI, which must have it."""
    if not folder.is_dir():
        end = pytest.fail if os.environ.get("CI") else pytest.skip
        end(f"these streams are kept beside the repository, in ../shared/{folder.name}")
    return folder


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Call a test that asks for one file of a folder once for each file."""
    for name, folder, ending in (("corpus_stream", CORPUS, "*.sse"), ("report", REPORTS, "*.json")):
        if name in metafunc.fixturenames:
            names = sorted(path.name for path in folder.glob(ending)) or ["none"]
            metafunc.parametrize(name, names, indirect=True)


@pytest.fixture
def corpus_stream(corpus: Path, request: pytest.FixtureRequest) -> Path:
    """Return one recorded stream."""
    name: str = request.param
    return corpus / name


@pytest.fixture
def report(reports: Path, request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return one reported stream."""
    found: dict[str, Any] = json.loads((reports / request.param).read_text("utf-8"))
    return found


@pytest.fixture
def no_shapes_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the shapes of vendors' chunks: a process keeps a bounded number, and random streams
    have many.
    """
    monkeypatch.setattr(_shapes, "_shapes", {})
    monkeypatch.setattr(_shapes, "_first_shapes", {})


@pytest.fixture
def learns_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the fast path as soon and as often as it can be taken, in short streams, too."""
    for name in (
        "_pipeline.pipeline.LEARN_AFTER",
        "_fast_path._PAUSE",
        "_fast_path._PROOF",
    ):
        monkeypatch.setattr(f"accumulator.{name}", 1)
    monkeypatch.setattr("accumulator._fast_path._CREDIT", 64)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Heed Ctrl-C, which processes in the background of a shell ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler
