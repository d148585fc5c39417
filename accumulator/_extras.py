"""The optional libraries, each imported when it is first needed."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def load(module: str, extra: str = "logs") -> ModuleType:
    """Import a module of an optional library. Raises an ImportError that names the extra."""
    try:
        return import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise ImportError(
            f"this needs {name}: pip install 'chunk-accumulator[{extra}]'", name=name
        ) from error
