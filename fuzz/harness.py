"""What both targets need: seeds from real streams, mutations by line, and libFuzzer's main."""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import atheris
from mutate import mutate

ROOT = Path(__file__).resolve().parents[1]
CASES = ROOT / "tests" / "conformance"
CORPUS = ROOT.parent / "shared" / "corpus"

_OF_A_SHAPE = 4  # the shortcut learns from the second, and takes what follows

sys.path.insert(0, str(ROOT / "tests"))  # where the second reducer is


def run(check: Callable[[bytes], None], name: str, seeds: Callable[[bytes], bytes]) -> None:
    """Fuzz `check` until libFuzzer's options end it.

    The first argument that is not an option is the folder that keeps what was worth keeping; the
    default is a temporary one. The seeds are written there first: `seeds` turns each body into the
    target's own form.
    """
    folders = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    folder = Path(folders[0] if folders else tempfile.mkdtemp(prefix=f"accumulator-{name}-"))
    folder.mkdir(parents=True, exist_ok=True)
    for title, body in _bodies():
        (folder / title).write_bytes(seeds(body))
    print(f"{name}: {sum(1 for _ in folder.iterdir())} seeds in {folder}", flush=True)
    arguments = sys.argv if folders else [*sys.argv, str(folder)]
    atheris.Setup(arguments, check, custom_mutator=_mutated)
    atheris.Fuzz()


def _mutated(data: bytes, max_size: int, seed: int) -> bytes:
    random = Random(seed)
    if random.random() < 0.3:
        mutated: bytes = atheris.Mutate(data, max_size)
        return mutated
    return mutate(data, random)[:max_size]


def _bodies() -> Iterator[tuple[str, bytes]]:
    for path in sorted(CASES.glob("*.json")):
        case = json.loads(path.read_text("utf-8"))
        if (body := case.get("body")) is not None:
            yield path.stem, body.encode(case.get("encoding", "utf-8"))
        else:
            yield path.stem, b"".join(map(_event, case["chunks"]))
    for path in sorted(CORPUS.glob("*.sse")):
        yield path.stem, _shortened(path.read_bytes())


def _event(chunk: object) -> bytes:
    data = chunk if isinstance(chunk, str) else json.dumps(chunk)
    return b"data: " + data.encode() + b"\n\n"


def _shortened(body: bytes) -> bytes:
    """Keep a few events of each shape: a hundred more deltas of text teach the fuzzer nothing."""
    kept: list[bytes] = []
    shapes: Counter[str] = Counter()
    for event in body.split(b"\n\n"):
        _, _, data = event.partition(b"data:")
        try:
            shape = _shape(json.loads(data))
        except ValueError:
            shape = event.decode(errors="replace")
        shapes[shape] += 1
        if shapes[shape] <= _OF_A_SHAPE:
            kept.append(event)
    return b"\n\n".join(kept) + b"\n\n"


def _shape(value: object) -> str:
    if isinstance(value, dict):
        return f"{{{','.join(f'{name}:{_shape(item)}' for name, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{','.join(map(_shape, value))}]"
    return f"{type(value).__name__} {bool(value)}"
