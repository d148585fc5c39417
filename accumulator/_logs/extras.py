"""The optional libraries, each imported when it is first needed."""

from __future__ import annotations

import importlib
from types import ModuleType


def load(module: str, extra: str = "") -> ModuleType:
    """Import a module of an optional library. Raises ImportError that names the extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        extra = extra or ("cli" if library == "rich" else "logs")
        raise ImportError(
            f"this needs {library}: pip install 'chunk-accumulator[{extra}]'", name=library
        ) from error
