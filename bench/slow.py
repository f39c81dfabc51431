"""Rows 20 to 22: jobs that wait for a slow ittybit, and what the first steps of docs/scale.md change.

pg_net and pg_cron wake the functions, as deployed.
"""

from __future__ import annotations

import statistics
import time

from bench.pipeline import sending, way
from bench.table import Row
from shared.worker import DRAINS, THREADS

ROWS = (20, 21, 22)
SLOW, VERY_SLOW = 1.0, 5.0
# The ceilings of docs/scale.md, and the default ones.
_RAISED = "update ittybit.settings set starts_per_hour = 200000, starts_per_day = 4000000"
_DEFAULT = "update ittybit.settings set starts_per_hour = default, starts_per_day = default"
_ALL = "with DRAIN_SECONDS=2, four processes and parallel_calls = 32"
_TRIED = {
    "with DRAIN_SECONDS=2": {"drain_seconds": 2},
    "with DRAIN_SECONDS=4": {"drain_seconds": 4},
    "with four processes": {"processes": 4},
    "with four processes and parallel_calls = 32": {"processes": 4, "parallel_calls": 32},
    _ALL: {"drain_seconds": 2, "processes": 4, "parallel_calls": 32},
}
_PARALLEL = "update ittybit.settings set parallel_calls = %s"


def measure(small: bool) -> list[Row]:
    """Measure the three rows."""
    waiting, many = (40, 80) if small else (10_000, 40_000)
    slow, very_slow = (_steps(small, delay, waiting) for delay in (SLOW, VERY_SLOW))
    tried = {case: _steps(small, SLOW, many, **changed) for case, changed in _TRIED.items()}
    at_ceiling, after = _ceiling(small)
    name = "starts and checks a second of one process, {:,} jobs waiting, ittybit answering in {:g} s, compared with"
    name += " what its threads allow without a pause"
    return [
        *(
            Row(
                number,
                name.format(waiting, delay),
                ours,
                DRAINS * THREADS / delay,
                ours / (DRAINS * THREADS / delay),
                goal,
                stand_in=True,
            )
            for number, delay, ours, goal in ((20, SLOW, slow, ">= 0.4"), (21, VERY_SLOW, very_slow, ">= 0.7"))
        ),
        Row(
            22,
            f"the same at 1 s, {_ALL}, compared with the defaults",
            tried[_ALL],
            slow,
            tried[_ALL] / slow,
            ">= 4",
            stand_in=True,
            more={
                **{case: rate for case, rate in tried.items() if case != _ALL},
                "starts under the default ceilings": at_ceiling,
                "seconds from raising the ceilings to the next start": after,
            },
        ),
    ]


def _steps(
    small: bool, delay: float, waiting: int, *, drain_seconds: int = 1, processes: int = 1, parallel_calls: int = 8
) -> float:
    """Starts and checks a second, over several of pg_net's batches."""
    with way(small=small, delay=delay, DRAIN_SECONDS=str(drain_seconds), WORKERS=str(processes)) as one:
        one.target.put_backlog(waiting)
        one.target.admin.execute(_PARALLEL, [parallel_calls])
        with sending(one.target):
            moments, steps = [one.upstream.start_arrived()[0]], [0]
            until = time.time() + (0.6 if small else 10 * (delay + drain_seconds))
            while time.time() < until:
                calls = one.upstream.calls()
                moments.append(time.time())
                steps.append(calls["starts"] + calls["checks"])
                time.sleep(0.1)
    # Calls come in batches. The slope of a line through all of them does not depend on when the first batch begins.
    return statistics.linear_regression(moments, steps).slope


def _ceiling(small: bool) -> tuple[int, float]:
    """How many jobs start under the default ceilings, and how long after raising them the next one starts."""
    with way(small=small, delay=0) as one:
        one.target.put_backlog(1100 if small else 3000)
        one.target.admin.execute(_DEFAULT)
        with sending(one.target):
            for _ in range(1000):
                one.upstream.start_arrived()
            time.sleep(0 if small else 10)  # two of pg_cron's intervals
            started = one.upstream.calls()["starts"]
            one.target.admin.execute(_RAISED)
            raised = time.time()
            for _ in range(started - 1000 + 1):
                after = one.upstream.start_arrived()[0] - raised
    return started, after
