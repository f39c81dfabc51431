"""Rows 5 and 6: a tick of the sender beside ten million finished jobs, and what the ledger keeps of an upload."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import LiteralString

from psycopg import sql

from bench.database import BUCKET, OURS, TASK, Database, database
from bench.side_by_side import in_turns, ratio, seconds
from bench.table import Row

ROWS = (5, 6)
DUE = 100

# Finished long ago, in the order in which they came; keys and ids as long as real ones.
_FINISHED = """
insert into ittybit.jobs (
  rule, bucket_id, name, version, etag, size, automation_id, state, attempt, claimed, reported, ittybit_id, progress,
  outputs, created_at, started_at, progressed_at, finished_at
)
select
  'clips', 'media', format('clips/2026/%%s.mp4', n), gen_random_uuid()::text, md5(n::text), 300000, 'auto_1',
  'succeeded', 2, 2, 0, 'run_' || md5(n::text), 100,
  array[format('https://storage.ittybit.com/%%s/out.mp4', md5(n::text))],
  now() - interval '1 year' + n * interval '1 second', now(), now(), now()
from generate_series(%s, %s, 2) as n
"""
_INDEXES = "select indexname, indexdef from pg_indexes where schemaname = 'ittybit' and tablename = 'jobs'"


def measure(small: bool) -> list[Row]:
    """Measure both rows."""
    many, few, uploads = (2000, 100, 50) if small else (10_000_000, 1000, 10_000)
    with (
        database(shared_buffers="1GB", maintenance_work_mem="1GB", max_wal_size="16GB", autovacuum="off") as large,
        database(shared_buffers="1GB", autovacuum="off") as ordinary,
    ):
        _fill(large, many)
        _fill(ordinary, few)
        times = in_turns({"many": _tick(large), "few": _tick(ordinary)}, 3 if small else 41)
        size = _bytes_an_upload(ordinary, uploads)
    return [
        Row(
            5,
            f"a tick of the sender, {DUE} jobs due, {many:,} finished ones beside them, or {few:,} (ms)",
            statistics.median(times["many"]) * 1000,
            statistics.median(times["few"]) * 1000,
            ratio(times["many"], times["few"]),
            "<= 1.5",
            stand_in=True,
        ),
        size,
    ]


def _fill(target: Database, count: int) -> None:
    """Give the ledger that many finished jobs, as autovacuum leaves them."""
    target.rules((BUCKET, "clips/**", "video/*"))
    target.use(OURS)
    indexes = target.admin.execute(_INDEXES).fetchall()
    # Made afterwards they take a third of the time.
    target.admin.execute("alter table ittybit.jobs drop constraint jobs_pkey")
    for name, _ in indexes:
        target.admin.execute(sql.SQL("drop index if exists ittybit.{}").format(sql.Identifier(name)))
    with ThreadPoolExecutor(2) as pool, target.another() as one, target.another() as other:
        list(pool.map(lambda half: half[0].execute(_FINISHED, [half[1], count]), [(one, 1), (other, 2)]))
    for _, definition in indexes:
        target.admin.execute(definition.encode())
    target.admin.execute("alter table ittybit.jobs add primary key using index jobs_pkey")
    target.admin.execute("vacuum (analyze) ittybit.jobs")


def _tick(target: Database) -> Callable[[], float]:
    """Seconds for one tick that finds the same jobs due as the tick before."""

    def run() -> float:
        with target.admin.transaction():
            target.admin.execute("delete from ittybit.jobs where name like 'due/%'")
            target.admin.execute(
                "insert into ittybit.jobs (rule, bucket_id, name, version, automation_id, due_at)"
                " select 'rule-0', %s, 'due/' || n, gen_random_uuid(), 'auto_1', now() from generate_series(1, %s) n",
                [BUCKET, DUE],
            )
            target.admin.execute("truncate net.http_request_queue")
        sent: list[object] = []
        took = seconds(lambda: sent.append(target.admin.execute("select ittybit.send_due()").fetchone()))
        if sent != [(DUE,)]:
            raise RuntimeError(f"the tick sent {sent}, not {DUE}")
        return took

    return run


# What the sender does to a job that it sends.
_SEND = "update ittybit.jobs set attempt = attempt + 1, due_at = now() + ittybit.lease(), request_id = 1 where id = %s"
_CLAIM = "select public.ittybit_claim(%s, %s)"
_STARTED = "select public.ittybit_report(%s, %s, 'started', %s)"
_SUCCEEDED = "select public.ittybit_report(%s, %s, 'succeeded', %s, outputs => %s)"
_STEPS: tuple[LiteralString, ...] = (_CLAIM, _STARTED, _SEND, _CLAIM, _SUCCEEDED)


def _bytes_an_upload(target: Database, uploads: int) -> Row:
    """Bytes of ledger that an upload leaves when its job has succeeded, the indexes and autovacuum's share included."""
    sizes = {}
    for kind, statement, action in (
        ("task", "update ittybit.rules set automation_id = null, task = %s", json.dumps(TASK)),
        ("automation", "update ittybit.rules set automation_id = %s, task = null", "auto_0123456789abcdef"),
    ):
        target.empty()
        target.admin.execute(statement, [action])
        dead = 0
        for number in range(50):
            _live(target, number, uploads // 50)
            # When autovacuum comes, by its default settings.
            dead += len(_STEPS) * (uploads // 50)
            if dead > 50 + 0.2 * (number + 1) * (uploads // 50):
                target.admin.execute("vacuum ittybit.jobs, ittybit.outputs")
                dead = 0
        row = target.admin.execute(
            "select sum(pg_total_relation_size(t)) from unnest(%s::regclass[]) as t",
            [["ittybit.jobs", "ittybit.outputs", "ittybit.starts"]],
        ).fetchone()
        sizes[kind] = float(row[0]) / uploads if row else 0.0
    return Row(
        6,
        "bytes of ledger an upload leaves, its job a task",
        sizes["task"],
        None,
        sizes["task"],
        "<= 800",
        stand_in=False,
        more={"its job an automation (bytes)": sizes["automation"]},
    )


def _live(target: Database, number: int, uploads: int) -> None:
    """Store objects and bring their jobs to their end, by every update that this takes."""
    target.put(*(f"clips/2026/{number}-{upload}.mp4" for upload in range(uploads)))
    jobs = [job for (job,) in target.admin.execute("select id from ittybit.jobs where state = 'queued'").fetchall()]
    if len(jobs) != uploads:
        raise RuntimeError(f"{uploads} uploads made {len(jobs)} jobs")
    output = ["s3://media/processed/clips/2026/0-720p.mp4"]
    parameters: tuple[list[list[object]], ...] = (
        [[job, 1] for job in jobs],
        [[job, 1, f"task_{job.hex[:20]}"] for job in jobs],
        [[job] for job in jobs],
        [[job, 2] for job in jobs],
        [[job, 2, f"task_{job.hex[:20]}", json.dumps(output)] for job in jobs],
    )
    for step, values in zip(_STEPS, parameters, strict=True):
        target.admin.cursor().executemany(step, values)
