"""Rows 23 and 24: 100,000 runs that started an hour ago, each due for a check once a minute."""

from __future__ import annotations

import time

from bench.database import BUCKET
from bench.pipeline import sending, way
from bench.side_by_side import cpu_seconds
from bench.table import Row

ROWS = (23, 24)
MINUTE = 60
# Runs that started an hour ago. Their next checks are spread over the minute, as after the first checks.
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
where j.function = 'on-upload' and j.due_at <= now()
  and ittybit.kind(j.state, j.in_doubt_since, j.backfill, j.lost, j.claimed_at) = 1
order by j.due_at limit 1
"""


def measure(small: bool) -> list[Row]:
    """Measure both rows in one run, long enough to check every run twice if the function keeps up."""
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
                # The delay is still growing until every run has been checked once.
                if took > length / 2:
                    behind.append(one.target.one(_BEHIND) or 0.0)
            behind.append(one.target.one(_BEHIND) or 0.0)
            checks = one.upstream.calls()["checks"]
            function = (cpu_seconds(one.function.processes) - function) / took
            database = (cpu_seconds(backends) - database) / checks
    due = runs / MINUTE
    return [
        Row(
            23,
            f"processor time of the database for a second's checks of {runs:,} started runs, compared with a core (ms)",
            database * due * 1000,
            1000,
            database * due,
            "<= 0.5",
            stand_in=True,
            more={"a check's claim and report (µs)": database * 1e6, "checks due in a second": due},
        ),
        Row(
            24,
            f"longest time between two checks of a run, {runs:,} started, one process, compared with the schedule (s)",
            MINUTE + max(behind),
            MINUTE,
            (MINUTE + max(behind)) / MINUTE,
            "<= 1.5",
            stand_in=True,
            more={"checks a second": checks / took, "share of its core that the function used": function},
        ),
    ]
