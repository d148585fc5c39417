"""CPU time of `accumulator.spark` compared with the plain loop on the same rows, for docs/spark.md.

    python benchmarks/spark.py [STREAMS] [CHUNKS]

Writes a Parquet file of STREAMS x CHUNKS shuffled rows, then reduces it by the plain loop (read,
sort in memory, `reduce_sorted`, write) and by `reduce_chunks` on a `local[2]` Spark. Spark's time
is that of the JVM and all Python workers from the end of a first run over the same file, which
starts the workers and warms up the JVM, to the end of the next. It also needs psutil.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import shapes
from pyspark.sql import SparkSession

from accumulator.batch import reduce_sorted
from accumulator.spark import reduce_chunks

SETTINGS = {
    "spark.driver.memory": "2g",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.shuffle.partitions": "4",
}


def main(streams: str = "5000", chunks: str = "200") -> None:
    """Measure, and print."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    with tempfile.TemporaryDirectory() as name:
        source, expected, folder = (Path(name) / part for part in ("in.parquet", "out", "spark"))
        rows = write(source, int(streams), int(chunks))
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


def write(path: Path, streams: int, chunks: int) -> int:
    """Write shuffled rows as OpenAI sends them; return how many."""
    rows = [
        {"id": f"chatcmpl-{stream:012x}", "seq": number, "chunk": event.decode()}
        for stream in range(streams)
        for number, event in enumerate(shapes.made("text", chunks, stream).events)
    ]
    print(f"{len(rows):,} rows, {sum(len(row['chunk']) for row in rows) / 1e6:,.0f} MB of chunks")
    random.Random(1).shuffle(rows)
    pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")
    return len(rows)


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
    """Call `run`, print how long it took, and return its CPU seconds."""
    start, cpu = time.perf_counter(), processor_time()
    run()
    cpu, took = processor_time() - cpu, time.perf_counter() - start
    print(f"{what:28} {cpu:6.1f} CPU s {took:6.1f} s {cpu / rows * 1e6:6.2f} us a row")
    return cpu


def processor_time() -> float:
    """Return the CPU seconds of this process and all its descendants, ended ones included."""
    own = psutil.Process()
    return sum(sum(each.cpu_times()[:4]) for each in (own, *own.children(recursive=True)))


if __name__ == "__main__":
    main(*sys.argv[1:])
