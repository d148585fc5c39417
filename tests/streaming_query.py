"""A streaming query that reduces recorded chunks, in a process of its own if that is to be killed.

    python tests/streaming_query.py FOLDER

Reads FOLDER/in, writes FOLDER/out, keeps what it needs to go on in FOLDER/state, and ends when it
has read all.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from accumulator.spark import reduce_stream

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming.query import StreamingQuery

STORE = "spark.sql.streaming.stateStore.providerClass"
ROCKSDB = "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"


def start_spark(warehouse: Path) -> SparkSession:
    """Start a local Spark, or return the one that runs."""
    from pyspark.sql import SparkSession  # noqa: PLC0415

    os.environ["PYSPARK_PYTHON"] = sys.executable
    settings = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "1g",
        # A JVM that lives for a minute does not earn back what its best compiler costs.
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.log.level": "ERROR",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.warehouse.dir": str(warehouse),
        STORE: ROCKSDB,
    }
    builder = SparkSession.builder.master("local[2]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def stream_from(spark: SparkSession, folder: Path) -> DataFrame:
    """Read the rows of a folder's files, a file a micro-batch."""
    schema = "id string, seq bigint, chunk string, time timestamp"
    source = spark.readStream.schema(schema).option("maxFilesPerTrigger", 1)
    return source.parquet(str(folder)).withWatermark("time", "10 minutes")


def start_query(spark: SparkSession, folder: Path, *, all_of_it: bool) -> StreamingQuery:
    """Start a query or continue one; it ends once it has read everything."""
    writer = reduce_stream(stream_from(spark, folder / "in")).writeStream
    writer = writer.option("checkpointLocation", str(folder / "state")).format("parquet")
    if all_of_it:
        writer = writer.trigger(availableNow=True)
    return writer.start(str(folder / "out"))


if __name__ == "__main__":
    there = Path(sys.argv[1])
    start_query(start_spark(there / "warehouse"), there, all_of_it=True).awaitTermination()
