"""The optional libraries: where one is missing, the error says how to get it."""

from __future__ import annotations

import sys

import pytest

from accumulator._logs.extras import load

# the module, its library, and the extra that has it
LIBRARIES = [
    ("pyarrow", "pyarrow", "logs"),
    ("pyarrow.parquet", "pyarrow", "logs"),
    ("duckdb", "duckdb", "logs"),
    ("rich.table", "rich", "cli"),
]


@pytest.mark.parametrize(("module", "library", "extra"), LIBRARIES)
def test_a_missing_library_is_named_with_its_extra(
    module: str, library: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (library, f"{library}.parquet", f"{library}.table"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"'chunk-accumulator\[{extra}\]'") as raised:
        load(module)
    assert raised.value.name == library
