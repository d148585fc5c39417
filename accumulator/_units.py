"""The work of one unit: its rows reduced in order, or spread over buckets that are sorted.

What a unit came to stands in files of its own, the record of it last and under its name at once. So
a unit is done or not, whatever killed the process.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

import msgspec

from ._bulk import BulkStream
from ._inputs import READ_ERRORS, Unit, open_raw, open_text, why_unread
from ._reading import Report, UnitRows
from ._records import Done, Plan, Run, Stats, TornError, hash_of
from ._runs import reduce_runs, row_of, runs_in
from ._sorting import sort
from ._spreading import spread
from .limits import DEFAULT_LIMITS
from .rules import DEFAULT_RULES

__all__ = ["Job", "work"]

Job = tuple[str, int]  # ("reduce", unit), ("spread", unit) or ("sort", bucket)


def work(plan: Plan, folder: str, job: Job, memory: int, report: Report) -> None:
    """Do one job. Raises TornError."""
    kind, number = job
    name = f"{kind}-{number:06}"
    # Under names of its own: the workers of a run that was killed live on for a moment.
    base = Path(folder, f"{name}.{os.getpid()}")
    if kind == "sort":
        done = sort(plan, Path(folder), number, memory, base, report)
    else:
        unit = plan.units[number]
        with open(f"{base}.bad", "wb") as bad:
            if unit.source.form == "sse":
                done = _reduce_sse(unit, base, report)
            elif kind == "reduce":
                done = _reduce(plan, unit, base, bad, report)
            else:
                done = spread(plan, number, memory, base, bad, report)
    Path(f"{base}.done").write_bytes(msgspec.msgpack.encode(done))
    for suffix in ("bad", "rows", "spread", "done"):
        if os.path.exists(f"{base}.{suffix}"):
            os.replace(f"{base}.{suffix}", Path(folder, f"{name}.{suffix}"))


def _reduce(plan: Plan, unit: Unit, base: Path, bad: IO[bytes], report: Report) -> Done:
    done = Done(Stats())
    ids: set[int] = set()
    runs: list[Run] = []
    size = 0
    with open(f"{base}.rows", "wb") as out:

        def end() -> None:
            digest = hash_of(runs[0].id)
            if digest in ids:
                raise TornError
            ids.add(digest)
            if not done.first:
                done.first = runs
                return
            id, result = reduce_runs(runs)
            done.stats.count(result)
            out.write(row_of(id, result))
            report(0, 1)

        for rows in UnitRows(plan, unit, bad, done, report, alike=True):
            for run in runs_in(rows):
                if runs and run.id != runs[0].id:
                    end()
                    runs, size = [], 0
                runs.append(run)
                size += run.size
                if size > plan.longest:
                    raise TornError
    done.last = runs
    if runs and hash_of(runs[0].id) in ids:
        raise TornError
    if done.first:
        ids.discard(hash_of(done.first[0].id))
    done.ids = list(ids)
    return done


def _reduce_sse(unit: Unit, base: Path, report: Report) -> Done:
    """Reduce an SSE dump: one stream, named as its file."""
    done = Done(Stats())
    stream = BulkStream(DEFAULT_RULES, DEFAULT_LIMITS)
    try:
        with open_raw(unit.source) as raw, open_text(unit.source, raw) as file:
            while data := file.read(65536):
                stream.feed_body(data)
    except READ_ERRORS as error:
        done.unread = why_unread(error)
    result = stream.finish()
    done.stats.count(result)
    Path(f"{base}.rows").write_bytes(row_of(unit.source.name, result))
    report(unit.size, 1)
    return done
