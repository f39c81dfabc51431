"""The checks after a run: an idle hour makes no call, and every object is explained."""

from __future__ import annotations

from typing import Final

import psycopg

from local.fault_run.uploads import BUCKET
from local.stack import Stack

# As pg_cron runs them: the wake-up every 5 s, sweep and backfill every 10 s, the housekeeping once an hour.
_HOUR: Final = (
    ("select ittybit.wake_functions()", 720),
    ("select ittybit.sweep_page(), ittybit.backfill_page()", 360),
    ("select ittybit.tidy()", 1),
)
# Of everything that the ledger or the bucket has, what explain() does not give a reason for under every rule.
_UNEXPLAINED: Final = """
select o.name
from (
  select name from storage.objects where bucket_id = %(bucket)s
  union
  select name from ittybit.jobs where bucket_id = %(bucket)s
) as o
where (select array_agg(r.name order by r.name) from ittybit.rules as r) is distinct from (
  select array_agg(distinct e.rule) from ittybit.explain(%(bucket)s, o.name) as e where e.because is not null
)
order by o.name
"""


def idle_hour(stack: Stack) -> None:
    """Make an hour of pg_cron's ticks at once."""
    with psycopg.connect(stack.postgres.dsn("postgres"), autocommit=True) as connection:
        for statement, times in _HOUR:
            for _ in range(times):
                connection.execute(statement)


def unexplained(stack: Stack) -> list[str]:
    """The keys of objects, there or gone, for which a rule has no explanation."""
    return [name for (name,) in stack.sql(_UNEXPLAINED, {"bucket": BUCKET})]
