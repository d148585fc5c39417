"""Worker processes that do jobs, tell how far they are, and end when their parent does."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait

from ._reading import Report
from ._records import Plan, TornError
from ._units import Job, work

__all__ = ["run_jobs"]


def run_jobs(
    plan: Plan, folder: str, jobs: Sequence[Job], workers: int, memory: int, report: Report
) -> Iterator[Job]:
    """Do jobs in `workers` processes; give each job that is done.

    `memory` is what a job may hold, in bytes. Raises TornError, and what else a job raises.
    """
    # Not forked: a fork of a process that has threads (Arrow's, DuckDB's) may hang.
    context = multiprocessing.get_context("spawn")
    waiting = list(reversed(jobs))
    processes = []
    pipes: list[Connection] = []
    try:
        for _ in range(min(workers, len(jobs))):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, plan, folder, memory))
            process.daemon = True
            process.start()
            theirs.close()
            processes.append(process)
            pipes.append(ours)
            ours.send(waiting.pop())
        busy = len(pipes)
        while busy:
            for pipe in wait(pipes):
                assert isinstance(pipe, Connection)
                kind, value = pipe.recv()
                if kind == "report":
                    report(*value)
                elif kind == "error":
                    raise value
                else:
                    yield value
                    if waiting:
                        pipe.send(waiting.pop())
                    else:
                        busy -= 1
    except (EOFError, ConnectionError):
        raise ChildProcessError("a worker process ended before its work") from None
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _serve(pipe: Connection, plan: Plan, folder: str, memory: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us

    def report(size: int, streams: int) -> None:
        pipe.send(("report", (size, streams)))

    try:
        while True:
            job = pipe.recv()
            try:
                work(plan, folder, job, memory, _grouped(report))
            except (TornError, OSError, ImportError, MemoryError) as error:
                pipe.send(("error", error))
            else:
                pipe.send(("done", job))
    except (EOFError, BrokenPipeError):
        sys.exit(1)  # the parent is gone


def _grouped(report: Report) -> Report:
    """Report when bytes were read, not for each stream."""
    streams = 0

    def grouped(size: int, more: int) -> None:
        nonlocal streams
        streams += more
        if size:
            report(size, streams)
            streams = 0

    return grouped
