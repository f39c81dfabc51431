"""The command: ``python -m local faults``."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from local.fault_run.plan import PACE
from local.fault_run.run import run
from local.fault_run.settling import SettlingError
from local.fault_run.uploads import LoadError
from local.functions import ROOT
from shared.ittybit import GENERATIONS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run once, print and write the report; return 0 if every promise was kept, else 1."""
    parser = argparse.ArgumentParser(prog="python -m local faults", description="The stack under load and faults.")
    parser.add_argument("--uploads", type=int, default=300, help="how many objects (300)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed plans the same load and faults (1)")
    parser.add_argument(
        "--pace", type=float, default=PACE, help="at most so many changes of objects a second (%(default)s)"
    )
    parser.add_argument("--ignore-idempotency", action="store_true", help="ittybit ignores Idempotency-Key")
    parser.add_argument("--api", choices=GENERATIONS, default="automations", help="the API that ittybit speaks")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "faults.json", help="(build/faults.json)")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    # psycopg would log each lost connection, and this run kills the database on purpose.
    logging.getLogger("psycopg").setLevel(logging.ERROR)

    def say(line: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {line}", flush=True)

    try:
        report = run(
            options.uploads,
            options.seed,
            pace=options.pace,
            api=options.api,
            ignore_idempotency=options.ignore_idempotency,
            say=say,
        )
    except (SettlingError, LoadError, ValueError) as error:
        print(f"\nfaults: {error}", file=sys.stderr)
        return 1
    report.write(options.out)
    print(f"\n{report.table()}")
    return 0 if report.is_good else 1
