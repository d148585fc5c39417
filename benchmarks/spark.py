"""CPU time of `accumulator.spark` next to the plain loop over the same rows.

    python benchmarks/spark.py [STREAMS] [CHUNKS]

Writes a Parquet file of STREAMS x CHUNKS shuffled rows, then reduces it by the plain loop (read,
sort in memory, `reduce_sorted`, write) and by `reduce_chunks` on a `local[2]` Spark. Spark's time
is that of the JVM and of all Python workers, taken from /proc between the end of a first run over
the same file, which starts the workers and warms the JVM up, and the end of the next.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from accumulator.batch import reduce_sorted
from accumulator.spark import reduce_chunks

TICKS = os.sysconf("SC_CLK_TCK")


def write(path: Path, streams: int, chunks: int) -> int:
    """Write shuffled rows as OpenAI sends them; give the bytes of their chunks."""
    rows = []
    for stream in range(streams):
        name = f"chatcmpl-{stream:012x}"
        for number in range(chunks):
            delta = {"content": f" word{number * 7919 % 1000}"} if number < chunks - 1 else {}
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
            if not delta:
                choice["finish_reason"] = "stop"
            chunk = {
                "id": name,
                "object": "chat.completion.chunk",
                "created": 1760000000,
                "model": "gpt-4o-mini-2024-07-18",
                "service_tier": "default",
                "system_fingerprint": "fp_560af6e559",
                "choices": [choice],
            }
            rows.append((name, number, json.dumps(chunk, separators=(",", ":"))))
    random.Random(1).shuffle(rows)
    ids, numbers, texts = zip(*rows, strict=True)
    table = pa.table({"id": list(ids), "seq": list(numbers), "chunk": list(texts)})
    pq.write_table(table, path, compression="zstd")
    return sum(map(len, texts))


def plain(source: Path, target: Path) -> None:
    table = pq.read_table(source).sort_by([("id", "ascending"), ("seq", "ascending")])
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    results = list(reduce_sorted(rows))
    out = {
        "id": [id for id, _ in results],
        "status": [result.status for _, result in results],
        "completion": [result.completion.to_json() for _, result in results],
    }
    pq.write_table(pa.table(out), target)


def processor_time() -> float:
    """Give the CPU seconds of this process and all that come from it, those that ended included."""
    parents, times = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(folder.name)
        parents[pid], times[pid] = int(fields[1]), sum(map(int, fields[11:15])) / TICKS
    ours = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return sum(times[pid] for pid in ours)


def main() -> None:
    streams, chunks = (int(word) for word in (*sys.argv[1:], "5000", "200")[:2])
    os.environ["PYSPARK_PYTHON"] = sys.executable
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "in.parquet"
        size = write(source, streams, chunks)
        rows = streams * chunks
        on_disk = source.stat().st_size
        print(f"{rows:,} rows, {size / 1e6:,.0f} MB of chunks, {on_disk / 1e6:,.0f} MB of Parquet")

        def measure(what: str, run: object) -> float:
            start, cpu = time.perf_counter(), processor_time()
            run()  # type: ignore[operator]
            cpu, took = processor_time() - cpu, time.perf_counter() - start
            print(f"{what:28} {cpu:6.1f} CPU s {took:6.1f} s {cpu / rows * 1e6:6.2f} us a row")
            return cpu

        loops = [measure("plain loop", lambda: plain(source, folder / "out")) for _ in range(3)]
        builder = SparkSession.builder.master("local[2]").config("spark.driver.memory", "2g")
        builder = builder.config("spark.ui.enabled", "false")
        builder = builder.config("spark.ui.showConsoleProgress", "false")
        spark = builder.config("spark.sql.shuffle.partitions", "4").getOrCreate()
        spark.sparkContext.setLogLevel("ERROR")

        def by_spark() -> None:
            out = reduce_chunks(spark.read.parquet(str(source)))
            out.write.mode("overwrite").parquet(str(folder / "spark"))

        measure("Spark, first run", by_spark)
        runs = [measure("Spark", by_spark) for _ in range(3)]
        found = pq.read_table(folder / "spark", columns=["id", "status", "completion"])
        expected = pq.read_table(folder / "out")
        assert found.sort_by("id").to_pylist() == expected.sort_by("id").to_pylist()
        print(f"Spark / plain loop: {min(runs) / min(loops):.2f}")
        spark.stop()


if __name__ == "__main__":
    main()
