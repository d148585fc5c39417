"""`accumulator reduce`: turn a log into one completion per stream."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import chain
from tempfile import TemporaryDirectory

import attrs

from .._extras import load
from .._merge.verdict import has_chunks
from ..batch import UnsortedRowsError, reduce_sorted
from .inputs import CommandError, Source, detect_source, find_files, opened
from .output import Target, write_results
from .recording import reduce_body
from .rows import Keys, add_keys, read_rows
from .sort import LEAST_MEMORY, reduce_in_order, sorted_rows
from .terminal import Display, Result, Stats, say

WRITTEN, UNWRITABLE, UNREADABLE, INTERRUPTED = 0, 1, 5, 128 + 2
_MOST_MEMORY = 1 << 50

EPILOG = """\
A row is a JSON object with the id of a stream, a sequence number (optional) and a chunk. A line
without the key of the chunk is itself a chunk; without an id it belongs to the stream of the line
before. An SSE file is one stream, named like the file.

If the rows of each stream are next to each other and in order, they are reduced as they are read.
Otherwise they are sorted on disk first, which needs the extra 'logs'.

exit codes:
  0    the output was written, whatever the status of its streams
  1    it was not written
  2    wrong usage
  5    it was written, but there were bad rows or a file could not be read to its end
  130  interrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    parser.description = "Reduce recorded chunks to one completion per stream."
    parser.epilog = EPILOG
    add("paths", nargs="+", metavar="PATH", help="a file, a folder, a glob; - is standard input")
    output = "JSON Lines (.jsonl, .gz, .zst) or .parquet; - is standard output"
    add("-o", "--output", required=True, metavar="OUT", help=output)
    add_keys(parser)
    memory = "most memory to use (default: 1G)"
    add("--memory", type=_size, default=1 << 30, metavar="SIZE", help=memory)
    add("--bad-rows", metavar="FILE", help="write bad rows to this file, as JSON Lines")


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d{1,15})([KMGT]?)(?:i?B)?", text, re.IGNORECASE)
    size = int(found[1]) << 10 * " KMGT".index(found[2].upper() or " ") if found else 0
    if not LEAST_MEMORY <= size <= _MOST_MEMORY:
        raise argparse.ArgumentTypeError(
            "a size is a number with K, M, G or T, such as 512M; the least is 256M, the most 1024T"
        )
    return size


def run(arguments: argparse.Namespace) -> int:
    display = Display()
    with display.noticing_interrupt():
        try:
            has_output = _reduce(arguments, display)
        except BaseException:
            if not display.is_interrupted:
                raise
            say("interrupted; nothing was written")
            return INTERRUPTED
    stats = display.stats
    for line in stats.lines():
        say(line)
    if not has_output:
        raise CommandError(
            f"nothing was written: no row was found with the keys {arguments.id!r}, "
            f"{arguments.seq!r} (optional) and {arguments.chunk!r}; --id, --seq and --chunk name "
            "others",
            UNWRITABLE,
        )
    return UNREADABLE if stats.bad_rows or stats.files_unread else WRITTEN


def _reduce(arguments: argparse.Namespace, display: Display) -> bool:
    """Reduce the log; return whether its output was written. Raises CommandError, OSError."""
    keys = Keys(arguments.id, arguments.seq, arguments.chunk)
    target = Target(arguments.output)
    outputs = [] if target.folder is None else [target.path]
    if arguments.bad_rows is not None:
        if os.path.realpath(arguments.bad_rows) == target.path:
            raise CommandError(
                f"{arguments.bad_rows} cannot take both the results and the bad rows"
            )
        outputs.append(arguments.bad_rows)
    files = find_files(arguments.paths, outputs)
    # Hidden, so that it is not read as part of a folder.
    with TemporaryDirectory(prefix=".reduce-", dir=target.folder) as folder:
        whole = os.path.join(folder, "results")
        with closing(display), ExitStack() as stack:
            if arguments.bad_rows is not None:
                display.bad_rows = stack.enter_context(open(arguments.bad_rows, "wb"))
            expected = [keys.id, keys.chunk]
            sources = [detect_source(path, name, folder, expected) for path, name in files]
            bodies = [source for source in sources if source.form in ("body", "page")]
            logs = [source for source in sources if source not in bodies]
            size = sum(source.size for source in sources)

            def write(results: Iterator[Result]) -> None:
                every = chain(results, _reduce_bodies(bodies, display))
                write_results(target.name, whole, map(display.stats.counted, every))

            display.begin("reading", size)
            try:
                write(reduce_in_order(read_rows(logs, keys, display), arguments.memory // 2))
            except UnsortedRowsError:
                load("duckdb")  # if that is missing, there is no point in reading on
                display.stats = Stats()  # everything is read again
                display.begin("sorting", size)
                rows = read_rows(logs, keys, display)
                write(reduce_sorted(sorted_rows(rows, arguments.memory, folder, display)))
        display.check()
        stats = display.stats
        # If nothing was read, an old output is better.
        is_old = target.folder is not None and os.path.exists(target.path)
        has_output = bool(stats.streams or not (stats.bad_rows or stats.files_unread or is_old))
        if has_output:
            target.put(whole)
    return has_output


def _reduce_bodies(bodies: Sequence[Source], display: Display) -> Iterator[Result]:
    for source in bodies:
        with opened(source.path) as (_, text):
            result, why = reduce_body(text)
        if why is not None:
            display.unread(source.label, why)
        if source.form == "page" and not has_chunks(result.completion):
            result = attrs.evolve(result, status="failed")
        yield source.name, result
        display.read(source.size)
