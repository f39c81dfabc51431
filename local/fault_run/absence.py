"""The second scenario: the function host is gone for four days, and comes back.

The days are not waited for: with no function alive, all rows of the time are moved back, evenly over the four days.
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

DAYS: Final = 4
# How often those are called that wait.
_KNOCKS: Final = 4
# How many calls may be under way at once: the first so many of those that wait go together.
ROOM: Final = 10

_JOBS: Final = (
    "select id::text from ittybit.jobs where name like 'absence/%%' and state <> 'skipped' order by name, rule"
)
_AGE: Final = """
with aged as (
  select id, interval '1 day' * %s * (1 - percent_rank() over (order by name)) as by
  from ittybit.jobs where name like 'absence/%%' and finished_at is null
)
update ittybit.jobs as j
set
  created_at = j.created_at - aged.by,
  due_at = j.due_at - aged.by,
  failing_since = j.failing_since - aged.by
from aged where aged.id = j.id
"""
_END_LEASES: Final = "update ittybit.jobs set due_at = due_at - ittybit.lease() where due_at > now()"


@dataclass(frozen=True)
class Absence:
    """What became of the uploads of four days.

    Attributes:
        jobs: How many there were.
        processed: How many of them succeeded.
        out_of_turn: How many ittybit accepted before another that was older by more than fits in two rounds of calls.
    """

    jobs: int
    processed: int
    out_of_turn: int


def go_away_for_days(
    stack: Stack, host: Host, load: Uploads, *, uploads: int, seconds: float, say: Callable[[str], None]
) -> Absence:
    """Stop the functions, upload, let four days pass, start them again and see everything processed.

    Raises:
        SettlingError: not everything is within ``seconds``.
    """
    [(former_room,)] = stack.sql("select unanswered_calls from ittybit.settings")
    stack.sql("update ittybit.settings set unanswered_calls = %s", [ROOM])
    host.dismiss()
    for number in range(uploads):
        load.upload(f"absence/{number:05}.mp4", f"absence {number} ".encode() * 20)
    stack.sql(_AGE, [DAYS])
    # Knocking on a closed door: each time the leases have run out.
    for _ in range(_KNOCKS):
        stack.sql("select ittybit.send_due()")
        _until_sent(stack)
        stack.sql(_END_LEASES)
    jobs = [job for (job,) in stack.sql(_JOBS)]
    say(f"the functions were away for {DAYS} days: {len(jobs)} jobs wait")
    before = len(stack.ittybit.journal)
    host.bring_back()
    settle(stack, host, seconds=seconds, say=say)
    stack.sql("update ittybit.settings set unanswered_calls = %s", [former_room])
    accepted = [str(entry.idempotency_key).partition(".")[0] for entry in stack.ittybit.journal[before:]]
    [(processed,)] = stack.sql(
        "select count(*) from ittybit.jobs where id::text = any(%s) and state = 'succeeded'", [jobs]
    )
    return Absence(len(jobs), processed, out_of_turn(jobs, accepted, 2 * ROOM))


def _until_sent(stack: Stack) -> None:
    """Wait until pg_net has tried what it was given."""
    while stack.sql("select 1 from net.http_request_queue limit 1"):
        time.sleep(0.05)


def out_of_turn(waiting: list[str], accepted: list[str], slack: int) -> int:
    """Count the accepted that came before another more than ``slack`` places older in ``waiting``, the oldest first."""
    place = {job: number for number, job in enumerate(waiting)}
    late, oldest_left = 0, float("inf")
    for job in reversed([job for job in dict.fromkeys(accepted) if job in place]):
        late += place[job] > oldest_left + slack
        oldest_left = min(oldest_left, place[job])
    return late
