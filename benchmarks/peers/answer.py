"""Answer each case with what one peer makes of it: one JSON object per line, in and out."""

import json
import os
import resource
import sys
from typing import Any

import reducers  # noqa: F401  # they register themselves
import tracers  # noqa: F401
from peers import PEERS

MEMORY = 4 * 1024**3


def plain(value: object) -> object:
    """Return a value that JSON can represent: a model as a dict, anything else as text."""
    dump = getattr(value, "model_dump", None)
    return dump() if callable(dump) else str(value)


def main(name: str) -> None:
    """Answer every line of stdin."""
    reduce: Any = PEERS[name].reduce
    # Peers and what they import may print to stdout, which is needed for the answers alone.
    # Halves of surrogate pairs are not escaped: two of them would become one character.
    with os.fdopen(os.dup(1), "w", encoding="utf-8", errors="surrogatepass") as out:
        os.dup2(2, 1)
        # A list as long as an index of a thousand million would take down the machine.
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        for line in sys.stdin:
            try:
                answer = {"result": reduce(**json.loads(line))}
            except ImportError:
                raise
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer, default=plain, ensure_ascii=False), file=out, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
