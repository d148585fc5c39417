"""The optional libraries, each imported when it is first needed and nowhere else."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["arrow", "duckdb", "parquet", "rich"]


def _load(module: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        raise ImportError(
            f"this needs {library}: pip install 'chunk-accumulator[{extra}]'", name=library
        ) from error


def arrow() -> ModuleType:
    """Import pyarrow. Raises ImportError that names the extra."""
    return _load("pyarrow", "logs")


def parquet() -> ModuleType:
    """Import pyarrow.parquet. Raises ImportError that names the extra."""
    return _load("pyarrow.parquet", "logs")


def duckdb() -> ModuleType:
    """Import duckdb. Raises ImportError that names the extra."""
    return _load("duckdb", "logs")


def rich(module: str) -> ModuleType:
    """Import a module of rich. Raises ImportError that names the extra."""
    return _load(f"rich.{module}", "cli")
