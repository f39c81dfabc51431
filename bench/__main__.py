"""``python -m bench``: measure every row, print one table, and write it to build/bench.json."""

from __future__ import annotations

import argparse
import importlib
import sys
import time

from bench import table
from deploy.output import while_read
from local.disk_space import DiskSpaceError, check_disk_space

# In the order in which they run. The ROWS of each are the rows that it measures.
PROGRAMS = (
    *("uploads", "burst", "warm", "end_to_end", "hanging", "claims", "ledger_writes", "cold_start", "backfill"),
    *("concurrency", "slow", "checks", "waiting"),
)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.partition(": ")[2])
    parser.add_argument(
        "--rows",
        type=row_numbers,
        default=frozenset(),
        help="only these, such as 1,2 (a program's rows are measured together)",
    )
    parser.add_argument("--small", action="store_true", help="the smallest size, to see that the programs work")
    parser.add_argument("--write-docs", action="store_true", help="write the rows into docs/performance.md's table")
    options = parser.parse_args(arguments)
    wanted = options.rows
    programs = {name: importlib.import_module(f"bench.{name}") for name in PROGRAMS}
    known = {row for program in programs.values() for row in program.ROWS}
    if wanted - known:
        parser.error(f"there is no row {min(wanted - known)}: there are {min(known)} to {max(known)}")
    try:
        check_disk_space(table.JSON.parent)
    except DiskSpaceError as error:
        parser.error(str(error))
    rows: list[table.Row] = []
    for name, program in programs.items():
        if wanted and not wanted & set(program.ROWS):
            continue
        began = time.monotonic()
        print(f"{name} …", end=" ", file=sys.stderr, flush=True)
        rows += [row for row in program.measure(options.small) if not wanted or row.row in wanted]
        print(f"{time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    rows.sort(key=lambda row: row.row)
    print(table.markdown(rows), end="")
    table.write_json(rows)
    if options.write_docs:
        table.write_document(rows)
    return 0


def row_numbers(text: str) -> frozenset[int]:
    """Read numbers such as ``1,2``."""
    return frozenset(int(number) for number in text.split(",") if number)


if __name__ == "__main__":
    sys.exit(while_read(main))
