"""Row 12: how many jobs a second one connection claims and reports without pauses; commits wait for the disk."""

from __future__ import annotations

import json
import statistics
import time
from typing import Any, Self

import psycopg

from bench.database import BUCKET, Database, database
from bench.side_by_side import LOADING, SERVING, cpu_seconds, in_turns, pin, pinned
from bench.table import Row
from shared.ledger import FunctionName

ROWS = (12,)
PROJECT = "https://ref.supabase.co"
BATCH = 50

_CLAIM = "select public.ittybit_claim(function => %s, project => %s, jobs => %s, reports => %s::text::jsonb)::text"
# Finished jobs in the order of their uploads, from a year ago on. Keys and ids are as long as real ones.
_FINISHED = """
insert into ittybit.jobs (
  rule, bucket_id, name, version, etag, size, action, function, state, attempt, ittybit_id, progress, outputs,
  created_at, started_at, progressed_at, finished_at
)
select
  'rule-0', %s, format('former/%%s.mp4', n), gen_random_uuid()::text, md5(n::text), 300000,
  '{"automation_id": "auto_1"}', 'on-upload', 'succeeded', 2, 'runs/run_' || md5(n::text), 100,
  array[format('https://storage.ittybit.com/%%s/out.mp4', md5(n::text))],
  now() - interval '1 year' + n * interval '1 second', now(), now(), now()
from generate_series(1, %s) as n
"""


class Caller:
    """A connection that claims jobs and reports them with the next claim, as a function does.

    Attributes:
        cpu_a_job: processor seconds of its database process for each job of the last ``work``.
    """

    def __init__(self, target: Database, function: FunctionName = "on-upload", project: str = PROJECT) -> None:
        self._function = function
        self._project = project
        self.connection = target.another()
        self._reports: list[dict[str, Any]] = []
        self.cpu_a_job = 0.0
        pin(SERVING, self.connection.info.backend_pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.connection.close()

    def work(self, jobs: int, batch: int) -> float:
        """Claim and report that many jobs; return the rate a second."""
        done = 0
        busy = cpu_seconds([self.connection.info.backend_pid])
        began = time.perf_counter()
        while done < jobs:
            claimed = self.claim(batch)
            if not claimed:
                raise RuntimeError("nothing is due any more")
            done += len(claimed)
        took = time.perf_counter() - began
        self.cpu_a_job = (cpu_seconds([self.connection.info.backend_pid]) - busy) / done
        return done / took

    def claim(self, batch: int) -> list[dict[str, Any]]:
        """Claim jobs and keep their reports for the next claim: every start is instant, every check finds success."""
        values = [self._function, self._project, batch, json.dumps(self._reports)]
        row = self.connection.execute(_CLAIM, values, prepare=True).fetchone()
        answer = json.loads(row[0]) if row else {}
        if refused := [report for report in answer["reports"] if "refused" in report]:
            raise RuntimeError(f"refused: {refused}")
        jobs: list[dict[str, Any]] = answer["jobs"]
        self._reports = [self._report(job) for job in jobs]
        return jobs

    def _report(self, job: dict[str, Any]) -> dict[str, Any]:
        report = {name: job[name] for name in ("job", "generation", "attempt")}
        if job["step"] == "check":
            return {**report, "outcome": "succeeded", "ittybit_id": job["ittybit_id"]}
        return {**report, "outcome": "started", "ittybit_id": f"runs/{job['job']}"}


def measure(small: bool) -> list[Row]:
    """Measure the row, and the lower rate under a snapshot."""
    open_rows, finished, jobs, rounds = (600, 100, 100, 1) if small else (100_000, 1_000_000, 5000, 5)
    with (
        database(durable=True, shared_buffers="512MB", max_wal_size="8GB") as target,
        database(durable=True, shared_buffers="512MB", max_wal_size="8GB") as large,
        pinned(LOADING),
    ):
        for one, count in ((target, 0), (large, finished)):
            _fill(one, open_rows, count)
        with Caller(target) as caller, Caller(large) as large_caller:
            caller.work(BATCH, BATCH)
            large_caller.work(BATCH, BATCH)
            rates = in_turns(
                {
                    "50": lambda: caller.work(jobs, BATCH),
                    "large": lambda: large_caller.work(jobs, BATCH),
                    "1": lambda: caller.work(max(1, jobs // 10), 1),
                },
                rounds,
            )
            cpu_a_job = large_caller.cpu_a_job
        target.empty()
        _fill(target, open_rows, 0)
        with Caller(target) as caller:
            held = _under_a_snapshot(target, caller, jobs)
            held_cpu = caller.cpu_a_job
    rate, large_rate = statistics.median(rates["50"]), statistics.median(rates["large"])
    return [
        Row(
            12,
            f"jobs claimed and reported a second, {BATCH} a call, compared with one a call, without pauses,"
            f" {open_rows:,} open jobs; ratio: the jobs, with many finished ones; at least 1,500 under a snapshot",
            rate,
            statistics.median(rates["1"]),
            min(rate, large_rate),
            ">= 4000",
            stand_in=False,
            holds=small or held >= 1500,
            more={
                f"with {finished:,} finished jobs": large_rate,
                f"the last {jobs:,} of {8 * jobs:,} jobs under one snapshot": held,
                "processor time of the database for a job, with the finished jobs (µs)": cpu_a_job * 1e6,
                "processor time of the database for a job, under the snapshot (µs)": held_cpu * 1e6,
            },
        )
    ]


def _fill(target: Database, open_rows: int, finished: int) -> None:
    target.rules((BUCKET, "clips/**", "video/*"))
    target.admin.execute(_FINISHED, [BUCKET, finished])
    target.put_backlog(open_rows)
    target.admin.execute("checkpoint")


def _under_a_snapshot(target: Database, caller: Caller, jobs: int) -> float:
    """The rate after many jobs, while a snapshot keeps their old row versions from being removed."""
    with target.another() as other:
        other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with other.transaction():
            other.execute("select count(*) from ittybit.settings")
            caller.work(7 * jobs if jobs > 1000 else jobs, BATCH)
            return caller.work(jobs, BATCH)
