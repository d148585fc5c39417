"""CPU time of `accumulator.spark` beside the plain loop over the same rows, for docs/spark.md.

    python benchmarks/spark.py [STREAMS] [CHUNKS]

Writes a Parquet file of STREAMS x CHUNKS shuffled rows, then reduces it by the plain loop (read,
sort in memory, `reduce_sorted`, write) and by `reduce_chunks` on a `local[2]` Spark. Spark's time
is that of the JVM and of all Python workers, taken from /proc between the end of a first run over
the same file, which starts the workers and warms the JVM up, and the end of the next.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import shapes
from pyspark.sql import SparkSession

from accumulator.batch import reduce_sorted
from accumulator.spark import reduce_chunks

TICKS = os.sysconf("SC_CLK_TCK")
SETTINGS = {
    "spark.driver.memory": "2g",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.shuffle.partitions": "4",
}


def main() -> None:
    """Measure, and print."""
    streams, chunks = (int(word) for word in (*sys.argv[1:], "5000", "200")[:2])
    os.environ["PYSPARK_PYTHON"] = sys.executable
    with tempfile.TemporaryDirectory() as name:
        source, expected, folder = (Path(name) / part for part in ("in.parquet", "out", "spark"))
        write(source, streams, chunks)
        rows = streams * chunks
        loops = [measure("plain loop", rows, lambda: plain(source, expected)) for _ in range(3)]
        spark = SparkSession.builder.master("local[2]").config(map=SETTINGS).getOrCreate()
        spark.sparkContext.setLogLevel("ERROR")

        def by_spark() -> None:
            out = reduce_chunks(spark.read.parquet(str(source)))
            out.write.mode("overwrite").parquet(str(folder))

        measure("Spark, first run", rows, by_spark)
        runs = [measure("Spark", rows, by_spark) for _ in range(3)]
        found = pq.read_table(folder, columns=["id", "status", "completion"])
        if found.sort_by("id").to_pylist() != pq.read_table(expected).sort_by("id").to_pylist():
            raise AssertionError("Spark and the plain loop differ")
        print(f"Spark / plain loop: {min(runs) / min(loops):.2f}")
        spark.stop()


def write(path: Path, streams: int, chunks: int) -> None:
    """Write shuffled rows as OpenAI sends them."""
    rows = [
        {"id": f"chatcmpl-{stream:012x}", "seq": number, "chunk": event.decode()}
        for stream in range(streams)
        for number, event in enumerate(shapes.made("text", chunks, stream).events)
    ]
    print(f"{len(rows):,} rows, {sum(len(row['chunk']) for row in rows) / 1e6:,.0f} MB of chunks")
    random.Random(1).shuffle(rows)
    pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")


def plain(source: Path, target: Path) -> None:
    """Reduce the rows without Spark."""
    table = pq.read_table(source).sort_by([("id", "ascending"), ("seq", "ascending")])
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    results = [
        {"id": id, "status": result.status, "completion": result.completion.to_json()}
        for id, result in reduce_sorted(rows)
    ]
    pq.write_table(pa.Table.from_pylist(results), target)


def measure(what: str, rows: int, run: Callable[[], object]) -> float:
    """Run something, print what it took, and return its CPU seconds."""
    start, cpu = time.perf_counter(), processor_time()
    run()
    cpu, took = processor_time() - cpu, time.perf_counter() - start
    print(f"{what:28} {cpu:6.1f} CPU s {took:6.1f} s {cpu / rows * 1e6:6.2f} us a row")
    return cpu


def processor_time() -> float:
    """Return the CPU seconds of this process and all that come from it, ended ones included."""
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


if __name__ == "__main__":
    main()
