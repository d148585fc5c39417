"""The optional libraries: where one is missing, the error says how to get it."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from accumulator import _extras

# what is called, the library, and the extra that has it
LIBRARIES: list[tuple[Callable[[], object], str, str]] = [
    (_extras.arrow, "pyarrow", "logs"),
    (_extras.compute, "pyarrow", "logs"),
    (_extras.parquet, "pyarrow", "logs"),
    (_extras.duckdb, "duckdb", "logs"),
    (lambda: _extras.rich("table"), "rich", "cli"),
]


@pytest.mark.parametrize(("load", "library", "extra"), LIBRARIES)
def test_a_missing_library_is_named_with_its_extra(
    load: Callable[[], object], library: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (library, f"{library}.compute", f"{library}.parquet", f"{library}.table"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"'chunk-accumulator\[{extra}\]'") as raised:
        load()
    assert raised.value.name == library
