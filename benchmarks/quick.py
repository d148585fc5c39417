"""Print what the package costs beside the loop by hand and beside `bare`, in a minute.

`quick.py [--only WORDS]` prints each row of rows.py as soon as it is measured; run.py asks for the
same as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # the package of this tree, whatever is installed
    sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import report
import rows


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", metavar="WORDS", help="rows with these words")
    parser.add_argument("--all", action="store_true", help="the slow rows, too")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each row")
    parser.add_argument("--json", action="store_true", help="print one JSON list")
    options = parser.parse_args()
    printed = []
    for row in measured(options.only, options.all, options.seconds):
        if options.json:
            print(row["group"], row["name"], file=sys.stderr)
        else:
            print(line(row), flush=True)
        printed.append(row)
    if options.json:
        json.dump(printed, sys.stdout)
    else:
        print(sum("missed" in line(row) for row in printed), "missed")


def measured(only: str, slow: bool, seconds: float) -> Iterator[dict[str, Any]]:
    """Yield the figure of each row that is asked for."""
    times: dict[str, rows.Times] = {}
    for row in rows.ROWS:
        if only not in f"{row.group}: {row.name}, {row.against}" or (row.slow and not slow):
            continue
        about = (row.group, row.name, row.against, row.reach)
        key = repr(row.case)
        try:
            if key not in times:
                times[key] = rows.measure(row.case(), seconds)
        except (AssertionError, ImportError, FileNotFoundError) as error:
            yield report.row(*about, None, f"{type(error).__name__}: {error}")
            continue
        taken = times[key]
        ours, theirs = (1e6 * sum(each) / taken.chunks for each in (taken.ours, taken.theirs))
        yield report.row(*about, row.figure(taken), f"{ours:.2f} / {theirs:.2f} us")


def line(row: dict[str, Any]) -> str:
    """Return a row as a line of text."""
    label = f"{row['group']}: {row['name']}"
    if row["figure"] is None:
        return f"{label:68} missed, {row['beside']}"
    mark = "  missed" if row["figure"] > row["reach"] else ""
    reach = f"{row['figure']:6.2f} of {row['reach']:4.2f} x {row['against']:16}"
    return f"{label:68}{reach} {row['beside']:>16}{mark}"


if __name__ == "__main__":
    main()
