"""Absence: the functions are gone for four days, and come back.

The run does not wait four days. While no function runs, it moves the jobs' times back, evenly spread over four days.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from local.fault_run.host import Host
from local.fault_run.settling import settle
from local.fault_run.uploads import Uploads
from local.stack import Stack
from shared.worker import THREADS

DAYS: Final = 4
# How often pg_cron ticks while the functions are away.
_TICKS: Final = 20
# Jobs that may be in progress at a time, in any order: two drains' threads for each of the two functions.
ROOM: Final = 2 * 2 * THREADS

_JOBS: Final = (
    "select id::text from ittybit.jobs where name like 'absence/%%' and state <> 'skipped' order by due_at, rule"
)
_AGE: Final = """
with aged as (
  select id, interval '1 day' * %s * (1 - percent_rank() over (order by name)) as by
  from ittybit.jobs where name like 'absence/%%' and finished_at is null
)
update ittybit.jobs as j
set created_at = j.created_at - aged.by, due_at = j.due_at - aged.by
from aged where aged.id = j.id
"""


@dataclass(frozen=True)
class Absence:
    """What happened to the uploads of four days.

    Attributes:
        jobs: How many jobs there were.
        processed: How many of them succeeded.
        out_of_turn: How many overtook an older one by more places than jobs can be in progress at a time.
    """

    jobs: int
    processed: int
    out_of_turn: int


def go_away_for_days(
    stack: Stack, host: Host, load: Uploads, *, uploads: int, seconds: float, say: Callable[[str], None]
) -> Absence:
    """Stop the functions, upload, let four days pass, start them again and wait until everything is processed.

    Raises:
        SettlingError: some jobs have not ended within ``seconds``.
    """
    host.dismiss()
    for number in range(uploads):
        load.upload(f"absence/{number:05}.mp4", f"absence {number} ".encode() * 20)
    stack.sql(_AGE, [DAYS])
    # No function is there to answer these.
    wake_ups = sum(_tick(stack) for _ in range(_TICKS))
    jobs = [job for (job,) in stack.sql(_JOBS)]
    say(f"the functions were away for {DAYS} days: {len(jobs)} jobs wait, {wake_ups} wake-ups by {_TICKS} ticks")
    before = len(stack.ittybit.journal)
    host.bring_back()
    settle(stack, host, seconds=seconds, say=say)
    accepted = [str(entry.idempotency_key).partition(".")[0] for entry in stack.ittybit.journal[before:]]
    [(processed,)] = stack.sql(
        "select count(*) from ittybit.jobs where id::text = any(%s) and state = 'succeeded'", [jobs]
    )
    return Absence(len(jobs), processed, out_of_turn(jobs, accepted, ROOM))


def _tick(stack: Stack) -> int:
    """Make pg_cron's tick, and wait until pg_net has sent its queue."""
    [(sent,)] = stack.sql("select ittybit.wake_functions()")
    while stack.sql("select 1 from net.http_request_queue limit 1"):
        time.sleep(0.05)
    return int(sent)


def out_of_turn(waiting: list[str], accepted: list[str], slack: int) -> int:
    """Count the accepted jobs that overtook one more than ``slack`` places ahead in ``waiting`` (oldest first)."""
    place = {job: number for number, job in enumerate(waiting)}
    late, oldest_left = 0, float("inf")
    for job in reversed([job for job in dict.fromkeys(accepted) if job in place]):
        late += place[job] > oldest_left + slack
        oldest_left = min(oldest_left, place[job])
    return late
