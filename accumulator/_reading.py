"""A unit's rows as far as it can be read, with what is to be told of it on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO

import msgspec

from ._alike import AlikeRows
from ._inputs import READ_ERRORS, Unit, why_unread
from ._records import Done, Plan
from ._rows import BadRow, RowReader, Rows

__all__ = ["Report", "UnitRows"]

_REPORTED = 1024 * 1024  # bytes; to tell it costs as much as to reduce a few hundred rows
Report = Callable[[int, int], None]  # bytes and streams since the last one


class UnitRows:
    """The rows of a unit. What is no row is written to `bad`, and all is counted in `done`."""

    def __init__(
        self,
        plan: Plan,
        unit: Unit,
        bad: IO[bytes],
        done: Done,
        report: Report,
        *,
        alike: bool = False,
    ) -> None:
        self._bad = bad
        self._done = done
        self._report = report
        self._reader = RowReader(unit, plan.keys, self._tell, alike=alike)

    def _tell(self, row: BadRow) -> None:
        self._done.stats.bad_rows += 1
        self._bad.write(msgspec.json.encode(row) + b"\n")

    def __iter__(self) -> Iterator[Rows | AlikeRows]:
        done, reader = self._done, self._reader
        position = 0
        blocks = iter(reader)
        while True:
            try:
                rows = next(blocks, None)
            except READ_ERRORS as error:
                done.unread = why_unread(error)
                break
            if rows is None:
                break
            done.stats.rows += rows.count
            yield rows
            # Not within the `try`: that the parent is gone says nothing of the file.
            if reader.position - position >= _REPORTED:
                self._report(reader.position - position, 0)
                position = reader.position
        self._report(reader.position - position, 0)
        done.lines = reader.lines
