"""The checks after a run: an idle hour makes no call, and every object is explained."""

from __future__ import annotations

from typing import Final

import psycopg

from local.fault_run.uploads import BUCKET
from local.stack import Stack

# As pg_cron runs them: the wake-up every 5 s, sweep and backfill every 10 s, the housekeeping once an hour.
_WAKE_UPS: Final = 720
_PAGES: Final = 360
_ROUNDS: Final = "select rounds from ittybit.sweep"
# The objects, present or deleted, for which explain() has no answer under some rule.
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
    """Make an hour of pg_cron's ticks at once.

    The sweep stops after one whole round: another one would find the same.
    """
    with psycopg.connect(stack.postgres.dsn("postgres"), autocommit=True) as connection:
        for _ in range(_WAKE_UPS):
            connection.execute("select ittybit.wake_functions()")
        [(rounds,)] = connection.execute(_ROUNDS)
        for _ in range(_PAGES):
            connection.execute("select ittybit.sweep_page(), ittybit.backfill_page()")
            if connection.execute(_ROUNDS).fetchall() >= [(rounds + 2,)]:
                break
        connection.execute("select ittybit.tidy()")


def unexplained(stack: Stack) -> list[str]:
    """The keys of objects, present or deleted, for which ``ittybit.explain`` has no answer under some rule."""
    return [name for (name,) in stack.sql(_UNEXPLAINED, {"bucket": BUCKET})]
