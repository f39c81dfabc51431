"""Row 13: the row versions, index entries and bytes that a job writes to the ledger, from its upload to its success."""

from __future__ import annotations

import json
import time

from bench.claims import Caller
from bench.database import BUCKET, OURS, TASK, Database, database
from bench.table import Row
from shared.ledger import FunctionName

ROWS = (13,)
BATCH = 50
# How many jobs are open at once: a check comes five seconds after its start.
GROUP = 2000
# The write-ahead log has a record for each row version and each index entry. This counts those of the tables that have
# rows for each job. An entry that does not fit splits its page: that record counts too. (pg_walinspect: PostgreSQL 15.)
_WRITTEN = """
with record as (
  select
    w.resource_manager,
    w.record_type,
    (regexp_match(w.block_ref, 'rel \\d+/\\d+/(\\d+)'))[1]::oid as file
  from pg_get_wal_records_info(%s, pg_current_wal_flush_lsn()) as w
)
select
  count(*) filter (where r.resource_manager = 'Heap' and r.record_type ~ '^(INSERT|UPDATE|HOT_UPDATE)'),
  count(*) filter (where r.resource_manager = 'Btree' and r.record_type ~ '^(INSERT_(LEAF|POST)|SPLIT_)')
from record as r
join pg_class as c on pg_relation_filenode(c.oid) = r.file
left join pg_index as i on i.indexrelid = c.oid
where coalesce(i.indrelid, c.oid) in ('ittybit.jobs'::regclass, 'ittybit.outputs'::regclass)
"""
_SIZE = "select sum(pg_total_relation_size(t)) from unnest('{ittybit.jobs,ittybit.outputs}'::regclass[]) as t"
_SUCCEEDED = "select count(*) from ittybit.jobs where state = 'succeeded' and attempt = 2"


def measure(small: bool) -> list[Row]:
    """Measure the row with an automation's jobs. ``more`` has a task's jobs, whose results are stored as well."""
    uploads = 50 if small else 10_000
    with database(shared_buffers="1GB", max_wal_size="4GB", autovacuum="off") as target:
        target.admin.execute("create extension pg_walinspect")
        target.rules((BUCKET, "clips/**", "video/*"))
        target.use(OURS)
        versions, entries, size = _job(target, uploads, "on-upload")
        target.admin.execute("update ittybit.rules set automation_id = null, task = %s", [json.dumps(TASK)])
        of_task = _job(target, uploads, "push-back")
    return [
        Row(
            13,
            "row versions written for a job, from its upload to succeeded, with one check; at most 15 index entries",
            versions,
            None,
            versions,
            "<= 5",
            stand_in=False,
            holds=entries <= 15,
            more={
                "index entries": entries,
                "bytes left in the ledger, indexes included": size,
                "for a task whose result is stored: row versions": of_task[0],
                "for a task whose result is stored: index entries": of_task[1],
                "for a task whose result is stored: bytes left": of_task[2],
            },
        )
    ]


def _job(target: Database, uploads: int, function: FunctionName) -> tuple[float, float, float]:
    """The row versions and index entries written for a job, and the bytes left."""
    target.empty()
    with Caller(target, function) as caller:
        written = _written(target, uploads, caller, function)
    return written[0] / uploads, written[1] / uploads, float(target.one(_SIZE)) / uploads


def _written(target: Database, uploads: int, caller: Caller, function: FunctionName) -> tuple[int, int]:
    """Run that many jobs to their end; return how many row versions and index entries that wrote."""
    target.admin.execute("checkpoint")
    began = target.one("select pg_current_wal_flush_lsn()")
    group = min(uploads, GROUP)
    for number in range(0, uploads, group):
        names = [f"{number + upload}" for upload in range(group)]
        target.put(*(f"clips/2026/{name}.mp4" for name in names))
        _drain(caller)
        if function == "push-back":
            target.put(*(f"processed/clips/2026/{name}-720p.mp4" for name in names))
        while target.one(_SUCCEEDED) != number + group:
            _drain(caller)
            time.sleep(0.1)
        # As autovacuum does by default when a fifth of the rows is dead.
        target.admin.execute("vacuum ittybit.jobs, ittybit.outputs")
    written = target.admin.execute(_WRITTEN, [began]).fetchone()
    if written is None:
        raise RuntimeError("nothing was written")
    return int(written[0]), int(written[1])


def _drain(caller: Caller) -> None:
    while caller.claim(BATCH):
        pass
