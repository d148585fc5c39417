"""Turn recorded chunks, shuffled and gzipped, into one completion per stream, then into a summary.

    pip install 'chunk-accumulator[logs]'
    python logs_to_summary.py FOLDER 200000

This writes that many rows to FOLDER/rows.jsonl.gz, like those of a gateway's log. Then
`accumulator reduce` puts each stream together, and DuckDB sums up the results.
"""

import gzip
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb

MODELS = ["large", "small"]
WORDS = "it is warm in Oslo and in Rome".split()
CHUNKS = 20  # per stream


def chunks(stream: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    """Yield the chunks of a stream; every tenth stream is cut off."""
    head = {"id": f"chatcmpl-{stream}", "model": MODELS[stream % 2], "created": 1_700_000_000}
    is_whole = stream % 10 > 0
    for _ in range(CHUNKS - 2 * is_whole):
        delta = {"content": f"{rng.choice(WORDS)} "}
        yield {**head, "choices": [{"index": 0, "delta": delta}]}
    if is_whole:
        yield {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        usage = {"prompt_tokens": 9, "completion_tokens": CHUNKS - 2, "total_tokens": CHUNKS + 7}
        yield {**head, "choices": [], "usage": usage}


def write_rows(path: Path, count: int) -> None:
    rng = random.Random(1)
    rows = [
        {"id": f"request-{stream}", "seq": seq, "chunk": chunk}
        for stream in range(count // CHUNKS)
        for seq, chunk in enumerate(chunks(stream, rng))
    ]
    rng.shuffle(rows)
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=1) as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def main(folder: Path, count: int) -> None:
    rows, completions = folder / "rows.jsonl.gz", folder / "completions.jsonl"
    write_rows(rows, count)
    command = [sys.executable, "-m", "accumulator", "reduce", str(rows), "-o", str(completions)]
    subprocess.run(command, check=True)
    summary = duckdb.execute(f"""
        SELECT completion.model, status, count(*) AS streams,
               sum(completion.usage.completion_tokens)::BIGINT AS tokens,
               round(avg(length(completion.choices[1].message.content)), 1) AS characters
        FROM '{completions}' GROUP BY ALL ORDER BY ALL
    """)
    for row in summary.fetchall():
        print(*row)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
