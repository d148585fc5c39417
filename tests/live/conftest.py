"""One server for all tests; without the packages for it, there are no tests here."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from live.serve import LlamaServer, serving

# `nox -s live` fails if nothing is collected; other runs do not mind.
if not (find_spec("gguf") and find_spec("xllamacpp")):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    """Serve for the whole session."""
    with serving(tmp_path_factory.mktemp("llama")) as running:
        yield running
