"""Rows 23 and 24: 100,000 started runs of an hour's age, each to be checked once a minute."""

from __future__ import annotations

import time

from bench.database import BUCKET
from bench.pipeline import sending, way
from bench.side_by_side import cpu_seconds
from bench.table import Row

ROWS = (23, 24)
MINUTE = 60
# Started long ago, and their next checks spread over the minute, as they are after the first ones.
_STARTED = """
insert into ittybit.jobs (
  rule, bucket_id, name, version, etag, size, action, function, state, attempt, ittybit_id,
  due_at, started_at, progressed_at
)
select
  'rule-0', %s, format('clips/%%s.mp4', n), gen_random_uuid()::text, md5(n::text), 300000,
  '{"automation_id": "auto_1"}', 'on-upload', 'started', 1, 'runs/run_' || n,
  now() + (n - 1) * interval '1 minute' / %s, now() - interval '1 hour', now()
from generate_series(1, %s) as n
"""
_BACKENDS = "select array_agg(pid) from pg_stat_activity where usename = 'authenticator'"
_BEHIND = """
select extract(epoch from clock_timestamp() - j.due_at)::float8 from ittybit.jobs as j
where j.function = 'on-upload' and ittybit.priority(j.state, j.in_doubt_since, j.backfill) = 1 and j.due_at <= now()
order by j.due_at limit 1
"""


def measure(small: bool) -> list[Row]:
    """Measure both rows in one run: long enough for every run to be checked twice, or as often as it can be."""
    runs, length = (100, 2.0) if small else (100_000, 180.0)
    behind: list[float] = []
    with way(small=small, delay=0.05) as one:
        one.target.admin.execute(_STARTED, [BUCKET, runs, runs])
        one.target.admin.execute("vacuum (analyze) ittybit.jobs")
        backends = one.target.one(_BACKENDS)
        function, database = cpu_seconds(one.function.processes), cpu_seconds(backends)
        began = time.monotonic()
        with sending(one.target):
            while (took := time.monotonic() - began) < length or not one.upstream.calls()["checks"]:
                time.sleep(0.5)
                # Until the first round is over, runs are less behind than they will be.
                if took > length / 2:
                    behind.append(one.target.one(_BEHIND) or 0.0)
            behind.append(one.target.one(_BEHIND) or 0.0)
            checks = one.upstream.calls()["checks"]
            function = (cpu_seconds(one.function.processes) - function) / took
            database = (cpu_seconds(backends) - database) / checks
    asked_for = runs / MINUTE
    return [
        Row(
            23,
            f"processor time of the database for what {runs:,} started runs ask for in a second, beside one core (ms)",
            database * asked_for * 1000,
            1000,
            database * asked_for,
            "<= 0.5",
            stand_in=True,
            more={"a check's claim and report (µs)": database * 1e6, "checks asked for in a second": asked_for},
        ),
        Row(
            24,
            f"longest time between two checks of one of {runs:,} started runs, one process, beside the schedule's (s)",
            MINUTE + max(behind),
            MINUTE,
            (MINUTE + max(behind)) / MINUTE,
            "<= 1.5",
            stand_in=True,
            more={"checks a second": checks / took, "of its core the function used": function},
        ),
    ]
