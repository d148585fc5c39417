"""The optional libraries: where one is missing, the error says how to get it."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from accumulator._logs import extras

# what is called, the library, and the extra that has it
LIBRARIES: list[tuple[Callable[[], object], str, str]] = [
    (extras.arrow, "pyarrow", "logs"),
    (extras.parquet, "pyarrow", "logs"),
    (extras.duckdb, "duckdb", "logs"),
    (lambda: extras.rich("table"), "rich", "cli"),
]


@pytest.mark.parametrize(("load", "library", "extra"), LIBRARIES)
def test_a_missing_library_is_named_with_its_extra(
    load: Callable[[], object], library: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (library, f"{library}.parquet", f"{library}.table"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"'chunk-accumulator\[{extra}\]'") as raised:
        load()
    assert raised.value.name == library
