"""Answer cases with what one peer makes of them: a JSON object per line in, one per line out.

Run as `python -I _harness.py PEER DISTRIBUTION...`, so that this folder is not on the path and an
adapter may be called what its peer is called. The first line out names the versions installed.
"""

import importlib.util
import json
import os
import resource
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TextIO

MEMORY = 4 * 1024**3
Reduce = Callable[[str, dict[str, object]], object]


def load(peer: str) -> ModuleType:
    """Import the adapter that stands beside this file."""
    path = Path(__file__).with_name(f"{peer}.py")
    # The one name of this folder that adapters import; with its path `openai` would be the adapter.
    module_of("_shape", path.with_name("_shape.py"))
    return module_of(f"adapter_{peer}", path)


def module_of(name: str, path: Path) -> ModuleType:
    """Import a file under a name."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def plain(value: object) -> object:
    """Turn what JSON does not know into what it does: models into dicts, the rest into text."""
    dump = getattr(value, "model_dump", None)
    return dump() if callable(dump) else str(value)


def say(out: TextIO, answer: dict[str, object]) -> None:
    """Write one line and let go of it."""
    out.write(json.dumps(answer, default=plain, ensure_ascii=False) + "\n")
    out.flush()


def main(peer: str, distributions: list[str]) -> None:
    """Answer every line of stdin."""
    # Peers and what they import print to stdout as they like; the answers need it for themselves.
    # Halves of surrogate pairs go out as they are: written as escapes, two would become whole.
    with os.fdopen(os.dup(1), "w", encoding="utf-8", errors="surrogatepass") as out:
        os.dup2(2, 1)
        # A list as long as an index of a thousand million would take the machine along.
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        reduce: Reduce = load(peer).reduce
        say(out, {"versions": {name: version(name) for name in distributions}})
        for line in sys.stdin:
            request = json.loads(line)
            try:
                answer = {"result": reduce(request["url"], request["params"])}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            say(out, answer)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
